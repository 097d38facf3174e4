/* Addresses and flags as scripts write them. */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "lua/socket/socket_private.h"

/* --- reading --- */

static uint16_t read_port(lua_State *L, int index, bool optional)
{
    if (optional && lua_isnoneornil(L, index)) return 0;
    lua_Integer port = luaL_checkinteger(L, index);
    luaL_argcheck(L, port >= 1 && port <= 65535, index, "Port number out of range");
    return (uint16_t)port;
}

static bool read_ipv4(lua_State *L, int index, struct in_addr *out)
{
    int is_integer;
    if (lua_type(L, index) == LUA_TSTRING) return inet_pton(AF_INET, lua_tostring(L, index), out) == 1;
    lua_Integer number = lua_tointegerx(L, index, &is_integer);
    if (!is_integer || number < 0 || number > UINT32_MAX) return false;
    out->s_addr = htonl((uint32_t)number);
    return true;
}

/* An IPv6 literal, with a scope behind `%` if need be, or what an IPv4 socket would take. */
static bool read_ipv6(lua_State *L, int index, struct sockaddr_in6 *out)
{
    char text[INET6_ADDRSTRLEN];
    struct in_addr ipv4;
    if (read_ipv4(L, index, &ipv4)) {
        memcpy(out->sin6_addr.s6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
        memcpy(out->sin6_addr.s6_addr + 12, &ipv4, sizeof ipv4);
        return true;
    }
    const char *host = lua_tostring(L, index), *scope = host ? strchr(host, '%') : NULL;
    size_t size = !host ? sizeof text : scope ? (size_t)(scope - host) : strlen(host);
    if (size >= sizeof text) return false;
    memcpy(text, host, size);
    text[size] = '\0';
    if (scope && (out->sin6_scope_id = if_nametoindex(scope + 1)) == 0) return false;
    return inet_pton(AF_INET6, text, &out->sin6_addr) == 1;
}

/* A path, or a name without a file behind a zero octet. */
static socklen_t read_unix(lua_State *L, int index, struct sockaddr_un *out)
{
    size_t size;
    const char *path = luaL_checklstring(L, index, &size);
    luaL_argcheck(L, size > 0 && size < sizeof out->sun_path, index, "path empty or too long");
    luaL_argcheck(L, path[0] == '\0' || !memchr(path, '\0', size), index, "path with a zero octet");
    out->sun_family = AF_UNIX;
    memcpy(out->sun_path, path, size);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (path[0] != '\0'));
}

socklen_t address_read(lua_State *L, int family, int host, int port, bool port_optional, struct sockaddr_storage *out)
{
    *out = (struct sockaddr_storage){0};
    if (family == AF_UNIX) return read_unix(L, host, (struct sockaddr_un *)out);
    int type = lua_type(L, host);
    if (type != LUA_TSTRING && type != LUA_TNUMBER) luaL_typeerror(L, host, "address as text or number");
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)out;
        luaL_argcheck(L, read_ipv4(L, host, &in->sin_addr), host, "invalid address");
        in->sin_family = AF_INET;
        in->sin_port = htons(read_port(L, port, port_optional));
        return sizeof *in;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    luaL_argcheck(L, read_ipv6(L, host, in6), host, "invalid address");
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(read_port(L, port, port_optional));
    return sizeof *in6;
}

/* Pushes the field called `name`, or the element `index` if there is none. */
static void push_part(lua_State *L, int table, const char *name, int index)
{
    if (lua_getfield(L, table, name) != LUA_TNIL) return;
    lua_pop(L, 1);
    lua_geti(L, table, index);
}

socklen_t address_read_table(lua_State *L, int family, int index, struct sockaddr_storage *out)
{
    int top = lua_gettop(L);
    index = lua_absindex(L, index);
    push_part(L, index, "addr", 1);
    push_part(L, index, "port", 2);
    socklen_t size = address_read(L, family, top + 1, top + 2, false, out);
    lua_settop(L, top);
    return size;
}

/* --- pushing --- */

static int push_ipv6(lua_State *L, const struct sockaddr_in6 *in6)
{
    char text[INET6_ADDRSTRLEN], name[IF_NAMESIZE];
    inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
    if (in6->sin6_scope_id != 0 && if_indextoname(in6->sin6_scope_id, name))
        lua_pushfstring(L, "%s%%%s", text, name);
    else
        lua_pushstring(L, text);
    lua_pushinteger(L, ntohs(in6->sin6_port));
    return 2;
}

static int push_unix(lua_State *L, const struct sockaddr_un *un, socklen_t size)
{
    size_t start = offsetof(struct sockaddr_un, sun_path), length = size > start ? size - start : 0;
    if (length > sizeof un->sun_path) length = sizeof un->sun_path;
    if (length > 0 && un->sun_path[0] != '\0') length = strnlen(un->sun_path, length);
    lua_pushlstring(L, un->sun_path, length);
    return 1;
}

int address_push(lua_State *L, const struct sockaddr_storage *address, socklen_t size)
{
    char text[INET_ADDRSTRLEN];
    if (size < sizeof(sa_family_t)) return 0;
    if (address->ss_family == AF_UNIX) return push_unix(L, (const struct sockaddr_un *)address, size);
    if (address->ss_family == AF_INET6) return push_ipv6(L, (const struct sockaddr_in6 *)address);
    if (address->ss_family != AF_INET) return 0;
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    lua_pushstring(L, inet_ntop(AF_INET, &in->sin_addr, text, sizeof text));
    lua_pushinteger(L, ntohs(in->sin_port));
    return 2;
}

/* --- flags --- */

int flags_read(lua_State *L, int index)
{
    int is_integer;
    if (lua_isnoneornil(L, index)) return 0;
    if (lua_type(L, index) == LUA_TSTRING) {
        if (strcmp(lua_tostring(L, index), "D") == 0) return MSG_DONTWAIT;
        return luaL_argerror(L, index, "invalid flags name");
    }
    lua_Integer flags = lua_tointegerx(L, index, &is_integer);
    if (!is_integer) return luaL_typeerror(L, index, "flags as text or number");
    luaL_argcheck(L, flags >= 0 && flags <= INT32_MAX, index, "invalid flags");
    return (int)flags;
}
