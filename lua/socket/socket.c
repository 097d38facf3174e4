/* socket.*: sockets as objects. */
#include "lua/socket/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lua/socket/socket_private.h"

const struct class_key socket_class = {"socket"};

struct sock *socket_check(lua_State *L, int index, const char *call)
{
    struct sock *s = class_check(L, index, &socket_class);
    if (!s->handle) socket_raise(L, call, EBADF);
    return s;
}

struct sock *socket_push(lua_State *L, int family, int type)
{
    struct sock *s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = (struct sock){.family = family, .type = type, .timeout_ms = TIMEOUT_NONE};
    class_set(L, &socket_class);
    handle_open(L, &s->handle);
    return s;
}

/* --- new, close --- */

static int read_family(lua_State *L, int index)
{
    const char *name = luaL_checkstring(L, index);
    if (strcmp(name, "inet6") == 0 || strcmp(name, "i6") == 0) return AF_INET6;
    switch (name[0]) {
    case 'i': return AF_INET;
    case 'u':
    case 'x': return AF_UNIX;
    default: return luaL_argerror(L, index, "invalid family name");
    }
}

static int read_type(lua_State *L, int index)
{
    switch (luaL_checkstring(L, index)[0]) {
    case 't': return SOCK_STREAM;
    case 'u': return SOCK_DGRAM;
    default: return luaL_argerror(L, index, "invalid type name");
    }
}

/* socket.new(family, type) -> socket                                                                 [-0, +1, e] */
static int socket_new(lua_State *L)
{
    int family = read_family(L, 1), type = read_type(L, 2);
    struct sock *s = socket_push(L, family, type);
    s->handle->fd = net_socket(family, type);
    if (s->handle->fd >= 0) return 1;
    int error = s->handle->fd;
    handle_close(&s->handle);
    return socket_raise(L, "socket", error);
}

/* sock:close(), at <close> and at collection: any number of times                                    [-0, +0, e] */
static int socket_close(lua_State *L)
{
    struct sock *s = class_check(L, 1, &socket_class);
    handle_close(&s->handle);
    return 0;
}

static int socket_tostring(lua_State *L)
{
    const struct sock *s = class_check(L, 1, &socket_class);
    const char *family = s->family == AF_INET ? "inet" : s->family == AF_INET6 ? "inet6" : "unix";
    if (s->handle)
        lua_pushfstring(L, "socket (%s, %s): %d", family, s->type == SOCK_STREAM ? "tcp" : "udp", socket_fd(s));
    else
        lua_pushliteral(L, "socket (closed)");
    return 1;
}

/* --- bind, listen, names, shutdown, settimeout --- */

/* sock:bind(ip[, port]), sock:bind(path)                                                             [-0, +0, e] */
static int socket_bind(lua_State *L)
{
    const struct sock *s = socket_check(L, 1, "bind");
    struct sockaddr_storage address;
    socklen_t size = address_read(L, s->family, 2, 3, true, &address);
    if (bind(socket_fd(s), (struct sockaddr *)&address, size) < 0) return socket_raise(L, "bind", errno);
    int error = s->type == SOCK_DGRAM ? handle_note_door(s->handle) : 0; /* bound, so it is open */
    return error < 0 ? socket_raise(L, "bind", error) : 0;
}

/* sock:listen(backlog)                                                                               [-0, +0, e] */
static int socket_listen(lua_State *L)
{
    const struct sock *s = socket_check(L, 1, "listen");
    lua_Integer backlog = luaL_checkinteger(L, 2);
    luaL_argcheck(L, backlog > 0 && backlog <= INT32_MAX, 2, "Backlog number out of range");
    int error = handle_note_door(s->handle); /* before anybody can connect */
    if (error < 0) return socket_raise(L, "listen", error);
    if (listen(socket_fd(s), (int)backlog) < 0) return socket_raise(L, "listen", errno);
    handle_note_door(s->handle); /* one that was not bound has its port only now */
    return 0;
}

static int push_name(lua_State *L, const char *call, int (*name)(int, struct sockaddr *, socklen_t *))
{
    const struct sock *s = socket_check(L, 1, call);
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (name(socket_fd(s), (struct sockaddr *)&address, &size) < 0) return socket_raise(L, call, errno);
    return address_push(L, &address, size);
}

/* sock:getsockname() -> ip, port | path                                                              [-0, +2, e] */
static int socket_getsockname(lua_State *L)
{
    return push_name(L, "getsockname", getsockname);
}

/* sock:getpeername() -> ip, port | path                                                              [-0, +2, e] */
static int socket_getpeername(lua_State *L)
{
    return push_name(L, "getpeername", getpeername);
}

/* sock:shutdown([how])                                                                               [-0, +0, e] */
static int socket_shutdown(lua_State *L)
{
    static const char *const names[] = {"receive", "send", "both", "r", "w", "rw", "read", "write", NULL};
    static const int hows[] = {SHUT_RD, SHUT_WR, SHUT_RDWR, SHUT_RD, SHUT_WR, SHUT_RDWR, SHUT_RD, SHUT_WR};
    const struct sock *s = socket_check(L, 1, "shutdown");
    int how;
    if (lua_isinteger(L, 2)) {
        lua_Integer number = lua_tointeger(L, 2);
        luaL_argcheck(L, number >= SHUT_RD && number <= SHUT_RDWR, 2, "invalid direction");
        how = (int)number;
    } else {
        how = hows[luaL_checkoption(L, 2, "both", names)];
    }
    if (shutdown(socket_fd(s), how) < 0) return socket_raise(L, "shutdown", errno);
    return 0;
}

/* sock:settimeout([seconds]): of each call from now on; nil or negative: none                        [-0, +0, e] */
static int socket_settimeout(lua_State *L)
{
    struct sock *s = socket_check(L, 1, "settimeout");
    lua_Number seconds = luaL_optnumber(L, 2, -1);
    luaL_argcheck(L, seconds <= 1e9, 2, "timeout out of range"); /* NaN, too */
    s->timeout_ms = seconds < 0 ? TIMEOUT_NONE : (uint64_t)ceil(seconds * 1000);
    return 0;
}

/* --- accept --- */

/* Errors of a connection that was lost before we took it, not of the listener. */
static bool is_lost_client(int error)
{
    return error == ECONNABORTED || error == EINTR || error == EPROTO;
}

/* A descriptor or -errno. */
static int accept_one(int listener)
{
    int fd;
    do {
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (fd < 0 && is_lost_client(errno));
    return fd < 0 ? -errno : fd;
}

/* On the stack: listener, flags, the new socket. */
static int accept_step(lua_State *L, int status, lua_KContext until)
{
    int error = wait_result(L, status, 3), fd;
    if (error != 0) return socket_raise(L, "accept", error);
    const struct sock *s = socket_check(L, 1, "accept");
    fd = socket_gives_way(L, s, status) ? -EAGAIN : accept_one(socket_fd(s));
    if (fd >= 0) {
        struct sock *client = lua_touserdata(L, 3);
        if (!client->handle) { /* a script has found it on our stack, and closed it */
            close(fd);
            return socket_raise(L, "accept", EBADF);
        }
        client->handle->fd = fd;
        handle_spend(s->handle, 0);
        return 1;
    }
    error = -fd;
    bool waits = error == EAGAIN && !(lua_tointeger(L, 2) & (MSG_DONTWAIT | O_NONBLOCK));
    if (waits) error = wait_begin(L, s->handle, "accept", POLLIN, until);
    if (error == 0) return lua_yieldk(L, 0, until, accept_step);
    return socket_raise(L, "accept", error);
}

/* sock:accept([flags]) -> socket                                                             [-0, +1, e; yields] */
static int socket_accept(lua_State *L)
{
    const struct sock *s = socket_check(L, 1, "accept");
    int flags = flags_read(L, 2);
    lua_settop(L, 1);
    lua_pushinteger(L, flags);
    socket_push(L, s->family, s->type);
    return accept_step(L, LUA_OK, deadline_after(s->timeout_ms));
}

/* --- connect --- */

/* The kernel has an answer. */
static int connect_end(lua_State *L, int status, lua_KContext until)
{
    int error = wait_result(L, status, 4);
    socklen_t size = sizeof error;
    (void)until;
    if (error != 0) return socket_raise(L, "connect", error);
    const struct sock *s = socket_check(L, 1, "connect");
    if (getsockopt(socket_fd(s), SOL_SOCKET, SO_ERROR, &error, &size) < 0) error = errno;
    return error != 0 ? socket_raise(L, "connect", error) : 0;
}

/* On the stack: socket, address, port, flags. A Unix listener whose queue is full (EAGAIN) has no event for us. */
static int connect_step(lua_State *L, int status, lua_KContext until)
{
    struct sockaddr_storage address;
    int error = wait_result(L, status, 4);
    if (error != 0) return socket_raise(L, "connect", error);
    const struct sock *s = socket_check(L, 1, "connect");
    socklen_t size = address_read(L, s->family, 2, 3, false, &address);
    if (connect(socket_fd(s), (struct sockaddr *)&address, size) == 0) return 0;
    error = errno;
    if ((error != EINPROGRESS && error != EAGAIN) || lua_tointeger(L, 4) & (MSG_DONTWAIT | O_NONBLOCK))
        return socket_raise(L, "connect", error);
    bool again = error == EAGAIN;
    error = wait_begin(L, s->handle, "connect", again ? 0 : POLLOUT, until);
    if (error == 0) return lua_yieldk(L, 0, until, again ? connect_step : connect_end);
    return socket_raise(L, "connect", error);
}

/* sock:connect(ip, port[, flags]), sock:connect(path[, flags])                               [-0, +0, e; yields] */
static int socket_connect(lua_State *L)
{
    const struct sock *s = socket_check(L, 1, "connect");
    if (s->family == AF_UNIX && lua_gettop(L) < 4) {
        lua_settop(L, 3);
        lua_pushnil(L);
        lua_insert(L, 3); /* there is no port */
    }
    int flags = flags_read(L, 4);
    lua_settop(L, 3);
    lua_pushinteger(L, flags);
    return connect_step(L, LUA_OK, deadline_after(s->timeout_ms));
}

/* --- the module --- */

int luaopen_socket(lua_State *L)
{
    static const luaL_Reg functions[] = {{"new", socket_new}, {"poll", socket_poll}, {NULL, NULL}};
    static const luaL_Reg methods[] = {{"accept", socket_accept},
                                       {"bind", socket_bind},
                                       {"close", socket_close},
                                       {"connect", socket_connect},
                                       {"getpeername", socket_getpeername},
                                       {"getsockname", socket_getsockname},
                                       {"getsockopt", socket_getsockopt},
                                       {"listen", socket_listen},
                                       {"receive", socket_receive},
                                       {"recv", socket_recv},
                                       {"recvmsg", socket_recvmsg},
                                       {"relay", socket_relay},
                                       {"send", socket_send},
                                       {"sendmsg", socket_sendmsg},
                                       {"setsockopt", socket_setsockopt},
                                       {"settimeout", socket_settimeout},
                                       {"shutdown", socket_shutdown},
                                       {NULL, NULL}};
    static const luaL_Reg events[] = {
        {"__gc", socket_close}, {"__close", socket_close}, {"__tostring", socket_tostring}, {NULL, NULL}};
    socket_open_errors(L);
    socket_open_sets(L);
    class_open_hidden(L, &socket_class, events);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
