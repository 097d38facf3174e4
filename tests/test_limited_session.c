/* On the simulated kernel: which limits a session comes under, and what it is told that it may not. */
#include "tests/sim_guests.h"

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

static struct worker *const w = &guests_bench.worker;

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
        guests_begin(state);
        guests_put(kinds[i].limit);
        struct session *first = guest(), *second = guest(), *third = kinds[i].other();
        assert_int_equal(guest_admit(first), FAIL_NONE);
        assert_int_equal(first->limit_count, 1);
        assert_true(limited_is(first));
        assert_int_equal(guest_admit(second), FAIL_LIMIT_CONNECTIONS);
        assert_false(limited_is(second));
        assert_int_equal(guests_row(kinds[i].key).connections, 1);
        assert_int_equal(guests_row(kinds[i].key).refused, 1);
        if (third) {
            assert_int_equal(guest_admit(third), FAIL_NONE);
            guest_leave(third);
        }
        guest_leave(first);
        assert_int_equal(guests_row(kinds[i].key).connections, 0);
        assert_int_equal(guest_admit(second), FAIL_NONE); /* there is room again */
        guest_leave(second);
        assert_int_equal(guests_row(kinds[i].key).admitted, 2);
        guests_finish(state);
    }
}

static void test_who_has_no_such_key(void **state)
{
    (void)state;
    guests_put("source: connections=0");
    guests_put("target: connections=0");
    guests_put("user: connections=0");
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
    guest_leave(s);
}

/* Sources are networks of both families. */
static void test_addresses_of_sources(void **state)
{
    (void)state;
    guests_put("source/24/56: connections=1");
    struct session *a = guest_from("10.1.2.3"), *b = guest_from("10.1.2.200"), *c = guest_from("10.1.3.3");
    struct session *d = guest_from("2001:db8:1:200::1"), *e = guest_from("2001:db8:1:2ff::9");
    assert_int_equal(guest_admit(a), FAIL_NONE);
    assert_int_equal(guest_admit(b), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(guest_admit(c), FAIL_NONE);
    assert_int_equal(guest_admit(d), FAIL_NONE);
    assert_int_equal(guest_admit(e), FAIL_LIMIT_CONNECTIONS);
    struct session *all[] = {a, b, c, d, e};
    for (unsigned i = 0; i < 5; i++) guest_leave(all[i]);
}

static void test_nobody_is_limited(void **state)
{
    (void)state;
    struct session *s = guest();
    assert_int_equal(guest_admit(s), FAIL_NONE); /* there are no limits at all */
    guests_put("total: connections=0");
    s->protocol = PROTOCOL_INTERNAL;
    assert_int_equal(guest_admit(s), FAIL_NONE);
    uint64_t gold = guests_name("gold: connections=0");
    assert_int_equal(limited_admit_request(w, s, true, &gold, 1), FAIL_NONE);
    s->protocol = PROTOCOL_HTTP_PLAIN;
    assert_int_equal(guest_admit(s), FAIL_LIMIT_CONNECTIONS);
    struct keys *keys = w->keys;
    w->keys = NULL;
    assert_int_equal(guest_admit(s), FAIL_NONE);
    assert_true(limited_knows(w, NULL, 0));
    assert_false(limited_knows(w, &gold, 1));
    w->keys = keys;
    assert_int_equal(s->limit_count, 0);
    guest_leave(s);
}

/* Refused by one, it is as if it had not come to the others: places, rates and counts. */
static void test_refused_by_one(void **state)
{
    (void)state;
    guests_put("source: rate=1/h");
    guests_put("listener: connections=5");
    guests_put("total: connections=1");
    guests_put("user: connections=1");
    struct session *first = guest(), *second = other_source(), *third = other_listener();
    assert_int_equal(guest_admit(first), FAIL_NONE);
    assert_int_equal(first->limit_count, 4);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(limited_admit_client(w, second), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(second->limit_count, 0);
    assert_int_equal(guests_row("source:10.1.2.4").admitted, 0);
    assert_int_equal(guests_row("source:10.1.2.4").connections, 0);
    assert_int_equal(guests_row("listener:socks:1080").connections, 1);
    assert_int_equal(guests_row("listener:socks:1080").admitted, 1);
    assert_int_equal(guests_row("total").refused, 3);
    assert_int_equal(limited_admit_client(w, third), FAIL_LIMIT_RATE); /* the first limit that refuses is told */
    assert_int_equal(guests_row("total").refused, 3);
    guest_leave(first);
    assert_int_equal(guest_admit(second), FAIL_NONE); /* its rate has not been used */
    guest_leave(second);
    guest_leave(third);
}

/* Refused as a user, it is still under the limits of its client. */
static void test_refused_by_a_later_one(void **state)
{
    (void)state;
    guests_put("source: connections=5");
    guests_put("user: connections=5");
    uint64_t names[] = {guests_name("gold: connections=5"), guests_name("silver: connections=0")};
    struct session *s = guest();
    assert_int_equal(limited_admit_client(w, s), FAIL_NONE);
    assert_int_equal(limited_admit_request(w, s, true, names, 2), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(s->limit_count, 1);
    assert_int_equal(guests_row("source:10.1.2.3").connections, 1);
    assert_int_equal(guests_row("user:ada").connections, 0);
    assert_int_equal(guests_row("gold").connections, 0);
    assert_int_equal(guests_row("gold").admitted, 0);
    assert_int_equal(guests_row("silver").refused, 1);
    assert_int_equal(limited_admit_request(w, s, true, names, 1), FAIL_NONE);
    assert_int_equal(s->limit_count, 3);
    assert_int_equal(limited_admit_request(w, s, true, names, 1), FAIL_NONE); /* another verdict: counts once */
    assert_int_equal(s->limit_count, 3);
    assert_int_equal(guests_row("gold").connections, 1);
    assert_int_equal(guests_row("gold").admitted, 1);
    guest_leave(s);
    assert_int_equal(guests_row("gold").connections, 0);
    assert_int_equal(guests_row("user:ada").connections, 0);
}

static void test_as_many_as_a_session_holds(void **state)
{
    (void)state;
    uint64_t names[KEYS_PER_SESSION + 1];
    for (unsigned i = 0; i <= KEYS_PER_SESSION; i++) {
        char text[] = "name-0: connections=9";
        text[5] = (char)('0' + i);
        names[i] = guests_name(text);
    }
    struct session *s = guest();
    assert_int_equal(limited_admit_request(w, s, true, names, KEYS_PER_SESSION), FAIL_NONE);
    assert_int_equal(s->limit_count, KEYS_PER_SESSION);
    for (unsigned round = 0; round < 3; round++) /* it is under them already, whichever it is */
        assert_int_equal(limited_admit_request(w, s, true, names, KEYS_PER_SESSION), FAIL_NONE);
    assert_int_equal(s->limit_count, KEYS_PER_SESSION);
    assert_int_equal(guests_row("name-0").admitted + guests_row("name-3").admitted, 2);
    assert_int_equal(limited_admit_request(w, s, true, names, KEYS_PER_SESSION + 1), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(s->limit_count, KEYS_PER_SESSION);
    assert_int_equal(guests_row("name-4").connections, 0);
    guest_leave(s);
}

/* Another verdict on the same request (await.forward): what only the one before has named is left, wherever it stands.
 */
static void test_another_verdict(void **state)
{
    static const char *const keys[] = {"name-0", "name-1", "name-2"};
    uint64_t names[3];
    (void)state;
    guests_put("user: connections=9");
    for (unsigned i = 0; i < 3; i++) {
        char text[] = "name-0: connections=9";
        text[5] = (char)('0' + i);
        names[i] = guests_name(text);
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
        assert_int_equal(guests_row("user:ada").connections, 1);
        for (unsigned i = 0; i < 3; i++) assert_int_equal(guests_row(keys[i]).connections, of_these >> i & 1);
    }
    assert_int_equal(guests_row("user:ada").admitted, 1);
    uint64_t closed[] = {names[1], guests_name("closed: connections=0")};
    assert_int_equal(limited_admit_request(w, s, true, closed, 2), FAIL_LIMIT_CONNECTIONS);
    assert_int_equal(s->limit_count, 2);
    assert_int_equal(s->limit_named, 1);
    assert_int_equal(guests_row("name-1").connections, 1);
    guest_leave(s);
    assert_int_equal(s->limit_named, 0);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(guests_row(keys[i]).connections, 0);
}

/* What a ruleset has named and what has left since: a name that nobody uses makes room for others. */
static void test_names_that_have_left(void **state)
{
    (void)state;
    uint64_t names[] = {guests_name("gold: connections=9"), guests_name("silver: connections=9")};
    struct session *s = guest();
    uint64_t closed = guests_name("closed: connections=0");
    assert_true(limited_knows(w, names, 2));
    assert_true(limited_knows(w, NULL, 0));
    assert_int_equal(limited_admit_request(w, s, true, &closed, 1), FAIL_LIMIT_CONNECTIONS);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(limited_admit_request(w, s, true, names, 1), FAIL_NONE);
    for (unsigned i = 0; i < 200; i++) { /* more than there is room for */
        char text[] = "name-000: connections=9";
        text[5] = (char)('0' + i / 100), text[6] = (char)('0' + i / 10 % 10), text[7] = (char)('0' + i % 10);
        guests_name(text);
    }
    assert_true(limited_knows(w, names, 1)); /* who is there holds it */
    assert_false(limited_knows(w, names, 2));
    assert_false(limited_knows(w, names + 1, 1));
    assert_false(limited_knows(w, &closed, 1));
    assert_int_equal(limited_admit_request(w, s, true, names + 1, 1), FAIL_LIMIT_KEYS);
    assert_int_equal(s->limit_count, 0); /* that verdict did not name the other one */
    guest_leave(s);
    for (unsigned i = 0; i < 200; i++) { /* and nobody holds it any more, nor did whoever asked */
        char text[] = "next-000: connections=9";
        text[5] = (char)('0' + i / 100), text[6] = (char)('0' + i / 10 % 10), text[7] = (char)('0' + i % 10);
        guests_name(text);
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
        guests_begin(state);
        guests_put(limits[i]);
        struct session *s = guest();
        fill_with_strangers(kinds[i], held);
        assert_int_equal(limited_admit_client(w, s), i < 2 ? FAIL_LIMIT_KEYS : FAIL_NONE);
        assert_int_equal(limited_admit_request(w, s, false, NULL, 0), i < 2 ? FAIL_NONE : FAIL_LIMIT_KEYS);
        assert_int_equal(s->limit_count, 0);
        assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_NONE);
        release_strangers(held);
        guest_leave(s);
        guests_finish(state);
    }
}

/* Listeners and the total are nobody's choice. */
static void test_own_keys_are_no_strangers(void **state)
{
    uint32_t held[STRANGERS];
    (void)state;
    guests_put("source: connections=9");
    guests_put("listener: connections=9");
    fill_with_strangers(LIMIT_SOURCE, held);
    struct session *s = guest_from("10.9.9.1");
    assert_int_equal(limited_admit_client(w, s), FAIL_NONE);
    assert_int_equal(s->limit_count, 2);
    release_strangers(held);
    guest_leave(s);
}

static void test_when_to_come_again(void **state)
{
    (void)state;
    guests_put("source: rate=6/min burst=1");
    guests_put("user:bob: rate=2/s burst=1");
    struct session *s = guest();
    assert_int_equal(guest_admit(s), FAIL_NONE);
    assert_int_equal(setup_of(w, s)->retry_after_s, 0);
    guest_leave(s);
    s = guest();
    assert_int_equal(guest_admit(s), FAIL_LIMIT_RATE);
    assert_int_equal(setup_of(w, s)->retry_after_s, 10);
    sim_bench_pass(&guests_bench, 3500);
    assert_int_equal(guest_admit(s), FAIL_LIMIT_RATE);
    assert_int_equal(setup_of(w, s)->retry_after_s, 7); /* of 6.5 s and less */
    sim_bench_pass(&guests_bench, 6500);
    assert_int_equal(guest_admit(s), FAIL_NONE);
    limited_leave(w, s);
    strcpy(setup_of(w, s)->credentials.user, "bob");
    setup_of(w, s)->retry_after_s = 0;
    assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_NONE);
    limited_leave(w, s);
    assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_LIMIT_RATE);
    assert_int_equal(setup_of(w, s)->retry_after_s, 1); /* at once would be too soon */
    guest_leave(s);
}

/* The log says whose limit it was, at the level of requests and not above it. */
static void test_refusal_is_logged(void **state)
{
    char text[4096] = "";
    (void)state;
    guests_put("user: connections=0");
    struct session *s = guest();
    for (int level = LOG_LEVEL_NOTICE; level <= LOG_LEVEL_INFO; level++) {
        int file = memfd_create("log", MFD_CLOEXEC), stderr_fd = dup(STDERR_FILENO);
        assert_true(file >= 0 && stderr_fd >= 0);
        dup2(file, STDERR_FILENO);
        log_open(LOG_TO_STDERR, level);
        enum failure failure = guest_admit(s);
        log_open(LOG_DISCARD, LOG_LEVEL_SILENCE);
        dup2(stderr_fd, STDERR_FILENO);
        close(stderr_fd);
        assert_int_equal(failure, FAIL_LIMIT_CONNECTIONS);
        assert_true(pread(file, text, sizeof text - 1, 0) >= 0);
        close(file);
        assert_int_equal(strstr(text, "over the limit of user:ada\n") != NULL, level == LOG_LEVEL_INFO);
    }
    guest_leave(s);
}

static void test_spent_quota_refuses(void **state)
{
    (void)state;
    guests_put("user: quota=0B");
    struct session *s = guest();
    assert_int_equal(guest_admit(s), FAIL_QUOTA);
    assert_int_equal(setup_of(w, s)->retry_after_s, 0);
    guest_leave(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind),
        cmocka_unit_test_setup_teardown(test_who_has_no_such_key, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_addresses_of_sources, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_nobody_is_limited, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_refused_by_one, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_refused_by_a_later_one, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_as_many_as_a_session_holds, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_another_verdict, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_names_that_have_left, guests_begin, guests_finish),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test_setup_teardown(test_own_keys_are_no_strangers, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_when_to_come_again, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_refusal_is_logged, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_spent_quota_refuses, guests_begin, guests_finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
