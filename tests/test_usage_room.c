/* How accounts in memory make room: what leaves the past while others read it, what the ledger lets go and what it
 * books on a kind, and which keys are needed. On a clock of ours. */
#include "core/usage/ledger.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/session/keys.h"
#include "tests/limit_keys.h"
#include "tests/support.h"
#include "tests/usage_time.h"

static struct limit_key user(uint32_t number)
{
    char text[32];
    snprintf(text, sizeof text, "user:u%u", number);
    return key_of(text);
}

/* --- past --- */

static void test_a_key_that_was_taken_out_is_not_found(void **state)
{
    (void)state;
    struct past *past;
    struct limit_sums sums;
    struct limit_key keys[64], got;
    struct limit_time time = at(WALL_S);
    assert_int_equal(past_open(&past, 64), 0);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 64; i++) {
            keys[i] = user(round * 64 + i);
            uint32_t index = past_make(past, &keys[i]);
            assert_true(index < 64);
            past_add(past, index, (uint64_t[]){i + 1, round}, &time);
        }
        assert_true(past_count(past) == 64 && past_make(past, &(struct limit_key){.kind = LIMIT_TOTAL}) == PAST_NONE);
        for (unsigned i = 0; i < 64; i++) { /* nothing of a key that had the record before */
            assert_true(past_read(past, &keys[i], &time, &sums));
            for (unsigned p = 0; p < LIMIT_PERIODS; p++)
                assert_true(sums.octets[p][0] == i + 1 && sums.octets[p][1] == round);
            past_key(past, past_find(past, &keys[i]), &got);
            assert_true(limit_key_equal(&got, &keys[i]));
        }
        for (unsigned i = 0; i < 64; i++) {
            unsigned odd = i * 29 % 64; /* in another order, so that chains lose their first, middle and last */
            past_remove(past, past_find(past, &keys[odd]));
            assert_false(past_read(past, &keys[odd], &time, &sums));
            assert_true(sums.octets[LIMIT_EVER][0] == 0 && past_count(past) == 63 - i);
        }
    }
    past_close(past);
}

static void test_sources_of_all_widths_have_one_kind(void **state)
{
    (void)state;
    struct past *past;
    struct limit_key got, every = key_of("source/24/48");
    char text[LIMIT_KEY_TEXT_SIZE];
    assert_int_equal(past_open(&past, 4), 0);
    past_make(past, &(struct limit_key){.kind = LIMIT_SOURCE, .every = true});
    past_key(past, past_find(past, &every), &got);
    limit_key_format(&got, text, sizeof text);
    assert_string_equal(text, "source");
    past_close(past);
}

struct readers {
    struct past *past;
    struct limit_time time;
    _Atomic bool ends;
    _Atomic uint64_t reads, found;
};

#define READ_KEYS 512u

/* What is read of a key is its own: all of it, or what there was before all was added. */
static void *read_keys(void *argument)
{
    struct readers *r = argument;
    struct limit_sums sums;
    struct limit_key alice = key_of("user:alice");
    for (uint32_t i = 0; !atomic_load(&r->ends); i++) {
        uint64_t number = i % READ_KEYS + 1;
        struct limit_key key = user((uint32_t)number);
        bool found = past_read(r->past, &key, &r->time, &sums);
        uint64_t up = sums.octets[LIMIT_EVER][0], down = sums.octets[LIMIT_EVER][1];
        assert_true(found ? (up == 0 || up == number) && (down == 0 || down == 2 * number) : up == 0 && down == 0);
        assert_true(past_read(r->past, &alice, &r->time, &sums));
        assert_true(sums.octets[LIMIT_DAY][0] == 77 && sums.octets[LIMIT_EVER][1] == 78);
        atomic_fetch_add(&r->reads, 1);
        if (found) atomic_fetch_add(&r->found, 1);
    }
    return NULL;
}

static void test_readers_see_nothing_of_another_key(void **state)
{
    (void)state;
    struct readers readers = {.time = at(WALL_S)};
    struct limit_key alice = key_of("user:alice");
    pthread_t threads[3];
    uint32_t first = 1;
    assert_int_equal(past_open(&readers.past, 33), 0);
    past_add(readers.past, past_make(readers.past, &alice), (uint64_t[]){77, 78}, &readers.time);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, read_keys, &readers), 0);
    for (uint32_t i = 1; atomic_load(&readers.found) < 2000 || i < 20000; i++) {
        uint32_t number = i % READ_KEYS + 1;
        struct limit_key key = user(number), oldest = user(first);
        if (past_count(readers.past) == 33) {
            past_remove(readers.past, past_find(readers.past, &oldest));
            first = first % READ_KEYS + 1;
        } else if (i == 1) {
            first = number;
        }
        past_add(readers.past, past_make(readers.past, &key), (uint64_t[]){number, 2 * (uint64_t)number},
                 &readers.time);
    }
    atomic_store(&readers.ends, true);
    for (unsigned i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    assert_true(readers.reads > readers.found); /* it was not all of it there all of the time */
    past_close(readers.past);
}

/* --- ledger --- */

struct seen {
    uint64_t rows, octets, of_kinds;
};

static int see(void *context, const struct limit_key *key, const struct ledger_row *row)
{
    struct seen *seen = context;
    seen->rows++;
    seen->octets += row->octets[0];
    if (key->every) seen->of_kinds += row->octets[0];
    return 0;
}

static void add(struct ledger *ledger, const char *key, uint64_t octets, int64_t wall_s)
{
    struct limit_time time = at(wall_s);
    struct limit_key k = key_of(key);
    ledger_add(ledger, &k, &(struct limit_use){.octets = {octets, 0}}, &time);
}

static uint64_t sum_of(const struct ledger *ledger, const char *key)
{
    struct limit_time time = at(WALL_S);
    struct limit_key k = key_of(key);
    struct limit_sums sums;
    return past_read(ledger_past(ledger), &k, &time, &sums) ? sums.octets[LIMIT_EVER][0] : UINT64_MAX;
}

static void test_keys_that_are_written_make_room(void **state)
{
    (void)state;
    struct ledger *l;
    struct seen seen = {0};
    assert_int_equal(ledger_open(&l, 3), 0);
    add(l, "user:a", 1, WALL_S);
    add(l, "user:b", 2, WALL_S);
    add(l, "user:c", 4, WALL_S);
    add(l, "user:d", 8, WALL_S); /* nobody is written: it is booked on its kind */
    assert_true(ledger_merged(l) == 1 && ledger_evicted(l) == 0 && sum_of(l, "user:d") == UINT64_MAX);
    ledger_clear(l);
    add(l, "user:a", 16, WALL_S); /* now `b' is the oldest */
    add(l, "user:d", 32, WALL_S);
    assert_true(ledger_evicted(l) == 1 && sum_of(l, "user:b") == UINT64_MAX);
    assert_true(sum_of(l, "user:a") == 17 && sum_of(l, "user:c") == 4 && sum_of(l, "user:d") == 32);
    ledger_each(l, see, &seen);
    assert_true(seen.rows == 2 && seen.octets == 48 && ledger_merged(l) == 1);
    add(l, "user", 1, WALL_S); /* of keys that were too many for the table's queue */
    assert_true(ledger_merged(l) == 2 && sum_of(l, "user") == 9);
    ledger_close(l);
}

struct outside {
    bool knows;
    unsigned asked;
};

static bool stay_if_named_so(void *context, const struct limit_key *key, const struct limit_sums *sums, bool used,
                             const struct limit_time *time)
{
    struct outside *outside = context;
    (void)time;
    outside->asked++;
    assert_true(used == (key->name[0] != 'l')); /* that one was loaded */
    assert_true(sums->octets[LIMIT_EVER][0] > 0);
    return key->name[0] != 's';
}

static bool recall(void *context, const struct limit_key *key, const struct limit_time *time, struct limit_sums *sums)
{
    const struct outside *outside = context;
    (void)time;
    *sums = (struct limit_sums){.octets[LIMIT_EVER] = {100, 0}};
    return outside->knows && key->name[0] == 'a';
}

static void test_who_is_needed_stays_and_who_comes_back_is_known(void **state)
{
    (void)state;
    struct ledger *l;
    struct outside outside = {.knows = true};
    struct limit_key loaded = key_of("user:loaded");
    struct limit_time time = at(WALL_S);
    assert_int_equal(ledger_open(&l, 3), 0);
    ledger_set_hooks(l, &(struct ledger_hooks){&outside, stay_if_named_so, recall});
    add(l, "user:a", 1, WALL_S);
    assert_int_equal(sum_of(l, "user:a"), 1); /* nobody has left yet, so that nobody is asked for */
    add(l, "user:stays", 1, WALL_S);
    assert_true(ledger_load(l, &loaded, &(struct limit_sums){.octets[LIMIT_EVER] = {5, 0}}, &time));
    ledger_clear(l);
    uint32_t index = past_find(ledger_past(l), &loaded), generation = ledger_generation(l, index);
    add(l, "user:b", 1, WALL_S);
    assert_true(sum_of(l, "user:loaded") == UINT64_MAX && outside.asked == 1); /* what was loaded is the oldest */
    assert_int_equal(ledger_generation(l, index), generation + 1);
    ledger_clear(l);
    for (unsigned i = 0; i < 10; i++) {
        char key[32];
        snprintf(key, sizeof key, "user:x%u", i);
        add(l, key, 1, WALL_S + (int64_t)i * HOUR_S);
        ledger_clear(l);
    }
    assert_true(sum_of(l, "user:stays") == 1 && sum_of(l, "user:a") == UINT64_MAX && ledger_merged(l) == 0);
    add(l, "user:a", 1, WALL_S + 10 * HOUR_S);
    assert_int_equal(sum_of(l, "user:a"), 101);
    ledger_close(l);
}

/* A million addresses: memory is what there is room for, nothing is lost, the database gets rows of twice as many keys
 * an hour at most, and who was there before and is needed is there still. */
static void test_a_million_sources(void **state)
{
    (void)state;
    enum { ROOM = 1000, SOURCES = SUPPORT_SANITIZED ? 100000 : 1000000 };
    struct ledger *l;
    struct seen seen = {0};
    struct outside outside = {.knows = false};
    struct limit_time time = at(WALL_S);
    assert_int_equal(ledger_open(&l, ROOM), 0);
    ledger_set_hooks(l, &(struct ledger_hooks){&outside, stay_if_named_so, NULL});
    add(l, "user:stays", 1, WALL_S);
    for (uint32_t i = 0; i < SOURCES; i++) {
        struct address client = {.kind = ADDRESS_IPV6, .ipv6 = {0x20, 1, 0xd, 0xb8}};
        struct limit_key key;
        memcpy(client.ipv6 + 4, &i, sizeof i);
        limit_key_source(&client, (uint8_t[]){32, 64}, &key);
        ledger_add(l, &key, &(struct limit_use){.octets = {1, 0}}, &time);
        if (i % (ROOM / 2) != 0) continue;
        ledger_each(l, see, &seen);
        ledger_clear(l);
    }
    ledger_each(l, see, &seen);
    assert_int_equal(past_count(ledger_past(l)), ledger_room(l));
    assert_int_equal(seen.octets, SOURCES + 1);
    assert_int_equal(ledger_evicted(l), ledger_room(l));
    assert_int_equal(seen.of_kinds, ledger_merged(l));
    assert_int_equal(seen.of_kinds, SOURCES + 1 - (ROOM + ledger_room(l)));
    assert_int_equal(sum_of(l, "user:stays"), 1);
    ledger_clear(l);
    uint64_t before = ledger_evicted(l);
    add(l, "user:new", 1, WALL_S + HOUR_S); /* another hour */
    assert_true(ledger_evicted(l) == before + 1 && sum_of(l, "user:new") == 1);
    ledger_close(l);
}

/* --- which keys are needed --- */

static void put(struct keys *keys, const char *key, const char *terms)
{
    struct limit_key k = key_of(key);
    struct limit_terms t;
    assert_null(limit_terms_parse(terms, strlen(terms), &t));
    assert_int_equal(keys_put(keys, &k, &t, NOW_US), KEYS_CHANGED);
}

static bool need(struct keys *keys, const char *key, enum limit_period period, uint64_t down)
{
    struct limit_key k = key_of(key);
    struct limit_time time = keys_time(keys, NOW_US);
    struct limit_sums sums = {.under_way = {0}};
    sums.octets[period][1] = down;
    return keys_need(keys, &k, &sums, &time);
}

static void test_which_keys_are_needed(void **state)
{
    (void)state;
    struct keys *keys;
    uint32_t held;
    assert_int_equal(keys_open(&keys, 16, NOW_US, WALL_S), 0);
    put(keys, "user", "quota=1kB/month");
    put(keys, "source", "connections=5");
    put(keys, "target:example.org", "quota-up=1kB/day");
    assert_int_equal(keys_quota_kinds(keys), 1u << LIMIT_USER | 1u << LIMIT_TARGET | 1u << LIMIT_NAMED);
    assert_true(need(keys, "user:a", LIMIT_MONTH, 1)); /* it is not there: it would have used that of its quota */
    assert_false(need(keys, "user:a", LIMIT_DAY, 1));
    assert_false(need(keys, "user:a", LIMIT_MONTH, 0));
    assert_false(need(keys, "source:192.0.2.1", LIMIT_MONTH, 1));
    assert_true(need(keys, "target:example.org", LIMIT_DAY, 0)); /* it was put */
    assert_false(need(keys, "target:example.net", LIMIT_DAY, 1));
    struct limit_key source = key_of("source:192.0.2.1");
    assert_int_equal(keys_hold(keys, &source, true, NOW_US, &held), KEYS_FOUND);
    assert_true(need(keys, "source:192.0.2.1", LIMIT_EVER, 0)); /* a session is under it */
    keys_release(keys, held);
    assert_false(need(keys, "source:192.0.2.1", LIMIT_EVER, 1));
    uint64_t handle;
    struct limit_key gold = key_of("gold");
    struct limit_terms terms;
    assert_null(limit_terms_parse("quota=1kB/day", 13, &terms));
    assert_int_equal(keys_name(keys, &gold, &terms, NOW_US, &handle), KEYS_CHANGED);
    assert_false(need(keys, "gold", LIMIT_DAY, 1)); /* its own counters say that nothing is used */
    struct limit_time time = keys_time(keys, NOW_US);
    bool spent = false;
    assert_true(keys_hold_again(keys, handle, &held));
    assert_int_equal(limit_take(keys_at(keys, held), LIMIT_UP, 1, &time, &spent), 1);
    keys_release(keys, held);
    assert_true(need(keys, "gold", LIMIT_DAY, 0));
    keys_close(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_key_that_was_taken_out_is_not_found),
        cmocka_unit_test(test_sources_of_all_widths_have_one_kind),
        cmocka_unit_test(test_readers_see_nothing_of_another_key),
        cmocka_unit_test(test_keys_that_are_written_make_room),
        cmocka_unit_test(test_who_is_needed_stays_and_who_comes_back_is_known),
        cmocka_unit_test(test_a_million_sources),
        cmocka_unit_test(test_which_keys_are_needed),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
