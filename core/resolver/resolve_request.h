/* What the resolver is asked, and what it answers.
 *
 * A request is lent: from the post until its answer the resolver owns this memory. One whose answer nobody wants any
 * more gets `cancelled`; it still comes back. */
#ifndef SLUICE_CORE_RESOLVER_RESOLVE_REQUEST_H
#define SLUICE_CORE_RESOLVER_RESOLVE_REQUEST_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/io/queue.h"
#include "core/io/share.h"
#include "protocols/address.h"

/* The kind of the messages that carry a request or its answer: the resolver's queues have no other. */
#define RESOLVE_MESSAGE 0u

#define RESOLVE_ADDRESSES_MAX   16u
#define RESOLVE_CACHE_ENTRIES   4096u /* answers that are kept */
#define RESOLVE_NEGATIVE_TTL_MS 5000u /* how long "no such name" is kept */
#define RESOLVE_DELAY_MS        50u   /* how long an answer waits for the other family, RFC 8305 section 3 */

/* A name to be resolved. Answer: message.result 0 and at least one address in the order to be tried (RFC 6724 sorted,
 * families interlaced as RFC 8305 section 4 says), or -ENOENT (no such name, no address), -ETIMEDOUT (no server
 * answered), -ENOMEM (too many names are being looked up, in all or for this source), -ECANCELED, -EIO. */
struct resolve_request {
    _Atomic uint32_t cancelled;
    int family;                 /* AF_UNSPEC, AF_INET, AF_INET6: strict */
    struct address name;        /* kind NAME; its port goes into the answers */
    struct share_source source; /* for whom; size 0: for nobody who is bounded */
    struct message origin;      /* the resolver's note of what to answer */
    uint32_t asker;             /* and whom */
    uint32_t keep_ms;           /* how long the answer may be given again; 0: not at all */
    uint64_t revision;          /* resolve_stats.revision at the time of the answer */
    uint32_t count;
    struct resolve_result {
        uint8_t kind; /* ADDRESS_IPV4 or ADDRESS_IPV6 */
        uint8_t octets[16];
    } results[RESOLVE_ADDRESSES_MAX];
};

/* Takes an answer on the resolver's thread; the results stand in the request. status: message.result above.
 * cookie: of resolve_ask(). */
typedef void resolve_answered(void *context, struct resolve_request *request, void *cookie, int status);

#endif
