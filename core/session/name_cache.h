/* Names that were resolved a moment ago, remembered by one worker: a repeated one then costs no way to the resolver's
 * thread and back. One place for each hash; a newer answer displaces an older one. Failures are not remembered. */
#ifndef SLUICE_CORE_SESSION_NAME_CACHE_H
#define SLUICE_CORE_SESSION_NAME_CACHE_H

#include <stdbool.h>

#include "core/resolver/resolve_request.h"

#define NAME_CACHE_COUNT 1024u /* a power of two */
/* No longer than this, whatever the answer allows: /etc/hosts and resolv.conf are looked at when the resolver is asked.
 */
#define NAME_CACHE_KEEP_MS 1000u

struct name_cache {
    struct name_entry *entries; /* NULL: nothing was ever remembered */
};

void name_cache_close(struct name_cache *cache);
/* Remembers this answer for as long as it says, if memory can be had. */
void name_cache_keep(struct name_cache *cache, const struct resolve_request *answer, uint64_t now_ms);
/* Writes the addresses of the same name and family if they hold still. `revision`: the resolver's now; what it answered
 * at an earlier one is forgotten. */
bool name_cache_find(const struct name_cache *cache, struct resolve_request *request, uint64_t revision,
                     uint64_t now_ms);

#endif
