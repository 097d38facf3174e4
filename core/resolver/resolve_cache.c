#include "core/resolver/resolve_cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static_assert((CACHE_BUCKETS & (CACHE_BUCKETS - 1)) == 0, "a hash is masked");

bool cache_key_make(struct cache_key *key, const char *name, size_t size, int family)
{
    size_t label = 0;
    if (size == 0 || size > CACHE_NAME_MAX + (name[size - 1] == '.')) return false;
    for (size_t i = 0; i < size; i++) {
        uint8_t octet = (uint8_t)name[i];
        if (octet <= ' ' || octet >= 0x7f || octet == '\\') return false;
        if (octet == '.' ? label == 0 : label == CACHE_LABEL_MAX) return false;
        label = octet == '.' ? 0 : label + 1;
        key->name[i] = (char)(octet >= 'A' && octet <= 'Z' ? octet + ('a' - 'A') : octet);
    }
    key->name[size] = '\0';
    key->size = (uint8_t)size;
    key->family = family;
    return true;
}

static bool key_equals(const struct cache_key *a, const struct cache_key *b)
{
    return a->family == b->family && a->size == b->size && memcmp(a->name, b->name, a->size) == 0;
}

static struct cache_entry **bucket_of(struct cache *cache, const struct cache_key *key)
{
    uint64_t hash = cache->seed ^ (uint64_t)(unsigned)key->family;
    for (size_t i = 0; i < key->size; i++) {
        hash = (hash ^ (uint8_t)key->name[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return &cache->buckets[hash & (CACHE_BUCKETS - 1)];
}

int cache_open(struct cache *cache, uint32_t kept_max, uint32_t open_max, size_t entry_size, uint64_t seed)
{
    assert(kept_max > 0 && open_max > 0);
    assert(entry_size >= sizeof(struct cache_entry));
    *cache = (struct cache){.seed = seed, .kept_max = kept_max, .open_max = open_max};
    link_init(&cache->kept);
    cache->buckets = calloc(CACHE_BUCKETS, sizeof(struct cache_entry *));
    if (cache->buckets == NULL) return -ENOMEM;
    int error = pool_open(&cache->entries, kept_max + open_max, entry_size);
    if (error == 0) return 0;
    free(cache->buckets);
    cache->buckets = NULL;
    return error;
}

void cache_close(struct cache *cache)
{
    if (cache->buckets == NULL) return;
    cache_clear(cache);
    assert(cache->open_count == 0);
    assert(cache->entries.used == 0);
    pool_close(&cache->entries);
    free(cache->buckets);
}

struct cache_entry *cache_find(struct cache *cache, const struct cache_key *key, uint64_t now_ms)
{
    struct cache_entry *entry = *bucket_of(cache, key);
    while (entry != NULL && !key_equals(&entry->key, key)) entry = entry->next;
    if (entry == NULL || cache_is_open(entry)) return entry;
    if (entry->expires_ms <= now_ms) {
        cache_drop(cache, entry);
        return NULL;
    }
    link_remove(&entry->order);
    link_append(&cache->kept, &entry->order);
    return entry;
}

struct cache_entry *cache_add(struct cache *cache, const struct cache_key *key)
{
    if (cache->open_count == cache->open_max) return NULL;
    uint32_t slot = pool_take(&cache->entries);
    assert(slot != POOL_NONE); /* the pool holds all that may be open and all that may be kept */
    struct cache_entry *entry = pool_at(&cache->entries, slot);
    memset(entry, 0, cache->entries.slot_size);
    entry->slot = slot;
    entry->key = *key;
    link_init(&entry->order);
    struct cache_entry **bucket = bucket_of(cache, key);
    entry->next = *bucket;
    *bucket = entry;
    cache->open_count++;
    return entry;
}

void cache_keep(struct cache *cache, struct cache_entry *entry, uint64_t expires_ms)
{
    assert(cache_is_open(entry));
    assert(expires_ms > 0);
    assert(link_is_empty(&entry->order));
    entry->expires_ms = expires_ms;
    link_append(&cache->kept, &entry->order);
    cache->open_count--;
    if (++cache->kept_count > cache->kept_max)
        cache_drop(cache, link_owner(cache->kept.next, struct cache_entry, order));
}

void cache_drop(struct cache *cache, struct cache_entry *entry)
{
    struct cache_entry **at = bucket_of(cache, &entry->key);
    while (*at != entry) at = &(*at)->next;
    *at = entry->next;
    uint32_t *count = cache_is_open(entry) ? &cache->open_count : &cache->kept_count;
    assert(*count > 0);
    --*count;
    link_remove(&entry->order);
    pool_give(&cache->entries, entry->slot);
}

void cache_clear(struct cache *cache)
{
    while (!link_is_empty(&cache->kept)) cache_drop(cache, link_owner(cache->kept.next, struct cache_entry, order));
    assert(cache->kept_count == 0);
}
