/* What a worker can do for the coordinator: each struct begins with its errand, whose `run` is the function below it.
 */
#ifndef SLUICE_CORE_SESSION_ERRAND_KINDS_H
#define SLUICE_CORE_SESSION_ERRAND_KINDS_H

#include <stdint.h>

#include "core/session/errand.h"
#include "core/session/route_request.h"
#include "protocols/address.h"
#include "protocols/url.h"

struct config;
struct upstream_groups;
struct regrouping;
struct session;
struct reconfiguration;

/* Descriptors in an errand belong to whoever holds the errand, and are -1 as soon as a session has taken them over. So
 * one that comes back with a descriptor has been refused, and its sender closes it: nobody else will. */

/* A connection for the coordinator itself, made with all that a session's dialling knows. `fd` is one end of a stream
 * socket pair, on which the session writes one octet first: 0, or the enum failure of the attempt, behind which it
 * closes. */
struct dial_errand {
    struct errand errand;
    int fd;
    uint32_t timeout_ms;
    uint8_t hop_count;
    struct address target;
    struct proxy_uri hops[ROUTE_HOPS_MAX];
};
void errand_dial(struct errand *self, struct worker *w);

#define SESSION_TEXT_SIZE  272u
#define SESSION_CHAIN_SIZE 512u

/* One session, as GET /sessions shows it. */
struct session_row {
    uint32_t slot, generation;
    uint8_t state;     /* enum session_state */
    uint8_t protocol;  /* enum session_protocol */
    uint8_t splice[2]; /* whether that direction moves by splice: up, down */
    uint8_t hops;      /* proxies in front of the target */
    uint32_t rule;
    uint64_t age_ms;
    uint64_t bytes[2]; /* up, down */
    char client[SESSION_TEXT_SIZE], user[SESSION_TEXT_SIZE], target[SESSION_TEXT_SIZE];
    char chain[SESSION_CHAIN_SIZE]; /* as many of the hops as fit, blanks between them */
};

/* Up to `room` sessions from slot `first` on. */
struct list_errand {
    struct errand errand;
    uint32_t first; /* in: slot to begin with */
    uint32_t next;  /* out: where to go on; UINT32_MAX: there are no more */
    uint32_t count; /* out: rows written */
    uint32_t room;  /* in: rows there is memory for */
    struct session_row *rows;
};
void errand_list(struct errand *self, struct worker *w);

/* done(-ENOENT): there is no such session (any more). */
struct kill_errand {
    struct errand errand;
    uint32_t slot, generation;
};
void errand_kill(struct errand *self, struct worker *w);

/* Sessions from slot `first` on, JUDGE_SLOTS of them, whose clients lists deny now: they are reset. */
#define JUDGE_SLOTS 1024u
struct judge_errand {
    struct errand errand;
    uint32_t first;         /* in: slot to begin with */
    uint32_t next;          /* out: where to go on; UINT32_MAX: there are no more */
    uint32_t judged, reset; /* out: added to */
};
void errand_judge(struct errand *self, struct worker *w);

/* Two connected sockets of a script, to be relayed as any session. It comes back when the session has ended; result
 * -ECONNRESET unless both directions ended in order, -ENOBUFS: no room for it. */
struct relay_errand {
    struct errand errand;
    int fds[2];        /* client, upstream; non-blocking */
    uint64_t bytes[2]; /* out: delivered up, down */
};
void errand_relay(struct errand *self, struct worker *w);
/* The session is about to be released: the errand that has brought its sockets goes back, if one has. */
void errand_return_relay(struct worker *w, struct session *s);

/* Limits have changed: flows that wait for octets ask again, those of `room` sessions from slot `first` on. */
#define HEED_SLOTS 1024u
struct heed_errand {
    struct errand errand;
    uint32_t first; /* in: slot to begin with */
    uint32_t room;  /* in: slots to look at, more than 0 */
    uint32_t next;  /* out: where to go on; UINT32_MAX: there are no more */
};
void errand_heed_limits(struct errand *self, struct worker *w);

/* From now on the worker obeys `config`, which lives until no worker uses it. */
struct config_errand {
    struct errand errand;
    const struct config *config;
    struct reconfiguration *all; /* the sender's note */
};
void errand_configure(struct errand *self, struct worker *w);

/* From now on the worker chooses among `groups`, which live until no worker uses them. */
struct groups_errand {
    struct errand errand;
    const struct upstream_groups *groups;
    struct regrouping *all; /* the sender's note */
};
void errand_regroup(struct errand *self, struct worker *w);

#endif
