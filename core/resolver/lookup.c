#include "core/resolver/lookup.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "core/resolver/address_order.h"
#include "protocols/dns.h"

#define LOCAL_TTL_MS 5000u /* /etc/hosts: an edit is seen soon */

/* One query to name servers: a name and a type. */
struct query {
    struct lookup *lookup;
    uint32_t candidate;
    uint8_t half;
};

static uint64_t now_of(const struct lookups *l)
{
    return ring_now_ms(l->ring);
}

static struct lookup *lookup_of(struct cache_entry *entry)
{
    return link_owner(entry, struct lookup, entry);
}

/* splitmix64, with a seed that nobody knows: sources cannot choose their place. + 1; 0: not bounded. */
static uint32_t share_place(const struct lookups *l, const struct share_source *source)
{
    uint64_t z = l->seed + source->size;
    if (source->size == 0) return 0;
    for (unsigned i = 0; i < sizeof source->octets; i++) z = (z ^ source->octets[i]) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 40) % LOOKUP_SHARES + 1;
}

/* As with the slots of other pools (share.h): the last quarter is for sources that hold less than a sixteenth. */
static bool share_admits(const struct lookups *l, uint32_t place)
{
    if (place == 0 || l->cache.open_count < LOOKUPS_MAX / 4 * 3) return true;
    return l->shares[place - 1] < LOOKUPS_MAX / 16;
}

struct lookup *lookup_for(struct lookups *l, const struct cache_key *key, const struct share_source *source,
                          bool *fresh)
{
    struct cache_entry *entry = cache_find(&l->cache, key, now_of(l));
    counter_set(&l->stats->cached, l->cache.kept_count);
    *fresh = false;
    if (entry != NULL) {
        counter_add(cache_is_open(entry) ? &l->stats->coalesced : &l->stats->cache_hits, 1);
        return lookup_of(entry);
    }
    uint32_t place = share_place(l, source);
    if (!share_admits(l, place)) return NULL;
    entry = cache_add(&l->cache, key);
    *fresh = entry != NULL;
    if (entry == NULL) return NULL;
    struct lookup *lookup = lookup_of(entry);
    lookup->share = place;
    if (place > 0) l->shares[place - 1]++;
    lookup->owner = l;
    link_init(&lookup->pending);
    link_init(&lookup->delay);
    return lookup;
}

void lookup_answer(struct lookup *lookup)
{
    struct lookups *l = lookup->owner;
    while (!link_is_empty(&lookup->pending)) {
        struct pending *pending = link_owner(lookup->pending.next, struct pending, peers);
        pending_finish(l->pending, pending, lookup->entry.status, &lookup->entry, now_of(l));
    }
}

/* It is decided, and nothing of it is on its way any more. */
static void lookup_keep(struct lookup *lookup)
{
    struct lookups *l = lookup->owner;
    struct cache_entry *entry = &lookup->entry;
    assert(lookup->decided && lookup->queries == 0);
    if (lookup->share > 0) l->shares[lookup->share - 1]--;
    lookup->share = 0;
    link_remove(&lookup->delay);
    if (entry->status == 0 || entry->status == -ENOENT) {
        cache_keep(&l->cache, entry, now_of(l) + lookup->ttl_ms);
        lookup_answer(lookup);
    } else {
        lookup_answer(lookup);
        cache_drop(&l->cache, entry);
    }
    counter_set(&l->stats->cached, l->cache.kept_count);
}

static void lookup_decide(struct lookup *lookup, int status, uint64_t ttl_ms)
{
    lookup->decided = true;
    lookup->entry.status = status;
    lookup->ttl_ms = ttl_ms;
}

static void lookup_merge(struct lookup *lookup)
{
    struct cache_entry *entry = &lookup->entry;
    entry->count = halves_merge(lookup->halves, entry->results);
    lookup_decide(lookup, 0, halves_ttl_ms(lookup->halves));
}

/* --- asking --- */

static void lookup_ask_candidate(struct lookup *lookup);

static bool lookup_candidate(const struct lookup *lookup, char name[CACHE_NAME_MAX + 2])
{
    return dns_channel_candidate(lookup->owner->channel, lookup->entry.key.name, lookup->candidate, name,
                                 CACHE_NAME_MAX + 2);
}

static uint32_t lookup_find_local(struct lookup *lookup)
{
    struct cache_entry *entry = &lookup->entry;
    struct resolve_result found[RESOLVE_ADDRESSES_MAX], four[RESOLVE_ADDRESSES_MAX], six[RESOLVE_ADDRESSES_MAX];
    uint32_t count = dns_channel_look_up_local(lookup->owner->channel, entry->key.name, entry->key.family, found,
                                               RESOLVE_ADDRESSES_MAX),
             fours = 0, sixes = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (found[i].kind == ADDRESS_IPV4)
            four[fours++] = found[i];
        else
            six[sixes++] = found[i];
    }
    entry->count = address_order_interlace(four, fours, six, sixes, entry->results, RESOLVE_ADDRESSES_MAX);
    if (entry->count > 0) lookup_decide(lookup, 0, LOCAL_TTL_MS);
    return entry->count;
}

/* This candidate has no address. */
static void lookup_go_on(struct lookup *lookup, int status)
{
    char name[CACHE_NAME_MAX + 2];
    link_remove(&lookup->delay);
    if (status == -ENOENT) {
        lookup->candidate++;
        if (lookup_candidate(lookup, name)) {
            lookup_ask_candidate(lookup);
            return;
        }
        if (dns_channel_local(lookup->owner->channel) == DNS_LOCAL_LAST && lookup_find_local(lookup) > 0) return;
    }
    lookup_decide(lookup, status, RESOLVE_NEGATIVE_TTL_MS);
}

/* Whether enough is known, and what follows from it. */
static void lookup_judge(struct lookup *lookup, uint64_t now_ms)
{
    struct lookups *l = lookup->owner;
    struct halves_state state = halves_look(lookup->halves);
    if (!state.all && (state.good || state.gone) && lookup->delay_until_ms == 0) {
        lookup->delay_until_ms = now_ms + RESOLVE_DELAY_MS;
        link_append(&l->delayed, &lookup->delay); /* one delay for all: in the order of their time */
    }
    if (!state.all && (lookup->delay_until_ms == 0 || now_ms < lookup->delay_until_ms)) return;
    link_remove(&lookup->delay);
    if (state.good)
        lookup_merge(lookup);
    else
        lookup_go_on(lookup, halves_failure(lookup->halves));
}

/* Behind everything that may have changed it. */
static void lookup_finish(struct lookup *lookup)
{
    if (lookup->decided) lookup_answer(lookup);
    if (lookup->queries > 0) return;
    if (lookup->restart && !lookup->decided)
        link_append(&lookup->owner->restarts, &lookup->entry.order);
    else if (lookup->decided)
        lookup_keep(lookup);
}

static void query_back(struct lookup *lookup, const struct query *query, int status, bool gone, const uint8_t *answer,
                       size_t size)
{
    struct half *half = &lookup->halves[query->half];
    if (lookup->restart || query->candidate != lookup->candidate) return; /* of a time that is over */
    half_take(half, query->half, status, gone, answer, size);
    if (!lookup->decided)
        lookup_judge(lookup, now_of(lookup->owner));
    else if (half_is_good(half) && lookup->entry.status == 0)
        lookup_merge(lookup); /* too late for those who have waited, not for the cache */
}

void lookup_on_answer(void *argument, int status, bool gone, const uint8_t *answer, size_t size)
{
    struct query query = *(struct query *)argument;
    struct lookup *lookup = query.lookup;
    struct lookups *l = lookup->owner;
    assert(lookup->queries > 0);
    pool_give(&l->queries, pool_slot_of(&l->queries, argument));
    if (status == DNS_RESTART) {
        lookup->restart = true;
        link_remove(&lookup->delay);
    } else if (l->closing && !lookup->decided) {
        lookup_decide(lookup, -ECANCELED, 0);
    } else {
        query_back(lookup, &query, status, gone, answer, size);
    }
    lookup->queries--;
    lookup_finish(lookup);
}

/* `lookup->queries` is held by the caller, so that an answer within the call does not end it. */
static void lookup_send_query(struct lookup *lookup, const char *name, unsigned which)
{
    struct lookups *l = lookup->owner;
    struct half *half = &lookup->halves[which];
    uint32_t slot = pool_take(&l->queries);
    if (slot == POOL_NONE) { /* candidates whose other half was never answered may hold them */
        half->back = true;
        half->status = -ENOMEM;
        return;
    }
    struct query *query = pool_at(&l->queries, slot);
    *query = (struct query){.lookup = lookup, .candidate = lookup->candidate, .half = (uint8_t)which};
    lookup->queries++;
    dns_channel_ask(l->channel, name, which == HALF_IPV4 ? DNS_TYPE_A : DNS_TYPE_AAAA, query);
}

static void lookup_ask_candidate(struct lookup *lookup)
{
    char name[CACHE_NAME_MAX + 2];
    uint32_t candidate = lookup->candidate;
    halves_init(lookup->halves, lookup->entry.key.family);
    lookup->delay_until_ms = 0;
    if (!lookup_candidate(lookup, name) || name[0] == '\0') { /* with its domain it is too long for a name */
        lookup_go_on(lookup, -ENOENT);
        return;
    }
    lookup->queries++; /* held, see above */
    for (unsigned i = 0; i < HALVES; i++)
        if (lookup->halves[i].wanted && lookup->candidate == candidate) lookup_send_query(lookup, name, i);
    lookup->queries--;
    if (!lookup->decided && !lookup->restart && lookup->candidate == candidate)
        lookup_judge(lookup, now_of(lookup->owner));
}

/* A literal in a name's clothes. */
static bool lookup_is_literal(struct lookup *lookup)
{
    struct cache_entry *entry = &lookup->entry;
    struct address literal;
    if (!address_from_host(entry->key.name, entry->key.size, 0, &literal)) return false;
    if (literal.kind != ADDRESS_IPV4 && literal.kind != ADDRESS_IPV6) return false;
    bool fits = entry->key.family == AF_UNSPEC || (entry->key.family == AF_INET) == (literal.kind == ADDRESS_IPV4);
    entry->count = fits;
    entry->results[0] = (struct resolve_result){.kind = literal.kind};
    memcpy(entry->results[0].octets, literal.ipv6, literal.kind == ADDRESS_IPV4 ? 4 : 16);
    lookup_decide(lookup, fits ? 0 : -ENOENT, LOCAL_TTL_MS);
    return true;
}

/* True: no name server need be asked. */
static bool lookup_is_local(struct lookup *lookup)
{
    bool first = dns_channel_local(lookup->owner->channel) == DNS_LOCAL_FIRST;
    if (lookup_is_literal(lookup)) return true;
    if (!first && !dns_channel_is_localhost(lookup->entry.key.name)) return false;
    return lookup_find_local(lookup) > 0;
}

static void lookup_ask(struct lookup *lookup)
{
    assert(cache_is_open(&lookup->entry) && lookup->queries == 0);
    lookup->restart = false;
    lookup->candidate = 0;
    if (!lookup_is_local(lookup)) lookup_ask_candidate(lookup);
    lookup_finish(lookup);
}

void lookup_begin(struct lookup *lookup)
{
    struct lookups *l = lookup->owner;
    uint32_t open = l->queries.used;
    lookup_ask(lookup);
    counter_add(l->queries.used > open ? &l->stats->queries : &l->stats->local, 1);
}

/* --- all of them --- */

void lookups_expire(struct lookups *l, uint64_t now_ms)
{
    while (lookups_deadline_ms(l) <= now_ms) {
        struct lookup *lookup = link_owner(l->delayed.next, struct lookup, delay);
        lookup_judge(lookup, now_ms);
        lookup_finish(lookup);
    }
}

uint64_t lookups_deadline_ms(const struct lookups *l)
{
    return link_is_empty(&l->delayed) ? UINT64_MAX : link_owner(l->delayed.next, struct lookup, delay)->delay_until_ms;
}

void lookups_ask_anew(struct lookups *l)
{
    cache_clear(&l->cache);
    counter_add(&l->stats->revision, 1);
    counter_set(&l->stats->cached, 0);
    while (!link_is_empty(&l->restarts))
        lookup_ask(lookup_of(link_owner(link_take_first(&l->restarts), struct cache_entry, order)));
}

/* Early in boot there may be no randomness yet: then an address, which the kernel has shuffled, must do. */
static uint64_t seed_make(const struct lookups *l)
{
    uint64_t seed;
    return getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed ? seed : (uintptr_t)l;
}

int lookups_open(struct lookups *l, struct ring *ring, struct pending_requests *pending, struct resolve_stats *stats)
{
    *l = (struct lookups){.ring = ring, .pending = pending, .stats = stats};
    link_init(&l->restarts);
    link_init(&l->delayed);
    l->seed = seed_make(l);
    int error = pool_open(&l->queries, 2 * HALVES * LOOKUPS_MAX, sizeof(struct query));
    if (error != 0) return error;
    return cache_open(&l->cache, RESOLVE_CACHE_ENTRIES, LOOKUPS_MAX, sizeof(struct lookup), seed_make(l));
}

void lookups_close(struct lookups *l)
{
    pool_close(&l->queries);
    cache_close(&l->cache);
}
