/* recvmsg, sendmsg, recv, send: tables of octets and buffers. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lua/socket/data.h"
#include "lua/socket/socket_private.h"

/* What the caller may not ask for: the kernel would go on reading a script's memory behind our back. */
#define FLAGS_REFUSED MSG_ZEROCOPY

/* --- receiving --- */

/* On the stack: socket, msghdr or nil, buffer or nil, flags, capacity; behind a call to the kernel, the table that its
 * octets go into, or nil. */
enum receive_place { RECEIVE_HEADER = 2, RECEIVE_BUFFER, RECEIVE_FLAGS, RECEIVE_CAPACITY, RECEIVE_TABLE };

/* Where octets wait that become a table: no coroutine leaves them here when it waits, and between the kernel's call and
 * the table nothing is allocated that would let Lua run, because a finalizer may receive, too. */
static uint8_t scratch[SOCKET_TABLE_MAX];

/* msghdr.name = {addr, port}: of the datagram, else of the peer. */
static void write_name(lua_State *L, const struct msghdr *message)
{
    lua_createtable(L, 0, 2);
    int values = address_push(L, message->msg_name, message->msg_namelen);
    if (values == 2) lua_setfield(L, -3, "port");
    if (values > 0) lua_setfield(L, -2, "addr");
    lua_setfield(L, RECEIVE_HEADER, "name");
}

static void write_header(lua_State *L, const struct msghdr *message)
{
    lua_pushvalue(L, RECEIVE_CAPACITY);
    lua_setfield(L, RECEIVE_HEADER, "iov_len");
    lua_pushinteger(L, message->msg_flags & ~(MSG_CMSG_CLOEXEC));
    lua_setfield(L, RECEIVE_HEADER, "flags");
    write_name(L, message);
}

static int push_received(lua_State *L, const struct msghdr *message, size_t size)
{
    size_t capacity = message->msg_iov->iov_len;
    lua_pushvalue(L, lua_isnil(L, RECEIVE_BUFFER) ? RECEIVE_TABLE : RECEIVE_BUFFER);
    if (lua_isnil(L, RECEIVE_BUFFER)) /* with MSG_TRUNC the size may be more than there is */
        data_fill_table(L, message->msg_iov->iov_base, size < capacity ? size : capacity);
    lua_pushinteger(L, (lua_Integer)size);
    if (lua_isnil(L, RECEIVE_HEADER)) return 2;
    write_header(L, message);
    lua_pushvalue(L, RECEIVE_HEADER);
    return 3;
}

/* The table for what is there now. It may run Lua. */
static void receive_prepare(lua_State *L)
{
    int waits = 0;
    const struct sock *s = lua_touserdata(L, 1);
    if (!lua_isnil(L, RECEIVE_BUFFER)) {
        lua_pushnil(L);
        return;
    }
    if (ioctl(socket_fd(s), FIONREAD, &waits) < 0 || waits < 0) waits = 0;
    lua_Integer capacity = lua_tointeger(L, RECEIVE_CAPACITY);
    lua_createtable(L, waits < capacity ? waits : (int)capacity, 0);
}

/* The memory to receive into. */
static struct iovec receive_room(lua_State *L)
{
    struct data_view view;
    if (data_to_view(L, RECEIVE_BUFFER, &view)) return (struct iovec){view.octets, view.size};
    size_t capacity = (size_t)lua_tointeger(L, RECEIVE_CAPACITY);
    /* Discarding octets of a stream it does not write them: then nobody sees what was here before. */
    if (lua_tointeger(L, RECEIVE_FLAGS) & MSG_TRUNC) memset(scratch, 0, capacity);
    return (struct iovec){scratch, capacity};
}

/* Octets or -errno; with the address of where they came from. */
static ssize_t receive_one(const struct sock *s, struct msghdr *message, int flags)
{
    socklen_t room = message->msg_namelen;
    ssize_t got;
    do {
        got = recvmsg(socket_fd(s), message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return -errno;
    handle_spend(s->handle, (size_t)got);
    if (message->msg_namelen > 0) return got;
    message->msg_namelen = room;
    if (getpeername(socket_fd(s), message->msg_name, &message->msg_namelen) < 0) message->msg_namelen = 0;
    return got;
}

/* What to wait for. The error queue has no event of its own: POLLERR may be there for something else, so that behind a
 * wait in vain there are pauses (0). */
static short receive_events(int flags, int status)
{
    if (flags & MSG_ERRQUEUE) return status == LUA_YIELD ? 0 : POLLERR;
    return flags & MSG_OOB ? POLLPRI : POLLIN;
}

static int receive_step(lua_State *L, int status, lua_KContext until)
{
    int error = wait_result(L, status, RECEIVE_CAPACITY), flags = (int)lua_tointeger(L, RECEIVE_FLAGS);
    const char *call = lua_isnil(L, RECEIVE_HEADER) ? "recv" : "recvmsg";
    if (error != 0) return socket_raise(L, call, error);
    receive_prepare(L);
    const struct sock *s = socket_check(L, 1, call);
    struct sockaddr_storage name;
    struct iovec room = receive_room(L);
    struct msghdr message = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &room, .msg_iovlen = 1};
    bool may_wait = !(flags & MSG_DONTWAIT), gives_way = may_wait && socket_gives_way(L, s, status);
    ssize_t got = gives_way ? -EAGAIN : receive_one(s, &message, flags);
    if (got >= 0) return push_received(L, &message, (size_t)got);
    error = (int)-got;
    if (error == EAGAIN && may_wait) error = wait_begin(L, s->handle, call, receive_events(flags, status), until);
    if (error == 0) return lua_yieldk(L, 0, until, receive_step);
    return socket_raise(L, call, error);
}

/* The flags are at `flags`; a size stands at `size` if there is no buffer. */
static int receive_begin(lua_State *L, const struct sock *s, int size, int flags)
{
    struct data_view view;
    lua_Integer capacity = 0;
    lua_Integer options = flags_read(L, flags) & ~FLAGS_REFUSED;
    if (data_to_view(L, RECEIVE_BUFFER, &view)) {
        if (view.size == 0) return luaL_error(L, "buffer is empty"); /* 0 octets would look like the end */
        capacity = (lua_Integer)view.size;
    } else {
        capacity = lua_tointeger(L, size);
    }
    lua_settop(L, RECEIVE_BUFFER);
    lua_pushinteger(L, options);
    lua_pushinteger(L, capacity);
    return receive_step(L, LUA_OK, deadline_after(s->timeout_ms));
}

static void check_capacity(lua_State *L, int index, int argument)
{
    int is_integer;
    lua_Integer size = lua_tointegerx(L, index, &is_integer);
    if (!is_integer) luaL_argerror(L, argument, "size must be an integer");
    luaL_argcheck(L, size > 0 && (lua_Unsigned)size <= SOCKET_TABLE_MAX, argument,
                  "size must be positive and at most 1 MiB");
}

/* sock:recvmsg(msghdr[, buffer][, flags]) -> table or buffer, size, msghdr                   [-0, +3, e; yields] */
int socket_recvmsg(lua_State *L)
{
    struct data_view view;
    const struct sock *s = socket_check(L, 1, "recvmsg");
    luaL_checktype(L, 2, LUA_TTABLE);
    if (!data_to_view(L, 3, &view) && !lua_isnil(L, 3)) {
        lua_settop(L, 3);
        lua_pushnil(L);
        lua_insert(L, 3); /* no buffer: the flags move up */
    }
    lua_settop(L, 4);
    bool is_buffer = data_to_view(L, 3, &view);
    if (!is_buffer && lua_getfield(L, 2, "iov_len") == LUA_TNIL)
        return luaL_argerror(L, 2, "'iov_len' can not be empty");
    if (!is_buffer) check_capacity(L, 5, 2);
    return receive_begin(L, s, 5, 4);
}

/* sock:recv(buffer or size[, flags]) -> table or buffer, size                                [-0, +2, e; yields] */
int socket_recv(lua_State *L)
{
    struct data_view view;
    const struct sock *s = socket_check(L, 1, "recv");
    lua_settop(L, 3);
    bool is_buffer = data_to_view(L, 2, &view);
    if (!is_buffer && lua_type(L, 2) != LUA_TNUMBER) return luaL_typeerror(L, 2, "size or data");
    if (!is_buffer) check_capacity(L, 2, 2);
    lua_pushnil(L);
    lua_insert(L, 2); /* no msghdr */
    if (is_buffer) return receive_begin(L, s, 3, 4);
    lua_pushvalue(L, 3);
    lua_pushnil(L);
    lua_replace(L, 3);
    return receive_begin(L, s, 5, 4);
}

/* --- sending --- */

/* On the stack: socket, octets (text, data or a block), their number, octets sent, flags, address or nil, the call's
 * name. */
enum send_place { SEND_DATA = 2, SEND_SIZE, SEND_DONE, SEND_FLAGS, SEND_NAME, SEND_CALL };

static const char *send_octets(lua_State *L)
{
    struct data_view view;
    if (lua_type(L, SEND_DATA) == LUA_TSTRING) return lua_tostring(L, SEND_DATA);
    if (data_to_view(L, SEND_DATA, &view)) return (const char *)view.octets;
    return lua_touserdata(L, SEND_DATA);
}

/* Sends until all is gone or an error: 0 or an errno, EINPROGRESS when it is somebody else's turn. *done goes on. */
static int send_some(lua_State *L, const struct sock *s, size_t size, size_t *done)
{
    size_t name_size = 0, burst = 0;
    const char *octets = send_octets(L), *name = lua_tolstring(L, SEND_NAME, &name_size);
    int flags = (int)lua_tointeger(L, SEND_FLAGS) | MSG_DONTWAIT | MSG_NOSIGNAL;
    do {
        struct iovec rest = {(char *)octets + *done, size - *done};
        struct msghdr message = {
            .msg_name = (char *)name, .msg_namelen = (socklen_t)name_size, .msg_iov = &rest, .msg_iovlen = 1};
        ssize_t sent = sendmsg(socket_fd(s), &message, flags);
        if (sent < 0 && errno != EINTR) return errno;
        if (sent < 0) continue;
        *done += (size_t)sent;
        burst += (size_t)sent;
        handle_spend(s->handle, (size_t)sent);
        if (s->type != SOCK_STREAM || *done == size) return 0;
    } while (burst < SOCKET_BURST || !lua_isyieldable(L));
    return EINPROGRESS;
}

/* What to wait for. A Unix datagram socket that sends to a name can always be written to, whatever the queue there. */
static short send_events(lua_State *L, const struct sock *s)
{
    return s->family == AF_UNIX && s->type == SOCK_DGRAM && !lua_isnil(L, SEND_NAME) ? 0 : POLLOUT;
}

/* As a socket that blocks: all of it, or what was sent before the error. */
static int send_step(lua_State *L, int status, lua_KContext until)
{
    int error = wait_result(L, status, SEND_CALL), flags = (int)lua_tointeger(L, SEND_FLAGS);
    size_t size = (size_t)lua_tointeger(L, SEND_SIZE), done = (size_t)lua_tointeger(L, SEND_DONE);
    const char *call = lua_touserdata(L, SEND_CALL);
    if (error == 0) {
        const struct sock *s = socket_check(L, 1, call);
        bool gives_way = !(flags & MSG_DONTWAIT) && socket_gives_way(L, s, status);
        error = gives_way ? EINPROGRESS : send_some(L, s, size, &done);
        lua_pushinteger(L, (lua_Integer)done);
        lua_replace(L, SEND_DONE);
        bool waits = error == EINPROGRESS || (error == EAGAIN && !(flags & MSG_DONTWAIT));
        if (waits) error = wait_begin(L, s->handle, call, send_events(L, s), until);
        if (waits && error == 0) return lua_yieldk(L, 0, until, send_step);
    }
    if (error != 0 && done == 0) return socket_raise(L, call, error);
    lua_pushinteger(L, (lua_Integer)done);
    return 1;
}

/* Replaces the value at `index` by what send_octets() understands; its size. Raises. */
static size_t prepare_octets(lua_State *L, int index, int argument)
{
    struct data_view view;
    size_t size = 0;
    if (data_to_view(L, index, &view)) return view.size;
    if (lua_type(L, index) == LUA_TSTRING) {
        lua_tolstring(L, index, &size);
        return size;
    }
    if (lua_type(L, index) != LUA_TTABLE) luaL_argerror(L, argument, "data must be a table, a data object or a text");
    size = (size_t)lua_rawlen(L, index);
    luaL_argcheck(L, size > 0, argument, "data can not be empty");
    luaL_argcheck(L, size <= SOCKET_TABLE_MAX, argument, "too many octets for a table: at most 1 MiB");
    data_copy_table(L, index, argument, lua_newuserdatauv(L, size, 0), size);
    lua_replace(L, index);
    return size;
}

/* With the data at 2; flags and address are on top of it. */
static int send_begin(lua_State *L, const struct sock *s, int argument, const char *call)
{
    size_t size = prepare_octets(L, SEND_DATA, argument);
    lua_pushinteger(L, (lua_Integer)size);
    lua_insert(L, SEND_SIZE);
    lua_pushinteger(L, 0);
    lua_insert(L, SEND_DONE);
    lua_pushlightuserdata(L, (char *)call);
    return send_step(L, LUA_OK, deadline_after(s->timeout_ms));
}

/* sock:sendmsg(msghdr, data) -> octets sent                                                  [-0, +1, e; yields] */
int socket_sendmsg(lua_State *L)
{
    const struct sock *s = socket_check(L, 1, "sendmsg");
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 3);
    lua_getfield(L, 2, "flags");
    lua_Integer flags = flags_read(L, 4) & ~FLAGS_REFUSED;
    lua_pushinteger(L, flags);
    lua_replace(L, 4);
    int type = lua_getfield(L, 2, "name");
    if (type == LUA_TTABLE) {
        struct sockaddr_storage name;
        socklen_t size = address_read_table(L, s->family, 5, &name);
        lua_pushlstring(L, (const char *)&name, size);
        lua_replace(L, 5);
    } else if (type != LUA_TNIL) {
        return luaL_argerror(L, 2, "'name' must be a table");
    }
    lua_remove(L, 2);
    return send_begin(L, s, 3, "sendmsg");
}

/* sock:send(table or data) -> octets sent; a text is sent in LuaSocket's manner              [-0, +1, e; yields] */
int socket_send(lua_State *L)
{
    if (lua_type(L, 2) == LUA_TSTRING || lua_type(L, 2) == LUA_TNUMBER) return socket_send_text(L);
    const struct sock *s = socket_check(L, 1, "send");
    lua_settop(L, 2);
    lua_pushinteger(L, 0);
    lua_pushnil(L);
    return send_begin(L, s, 2, "send");
}
