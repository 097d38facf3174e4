/* On the simulated kernel: which limits a session comes under, and octets before they move. The table of keys is the
 * real one; sessions are played by what limited.c looks at of them. */
#include "tests/sim_bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/io/log.h"
#include "core/session/limited.h"

#define WALL_S    INT64_C(1796000000) /* 400 s before a full hour */
#define HOUR_ENDS (401 * 1000u)       /* milliseconds until then */

static struct sim_bench bench;
static struct worker *const w = &bench.worker;

static int begin(void **state)
{
    (void)state;
    setenv("TZ", "UTC0", 1);
    sim_bench_prepare(&bench);
    bench.config.listeners[0].text = "socks:1080";
    sim_bench_forward(&bench, &bench.config.listeners[0].forward);
    bench.config.listeners[1].text = "socks:1081";
    sim_bench_open(&bench, 1);
    return keys_open(&w->keys, 64, sim_now_us(), WALL_S);
}

static void leave(struct session *s)
{
    limited_leave(w, s);
    assert_int_equal(s->limit_count, 0);
    pool_give(&w->setups, s->setup);
    pool_give(&w->sessions, s->slot);
}

static int finish(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < w->sessions.count; i++) /* of a test that has failed */
        if (pool_is_taken(&w->sessions, i)) leave(session_at(w, i));
    sim_bench_close(&bench);
    keys_close(w->keys);
    return 0;
}

/* --- limits --- */

static void put(const char *text)
{
    struct limit_key key;
    struct limit_terms terms;
    assert_null(limit_parse(text, strlen(text), &key, &terms));
    assert_int_equal(keys_put(w->keys, &key, &terms, sim_now_us()), KEYS_CHANGED);
}

/* A name that a ruleset gives: its handle. */
static uint64_t name(const char *text)
{
    struct limit_key key;
    struct limit_terms terms;
    uint64_t handle;
    assert_null(limit_parse(text, strlen(text), &key, &terms));
    assert_int_not_equal(keys_name(w->keys, &key, &terms, sim_now_us(), &handle), KEYS_NO_ROOM);
    return handle;
}

static struct limit_key key_of(const char *text)
{
    struct limit_key key;
    assert_null(limit_key_parse(text, strlen(text), &key));
    return key;
}

static struct keys_row row_of(const char *text)
{
    struct limit_key key = key_of(text);
    struct keys_row row = {0};
    assert_true(keys_find(w->keys, &key, sim_now_us(), &row));
    return row;
}

/* Octets that wait for the line of their key, none of which move. */
static uint32_t unsettled(const char *text)
{
    struct limit_key key = key_of(text);
    uint32_t held, count = 0;
    assert_int_equal(keys_hold(w->keys, &key, false, sim_now_us(), &held), KEYS_FOUND);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        count += (uint32_t)atomic_load(&keys_at(w->keys, held)->quota[d].unsettled);
    keys_release(w->keys, held);
    return count;
}

/* --- sessions --- */

static struct host_port client_of(const char *host)
{
    struct address address;
    assert_true(address_from_host(host, strlen(host), 4000, &address));
    return host_port_of(&address);
}

/* A request of ada from there for origin.test, through the first listener. */
static struct session *guest_from(const char *host)
{
    struct session *s = session_take(w, 0, -1, 60000);
    struct setup *setup = setup_of(w, s);
    s->client = client_of(host);
    s->protocol = PROTOCOL_SOCKS5;
    setup->credentials = (struct credentials){.present = true, .user = "ada"};
    assert_true(address_from_host("origin.test", 11, 443, &setup->target));
    return s;
}

static struct session *guest(void)
{
    return guest_from("10.1.2.3");
}

static enum failure admit(struct session *s)
{
    enum failure failure = limited_admit_client(w, s);
    return failure != FAIL_NONE ? failure : limited_admit_request(w, s, true, NULL, 0);
}

/* --- keys of a session --- */

static struct session *other_source(void)
{
    return guest_from("10.1.2.4");
}

static struct session *other_target(void)
{
    struct session *s = guest();
    assert_true(address_from_host("other.test", 10, 443, &setup_of(w, s)->target));
    return s;
}

static struct session *other_user(void)
{
    struct session *s = guest();
    strcpy(setup_of(w, s)->credentials.user, "bob");
    return s;
}

static struct session *other_listener(void)
{
    struct session *s = guest();
    s->listener = 1;
    return s;
}

static struct session *nobody_else(void)
{
    return NULL;
}

/* Who has the same key is refused, who has another one is not, nor who has none. */
static void test_each_kind(void **state)
{
    static const struct {
        const char *limit, *key;
        struct session *(*other)(void);
    } kinds[] = {
        {"source: connections=1", "source:10.1.2.3", other_source},
        {"target: connections=1", "target:origin.test", other_target},
        {"user: connections=1", "user:ada", other_user},
        {"listener: connections=1", "listener:socks:1080", other_listener},
        {"total: connections=1", "total", nobody_else},
    };
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        begin(state);
        put(kinds[i].limit);
        struct session *first = guest(), *second = guest(), *third = kinds[i].other();
        assert_int_equal(admit(first), FAIL_NONE);
        assert_int_equal(first->limit_count, 1);
        assert_true(limited_is(first));
        assert_int_equal(admit(second), FAIL_LIMIT_CONNECTIONS);
        assert_false(limited_is(second));
        assert_int_equal(row_of(kinds[i].key).connections, 1);
        assert_int_equal(row_of(kinds[i].key).refused, 1);
        if (third) {
            assert_int_equal(admit(third), FAIL_NONE);
            leave(third);
        }
        leave(first);
        assert_int_equal(row_of(kinds[i].key).connections, 0);
        assert_int_equal(admit(second), FAIL_NONE); /* there is room again */
        leave(second);
        assert_int_equal(row_of(kinds[i].key).admitted, 2);
        finish(state);
    }
}

static void test_who_has_no_such_key(void **state)
{
    (void)state;
    put("source: connections=0");
    put("target: connections=0");
    put("user: connections=0");
    struct session *s = guest();
    struct setup *setup = setup_of(w, s);
    assert_int_equal(limited_admit_client(w, s), FAIL_LIMIT_CONNECTIONS); /* its source */
    s->client = (struct host_port){0}; /* a script's request, or that of a user of this machine */
    assert_int_equal(limited_admit_client(w, s), FAIL_LIMIT_CONNECTIONS); /* its target */
    setup->target.kind = ADDRESS_NONE;
    assert_int_equal(limited_admit_client(w, s), FAIL_NONE);
    setup->target.kind = ADDRESS_UNIX;
    assert_int_equal(limited_admit_client(w, s), FAIL_NONE);
    setup->target.kind = ADDRESS_NAME;
    s->command = SOCKS5_UDP_ASSOCIATE;
    assert_int_equal(limited_admit_client(w, s), FAIL_NONE);
    assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_LIMIT_CONNECTIONS); /* its user */
    setup->credentials.present = false;
    assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_NONE);
    setup->credentials = (struct credentials){.present = true};
    assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_NONE);
    setup->credentials.user[0] = 'a'; /* one letter is a name */
    assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(s->limit_count, 0);
    leave(s);
}

/* Sources are networks of both families. */
static void test_addresses_of_sources(void **state)
{
    (void)state;
    put("source/24/56: connections=1");
    struct session *a = guest_from("10.1.2.3"), *b = guest_from("10.1.2.200"), *c = guest_from("10.1.3.3");
    struct session *d = guest_from("2001:db8:1:200::1"), *e = guest_from("2001:db8:1:2ff::9");
    assert_int_equal(admit(a), FAIL_NONE);
    assert_int_equal(admit(b), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(admit(c), FAIL_NONE);
    assert_int_equal(admit(d), FAIL_NONE);
    assert_int_equal(admit(e), FAIL_LIMIT_CONNECTIONS);
    struct session *all[] = {a, b, c, d, e};
    for (unsigned i = 0; i < 5; i++) leave(all[i]);
}

static void test_nobody_is_limited(void **state)
{
    (void)state;
    struct session *s = guest();
    assert_int_equal(admit(s), FAIL_NONE); /* there are no limits at all */
    put("total: connections=0");
    s->protocol = PROTOCOL_INTERNAL;
    assert_int_equal(admit(s), FAIL_NONE);
    uint64_t gold = name("gold: connections=0");
    assert_int_equal(limited_admit_request(w, s, true, &gold, 1), FAIL_NONE);
    s->protocol = PROTOCOL_HTTP_PLAIN;
    assert_int_equal(admit(s), FAIL_LIMIT_CONNECTIONS);
    struct keys *keys = w->keys;
    w->keys = NULL;
    assert_int_equal(admit(s), FAIL_NONE);
    assert_true(limited_knows(w, NULL, 0));
    assert_false(limited_knows(w, &gold, 1));
    w->keys = keys;
    assert_int_equal(s->limit_count, 0);
    leave(s);
}

/* Refused by one, it is as if it had not come to the others: places, rates and counts. */
static void test_refused_by_one(void **state)
{
    (void)state;
    put("source: rate=1/h");
    put("listener: connections=5");
    put("total: connections=1");
    put("user: connections=1");
    struct session *first = guest(), *second = other_source(), *third = other_listener();
    assert_int_equal(admit(first), FAIL_NONE);
    assert_int_equal(first->limit_count, 4);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(limited_admit_client(w, second), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(second->limit_count, 0);
    assert_int_equal(row_of("source:10.1.2.4").admitted, 0);
    assert_int_equal(row_of("source:10.1.2.4").connections, 0);
    assert_int_equal(row_of("listener:socks:1080").connections, 1);
    assert_int_equal(row_of("listener:socks:1080").admitted, 1);
    assert_int_equal(row_of("total").refused, 3);
    assert_int_equal(limited_admit_client(w, third), FAIL_LIMIT_RATE); /* the first limit that refuses is told */
    assert_int_equal(row_of("total").refused, 3);
    leave(first);
    assert_int_equal(admit(second), FAIL_NONE); /* its rate has not been used */
    leave(second);
    leave(third);
}

/* Refused as a user, it is still under the limits of its client. */
static void test_refused_by_a_later_one(void **state)
{
    (void)state;
    put("source: connections=5");
    put("user: connections=5");
    uint64_t names[] = {name("gold: connections=5"), name("silver: connections=0")};
    struct session *s = guest();
    assert_int_equal(limited_admit_client(w, s), FAIL_NONE);
    assert_int_equal(limited_admit_request(w, s, true, names, 2), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(s->limit_count, 1);
    assert_int_equal(row_of("source:10.1.2.3").connections, 1);
    assert_int_equal(row_of("user:ada").connections, 0);
    assert_int_equal(row_of("gold").connections, 0);
    assert_int_equal(row_of("gold").admitted, 0);
    assert_int_equal(row_of("silver").refused, 1);
    assert_int_equal(limited_admit_request(w, s, true, names, 1), FAIL_NONE);
    assert_int_equal(s->limit_count, 3);
    assert_int_equal(limited_admit_request(w, s, true, names, 1), FAIL_NONE); /* another verdict: counts once */
    assert_int_equal(s->limit_count, 3);
    assert_int_equal(row_of("gold").connections, 1);
    assert_int_equal(row_of("gold").admitted, 1);
    leave(s);
    assert_int_equal(row_of("gold").connections, 0);
    assert_int_equal(row_of("user:ada").connections, 0);
}

static void test_as_many_as_a_session_holds(void **state)
{
    (void)state;
    uint64_t names[KEYS_PER_SESSION + 1];
    for (unsigned i = 0; i <= KEYS_PER_SESSION; i++) {
        char text[] = "name-0: connections=9";
        text[5] = (char)('0' + i);
        names[i] = name(text);
    }
    struct session *s = guest();
    assert_int_equal(limited_admit_request(w, s, true, names, KEYS_PER_SESSION), FAIL_NONE);
    assert_int_equal(s->limit_count, KEYS_PER_SESSION);
    for (unsigned round = 0; round < 3; round++) /* it is under them already, whichever it is */
        assert_int_equal(limited_admit_request(w, s, true, names, KEYS_PER_SESSION), FAIL_NONE);
    assert_int_equal(s->limit_count, KEYS_PER_SESSION);
    assert_int_equal(row_of("name-0").admitted + row_of("name-3").admitted, 2);
    assert_int_equal(limited_admit_request(w, s, true, names, KEYS_PER_SESSION + 1), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(s->limit_count, KEYS_PER_SESSION);
    assert_int_equal(row_of("name-4").connections, 0);
    leave(s);
}

/* Another verdict on the same request (await.forward): what only the one before has named is left, wherever it stands.
 */
static void test_another_verdict(void **state)
{
    static const char *const keys[] = {"name-0", "name-1", "name-2"};
    uint64_t names[3];
    (void)state;
    put("user: connections=9");
    for (unsigned i = 0; i < 3; i++) {
        char text[] = "name-0: connections=9";
        text[5] = (char)('0' + i);
        names[i] = name(text);
    }
    struct session *s = guest();
    for (unsigned of_these = 0; of_these < 2 * 8; of_these++) {
        uint64_t some[3];
        uint8_t count = 0;
        for (unsigned i = 0; i < 3; i++)
            if (of_these & 1u << i) some[count++] = names[i];
        assert_int_equal(limited_admit_request(w, s, true, some, count), FAIL_NONE);
        assert_int_equal(s->limit_count, 1 + count);
        assert_int_equal(s->limit_named, count);
        assert_int_equal(row_of("user:ada").connections, 1);
        for (unsigned i = 0; i < 3; i++) assert_int_equal(row_of(keys[i]).connections, of_these >> i & 1);
    }
    assert_int_equal(row_of("user:ada").admitted, 1);
    uint64_t closed[] = {names[1], name("closed: connections=0")};
    assert_int_equal(limited_admit_request(w, s, true, closed, 2), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(s->limit_count, 2);
    assert_int_equal(s->limit_named, 1);
    assert_int_equal(row_of("name-1").connections, 1);
    leave(s);
    assert_int_equal(s->limit_named, 0);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(row_of(keys[i]).connections, 0);
}

/* What a ruleset has named and what has left since: a name that nobody uses makes room for others. */
static void test_names_that_have_left(void **state)
{
    (void)state;
    uint64_t names[] = {name("gold: connections=9"), name("silver: connections=9")};
    struct session *s = guest();
    uint64_t closed = name("closed: connections=0");
    assert_true(limited_knows(w, names, 2));
    assert_true(limited_knows(w, NULL, 0));
    assert_int_equal(limited_admit_request(w, s, true, &closed, 1), FAIL_LIMIT_CONNECTIONS);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(limited_admit_request(w, s, true, names, 1), FAIL_NONE);
    for (unsigned i = 0; i < 200; i++) { /* more than there is room for */
        char text[] = "name-000: connections=9";
        text[5] = (char)('0' + i / 100), text[6] = (char)('0' + i / 10 % 10), text[7] = (char)('0' + i % 10);
        name(text);
    }
    assert_true(limited_knows(w, names, 1)); /* who is there holds it */
    assert_false(limited_knows(w, names, 2));
    assert_false(limited_knows(w, names + 1, 1));
    assert_false(limited_knows(w, &closed, 1));
    assert_int_equal(limited_admit_request(w, s, true, names + 1, 1), FAIL_LIMIT_KEYS);
    assert_int_equal(s->limit_count, 0); /* that verdict did not name the other one */
    leave(s);
    for (unsigned i = 0; i < 200; i++) { /* and nobody holds it any more, nor did whoever asked */
        char text[] = "next-000: connections=9";
        text[5] = (char)('0' + i / 100), text[6] = (char)('0' + i / 10 % 10), text[7] = (char)('0' + i % 10);
        name(text);
    }
    assert_false(limited_knows(w, names, 1));
}

/* Keys that strangers choose fill three quarters of the table. So many of that kind, held. */
enum { STRANGERS = 48 };

static void fill_with_strangers(enum limit_kind kind, uint32_t held[STRANGERS])
{
    for (unsigned i = 0; i < STRANGERS; i++) {
        char text[] = {'n', (char)('0' + i / 10), (char)('0' + i % 10)};
        struct address client = {.kind = ADDRESS_IPV4, .ipv4 = {10, 9, 9, (uint8_t)i}};
        struct limit_key key;
        if (kind == LIMIT_SOURCE)
            limit_key_source(&client, (uint8_t[2]){32, 64}, &key);
        else
            limit_key_text(kind, text, sizeof text, &key);
        assert_int_equal(keys_hold(w->keys, &key, true, sim_now_us(), &held[i]), KEYS_FOUND);
    }
}

static void release_strangers(const uint32_t held[STRANGERS])
{
    for (unsigned i = 0; i < STRANGERS; i++) keys_release(w->keys, held[i]);
}

/* Sources, targets, and users whom nobody has proven. */
static void test_strangers(void **state)
{
    static const char *const limits[] = {"source: connections=9", "target: connections=9", "user: connections=9"};
    static const enum limit_kind kinds[] = {LIMIT_SOURCE, LIMIT_TARGET, LIMIT_USER};
    uint32_t held[STRANGERS];
    for (unsigned i = 0; i < 3; i++) {
        begin(state);
        put(limits[i]);
        struct session *s = guest();
        fill_with_strangers(kinds[i], held);
        assert_int_equal(limited_admit_client(w, s), i < 2 ? FAIL_LIMIT_KEYS : FAIL_NONE);
        assert_int_equal(limited_admit_request(w, s, false, NULL, 0), i < 2 ? FAIL_NONE : FAIL_LIMIT_KEYS);
        assert_int_equal(s->limit_count, 0);
        assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_NONE);
        release_strangers(held);
        leave(s);
        finish(state);
    }
}

/* Listeners and the total are nobody's choice. */
static void test_own_keys_are_no_strangers(void **state)
{
    uint32_t held[STRANGERS];
    (void)state;
    put("source: connections=9");
    put("listener: connections=9");
    fill_with_strangers(LIMIT_SOURCE, held);
    struct session *s = guest_from("10.9.9.1");
    assert_int_equal(limited_admit_client(w, s), FAIL_NONE);
    assert_int_equal(s->limit_count, 2);
    release_strangers(held);
    leave(s);
}

static void test_when_to_come_again(void **state)
{
    (void)state;
    put("source: rate=6/min burst=1");
    put("user:bob: rate=2/s burst=1");
    struct session *s = guest();
    assert_int_equal(admit(s), FAIL_NONE);
    assert_int_equal(setup_of(w, s)->retry_after_s, 0);
    leave(s);
    s = guest();
    assert_int_equal(admit(s), FAIL_LIMIT_RATE);
    assert_int_equal(setup_of(w, s)->retry_after_s, 10);
    sim_bench_pass(&bench, 3500);
    assert_int_equal(admit(s), FAIL_LIMIT_RATE);
    assert_int_equal(setup_of(w, s)->retry_after_s, 7); /* of 6.5 s and less */
    sim_bench_pass(&bench, 6500);
    assert_int_equal(admit(s), FAIL_NONE);
    limited_leave(w, s);
    strcpy(setup_of(w, s)->credentials.user, "bob");
    setup_of(w, s)->retry_after_s = 0;
    assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_NONE);
    limited_leave(w, s);
    assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_LIMIT_RATE);
    assert_int_equal(setup_of(w, s)->retry_after_s, 1); /* at once would be too soon */
    leave(s);
}

/* The log says whose limit it was, at the level of requests and not above it. */
static void test_refusal_is_logged(void **state)
{
    char text[4096] = "";
    (void)state;
    put("user: connections=0");
    struct session *s = guest();
    for (int level = LOG_LEVEL_NOTICE; level <= LOG_LEVEL_INFO; level++) {
        int file = memfd_create("log", MFD_CLOEXEC), stderr_fd = dup(STDERR_FILENO);
        assert_true(file >= 0 && stderr_fd >= 0);
        dup2(file, STDERR_FILENO);
        log_open(LOG_TO_STDERR, level);
        enum failure failure = admit(s);
        log_open(LOG_DISCARD, LOG_LEVEL_SILENCE);
        dup2(stderr_fd, STDERR_FILENO);
        close(stderr_fd);
        assert_int_equal(failure, FAIL_LIMIT_CONNECTIONS);
        assert_true(pread(file, text, sizeof text - 1, 0) >= 0);
        close(file);
        assert_int_equal(strstr(text, "over the limit of user:ada\n") != NULL, level == LOG_LEVEL_INFO);
    }
    leave(s);
}

static void test_spent_quota_refuses(void **state)
{
    (void)state;
    put("user: quota=0B");
    struct session *s = guest();
    assert_int_equal(admit(s), FAIL_QUOTA);
    assert_int_equal(setup_of(w, s)->retry_after_s, 0);
    leave(s);
}

/* --- octets --- */

/* Under the limits of ada and of everybody. Both of its flows have just moved something: nothing of them goes ahead. */
static struct session *member(void)
{
    struct session *s = guest();
    assert_int_equal(admit(s), FAIL_NONE);
    s->flows[CLIENT].ticket.due_us = s->flows[UPSTREAM].ticket.due_us = sim_now_us();
    return s;
}

/* What may move at once. */
static uint32_t take(struct session *s, enum session_side from, uint32_t wanted)
{
    uint64_t again_us;
    return limited_take(w, s, from, wanted, &again_us);
}

/* Takes octets that wait: how long, in microseconds. */
static uint64_t wait_of(struct session *s, enum session_side from, uint32_t wanted)
{
    uint64_t again_us;
    assert_int_equal(limited_take(w, s, from, wanted, &again_us), 0);
    assert_int_not_equal(again_us, LIMITED_SPENT);
    return again_us - sim_now_us();
}

static void test_what_moves_is_used(void **state)
{
    (void)state;
    put("user: quota=1000000B quota-up=1000000B quota-down=1000000B");
    put("total: connections=9");
    struct session *s = member();
    assert_int_equal(take(s, CLIENT, 1000), 1000);
    assert_int_equal(s->flows[CLIENT].granted, 1000);
    assert_int_equal(row_of("user:ada").used[LIMIT_UP], 1000); /* until it is settled */
    limited_settle(w, s, CLIENT, 300);
    assert_int_equal(s->flows[CLIENT].granted, 0);
    assert_int_equal(s->flows[CLIENT].taken, 300);
    limited_settle(w, s, CLIENT, 0); /* nothing is under way */
    assert_int_equal(take(s, UPSTREAM, 50), 50);
    limited_settle(w, s, UPSTREAM, 50);
    static const char *const keys[] = {"user:ada", "total"};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(row_of(keys[i]).used[LIMIT_UP], 300);
        assert_int_equal(row_of(keys[i]).used[LIMIT_DOWN], 50);
        assert_int_equal(row_of(keys[i]).used[LIMIT_BOTH], 350);
        assert_int_equal(unsettled(keys[i]), 0);
        assert_int_equal(row_of(keys[i]).octets[0] + row_of(keys[i]).octets[1], 0); /* not delivered yet */
    }
    limited_count(w, s, CLIENT, 300);
    limited_count(w, s, UPSTREAM, 50);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(row_of(keys[i]).octets[LIMIT_UP], 300);
        assert_int_equal(row_of(keys[i]).octets[LIMIT_DOWN], 50);
    }
    s->flows[CLIENT].bytes = 300;
    s->flows[UPSTREAM].bytes = 50;
    leave(s);
    assert_int_equal(row_of("user:ada").used[LIMIT_BOTH], 350);
}

/* As much as each of them has; what one has given too much it gets back. */
static void test_quotas_of_several_keys(void **state)
{
    (void)state;
    put("user: quota-up=1000B");
    put("total: quota-up=400B");
    struct session *s = member();
    uint64_t again_us;
    assert_int_equal(take(s, CLIENT, 600), 400);
    assert_int_equal(row_of("user:ada").used[LIMIT_UP], 400);
    assert_int_equal(row_of("total").used[LIMIT_UP], 400);
    limited_settle(w, s, CLIENT, 400);
    s->flows[CLIENT].bytes = 400;
    assert_int_equal(unsettled("user:ada") + unsettled("total"), 0);
    assert_int_equal(limited_take(w, s, CLIENT, 1, &again_us), 0);
    assert_int_equal(again_us, LIMITED_SPENT);
    assert_int_equal(row_of("user:ada").used[LIMIT_UP], 400);
    assert_false(limited_waits(s, CLIENT));
    assert_int_equal(take(s, UPSTREAM, 600), 600); /* the other way nothing is bounded */
    limited_settle(w, s, UPSTREAM, 0);
    leave(s);
}

/* Nothing is left, but others may still give back what they have taken. */
static void test_quota_that_others_hold(void **state)
{
    (void)state;
    put("user: quota=1000B");
    struct session *a = member(), *b = member();
    uint64_t again_us;
    assert_int_equal(take(a, CLIENT, 1000), 1000);
    assert_int_equal(limited_take(w, b, UPSTREAM, 10, &again_us), 0);
    assert_int_equal(again_us, sim_now_us() + 5000);
    assert_false(limited_waits(b, UPSTREAM));
    limited_settle(w, a, CLIENT, 995);
    assert_int_equal(limited_take(w, b, UPSTREAM, 10, &again_us), 5);
    limited_settle(w, b, UPSTREAM, 5);
    assert_int_equal(limited_take(w, a, CLIENT, 10, &again_us), 0);
    assert_int_equal(again_us, LIMITED_SPENT);
    a->flows[CLIENT].bytes = 995;
    b->flows[UPSTREAM].bytes = 5;
    leave(a);
    leave(b);
    assert_int_equal(row_of("user:ada").used[LIMIT_BOTH], 1000);
}

/* Taken in one hour and settled in the next, where nothing is given back that was not taken there. */
static void test_hour_that_ends(void **state)
{
    (void)state;
    put("user: quota=1000B/hour");
    struct session *s = member();
    assert_int_equal(take(s, CLIENT, 600), 600);
    sim_bench_pass(&bench, HOUR_ENDS);
    limited_settle(w, s, CLIENT, 100);
    s->flows[CLIENT].bytes = 100;
    assert_int_equal(row_of("user:ada").used[LIMIT_BOTH], 0);
    assert_int_equal(take(s, CLIENT, 900), 900);
    limited_settle(w, s, CLIENT, 700);
    s->flows[CLIENT].bytes = 800;
    assert_int_equal(row_of("user:ada").used[LIMIT_BOTH], 700);
    assert_int_equal(unsettled("user:ada"), 0);
    leave(s);
}

/* What was moved to the proxy, and never delivered. */
static void test_refund(void **state)
{
    (void)state;
    put("user: quota=1000B");
    put("total: quota=1000B");
    struct session *s = member();
    assert_int_equal(take(s, CLIENT, 600), 600);
    limited_settle(w, s, CLIENT, 600);
    s->flows[CLIENT].bytes = 200;
    assert_int_equal(take(s, CLIENT, 100), 100); /* and what is under way */
    limited_refund(w, s, CLIENT);
    static const char *const keys[] = {"user:ada", "total"};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(row_of(keys[i]).used[LIMIT_UP], 200);
        assert_int_equal(row_of(keys[i]).used[LIMIT_BOTH], 200);
        assert_int_equal(unsettled(keys[i]), 0);
    }
    assert_int_equal(s->flows[CLIENT].taken, 200);
    assert_int_equal(s->flows[CLIENT].granted, 0);
    limited_refund(w, s, CLIENT); /* once */
    assert_int_equal(row_of("total").used[LIMIT_BOTH], 200);
    assert_int_equal(take(s, UPSTREAM, 300), 300);
    limited_settle(w, s, UPSTREAM, 300);
    s->flows[UPSTREAM].bytes = 1;
    leave(s); /* both ways */
    assert_int_equal(row_of("total").used[LIMIT_DOWN], 1);
    assert_int_equal(row_of("total").used[LIMIT_BOTH], 201);
    s = guest();
    s->limit_count = 0;
    s->flows[CLIENT].taken = 5;
    limited_refund(w, s, CLIENT); /* is under none */
    leave(s);
}

/* The burst at once; from then on each turn waits for the one before. */
static void test_speed(void **state)
{
    (void)state;
    put("user: up=1MB/s up-burst=10kB");
    struct session *s = member();
    uint64_t began_us = sim_now_us(), moved = 0;
    while (sim_now_us() < began_us + 1000000) {
        uint64_t again_us;
        uint32_t octets = limited_take(w, s, CLIENT, 100000, &again_us);
        assert_true(octets <= 50000); /* a turn of LIMIT_ROUND_MS */
        assert_int_equal(limited_waits(s, CLIENT), octets == 0);
        assert_int_equal(row_of("user:ada").waiting, octets == 0);
        if (octets > 0)
            limited_settle(w, s, CLIENT, octets);
        else
            sim_bench_pass(&bench, (again_us - sim_now_us()) / 1000 + 1);
        moved += octets;
    }
    assert_in_range(moved, 960000, 1010000 + 50000);
    s->flows[CLIENT].bytes = moved;
    assert_int_equal(take(s, UPSTREAM, 100000), 100000);
    limited_settle(w, s, UPSTREAM, 100000);
    s->flows[UPSTREAM].bytes = 100000;
    leave(s);
}

/* The slowest decides, about how much and when. */
static void test_speeds_of_several_keys(void **state)
{
    (void)state;
    put("user: up=1MB/s up-burst=1B");
    put("total: up=100kB/s up-burst=1B");
    put("listener: up=10MB/s up-burst=1B");
    struct session *s = member();
    uint64_t wait_us = wait_of(s, CLIENT, 1 << 20);
    assert_int_equal(s->flows[CLIENT].ticket.octets, 5000);
    assert_in_range(wait_us, 49000, 51000);
    assert_int_equal(row_of("user:ada").waiting + row_of("total").waiting, 2);
    sim_bench_pass(&bench, wait_us / 1000 + 1);
    assert_int_equal(take(s, CLIENT, 1000), 1000); /* by now less is there: the rest is given back */
    limited_settle(w, s, CLIENT, 1000);
    s->flows[CLIENT].bytes = 1000;
    assert_int_equal(row_of("user:ada").waiting + row_of("total").waiting, 0);
    assert_in_range(wait_of(s, CLIENT, 1000), 9000, 11000); /* behind nobody */
    leave(s);
}

/* What was taken and did not move is worth as much as before, with each key. */
static void test_speed_that_was_not_used(void **state)
{
    (void)state;
    put("user: up=100kB/s up-burst=5kB");
    put("total: up=100kB/s up-burst=5kB");
    struct session *s = member();
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(take(s, CLIENT, 5000), 5000);
        limited_settle(w, s, CLIENT, 0);
    }
    assert_int_equal(take(s, CLIENT, 5000), 5000);
    limited_settle(w, s, CLIENT, 3000);
    s->flows[CLIENT].bytes = 3000;
    assert_in_range(wait_of(s, CLIENT, 5000), 29000, 31000);
    leave(s);
}

/* What a flow says after a silence goes ahead, if it is little and all of its limits let it; the rest waits in line. */
static void test_little_goes_ahead(void **state)
{
    (void)state;
    put("user: up=1MB/s up-burst=1B");
    put("total: up=1MB/s up-burst=1B");
    struct session *s = member();
    sim_bench_pass(&bench, LIMIT_SPARSE_US / 1000 - 10);
    (void)wait_of(s, CLIENT, 1 << 20); /* it has not been silent for long enough */
    limited_forget(w, s, CLIENT);
    s->flows[CLIENT].ticket.due_us = sim_now_us();
    sim_bench_pass(&bench, LIMIT_SPARSE_US / 1000);
    assert_int_equal(take(s, CLIENT, 1 << 20), LIMIT_QUANTUM_MIN);
    assert_int_equal(row_of("user:ada").waiting, 0);
    limited_settle(w, s, CLIENT, LIMIT_QUANTUM_MIN);
    s->flows[CLIENT].bytes = LIMIT_QUANTUM_MIN;
    (void)wait_of(s, CLIENT, 1 << 20);
    assert_int_equal(row_of("user:ada").waiting, 1);
    leave(s);
}

/* Who leaves the line leaves its place to others. */
static void test_who_waits_no_more(void **state)
{
    (void)state;
    put("user: up=100kB/s up-burst=1B");
    struct session *a = member(), *b = member(), *c = member();
    uint64_t first_us = wait_of(a, CLIENT, 1 << 20);
    uint64_t second_us = wait_of(b, CLIENT, 1 << 20);
    assert_in_range(first_us, 49000, 51000);
    assert_in_range(second_us, first_us + 24000, first_us + 26000); /* two share the turns */
    assert_int_equal(row_of("user:ada").waiting, 2);
    assert_true(limited_waits(b, CLIENT));
    assert_false(limited_waits(b, UPSTREAM));
    assert_int_equal(wait_of(b, CLIENT, 1 << 20), second_us); /* asks again, and is where it was */
    limited_forget(w, b, CLIENT);
    limited_forget(w, b, CLIENT); /* once */
    assert_false(limited_waits(b, CLIENT));
    assert_int_equal(row_of("user:ada").waiting, 1);
    assert_int_equal(wait_of(c, CLIENT, 1 << 20), second_us);
    leave(c); /* in the line */
    assert_int_equal(row_of("user:ada").waiting, 1);
    assert_int_equal(wait_of(b, CLIENT, 1 << 20), second_us);
    leave(a);
    leave(b);
    assert_int_equal(row_of("user:ada").waiting, 0);
}

static void test_limit_that_changes(void **state)
{
    (void)state;
    put("user: up=1kB/s up-burst=1B");
    put("total: up=1GB/s");
    struct session *s = member();
    assert_false(limited_is_stale(w, s, CLIENT));
    assert_in_range(wait_of(s, CLIENT, 1400), 1390000, 1410000);
    assert_false(limited_is_stale(w, s, CLIENT));
    put("user: up=2kB/s up-burst=1B");
    assert_true(limited_is_stale(w, s, CLIENT));
    assert_false(limited_is_stale(w, s, UPSTREAM));
    assert_in_range(wait_of(s, CLIENT, 1400), 690000, 710000); /* what was booked is void */
    assert_int_equal(row_of("user:ada").waiting, 1);
    assert_int_equal(row_of("total").waiting, 1);
    assert_false(limited_is_stale(w, s, CLIENT));
    put("total: up=2GB/s"); /* the last of them */
    assert_true(limited_is_stale(w, s, CLIENT));
    limited_forget(w, s, CLIENT);
    assert_false(limited_is_stale(w, s, CLIENT));
    assert_in_range(wait_of(s, CLIENT, 1400), 690000, 710000); /* and given back where it is not */
    leave(s);
}

/* --- datagrams --- */

static void test_datagrams(void **state)
{
    (void)state;
    struct session *s = guest();
    assert_int_equal(limited_pass(w, s, CLIENT, 1000), LIMITED_PASSES); /* is under none */
    limited_return(w, s, CLIENT, 1000);
    leave(s);
    put("user: quota=1000B");
    put("total: quota-up=900B");
    s = member();
    assert_int_equal(limited_pass(w, s, CLIENT, 0), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, CLIENT, 600), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, CLIENT, 301), LIMITED_DROPPED); /* a smaller one may pass */
    assert_int_equal(row_of("user:ada").used[LIMIT_BOTH], 600);
    assert_int_equal(limited_pass(w, s, CLIENT, 300), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, CLIENT, 1), LIMITED_OVER);
    assert_int_equal(row_of("user:ada").used[LIMIT_UP], 900);
    assert_int_equal(row_of("total").used[LIMIT_UP], 900);
    assert_int_equal(limited_pass(w, s, UPSTREAM, 100), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, UPSTREAM, 1), LIMITED_OVER);
    assert_int_equal(row_of("user:ada").used[LIMIT_DOWN], 100);
    limited_return(w, s, CLIENT, 300);
    assert_int_equal(row_of("user:ada").used[LIMIT_UP], 600);
    assert_int_equal(row_of("user:ada").used[LIMIT_BOTH], 700);
    assert_int_equal(row_of("total").used[LIMIT_UP], 600);
    assert_int_equal(unsettled("user:ada") + unsettled("total"), 0);
    leave(s);
}

/* Faster than one of the limits lets them; what the others had let pass counts for nothing. */
static void test_speed_of_datagrams(void **state)
{
    (void)state;
    put("user: up=100kB/s");
    put("total: up=50kB/s");
    struct session *s = member();
    for (unsigned i = 0; i < 64; i++) assert_int_equal(limited_pass(w, s, CLIENT, 1024), LIMITED_PASSES);
    for (unsigned i = 0; i < 1000; i++) assert_int_equal(limited_pass(w, s, CLIENT, 1024), LIMITED_DROPPED);
    assert_int_equal(limited_pass(w, s, UPSTREAM, 1024), LIMITED_PASSES);
    assert_int_equal(row_of("total").used[LIMIT_UP], 65536);
    limited_return(w, s, CLIENT, 1024); /* one could not be sent */
    assert_int_equal(limited_pass(w, s, CLIENT, 1024), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, CLIENT, 1024), LIMITED_DROPPED);
    sim_bench_pass(&bench, 100); /* 5000 octets of the total, and 10000 of ada's */
    uint32_t passed = 0;
    while (limited_pass(w, s, CLIENT, 1000) == LIMITED_PASSES) passed++;
    assert_in_range(passed, 5, 6);
    put("total: up=1GB/s"); /* what was refused there is not booked here */
    while (limited_pass(w, s, CLIENT, 1000) == LIMITED_PASSES) passed++;
    assert_in_range(passed, 10, 11);
    leave(s);
}

/* One whose octets a quota does not have has not used the speed either. */
static void test_quota_of_datagrams_keeps_the_speed(void **state)
{
    (void)state;
    put("user: up=100kB/s quota-up=60000B");
    struct session *s = member();
    for (unsigned i = 0; i < 1000; i++) assert_int_equal(limited_pass(w, s, CLIENT, 60001), LIMITED_DROPPED);
    assert_int_equal(limited_pass(w, s, CLIENT, 60000), LIMITED_PASSES);
    leave(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind),
        cmocka_unit_test_setup_teardown(test_who_has_no_such_key, begin, finish),
        cmocka_unit_test_setup_teardown(test_addresses_of_sources, begin, finish),
        cmocka_unit_test_setup_teardown(test_nobody_is_limited, begin, finish),
        cmocka_unit_test_setup_teardown(test_refused_by_one, begin, finish),
        cmocka_unit_test_setup_teardown(test_refused_by_a_later_one, begin, finish),
        cmocka_unit_test_setup_teardown(test_as_many_as_a_session_holds, begin, finish),
        cmocka_unit_test_setup_teardown(test_another_verdict, begin, finish),
        cmocka_unit_test_setup_teardown(test_names_that_have_left, begin, finish),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test_setup_teardown(test_own_keys_are_no_strangers, begin, finish),
        cmocka_unit_test_setup_teardown(test_when_to_come_again, begin, finish),
        cmocka_unit_test_setup_teardown(test_refusal_is_logged, begin, finish),
        cmocka_unit_test_setup_teardown(test_spent_quota_refuses, begin, finish),
        cmocka_unit_test_setup_teardown(test_what_moves_is_used, begin, finish),
        cmocka_unit_test_setup_teardown(test_quotas_of_several_keys, begin, finish),
        cmocka_unit_test_setup_teardown(test_quota_that_others_hold, begin, finish),
        cmocka_unit_test_setup_teardown(test_hour_that_ends, begin, finish),
        cmocka_unit_test_setup_teardown(test_refund, begin, finish),
        cmocka_unit_test_setup_teardown(test_speed, begin, finish),
        cmocka_unit_test_setup_teardown(test_speeds_of_several_keys, begin, finish),
        cmocka_unit_test_setup_teardown(test_speed_that_was_not_used, begin, finish),
        cmocka_unit_test_setup_teardown(test_little_goes_ahead, begin, finish),
        cmocka_unit_test_setup_teardown(test_who_waits_no_more, begin, finish),
        cmocka_unit_test_setup_teardown(test_limit_that_changes, begin, finish),
        cmocka_unit_test_setup_teardown(test_datagrams, begin, finish),
        cmocka_unit_test_setup_teardown(test_speed_of_datagrams, begin, finish),
        cmocka_unit_test_setup_teardown(test_quota_of_datagrams_keeps_the_speed, begin, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
