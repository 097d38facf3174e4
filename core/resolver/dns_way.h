/* By which way questions leave for name servers: --mark, -i and --source hold for them as for clients' connections. A
 * server on loopback is no matter of sources and interfaces: nothing leaves the machine for it. */
#ifndef SLUICE_CORE_RESOLVER_DNS_WAY_H
#define SLUICE_CORE_RESOLVER_DNS_WAY_H

#include <stdint.h>
#include <sys/socket.h>

#include "protocols/egress_text.h"

struct dns_way {
    struct egress_terms terms;
    uint64_t turn;    /* of the pool: moves on where every question has another address, or when one fails */
    uint64_t warn_ms; /* no other line before */
};

/* A socket that is not connected yet takes the way to that server. 0; or -errno, and the socket must not be used: one
 * line in a while says why. now_ms  of ring_now_ms(). */
int dns_way_take(struct dns_way *way, int fd, const struct sockaddr *to, uint64_t now_ms);

#endif
