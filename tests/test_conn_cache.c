/* On the simulated kernel: which idle upstream connection a request gets, and when one leaves. Requests are played here
 * by what the cache looks at of them: a session with its target, its verdict and its connection. */
#include "tests/sim_bench.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/session/conn_cache.h"

static struct sim_bench bench;
static struct worker *const w = &bench.worker;

static void begin(uint32_t conns)
{
    sim_bench_prepare(&bench);
    bench.config.conn_cache = true;
    bench.config.conns = conns;
    sim_bench_open(&bench, 1);
}

/* --- requests --- */

/* What does not belong to an address of that kind is whatever was there before. */
static void set_address(struct address *to, const char *host, uint16_t port)
{
    static uint8_t before = 0x11;
    struct address fresh;
    assert_true(address_from_host(host, strlen(host), port, &fresh));
    memset(to, before += 0x11, sizeof *to);
    to->kind = fresh.kind;
    to->name_size = fresh.name_size;
    to->port = fresh.port;
    size_t size = fresh.kind == ADDRESS_IPV4 ? 4 : fresh.kind == ADDRESS_IPV6 ? 16 : fresh.name_size + 1u;
    memcpy(to->ipv6, fresh.ipv6, size);
}

/* A plain request for origin.test, rewritten to 10.1.1.1 behind a chain of two proxies. */
static struct session *request_begin(void)
{
    struct session *s = session_take(w, 1, -1, 60000);
    struct setup *setup = setup_of(w, s);
    struct proxy_uri *hops = setup->route.hops;
    s->protocol = PROTOCOL_HTTP_PLAIN;
    s->rule = 7;
    s->passed = 5;
    s->depth = 2;
    setup->repeatable = true;
    setup->credentials = (struct credentials){.present = true, .user = "ada", .password = "secret"};
    setup->egress = (struct egress){.way = {.bound = true, .marked = true, .mark = 5, .device = "eth1"}};
    setup->egress.way.sources[EGRESS_IPV4] = (struct host_port){.kind = ADDRESS_IPV4, .octets = {192, 0, 2, 7}};
    set_address(&setup->target, "origin.test", 80);
    setup->route.verdict = (struct route_verdict){.order = ROUTE_DIAL, .hop_count = 2, .hops = hops};
    set_address(&setup->route.verdict.target, "10.1.1.1", 8080);
    for (unsigned i = 0; i < 2; i++) {
        hops[i] = (struct proxy_uri){.scheme = PROXY_SOCKS5};
        set_address(&hops[i].address, i == 0 ? "10.2.2.2" : "10.3.3.3", 1080);
    }
    return s;
}

/* The end of a request, and of its connection if it still has one. */
static void request_end(struct session *s)
{
    conn_cache_forget_client(w, s);
    if (s->fd[UPSTREAM] >= 0) ring_close(w->ring, s->fd[UPSTREAM]);
    pool_give(&w->setups, s->setup);
    pool_give(&w->sessions, s->slot);
}

/* An upstream connection: the proxy's descriptor and the far end. */
struct upstream {
    int fd;
    struct sim_conn *far;
};
static const struct upstream nobody = {-1, NULL};

/* Its verdict is obeyed now: it is connected to an upstream of its own. */
static struct upstream dial(struct session *s)
{
    struct upstream up;
    uint8_t *order = &setup_of(w, s)->route.verdict.order, verdict = *order;
    assert_true(s->fd[UPSTREAM] < 0);
    *order = ROUTE_TRY; /* takes none of before */
    assert_false(conn_cache_take(w, s));
    *order = verdict;
    s->fd[UPSTREAM] = up.fd = sim_lend(&up.far, 4096, 4096);
    assert_true(up.fd >= 0);
    return up;
}

static void hang_up(struct session *s)
{
    ring_close(w->ring, s->fd[UPSTREAM]);
    s->fd[UPSTREAM] = -1;
    s->note = OWN_NO_NOTE;
}

/* Connects, and lets the connection wait for the next request. */
static struct upstream keep(struct session *s)
{
    struct upstream up = dial(s);
    assert_true(conn_cache_keep(w, s));
    assert_int_equal(s->fd[UPSTREAM], -1);
    assert_int_equal(s->note, OWN_NO_NOTE);
    return up;
}

/* Whether what it takes is that connection, which then is closed. */
static bool takes(struct session *s, struct upstream up)
{
    uint64_t reused = counter_read(&w->stats.conns_reused);
    if (!conn_cache_take(w, s)) return up.fd < 0;
    assert_true(s->reused);
    assert_int_equal(counter_read(&w->stats.conns_reused), reused + 1);
    bool is = s->fd[UPSTREAM] == up.fd;
    hang_up(s);
    return is;
}

static uint64_t idle(void)
{
    return counter_read(&w->stats.conns_idle);
}

static uint64_t evicted(void)
{
    return counter_read(&w->stats.conns_evicted);
}

/* The far end is told of an orderly end. */
static bool is_closed(struct sim_conn *far)
{
    char octet;
    return sim_read(far, &octet, 1) == 0;
}

/* --- keys --- */

#define SETUP   struct setup *setup = setup_of(w, s)
#define VERDICT struct route_verdict *verdict = &setup_of(w, s)->route.verdict
#define HOPS    struct proxy_uri *hops = setup_of(w, s)->route.hops

static void other_asked_host(struct session *s)
{
    SETUP;
    set_address(&setup->target, "origin.tess", 80);
}
static void other_asked_port(struct session *s)
{
    SETUP;
    setup->target.port++;
}
static void other_host(struct session *s)
{
    VERDICT;
    verdict->target.ipv4[3]++;
}
static void other_port(struct session *s)
{
    VERDICT;
    verdict->target.port++;
}
static void other_user(struct session *s)
{
    SETUP;
    setup->credentials.user[2] = 'b';
}
static void other_password(struct session *s)
{
    SETUP;
    setup->credentials.password[5] = 'b';
}
static void no_user(struct session *s)
{
    SETUP;
    setup->credentials.present = false;
}
static void user_without_password(struct session *s)
{
    SETUP;
    setup->credentials.user_only = true;
}
static void other_rule(struct session *s)
{
    s->rule++;
}
static void other_passed(struct session *s)
{
    s->passed ^= 1;
}
static void other_depth(struct session *s)
{
    s->depth++;
}
static void other_listener(struct session *s)
{
    s->listener--;
}
static void shorter_chain(struct session *s)
{
    VERDICT;
    verdict->hop_count = 1;
}
static void no_chain(struct session *s)
{
    VERDICT;
    verdict->hop_count = 0;
}
static void longer_chain(struct session *s)
{
    VERDICT;
    HOPS;
    hops[2] = hops[1];
    verdict->hop_count = 3;
}
static void other_hop(struct session *s)
{
    HOPS;
    hops[0].address.ipv4[0]++;
}
static void other_last_hop(struct session *s)
{
    HOPS;
    hops[1].address.port++;
}
static void other_hop_scheme(struct session *s)
{
    HOPS;
    hops[1].scheme = PROXY_HTTP;
}
static void other_hop_user(struct session *s)
{
    HOPS;
    hops[1].credentials = (struct credentials){.present = true, .user = "x"};
}
static void other_order_of_hops(struct session *s)
{
    HOPS;
    struct proxy_uri first = hops[0];
    hops[0] = hops[1];
    hops[1] = first;
}

#define WAY struct egress_way *way = &setup_of(w, s)->egress.way

static void other_source(struct session *s)
{
    WAY;
    way->sources[EGRESS_IPV4].octets[3]++;
}
static void other_source_of_the_other_family(struct session *s)
{
    WAY;
    way->sources[EGRESS_IPV6].kind = ADDRESS_IPV6;
}
static void any_source(struct session *s)
{
    WAY;
    way->bound = false;
}
static void other_mark(struct session *s)
{
    WAY;
    way->mark++;
}
static void no_mark(struct session *s)
{
    WAY;
    way->marked = false;
}
static void other_device(struct session *s)
{
    WAY;
    way->device[3] = '2';
}

/* These are no part of the key, but takers that may not take. */
static void other_protocol(struct session *s)
{
    s->protocol = PROTOCOL_HTTP_CONNECT;
}
static void only_once(struct session *s)
{
    SETUP;
    setup->repeatable = false;
}
static void a_try(struct session *s)
{
    VERDICT;
    verdict->order = ROUTE_TRY;
}

static void (*const changes[])(struct session *) = {
    other_asked_host,
    other_asked_port,
    other_host,
    other_port,
    other_user,
    other_password,
    no_user,
    user_without_password,
    other_rule,
    other_passed,
    other_depth,
    other_listener,
    shorter_chain,
    no_chain,
    longer_chain,
    other_hop,
    other_last_hop,
    other_hop_scheme,
    other_hop_user,
    other_order_of_hops,
    other_source,
    other_mark,
    no_mark,
    other_device,
    any_source,
    other_source_of_the_other_family,
    other_protocol,
    only_once,
    a_try,
};

static void test_whoever_differs_takes_nothing(void **state)
{
    (void)state;
    begin(8);
    struct session *giver = request_begin();
    struct upstream up = keep(giver);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct session *s = request_begin();
        changes[i](s);
        assert_false(conn_cache_take(w, s));
        assert_false(s->reused);
        request_end(s);
    }
    assert_int_equal(counter_read(&w->stats.conns_reused), 0);
    assert_int_equal(idle(), 1);
    struct session *same = request_begin();
    assert_true(takes(same, up));
    assert_int_equal(counter_read(&w->stats.conns_reused), 1);
    assert_int_equal(counter_read(&w->stats.conns_stale), 0);
    assert_int_equal(idle(), 0);
    request_end(same);
    request_end(giver);
    sim_bench_close(&bench);
}

/* Who is to have another address for each connection leaves none to anybody. */
static void test_a_new_address_for_each(void **state)
{
    (void)state;
    begin(8);
    struct session *s = request_begin();
    setup_of(w, s)->egress.pool = (struct egress_sources){.given = true, .by = EGRESS_BY_RANDOM};
    dial(s);
    assert_false(conn_cache_keep(w, s));
    setup_of(w, s)->egress.way.bound = false;
    assert_true(conn_cache_keep(w, s));
    conn_cache_clear(w);
    request_end(s);
    sim_bench_close(&bench);
}

/* Each of them is what another one may be kept by. */
static void test_each_has_its_own(void **state)
{
    enum { COUNT = sizeof changes / sizeof *changes - 3 };
    struct upstream ups[COUNT];
    (void)state;
    begin(COUNT);
    for (unsigned i = 0; i < 2 * COUNT; i++) {
        struct session *s = request_begin();
        changes[i % COUNT](s);
        if (i < COUNT)
            ups[i] = keep(s);
        else
            assert_true(takes(s, ups[i - COUNT]));
        request_end(s);
    }
    assert_int_equal(evicted(), 0);
    assert_int_equal(idle(), 0);
    sim_bench_close(&bench);
}

/* A target of each kind is found again, wherever its octets stand; a name in whatever case. */
static void test_kinds_of_targets(void **state)
{
    static const char *const hosts[][2] = {
        {"10.9.8.7", "10.9.8.7"}, {"2001:db8::7", "2001:db8::7"}, {"Far.Test", "fAR.tEST"}, {"x", "X"}};
    (void)state;
    begin(8);
    for (unsigned i = 0; i < 100; i++) { /* what stands behind the address differs each time */
        struct session *giver = request_begin(), *taker = request_begin();
        set_address(&setup_of(w, giver)->route.verdict.target, hosts[i % 4][0], 80);
        set_address(&setup_of(w, taker)->route.verdict.target, hosts[i % 4][1], 80);
        struct upstream up = keep(giver);
        assert_true(takes(taker, up));
        request_end(giver);
        request_end(taker);
        sim_bench_turn(&bench, 1);
    }
    sim_bench_close(&bench);
}

static void test_latest_first(void **state)
{
    struct upstream ups[3];
    (void)state;
    begin(8);
    struct session *s = request_begin();
    for (unsigned i = 0; i < 3; i++) ups[i] = keep(s);
    for (unsigned i = 3; i-- > 0;) assert_true(takes(s, ups[i]));
    assert_true(takes(s, nobody));
    request_end(s);
    sim_bench_close(&bench);
}

/* --- how many, how long --- */

static void test_room(void **state)
{
    struct upstream ups[4];
    (void)state;
    begin(3);
    struct session *s = request_begin();
    for (unsigned i = 0; i < 4; i++) {
        setup_of(w, s)->target.port = (uint16_t)(80 + i);
        ups[i] = keep(s);
        assert_int_equal(idle(), i < 3 ? i + 1 : 3);
        assert_int_equal(evicted(), i < 3 ? 0 : 1);
        sim_bench_turn(&bench, 1);
    }
    assert_true(is_closed(ups[0].far));
    setup_of(w, s)->target.port = 80;
    assert_true(takes(s, nobody));
    for (unsigned i = 1; i < 4; i++) {
        setup_of(w, s)->target.port = (uint16_t)(80 + i);
        assert_true(takes(s, ups[i]));
    }
    request_end(s);
    sim_bench_close(&bench);
}

/* What waits for its own client is not counted, nor does it leave for others with its key. */
static void test_room_of_an_origin(void **state)
{
    struct upstream ups[CONN_CACHE_ORIGIN_MAX + 1];
    (void)state;
    begin(64);
    struct session *other = request_begin(), *owner = request_begin(), *s = request_begin();
    other_port(other);
    struct upstream oldest = keep(other);
    owner->exclusive = true;
    struct upstream owned = keep(owner);
    for (unsigned i = 0; i <= CONN_CACHE_ORIGIN_MAX; i++) {
        assert_int_equal(evicted(), 0);
        assert_int_equal(idle(), 2 + i);
        ups[i] = keep(s);
        sim_bench_turn(&bench, 1);
    }
    assert_int_equal(evicted(), 1);
    assert_int_equal(idle(), 2 + CONN_CACHE_ORIGIN_MAX);
    assert_true(is_closed(ups[0].far));
    struct session *another = request_begin();
    another->exclusive = true; /* needs no place among them */
    keep(another);
    assert_int_equal(evicted(), 1);
    request_end(another);
    for (unsigned i = CONN_CACHE_ORIGIN_MAX; i > 0; i--) assert_true(takes(s, ups[i]));
    assert_true(takes(s, nobody));
    assert_true(takes(other, oldest));
    assert_true(takes(owner, owned));
    request_end(other);
    request_end(owner);
    request_end(s);
    sim_bench_close(&bench);
}

/* The slot of one that was taken is free when its poll has come back, and not before. */
static void test_slots_of_those_that_were_taken(void **state)
{
    (void)state;
    begin(1);
    struct session *s = request_begin();
    assert_true(conn_cache_is_quiet(w));
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 2; i++) assert_true(takes(s, keep(s)));
        dial(s);
        assert_false(conn_cache_keep(w, s));
        assert_true(s->fd[UPSTREAM] >= 0);
        hang_up(s);
        assert_false(conn_cache_is_quiet(w));
        for (unsigned i = 0; i < 3; i++) sim_bench_turn(&bench, 1);
        assert_true(conn_cache_is_quiet(w));
    }
    request_end(s);
    sim_bench_close(&bench);
}

static void test_idle_ends(void **state)
{
    (void)state;
    begin(8);
    struct session *s = request_begin();
    assert_true(conn_cache_wait_ms(w) == UINT64_MAX);
    struct upstream first = keep(s);
    assert_int_equal(conn_cache_wait_ms(w), CONN_CACHE_IDLE_MS);
    sim_bench_pass(&bench, 6000);
    other_port(s);
    struct upstream second = keep(s);
    assert_true(conn_cache_wait_ms(w) <= CONN_CACHE_IDLE_MS - 6000);
    sim_bench_pass(&bench, CONN_CACHE_IDLE_MS - 6000 - 20);
    assert_int_equal(idle(), 2);
    sim_bench_pass(&bench, 30);
    assert_int_equal(idle(), 1);
    assert_true(is_closed(first.far));
    assert_false(is_closed(second.far));
    sim_bench_pass(&bench, 6000 - 50);
    assert_int_equal(idle(), 1);
    sim_bench_pass(&bench, 50);
    assert_int_equal(idle(), 0);
    assert_true(is_closed(second.far));
    assert_int_equal(evicted(), 0); /* nobody wanted its place */
    request_end(s);
    sim_bench_close(&bench);
}

static void test_cleared(void **state)
{
    struct upstream ups[2];
    (void)state;
    begin(8);
    struct session *s = request_begin();
    assert_false(conn_cache_clear(w));
    for (unsigned i = 0; i < 2; i++) ups[i] = keep(s);
    assert_true(conn_cache_clear(w));
    assert_false(conn_cache_clear(w));
    assert_int_equal(evicted(), 2);
    assert_int_equal(idle(), 0);
    assert_true(takes(s, nobody));
    sim_bench_turn(&bench, 1);
    for (unsigned i = 0; i < 2; i++) assert_true(is_closed(ups[i].far));
    request_end(s);
    sim_bench_close(&bench);
}

/* --- what has changed since --- */

static void bump_ruleset(void)
{
    atomic_fetch_add(&bench.revision, 1);
}
static void bump_resolver(void)
{
    counter_add(&bench.resolver.revision, 1);
}
static void begin_era(void)
{
    conn_cache_begin_era(w);
}

static void test_eras(void **state)
{
    static void (*const bumps[])(void) = {bump_ruleset, bump_resolver, begin_era};
    (void)state;
    begin(8);
    struct session *s = request_begin();
    for (unsigned i = 0; i < 3; i++) {
        keep(s);
        bumps[i]();
        assert_true(takes(s, nobody));
        assert_int_equal(evicted(), 2 * i + 1);
        struct upstream up = keep(s); /* which is of this era */
        assert_true(takes(s, up));
        up = keep(s);
        bumps[i]();
        sim_bench_turn(&bench, 1); /* nobody asks, and it leaves all the same */
        assert_int_equal(idle(), 0);
        assert_int_equal(evicted(), 2 * i + 2);
        sim_bench_turn(&bench, 1);
        assert_true(is_closed(up.far));
    }
    request_end(s);
    sim_bench_close(&bench);
}

/* Connected in the era before, and answered in this one. */
static void test_era_that_ends_meanwhile(void **state)
{
    static void (*const bumps[])(void) = {bump_ruleset, bump_resolver, begin_era};
    (void)state;
    begin(8);
    struct session *s = request_begin();
    for (unsigned i = 0; i < 3; i++) {
        dial(s);
        bumps[i]();
        assert_false(conn_cache_keep(w, s));
        assert_true(s->fd[UPSTREAM] >= 0);
        hang_up(s);
    }
    assert_int_equal(idle(), 0);
    request_end(s);
    sim_bench_close(&bench);
}

static void test_switched_off(void **state)
{
    (void)state;
    begin(8);
    struct session *s = request_begin();
    struct upstream up = keep(s);
    bench.config.conn_cache = false; /* as a reload would, but for the era that it begins */
    assert_false(conn_cache_take(w, s));
    dial(s);
    assert_false(conn_cache_keep(w, s));
    bench.config.conn_cache = true;
    w->draining = true;
    assert_false(conn_cache_keep(w, s));
    w->draining = false;
    assert_true(conn_cache_keep(w, s));
    assert_int_equal(idle(), 2);
    conn_cache_clear(w);
    (void)up;
    request_end(s);
    sim_bench_close(&bench);
}

static void test_no_room_at_all(void **state)
{
    struct conn_cache *none = (struct conn_cache *)(void *)state;
    (void)state;
    assert_int_equal(conn_cache_open(&none, 0), 0);
    assert_null(none);
    conn_cache_close(none);
    begin(0);
    assert_null(w->conns);
    struct session *s = request_begin();
    dial(s);
    assert_false(conn_cache_keep(w, s));
    hang_up(s);
    assert_true(takes(s, nobody));
    assert_false(conn_cache_clear(w));
    conn_cache_begin_era(w);
    conn_cache_tend(w);
    assert_true(conn_cache_is_quiet(w));
    assert_true(conn_cache_wait_ms(w) == UINT64_MAX);
    request_end(s);
    sim_bench_close(&bench);
}

/* --- what upstreams do --- */

/* Its end is there before its poll has told it. */
static void test_stale_ones_are_passed_over(void **state)
{
    struct upstream ups[4];
    (void)state;
    begin(8);
    struct session *s = request_begin();
    for (unsigned i = 0; i < 4; i++) ups[i] = keep(s);
    sim_end(ups[3].far);
    assert_int_equal(sim_write(ups[2].far, "!", 1), 1);
    sim_reset(ups[0].far, ECONNRESET);
    assert_true(takes(s, ups[1]));
    assert_int_equal(counter_read(&w->stats.conns_stale), 2);
    assert_true(takes(s, nobody));
    assert_int_equal(counter_read(&w->stats.conns_stale), 3);
    assert_int_equal(idle(), 0);
    assert_int_equal(evicted(), 0);
    request_end(s);
    sim_bench_close(&bench);
}

static void test_whatever_arrives_ends_it(void **state)
{
    struct upstream ups[4];
    (void)state;
    begin(8);
    struct session *s = request_begin();
    for (unsigned i = 0; i < 4; i++) ups[i] = keep(s);
    sim_get_chances()->spurious = 1000;
    for (unsigned i = 0; i < 10; i++) sim_bench_turn(&bench, 1); /* woken for nothing */
    sim_get_chances()->spurious = 0;
    assert_int_equal(idle(), 4);
    sim_end(ups[0].far);
    assert_int_equal(sim_write(ups[2].far, "!", 1), 1);
    sim_reset(ups[3].far, ECONNRESET);
    sim_bench_pass(&bench, 10);
    assert_int_equal(idle(), 1);
    assert_true(takes(s, ups[1]));
    assert_int_equal(counter_read(&w->stats.conns_stale) + evicted(), 0);
    request_end(s);
    sim_bench_close(&bench);
}

/* The note of where it may come back to goes with it, and is forgotten when it is closed. */
static void test_note_of_our_own(void **state)
{
    struct address from, to;
    struct own_trail trail;
    bool elsewhere;
    (void)state;
    begin(8);
    set_address(&from, "10.5.5.5", 5555);
    set_address(&to, "10.6.6.6", 6666);
    struct session *s = request_begin();
    dial(s);
    uint32_t note = own_note(w->own, &from, &to, (struct own_trail){1, 1}, ring_now_ms(w->ring));
    s->note = note;
    assert_true(conn_cache_keep(w, s));
    assert_int_equal(s->note, OWN_NO_NOTE);
    assert_true(conn_cache_take(w, s));
    assert_int_equal(s->note, note);
    assert_true(own_find(w->own, &from, &to, ring_now_ms(w->ring), &trail, &elsewhere));
    assert_true(conn_cache_keep(w, s));
    conn_cache_clear(w);
    assert_false(own_find(w->own, &from, &to, ring_now_ms(w->ring), &trail, &elsewhere));
    request_end(s);
    sim_bench_close(&bench);
}

/* --- connections that are authenticated --- */

static struct session *owner_begin(void)
{
    struct session *s = request_begin();
    s->exclusive = true;
    return s;
}

static void test_own_client_alone(void **state)
{
    (void)state;
    begin(8);
    struct session *s = owner_begin(), *other = request_begin();
    struct upstream shared = keep(other), up = keep(s);
    assert_int_not_equal(s->conn, POOL_NONE);
    assert_true(takes(other, shared));
    assert_true(takes(other, nobody));
    other_port(s);
    assert_true(takes(s, nobody));
    setup_of(w, s)->route.verdict.target.port--;
    s->exclusive = false;               /* as it is at the begin of a request */
    setup_of(w, s)->repeatable = false; /* any request may go there */
    assert_true(takes(s, up));
    assert_true(s->exclusive);
    assert_int_equal(s->conn, POOL_NONE);
    request_end(other);
    request_end(s);
    sim_bench_close(&bench);
}

/* One that anybody may have makes nobody its owner. */
static void test_shared_one_is_not_exclusive(void **state)
{
    (void)state;
    begin(8);
    struct session *s = request_begin();
    struct upstream up = keep(s);
    assert_int_equal(s->conn, POOL_NONE);
    s->exclusive = true;
    assert_true(takes(s, up));
    assert_false(s->exclusive);
    request_end(s);
    sim_bench_close(&bench);
}

static void test_one_for_each_owner(void **state)
{
    (void)state;
    begin(8);
    struct session *s = owner_begin();
    struct upstream first = keep(s);
    other_port(s);
    struct upstream second = keep(s);
    assert_int_equal(evicted(), 1);
    assert_int_equal(idle(), 1);
    sim_bench_turn(&bench, 1);
    assert_true(is_closed(first.far));
    assert_true(takes(s, second));
    request_end(s);
    sim_bench_close(&bench);
}

static void test_owner_that_leaves(void **state)
{
    (void)state;
    begin(8);
    struct session *s = owner_begin();
    struct upstream up = keep(s);
    conn_cache_forget_client(w, s);
    assert_int_equal(s->conn, POOL_NONE);
    assert_int_equal(idle(), 0);
    assert_int_equal(evicted(), 1);
    conn_cache_forget_client(w, s); /* it has none */
    assert_int_equal(evicted(), 1);
    sim_bench_turn(&bench, 1);
    assert_true(is_closed(up.far));
    up = keep(s);
    sim_end(up.far);
    sim_bench_pass(&bench, 10);
    assert_int_equal(s->conn, POOL_NONE);
    request_end(s);
    sim_bench_close(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whoever_differs_takes_nothing),
        cmocka_unit_test(test_each_has_its_own),
        cmocka_unit_test(test_a_new_address_for_each),
        cmocka_unit_test(test_kinds_of_targets),
        cmocka_unit_test(test_latest_first),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_room_of_an_origin),
        cmocka_unit_test(test_slots_of_those_that_were_taken),
        cmocka_unit_test(test_idle_ends),
        cmocka_unit_test(test_cleared),
        cmocka_unit_test(test_eras),
        cmocka_unit_test(test_era_that_ends_meanwhile),
        cmocka_unit_test(test_switched_off),
        cmocka_unit_test(test_no_room_at_all),
        cmocka_unit_test(test_stale_ones_are_passed_over),
        cmocka_unit_test(test_whatever_arrives_ends_it),
        cmocka_unit_test(test_note_of_our_own),
        cmocka_unit_test(test_own_client_alone),
        cmocka_unit_test(test_shared_one_is_not_exclusive),
        cmocka_unit_test(test_one_for_each_owner),
        cmocka_unit_test(test_owner_that_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
