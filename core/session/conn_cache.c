#include "core/session/conn_cache.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/hash.h"
#include "core/io/net.h"
#include "core/session/own.h"
#include "core/session/session.h"
#include "core/session/worker.h"

#define CONN_CHAINS 256u /* of the hash table, a power of two: one for each connection of a full cache */

static_assert((CONN_CHAINS & (CONN_CHAINS - 1)) == 0, "the hash is masked");

/* Everything that has decided what the connection is. */
struct conn_key {
    struct address asked, dialled;
    struct credentials credentials; /* the client's */
    uint32_t rule;
    uint32_t passed; /* see self.h: whoever is at the other end has asked once what its client has passed */
    uint8_t depth;
    uint8_t listener;
    uint8_t hop_count;
    struct egress_way way; /* by which it leaves */
    struct proxy_uri hops[ROUTE_HOPS_MAX];
};

/* A slot is free, waits (`fd` is there), or has given its connection away and waits for the completion of its poll. */
struct conn {
    struct link by_age; /* the one that has waited longest is the first */
    struct link chain;  /* of those with the same hash, the latest first */
    int fd;
    uint32_t owner; /* slot of the only session that may take it; POOL_NONE: any may */
    uint32_t note;  /* see own.h */
    uint64_t until_ms;
    struct conn_key key;
};

struct conn_cache {
    struct pool conns; /* twice as many as may wait: those that were taken in this turn have their slots still */
    uint32_t most, idle;
    uint32_t era;
    uint32_t ruleset, resolver; /* revisions that are in force in this era */
    struct link by_age;
    struct link chains[CONN_CHAINS];
};

int conn_cache_open(struct conn_cache **out, uint32_t count)
{
    *out = NULL;
    if (count == 0) return 0;
    struct conn_cache *cache = calloc(1, sizeof *cache);
    if (!cache) return -ENOMEM;
    int error = pool_open(&cache->conns, 2 * count, sizeof(struct conn));
    if (error < 0) {
        free(cache);
        return error;
    }
    cache->most = count;
    link_init(&cache->by_age);
    for (uint32_t i = 0; i < CONN_CHAINS; i++) link_init(&cache->chains[i]);
    *out = cache;
    return 0;
}

void conn_cache_close(struct conn_cache *cache)
{
    if (!cache) return;
    assert(cache->conns.used == 0);
    pool_close(&cache->conns);
    free(cache);
}

static struct ring_tag conn_tag(const struct conn_cache *cache, const struct conn *conn)
{
    uint32_t slot = pool_slot_of(&cache->conns, conn);
    return (struct ring_tag){.op = WORKER_OP_CONN, .generation = pool_generation(&cache->conns, slot), .slot = slot};
}

/* --- keys --- */

/* Clients that collide on purpose share a chain of as many as may wait. */
static struct link *conn_chain(struct conn_cache *cache, const struct address *to)
{
    uint64_t hash = hash_plain(HASH_START, &to->port, sizeof to->port);
    bool named = to->kind == ADDRESS_NAME || to->kind == ADDRESS_UNIX;
    size_t size = named ? to->name_size : to->kind == ADDRESS_IPV4 ? 4 : 16;
    hash = hash_plain_lower(hash, to->ipv6, size); /* which stands where the name does */
    return &cache->chains[hash_fold(hash) & (CONN_CHAINS - 1)];
}

static void conn_key_write(struct conn_key *key, const struct session *s, const struct setup *setup)
{
    const struct route_verdict *verdict = &setup->route.verdict;
    key->asked = setup->target;
    key->dialled = verdict->target;
    key->credentials = setup->credentials;
    key->rule = s->rule;
    key->passed = s->passed;
    key->depth = s->depth;
    key->listener = s->listener;
    key->hop_count = verdict->hop_count;
    key->way = setup->egress.way;
    if (verdict->hop_count > 0) memcpy(key->hops, verdict->hops, verdict->hop_count * sizeof *key->hops);
}

static bool conn_key_is(const struct conn_key *key, const struct session *s, const struct setup *setup)
{
    const struct route_verdict *verdict = &setup->route.verdict;
    if (!address_equal(&key->dialled, &verdict->target) || !address_equal(&key->asked, &setup->target)) return false;
    if (key->rule != s->rule || key->passed != s->passed || key->depth != s->depth) return false;
    if (key->listener != s->listener || key->hop_count != verdict->hop_count) return false;
    if (!egress_way_equal(&key->way, &setup->egress.way)) return false;
    if (!credentials_equal(&key->credentials, &setup->credentials)) return false;
    for (unsigned i = 0; i < key->hop_count; i++)
        if (!proxy_uri_equal(&key->hops[i], &verdict->hops[i])) return false;
    return true;
}

/* --- leaving --- */

/* It waits no longer, whatever becomes of its descriptor. */
static void conn_remove(struct worker *w, struct conn *conn)
{
    link_remove(&conn->by_age);
    link_remove(&conn->chain);
    if (conn->owner != POOL_NONE) session_at(w, conn->owner)->conn = POOL_NONE;
    conn->owner = POOL_NONE;
    conn->fd = -1;
    w->conns->idle--;
    counter_subtract(&w->stats.conns_idle, 1);
}

/* Its poll is not in flight any more. */
static void conn_shut(struct worker *w, struct conn *conn)
{
    int fd = conn->fd;
    own_forget(w->own, conn->note);
    conn_remove(w, conn);
    ring_close(w->ring, fd);
}

static void conn_drop(struct worker *w, struct conn *conn)
{
    ring_cancel(w->ring, conn_tag(w->conns, conn));
    conn_shut(w, conn);
}

static void conn_evict(struct worker *w, struct conn *conn)
{
    counter_add(&w->stats.conns_evicted, 1);
    conn_drop(w, conn);
}

static struct conn *conn_oldest(const struct conn_cache *cache)
{
    return link_is_empty(&cache->by_age) ? NULL : link_owner(cache->by_age.next, struct conn, by_age);
}

bool conn_cache_clear(struct worker *w)
{
    if (!w->conns || w->conns->idle == 0) return false;
    for (struct conn *conn; (conn = conn_oldest(w->conns)) != NULL;) conn_evict(w, conn);
    return true;
}

void conn_cache_begin_era(struct worker *w)
{
    if (!w->conns) return;
    w->conns->era++;
    conn_cache_clear(w);
}

void conn_cache_forget_client(struct worker *w, struct session *s)
{
    if (s->conn != POOL_NONE) conn_evict(w, pool_at(&w->conns->conns, s->conn));
}

/* Verdicts and addresses from before hold no longer. */
static void conn_cache_heed_revisions(struct worker *w)
{
    struct conn_cache *cache = w->conns;
    uint32_t ruleset = atomic_load_explicit(w->revision, memory_order_acquire);
    uint32_t resolver = (uint32_t)counter_read(&w->resolver_stats->revision);
    if (ruleset == cache->ruleset && resolver == cache->resolver) return;
    cache->ruleset = ruleset;
    cache->resolver = resolver;
    conn_cache_begin_era(w);
}

/* --- taking --- */

/* The one that is kept for this client alone, else one that anybody may have. */
static struct conn *conn_find(const struct worker *w, const struct session *s)
{
    const struct setup *setup = setup_of(w, s);
    struct conn_cache *cache = w->conns;
    if (s->conn != POOL_NONE) {
        struct conn *own = pool_at(&cache->conns, s->conn);
        if (conn_key_is(&own->key, s, setup)) return own;
    }
    if (!setup->repeatable) return NULL;
    const struct link *chain = conn_chain(cache, &setup->route.verdict.target);
    for (struct link *at = chain->next; at != chain; at = at->next) {
        struct conn *conn = link_owner(at, struct conn, chain);
        if (conn->owner == POOL_NONE && conn_key_is(&conn->key, s, setup)) return conn;
    }
    return NULL;
}

static void conn_hand_over(struct worker *w, struct conn *conn, struct session *s)
{
    assert(s->fd[UPSTREAM] < 0 && s->note == OWN_NO_NOTE);
    s->fd[UPSTREAM] = conn->fd;
    s->note = conn->note;
    s->exclusive = conn->owner != POOL_NONE;
    s->reused = true;
    ring_cancel(w->ring, conn_tag(w->conns, conn));
    conn_remove(w, conn);
}

/* A try wants to know whether its target can be reached, which a connection of before does not tell. */
bool conn_cache_take(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (!w->conns || s->protocol != PROTOCOL_HTTP_PLAIN) return false;
    conn_cache_heed_revisions(w);
    setup->era = w->conns->era;
    if (!w->config->conn_cache || setup->route.verdict.order != ROUTE_DIAL) return false;
    if (route_has_header(&setup->route.verdict)) return false; /* a connection that has begun so is its client's */
    for (struct conn *conn; (conn = conn_find(w, s)) != NULL;) {
        if (!net_is_readable(conn->fd)) { /* what its poll has not told yet */
            conn_hand_over(w, conn, s);
            counter_add(&w->stats.conns_reused, 1);
            return true;
        }
        counter_add(&w->stats.conns_stale, 1);
        conn_drop(w, conn);
    }
    return false;
}

/* --- keeping --- */

/* Makes room for one more of this key, and for one more at all: those that have waited longest leave. */
static void conn_make_room(struct worker *w, const struct session *s)
{
    struct conn_cache *cache = w->conns;
    const struct link *chain = conn_chain(cache, &setup_of(w, s)->route.verdict.target);
    struct conn *oldest = NULL;
    unsigned same = 0;
    for (struct link *at = chain->next; at != chain; at = at->next) {
        struct conn *conn = link_owner(at, struct conn, chain);
        if (conn->owner != POOL_NONE || !conn_key_is(&conn->key, s, setup_of(w, s))) continue;
        oldest = conn;
        same++;
    }
    if (same >= CONN_CACHE_ORIGIN_MAX && !s->exclusive) conn_evict(w, oldest);
    if (cache->idle == cache->most) conn_evict(w, conn_oldest(cache));
}

static void conn_init(struct worker *w, struct conn *conn, uint32_t slot, struct session *s)
{
    struct conn_cache *cache = w->conns;
    conn->fd = s->fd[UPSTREAM];
    conn->note = s->note;
    conn->owner = s->exclusive ? s->slot : POOL_NONE;
    conn->until_ms = ring_now_ms(w->ring) + CONN_CACHE_IDLE_MS;
    conn_key_write(&conn->key, s, setup_of(w, s));
    link_append(&cache->by_age, &conn->by_age);
    struct link *chain = conn_chain(cache, &conn->key.dialled);
    link_append(chain->next, &conn->chain); /* in front of what is the first now */
    s->fd[UPSTREAM] = -1;
    s->note = OWN_NO_NOTE;
    if (s->exclusive) s->conn = slot;
    cache->idle++;
    counter_add(&w->stats.conns_idle, 1);
}

bool conn_cache_keep(struct worker *w, struct session *s)
{
    struct conn_cache *cache = w->conns;
    if (!cache || !w->config->conn_cache || w->draining || egress_is_fresh(&setup_of(w, s)->egress)) return false;
    if (route_has_header(&setup_of(w, s)->route.verdict)) return false;
    conn_cache_heed_revisions(w);
    if (setup_of(w, s)->era != cache->era) return false;
    if (s->exclusive) conn_cache_forget_client(w, s); /* one is enough */
    uint32_t slot = pool_take(&cache->conns);
    if (slot == POOL_NONE) return false;
    conn_make_room(w, s);
    struct conn *conn = pool_at(&cache->conns, slot);
    conn_init(w, conn, slot, s);
    ring_poll(w->ring, conn->fd, POLLIN | POLLRDHUP, conn_tag(cache, conn));
    return true;
}

/* --- time and events --- */

uint64_t conn_cache_wait_ms(const struct worker *w)
{
    const struct conn *oldest = w->conns ? conn_oldest(w->conns) : NULL;
    uint64_t now = ring_now_ms(w->ring);
    if (!oldest) return UINT64_MAX;
    return oldest->until_ms > now ? oldest->until_ms - now : 0;
}

void conn_cache_tend(struct worker *w)
{
    if (!w->conns || w->conns->idle == 0) return;
    conn_cache_heed_revisions(w);
    while (conn_cache_wait_ms(w) == 0) conn_drop(w, conn_oldest(w->conns));
}

bool conn_cache_is_quiet(const struct worker *w)
{
    return !w->conns || w->conns->conns.used == 0;
}

void conn_cache_on_completion(struct worker *w, const struct ring_completion *c)
{
    struct conn_cache *cache = w->conns;
    struct conn *conn = pool_at(&cache->conns, c->tag.slot);
    assert(pool_generation(&cache->conns, c->tag.slot) == c->tag.generation);
    if (conn->fd >= 0 && c->result >= 0 && !net_is_readable(conn->fd)) { /* woken for nothing */
        ring_poll(w->ring, conn->fd, POLLIN | POLLRDHUP, c->tag);
        return;
    }
    if (conn->fd >= 0) conn_shut(w, conn);
    pool_give(&cache->conns, c->tag.slot);
}
