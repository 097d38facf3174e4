/* receive and send of texts in LuaSocket's manner: what goes wrong is returned, with what was done until then.
 *
 * Nothing is read ahead: a line is looked for in the kernel's queue (MSG_PEEK) and only its own octets are taken, so
 * that recv, sets and the relay see what a script has not read. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lua/engine/buffer.h"
#include "lua/socket/socket_private.h"

#define RECEIVE_MAX     ((size_t)64 << 20) /* octets of one receive() */
#define LINE_MAX_OCTETS ((size_t)1 << 20)
#define CHUNK           ((size_t)64 << 10)
#define LINE_LOOK       4096u /* octets that are looked at for the end of a line */
#define DATAGRAM_MAX    65535

/* nil, "closed" | "timeout" | what the system says */
static int push_failure(lua_State *L, int error)
{
    lua_pushnil(L);
    if (error == ETIMEDOUT)
        lua_pushliteral(L, "timeout");
    else if (error == EPIPE || error == ECONNRESET || error == EBADF || error == ECANCELED)
        lua_pushliteral(L, "closed");
    else
        lua_pushstring(L, strerror(error));
    return 2;
}

/* --- receive --- */

/* On the stack: socket, what is wanted, a struct buffer. */
enum receive_place { RECEIVE_WANTED = 2, RECEIVE_GATHERED };
enum wanted { WANTED_LINE = -1, WANTED_ALL = -2 }; /* or a number of octets */

static bool has_room(lua_State *L, size_t room)
{
    const struct buffer *b = lua_touserdata(L, RECEIVE_GATHERED);
    return b->room - b->size >= room;
}

/* Octets, or -1 and errno. */
static ssize_t take(int fd, char *out, size_t size, int flags)
{
    ssize_t got;
    do {
        got = recv(fd, out, size, flags | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* Octets up to the end of a line, or as many as were seen; none is taken. */
static ssize_t see_line(int fd, char *out, size_t size)
{
    ssize_t seen = take(fd, out, size, MSG_PEEK);
    const char *end = seen > 0 ? memchr(out, '\n', (size_t)seen) : NULL;
    return end ? end - out + 1 : seen;
}

/* Octets of the queue up to the end of a line, or as many as there are, or -1 and errno. No more room is made than they
 * need: a line of one octet leaves no kilobytes to the collector. */
static ssize_t receive_line(lua_State *L, const struct sock *s, size_t room)
{
    char ahead[LINE_LOOK];
    ssize_t seen = see_line(socket_fd(s), ahead, room < sizeof ahead ? room : sizeof ahead);
    if (seen <= 0) return seen;
    bool fits = has_room(L, (size_t)seen);
    struct buffer *b = buffer_reserve(L, RECEIVE_GATHERED, (size_t)seen);
    char *out = b->octets + b->size;
    if (!fits) seen = see_line(socket_fd(s), out, (size_t)seen); /* Lua may have run, and have read some of it */
    return seen <= 0 ? seen : take(socket_fd(s), out, (size_t)seen, 0);
}

/* How many octets there are to be read at once: of a stream what has come, of datagrams the size of the next one. At
 * least one. -1 and errno: none are there. */
static ssize_t see_octets(const struct sock *s)
{
    int count = 0;
    char none;
    if (s->type != SOCK_STREAM) {
        ssize_t size = take(socket_fd(s), &none, 0, MSG_PEEK | MSG_TRUNC);
        return size == 0 ? 1 : size;
    }
    return ioctl(socket_fd(s), FIONREAD, &count) < 0 || count <= 0 ? 1 : count;
}

/* Octets of the queue, or -1 and errno. */
static ssize_t receive_octets(lua_State *L, const struct sock *s, size_t room)
{
    for (;;) {
        ssize_t seen = see_octets(s);
        if (seen < 0) return -1;
        size_t wanted = (size_t)seen < room ? (size_t)seen : room;
        bool fits = has_room(L, wanted);
        struct buffer *b = buffer_reserve(L, RECEIVE_GATHERED, wanted);
        if (!fits && s->type != SOCK_STREAM) continue; /* Lua may have run: the next one may be larger */
        size_t there = b->room - b->size;
        return take(socket_fd(s), b->octets + b->size, there < room ? there : room, 0);
    }
}

static bool receive_is_complete(const struct sock *s, const struct buffer *b, lua_Integer wanted)
{
    if (s->type != SOCK_STREAM) return true;
    if (wanted == WANTED_LINE) return b->size > 0 && b->octets[b->size - 1] == '\n';
    return wanted >= 0 && b->size >= (size_t)wanted;
}

static size_t receive_limit(lua_Integer wanted)
{
    if (wanted == WANTED_LINE) return LINE_MAX_OCTETS;
    return wanted == WANTED_ALL ? RECEIVE_MAX : (size_t)wanted;
}

enum progress { PROGRESS_DONE, PROGRESS_MORE, PROGRESS_END, PROGRESS_ERROR };

/* One call to the kernel; errno with PROGRESS_ERROR. */
static enum progress receive_once(lua_State *L, const struct sock *s, lua_Integer wanted)
{
    struct buffer *b = lua_touserdata(L, RECEIVE_GATHERED);
    size_t room = receive_limit(wanted) - b->size;
    bool is_stream = s->type == SOCK_STREAM;
    if (room == 0) {
        errno = EMSGSIZE;
        return PROGRESS_ERROR;
    }
    if (is_stream && room > CHUNK) room = CHUNK;
    ssize_t got = wanted == WANTED_LINE && is_stream ? receive_line(L, s, room) : receive_octets(L, s, room);
    if (got < 0) return PROGRESS_ERROR;
    handle_spend(s->handle, (size_t)got);
    b = lua_touserdata(L, RECEIVE_GATHERED); /* it may be another one */
    b->size += (size_t)got;
    if (receive_is_complete(s, b, wanted)) return PROGRESS_DONE;
    return got == 0 ? PROGRESS_END : PROGRESS_MORE;
}

/* As LuaSocket has it: without the end of the line, and without any CR. */
static void trim_line(struct buffer *b)
{
    size_t kept = 0;
    for (size_t i = 0; i + 1 < b->size; i++)
        if (b->octets[i] != '\r') b->octets[kept++] = b->octets[i];
    b->size = kept;
}

static int receive_end(lua_State *L, lua_Integer wanted, int error)
{
    struct buffer *b = lua_touserdata(L, RECEIVE_GATHERED);
    int values = error != 0 ? push_failure(L, error) : 0;
    if (error == 0 && wanted == WANTED_LINE) trim_line(b);
    lua_pushlstring(L, b->octets, b->size);
    return values + 1;
}

static int receive_step(lua_State *L, int status, lua_KContext until)
{
    int error = wait_result(L, status, RECEIVE_GATHERED);
    lua_Integer wanted = lua_tointeger(L, RECEIVE_WANTED);
    const struct sock *s = class_check(L, 1, &socket_class);
    enum progress progress = PROGRESS_MORE;
    if (error == 0 && !s->handle) error = EBADF;
    if (error != 0) return receive_end(L, wanted, error);
    size_t burst = socket_gives_way(L, s, status) ? 0 : lua_isyieldable(L) ? SOCKET_BURST / CHUNK : SIZE_MAX;
    while (progress == PROGRESS_MORE && burst-- > 0) progress = receive_once(L, s, wanted);
    if (progress == PROGRESS_DONE) return receive_end(L, s->type == SOCK_STREAM ? wanted : 0, 0);
    if (progress == PROGRESS_END) {
        const struct buffer *b = lua_touserdata(L, RECEIVE_GATHERED);
        return receive_end(L, wanted, wanted == WANTED_ALL && b->size > 0 ? 0 : ECONNRESET);
    }
    error = progress == PROGRESS_ERROR ? errno : EAGAIN;
    if (error == EAGAIN) error = wait_begin(L, s->handle, "receive", POLLIN, until);
    if (error == 0) return lua_yieldk(L, 0, until, receive_step);
    return receive_end(L, wanted, error);
}

static lua_Integer read_wanted(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TNUMBER) {
        lua_Integer size = luaL_checkinteger(L, index);
        luaL_argcheck(L, size >= 0 && (lua_Unsigned)size <= RECEIVE_MAX, index, "size must be in 0...64 MiB");
        return size;
    }
    const char *pattern = luaL_optstring(L, index, "*l");
    if (*pattern == '*') pattern++;
    if (strcmp(pattern, "l") == 0) return WANTED_LINE;
    if (strcmp(pattern, "a") == 0) return WANTED_ALL;
    return luaL_argerror(L, index, "invalid receive pattern");
}

/* sock:receive(["*l" | "*a" | n]) -> text | nil, message, what there was                     [-0, +3, e; yields] */
int socket_receive(lua_State *L)
{
    const struct sock *s = class_check(L, 1, &socket_class);
    lua_Integer wanted = read_wanted(L, 2);
    if (s->type != SOCK_STREAM && (wanted < 0 || wanted > DATAGRAM_MAX)) wanted = DATAGRAM_MAX;
    lua_settop(L, 1);
    lua_pushinteger(L, wanted);
    buffer_push(L, 1024);
    if (s->type == SOCK_STREAM && wanted == 0) return receive_end(L, wanted, 0);
    return receive_step(L, LUA_OK, deadline_after(s->timeout_ms));
}

/* --- send --- */

/* On the stack: socket, text, offset of what is left, offset of the end. */
enum send_place { SEND_TEXT = 2, SEND_FROM, SEND_END };

/* The index of the last octet that was sent. */
static int send_end(lua_State *L, int error)
{
    int values = error != 0 ? push_failure(L, error) : 0;
    lua_pushvalue(L, SEND_FROM);
    return values + 1;
}

/* Octets or -errno. */
static ssize_t send_one(const struct sock *s, const char *text, size_t size)
{
    ssize_t sent;
    do {
        sent = send(socket_fd(s), text, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) return -errno;
    handle_spend(s->handle, (size_t)sent);
    return sent;
}

/* 0: all is sent; EAGAIN, also when it is somebody else's turn; or another errno. */
static int send_some(lua_State *L, const struct sock *s)
{
    const char *text = lua_tostring(L, SEND_TEXT);
    size_t from = (size_t)lua_tointeger(L, SEND_FROM), end = (size_t)lua_tointeger(L, SEND_END), burst = 0;
    ssize_t sent;
    do {
        sent = send_one(s, text + from, end - from);
        if (sent < 0) break;
        from += (size_t)sent;
        burst += (size_t)sent;
        if (from < end && burst >= SOCKET_BURST && lua_isyieldable(L)) sent = -EAGAIN;
    } while (sent >= 0 && from < end);
    lua_pushinteger(L, (lua_Integer)from);
    lua_replace(L, SEND_FROM);
    return sent < 0 ? (int)-sent : 0;
}

static int send_step(lua_State *L, int status, lua_KContext until)
{
    int error = wait_result(L, status, SEND_END);
    const struct sock *s = class_check(L, 1, &socket_class);
    if (error == 0 && !s->handle) error = EBADF;
    if (error != 0) return send_end(L, error);
    error = socket_gives_way(L, s, status) ? EAGAIN : send_some(L, s);
    if (error != EAGAIN) return send_end(L, error);
    error = wait_begin(L, s->handle, "send", POLLOUT, until);
    if (error == 0) return lua_yieldk(L, 0, until, send_step);
    return send_end(L, error);
}

/* A position as string.sub() has it, as an offset within 0...size. */
static lua_Integer text_position(lua_Integer position, lua_Integer size)
{
    if (position < 0) position = size + position + 1;
    return position < 0 ? 0 : position;
}

/* sock:send(text[, i[, j]]) -> index of the last octet sent | nil, message, that index       [-0, +3, e; yields] */
int socket_send_text(lua_State *L)
{
    size_t length;
    const struct sock *s = class_check(L, 1, &socket_class);
    luaL_checklstring(L, 2, &length);
    lua_Integer size = (lua_Integer)length, first = text_position(luaL_optinteger(L, 3, 1), size),
                last = text_position(luaL_optinteger(L, 4, -1), size);
    if (first < 1) first = 1;
    if (last > size) last = size;
    if (first > last) first = last + 1;
    lua_settop(L, SEND_TEXT);
    lua_pushinteger(L, first - 1);
    lua_pushinteger(L, last);
    if (first > last && s->type == SOCK_STREAM) return send_end(L, 0);
    return send_step(L, LUA_OK, deadline_after(s->timeout_ms));
}
