/* From a request to its answer:
 *
 *     resolve_ask --> pending --+--> lookup OPEN --name servers--> lookup KEPT --> pending ready --> answered()
 *                               |        ^ joined by equal ones                       ^
 *                               +--------|---- cache hit, refusal --------------------+
 *                                        +---- the request's deadline ----------------+
 *
 * A pending is one request that has no answer yet. A lookup is an entry of the cache (resolve_cache.h): first while
 * name servers are asked, then with their answer. What is finished goes to the ready list, and resolve_on_time()
 * empties that list at the top of the owner's loop: so answered() may ask again or change the servers at once, and no
 * answer is delivered while another request is being made.
 *
 * A lookup for both families is two queries, one for A and one for AAAA. It is DECIDED when both are back, or
 * RESOLVE_DELAY_MS after the first that says something for both: an address, or that there is no such name. From then
 * on it answers all pending requests, also with one family alone, and it is kept when the last query is back. A name
 * without a final dot may be asked for several times, as candidates of the search list.
 *
 * All memory is in pools of untouched pages, bounded whatever clients ask for. */
#include "core/resolver/resolve.h"

#include "core/io/list.h"
#include "core/io/pool.h"
#include "core/resolver/address_order.h"
#include "core/resolver/dns_channel.h"
#include "core/resolver/resolve_cache.h"
#include "protocols/dns.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define RESOLVE_LOOKUPS_MAX  4096u  /* lookups on their way at the same time; more are answered with -ENOMEM */
#define RESOLVE_PENDING_MAX  65536u /* requests on their way */
#define RESOLVE_SHARES       4096u  /* places for sources, a power of two */
#define RESOLVE_TTL_MS_MIN   1000u
#define RESOLVE_TTL_MS_MAX   (60u * 60 * 1000)
#define RESOLVE_TTL_MS_HALF  (60u * 1000) /* one family has not answered: it gets another chance soon */
#define RESOLVE_LOCAL_TTL_MS 5000u        /* /etc/hosts: an edit is seen soon */
#define RESOLVE_LOOK_MS      1000u        /* between two looks at resolv.conf */

static_assert(DNS_ADDRESSES_MAX == RESOLVE_ADDRESSES_MAX, "what an answer holds is what a request takes");

/* What is known of one family. */
struct half {
    bool wanted, back;
    bool gone; /* it said that there is no such name, of whatever type */
    int status;
    uint64_t ttl_ms;
    uint32_t count;
    struct resolve_result results[RESOLVE_ADDRESSES_MAX];
};

enum { HALF_IPV4, HALF_IPV6, HALVES };

struct lookup {
    struct cache_entry entry; /* its order, between two sets of servers: in restarts */
    struct link pending;      /* OPEN only */
    struct link delay;        /* in delayed, while the second family has its time */
    struct resolver *resolver;
    uint64_t delay_until_ms; /* when that is over */
    uint64_t ttl_ms;         /* decided: how long the answer holds */
    uint32_t candidate;      /* of the search list */
    uint32_t queries;        /* that are not back */
    uint32_t share;          /* place of the source that it is asked for + 1; 0: of nobody */
    bool decided;            /* entry.status, count and results are set */
    bool restart;            /* the servers have changed: to be asked anew */
    struct half halves[HALVES];
};

/* One query to name servers: a name and a type. */
struct query {
    struct lookup *lookup;
    uint32_t candidate;
    uint8_t half;
};

struct pending {
    struct link age;   /* waiting: in waiting, the oldest first; then in ready */
    struct link peers; /* waiting: in its lookup's list of pending requests */
    struct resolve_request *request;
    void *cookie;
    uint64_t deadline_ms;
    int status;
};

struct resolver {
    struct ring *ring;
    struct dns_channel *channel;
    char *nameservers; /* as given; NULL: resolv.conf */
    resolve_answered *answered;
    void *context;
    uint32_t timeout_ms;
    bool delivering; /* within deliver() */
    bool closing;
    uint64_t looked_ms; /* when resolv.conf was looked at */
    struct cache cache; /* of lookups */
    struct pool pending, queries;
    struct link restarts, waiting, ready, delayed;
    uint64_t seed;
    uint32_t shares[RESOLVE_SHARES]; /* open lookups by source; who shares a place by chance shares its bound */
    struct resolve_stats stats;
};

static uint32_t slot_of(const struct pool *pool, const void *item)
{
    size_t offset = (size_t)((const uint8_t *)item - pool->slots);
    assert(offset % pool->slot_size == 0);
    return (uint32_t)(offset / pool->slot_size);
}

/* --- pending requests --- */

static struct pending *pending_open(struct resolver *resolver, struct resolve_request *request, void *cookie)
{
    uint32_t slot = pool_take(&resolver->pending);
    if (slot == POOL_NONE) return NULL;
    struct pending *pending = pool_at(&resolver->pending, slot);
    *pending = (struct pending){.request = request, .cookie = cookie};
    pending->deadline_ms = ring_now_ms(resolver->ring) + resolver->timeout_ms;
    link_init(&pending->peers);
    link_append(&resolver->waiting, &pending->age); /* one timeout for all: the list is in the order of deadlines */
    return pending;
}

/* For how long others may be told the same: not at all while a family is still awaited. */
static uint32_t pending_keep_ms(const struct resolver *resolver, const struct cache_entry *entry)
{
    uint64_t now = ring_now_ms(resolver->ring);
    return entry->expires_ms > now ? (uint32_t)(entry->expires_ms - now) : 0;
}

/* Copies the answer now: the entry may be gone before it is delivered. */
static void pending_finish(struct resolver *resolver, struct pending *pending, int status,
                           const struct cache_entry *entry)
{
    assert(status <= 0);
    assert(status != 0 || entry->count > 0);
    pending->status = status;
    pending->request->count = 0;
    if (status == 0) {
        pending->request->keep_ms = pending_keep_ms(resolver, entry);
        pending->request->revision = counter_read(&resolver->stats.revision);
        pending->request->count = entry->count;
        memcpy(pending->request->results, entry->results, sizeof entry->results);
    }
    link_remove(&pending->peers);
    link_remove(&pending->age);
    link_append(&resolver->ready, &pending->age);
}

static void answer(struct resolver *resolver, struct resolve_request *request, void *cookie, int status)
{
    if (atomic_load_explicit(&request->cancelled, memory_order_relaxed) != 0) status = -ECANCELED;
    if (status != 0) request->count = 0;
    if (status == 0)
        counter_add(&resolver->stats.found, 1);
    else if (status != -ECANCELED)
        counter_add(&resolver->stats.failures, 1);
    if (status == -ETIMEDOUT) counter_add(&resolver->stats.timeouts, 1);
    resolver->answered(resolver->context, request, cookie, status);
}

/* Delivers what is ready now. What becomes ready meanwhile waits for the next turn of the owner's loop, so that a
 * script that asks for the same name for ever does not keep the owner here. */
static void deliver(struct resolver *resolver)
{
    if (resolver->delivering || link_is_empty(&resolver->ready)) return;
    resolver->delivering = true;
    struct link batch = resolver->ready;
    batch.next->prev = batch.prev->next = &batch;
    link_init(&resolver->ready);
    while (!link_is_empty(&batch)) {
        struct pending *pending = link_owner(batch.next, struct pending, age);
        struct pending done = *pending;
        link_remove(&pending->age);
        pool_give(&resolver->pending, slot_of(&resolver->pending, pending));
        answer(resolver, done.request, done.cookie, done.status);
    }
    resolver->delivering = false;
}

static void expire_pending(struct resolver *resolver, uint64_t now_ms)
{
    while (!link_is_empty(&resolver->waiting)) {
        struct pending *pending = link_owner(resolver->waiting.next, struct pending, age);
        if (pending->deadline_ms > now_ms) break;
        pending_finish(resolver, pending, -ETIMEDOUT, NULL);
    }
}

/* --- lookups --- */

static struct lookup *lookup_of(struct cache_entry *entry)
{
    return link_owner(entry, struct lookup, entry);
}

/* splitmix64, with a seed that nobody knows: sources cannot choose their place. + 1; 0: not bounded. */
static uint32_t share_place(const struct resolver *resolver, const struct share_source *source)
{
    uint64_t z = resolver->seed + source->size;
    if (source->size == 0) return 0;
    for (unsigned i = 0; i < sizeof source->octets; i++) z = (z ^ source->octets[i]) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 40) % RESOLVE_SHARES + 1;
}

/* As with the slots of other pools (share.h): the last quarter is for sources that hold less than a sixteenth. */
static bool share_admits(const struct resolver *resolver, uint32_t place)
{
    if (place == 0 || resolver->cache.open_count < RESOLVE_LOOKUPS_MAX / 4 * 3) return true;
    return resolver->shares[place - 1] < RESOLVE_LOOKUPS_MAX / 16;
}

/* The lookup that answers this request: a kept one, one that is being asked, or a new one that is not being asked yet.
 * NULL: too many are, in all or for this source. */
static struct lookup *lookup_for(struct resolver *resolver, const struct cache_key *key,
                                 const struct share_source *source, bool *fresh)
{
    struct cache_entry *entry = cache_find(&resolver->cache, key, ring_now_ms(resolver->ring));
    counter_set(&resolver->stats.cached, resolver->cache.kept_count);
    *fresh = false;
    if (entry != NULL) {
        counter_add(cache_is_open(entry) ? &resolver->stats.coalesced : &resolver->stats.cache_hits, 1);
        return lookup_of(entry);
    }
    uint32_t place = share_place(resolver, source);
    if (!share_admits(resolver, place)) return NULL;
    entry = cache_add(&resolver->cache, key);
    *fresh = entry != NULL;
    if (entry == NULL) return NULL;
    struct lookup *lookup = lookup_of(entry);
    lookup->share = place;
    if (place > 0) resolver->shares[place - 1]++;
    lookup->resolver = resolver;
    link_init(&lookup->pending);
    link_init(&lookup->delay);
    return lookup;
}

/* Whoever waits is answered. */
static void lookup_answer(struct lookup *lookup)
{
    struct resolver *resolver = lookup->resolver;
    while (!link_is_empty(&lookup->pending)) {
        struct pending *pending = link_owner(lookup->pending.next, struct pending, peers);
        pending_finish(resolver, pending, lookup->entry.status, &lookup->entry);
    }
}

/* It is decided, and nothing of it is on its way any more. */
static void lookup_keep(struct lookup *lookup)
{
    struct resolver *resolver = lookup->resolver;
    struct cache_entry *entry = &lookup->entry;
    assert(lookup->decided && lookup->queries == 0);
    if (lookup->share > 0) resolver->shares[lookup->share - 1]--;
    lookup->share = 0;
    link_remove(&lookup->delay);
    if (entry->status == 0 || entry->status == -ENOENT) {
        cache_keep(&resolver->cache, entry, ring_now_ms(resolver->ring) + lookup->ttl_ms);
        lookup_answer(lookup);
    } else {
        lookup_answer(lookup);
        cache_drop(&resolver->cache, entry);
    }
    counter_set(&resolver->stats.cached, resolver->cache.kept_count);
}

static void lookup_decide(struct lookup *lookup, int status, uint64_t ttl_ms)
{
    lookup->decided = true;
    lookup->entry.status = status;
    lookup->ttl_ms = ttl_ms;
}

/* --- what is known --- */

static bool half_is_good(const struct half *half)
{
    return half->wanted && half->back && half->status == 0;
}

static void half_fill(struct half *half, uint8_t kind, const struct dns_addresses *found)
{
    half->count = found->count;
    memset(half->results, 0, sizeof half->results);
    for (uint32_t i = 0; i < found->count; i++) {
        half->results[i].kind = kind;
        memcpy(half->results[i].octets, found->octets[i], sizeof found->octets[i]);
    }
    address_order_sort(half->results, half->count);
    half->ttl_ms = (uint64_t)found->ttl * 1000;
    if (half->ttl_ms < RESOLVE_TTL_MS_MIN) half->ttl_ms = RESOLVE_TTL_MS_MIN;
    if (half->ttl_ms > RESOLVE_TTL_MS_MAX) half->ttl_ms = RESOLVE_TTL_MS_MAX;
}

static void half_take(struct half *half, unsigned which, int status, const uint8_t *answer, size_t size)
{
    struct dns_addresses found = {.count = 0};
    uint16_t type = which == HALF_IPV4 ? DNS_TYPE_A : DNS_TYPE_AAAA;
    half->back = true;
    half->status = status;
    if (status != 0) return;
    if (!dns_read_addresses(answer, size, type, &found))
        half->status = -EIO;
    else if (found.count == 0)
        half->status = -ENOENT;
    else
        half_fill(half, which == HALF_IPV4 ? ADDRESS_IPV4 : ADDRESS_IPV6, &found);
}

/* The addresses that are there, and how long they hold. */
static void lookup_merge(struct lookup *lookup)
{
    struct cache_entry *entry = &lookup->entry;
    const struct half *four = &lookup->halves[HALF_IPV4], *six = &lookup->halves[HALF_IPV6];
    uint64_t ttl_ms = RESOLVE_TTL_MS_MAX;
    for (unsigned i = 0; i < HALVES; i++) {
        const struct half *half = &lookup->halves[i];
        uint64_t limit_ms = half_is_good(half) ? half->ttl_ms : RESOLVE_TTL_MS_MAX;
        if (half->wanted && (!half->back || (half->status != 0 && half->status != -ENOENT)))
            limit_ms = RESOLVE_TTL_MS_HALF;
        if (limit_ms < ttl_ms) ttl_ms = limit_ms;
    }
    entry->count = address_order_interlace(four->results, half_is_good(four) ? four->count : 0, six->results,
                                           half_is_good(six) ? six->count : 0, entry->results, RESOLVE_ADDRESSES_MAX);
    lookup_decide(lookup, 0, ttl_ms);
}

/* Nobody has an address: what to say. An error that may be gone next time is not "no such name". */
static int lookup_failure(const struct lookup *lookup)
{
    int status = -ENOENT;
    for (unsigned i = 0; i < HALVES; i++) {
        const struct half *half = &lookup->halves[i];
        if (!half->wanted || !half->back) continue;
        if (half->gone) return -ENOENT;
        if (half->status != -ENOENT) status = half->status;
    }
    return status;
}

/* --- asking --- */

static void lookup_ask_candidate(struct lookup *lookup);

static bool lookup_candidate(const struct lookup *lookup, char name[CACHE_NAME_MAX + 2])
{
    return dns_channel_candidate(lookup->resolver->channel, lookup->entry.key.name, lookup->candidate, name,
                                 CACHE_NAME_MAX + 2);
}

static uint32_t lookup_find_local(struct lookup *lookup)
{
    struct cache_entry *entry = &lookup->entry;
    struct resolve_result found[RESOLVE_ADDRESSES_MAX], four[RESOLVE_ADDRESSES_MAX], six[RESOLVE_ADDRESSES_MAX];
    uint32_t count = dns_channel_look_up_local(lookup->resolver->channel, entry->key.name, entry->key.family, found,
                                               RESOLVE_ADDRESSES_MAX),
             fours = 0, sixes = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (found[i].kind == ADDRESS_IPV4)
            four[fours++] = found[i];
        else
            six[sixes++] = found[i];
    }
    entry->count = address_order_interlace(four, fours, six, sixes, entry->results, RESOLVE_ADDRESSES_MAX);
    if (entry->count > 0) lookup_decide(lookup, 0, RESOLVE_LOCAL_TTL_MS);
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
        if (dns_channel_local(lookup->resolver->channel) == DNS_LOCAL_LAST && lookup_find_local(lookup) > 0) return;
    }
    lookup_decide(lookup, status, RESOLVE_NEGATIVE_TTL_MS);
}

/* Whether enough is known, and what follows from it. */
static void lookup_judge(struct lookup *lookup, uint64_t now_ms)
{
    struct resolver *resolver = lookup->resolver;
    bool all = true, good = false, gone = false;
    for (unsigned i = 0; i < HALVES; i++) {
        const struct half *half = &lookup->halves[i];
        if (!half->wanted) continue;
        all &= half->back;
        good |= half_is_good(half);
        gone |= half->back && half->gone;
    }
    if (!all && (good || gone) && lookup->delay_until_ms == 0) {
        lookup->delay_until_ms = now_ms + RESOLVE_DELAY_MS;
        link_append(&resolver->delayed, &lookup->delay); /* one delay for all: in the order of their time */
    }
    if (!all && (lookup->delay_until_ms == 0 || now_ms < lookup->delay_until_ms)) return;
    link_remove(&lookup->delay);
    if (good)
        lookup_merge(lookup);
    else
        lookup_go_on(lookup, lookup_failure(lookup));
}

/* Behind everything that may have changed it. */
static void lookup_finish(struct lookup *lookup)
{
    if (lookup->decided) lookup_answer(lookup);
    if (lookup->queries > 0) return;
    if (lookup->restart && !lookup->decided)
        link_append(&lookup->resolver->restarts, &lookup->entry.order);
    else if (lookup->decided)
        lookup_keep(lookup);
}

static void query_back(struct lookup *lookup, const struct query *query, int status, bool gone, const uint8_t *answer,
                       size_t size)
{
    struct half *half = &lookup->halves[query->half];
    if (lookup->restart || query->candidate != lookup->candidate) return; /* of a time that is over */
    half->gone = gone;
    half_take(half, query->half, status, answer, size);
    if (!lookup->decided)
        lookup_judge(lookup, ring_now_ms(lookup->resolver->ring));
    else if (half_is_good(half) && lookup->entry.status == 0)
        lookup_merge(lookup); /* too late for those who have waited, not for the cache */
}

static void on_answer(void *argument, int status, bool gone, const uint8_t *answer, size_t size)
{
    struct query query = *(struct query *)argument;
    struct lookup *lookup = query.lookup;
    struct resolver *resolver = lookup->resolver;
    assert(lookup->queries > 0);
    pool_give(&resolver->queries, slot_of(&resolver->queries, argument));
    if (status == DNS_RESTART) {
        lookup->restart = true;
        link_remove(&lookup->delay);
    } else if (resolver->closing && !lookup->decided) {
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
    struct resolver *resolver = lookup->resolver;
    struct half *half = &lookup->halves[which];
    uint32_t slot = pool_take(&resolver->queries);
    if (slot == POOL_NONE) { /* candidates whose other half was never answered may hold them */
        half->back = true;
        half->status = -ENOMEM;
        return;
    }
    struct query *query = pool_at(&resolver->queries, slot);
    *query = (struct query){.lookup = lookup, .candidate = lookup->candidate, .half = (uint8_t)which};
    lookup->queries++;
    dns_channel_ask(resolver->channel, name, which == HALF_IPV4 ? DNS_TYPE_A : DNS_TYPE_AAAA, query);
}

static void lookup_ask_candidate(struct lookup *lookup)
{
    char name[CACHE_NAME_MAX + 2];
    int family = lookup->entry.key.family;
    uint32_t candidate = lookup->candidate;
    memset(lookup->halves, 0, sizeof lookup->halves);
    lookup->halves[HALF_IPV4].wanted = family != AF_INET6;
    lookup->halves[HALF_IPV6].wanted = family != AF_INET;
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
        lookup_judge(lookup, ring_now_ms(lookup->resolver->ring));
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
    lookup_decide(lookup, fits ? 0 : -ENOENT, RESOLVE_LOCAL_TTL_MS);
    return true;
}

/* True: no name server need be asked. */
static bool lookup_is_local(struct lookup *lookup)
{
    bool first = dns_channel_local(lookup->resolver->channel) == DNS_LOCAL_FIRST;
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

/* The first time: by whom it is answered is counted. */
static void lookup_begin(struct lookup *lookup)
{
    struct resolver *resolver = lookup->resolver;
    uint32_t open = resolver->queries.used;
    lookup_ask(lookup);
    counter_add(resolver->queries.used > open ? &resolver->stats.queries : &resolver->stats.local, 1);
}

/* --- the interface --- */

/* Early in boot there may be no randomness yet: then an address, which the kernel has shuffled, must do. */
static uint64_t seed_make(const struct resolver *resolver)
{
    uint64_t seed;
    return getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed ? seed : (uintptr_t)resolver;
}

static int resolver_open_parts(struct resolver *resolver, const struct resolve_options *options)
{
    struct dns_channel_options channel = {
        .ring = resolver->ring,
        .nameservers = options->nameservers,
        .resolv_conf = options->resolv_conf ? options->resolv_conf : "/etc/resolv.conf",
        .timeout_ms = options->timeout_ms,
        .sockets_max = options->sockets_max > 0 ? options->sockets_max : RESOLVE_SOCKETS_MAX,
        .op = options->op,
        .mismatched = &resolver->stats.mismatched,
        .answered = on_answer,
    };
    resolver->nameservers = options->nameservers ? strdup(options->nameservers) : NULL;
    if (options->nameservers && !resolver->nameservers) return -ENOMEM;
    int error = pool_open(&resolver->pending, RESOLVE_PENDING_MAX, sizeof(struct pending));
    if (error == 0) error = pool_open(&resolver->queries, 2 * HALVES * RESOLVE_LOOKUPS_MAX, sizeof(struct query));
    if (error == 0)
        error = cache_open(&resolver->cache, RESOLVE_CACHE_ENTRIES, RESOLVE_LOOKUPS_MAX, sizeof(struct lookup),
                           seed_make(resolver));
    resolver->seed = seed_make(resolver);
    return error == 0 ? dns_channel_open(&resolver->channel, &channel) : error;
}

static void resolver_free(struct resolver *resolver)
{
    pool_close(&resolver->pending);
    pool_close(&resolver->queries);
    cache_close(&resolver->cache);
    free(resolver->nameservers);
    free(resolver);
}

static struct resolver *resolver_new(struct ring *ring, const struct resolve_options *options)
{
    struct resolver *resolver = calloc(1, sizeof *resolver);
    if (resolver == NULL) return NULL;
    resolver->ring = ring;
    resolver->timeout_ms = options->timeout_ms;
    link_init(&resolver->restarts);
    link_init(&resolver->waiting);
    link_init(&resolver->ready);
    link_init(&resolver->delayed);
    return resolver;
}

int resolve_open(struct resolver **out, struct ring *ring, const struct resolve_options *options,
                 resolve_answered *answered, void *context)
{
    struct resolver *resolver = resolver_new(ring, options);
    if (resolver == NULL) return -ENOMEM;
    resolver->answered = answered;
    resolver->context = context;
    int error = resolver_open_parts(resolver, options);
    if (error == 0)
        *out = resolver;
    else
        resolver_free(resolver);
    return error;
}

void resolve_stop(struct resolver *resolver)
{
    if (resolver->closing) return;
    resolver->closing = true;
    dns_channel_close(resolver->channel);
    assert(resolver->queries.used == 0);
    assert(link_is_empty(&resolver->waiting));
}

void resolve_close(struct resolver *resolver)
{
    assert(!resolver->delivering);
    resolve_stop(resolver);
    deliver(resolver);
    assert(resolver->pending.used == 0);
    resolver_free(resolver);
}

/* --- other servers --- */

/* What was open is asked anew; the deadlines of its requests stay. */
static int resolver_reopen(struct resolver *resolver, const char *nameservers)
{
    int error = dns_channel_reopen(resolver->channel, nameservers);
    if (error != 0) return error;
    cache_clear(&resolver->cache);
    counter_add(&resolver->stats.revision, 1);
    counter_set(&resolver->stats.cached, 0);
    resolver->looked_ms = ring_now_ms(resolver->ring);
    while (!link_is_empty(&resolver->restarts)) {
        struct cache_entry *entry = link_owner(resolver->restarts.next, struct cache_entry, order);
        link_remove(&entry->order);
        lookup_ask(lookup_of(entry));
    }
    return 0;
}

int resolve_check_nameservers(const char *nameservers)
{
    return dns_channel_check_servers(nameservers);
}

int resolve_set_nameservers(struct resolver *resolver, const char *nameservers)
{
    char *copy = nameservers ? strdup(nameservers) : NULL;
    if (nameservers && !copy) return -ENOMEM;
    int error = resolver_reopen(resolver, nameservers);
    if (error != 0) {
        free(copy);
        return error;
    }
    free(resolver->nameservers);
    resolver->nameservers = copy;
    return 0;
}

int resolve_reload(struct resolver *resolver)
{
    return resolver->closing ? -ECANCELED : resolver_reopen(resolver, resolver->nameservers);
}

/* One system call a second at most, and only while somebody asks. When resolv.conf cannot be taken over, the servers of
 * before are asked, and the next look tries again. */
static void look_at_conf(struct resolver *resolver)
{
    uint64_t now_ms = ring_now_ms(resolver->ring);
    if (now_ms - resolver->looked_ms < RESOLVE_LOOK_MS) return;
    resolver->looked_ms = now_ms;
    if (dns_channel_is_stale(resolver->channel)) resolver_reopen(resolver, resolver->nameservers);
}

/* --- asking and answering --- */

static void pending_ask(struct resolver *resolver, struct pending *pending)
{
    struct cache_key key;
    struct resolve_request *request = pending->request;
    bool fresh;
    if (!cache_key_make(&key, request->name.name, request->name.name_size, request->family)) {
        counter_add(&resolver->stats.local, 1);
        pending_finish(resolver, pending, -ENOENT, NULL);
        return;
    }
    struct lookup *lookup = lookup_for(resolver, &key, &request->source, &fresh);
    if (lookup == NULL) {
        counter_add(&resolver->stats.refused, 1);
        pending_finish(resolver, pending, -ENOMEM, NULL);
    } else if (!cache_is_open(&lookup->entry)) {
        pending_finish(resolver, pending, lookup->entry.status, &lookup->entry);
    } else {
        link_append(&lookup->pending, &pending->peers);
        if (fresh)
            lookup_begin(lookup);
        else if (lookup->decided)
            lookup_answer(lookup);
    }
}

int resolve_ask(struct resolver *resolver, struct resolve_request *request, void *cookie)
{
    assert(request->name.kind == ADDRESS_NAME);
    assert(request->family == AF_UNSPEC || request->family == AF_INET || request->family == AF_INET6);
    if (resolver->closing) return -ECANCELED;
    struct pending *pending = pending_open(resolver, request, cookie);
    if (pending == NULL) {
        counter_add(&resolver->stats.failures, 1);
        counter_add(&resolver->stats.refused, 1);
        return -ENOMEM;
    }
    look_at_conf(resolver);
    if (atomic_load_explicit(&request->cancelled, memory_order_relaxed) != 0)
        pending_finish(resolver, pending, -ECANCELED, NULL);
    else
        pending_ask(resolver, pending);
    return 0;
}

void resolve_on_completion(struct resolver *resolver, const struct ring_completion *completion)
{
    if (!resolver->closing) dns_channel_on_completion(resolver->channel, completion); /* else of a cancelled poll */
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t resolve_wait_ms(const struct resolver *resolver, uint64_t now_ms)
{
    uint64_t next_ms = UINT64_MAX;
    if (!link_is_empty(&resolver->ready)) return 0;
    if (!link_is_empty(&resolver->waiting))
        next_ms = link_owner(resolver->waiting.next, struct pending, age)->deadline_ms;
    if (!link_is_empty(&resolver->delayed))
        next_ms = least(next_ms, link_owner(resolver->delayed.next, struct lookup, delay)->delay_until_ms);
    uint64_t wait_ms = next_ms == UINT64_MAX ? UINT64_MAX : next_ms > now_ms ? next_ms - now_ms : 0;
    return resolver->closing ? wait_ms : least(wait_ms, dns_channel_wait_ms(resolver->channel, now_ms));
}

uint64_t resolve_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* The second family has had its time. */
static void expire_delayed(struct resolver *resolver, uint64_t now_ms)
{
    while (!link_is_empty(&resolver->delayed)) {
        struct lookup *lookup = link_owner(resolver->delayed.next, struct lookup, delay);
        if (lookup->delay_until_ms > now_ms) return;
        lookup_judge(lookup, now_ms);
        lookup_finish(lookup);
    }
}

void resolve_on_time(struct resolver *resolver, uint64_t now_ms)
{
    if (!resolver->closing) dns_channel_on_time(resolver->channel, now_ms);
    expire_delayed(resolver, now_ms);
    expire_pending(resolver, now_ms);
    deliver(resolver);
}

const struct resolve_stats *resolve_get_stats(const struct resolver *resolver)
{
    return &resolver->stats;
}
