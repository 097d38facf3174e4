/* From a request to its answer:
 *
 *     resolve_ask --> waiter --+--> question OPEN --c-ares--> question KEPT --> waiter ready --> answered()
 *                              |        ^ joined by equal ones                  ^
 *                              +--------|---- cache hit, refusal ---------------+
 *                                       +---- the waiter's deadline ------------+
 *
 * A question is an entry of the cache (resolve_cache.h), first while c-ares works on it, then with its answer. A waiter
 * is one request. What is finished goes to the ready list, and resolve_on_time() empties that list at the top of the
 * owner's loop: so answered() may ask again or change the servers at once, and nobody's answer is delivered while
 * somebody else asks.
 *
 * A watch is one poll of one of c-ares' sockets. Its slot is pinned while the poll is in flight, even if c-ares has
 * closed the socket long since.
 *
 * All memory is in pools of untouched pages, bounded whatever the clients ask. */
#include "resolve.h"

#include "list.h"
#include "pool.h"
#include "resolve_cache.h"

#include <ares.h>
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/time.h>
#include <time.h>

#define RESOLVE_QUERIES_MAX  4096u  /* questions on their way at the same time; more are answered with -ENOMEM */
#define RESOLVE_WAITERS_MAX  65536u /* requests on their way */
#define RESOLVE_WATCHES_MAX  256u   /* sockets: c-ares has one for UDP and one for TCP per server */
#define RESOLVE_SERVERS_MAX  16u
#define RESOLVE_TRIES        2u
#define RESOLVE_TRY_MS_MIN   100u
#define RESOLVE_TRY_MS_MAX   5000u
#define RESOLVE_TTL_MS_MIN   1000u
#define RESOLVE_TTL_MS_MAX   (60u * 60 * 1000)
#define RESOLVE_LOCAL_TTL_MS 5000u /* /etc/hosts: an edit is seen soon */

struct question {
    struct cache_entry entry; /* its order, between two channels: in restarts */
    struct link waiters;      /* OPEN only */
    struct resolver *resolver;
    bool asking; /* c-ares holds a pointer to this */
};

struct waiter {
    struct link age;   /* waiting: in waiting, the oldest first; then in ready */
    struct link peers; /* waiting: in its question's waiters */
    struct resolve_request *request;
    void *cookie;
    uint64_t deadline_ms;
    int status;
};

struct watch {
    struct link open; /* in watches while c-ares has the socket */
    int fd;           /* -1: c-ares has closed it */
    short events;     /* wanted now */
    short armed;      /* those of the poll in flight; 0: none is */
    bool cancelled;   /* the poll in flight has been told to end */
};

struct resolver {
    struct ring *ring;
    ares_channel channel;
    resolve_answered *answered;
    void *context;
    uint32_t timeout_ms;
    uint32_t try_ms; /* c-ares' patience for the first try of one server */
    uint8_t op;
    bool starting;   /* within ares_getaddrinfo(): what is answered now did not need the network */
    bool delivering; /* within deliver() */
    bool closing;
    uint32_t asking;           /* questions that c-ares has */
    uint64_t ares_deadline_ms; /* not later than c-ares' next timeout, if asking > 0 */
    struct cache cache;        /* of questions */
    struct pool waiters, watch_pool;
    struct link restarts, waiting, ready, watches;
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

/* Copies the answer now: the entry may be gone before it is delivered. */
static void waiter_finish(struct resolver *resolver, struct waiter *waiter, int status, const struct cache_entry *entry)
{
    assert(status <= 0);
    assert(status != 0 || entry->count > 0);
    waiter->status = status;
    waiter->request->count = 0;
    if (status == 0) {
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
    if (status != 0 && status != -ECANCELED) counter_add(&resolver->stats.failures, 1);
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

/* The question that answers this one: a kept one, one that is being asked, or a new one that is not being asked yet.
 * NULL: too many are. */
static struct question *question_for(struct resolver *resolver, const struct cache_key *key)
{
    struct cache_entry *entry = cache_find(&resolver->cache, key, ring_now_ms(resolver->ring));
    counter_set(&resolver->stats.cached, resolver->cache.kept_count);
    if (entry != NULL) {
        counter_add(cache_is_open(entry) ? &resolver->stats.coalesced : &resolver->stats.cache_hits, 1);
        return question_of(entry);
    }
    entry = cache_add(&resolver->cache, key);
    if (entry == NULL) return NULL;
    struct question *question = question_of(entry);
    question->resolver = resolver;
    link_init(&question->waiters);
    return question;
}

static void question_finish(struct resolver *resolver, struct question *question, uint64_t ttl_ms)
{
    struct cache_entry *entry = &question->entry;
    while (!link_is_empty(&question->waiters)) {
        struct waiter *waiter = link_owner(question->waiters.next, struct waiter, peers);
        waiter_finish(resolver, waiter, entry->status, entry);
    }
    if (entry->status == 0 || entry->status == -ENOENT)
        cache_keep(&resolver->cache, entry, ring_now_ms(resolver->ring) + ttl_ms);
    else
        cache_drop(&resolver->cache, entry);
    counter_set(&resolver->stats.cached, resolver->cache.kept_count);
}

/* --- c-ares' answers --- */

static int status_of(int ares_status)
{
    switch (ares_status) {
    case ARES_SUCCESS: return 0;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
    case ARES_EBADFAMILY:
    case ARES_ENONAME: return -ENOENT;
    case ARES_ETIMEOUT: return -ETIMEDOUT;
    case ARES_ENOMEM: return -ENOMEM;
    case ARES_ECANCELLED:
    case ARES_EDESTRUCTION: return -ECANCELED;
    default: return -EIO; /* ECONNREFUSED too: 1.18 says it for ICMP, but also for SERVFAIL from the last server */
    }
}

/* False for families that were not asked for: /etc/hosts may hold both. */
static bool result_from(const struct ares_addrinfo_node *node, int family, struct resolve_result *out)
{
    if (family != AF_UNSPEC && node->ai_family != family) return false;
    *out = (struct resolve_result){0};
    if (node->ai_family == AF_INET) {
        struct sockaddr_in ipv4;
        memcpy(&ipv4, node->ai_addr, sizeof ipv4);
        out->kind = ADDRESS_IPV4;
        memcpy(out->octets, &ipv4.sin_addr, sizeof ipv4.sin_addr);
        return true;
    }
    if (node->ai_family == AF_INET6) {
        struct sockaddr_in6 ipv6;
        memcpy(&ipv6, node->ai_addr, sizeof ipv6);
        out->kind = ADDRESS_IPV6;
        memcpy(out->octets, &ipv6.sin6_addr, sizeof ipv6.sin6_addr);
        return true;
    }
    return false;
}

struct answers { /* of one family, in c-ares' order */
    uint32_t count;
    struct resolve_result results[RESOLVE_ADDRESSES_MAX];
};

static void answers_add(struct answers *answers, const struct resolve_result *result)
{
    if (answers->count == RESOLVE_ADDRESSES_MAX) return;
    for (uint32_t i = 0; i < answers->count; i++) {
        if (memcmp(&answers->results[i], result, sizeof *result) == 0) return; /* hosts files repeat themselves */
    }
    answers->results[answers->count++] = *result;
}

/* RFC 8305 section 4: the families take turns, beginning with that of the first answer. */
static void entry_interlace(struct cache_entry *entry, const struct answers *first, const struct answers *second)
{
    entry->count = 0;
    for (uint32_t i = 0; i < RESOLVE_ADDRESSES_MAX; i++) {
        if (i < first->count && entry->count < RESOLVE_ADDRESSES_MAX)
            entry->results[entry->count++] = first->results[i];
        if (i < second->count && entry->count < RESOLVE_ADDRESSES_MAX)
            entry->results[entry->count++] = second->results[i];
    }
}

static uint64_t ttl_min(uint64_t ttl_ms, int seconds)
{
    uint64_t one_ms = seconds > 0 ? (uint64_t)seconds * 1000 : 0;
    return one_ms < ttl_ms ? one_ms : ttl_ms;
}

/* Takes the addresses over; returns how long they hold. c-ares has sorted them as RFC 6724 says. */
static uint64_t entry_fill(struct cache_entry *entry, const struct ares_addrinfo *found)
{
    struct answers answers[2] = {{.count = 0}, {.count = 0}};
    struct resolve_result result;
    uint64_t ttl_ms = RESOLVE_TTL_MS_MAX;
    uint8_t first_kind = ADDRESS_NONE;
    for (const struct ares_addrinfo_node *node = found->nodes; node != NULL; node = node->ai_next) {
        if (!result_from(node, entry->key.family, &result)) continue;
        if (first_kind == ADDRESS_NONE) first_kind = result.kind;
        answers_add(&answers[result.kind != first_kind], &result);
        ttl_ms = ttl_min(ttl_ms, node->ai_ttl);
    }
    for (const struct ares_addrinfo_cname *cname = found->cnames; cname != NULL; cname = cname->next)
        ttl_ms = ttl_min(ttl_ms, cname->ttl);
    entry_interlace(entry, &answers[0], &answers[1]);
    /* What came without the network has no TTL, c-ares says 0. */
    if (question_of(entry)->resolver->starting) return RESOLVE_LOCAL_TTL_MS;
    return ttl_ms > RESOLVE_TTL_MS_MIN ? ttl_ms : RESOLVE_TTL_MS_MIN;
}

/* c-ares 1.18 leaks the name when it makes up the IPv6 address of a localhost that /etc/hosts knows as IPv4 only. So it
 * is asked for both families, and RFC 6761 section 6.3 is done here. */
static bool entry_is_localhost(const struct cache_entry *entry)
{
    return strcmp(entry->key.name, "localhost") == 0;
}

static void entry_fill_loopback(struct cache_entry *entry)
{
    assert(entry->count == 0);
    assert(entry->key.family != AF_UNSPEC);
    entry->count = 1;
    if (entry->key.family == AF_INET)
        entry->results[0] = (struct resolve_result){ADDRESS_IPV4, {127, 0, 0, 1}};
    else
        entry->results[0] = (struct resolve_result){ADDRESS_IPV6, {[15] = 1}};
}

/* Once for each ares_getaddrinfo(), perhaps before that returns. */
static void on_addresses(void *argument, int ares_status, int timeouts, struct ares_addrinfo *found)
{
    (void)timeouts;
    struct question *question = argument;
    struct cache_entry *entry = &question->entry;
    struct resolver *resolver = question->resolver;
    assert(question->asking);
    assert(resolver->asking > 0);
    question->asking = false;
    resolver->asking--;
    uint64_t ttl_ms = 0;
    entry->status = status_of(ares_status);
    if (entry->status == 0) ttl_ms = entry_fill(entry, found);
    if (found != NULL) ares_freeaddrinfo(found);
    if (entry->status == 0 && entry->count == 0) {
        if (entry_is_localhost(entry) && entry->key.family != AF_UNSPEC)
            entry_fill_loopback(entry);
        else
            entry->status = -ENOENT;
    }
    if (entry->status == -ENOENT) ttl_ms = RESOLVE_NEGATIVE_TTL_MS;

    if (ares_status == ARES_EDESTRUCTION && !resolver->closing)
        link_append(&resolver->restarts, &entry->order);
    else
        question_finish(resolver, question, ttl_ms);
}

/* Any entry into c-ares may have sent something. Its tries last try_ms or longer, so this is never too late, and
 * cheaper than ares_timeout(), which in 1.18 walks over all queries. */
static void expect_timeout(struct resolver *resolver)
{
    uint64_t next_ms = ring_now_ms(resolver->ring) + resolver->try_ms;
    if (next_ms < resolver->ares_deadline_ms) resolver->ares_deadline_ms = next_ms;
}

static void question_ask(struct resolver *resolver, struct question *question)
{
    const struct cache_entry *entry = &question->entry;
    struct ares_addrinfo_hints hints = {.ai_family = entry_is_localhost(entry) ? AF_UNSPEC : entry->key.family};
    assert(!question->asking);
    assert(cache_is_open(entry));
    question->asking = true;
    resolver->asking++;
    resolver->starting = true;
    ares_getaddrinfo(resolver->channel, entry->key.name, NULL, &hints, on_addresses, question);
    resolver->starting = false;
    expect_timeout(resolver);
}

/* --- c-ares' sockets --- */

static struct ring_tag watch_tag(const struct resolver *resolver, const struct watch *watch)
{
    uint32_t slot = slot_of(&resolver->watch_pool, watch);
    return (struct ring_tag){
        .op = resolver->op, .generation = pool_generation(&resolver->watch_pool, slot), .slot = slot};
}

static void watch_arm(struct resolver *resolver, struct watch *watch)
{
    assert(watch->armed == 0);
    assert(watch->fd >= 0);
    watch->armed = watch->events;
    watch->cancelled = false;
    ring_poll(resolver->ring, watch->fd, watch->events, watch_tag(resolver, watch));
}

static void watch_cancel(struct resolver *resolver, struct watch *watch)
{
    assert(watch->armed != 0);
    if (!watch->cancelled) ring_cancel(resolver->ring, watch_tag(resolver, watch));
    watch->cancelled = true;
}

static struct watch *watch_find(struct resolver *resolver, int fd)
{
    for (struct link *link = resolver->watches.next; link != &resolver->watches; link = link->next) {
        struct watch *watch = link_owner(link, struct watch, open);
        if (watch->fd == fd) return watch;
    }
    return NULL;
}

/* Without a free slot the socket is not watched: its query times out and goes to the next server. */
static void watch_open(struct resolver *resolver, int fd, short events)
{
    uint32_t slot = pool_take(&resolver->watch_pool);
    if (slot == POOL_NONE) return;
    struct watch *watch = pool_at(&resolver->watch_pool, slot);
    *watch = (struct watch){.fd = fd, .events = events};
    link_append(&resolver->watches, &watch->open);
    watch_arm(resolver, watch);
}

/* c-ares closes the descriptor as soon as this returns, and the number may come back at once for another socket. The
 * cancel goes to the kernel before whatever is armed for that one. A watch without a poll is the one whose completion
 * is being handled; resolve_on_completion() gives its slot back. */
static void watch_close(struct resolver *resolver, struct watch *watch)
{
    watch->fd = -1;
    link_remove(&watch->open);
    if (watch->armed != 0) watch_cancel(resolver, watch);
}

/* ARES_OPT_SOCK_STATE_CB: called when a socket is new, when it wants other events, and with none before its close. */
static void on_socket_state(void *argument, ares_socket_t fd, int readable, int writable)
{
    struct resolver *resolver = argument;
    struct watch *watch = watch_find(resolver, fd);
    short events = (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
    if (watch == NULL) {
        if (events != 0) watch_open(resolver, fd, events);
    } else if (events == 0) {
        watch_close(resolver, watch);
    } else {
        watch->events = events; /* the poll in flight is armed anew when it has completed */
        if (watch->armed != 0 && watch->armed != events) watch_cancel(resolver, watch);
    }
}

/* An error makes the socket readable and writable: c-ares finds it out by reading, and then closes the socket. */
static void watch_process(struct resolver *resolver, const struct watch *watch, int32_t result)
{
    if (result == -ECANCELED) return;
    bool broken = result < 0 || (result & (POLLERR | POLLHUP | POLLNVAL)) != 0;
    bool readable = broken || (result & POLLIN) != 0;
    bool writable = (broken && (watch->events & POLLOUT) != 0) || (!broken && (result & POLLOUT) != 0);
    ares_process_fd(resolver->channel, readable ? watch->fd : ARES_SOCKET_BAD, writable ? watch->fd : ARES_SOCKET_BAD);
    expect_timeout(resolver);
}

void resolve_on_completion(struct resolver *resolver, const struct ring_completion *completion)
{
    assert(completion->tag.op == resolver->op);
    uint32_t slot = completion->tag.slot;
    if (completion->more || slot >= resolver->watch_pool.count) return;
    if (!pool_is_taken(&resolver->watch_pool, slot)) return;
    if (pool_generation(&resolver->watch_pool, slot) != completion->tag.generation) return;

    struct watch *watch = pool_at(&resolver->watch_pool, slot);
    assert(watch->armed != 0);
    watch->armed = 0;
    if (watch->fd >= 0) watch_process(resolver, watch, completion->result);
    if (watch->fd >= 0)
        watch_arm(resolver, watch);
    else
        pool_give(&resolver->watch_pool, slot);
}

/* --- the channel and its servers --- */

struct servers {
    uint32_t count; /* 0: those of resolv.conf */
    struct ares_addr_port_node nodes[RESOLVE_SERVERS_MAX];
};

/* One `ip`, `ip:port` or `[ip]:port`. Not left to ares_set_servers_ports_csv(): 1.18 takes any port, and trash. */
static bool server_parse(const char *text, size_t size, struct ares_addr_port_node *out)
{
    struct address address;
    bool bare = address_from_host(text, size, 53, &address) && address.kind != ADDRESS_NAME;
    if (!bare && !address_parse(text, size, ADDRESS_PORT_DEFAULT, 53, &address)) return false;
    if ((address.kind != ADDRESS_IPV4 && address.kind != ADDRESS_IPV6) || address.port == 0) return false;
    *out = (struct ares_addr_port_node){.udp_port = address.port, .tcp_port = address.port};
    out->family = address.kind == ADDRESS_IPV4 ? AF_INET : AF_INET6;
    if (out->family == AF_INET)
        memcpy(&out->addr.addr4, address.ipv4, sizeof address.ipv4);
    else
        memcpy(&out->addr.addr6, address.ipv6, sizeof address.ipv6);
    return true;
}

static int servers_parse(const char *text, struct servers *out)
{
    *out = (struct servers){.count = 0};
    if (text == NULL) return 0;
    for (;;) {
        text += strspn(text, " \t");
        size_t size = strcspn(text, ",");
        const char *next = text + size;
        while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t')) size--;
        if (out->count == RESOLVE_SERVERS_MAX) return -EINVAL;
        if (!server_parse(text, size, &out->nodes[out->count])) return -EINVAL;
        if (out->count > 0) out->nodes[out->count - 1].next = &out->nodes[out->count];
        out->count++;
        if (*next == '\0') return 0;
        text = next + 1;
    }
}

/* c-ares asks each server with patience t, then each with 2 t: count * 3 t in all. It is to give up a little before we
 * do, because it answers nothing while one family of an AF_UNSPEC question is still open: a server that drops AAAA
 * questions then costs time, not the answer. A late answer to an earlier try counts as well, so a short t does no harm.
 * Replaces what resolv.conf's options say about timeout and attempts. */
static uint32_t try_ms(uint32_t timeout_ms, uint32_t server_count)
{
    uint64_t ms = (uint64_t)timeout_ms * 9 / 10 / (3 * (uint64_t)(server_count > 0 ? server_count : 1));
    if (ms < RESOLVE_TRY_MS_MIN) return RESOLVE_TRY_MS_MIN;
    return ms < RESOLVE_TRY_MS_MAX ? (uint32_t)ms : RESOLVE_TRY_MS_MAX;
}

static int channel_init(struct resolver *resolver, uint32_t server_count, ares_channel *out)
{
    struct ares_options options = {
        .timeout = (int)try_ms(resolver->timeout_ms, server_count),
        .tries = (int)RESOLVE_TRIES,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = resolver,
    };
    int status = ares_init_options(out, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
    if (status == ARES_SUCCESS) return 0;
    return status == ARES_ENOMEM ? -ENOMEM : -EIO;
}

static uint32_t channel_count_servers(ares_channel channel)
{
    struct ares_addr_port_node *servers = NULL;
    uint32_t count = 0;
    if (ares_get_servers_ports(channel, &servers) != ARES_SUCCESS) return 1;
    for (const struct ares_addr_port_node *server = servers; server != NULL; server = server->next) count++;
    if (servers != NULL) ares_free_data(servers);
    return count;
}

/* The patience is fixed by ares_init_options(), the servers of resolv.conf are known only afterwards: hence twice. */
static int channel_open(struct resolver *resolver, struct servers *servers, ares_channel *out)
{
    uint32_t count = servers->count;
    int error = channel_init(resolver, count, out);
    if (error != 0) return error;
    if (count > 0) {
        error = ares_set_servers_ports(*out, servers->nodes) == ARES_SUCCESS ? 0 : -ENOMEM;
    } else if ((count = channel_count_servers(*out)) > 1) {
        ares_destroy(*out);
        error = channel_init(resolver, count, out);
        if (error != 0) return error;
    }
    if (error != 0)
        ares_destroy(*out);
    else
        resolver->try_ms = try_ms(resolver->timeout_ms, count);
    return error;
}

/* --- the interface --- */

/* Early in boot there may be no randomness yet: then an address, which the kernel has shuffled, must do. */
static uint64_t seed_make(const struct resolver *resolver)
{
    uint64_t seed;
    return getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed ? seed : (uintptr_t)resolver;
}

static int resolver_open_pools(struct resolver *resolver)
{
    int error = pool_open(&resolver->waiters, RESOLVE_WAITERS_MAX, sizeof(struct waiter));
    if (error == 0) error = pool_open(&resolver->watch_pool, RESOLVE_WATCHES_MAX, sizeof(struct watch));
    if (error == 0)
        error = cache_open(&resolver->cache, RESOLVE_CACHE_ENTRIES, RESOLVE_QUERIES_MAX, sizeof(struct question),
                           seed_make(resolver));
    return error;
}

static void resolver_free(struct resolver *resolver)
{
    pool_close(&resolver->waiters);
    pool_close(&resolver->watch_pool);
    cache_close(&resolver->cache);
    free(resolver);
}

static struct resolver *resolver_new(struct ring *ring, const struct resolve_options *options)
{
    struct resolver *resolver = calloc(1, sizeof *resolver);
    if (resolver == NULL) return NULL;
    resolver->ring = ring;
    resolver->timeout_ms = options->timeout_ms;
    resolver->op = options->op;
    resolver->ares_deadline_ms = UINT64_MAX;
    link_init(&resolver->restarts);
    link_init(&resolver->waiting);
    link_init(&resolver->ready);
    link_init(&resolver->watches);
    return resolver;
}

int resolve_open(struct resolver **out, struct ring *ring, const struct resolve_options *options,
                 resolve_answered *answered, void *context)
{
    struct servers servers;
    int error = servers_parse(options->nameservers, &servers);
    if (error != 0) return error;
    struct resolver *resolver = resolver_new(ring, options);
    if (resolver == NULL) return -ENOMEM;
    resolver->answered = answered;
    resolver->context = context;
    error = resolver_open_pools(resolver);
    if (error != 0) goto free_resolver;
    error = ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS ? 0 : -ENOMEM; /* counts, but is not thread-safe */
    if (error != 0) goto free_resolver;
    error = channel_open(resolver, &servers, &resolver->channel);
    if (error != 0) goto clean_library;
    *out = resolver;
    return 0;

clean_library:
    ares_library_cleanup();
free_resolver:
    resolver_free(resolver);
    return error;
}

void resolve_stop(struct resolver *resolver)
{
    if (resolver->closing) return;
    resolver->closing = true;
    ares_destroy(resolver->channel);
    assert(resolver->asking == 0);
    assert(link_is_empty(&resolver->waiting));
}

void resolve_close(struct resolver *resolver)
{
    assert(!resolver->delivering);
    resolve_stop(resolver);
    deliver(resolver);
    assert(resolver->waiters.used == 0);
    ares_library_cleanup();
    resolver_free(resolver);
}

static void waiter_ask(struct resolver *resolver, struct waiter *waiter)
{
    struct cache_key key;
    struct resolve_request *request = waiter->request;
    if (!cache_key_make(&key, request->name.name, request->name.name_size, request->family)) {
        waiter_finish(resolver, waiter, -ENOENT, NULL);
        return;
    }
    struct question *question = question_for(resolver, &key);
    if (question == NULL) {
        waiter_finish(resolver, waiter, -ENOMEM, NULL);
    } else if (!cache_is_open(&question->entry)) {
        waiter_finish(resolver, waiter, question->entry.status, &question->entry);
    } else {
        link_append(&question->waiters, &waiter->peers);
        if (!question->asking) question_ask(resolver, question);
    }
}

int resolve_ask(struct resolver *resolver, struct resolve_request *request, void *cookie)
{
    assert(request->name.kind == ADDRESS_NAME);
    assert(request->family == AF_UNSPEC || request->family == AF_INET || request->family == AF_INET6);
    if (resolver->closing) return -ECANCELED;
    counter_add(&resolver->stats.queries, 1);
    struct waiter *waiter = waiter_open(resolver, request, cookie);
    if (waiter == NULL) {
        counter_add(&resolver->stats.failures, 1);
        return -ENOMEM;
    }
    if (atomic_load_explicit(&request->cancelled, memory_order_relaxed) != 0)
        waiter_finish(resolver, waiter, -ECANCELED, NULL);
    else
        waiter_ask(resolver, waiter);
    return 0;
}

uint64_t resolve_wait_ms(const struct resolver *resolver, uint64_t now_ms)
{
    if (!link_is_empty(&resolver->ready)) return 0;
    uint64_t next_ms = resolver->asking > 0 ? resolver->ares_deadline_ms : UINT64_MAX;
    if (!link_is_empty(&resolver->waiting)) {
        const struct waiter *oldest = link_owner(resolver->waiting.next, struct waiter, age);
        if (oldest->deadline_ms < next_ms) next_ms = oldest->deadline_ms;
    }
    if (next_ms == UINT64_MAX) return UINT64_MAX;
    return next_ms > now_ms ? next_ms - now_ms : 0;
}

uint64_t resolve_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* c-ares reads a clock of its own; its remaining time is rounded up, so that we do not come a moment too early. */
static void process_timeouts(struct resolver *resolver, uint64_t now_ms)
{
    struct timeval left;
    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    resolver->ares_deadline_ms = UINT64_MAX;
    if (ares_timeout(resolver->channel, NULL, &left) == NULL) return;
    resolver->ares_deadline_ms = now_ms + (uint64_t)left.tv_sec * 1000 + (uint64_t)left.tv_usec / 1000 + 1;
}

void resolve_on_time(struct resolver *resolver, uint64_t now_ms)
{
    if (!resolver->closing && resolver->asking > 0 && now_ms >= resolver->ares_deadline_ms)
        process_timeouts(resolver, now_ms);
    expire_waiters(resolver, now_ms);
    deliver(resolver);
}

int resolve_check_nameservers(const char *nameservers)
{
    struct servers servers;
    return servers_parse(nameservers, &servers);
}

/* ares_set_servers() of 1.18 refuses while queries are open: so the channel is exchanged. The questions that the old
 * one gives up with ARES_EDESTRUCTION are put to the new one; their waiters' deadlines stay. */
int resolve_set_nameservers(struct resolver *resolver, const char *nameservers)
{
    struct servers servers;
    ares_channel fresh;
    int error = servers_parse(nameservers, &servers);
    if (error == 0) error = channel_open(resolver, &servers, &fresh);
    if (error != 0) return error;
    ares_destroy(resolver->channel);
    resolver->channel = fresh;
    cache_clear(&resolver->cache);
    counter_set(&resolver->stats.cached, 0);
    while (!link_is_empty(&resolver->restarts)) {
        struct cache_entry *entry = link_owner(resolver->restarts.next, struct cache_entry, order);
        link_remove(&entry->order);
        question_ask(resolver, question_of(entry));
    }
    return 0;
}

const struct resolve_stats *resolve_get_stats(const struct resolver *resolver)
{
    return &resolver->stats;
}
