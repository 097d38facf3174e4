/* The connections of the API and how long each may take. libmicrohttpd 0.9.75 only knows how long nothing has moved: a
 * client that sends one octet every second would hold its connection for ever, and all of them, together, the API. Nor
 * does it notice the end of a client that arrives together with its last octets, because it waits on an edge. So we
 * look, once a second; what we shut down, libmicrohttpd finds ended and closes. */
#ifndef SLUICE_API_PEERS_H
#define SLUICE_API_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEERS_MAX      256u
#define PEERS_SWEEP_MS 1000u

enum peer_state {
    PEER_FREE,
    PEER_IDLE, /* between requests, or within the first line of one */
    PEER_BUSY, /* a request is read or answered */
    PEER_WAITS /* for a script or a worker, which have limits of their own */
};

struct peer {
    enum peer_state state;
    int fd; /* borrowed from libmicrohttpd */
    uint64_t since_ms;
};
struct peers {
    size_t count; /* not FREE */
    struct peer all[PEERS_MAX];
};

/* What a client that waits has done with its side of the connection. */
enum peer_presence {
    PEER_HERE,
    PEER_HALF_CLOSED, /* it will send no more: it waits for its answer alone, or has gone */
    PEER_GONE,        /* reset, or a Unix socket that was closed */
};
enum peer_presence peers_look(const struct peer *peer);

/* NULL: all are taken. */
struct peer *peers_take(struct peers *peers, int fd, uint64_t now_ms);
void peers_give(struct peers *peers, struct peer *peer);
/* A request, from its first line to the last octet of its answer, has one limit; after a wait it begins anew. What came
 * before that line, the rest of a connection that is kept or the line's first octets, has one of its own. NULL is fine.
 */
void peers_enter(struct peer *peer, enum peer_state state, uint64_t now_ms);
/* Shuts down those that take longer than limit_ms, and the idle ones whose client has ended. How many. */
size_t peers_sweep(struct peers *peers, uint64_t now_ms, uint64_t limit_ms);

#endif
