/* Octets as a description of values: numbers, texts, buffers, tables with the keys of msghdr and of layouts. They go to
 * the functions of socket and data. The system calls are ours: they touch all the memory that they are given, answer as
 * the input says, and nothing leaves the process. */
#include <assert.h>
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lua/socket/data.h"
#include "lua/socket/socket.h"

#define MEMORY_MAX ((size_t)48 << 20)
#define DEPTH_MAX  4

static const uint8_t *input;
static size_t input_size;

static uint8_t take(void)
{
    if (input_size == 0) return 0;
    input_size--;
    return *input++;
}

static uint64_t take_number(unsigned octets)
{
    uint64_t value = 0;
    while (octets-- > 0) value = value << 8 | take();
    return value;
}

/* --- the kernel --- */

static volatile uint8_t seen;

static void touch(const void *memory, size_t size)
{
    const uint8_t *octets = memory;
    for (size_t i = 0; i < size; i++) seen ^= octets[i];
}

/* An answer: an error, or up to `size`. */
static ssize_t answer(size_t size)
{
    static const int errors[] = {EAGAIN, EINTR, ECONNRESET, EPIPE, EMSGSIZE, ENOTCONN};
    uint8_t how = take();
    if (how < 8 && input_size > 0) {
        errno = errors[how % 6];
        return -1;
    }
    return (ssize_t)(how & 1 || size == 0 ? size : 1 + how % size);
}

/* An address as the kernel may give it: of any family, cut anywhere. */
static socklen_t give_address(void *memory, socklen_t room)
{
    uint8_t octets[sizeof(struct sockaddr_storage)] = {0};
    static const sa_family_t families[] = {AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC};
    memcpy(octets, &families[take() % 4], sizeof families[0]);
    for (size_t i = 2; i < 40; i++) octets[i] = take();
    socklen_t size = take() % (sizeof(struct sockaddr_un) + 1);
    memcpy(memory, octets, size < room ? size : room);
    return size;
}

static void check_address(const struct sockaddr *address, socklen_t size)
{
    touch(address, size);
    if (address->sa_family == AF_INET) assert(size == sizeof(struct sockaddr_in));
    if (address->sa_family == AF_INET6) assert(size == sizeof(struct sockaddr_in6));
    if (address->sa_family == AF_UNIX) assert(size > sizeof(sa_family_t) && size <= sizeof(struct sockaddr_un));
    assert(address->sa_family == AF_INET || address->sa_family == AF_INET6 || address->sa_family == AF_UNIX);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    (void)fd;
    assert(message->msg_iovlen == 1 && flags & MSG_DONTWAIT && flags & MSG_NOSIGNAL && !(flags & MSG_ZEROCOPY));
    if (message->msg_namelen > 0) check_address(message->msg_name, message->msg_namelen);
    touch(message->msg_iov->iov_base, message->msg_iov->iov_len);
    return answer(message->msg_iov->iov_len);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    (void)fd;
    assert(flags & MSG_DONTWAIT && flags & MSG_NOSIGNAL);
    touch(data, size);
    return answer(size);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    (void)fd;
    assert(message->msg_iovlen == 1 && flags & MSG_DONTWAIT && !message->msg_control);
    ssize_t size = answer(message->msg_iov->iov_len);
    if (size < 0) return size;
    memset(message->msg_iov->iov_base, 'x', (size_t)size);
    message->msg_namelen = give_address(message->msg_name, message->msg_namelen);
    message->msg_flags = take();
    return flags & MSG_TRUNC ? (ssize_t)take_number(3) : size;
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    (void)fd;
    assert(flags & MSG_DONTWAIT);
    if (input_size == 0) return 0;
    ssize_t got = answer(size);
    if (got > 0) memset(data, "x\r\n"[take() % 3], (size_t)got);
    return got;
}

int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    (void)fd;
    check_address(address, size);
    return answer(1) < 0 ? -1 : 0;
}

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    return bind(fd, address, size);
}

int getpeername(int fd, struct sockaddr *address, socklen_t *size)
{
    (void)fd;
    if (answer(1) < 0) return -1;
    *size = give_address(address, *size);
    return 0;
}

int getsockname(int fd, struct sockaddr *address, socklen_t *size)
{
    return getpeername(fd, address, size);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    (void)fd, (void)level, (void)option;
    touch(value, size);
    return answer(1) < 0 ? -1 : 0;
}

/* --- values --- */

enum { UPVALUE_SOCKET = 1, UPVALUE_DATA, FIRST_VALUE };

static void push_text(lua_State *L)
{
    static const char *const words[] = {"name",    "addr", "port",      "flags",  "iov_len",    "offset",
                                        "length",  "type", "endian",    "number", "string",     "little",
                                        "net",     "D",    "127.0.0.1", "::1",    "s",          "tcp",
                                        "nodelay", "*a",   "*l",        "\0abc",  "fe80::1%lo", ""};
    uint8_t choice = take();
    char text[64];
    if (choice < 200) {
        lua_pushstring(L, words[choice % (sizeof words / sizeof words[0])]);
        return;
    }
    size_t size = choice - 200;
    for (size_t i = 0; i < size; i++) text[i] = (char)take();
    lua_pushlstring(L, text, size);
}

static void push_value(lua_State *L, int depth);

static void push_table(lua_State *L, int depth)
{
    unsigned count = take() % 8;
    lua_newtable(L);
    for (unsigned i = 1; i <= count; i++) {
        if (take() & 1)
            push_text(L);
        else
            lua_pushinteger(L, i);
        push_value(L, depth + 1);
        lua_rawset(L, -3);
    }
}

static void push_value(lua_State *L, int depth)
{
    switch (take() % 12) {
    case 0: lua_pushnil(L); return;
    case 1: lua_pushboolean(L, take() & 1); return;
    case 2: lua_pushinteger(L, take()); return;
    case 3: lua_pushinteger(L, (lua_Integer)take_number(8)); return;
    case 4: lua_pushinteger(L, (lua_Integer)take_number(2)); return;
    case 5: lua_pushnumber(L, (lua_Number)take() / 4); return;
    case 6: lua_pushvalue(L, UPVALUE_DATA); return;
    case 7: lua_pushvalue(L, UPVALUE_SOCKET); return;
    case 8:
    case 9: push_text(L); return;
    default: break;
    }
    if (depth < DEPTH_MAX)
        push_table(L, depth);
    else
        lua_pushinteger(L, 0);
}

/* --- calls --- */

/* What the field reads, written back, changes nothing. */
static void check_field(lua_State *L, int key)
{
    static uint8_t before[64];
    struct data_view view;
    bool is_data = data_to_view(L, UPVALUE_DATA, &view);
    assert(is_data && view.size == sizeof before);
    memcpy(before, view.octets, sizeof before);
    lua_pushvalue(L, key);
    int type = lua_gettable(L, UPVALUE_DATA);
    if (type == LUA_TNUMBER || type == LUA_TSTRING) {
        lua_pushvalue(L, key);
        lua_pushvalue(L, -2);
        lua_settable(L, UPVALUE_DATA);
    }
    lua_pop(L, 1);
    assert(memcmp(before, view.octets, sizeof before) == 0);
}

/* On the stack: socket, data, layout as a table. */
static int use_layout(lua_State *L)
{
    lua_getfield(L, UPVALUE_DATA, "layout");
    lua_pushvalue(L, UPVALUE_DATA);
    lua_pushvalue(L, FIRST_VALUE);
    lua_call(L, 2, 0);
    for (lua_pushnil(L); lua_next(L, FIRST_VALUE); lua_pop(L, 1)) {
        check_field(L, lua_gettop(L) - 1);
        lua_pushvalue(L, -2);
        push_value(L, DEPTH_MAX);
        lua_settable(L, UPVALUE_DATA);
    }
    return 0;
}

/* Calls the function on the top with up to four values. */
static int call_with_values(lua_State *L, int fixed)
{
    int count = 1 + take() % 4;
    for (int i = 0; i < count; i++) push_value(L, 0);
    lua_call(L, fixed + count, LUA_MULTRET);
    return 0;
}

static int call_method(lua_State *L, int object, const char *name)
{
    lua_getfield(L, object, name);
    lua_pushvalue(L, object);
    return call_with_values(L, 1);
}

static int call_function(lua_State *L, const char *module, const char *name)
{
    lua_getglobal(L, module);
    lua_getfield(L, -1, name);
    return call_with_values(L, 0);
}

/* On the stack: socket, data. Nothing here has a timeout: there is no loop to wait in. */
static int perform(lua_State *L)
{
    static const char *const methods[] = {"recvmsg",    "sendmsg",     "recv",        "send",
                                          "bind",       "connect",     "receive",     "getsockopt",
                                          "setsockopt", "getpeername", "getsockname", "shutdown"};
    uint8_t choice = take() % 20;
    if (choice < 12) return call_method(L, UPVALUE_SOCKET, methods[choice]);
    switch (choice) {
    case 12: return call_function(L, "data", "new");
    case 13: return call_function(L, "data", "layout");
    case 14: return call_function(L, "socket", "poll");
    case 15: return call_method(L, UPVALUE_DATA, "segment");
    case 16: return call_method(L, UPVALUE_DATA, "string");
    default: push_table(L, 0); return use_layout(L);
    }
}

static void *allocate(void *ud, void *block, size_t old_size, size_t new_size)
{
    static size_t used;
    size_t held = block ? old_size : 0;
    (void)ud;
    if (new_size > held && used - held + new_size > MEMORY_MAX) return NULL;
    used = used - held + new_size;
    if (new_size == 0) {
        free(block);
        return NULL;
    }
    return realloc(block, new_size);
}

static int open_objects(lua_State *L)
{
    static const char *const families[] = {"inet", "inet6", "unix"};
    luaL_requiref(L, "data", luaopen_data, 1);
    luaL_requiref(L, "socket", luaopen_socket, 1);
    lua_getfield(L, -1, "new");
    lua_pushstring(L, families[take() % 3]);
    lua_pushstring(L, take() & 1 ? "tcp" : "udp");
    lua_call(L, 2, 1);
    lua_getglobal(L, "data");
    lua_getfield(L, -1, "new");
    lua_pushinteger(L, 64);
    lua_call(L, 1, 1);
    lua_replace(L, -2);
    return 2;
}

static int run(lua_State *L)
{
    lua_pushcfunction(L, open_objects);
    lua_call(L, 0, 2);
    while (input_size > 0) {
        lua_settop(L, 2);
        lua_pushcfunction(L, perform);
        lua_pushvalue(L, 1);
        lua_pushvalue(L, 2);
        if (lua_pcall(L, 2, 0, 0) != LUA_OK) luaL_tolstring(L, -1, NULL); /* whatever was raised has a text */
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lua_State *L;
    if (!L) L = lua_newstate(allocate, NULL);
    assert(L);
    input = data;
    input_size = size;
    lua_settop(L, 0);
    lua_pushcfunction(L, run);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK && strcmp(lua_tostring(L, -1), "not enough memory") != 0) abort();
    lua_settop(L, 0);
    lua_gc(L, LUA_GCCOLLECT, 0); /* closes the socket */
    assert(socket_is_idle());
    return 0;
}
