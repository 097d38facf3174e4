#include "core/resolver/dns_way.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/io/privilege.h"

#define WARN_MS 10000u

static bool is_loopback(const struct sockaddr *to)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    if (to->sa_family == AF_INET) {
        memcpy(&in, to, sizeof in);
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    memcpy(&in6, to, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

/* The right may have been kept, and not be in force (privilege.h). */
static int set_mark(int fd, uint32_t mark)
{
    int error = net_set_mark(fd, mark);
    if (error != -EPERM || !privilege_raise()) return error;
    return net_set_mark(fd, mark);
}

static int bind_source(struct dns_way *way, int fd, uint8_t kind)
{
    const struct egress_sources *pool = &way->terms.sources;
    struct egress_place place;
    struct net_address raw;
    bool turns = pool->by == EGRESS_BY_ROUND, random = pool->by == EGRESS_BY_RANDOM;
    if (turns || random) way->turn++;
    if (!egress_first(pool, kind, way->turn, random, &place)) return -EAFNOSUPPORT;
    struct address source = egress_address(pool, &place);
    net_address_from(&source, &raw);
    int error = net_bind_source(fd, &raw, false);
    if (error < 0) way->turn++; /* the next question has another one */
    return error;
}

static int take(struct dns_way *way, int fd, const struct sockaddr *to)
{
    int error = way->terms.marked ? set_mark(fd, way->terms.mark) : 0;
    if (error < 0 || is_loopback(to)) return error;
    if (way->terms.device[0]) error = net_set_device(fd, way->terms.device);
    if (error == 0 && way->terms.sources.count > 0) /* `same` is an address of a client's, and here is none */
        error = bind_source(way, fd, to->sa_family == AF_INET ? ADDRESS_IPV4 : ADDRESS_IPV6);
    return error;
}

int dns_way_take(struct dns_way *way, int fd, const struct sockaddr *to, uint64_t now_ms)
{
    int error = take(way, fd, to);
    if (error == 0 || now_ms < way->warn_ms) return error;
    way->warn_ms = now_ms + WARN_MS;
    LOGW("a name server cannot be asked by way of --source, -i and --mark: %s",
         error == -EAFNOSUPPORT ? "there is no source address of its family" : strerror(-error));
    return error;
}
