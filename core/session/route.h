/* What workers and the coordinator ask of each other: plain values that travel in messages.
 *
 *   worker      --ROUTE-->              coordinator      a question, lent: comes back as its answer
 *   worker      --CANCEL, ROUTED-->     coordinator      a word about a question, nothing comes back
 *   coordinator --DIAL, LIST, KILL, RELAY, CONFIG--> worker     an errand, lent: comes back when it is done
 *
 * A question is lent: from the post until the answer its receiver owns its memory and the session's slot is pinned, as
 * with an operation in the kernel. A worker that no longer wants the answer sets `cancelled`; it still comes back.
 * Questions to the resolver are resolve_request.h's.
 */
#ifndef SLUICE_CORE_SESSION_ROUTE_H
#define SLUICE_CORE_SESSION_ROUTE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/io/queue.h"
#include "core/resolver/resolve_request.h"
#include "core/session/failure.h"
#include "protocols/address.h"
#include "protocols/credentials.h"
#include "protocols/url.h"

enum message_kind {
    MESSAGE_ROUTE = 1, /* body: struct route_request */
    MESSAGE_CANCEL,    /* from a worker: nobody waits for the verdict of this session's question any more */
    MESSAGE_ROUTED,    /* from a worker: a ROUTE_TRY has ended. result 0: the relay runs; else the session is gone */
    MESSAGE_DIAL,      /* to a worker, body: struct dial_errand */
    MESSAGE_LIST,      /* to a worker, body: struct list_errand */
    MESSAGE_KILL,      /* to a worker, body: struct kill_errand */
    MESSAGE_RELAY,     /* to a worker, body: struct relay_errand */
    MESSAGE_CONFIG,    /* to a worker, body: struct config_errand */
    MESSAGE_STOPPED,   /* from a worker: my last message */
};

/* --- routing --- */

#define ROUTE_HOPS_MAX 16u /* of -x and of a ruleset's decision together */

enum route_order {
    ROUTE_REJECT,       /* refuse the client */
    ROUTE_UNAUTHORIZED, /* the same: who it says it is is not proven */
    ROUTE_ACCEPT,       /* ROUTE_BY_LOGIN only: it may go on */
    ROUTE_DIAL,         /* connect; a failure is the client's */
    ROUTE_TRY,          /* connect; a failure comes back as the same question (await.forward), an end as ROUTED */
};

struct route_verdict {
    uint8_t order;                /* enum route_order */
    uint8_t hop_count;            /* proxies in the order of travel, in front of the target; 0: direct */
    uint32_t rule;                /* tag of the rule that decided, see engine_tag(); 0: none */
    uint32_t cache_ms;            /* the worker may give this verdict again for so long; 0: no */
    struct address target;        /* where to, possibly rewritten */
    const struct proxy_uri *hops; /* route_request.hops, or an array that lives as long as the process */
};

/* BY_LOGIN: user and password alone are judged, before the client has said where to (RFC 1929); target is NONE. */
enum route_callback { ROUTE_BY_NAME, ROUTE_BY_IPV4, ROUTE_BY_IPV6, ROUTE_BY_LOGIN };

/* Set in a ruleset's revision, as workers see it: clients must give user and password, as with --auth-required. */
#define ROUTE_REVISION_AUTH UINT32_C(0x80000000)

struct route_request {
    _Atomic uint32_t cancelled;
    uint8_t callback;      /* enum route_callback: which function of the ruleset is to decide */
    uint8_t failure;       /* enum failure of the ROUTE_TRY before; FAIL_NONE: asked for the first time */
    bool admitted;         /* BY_LOGIN has been asked and has let it in */
    struct address target; /* NONE: a forwarder without a target (-f :), or BY_LOGIN */
    const struct credentials *credentials; /* lent with the request */
    struct message origin;                 /* the coordinator's note of whom to answer */
    uint32_t origin_worker;
    struct route_verdict verdict;          /* the answer */
    struct proxy_uri hops[ROUTE_HOPS_MAX]; /* room for the answer's chain */
};

/* The built-in decision, taken on the worker when no ruleset is loaded: the target itself behind the configured chain.
 */
static inline void route_decide_builtin(struct route_request *request, const struct proxy_uri *hops, uint8_t hop_count)
{
    request->verdict = (struct route_verdict){
        .order = ROUTE_DIAL, .hop_count = hop_count, .target = request->target, .hops = request->hops};
    if (hop_count > 0) memcpy(request->hops, hops, hop_count * sizeof *hops); /* the configuration may be replaced */
}

/* --- errands: what the coordinator sends a worker to do --- */

struct errand {
    void (*done)(struct errand *self, int32_t result); /* on the coordinator's thread, exactly once */
    /* The worker's notes while it holds one that is done, see errand_return(). */
    struct errand *next;
    uint32_t kind;
    int32_t result;
};

/* Errands that are done, in that order, each linked to the next. */
struct errand_returns {
    struct errand *first, *last;
};

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

/* done(-ENOENT): there is no such session (any more). */
struct kill_errand {
    struct errand errand;
    uint32_t slot, generation;
};

/* Two connected sockets of a script, to be relayed as any session. It comes back when the session has ended; result
 * -ECONNRESET unless both directions ended in order, -ENOBUFS: no room for it. */
struct relay_errand {
    struct errand errand;
    int fds[2];        /* client, upstream; non-blocking */
    uint64_t bytes[2]; /* out: delivered up, down */
};

struct config;
struct reconfiguration;
/* From now on the worker obeys `config`, which lives until no worker uses it. */
struct config_errand {
    struct errand errand;
    const struct config *config;
    struct reconfiguration *all; /* the sender's note */
};

#endif
