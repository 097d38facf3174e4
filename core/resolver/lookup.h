/* What name servers are asked: a name for one or both families, until it is decided.
 *
 *     lookup_for() --> OPEN --name servers--> decided --the last query is back--> KEPT by the cache, or dropped
 *                       ^ joined by equal requests         \-- all its pending requests are answered
 *
 * A lookup is an entry of the cache (resolve_cache.h): first while name servers are asked, then with their answer. One
 * for both families is two queries, for A and for AAAA. It is decided when both are back, or RESOLVE_DELAY_MS after the
 * first that says something for both: an address, or that there is no such name (RFC 8305 section 3). From then on it
 * answers all pending requests, also with one family alone, and it is kept when the last query is back. A name without
 * a final dot may be asked for several times, as candidates of the search list.
 *
 * All memory is in pools of untouched pages, bounded whatever clients ask for. One thread. */
#ifndef SLUICE_CORE_RESOLVER_LOOKUP_H
#define SLUICE_CORE_RESOLVER_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/io/list.h"
#include "core/io/pool.h"
#include "core/io/ring.h"
#include "core/resolver/dns_channel.h"
#include "core/resolver/half.h"
#include "core/resolver/pending.h"
#include "core/resolver/resolve_cache.h"
#include "core/resolver/resolve_stats.h"

#define LOOKUPS_MAX   4096u /* lookups on their way at the same time; more are refused */
#define LOOKUP_SHARES 4096u /* places for sources, a power of two */

struct lookup {
    struct cache_entry entry; /* its order, between two sets of servers: in restarts */
    struct link pending;      /* OPEN only */
    struct link delay;        /* in delayed, while the second family has its time */
    struct lookups *owner;
    uint64_t delay_until_ms; /* when that is over */
    uint64_t ttl_ms;         /* decided: how long the answer holds */
    uint32_t candidate;      /* of the search list */
    uint32_t queries;        /* that are not back */
    uint32_t share;          /* place of the source that it is asked for + 1; 0: of nobody */
    bool decided;            /* entry.status, count and results are set */
    bool restart;            /* the servers have changed: to be asked anew */
    struct half halves[HALVES];
};

struct lookups {
    struct ring *ring;           /* its clock */
    struct dns_channel *channel; /* the owner's */
    struct pending_requests *pending;
    struct resolve_stats *stats;
    bool closing;       /* what comes back says nothing any more */
    struct cache cache; /* of lookups */
    struct pool queries;
    struct link restarts; /* lookups whose servers have changed */
    struct link delayed;  /* lookups whose second family has its time */
    uint64_t seed;
    uint32_t shares[LOOKUP_SHARES]; /* open lookups by source; who shares a place by chance shares its bound */
};

/* 0 or -ENOMEM. The channel is set by the owner, before the first lookup_begin(). */
int lookups_open(struct lookups *l, struct ring *ring, struct pending_requests *pending, struct resolve_stats *stats);
/* Also for zeroes, and for what failed to open. */
void lookups_close(struct lookups *l);

/* The lookup that answers this request: a kept one, one that is being asked, or a fresh one that is not being asked
 * yet. NULL: too many are being asked, in all or for this source. */
struct lookup *lookup_for(struct lookups *l, const struct cache_key *key, const struct share_source *source,
                          bool *fresh);
/* Asks for a fresh one; counts whether by name servers or locally. */
void lookup_begin(struct lookup *lookup);
void lookup_answer(struct lookup *lookup); /* answers its pending requests; it is decided */
/* What dns_channel calls with an answer; argument: of dns_channel_ask(). */
void lookup_on_answer(void *argument, int status, bool gone, const uint8_t *answer, size_t size);

/* Those whose second family has had its time are decided. */
void lookups_expire(struct lookups *l, uint64_t now_ms);
uint64_t lookups_deadline_ms(const struct lookups *l); /* when the next one has; UINT64_MAX: none waits for that */
/* After the servers have changed: forgets the answers, and asks anew for what is open. */
void lookups_ask_anew(struct lookups *l);

#endif
