/* getsockopt, setsockopt: the abbreviations of the original for SOL_SOCKET, the usual names in full for every level. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "lua/socket/socket_private.h"

/* The level's name and what options of it begin with. */
static const struct level {
    int level;
    const char *names[3], *prefix;
} levels[] = {
    {SOL_SOCKET, {"SOL_SOCKET", "socket", NULL}, "SO_"},
    {IPPROTO_TCP, {"IPPROTO_TCP", "SOL_TCP", "tcp"}, "TCP_"},
    {IPPROTO_UDP, {"IPPROTO_UDP", "SOL_UDP", "udp"}, "UDP_"},
    {IPPROTO_IP, {"IPPROTO_IP", "SOL_IP", "ip"}, "IP_"},
    {IPPROTO_IPV6, {"IPPROTO_IPV6", "SOL_IPV6", "ipv6"}, "IPV6_"},
    {IPPROTO_RAW, {"IPPROTO_RAW", "SOL_RAW", "raw"}, "RAW_"},
};
#define LEVEL_COUNT (sizeof levels / sizeof levels[0])

static const struct option {
    int level, option;
    const char *letters, *name; /* the original's abbreviation, or NULL; the name behind the prefix */
} options[] = {
    {SOL_SOCKET, SO_BROADCAST, "b", "BROADCAST"},
    {SOL_SOCKET, SO_DEBUG, "d", "DEBUG"},
    {SOL_SOCKET, SO_DONTROUTE, "dt", "DONTROUTE"},
    {SOL_SOCKET, SO_ERROR, "e", "ERROR"},
    {SOL_SOCKET, SO_KEEPALIVE, "k", "KEEPALIVE"},
    {SOL_SOCKET, SO_LINGER, "l", "LINGER"},
    {SOL_SOCKET, SO_NO_CHECK, "n", "NO_CHECK"},
    {SOL_SOCKET, SO_OOBINLINE, "o", "OOBINLINE"},
    {SOL_SOCKET, SO_PRIORITY, "p", "PRIORITY"},
    {SOL_SOCKET, SO_RCVBUF, "r", "RCVBUF"},
    {SOL_SOCKET, SO_RCVBUFFORCE, "rf", "RCVBUFFORCE"},
    {SOL_SOCKET, SO_REUSEADDR, "ra", "REUSEADDR"},
    {SOL_SOCKET, SO_REUSEPORT, "rp", "REUSEPORT"},
    {SOL_SOCKET, SO_SNDBUF, "s", "SNDBUF"},
    {SOL_SOCKET, SO_SNDBUFFORCE, "sf", "SNDBUFFORCE"},
    {SOL_SOCKET, SO_TYPE, "t", "TYPE"},
    {SOL_SOCKET, SO_ACCEPTCONN, NULL, "ACCEPTCONN"},
    {SOL_SOCKET, SO_DOMAIN, NULL, "DOMAIN"},
    {SOL_SOCKET, SO_PROTOCOL, NULL, "PROTOCOL"},
    {SOL_SOCKET, SO_MARK, NULL, "MARK"},
    {SOL_SOCKET, SO_RCVLOWAT, NULL, "RCVLOWAT"},
    {SOL_SOCKET, SO_INCOMING_CPU, NULL, "INCOMING_CPU"},
    {IPPROTO_TCP, TCP_NODELAY, NULL, "NODELAY"},
    {IPPROTO_TCP, TCP_CORK, NULL, "CORK"},
    {IPPROTO_TCP, TCP_QUICKACK, NULL, "QUICKACK"},
    {IPPROTO_TCP, TCP_MAXSEG, NULL, "MAXSEG"},
    {IPPROTO_TCP, TCP_KEEPIDLE, NULL, "KEEPIDLE"},
    {IPPROTO_TCP, TCP_KEEPINTVL, NULL, "KEEPINTVL"},
    {IPPROTO_TCP, TCP_KEEPCNT, NULL, "KEEPCNT"},
    {IPPROTO_TCP, TCP_SYNCNT, NULL, "SYNCNT"},
    {IPPROTO_TCP, TCP_LINGER2, NULL, "LINGER2"},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, NULL, "DEFER_ACCEPT"},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP, NULL, "WINDOW_CLAMP"},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, NULL, "USER_TIMEOUT"},
    {IPPROTO_TCP, TCP_FASTOPEN, NULL, "FASTOPEN"},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, NULL, "FASTOPEN_CONNECT"},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, NULL, "NOTSENT_LOWAT"},
    {IPPROTO_UDP, UDP_CORK, NULL, "CORK"},
    {IPPROTO_UDP, UDP_SEGMENT, NULL, "SEGMENT"},
    {IPPROTO_IP, IP_TOS, NULL, "TOS"},
    {IPPROTO_IP, IP_TTL, NULL, "TTL"},
    {IPPROTO_IP, IP_FREEBIND, NULL, "FREEBIND"},
    {IPPROTO_IP, IP_TRANSPARENT, NULL, "TRANSPARENT"},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, NULL, "BIND_ADDRESS_NO_PORT"},
    {IPPROTO_IP, IP_MTU, NULL, "MTU"},
    {IPPROTO_IP, IP_MTU_DISCOVER, NULL, "MTU_DISCOVER"},
    {IPPROTO_IP, IP_MULTICAST_TTL, NULL, "MULTICAST_TTL"},
    {IPPROTO_IP, IP_MULTICAST_LOOP, NULL, "MULTICAST_LOOP"},
    {IPPROTO_IPV6, IPV6_V6ONLY, NULL, "V6ONLY"},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, NULL, "UNICAST_HOPS"},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, NULL, "MULTICAST_HOPS"},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, NULL, "MULTICAST_LOOP"},
    {IPPROTO_IPV6, IPV6_TCLASS, NULL, "TCLASS"},
    {IPPROTO_IPV6, IPV6_MTU, NULL, "MTU"},
};
#define OPTION_COUNT (sizeof options / sizeof options[0])

static const struct level *level_of(int level)
{
    for (size_t i = 0; i < LEVEL_COUNT; i++)
        if (levels[i].level == level) return &levels[i];
    return NULL;
}

static const struct level *read_level(lua_State *L, int index)
{
    const char *name = luaL_checkstring(L, index);
    for (size_t i = 0; i < LEVEL_COUNT; i++)
        for (size_t j = 0; j < 3 && levels[i].names[j]; j++)
            if (strcasecmp(name, levels[i].names[j]) == 0) return &levels[i];
    switch (name[0]) {
    case 's': return level_of(SOL_SOCKET);
    case 't': return level_of(IPPROTO_TCP);
    case 'u': return level_of(IPPROTO_UDP);
    case 'r': return level_of(IPPROTO_RAW);
    case 'i': return level_of(IPPROTO_IP);
    default: luaL_argerror(L, index, "invalid level name"); return NULL;
    }
}

static int read_option(lua_State *L, int index, const struct level *level)
{
    const char *name = luaL_checkstring(L, index);
    size_t prefix = strlen(level->prefix);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (options[i].level == level->level && options[i].letters && strcmp(name, options[i].letters) == 0)
            return options[i].option;
    if (strncasecmp(name, level->prefix, prefix) == 0) name += prefix;
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (options[i].level == level->level && strcasecmp(name, options[i].name) == 0) return options[i].option;
    return luaL_argerror(L, index, "invalid option name");
}

/* sock:getsockopt(level, option) -> integer; SO_LINGER: seconds, -1 when it is off                   [-0, +1, e] */
int socket_getsockopt(lua_State *L)
{
    const struct sock *s = socket_check(L, 1, "getsockopt");
    const struct level *level = read_level(L, 2);
    int option = read_option(L, 3, level), value = 0;
    struct linger linger = {0};
    bool is_linger = level->level == SOL_SOCKET && option == SO_LINGER;
    socklen_t size = is_linger ? sizeof linger : sizeof value;
    if (getsockopt(socket_fd(s), level->level, option, is_linger ? (void *)&linger : &value, &size) < 0)
        return socket_raise(L, "getsockopt", errno);
    if (is_linger) value = linger.l_onoff ? linger.l_linger : -1;
    lua_pushinteger(L, value);
    return 1;
}

static int read_value(lua_State *L, int index)
{
    if (lua_isboolean(L, index)) return lua_toboolean(L, index);
    lua_Integer value = luaL_checkinteger(L, index);
    luaL_argcheck(L, value >= INT32_MIN && value <= INT32_MAX, index, "value out of range");
    return (int)value;
}

/* sock:setsockopt(level, option, integer or boolean)                                                 [-0, +0, e] */
int socket_setsockopt(lua_State *L)
{
    const struct sock *s = socket_check(L, 1, "setsockopt");
    const struct level *level = read_level(L, 2);
    int option = read_option(L, 3, level), value = read_value(L, 4);
    struct linger linger = {.l_onoff = value >= 0, .l_linger = 0};
    bool is_linger = level->level == SOL_SOCKET && option == SO_LINGER;
    /* The kernel would keep close() waiting for so long, and with it everything else. */
    luaL_argcheck(L, !is_linger || value <= 0, 4, "LINGER is 0 (reset) or -1 (off): close never waits");
    socklen_t size = is_linger ? sizeof linger : sizeof value;
    if (setsockopt(socket_fd(s), level->level, option, is_linger ? (void *)&linger : &value, size) < 0)
        return socket_raise(L, "setsockopt", errno);
    return 0;
}
