/* What the files of an association share: udp.c (its life, receiving), udp_forward.c (which way a datagram goes) and
 * udp_send.c. */
#ifndef SLUICE_CORE_SESSION_UDP_PRIVATE_H
#define SLUICE_CORE_SESSION_UDP_PRIVATE_H

#include <assert.h>
#include <netinet/in.h>
#include <sys/uio.h>

#include "core/io/pool.h"
#include "core/io/share.h"
#include "core/session/session.h"
#include "core/session/udp_chain.h"
#include "core/session/udp_targets.h"
#include "core/session/worker.h"

#define UDP_GROUP 1u
/* The longest payload is 65,507 octets, 65,527 over IPv6; in front of it are the ring's header, the sender and SOCKS5's
 * header, 306 octets at most. Only what datagrams really fill becomes resident. */
#define UDP_BUFFER_SIZE 67584u
#define UDP_BUFFERS     256u
/* Sends of one association that are in flight: more than one turn usually receives from a socket, but a full one must
 * not take the buffers of the others. */
#define UDP_SENDS_MAX (UDP_BUFFERS / 4 * 3)
/* Datagrams of one association that wait for an address, a verdict or a chain, and of all associations. */
#define UDP_WAITING_MAX     8u
#define UDP_WAITING_MAX_ALL (UDP_BUFFERS / 8)
/* Names that an association remembers. The coordinator's cache knows their real TTL, so ours is short. */
#define UDP_NAMES   8u
#define UDP_NAME_MS 10000u
/* How long what has failed is not tried again: names, chains. */
#define UDP_FAILED_MS 2000u
/* Chains of an association at a time. */
#define UDP_CHAINS 4u

struct udp_name {
    struct address name;    /* port 0; NONE: free */
    struct address address; /* NONE: there is none that we would send to */
    uint64_t until_ms;
};

struct udp_waiting {
    uint16_t buffer;
    int32_t filled; /* the result of its receive */
};

struct association {
    int fds[UDP_SOCKETS];         /* -1: none */
    struct address client;        /* the IP address of the TCP connection; its port does not matter */
    struct net_address client_at; /* where its last valid datagram came from; size 0: none yet */
    struct address bound;         /* the socket towards the client */
    uint16_t port_bound;          /* its port while own.h knows it; else 0 */
    uint16_t port_named;          /* the port that the request names as the client's own; 0: none */
    bool port_fixed;              /* it has really sent from there: from now on only that port is the client's */
    uint32_t sends;               /* in flight */
    uint8_t starved;              /* by socket: bits of receives that wait for buffers */
    struct egress egress;         /* of its sockets towards targets, and of its chains */
    uint8_t names_next;           /* entry of `names` that is replaced next */
    uint8_t waiting_count;
    struct udp_waiting waiting[UDP_WAITING_MAX];
    struct resolve_request resolve; /* lent while SESSION_ANSWER */
    struct udp_name names[UDP_NAMES];
    uint8_t discarded[512]; /* what the client sends on its TCP connection */

    /* Which way: with a ruleset, or through a chain. */
    struct credentials credentials; /* for the ruleset */
    bool admitted;                  /* it has let the client in already */
    bool chained;                   /* all goes through one chain, that of -x: without it the association ends */
    uint32_t chains[UDP_CHAINS];    /* POOL_NONE: none */
    uint64_t chain_used_ms[UDP_CHAINS];
    uint32_t revision; /* of the ruleset that `targets` are decisions of; 0: there is none */
    uint32_t asked_revision;
    uint64_t asked_us; /* when it was asked */

    /* Large, and touched as far as it is needed: association_init() leaves the rest alone. */
    struct route_request route; /* lent while SESSION_VERDICT */
    struct udp_targets targets;
};

/* A datagram on its way out; its number is that of its buffer. */
struct udp_send {
    uint32_t session;
    uint32_t size; /* of the payload */
    bool down;     /* to the client */
    uint8_t header[UDP_CHAIN_HEADER_MAX];
    struct iovec parts[2];
    struct net_address to;
    struct msghdr message;
};

struct udp {
    struct pool associations;
    struct share held;
    struct udp_peers *peers; /* owned by the slots of `associations` */
    uint8_t *base;           /* of the buffers */
    struct msghdr shape;     /* of all receives */
    uint32_t taken;          /* buffers that are not with the kernel */
    uint32_t waiting;        /* of them: datagrams that wait */
    uint32_t starved;        /* receives that wait for buffers */
    struct udp_send sends[UDP_BUFFERS];
};

static_assert((UDP_BUFFERS & (UDP_BUFFERS - 1)) == 0, "the kernel wants a power of two");

static inline bool association_is(const struct session *s)
{
    return s->command == SOCKS5_UDP_ASSOCIATE && s->protocol != PROTOCOL_CHAIN && s->extra != POOL_NONE;
}

static inline struct association *association_of(const struct worker *w, const struct session *s)
{
    assert(association_is(s));
    return pool_at(&w->udp->associations, s->extra);
}

static inline struct iovec udp_part(const void *data, size_t size)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = size};
}

#endif
