/* From a request to its answer:
 *
 *     resolve_ask --> waiter --+--> question OPEN --name servers--> question KEPT --> waiter ready --> answered()
 *                              |        ^ joined by equal ones                       ^
 *                              +--------|---- cache hit, refusal -------------------+
 *                                       +---- the waiter's deadline ----------------+
 *
 * A question is an entry of the cache (resolve_cache.h), first while it is being asked, then with its answer. A waiter
 * is one request. What is finished goes to the ready list, and resolve_on_time() empties that list at the top of the
 * owner's loop: so answered() may ask again or change the servers at once, and nobody's answer is delivered while
 * somebody else asks.
 *
 * A question for both families is two asks, one for A and one for AAAA. It is DECIDED when both are back, or
 * RESOLVE_DELAY_MS after the first that says something for both: an address, or that there is no such name. From then
 * on it answers whoever waits, also with one family alone, and is kept when the last ask is back. A name without a
 * final dot may be asked for several times, as candidates of the search list.
 *
 * All memory is in pools of untouched pages, bounded whatever the clients ask. */
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

#define RESOLVE_QUERIES_MAX  4096u  /* questions on their way at the same time; more are answered with -ENOMEM */
#define RESOLVE_WAITERS_MAX  65536u /* requests on their way */
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

struct question {
    struct cache_entry entry; /* its order, between two sets of servers: in restarts */
    struct link waiters;      /* OPEN only */
    struct link hurry;        /* in hurried, while the second family has its time */
    struct resolver *resolver;
    uint64_t hurry_ms;  /* when that is over */
    uint64_t ttl_ms;    /* decided: how long the answer holds */
    uint32_t candidate; /* of the search list */
    uint32_t asks;      /* that are not back */
    uint32_t share;     /* place of the source that it is asked for + 1; 0: of nobody */
    bool decided;       /* entry.status, count and results are set */
    bool restart;       /* the servers have changed: to be asked anew */
    struct half halves[HALVES];
};

/* One question to name servers. */
struct ask {
    struct question *question;
    uint32_t candidate;
    uint8_t half;
};

struct waiter {
    struct link age;   /* waiting: in waiting, the oldest first; then in ready */
    struct link peers; /* waiting: in its question's waiters */
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
    struct cache cache; /* of questions */
    struct pool waiters, asks;
    struct link restarts, waiting, ready, hurried;
    uint64_t seed;
    uint32_t shares[RESOLVE_SHARES]; /* open questions by source; who shares a place by chance shares its bound */
    struct resolve_stats stats;
};

static uint32_t slot_of(const struct pool *pool, const void *item)
{
    size_t offset = (size_t)((const uint8_t *)item - pool->slots);
    assert(offset % pool->slot_size == 0);
    return (uint32_t)(offset / pool->slot_size);
}

/* --- waiters --- */

static struct waiter *waiter_open(struct resolver *resolver, struct resolve_request *request, void *cookie)
{
    uint32_t slot = pool_take(&resolver->waiters);
    if (slot == POOL_NONE) return NULL;
    struct waiter *waiter = pool_at(&resolver->waiters, slot);
    *waiter = (struct waiter){.request = request, .cookie = cookie};
    waiter->deadline_ms = ring_now_ms(resolver->ring) + resolver->timeout_ms;
    link_init(&waiter->peers);
    link_append(&resolver->waiting, &waiter->age); /* one timeout for all: the list is in the order of deadlines */
    return waiter;
}

/* Of an answer that is not whole yet nobody else should hear. */
static uint32_t waiter_keep_ms(const struct resolver *resolver, const struct cache_entry *entry)
{
    uint64_t now = ring_now_ms(resolver->ring);
    return entry->expires_ms > now ? (uint32_t)(entry->expires_ms - now) : 0;
}

/* Copies the answer now: the entry may be gone before it is delivered. */
static void waiter_finish(struct resolver *resolver, struct waiter *waiter, int status, const struct cache_entry *entry)
{
    assert(status <= 0);
    assert(status != 0 || entry->count > 0);
    waiter->status = status;
    waiter->request->count = 0;
    if (status == 0) {
        waiter->request->keep_ms = waiter_keep_ms(resolver, entry);
        waiter->request->revision = counter_read(&resolver->stats.revision);
        waiter->request->count = entry->count;
        memcpy(waiter->request->results, entry->results, sizeof entry->results);
    }
    link_remove(&waiter->peers);
    link_remove(&waiter->age);
    link_append(&resolver->ready, &waiter->age);
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
        struct waiter *waiter = link_owner(batch.next, struct waiter, age);
        struct waiter done = *waiter;
        link_remove(&waiter->age);
        pool_give(&resolver->waiters, slot_of(&resolver->waiters, waiter));
        answer(resolver, done.request, done.cookie, done.status);
    }
    resolver->delivering = false;
}

static void expire_waiters(struct resolver *resolver, uint64_t now_ms)
{
    while (!link_is_empty(&resolver->waiting)) {
        struct waiter *waiter = link_owner(resolver->waiting.next, struct waiter, age);
        if (waiter->deadline_ms > now_ms) break;
        waiter_finish(resolver, waiter, -ETIMEDOUT, NULL);
    }
}

/* --- questions --- */

static struct question *question_of(struct cache_entry *entry)
{
    return link_owner(entry, struct question, entry);
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
    if (place == 0 || resolver->cache.open_count < RESOLVE_QUERIES_MAX / 4 * 3) return true;
    return resolver->shares[place - 1] < RESOLVE_QUERIES_MAX / 16;
}

/* The question that answers this one: a kept one, one that is being asked, or a new one that is not being asked yet.
 * NULL: too many are, in all or for this source. */
static struct question *question_for(struct resolver *resolver, const struct cache_key *key,
                                     const struct share_source *source, bool *fresh)
{
    struct cache_entry *entry = cache_find(&resolver->cache, key, ring_now_ms(resolver->ring));
    counter_set(&resolver->stats.cached, resolver->cache.kept_count);
    *fresh = false;
    if (entry != NULL) {
        counter_add(cache_is_open(entry) ? &resolver->stats.coalesced : &resolver->stats.cache_hits, 1);
        return question_of(entry);
    }
    uint32_t place = share_place(resolver, source);
    if (!share_admits(resolver, place)) return NULL;
    entry = cache_add(&resolver->cache, key);
    *fresh = entry != NULL;
    if (entry == NULL) return NULL;
    struct question *question = question_of(entry);
    question->share = place;
    if (place > 0) resolver->shares[place - 1]++;
    question->resolver = resolver;
    link_init(&question->waiters);
    link_init(&question->hurry);
    return question;
}

/* Whoever waits is answered. */
static void question_answer(struct question *question)
{
    struct resolver *resolver = question->resolver;
    while (!link_is_empty(&question->waiters)) {
        struct waiter *waiter = link_owner(question->waiters.next, struct waiter, peers);
        waiter_finish(resolver, waiter, question->entry.status, &question->entry);
    }
}

/* It is decided, and nothing of it is on its way any more. */
static void question_keep(struct question *question)
{
    struct resolver *resolver = question->resolver;
    struct cache_entry *entry = &question->entry;
    assert(question->decided && question->asks == 0);
    if (question->share > 0) resolver->shares[question->share - 1]--;
    question->share = 0;
    link_remove(&question->hurry);
    if (entry->status == 0 || entry->status == -ENOENT) {
        cache_keep(&resolver->cache, entry, ring_now_ms(resolver->ring) + question->ttl_ms);
        question_answer(question);
    } else {
        question_answer(question);
        cache_drop(&resolver->cache, entry);
    }
    counter_set(&resolver->stats.cached, resolver->cache.kept_count);
}

static void question_decide(struct question *question, int status, uint64_t ttl_ms)
{
    question->decided = true;
    question->entry.status = status;
    question->ttl_ms = ttl_ms;
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
static void question_merge(struct question *question)
{
    struct cache_entry *entry = &question->entry;
    const struct half *four = &question->halves[HALF_IPV4], *six = &question->halves[HALF_IPV6];
    uint64_t ttl_ms = RESOLVE_TTL_MS_MAX;
    for (unsigned i = 0; i < HALVES; i++) {
        const struct half *half = &question->halves[i];
        uint64_t limit_ms = half_is_good(half) ? half->ttl_ms : RESOLVE_TTL_MS_MAX;
        if (half->wanted && (!half->back || (half->status != 0 && half->status != -ENOENT)))
            limit_ms = RESOLVE_TTL_MS_HALF;
        if (limit_ms < ttl_ms) ttl_ms = limit_ms;
    }
    entry->count = address_order_interlace(four->results, half_is_good(four) ? four->count : 0, six->results,
                                           half_is_good(six) ? six->count : 0, entry->results, RESOLVE_ADDRESSES_MAX);
    question_decide(question, 0, ttl_ms);
}

/* Nobody has an address: what to say. An error that may be gone next time is not "no such name". */
static int question_failure(const struct question *question)
{
    int status = -ENOENT;
    for (unsigned i = 0; i < HALVES; i++) {
        const struct half *half = &question->halves[i];
        if (!half->wanted || !half->back) continue;
        if (half->gone) return -ENOENT;
        if (half->status != -ENOENT) status = half->status;
    }
    return status;
}

/* --- asking --- */

static void question_ask_candidate(struct question *question);

static bool question_candidate(const struct question *question, char name[CACHE_NAME_MAX + 2])
{
    return dns_channel_candidate(question->resolver->channel, question->entry.key.name, question->candidate, name,
                                 CACHE_NAME_MAX + 2);
}

static uint32_t question_look_up_local(struct question *question)
{
    struct cache_entry *entry = &question->entry;
    struct resolve_result found[RESOLVE_ADDRESSES_MAX], four[RESOLVE_ADDRESSES_MAX], six[RESOLVE_ADDRESSES_MAX];
    uint32_t count = dns_channel_look_up_local(question->resolver->channel, entry->key.name, entry->key.family, found,
                                               RESOLVE_ADDRESSES_MAX),
             fours = 0, sixes = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (found[i].kind == ADDRESS_IPV4)
            four[fours++] = found[i];
        else
            six[sixes++] = found[i];
    }
    entry->count = address_order_interlace(four, fours, six, sixes, entry->results, RESOLVE_ADDRESSES_MAX);
    if (entry->count > 0) question_decide(question, 0, RESOLVE_LOCAL_TTL_MS);
    return entry->count;
}

/* This candidate has no address. */
static void question_go_on(struct question *question, int status)
{
    char name[CACHE_NAME_MAX + 2];
    link_remove(&question->hurry);
    if (status == -ENOENT) {
        question->candidate++;
        if (question_candidate(question, name)) {
            question_ask_candidate(question);
            return;
        }
        if (dns_channel_local(question->resolver->channel) == DNS_LOCAL_LAST && question_look_up_local(question) > 0)
            return;
    }
    question_decide(question, status, RESOLVE_NEGATIVE_TTL_MS);
}

/* Whether enough is known, and what follows from it. */
static void question_look(struct question *question, uint64_t now_ms)
{
    struct resolver *resolver = question->resolver;
    bool all = true, good = false, gone = false;
    for (unsigned i = 0; i < HALVES; i++) {
        const struct half *half = &question->halves[i];
        if (!half->wanted) continue;
        all &= half->back;
        good |= half_is_good(half);
        gone |= half->back && half->gone;
    }
    if (!all && (good || gone) && question->hurry_ms == 0) {
        question->hurry_ms = now_ms + RESOLVE_DELAY_MS;
        link_append(&resolver->hurried, &question->hurry); /* one delay for all: in the order of their time */
    }
    if (!all && (question->hurry_ms == 0 || now_ms < question->hurry_ms)) return;
    link_remove(&question->hurry);
    if (good)
        question_merge(question);
    else
        question_go_on(question, question_failure(question));
}

/* Behind everything that may have changed it. */
static void question_settle(struct question *question)
{
    if (question->decided) question_answer(question);
    if (question->asks > 0) return;
    if (question->restart && !question->decided)
        link_append(&question->resolver->restarts, &question->entry.order);
    else if (question->decided)
        question_keep(question);
}

static void ask_back(struct question *question, const struct ask *ask, int status, bool gone, const uint8_t *answer,
                     size_t size)
{
    struct half *half = &question->halves[ask->half];
    if (question->restart || ask->candidate != question->candidate) return; /* of a time that is over */
    half->gone = gone;
    half_take(half, ask->half, status, answer, size);
    if (!question->decided)
        question_look(question, ring_now_ms(question->resolver->ring));
    else if (half_is_good(half) && question->entry.status == 0)
        question_merge(question); /* too late for those who have waited, not for the cache */
}

static void on_answer(void *argument, int status, bool gone, const uint8_t *answer, size_t size)
{
    struct ask ask = *(struct ask *)argument;
    struct question *question = ask.question;
    struct resolver *resolver = question->resolver;
    assert(question->asks > 0);
    pool_give(&resolver->asks, slot_of(&resolver->asks, argument));
    if (status == DNS_RESTART) {
        question->restart = true;
        link_remove(&question->hurry);
    } else if (resolver->closing && !question->decided) {
        question_decide(question, -ECANCELED, 0);
    } else {
        ask_back(question, &ask, status, gone, answer, size);
    }
    question->asks--;
    question_settle(question);
}

/* `question->asks` is held by the caller, so that an answer within the call does not end it. */
static void question_ask_half(struct question *question, const char *name, unsigned which)
{
    struct resolver *resolver = question->resolver;
    struct half *half = &question->halves[which];
    uint32_t slot = pool_take(&resolver->asks);
    if (slot == POOL_NONE) { /* candidates whose other half was never answered may hold them */
        half->back = true;
        half->status = -ENOMEM;
        return;
    }
    struct ask *ask = pool_at(&resolver->asks, slot);
    *ask = (struct ask){.question = question, .candidate = question->candidate, .half = (uint8_t)which};
    question->asks++;
    dns_channel_ask(resolver->channel, name, which == HALF_IPV4 ? DNS_TYPE_A : DNS_TYPE_AAAA, ask);
}

static void question_ask_candidate(struct question *question)
{
    char name[CACHE_NAME_MAX + 2];
    int family = question->entry.key.family;
    uint32_t candidate = question->candidate;
    memset(question->halves, 0, sizeof question->halves);
    question->halves[HALF_IPV4].wanted = family != AF_INET6;
    question->halves[HALF_IPV6].wanted = family != AF_INET;
    question->hurry_ms = 0;
    if (!question_candidate(question, name) || name[0] == '\0') { /* with its domain it is too long for a name */
        question_go_on(question, -ENOENT);
        return;
    }
    question->asks++; /* held, see above */
    for (unsigned i = 0; i < HALVES; i++)
        if (question->halves[i].wanted && question->candidate == candidate) question_ask_half(question, name, i);
    question->asks--;
    if (!question->decided && !question->restart && question->candidate == candidate)
        question_look(question, ring_now_ms(question->resolver->ring));
}

/* A literal in a name's clothes. */
static bool question_is_literal(struct question *question)
{
    struct cache_entry *entry = &question->entry;
    struct address literal;
    if (!address_from_host(entry->key.name, entry->key.size, 0, &literal)) return false;
    if (literal.kind != ADDRESS_IPV4 && literal.kind != ADDRESS_IPV6) return false;
    bool fits = entry->key.family == AF_UNSPEC || (entry->key.family == AF_INET) == (literal.kind == ADDRESS_IPV4);
    entry->count = fits;
    entry->results[0] = (struct resolve_result){.kind = literal.kind};
    memcpy(entry->results[0].octets, literal.ipv6, literal.kind == ADDRESS_IPV4 ? 4 : 16);
    question_decide(question, fits ? 0 : -ENOENT, RESOLVE_LOCAL_TTL_MS);
    return true;
}

/* True: no name server need be asked. */
static bool question_is_local(struct question *question)
{
    bool first = dns_channel_local(question->resolver->channel) == DNS_LOCAL_FIRST;
    if (question_is_literal(question)) return true;
    if (!first && !dns_channel_is_localhost(question->entry.key.name)) return false;
    return question_look_up_local(question) > 0;
}

static void question_ask(struct question *question)
{
    assert(cache_is_open(&question->entry) && question->asks == 0);
    question->restart = false;
    question->candidate = 0;
    if (!question_is_local(question)) question_ask_candidate(question);
    question_settle(question);
}

/* The first time: by whom it is answered is counted. */
static void question_begin(struct question *question)
{
    struct resolver *resolver = question->resolver;
    uint32_t open = resolver->asks.used;
    question_ask(question);
    counter_add(resolver->asks.used > open ? &resolver->stats.queries : &resolver->stats.local, 1);
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
    int error = pool_open(&resolver->waiters, RESOLVE_WAITERS_MAX, sizeof(struct waiter));
    if (error == 0) error = pool_open(&resolver->asks, 2 * HALVES * RESOLVE_QUERIES_MAX, sizeof(struct ask));
    if (error == 0)
        error = cache_open(&resolver->cache, RESOLVE_CACHE_ENTRIES, RESOLVE_QUERIES_MAX, sizeof(struct question),
                           seed_make(resolver));
    resolver->seed = seed_make(resolver);
    return error == 0 ? dns_channel_open(&resolver->channel, &channel) : error;
}

static void resolver_free(struct resolver *resolver)
{
    pool_close(&resolver->waiters);
    pool_close(&resolver->asks);
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
    link_init(&resolver->hurried);
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
    assert(resolver->asks.used == 0);
    assert(link_is_empty(&resolver->waiting));
}

void resolve_close(struct resolver *resolver)
{
    assert(!resolver->delivering);
    resolve_stop(resolver);
    deliver(resolver);
    assert(resolver->waiters.used == 0);
    resolver_free(resolver);
}

/* --- other servers --- */

/* What was open is asked anew; its waiters' deadlines stay. */
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
        question_ask(question_of(entry));
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

static void waiter_ask(struct resolver *resolver, struct waiter *waiter)
{
    struct cache_key key;
    struct resolve_request *request = waiter->request;
    bool fresh;
    if (!cache_key_make(&key, request->name.name, request->name.name_size, request->family)) {
        counter_add(&resolver->stats.local, 1);
        waiter_finish(resolver, waiter, -ENOENT, NULL);
        return;
    }
    struct question *question = question_for(resolver, &key, &request->source, &fresh);
    if (question == NULL) {
        counter_add(&resolver->stats.refused, 1);
        waiter_finish(resolver, waiter, -ENOMEM, NULL);
    } else if (!cache_is_open(&question->entry)) {
        waiter_finish(resolver, waiter, question->entry.status, &question->entry);
    } else {
        link_append(&question->waiters, &waiter->peers);
        if (fresh)
            question_begin(question);
        else if (question->decided)
            question_answer(question);
    }
}

int resolve_ask(struct resolver *resolver, struct resolve_request *request, void *cookie)
{
    assert(request->name.kind == ADDRESS_NAME);
    assert(request->family == AF_UNSPEC || request->family == AF_INET || request->family == AF_INET6);
    if (resolver->closing) return -ECANCELED;
    struct waiter *waiter = waiter_open(resolver, request, cookie);
    if (waiter == NULL) {
        counter_add(&resolver->stats.failures, 1);
        counter_add(&resolver->stats.refused, 1);
        return -ENOMEM;
    }
    look_at_conf(resolver);
    if (atomic_load_explicit(&request->cancelled, memory_order_relaxed) != 0)
        waiter_finish(resolver, waiter, -ECANCELED, NULL);
    else
        waiter_ask(resolver, waiter);
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
        next_ms = link_owner(resolver->waiting.next, struct waiter, age)->deadline_ms;
    if (!link_is_empty(&resolver->hurried))
        next_ms = least(next_ms, link_owner(resolver->hurried.next, struct question, hurry)->hurry_ms);
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
static void expire_hurried(struct resolver *resolver, uint64_t now_ms)
{
    while (!link_is_empty(&resolver->hurried)) {
        struct question *question = link_owner(resolver->hurried.next, struct question, hurry);
        if (question->hurry_ms > now_ms) return;
        question_look(question, now_ms);
        question_settle(question);
    }
}

void resolve_on_time(struct resolver *resolver, uint64_t now_ms)
{
    if (!resolver->closing) dns_channel_on_time(resolver->channel, now_ms);
    expire_hurried(resolver, now_ms);
    expire_waiters(resolver, now_ms);
    deliver(resolver);
}

const struct resolve_stats *resolve_get_stats(const struct resolver *resolver)
{
    return &resolver->stats;
}
