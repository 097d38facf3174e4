#include "core/session/name_cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/hash.h"

struct name_entry {
    uint64_t until_ms; /* 0: free */
    uint64_t revision;
    int family;
    uint32_t count;
    uint8_t size;
    uint8_t name[ADDRESS_NAME_MAX];
    struct resolve_result results[RESOLVE_ADDRESSES_MAX];
};

/* Clients that collide on purpose only displace each other's entries. */
static uint32_t name_cache_place(const struct resolve_request *request)
{
    uint64_t hash = HASH_START + (uint32_t)request->family;
    return hash_fold(hash_plain(hash, request->name.name, request->name.name_size)) & (NAME_CACHE_COUNT - 1);
}

void name_cache_close(struct name_cache *cache)
{
    free(cache->entries);
    cache->entries = NULL;
}

void name_cache_keep(struct name_cache *cache, const struct resolve_request *answer, uint64_t now_ms)
{
    assert(answer->name.kind == ADDRESS_NAME);
    if (answer->count == 0 || answer->keep_ms == 0) return;
    if (!cache->entries) cache->entries = calloc(NAME_CACHE_COUNT, sizeof *cache->entries);
    if (!cache->entries) return;
    struct name_entry *entry = &cache->entries[name_cache_place(answer)];
    entry->until_ms = now_ms + (answer->keep_ms < NAME_CACHE_KEEP_MS ? answer->keep_ms : NAME_CACHE_KEEP_MS);
    entry->revision = answer->revision;
    entry->family = answer->family;
    entry->count = answer->count;
    entry->size = (uint8_t)answer->name.name_size;
    memcpy(entry->name, answer->name.name, answer->name.name_size);
    memcpy(entry->results, answer->results, answer->count * sizeof *answer->results);
}

bool name_cache_find(const struct name_cache *cache, struct resolve_request *request, uint64_t revision,
                     uint64_t now_ms)
{
    assert(request->name.kind == ADDRESS_NAME);
    if (!cache->entries) return false;
    const struct name_entry *entry = &cache->entries[name_cache_place(request)];
    if (now_ms >= entry->until_ms || entry->revision != revision || entry->family != request->family) return false;
    if (entry->size != request->name.name_size) return false;
    if (memcmp(entry->name, request->name.name, entry->size) != 0) return false;
    request->count = entry->count;
    memcpy(request->results, entry->results, entry->count * sizeof *entry->results);
    return true;
}
