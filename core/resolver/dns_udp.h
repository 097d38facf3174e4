/* Questions over UDP that are hard to answer for whoever has not seen them (RFC 5452): a socket, and so a source port,
 * for each; letters of the name in a random case (0x20); and no answer counts unless it repeats the question octet for
 * octet. Lies below c-ares (dns_channel.c), which takes each of these sockets for one.
 *
 *   dns_udp_send --> exchange: a socket connected to the server --an answer that matches--> `answered`
 *                                                              `--others: counted, dropped
 * An exchange ends with its answer, with an error, when its lane is closed, after `patience_ms`, or when room or a
 * descriptor is needed and it is the oldest: then c-ares repeats the question. The sockets are in one epoll set, which
 * the ring polls: so one that is closed leaves nothing behind in the kernel, and thousands may come and go within a
 * turn. */
#ifndef SLUICE_CORE_RESOLVER_DNS_UDP_H
#define SLUICE_CORE_RESOLVER_DNS_UDP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/io/counter.h"
#include "core/io/list.h"
#include "core/io/pool.h"
#include "core/io/ring.h"
#include "core/resolver/dns_way.h"

#define DNS_UDP_SLOT  0x10000u /* slot of the set's tag */
#define DNS_LANES_MAX 64u

/* What c-ares has in place of a socket to one server. */
struct dns_lane {
    int fd; /* a number that stands for it; -1: free */
    struct sockaddr_storage to;
    socklen_t to_size;
    uint8_t strikes; /* answers in a row in another case; NEVER_AGAIN: this server cannot keep it */
    bool keeps_case; /* it has shown that it can */
    bool known;      /* `to` is set; outlives the lane's closing, with what was learnt */
};

struct dns_udp {
    struct ring *ring;
    uint8_t op;
    uint32_t patience_ms;
    counter *mismatched; /* answers that were dropped */
    struct dns_way *way;
    struct pool exchanges;
    int epoll_fd;
    struct link open; /* the oldest first */
    struct dns_lane lanes[DNS_LANES_MAX];
    /* lane, and the datagram that answers, or error < 0 (-errno) of its socket. Borrowed for the call. */
    void (*answered)(void *context, int lane_fd, const uint8_t *data, size_t size, int error);
    void *context;
};

/* 0 or -errno. The caller has filled ring, op, patience_ms, mismatched, way, answered, context; the rest is zero. */
int dns_udp_open(struct dns_udp *udp, uint32_t sockets_max);
void dns_udp_close(struct dns_udp *udp); /* the poll in flight is cancelled */

int dns_udp_lane_open(struct dns_udp *udp); /* a descriptor, or -errno */
void dns_udp_lane_connect(struct dns_udp *udp, int lane_fd, const struct sockaddr *to, socklen_t size);
bool dns_udp_is_lane(const struct dns_udp *udp, int fd);
const struct dns_lane *dns_udp_lane(const struct dns_udp *udp, int lane_fd);
void dns_udp_lane_close(struct dns_udp *udp, int lane_fd); /* and its exchanges */
/* Octets sent, or -errno. */
int dns_udp_send(struct dns_udp *udp, int lane_fd, const void *query, size_t size);

void dns_udp_on_completion(struct dns_udp *udp); /* of the poll of the set */
void dns_udp_on_time(struct dns_udp *udp, uint64_t now_ms);

#endif
