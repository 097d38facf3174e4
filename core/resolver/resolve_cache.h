/* Questions to DNS and what was answered: a hash table by name and family, bounded, with TTL.
 *
 * An entry is OPEN from cache_add() on: its owner is asking, and it stays whatever happens until the owner says what
 * was answered, with cache_keep(), or that nothing was, with cache_drop(). Once KEPT it is the cache's own: it goes
 * when it is found past its time, or when room is needed and it is the least recently used. A "no such name" is kept
 * like any other answer.
 *
 * The owner puts an entry at the front of a struct of its own, so that what belongs to a question lies beside it. Times
 * are the owner's: milliseconds of a clock that only goes forward. One thread. */
#ifndef SLUICE_CORE_RESOLVER_RESOLVE_CACHE_H
#define SLUICE_CORE_RESOLVER_RESOLVE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/io/list.h"
#include "core/io/pool.h"
#include "core/resolver/resolve_request.h"

#define CACHE_NAME_MAX  253u /* without the root's dot, RFC 1035 section 2.3.4 */
#define CACHE_LABEL_MAX 63u
#define CACHE_BUCKETS   8192u

struct cache_key {
    int family;
    uint8_t size;
    char name[CACHE_NAME_MAX + 2]; /* lower-case, terminated; a final dot is kept, it switches the search list off */
};

struct cache_entry {
    struct link order; /* KEPT: the cache's; OPEN: the owner may use it, and has taken it out again when it is kept */
    struct cache_entry *next; /* in the bucket */
    uint64_t expires_ms;      /* 0: OPEN */
    uint32_t slot;
    struct cache_key key;
    int status; /* set by the owner before it is kept: 0 or -errno */
    uint32_t count;
    struct resolve_result results[RESOLVE_ADDRESSES_MAX];
};

struct cache {
    struct pool entries;
    struct link kept; /* the least recently used first */
    uint64_t seed;
    uint32_t kept_max, kept_count;
    uint32_t open_max, open_count;
    struct cache_entry **buckets;
};

/* False if it is no name: labels have 1 to 63 octets, all together at most 253 without the final dot; no blanks,
 * control or 8-bit octets, and no backslash, with which c-ares escapes octets in names. Case makes no difference. */
bool cache_key_make(struct cache_key *key, const char *name, size_t size, int family);

/* `entry_size`: of the struct that begins with the entry. `seed`: what clients cannot guess, for they choose the names
 * and are not to choose the buckets. 0 or -ENOMEM. */
int cache_open(struct cache *cache, uint32_t kept_max, uint32_t open_max, size_t entry_size, uint64_t seed);
/* No entry is open any more. Also for what failed to open, and for zeroes. */
void cache_close(struct cache *cache);

/* The open entry, or the kept one that is still good, which becomes the youngest; NULL if there is none. */
struct cache_entry *cache_find(struct cache *cache, const struct cache_key *key, uint64_t now_ms);
/* A new open entry for a key that cache_find() does not know; the owner's part of it is zero, too. NULL: open_max of
 * them are open. */
struct cache_entry *cache_add(struct cache *cache, const struct cache_key *key);
void cache_keep(struct cache *cache, struct cache_entry *entry, uint64_t expires_ms); /* may evict the oldest */
void cache_drop(struct cache *cache, struct cache_entry *entry);
void cache_clear(struct cache *cache); /* all that are kept; the open ones stay */

static inline bool cache_is_open(const struct cache_entry *entry)
{
    return entry->expires_ms == 0;
}

#endif
