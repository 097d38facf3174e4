/* What a worker asks of the coordinator and what it may be answered: plain values that travel in messages.
 *
 * A request is lent: from the post until the answer the coordinator owns its memory and the session's slot is pinned,
 * as with an operation in the kernel. A worker that no longer wants the answer sets `cancelled`; it still comes back.
 */
#ifndef SLUICE_CORE_ROUTE_H
#define SLUICE_CORE_ROUTE_H

#include <stdatomic.h>
#include <stdint.h>

#include "address.h"
#include "credentials.h"
#include "queue.h"
#include "url.h"

enum message_kind {
    MESSAGE_ROUTE = 1, /* body: struct route_request */
    MESSAGE_RESOLVE,   /* body: struct resolve_request */
    MESSAGE_STOP,      /* to a worker: drain, then end */
    MESSAGE_STOPPED,   /* from a worker: my last message */
};

#define RESOLVE_ADDRESSES_MAX 16u

/* A name to be resolved. Answer: message.result 0 and at least one address in the order to be tried (RFC 6724 sorted,
 * families interlaced as RFC 8305 section 4 says), or -ENOENT (no such name, no address), -ETIMEDOUT (no server
 * answered), -ECANCELED, -EIO. */
struct resolve_request {
    _Atomic uint32_t cancelled;
    int family;            /* AF_UNSPEC, AF_INET, AF_INET6: strict */
    struct address name;   /* kind NAME; its port goes into the answers */
    struct message origin; /* the coordinator's note of whom to answer */
    uint32_t origin_worker;
    uint32_t count;
    struct resolve_result {
        uint8_t kind; /* ADDRESS_IPV4 or ADDRESS_IPV6 */
        uint8_t octets[16];
    } results[RESOLVE_ADDRESSES_MAX];
};

#define ROUTE_HOPS_MAX 8u

enum route_kind { ROUTE_REJECT, ROUTE_DIRECT, ROUTE_CHAIN };
struct route_verdict {
    uint8_t kind;                 /* enum route_kind */
    uint8_t hop_count;            /* CHAIN: proxies in the order of travel, in front of the target */
    uint32_t rule;                /* tag of the rule that decided, 0: built in */
    struct address target;        /* where to, possibly rewritten */
    const struct proxy_uri *hops; /* borrowed: from the configuration, or from the request's owner */
};

enum route_callback { ROUTE_BY_NAME, ROUTE_BY_IPV4, ROUTE_BY_IPV6 };
struct route_request {
    _Atomic uint32_t cancelled;
    struct address target;
    const struct credentials *credentials; /* lent with the request */
    struct route_verdict verdict;          /* the answer */
};

/* The built-in decision, taken on the worker when no ruleset is loaded: the target itself behind the configured chain.
 */
static inline void route_decide_builtin(struct route_request *request, const struct proxy_uri *hops, uint8_t hop_count)
{
    request->verdict = (struct route_verdict){.kind = hop_count > 0 ? ROUTE_CHAIN : ROUTE_DIRECT,
                                              .hop_count = hop_count,
                                              .target = request->target,
                                              .hops = hops};
}

#endif
