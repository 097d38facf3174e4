/* Names to addresses: c-ares driven by the coordinator's ring, with a cache that honours TTL.
 *
 * Runs on one thread, the owner of `ring`. Equal queries in flight are asked once. /etc/hosts and resolv.conf's search
 * list as c-ares does. <ares.h> appears in resolve.c alone. */
#ifndef SLUICE_CORE_RESOLVE_H
#define SLUICE_CORE_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring.h"
#include "route.h"

#define RESOLVE_CACHE_ENTRIES   4096u
#define RESOLVE_NEGATIVE_TTL_MS 5000u

struct resolver;

struct resolve_options {
    const char *nameservers; /* "ip[:port],..." or NULL: resolv.conf. A bad list is -EINVAL */
    uint32_t timeout_ms;     /* of a whole query, all servers and tries */
    uint8_t op; /* the tag's op for the ring operations of the resolver; slot is the resolver's own business */
};

struct resolve_stats {
    uint64_t queries, cache_hits, coalesced, failures, timeouts;
    uint32_t cached; /* entries now */
};

/* `answered` is called once per query on this thread, from resolve_ask() itself (cache hit, literal) or later.
 * status as in struct resolve_request; the results stand in the request. */
typedef void resolve_answered(void *context, struct resolve_request *request, void *cookie, int status);

int resolve_open(struct resolver **out, struct ring *ring, const struct resolve_options *options,
                 resolve_answered *answered, void *context);
/* Open queries are answered with -ECANCELED. Polls in flight are cancelled: their completions come later, and are the
 * owner's to drop. Not to be called from within `answered`. */
void resolve_close(struct resolver *resolver);
void resolve_ask(struct resolver *resolver, struct resolve_request *request, void *cookie);
void resolve_on_completion(struct resolver *resolver,
                           const struct ring_completion *completion); /* tag.op == options.op */
/* Milliseconds until resolve_on_time() must be called, UINT64_MAX when nothing is open. */
uint64_t resolve_wait_ms(const struct resolver *resolver, uint64_t now_ms);
void resolve_on_time(struct resolver *resolver, uint64_t now_ms);
int resolve_set_nameservers(struct resolver *resolver,
                            const char *nameservers); /* NULL: back to resolv.conf; drops the cache */
const struct resolve_stats *resolve_get_stats(const struct resolver *resolver);

#endif
