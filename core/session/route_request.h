/* What a ruleset is asked, and what it answers.
 *
 * A question is lent: from the post until the answer the coordinator owns its memory, and the session's slot is pinned,
 * as with an operation in the kernel. A worker that no longer wants the answer sets `cancelled`; it still comes back.
 */
#ifndef SLUICE_CORE_SESSION_ROUTE_REQUEST_H
#define SLUICE_CORE_SESSION_ROUTE_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/io/queue.h"
#include "core/session/failure.h"
#include "core/session/keys.h"
#include "protocols/address.h"
#include "protocols/credentials.h"
#include "protocols/egress_text.h"
#include "protocols/url.h"

#define ROUTE_HOPS_MAX 16u /* of -x and of a ruleset's decision together */

enum route_order {
    ROUTE_REJECT,       /* refuse the client */
    ROUTE_UNAUTHORIZED, /* refuse the client: its user and password are not accepted */
    ROUTE_ACCEPT,       /* ROUTE_BY_LOGIN only: it may go on */
    ROUTE_DIAL,         /* connect; a failure is the client's */
    ROUTE_TRY,          /* connect; a failure comes back as the same question (await.forward), an end as ROUTED */
};

/* What a verdict says of the PROXY header for its target: a version, or one of these. */
#define ROUTE_HEADER_UNSAID 0u /* as the listener has it (--send-proxy) */
#define ROUTE_HEADER_NONE   UINT8_MAX

struct route_verdict {
    uint8_t order;     /* enum route_order */
    uint8_t hop_count; /* proxies in the order of travel, in front of the target; 0: direct */
    uint32_t rule;     /* tag of the rule that decided, see engine_tag(); 0: none */
    uint8_t limit_count;
    uint64_t limits[KEYS_PER_SESSION]; /* that the session comes under: keys_handle() */
    uint8_t proxy_protocol;            /* version of the PROXY header for the target, or ROUTE_HEADER_... */
    uint32_t cache_ms;                 /* the worker may give this verdict again for so long; 0: no */
    struct address target;             /* where to, possibly rewritten */
    struct egress_terms egress;        /* by which way, as far as it says */
    const struct proxy_uri *hops;      /* route_request.hops, or an array that lives as long as the process */
};

/* BY_LOGIN: user and password alone are judged, before the client has said where to (RFC 1929); target is NONE. */
/* Whether it asks for a header. */
static inline bool route_has_header(const struct route_verdict *verdict)
{
    return verdict->proxy_protocol != ROUTE_HEADER_UNSAID && verdict->proxy_protocol != ROUTE_HEADER_NONE;
}

enum route_callback { ROUTE_BY_NAME, ROUTE_BY_IPV4, ROUTE_BY_IPV6, ROUTE_BY_LOGIN };

/* What the client wants of the target: `request.command` of scripts, by the words of the access log. */
enum route_command {
    ROUTE_CONNECT,
    ROUTE_BIND,      /* a connection from the target */
    ROUTE_ASSOCIATE, /* datagrams to the target, by way of a UDP association */
    ROUTE_REQUEST,   /* plain HTTP */
};

/* Set in a ruleset's revision, as workers see it: clients must give user and password, as with --auth-required. */
#define ROUTE_REVISION_AUTH UINT32_C(0x80000000)

struct route_request {
    _Atomic uint32_t cancelled;
    uint8_t callback;      /* enum route_callback: which function of the ruleset is to decide */
    uint8_t command;       /* enum route_command; CONNECT with BY_LOGIN */
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

#endif
