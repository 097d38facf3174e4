/* What the resolver counts. */
#ifndef SLUICE_CORE_RESOLVER_RESOLVE_STATS_H
#define SLUICE_CORE_RESOLVER_RESOLVE_STATS_H

#include <stdint.h>

#include "core/io/counter.h"

struct resolve_stats {          /* written by the owner, read by any thread */
    counter queries;            /* names that name servers were asked for; each request is one of these four */
    counter cache_hits;         /* answered from the cache */
    counter coalesced;          /* joined a question that was under way */
    counter local;              /* literals, names of /etc/hosts, localhost, and what is no name */
    counter found;              /* requests that an address was found for: counted with their answer, as failures are */
    counter failures, timeouts; /* requests */
    counter refused;            /* requests for which there was no room */
    counter mismatched;         /* answers of name servers that did not fit their question: were dropped */
    counter cached;             /* gauge: entries now */
    counter revision;           /* of the servers and settings: answers of an earlier one hold no more */
};

struct resolve_counts { /* the same at one moment */
    uint64_t queries, cache_hits, coalesced, local, found, failures, timeouts, refused, mismatched, cached;
};

static inline struct resolve_counts resolve_count(const struct resolve_stats *stats)
{
    return (struct resolve_counts){.queries = counter_read(&stats->queries),
                                   .cache_hits = counter_read(&stats->cache_hits),
                                   .coalesced = counter_read(&stats->coalesced),
                                   .local = counter_read(&stats->local),
                                   .found = counter_read(&stats->found),
                                   .failures = counter_read(&stats->failures),
                                   .timeouts = counter_read(&stats->timeouts),
                                   .refused = counter_read(&stats->refused),
                                   .mismatched = counter_read(&stats->mismatched),
                                   .cached = counter_read(&stats->cached)};
}

#endif
