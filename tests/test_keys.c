/* core/session/limit and keys: what a key bounds, and the table of keys, by one thread and by sixteen. */
#include "core/session/keys.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/limit_keys.h"
#include "tests/support.h"

#define SECOND_US UINT64_C(1000000)
#define NOW_US    (100 * SECOND_US)
#define WALL_S    INT64_C(1796000000)
#define THREADS   16u

static struct keys *keys;

static int setup(void **state)
{
    (void)state;
    setenv("TZ", "UTC0", 1);
    return keys_open(&keys, 128, NOW_US, WALL_S);
}

static int teardown(void **state)
{
    (void)state;
    keys_close(keys);
    return 0;
}

static struct limit_terms terms_of(const char *text)
{
    struct limit_terms terms;
    assert_null(limit_terms_parse(text, strlen(text), &terms));
    return terms;
}

static enum keys_change put(const char *key, const char *terms)
{
    struct limit_key k = key_of(key);
    struct limit_terms t = terms_of(terms);
    return keys_put(keys, &k, &t, NOW_US);
}

/* KEYS_NONE: it is bounded by nothing. */
static uint32_t hold_at(const char *key, bool stranger, uint64_t now_us)
{
    struct limit_key k = key_of(key);
    uint32_t held;
    enum keys_found found = keys_hold(keys, &k, stranger, now_us, &held);
    assert_int_not_equal(found, KEYS_FULL);
    assert_int_equal(found == KEYS_FOUND, held != KEYS_NONE);
    return held;
}

static uint32_t hold(const char *key)
{
    return hold_at(key, false, NOW_US);
}

static enum limit_verdict admit_at(uint32_t held, uint64_t now_us, uint64_t *wait_us)
{
    struct limit_time time = keys_time(keys, now_us);
    return limit_admit(keys_at(keys, held), &time, wait_us);
}

static enum limit_verdict admit(uint32_t held)
{
    uint64_t wait_us;
    return admit_at(held, NOW_US, &wait_us);
}

/* Octets that are taken, and move. */
static uint32_t move_at(uint32_t held, enum limit_direction from, uint32_t octets, uint64_t now_us)
{
    struct limit_time time = keys_time(keys, now_us);
    bool spent = false;
    uint32_t taken = limit_take(keys_at(keys, held), from, octets, &time, &spent);
    limit_settle(keys_at(keys, held), from, taken, taken, true);
    return taken;
}

static uint32_t move(uint32_t held, enum limit_direction from, uint32_t octets)
{
    return move_at(held, from, octets, NOW_US);
}

static struct keys_row row_of(const char *key)
{
    struct limit_key k = key_of(key);
    struct keys_row row;
    assert_true(keys_find(keys, &k, NOW_US, &row));
    return row;
}

/* --- connections --- */

static void test_as_many_connections_as_the_limit_says(void **state)
{
    (void)state;
    assert_int_equal(put("user", "connections=2"), KEYS_CHANGED);
    uint32_t a = hold("user:alice"), b = hold("user:bob");
    assert_int_not_equal(a, b);
    assert_int_equal(admit(a), LIMIT_ADMITTED);
    assert_int_equal(admit(a), LIMIT_ADMITTED);
    for (unsigned i = 0; i < 1000; i++) assert_int_equal(admit(a), LIMIT_CONNECTIONS);
    assert_int_equal(admit(b), LIMIT_ADMITTED);
    assert_int_equal(row_of("user:alice").connections, 2);
    assert_int_equal(row_of("user:alice").refused, 1000);
    limit_leave(keys_at(keys, a));
    assert_int_equal(admit(a), LIMIT_ADMITTED);
    limit_leave(keys_at(keys, a));
    limit_withdraw(keys_at(keys, a));
    assert_int_equal(row_of("user:alice").connections, 0);
    assert_int_equal(row_of("user:alice").admitted, 2);
}

static void test_a_rate_says_how_long_to_wait_and_takes_no_place(void **state)
{
    (void)state;
    uint64_t wait_us;
    put("user", "rate=2/s burst=3 connections=100");
    uint32_t a = hold("user:alice");
    for (unsigned i = 0; i < 3; i++) assert_int_equal(admit(a), LIMIT_ADMITTED);
    for (unsigned i = 0; i < 1000; i++) assert_int_equal(admit_at(a, NOW_US, &wait_us), LIMIT_RATE);
    assert_int_equal(wait_us, SECOND_US / 2);
    assert_int_equal(row_of("user:alice").connections, 3);
    assert_int_equal(admit_at(a, NOW_US + wait_us, &wait_us), LIMIT_ADMITTED);
    limit_withdraw(keys_at(keys, a)); /* another key has refused it: it has used nothing */
    assert_int_equal(admit_at(a, NOW_US + SECOND_US / 2, &wait_us), LIMIT_ADMITTED);
    assert_int_equal(admit_at(a, NOW_US + SECOND_US / 2, &wait_us), LIMIT_RATE);
}

static void test_a_key_begins_with_its_burst_however_it_comes(void **state)
{
    (void)state;
    put("user:alice", "rate=2/h");
    uint32_t a = hold("user:alice");
    assert_int_equal(admit(a), LIMIT_ADMITTED);
    put("user:alice", "rate=3/h"); /* what is used stays used */
    assert_int_equal(admit(a), LIMIT_ADMITTED);
    assert_int_equal(admit(a), LIMIT_RATE);
}

static void test_the_burst_of_a_rate_is_one_of_its_periods(void **state)
{
    (void)state;
    put("user", "rate=5/s");
    uint32_t a = hold("user:alice");
    for (unsigned i = 0; i < 5; i++) assert_int_equal(admit(a), LIMIT_ADMITTED);
    assert_int_equal(admit(a), LIMIT_RATE);
}

static void test_a_spent_quota_lets_nobody_in(void **state)
{
    (void)state;
    put("user", "quota=1kB/day quota-up=600B");
    uint32_t a = hold("user:alice");
    assert_int_equal(admit(a), LIMIT_ADMITTED);
    assert_int_equal(move(a, LIMIT_UP, 1000), 600);
    assert_int_equal(admit(a), LIMIT_QUOTA); /* one direction is enough */
    assert_int_equal(move(a, LIMIT_DOWN, 1000), 400);
    assert_int_equal(move(a, LIMIT_DOWN, 1), 0);
    assert_int_equal(row_of("user:alice").used[LIMIT_BOTH], 1000);
    assert_int_equal(row_of("user:alice").connections, 1);
}

static void test_a_quota_goes_on_with_its_period(void **state)
{
    (void)state;
    put("user", "quota=1kB/hour");
    uint32_t a = hold("user:alice");
    assert_int_equal(move(a, LIMIT_UP, 5000), 1000);
    uint64_t next = NOW_US + (uint64_t)(3600 - WALL_S % 3600) * SECOND_US;
    assert_int_equal(move_at(a, LIMIT_UP, 5000, next - SECOND_US), 0);
    assert_int_equal(move_at(a, LIMIT_UP, 5000, next), 1000);
    assert_int_equal(move_at(a, LIMIT_UP, 5000, next + SECOND_US), 0);
}

static void test_octets_of_an_old_hour_do_not_come_back(void **state)
{
    (void)state;
    bool spent = false;
    put("user", "quota=1kB/day quota-up=1kB");
    struct limit *limit = keys_at(keys, hold("user:alice"));
    struct limit_time time = keys_time(keys, NOW_US);
    assert_int_equal(limit_take(limit, LIMIT_UP, 400, &time, &spent), 400);
    limit_settle(limit, LIMIT_UP, 400, 0, false);
    assert_int_equal(row_of("user:alice").used[LIMIT_BOTH], 400);
    assert_int_equal(row_of("user:alice").used[LIMIT_UP], 0); /* which has one period only */
}

static void test_what_did_not_move_comes_back(void **state)
{
    (void)state;
    struct limit_time time = keys_time(keys, NOW_US);
    bool spent = false;
    put("user", "quota=1kB quota-down=900B");
    uint32_t a = hold("user:alice");
    struct limit *limit = keys_at(keys, a);
    assert_int_equal(limit_take(limit, LIMIT_DOWN, 5000, &time, &spent), 900);
    assert_int_equal(limit_take(limit, LIMIT_DOWN, 5000, &time, &spent), 0);
    assert_false(spent);
    limit_settle(limit, LIMIT_DOWN, 900, 1, true);
    assert_int_equal(limit_take(limit, LIMIT_UP, 5000, &time, &spent), 999);
    limit_settle(limit, LIMIT_UP, 999, 999, true);
    assert_int_equal(limit_take(limit, LIMIT_DOWN, 0, &time, &spent), 0); /* nothing was wanted */
    assert_false(spent);
    assert_int_equal(limit_take(limit, LIMIT_DOWN, 5000, &time, &spent), 0);
    assert_true(spent);
    spent = false;
    assert_int_equal(limit_take(limit, LIMIT_DOWN, 1, &time, &spent), 0);
    assert_true(spent);
    assert_int_equal(row_of("user:alice").used[LIMIT_DOWN], 1); /* what the sum refused is not charged */
    limit_refund(limit, LIMIT_UP, 9, &time);
    assert_int_equal(row_of("user:alice").used[LIMIT_BOTH], 991);
}

/* --- speed --- */

static void test_turns_are_short_however_many_wait(void **state)
{
    (void)state;
    put("user", "down=10Mbit/s");
    struct limit *limit = keys_at(keys, hold("user:alice"));
    assert_int_equal(limit_quantum(limit, LIMIT_UP), UINT32_MAX);
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), 62500);
    for (unsigned i = 0; i < 9; i++) limit_wait(limit, LIMIT_DOWN, 1);
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), 6250);
    for (unsigned i = 0; i < 991; i++) limit_wait(limit, LIMIT_DOWN, 1);
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), LIMIT_QUANTUM_MIN);
    for (unsigned i = 0; i < 1000; i++) limit_wait(limit, LIMIT_DOWN, -1);
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), 62500);
    for (unsigned i = 0; i < 249; i++) limit_wait(limit, LIMIT_DOWN, 1); /* whose rounds are 200 ms, */
    put("user", "down=100Mbit/s");
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), 10000);
    put("user", "down=200Mbit/s");
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), LIMIT_QUANTUM_FAIR);
    put("user", "down=1Gbit/s"); /* unless their turns are long enough without */
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), 25000);
    for (unsigned i = 0; i < 149; i++) limit_wait(limit, LIMIT_DOWN, -1);
    put("user", "down=100Mbit/s"); /* 101: 101 ms */
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), 12500);
    for (unsigned i = 0; i < 100; i++) limit_wait(limit, LIMIT_DOWN, -1);
    put("user", "down=1Tbit/s");
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), LIMIT_QUANTUM_MAX);
    put("user", "down=1Tbit/s both=10Mbit/s"); /* whose line has those of both directions */
    for (unsigned i = 0; i < 4; i++) limit_wait(limit, i % 2 ? LIMIT_UP : LIMIT_DOWN, 1);
    assert_int_equal(limit_quantum(limit, LIMIT_UP), 12500);
    assert_int_equal(limit_quantum(limit, LIMIT_DOWN), 12500);
}

/* A burst that is smaller than a datagram would let none pass. */
static void test_datagrams_pass_as_a_whole_or_not(void **state)
{
    (void)state;
    put("user", "up=1kB/s both=1MB/s both-burst=100kB");
    struct limit *limit = keys_at(keys, hold("user:alice"));
    uint64_t later = NOW_US + 100 * SECOND_US;
    assert_true(limit_pass(limit, LIMIT_UP, 65000, later));
    assert_false(limit_pass(limit, LIMIT_UP, 1000, later));
    assert_true(limit_pass(limit, LIMIT_DOWN, 30000, later));
    assert_false(limit_pass(limit, LIMIT_DOWN, 30000, later));
    assert_true(limit_pass(limit, LIMIT_DOWN, 30000, later + 30000)); /* the one that was refused has taken nothing */
    assert_false(limit_pass(limit, LIMIT_UP, 1000, later + 30000));
    assert_true(limit_pass(limit, LIMIT_UP, 1000, later + SECOND_US));
}

static void test_both_directions_share_what_both_have(void **state)
{
    (void)state;
    put("user", "both=1MB/s up=1MB/s both-burst=1B up-burst=1B");
    struct limit *limit = keys_at(keys, hold("user:alice"));
    assert_int_equal(limit_book(limit, LIMIT_UP, 100001, NOW_US), NOW_US + 100000);
    assert_int_equal(limit_book(limit, LIMIT_DOWN, 100000, NOW_US), NOW_US + 200000);
    assert_int_equal(limit_book(limit, LIMIT_UP, 100000, NOW_US), NOW_US + 300000);
    limit_unbook(limit, LIMIT_UP, 100000);
    assert_int_equal(limit_book(limit, LIMIT_DOWN, 50000, NOW_US), NOW_US + 250000);
    put("user", "both=1MB/s up=500kB/s both-burst=1B up-burst=1B"); /* here the direction decides */
    uint64_t due_us = limit_book(limit, LIMIT_UP, 50000, NOW_US + SECOND_US);
    assert_in_range(due_us, NOW_US + SECOND_US + 99000, NOW_US + SECOND_US + 100000);
    limit_unbook(limit, LIMIT_UP, 50000);
    assert_int_equal(limit_book(limit, LIMIT_UP, 50000, NOW_US + SECOND_US), due_us);
}

/* A datagram that the sum refuses has taken nothing of its direction. */
static void test_datagram_that_both_refuse(void **state)
{
    static const struct bucket_rate up = {.pieces = 70000, .seconds = 1, .burst = 70000};
    uint64_t later = NOW_US + 100 * SECOND_US;
    (void)state;
    put("user", "up=70kB/s up-burst=70kB both=1kB/s");
    struct limit *limit = keys_at(keys, hold("user:alice"));
    assert_true(limit_pass(limit, LIMIT_UP, 65000, later));
    for (unsigned i = 0; i < 3; i++) assert_false(limit_pass(limit, LIMIT_UP, 1000, later));
    assert_int_equal(bucket_take(&limit->speed[LIMIT_UP], &up, 4990, later), 0);
    assert_int_not_equal(bucket_take(&limit->speed[LIMIT_UP], &up, 100, later), 0);
}

/* Flows of one key that ask in turn: each gets the same, and all together the rate. */
static void test_flows_get_equal_shares(void **state)
{
    (void)state;
    enum { FLOWS = 8, SECONDS = 4 };
    put("user", "down=1MB/s");
    struct limit *limit = keys_at(keys, hold("user:alice"));
    uint64_t due[FLOWS], got[FLOWS] = {0}, total = 0;
    uint32_t booked[FLOWS];
    for (unsigned i = 0; i < FLOWS; i++) {
        booked[i] = limit_quantum(limit, LIMIT_DOWN);
        due[i] = limit_book(limit, LIMIT_DOWN, booked[i], NOW_US);
        limit_wait(limit, LIMIT_DOWN, 1);
    }
    for (uint64_t now = NOW_US; now < NOW_US + SECONDS * SECOND_US; now += 1000)
        for (unsigned i = 0; i < FLOWS; i++) {
            if (due[i] > now) continue;
            got[i] += booked[i];
            total += booked[i];
            booked[i] = limit_quantum(limit, LIMIT_DOWN);
            due[i] = limit_book(limit, LIMIT_DOWN, booked[i], now);
        }
    for (unsigned i = 0; i < FLOWS; i++) assert_in_range(got[i] * FLOWS, total / 10 * 9, total / 10 * 11);
    assert_in_range(total, SECONDS * 980000, SECONDS * 1000000 + 100001);
}

/* --- keys of a kind, and keys of their own --- */

static void test_nothing_is_bounded_at_first(void **state)
{
    (void)state;
    assert_int_equal(keys_kinds(keys), 0);
    assert_int_equal(hold("user:alice"), KEYS_NONE);
    assert_int_equal(keys_count(keys), 0);
    put("user:alice", "connections=1");
    assert_int_equal(keys_kinds(keys), 1u << LIMIT_USER);
    assert_int_not_equal(hold("user:alice"), KEYS_NONE);
    assert_int_equal(hold("user:bob"), KEYS_NONE);
}

static void test_a_key_of_its_own_counts_before_that_of_its_kind(void **state)
{
    (void)state;
    struct limit_key user = key_of("user"), alice = key_of("user:alice");
    put("user", "connections=1");
    put("user:alice", "connections=2");
    assert_int_equal(put("user:alice", "connections=2"), KEYS_SAME);
    uint32_t a = hold("user:alice");
    assert_int_equal(row_of("user:alice").terms.connections, 2);
    put("user", "connections=7");
    assert_int_equal(row_of("user:alice").terms.connections, 2);
    assert_true(keys_remove(keys, &alice, NOW_US));
    assert_false(keys_remove(keys, &alice, NOW_US));
    assert_int_equal(row_of("user:alice").terms.connections, 7);
    assert_false(row_of("user:alice").put);
    assert_true(keys_remove(keys, &user, NOW_US));
    assert_false(keys_remove(keys, &user, NOW_US));
    assert_int_equal(row_of("user:alice").terms.connections, LIMIT_CONNECTIONS_NONE);
    assert_int_equal(keys_kinds(keys), 0);
    put("user", "connections=3"); /* who is there obeys it at once */
    assert_int_equal(row_of("user:alice").terms.connections, 3);
    keys_release(keys, a);
}

/* What was booked at a rate that holds no more must not be waited for. */
static void test_a_change_voids_what_was_booked(void **state)
{
    (void)state;
    put("user", "down=1kB/s");
    struct limit *limit = keys_at(keys, hold("user:alice"));
    uint32_t version = atomic_load(&limit->version);
    assert_true(limit_book(limit, LIMIT_DOWN, 1000000, NOW_US) > NOW_US + 900 * SECOND_US);
    assert_int_equal(put("user", "down=1kB/s"), KEYS_SAME);
    assert_int_equal(atomic_load(&limit->version), version);
    put("user", "down=1MB/s");
    assert_int_not_equal(atomic_load(&limit->version), version);
    assert_int_equal(limit_book(limit, LIMIT_DOWN, 1000, NOW_US), NOW_US + 1000);
}

static void test_sources_are_told_apart_as_the_limit_says(void **state)
{
    (void)state;
    struct address client;
    struct limit_key key;
    char text[LIMIT_KEY_TEXT_SIZE];
    assert_true(address_from_host("2001:db8:1:2:3::4", 17, 0, &client));
    put("source/24/48", "connections=1");
    keys_source_key(keys, &client, &key);
    limit_key_format(&key, text, sizeof text);
    assert_string_equal(text, "source:2001:db8:1::/48");
    assert_int_equal(put("source", "connections=1"), KEYS_CHANGED);
    keys_source_key(keys, &client, &key);
    limit_key_format(&key, text, sizeof text);
    assert_string_equal(text, "source:2001:db8:1:2::/64");
}

static void test_a_session_is_under_four_kinds_at_most(void **state)
{
    (void)state;
    assert_int_equal(put("source", "connections=1"), KEYS_CHANGED);
    assert_int_equal(put("user:a", "connections=1"), KEYS_CHANGED);
    assert_int_equal(put("total", "connections=1"), KEYS_CHANGED);
    assert_int_equal(put("rule", "connections=1"), KEYS_CHANGED);
    assert_int_equal(put("target", "connections=1"), KEYS_TOO_MANY);
    assert_int_equal(put("user:b", "connections=1"), KEYS_CHANGED);
    assert_int_equal(put("gold", "connections=1"), KEYS_CHANGED);
}

static void test_names_of_a_ruleset_come_by_handle(void **state)
{
    (void)state;
    struct limit_key key = key_of("gold");
    struct limit_terms terms = terms_of("down=1MB/s");
    uint64_t handle, again;
    uint32_t held;
    assert_int_equal(keys_name(keys, &key, &terms, NOW_US, &handle), KEYS_CHANGED);
    assert_int_equal(keys_name(keys, &key, &terms, NOW_US, &again), KEYS_SAME);
    assert_true(handle == again);
    assert_true(keys_hold_again(keys, handle, &held));
    assert_true(limit_key_equal(keys_key(keys, held), &key));
    keys_release(keys, held);
    put("source", "connections=1");
    for (unsigned i = 0; i < 1000; i++) { /* it leaves, and its place gets another owner */
        char text[40];
        snprintf(text, sizeof text, "source:10.1.%u.%u", i / 256, i % 256);
        keys_release(keys, hold_at(text, false, NOW_US));
    }
    assert_false(keys_hold_again(keys, handle, &held));
}

static void test_all_keys_are_shown_once(void **state)
{
    (void)state;
    struct keys_row row;
    uint32_t at = 0, rows = 0, kinds = 0;
    put("source", "connections=1");
    put("total", "connections=5");
    put("user:alice", "connections=5");
    for (unsigned i = 0; i < 20; i++) {
        char text[40];
        snprintf(text, sizeof text, "source:10.1.0.%u", i);
        hold(text);
    }
    while (keys_next(keys, &at, NOW_US, &row)) {
        rows++;
        kinds += row.key.every;
    }
    assert_int_equal(kinds, 1);
    assert_int_equal(rows, 1 + 22);
    assert_int_equal(keys_count(keys), 22);
}

/* --- a full table --- */

static void fill_with_sources(unsigned from, unsigned count, bool stranger)
{
    for (unsigned i = from; i < from + count; i++) {
        char text[60];
        snprintf(text, sizeof text, "source:2001:db8:%x:%x::1", i >> 16, i & 0xffff);
        struct limit_key key = key_of(text);
        uint32_t held;
        if (keys_hold(keys, &key, stranger, NOW_US, &held) == KEYS_FOUND) keys_release(keys, held);
    }
}

/* Any number of networks of one attacker: the table does not grow, and whoever has a session or a quota stays. */
static void test_strangers_push_out_nobody_who_matters(void **state)
{
    (void)state;
    put("source", "connections=1");
    put("user", "quota=1GB");
    uint32_t alice = hold("user:alice");
    assert_int_equal(admit(alice), LIMIT_ADMITTED);
    uint32_t bob = hold("user:bob");
    assert_int_equal(move(bob, LIMIT_UP, 123), 123);
    keys_release(keys, bob);
    fill_with_sources(0, 20000, true);
    assert_true(keys_count(keys) <= 128);
    assert_int_equal(row_of("user:alice").connections, 1);
    assert_int_equal(row_of("user:bob").used[LIMIT_BOTH], 123);
}

static void test_addresses_of_a_network_are_one_key(void **state)
{
    (void)state;
    put("source", "connections=1");
    for (unsigned i = 0; i < 10000; i++) {
        char text[60];
        snprintf(text, sizeof text, "2001:db8:1:2:%x::%x", i >> 8, i);
        struct address client;
        struct limit_key key;
        uint32_t held;
        assert_true(address_from_host(text, strlen(text), 0, &client));
        keys_source_key(keys, &client, &key);
        assert_int_equal(keys_hold(keys, &key, true, NOW_US, &held), KEYS_FOUND);
        assert_int_equal(admit(held), i == 0 ? LIMIT_ADMITTED : LIMIT_CONNECTIONS);
    }
    assert_int_equal(keys_count(keys), 1);
}

/* With no room left whoever needs some is refused: not let in without a limit. */
static void test_a_full_table_refuses(void **state)
{
    (void)state;
    unsigned strangers = 0, others = 0;
    put("source", "connections=1");
    for (unsigned i = 0; i < 1000; i++) {
        char text[60];
        snprintf(text, sizeof text, "source:10.0.%u.%u", i >> 8, i & 255);
        struct limit_key key = key_of(text);
        uint32_t held;
        bool stranger = i < 500;
        enum keys_found found = keys_hold(keys, &key, stranger, NOW_US, &held);
        assert_int_not_equal(found, KEYS_UNBOUNDED);
        strangers += stranger && found == KEYS_FOUND;
        others += !stranger && found == KEYS_FOUND;
    }
    assert_int_equal(strangers, 96); /* three quarters of 128 */
    assert_int_equal(others, 32);
    assert_int_equal(put("gold", "connections=1"), KEYS_NO_ROOM);
    assert_int_equal(put("source", "connections=2"), KEYS_CHANGED);
}

static void test_the_one_that_was_not_used_for_longest_leaves(void **state)
{
    (void)state;
    struct keys_row row;
    unsigned known = 0;
    put("source", "connections=1");
    fill_with_sources(0, 128, false);
    for (unsigned round = 1; round <= 50; round++) {
        fill_with_sources(1000 * round, 8, false); /* new ones */
        fill_with_sources(0, 16, false);           /* and a few that come again and again */
    }
    for (unsigned i = 0; i < 16; i++) {
        char text[60];
        snprintf(text, sizeof text, "source:2001:db8:0:%x::1", i);
        struct limit_key key = key_of(text);
        known += keys_find(keys, &key, NOW_US, &row) && row.admitted == 0;
    }
    assert_int_equal(known, 16);
}

static void test_a_quota_leaves_when_its_period_is_over(void **state)
{
    (void)state;
    put("source", "quota=1kB/hour");
    for (unsigned i = 0; i < 128; i++) {
        char text[40];
        snprintf(text, sizeof text, "source:10.1.0.%u", i);
        uint32_t held = hold(text);
        move(held, LIMIT_UP, 1);
        keys_release(keys, held);
    }
    struct limit_key key = key_of("source:10.2.0.1");
    uint32_t held;
    assert_int_equal(keys_hold(keys, &key, false, NOW_US, &held), KEYS_FULL);
    assert_int_equal(keys_hold(keys, &key, false, NOW_US + 3600 * SECOND_US, &held), KEYS_FOUND);
}

/* --- threads --- */

static struct {
    _Atomic uint32_t admitted, full, wrong;
} shared;
static pthread_barrier_t start; /* of all threads: who waits for it leaves its processor to the others */

static void run_threads(void *(*function)(void *))
{
    pthread_t threads[THREADS];
    memset(&shared, 0, sizeof shared);
    assert_int_equal(pthread_barrier_init(&start, NULL, THREADS), 0);
    for (uintptr_t i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, function, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
}

static void *admit_many(void *argument)
{
    uint64_t salt = (uintptr_t)argument;
    struct limit_time time = keys_time(keys, NOW_US);
    pthread_barrier_wait(&start);
    for (unsigned i = 0; i < 3000; i++) {
        char text[40];
        struct limit_key key;
        uint32_t held;
        uint64_t wait_us;
        salt = salt * 6364136223846793005u + 1442695040888963407u;
        unsigned number = i < 1500 ? i / 30 : (unsigned)(salt >> 40) % 5000; /* together, then each its own */
        int size = snprintf(text, sizeof text, "user:%u", number);
        if (limit_key_parse(text, (size_t)size, &key)) continue;
        if (keys_hold(keys, &key, false, NOW_US, &held) != KEYS_FOUND) {
            atomic_fetch_add(&shared.full, 1);
            continue;
        }
        if (!limit_key_equal(keys_key(keys, held), &key)) atomic_fetch_add(&shared.wrong, 1);
        struct limit *limit = keys_at(keys, held);
        bool in = number < 50 && limit_admit(limit, &time, &wait_us) == LIMIT_ADMITTED;
        if (in)
            atomic_fetch_add(&shared.admitted, 1); /* and stays */
        else
            keys_release(keys, held);
    }
    return NULL;
}

/* Sixteen workers make the same keys at the same moment, and others that come and go: each key exists once, so that
 * exactly as many are admitted as its limit says. */
static void admit_by_threads(void)
{
    put("user", "connections=3");
    run_threads(admit_many);
    assert_int_equal(shared.wrong, 0);
    assert_int_equal(shared.full, 0);
    assert_int_equal(shared.admitted, 50 * 3);
    for (unsigned i = 0; i < 50; i++) {
        char text[40];
        snprintf(text, sizeof text, "user:%u", i);
        assert_int_equal(row_of(text).connections, 3);
    }
}

static void test_threads_make_each_key_once(void **state)
{
    for (unsigned round = 0; round < 6; round++) {
        teardown(state);
        setup(state);
        admit_by_threads();
    }
}

static void *make_and_leave(void *argument)
{
    uint64_t salt = (uintptr_t)argument + 99;
    pthread_barrier_wait(&start);
    for (unsigned i = 0; i < (SUPPORT_SANITIZED ? 2500 : 20000); i++) {
        char text[40];
        struct limit_key key;
        uint32_t held;
        salt = salt * 6364136223846793005u + 1442695040888963407u;
        int size = snprintf(text, sizeof text, "user:%u", (unsigned)(salt >> 40) % 200);
        if (limit_key_parse(text, (size_t)size, &key)) continue;
        if (keys_hold(keys, &key, false, NOW_US, &held) != KEYS_FOUND) continue;
        /* A quota of its own holds it: it must not be forgotten between the two. */
        struct limit_time time = keys_time(keys, NOW_US);
        bool spent = false;
        uint32_t taken = limit_take(keys_at(keys, held), LIMIT_UP, 1, &time, &spent);
        limit_settle(keys_at(keys, held), LIMIT_UP, taken, taken, true);
        atomic_fetch_add(&shared.admitted, taken);
        keys_release(keys, held);
    }
    return NULL;
}

/* Half of the keys find no room; of those that do, nobody gets an octet more than the quota. */
static void test_threads_forget_no_quota(void **state)
{
    (void)state;
    put("user", "quota=7B");
    run_threads(make_and_leave);
    assert_int_equal(shared.admitted, 128 * 7);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_as_many_connections_as_the_limit_says),
        TEST(test_a_rate_says_how_long_to_wait_and_takes_no_place),
        TEST(test_a_key_begins_with_its_burst_however_it_comes),
        TEST(test_the_burst_of_a_rate_is_one_of_its_periods),
        TEST(test_a_spent_quota_lets_nobody_in),
        TEST(test_a_quota_goes_on_with_its_period),
        TEST(test_octets_of_an_old_hour_do_not_come_back),
        TEST(test_what_did_not_move_comes_back),
        TEST(test_turns_are_short_however_many_wait),
        TEST(test_datagrams_pass_as_a_whole_or_not),
        TEST(test_both_directions_share_what_both_have),
        TEST(test_datagram_that_both_refuse),
        TEST(test_flows_get_equal_shares),
        TEST(test_nothing_is_bounded_at_first),
        TEST(test_a_key_of_its_own_counts_before_that_of_its_kind),
        TEST(test_a_change_voids_what_was_booked),
        TEST(test_sources_are_told_apart_as_the_limit_says),
        TEST(test_a_session_is_under_four_kinds_at_most),
        TEST(test_names_of_a_ruleset_come_by_handle),
        TEST(test_all_keys_are_shown_once),
        TEST(test_strangers_push_out_nobody_who_matters),
        TEST(test_addresses_of_a_network_are_one_key),
        TEST(test_a_full_table_refuses),
        TEST(test_the_one_that_was_not_used_for_longest_leaves),
        TEST(test_a_quota_leaves_when_its_period_is_over),
        TEST(test_threads_make_each_key_once),
        TEST(test_threads_forget_no_quota),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
