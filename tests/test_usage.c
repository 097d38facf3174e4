/* core/usage/ledger and store, core/session/past and departures, and what quotas take over from them: on a clock of
 * ours, and by several threads at a time. */
#include "core/usage/ledger.h"

#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/session/departures.h"
#include "core/session/keys.h"
#include "core/usage/store.h"
#include "tests/limit_keys.h"
#include "tests/support.h"
#include "tests/usage_time.h"

/* --- quotas --- */

static void test_a_quota_takes_over(void **state)
{
    (void)state;
    struct quota q;
    quota_restore(&q, 1000, 70);
    assert_int_equal(quota_taken(&q), 0);
    struct quota_grant grant = quota_take(&q, 100, 1000, 50);
    assert_int_equal(grant.octets, 30);
    quota_settle(&q, &grant, 30);
    assert_true(quota_is_spent(&q, 100, 1000) && quota_taken(&q) == 30);
    quota_adopt(&q, 2000, 45); /* another kind of period */
    assert_int_equal(quota_used(&q, 2000), 45);
    assert_int_equal(quota_take(&q, 100, 2000, 99).octets, 55);
    quota_adopt(&q, 2000, 5); /* somebody else has begun it first */
    assert_int_equal(quota_used(&q, 2000), 105);
    assert_int_equal(quota_take(&q, 100, 3000, 1000).octets, 100); /* and the next one is whole */
    assert_int_equal(quota_taken(&q), 30 + 55 + 100);
}

static void test_what_is_used_elsewhere_counts_here(void **state)
{
    (void)state;
    struct quota q;
    quota_open(&q, 1000);
    quota_set_elsewhere(&q, 1000, 60);
    assert_int_equal(quota_take(&q, 100, 1000, 30).octets, 30);
    assert_int_equal(quota_used(&q, 1000), 90);
    quota_set_elsewhere(&q, 1000, 65);
    quota_give(&q, 1000, 2);
    quota_give(&q, 999, 50); /* it is not that period any more */
    assert_int_equal(quota_take(&q, 100, 1000, 30).octets, 3);
    assert_false(quota_is_spent(&q, 100, 1000)); /* nothing is settled */
    struct quota_grant all = {.octets = 33, .period = 1000};
    quota_settle(&q, &all, 33);
    assert_true(quota_is_spent(&q, 100, 1000));
    quota_set_elsewhere(&q, 1000, 200);
    assert_int_equal(quota_take(&q, 100, 1000, 1).octets, 0);
    assert_int_equal(quota_take(&q, UINT64_MAX, 1000, 10).octets, 10);
    assert_int_equal(quota_take(&q, 100, 2000, 30).octets, 30); /* of another period */
}

/* --- past --- */

static void test_sums_by_period(void **state)
{
    (void)state;
    struct past *past;
    struct limit_sums sums;
    struct limit_key alice = key_of("user:alice"), bob = key_of("user:bob");
    assert_int_equal(past_open(&past, 1), 0);
    struct limit_time time = at(WALL_S - HOUR_S); /* Sunday, the 29th, 23 h */
    assert_int_equal(past_find(past, &alice), PAST_NONE);
    assert_int_equal(past_make(past, &alice), 0);
    assert_int_equal(past_make(past, &alice), 0);
    assert_int_equal(past_make(past, &bob), PAST_NONE);
    past_add(past, 0, (uint64_t[]){10, 1}, &time);
    time = at(WALL_S);
    assert_true(past_read(past, &alice, &time, &sums));
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) /* of hour, day and week nothing is left */
        assert_int_equal(sums.octets[i][0], i < LIMIT_MONTH ? 0 : 10);
    past_add(past, 0, (uint64_t[]){5, 2}, &time);
    time = at(WALL_S + HOUR_S);
    past_add(past, 0, (uint64_t[]){100, 0}, &time);
    past_sums(past, 0, &time, &sums);
    static const uint64_t up[] = {100, 105, 105, 115, 115}, down[] = {0, 2, 2, 3, 3};
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) {
        assert_int_equal(sums.octets[i][0], up[i]);
        assert_int_equal(sums.octets[i][1], down[i]);
    }
    time = at(WALL_S + 25 * HOUR_S); /* December */
    past_sums(past, 0, &time, &sums);
    assert_true(sums.octets[LIMIT_MONTH][0] == 0 && sums.octets[LIMIT_WEEK][0] == 105 &&
                sums.octets[LIMIT_EVER][0] == 115);
    past_close(past);
}

/* --- departures --- */

static void test_departures_keep_their_order_and_lose_nothing(void **state)
{
    (void)state;
    struct departures *d;
    struct limit_key key = key_of("user:a"), got;
    struct limit_use use = {.octets = {1, 2}, .connections = 1, .refused = 3}, sum = {0};
    assert_int_equal(departures_open(&d), 0);
    assert_false(departures_take(d, &got, &use));
    for (unsigned i = 0; i < DEPARTURES_MAX + 10; i++) {
        use.octets[0] = i;
        departures_put(d, &key, &use);
    }
    for (unsigned i = 0; i < DEPARTURES_MAX; i++) {
        assert_true(departures_take(d, &got, &use));
        assert_true(limit_key_equal(&got, &key) && use.octets[0] == i);
    }
    assert_false(departures_take(d, &got, &use));
    assert_true(departures_take_rest(d, &got, &sum));
    assert_true(got.kind == LIMIT_USER && got.every && sum.connections == 10 && sum.refused == 30 &&
                sum.octets[1] == 20);
    assert_int_equal(sum.octets[0], 10 * DEPARTURES_MAX + 45);
    assert_false(departures_take_rest(d, &got, &sum));
    departures_close(d);
}

/* --- ledger --- */

struct seen {
    unsigned rows;
    struct limit_use use;
    int64_t hours;
    bool fails;
};

static int see(void *context, const struct limit_key *key, const struct ledger_row *row)
{
    struct seen *seen = context;
    (void)key;
    seen->rows++;
    seen->hours += row->hour - WALL_S;
    for (unsigned i = 0; i < 2; i++) seen->use.octets[i] += row->octets[i];
    return seen->fails && seen->rows == 2 ? -1 : 0;
}

static void add(struct ledger *ledger, const char *key, uint64_t octets, int64_t wall_s)
{
    struct limit_time time = at(wall_s);
    struct limit_key k = key_of(key);
    ledger_add(ledger, &k, &(struct limit_use){.octets = {octets, 1}, .connections = 1}, &time);
}

static void test_rows_by_key_and_hour(void **state)
{
    (void)state;
    struct ledger *l;
    struct seen seen = {0};
    assert_int_equal(ledger_open(&l, 4), 0);
    add(l, "user:a", 1, WALL_S);
    add(l, "user:a", 2, WALL_S + HOUR_S - 1);
    add(l, "user:b", 4, WALL_S);
    add(l, "user:a", 8, WALL_S + HOUR_S);
    assert_int_equal(ledger_rows(l), 3);
    assert_int_equal(ledger_each(l, see, &seen), 0);
    assert_true(seen.rows == 3 && seen.use.octets[0] == 15 && seen.hours == HOUR_S);
    seen = (struct seen){.fails = true};
    assert_int_equal(ledger_each(l, see, &seen), -1);
    assert_true(seen.rows == 2 && ledger_rows(l) == 3);
    ledger_clear(l);
    assert_int_equal(ledger_rows(l), 0);
    add(l, "user:a", 16, WALL_S + HOUR_S);
    seen = (struct seen){0};
    ledger_each(l, see, &seen);
    assert_true(seen.rows == 1 && seen.use.octets[0] == 16 && seen.hours == HOUR_S);
    ledger_close(l);
}

static void test_a_full_ledger_books_on_the_kind(void **state)
{
    (void)state;
    struct ledger *l;
    struct seen seen = {0};
    char key[32];
    assert_int_equal(ledger_open(&l, 4), 0);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "source:192.0.2.%u", i);
        add(l, key, 1, WALL_S);
    }
    assert_true(ledger_rows(l) == 5 && ledger_merged(l) == 96);
    ledger_each(l, see, &seen);
    assert_int_equal(seen.use.octets[0], 100);
    struct limit_key kind = {.kind = LIMIT_SOURCE, .every = true};
    struct limit_time time = at(WALL_S);
    struct limit_sums sums;
    assert_true(past_read(ledger_past(l), &kind, &time, &sums));
    assert_int_equal(sums.octets[LIMIT_DAY][0], 96);
    ledger_close(l);
}

static void test_a_backlog_is_bounded_and_sums_stay_right(void **state)
{
    (void)state;
    struct ledger *l;
    struct seen seen = {0};
    assert_int_equal(ledger_open(&l, 4), 0);
    struct limit_key key = key_of("user:a");
    struct limit_time time = at(WALL_S);
    for (unsigned i = 0; i < LEDGER_BACKLOG_MAX + 100; i++) {
        if (i % 10 == 0) time = at(WALL_S + (int64_t)i * HOUR_S);
        time.wall_s = WALL_S + (int64_t)i * HOUR_S;
        ledger_add(l, &key, &(struct limit_use){.octets = {1, 0}}, &time);
    }
    assert_int_equal(ledger_rows(l), LEDGER_BACKLOG_MAX + 1);
    ledger_each(l, see, &seen);
    assert_int_equal(seen.use.octets[0], LEDGER_BACKLOG_MAX + 100);
    ledger_close(l);
}

/* --- keys --- */

struct total {
    struct limit_use use;
    unsigned calls;
    struct ledger *ledger;
    struct limit_time time;
};

static void take(void *context, const struct limit_key *key, const struct limit_use *use)
{
    struct total *total = context;
    total->calls++;
    for (unsigned i = 0; i < 2; i++) total->use.octets[i] += use->octets[i];
    total->use.connections += use->connections;
    total->use.refused += use->refused;
    if (total->ledger) ledger_add(total->ledger, key, use, &total->time);
}

static struct keys *open_keys(uint32_t count, struct ledger *ledger)
{
    struct keys *keys;
    assert_int_equal(keys_open(&keys, count, NOW_US, WALL_S), 0);
    assert_int_equal(keys_keep_accounts(keys, ledger_past(ledger)), 0);
    return keys;
}

static enum keys_change put(struct keys *keys, const char *key, const char *terms)
{
    struct limit_key k = key_of(key);
    struct limit_terms t;
    assert_null(limit_terms_parse(terms, strlen(terms), &t));
    return keys_put(keys, &k, &t, NOW_US);
}

static uint32_t hold_as(struct keys *keys, const char *key, bool stranger)
{
    struct limit_key k = key_of(key);
    uint32_t held;
    assert_int_equal(keys_hold(keys, &k, stranger, NOW_US, &held), KEYS_FOUND);
    return held;
}

static uint32_t hold(struct keys *keys, const char *key)
{
    return hold_as(keys, key, true);
}

/* Octets that are taken, move, and are delivered. */
static uint32_t move(struct keys *keys, uint32_t held, uint32_t octets)
{
    struct limit_time time = keys_time(keys, NOW_US);
    bool spent = false;
    uint32_t taken = limit_take(keys_at(keys, held), LIMIT_DOWN, octets, &time, &spent);
    limit_settle(keys_at(keys, held), LIMIT_DOWN, taken, taken, true);
    limit_count(keys_at(keys, held), LIMIT_DOWN, taken);
    return taken;
}

static uint64_t used(struct keys *keys, const char *key)
{
    struct limit_key k = key_of(key);
    struct keys_row row;
    assert_true(keys_find(keys, &k, NOW_US, &row));
    return row.used[LIMIT_BOTH];
}

static void test_use_is_collected_once(void **state)
{
    (void)state;
    struct ledger *ledger;
    struct total total = {0};
    uint64_t wait_us;
    assert_int_equal(ledger_open(&ledger, 64), 0);
    struct keys *keys = open_keys(64, ledger);
    put(keys, "user", "connections=1");
    uint32_t a = hold(keys, "user:a");
    struct limit_time time = keys_time(keys, NOW_US);
    assert_int_equal(limit_admit(keys_at(keys, a), &time, &wait_us), LIMIT_ADMITTED);
    assert_int_equal(limit_admit(keys_at(keys, a), &time, &wait_us), LIMIT_CONNECTIONS);
    assert_int_equal(move(keys, a, 1000), 1000);
    keys_collect(keys, take, &total);
    assert_true(total.calls == 1 && total.use.octets[1] == 1000 && total.use.connections == 1 &&
                total.use.refused == 1);
    keys_collect(keys, take, &total);
    assert_int_equal(total.calls, 1);
    limit_withdraw(keys_at(keys, a)); /* it was refused elsewhere, after it was counted */
    keys_collect(keys, take, &total);
    assert_true(total.calls == 2 && total.use.connections == 0);
    keys_release(keys, a);
    keys_close(keys);
    ledger_close(ledger);
}

static void test_who_leaves_hands_over_and_finds_it_again(void **state)
{
    (void)state;
    struct ledger *ledger;
    assert_int_equal(ledger_open(&ledger, 64), 0);
    struct keys *keys = open_keys(16, ledger);
    struct total total = {.ledger = ledger, .time = keys_time(keys, NOW_US)};
    char key[32];
    put(keys, "user", "connections=9");
    for (unsigned i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "user:u%u", i);
        uint32_t held = hold(keys, key);
        assert_int_equal(move(keys, held, 100), 100);
        keys_release(keys, held);
    }
    keys_collect(keys, take, &total);
    assert_true(total.calls == 40 && total.use.octets[1] == 4000);
    put(keys, "user", "quota=150B/day"); /* now it counts what was used before */
    for (unsigned i = 0; i < 4; i++) {   /* twelve strangers stay for their quotas now */
        snprintf(key, sizeof key, "user:u%u", i);
        uint32_t held = hold_as(keys, key, false);
        assert_int_equal(used(keys, key), 100);
        assert_int_equal(move(keys, held, 100), 50);
        keys_release(keys, held);
    }
    keys_close(keys);
    ledger_close(ledger);
}

static void test_a_change_of_periods_counts_what_is_not_collected(void **state)
{
    (void)state;
    struct ledger *ledger;
    assert_int_equal(ledger_open(&ledger, 64), 0);
    struct keys *keys = open_keys(16, ledger);
    struct total total = {.ledger = ledger, .time = keys_time(keys, NOW_US)};
    put(keys, "user:a", "quota=10kB/day");
    uint32_t a = hold(keys, "user:a");
    move(keys, a, 100);
    keys_collect(keys, take, &total);
    move(keys, a, 20);
    struct limit_time time = keys_time(keys, NOW_US);
    bool spent = false;
    assert_int_equal(limit_take(keys_at(keys, a), LIMIT_UP, 7, &time, &spent), 7); /* and this is under way */
    static const char *const terms[] = {"quota=10kB/month", "quota=10kB", "quota=10kB/hour", "quota=10kB/week"};
    for (unsigned i = 0; i < 4; i++) {
        put(keys, "user:a", terms[i]);
        assert_int_equal(used(keys, "user:a"), 127);
    }
    keys_release(keys, a);
    keys_close(keys);
    ledger_close(ledger);
}

/* Limits of the settings are put before the accounts are read. */
static void test_keys_that_were_put_before_take_over(void **state)
{
    (void)state;
    struct ledger *ledger;
    struct keys *keys;
    assert_int_equal(ledger_open(&ledger, 64), 0);
    assert_int_equal(keys_open(&keys, 16, NOW_US, WALL_S), 0);
    put(keys, "user:a", "quota=1000B/day");
    put(keys, "total", "quota-down=500B/month");
    put(keys, "user:new", "quota=1000B");
    put(keys, "user", "quota=300B/hour");
    add(ledger, "user:a", 599, WALL_S);
    add(ledger, "total", 70, WALL_S);
    add(ledger, "user:b", 99, WALL_S);
    assert_int_equal(keys_keep_accounts(keys, ledger_past(ledger)), 0);
    keys_restore(keys, NOW_US);
    assert_true(used(keys, "user:a") == 600 && used(keys, "user:new") == 0);
    uint32_t a = hold(keys, "user:a"), b = hold(keys, "user:b"), total = hold(keys, "total");
    assert_int_equal(move(keys, a, 1000), 400);
    assert_int_equal(move(keys, b, 1000), 200);
    assert_int_equal(move(keys, total, 1000), 499);
    keys_release(keys, a);
    keys_release(keys, b);
    keys_release(keys, total);
    keys_close(keys);
    ledger_close(ledger);
}

static void test_what_others_have_used_is_set_by_handle(void **state)
{
    (void)state;
    struct ledger *ledger;
    struct keys_quota row;
    uint32_t index = 0;
    assert_int_equal(ledger_open(&ledger, 64), 0);
    struct keys *keys = open_keys(16, ledger);
    struct limit_time time = keys_time(keys, NOW_US);
    put(keys, "user:a", "quota=1000B/day quota-up=500B/month");
    put(keys, "user:b", "connections=1");
    uint32_t a = hold(keys, "user:a");
    move(keys, a, 100);
    assert_true(keys_next_quota(keys, &index, NOW_US, &row));
    assert_int_equal(row.periods, 1u << LIMIT_DAY | 1u << LIMIT_MONTH);
    assert_true(row.counted[1] == 100 && row.sums.octets[LIMIT_DAY][1] == 100 && row.handle == keys_handle(keys, a));
    assert_false(keys_next_quota(keys, &index, NOW_US, &row));
    int64_t day = calendar_find(time.calendar, CALENDAR_DAY, time.wall_s);
    keys_set_elsewhere(keys, row.handle, LIMIT_DAY, day, (uint64_t[]){300, 400});
    keys_set_elsewhere(keys, row.handle + 1, LIMIT_DAY, day, (uint64_t[]){900, 900}); /* nobody */
    assert_int_equal(used(keys, "user:a"), 800);
    keys_give(keys, row.handle, (uint64_t[]){50, 0}, NOW_US);
    assert_int_equal(used(keys, "user:a"), 850);
    assert_int_equal(move(keys, a, 1000), 150);
    keys_release(keys, a);
    keys_close(keys);
    ledger_close(ledger);
}

/* Threads use keys of which there are more than the table has room for, while another one collects. */
struct busy {
    struct keys *keys;
    unsigned seed;
    uint64_t moved;
};

static void *be_busy(void *argument)
{
    struct busy *busy = argument;
    char key[32];
    for (unsigned i = 0; i < 20000; i++) {
        busy->seed = busy->seed * 1103515245 + 12345;
        snprintf(key, sizeof key, "user:u%u", busy->seed >> 16 & 255);
        struct limit_key k = key_of(key);
        uint32_t held;
        if (keys_hold(busy->keys, &k, true, NOW_US, &held) != KEYS_FOUND) continue;
        busy->moved += move(busy->keys, held, 1 + (busy->seed >> 8 & 127));
        keys_release(busy->keys, held);
    }
    return NULL;
}

static void test_threads_lose_nothing(void **state)
{
    (void)state;
    struct ledger *ledger;
    struct busy busy[4];
    pthread_t threads[4];
    uint64_t moved = 0;
    assert_int_equal(ledger_open(&ledger, 512), 0);
    struct keys *keys = open_keys(128, ledger);
    struct total total = {.ledger = ledger, .time = keys_time(keys, NOW_US)};
    put(keys, "user", "connections=9");
    for (unsigned i = 0; i < 4; i++) {
        busy[i] = (struct busy){.keys = keys, .seed = i};
        assert_int_equal(pthread_create(&threads[i], NULL, be_busy, &busy[i]), 0);
    }
    for (unsigned i = 0; i < 200; i++)
        i % 4 ? keys_collect_departed(keys, take, &total) : keys_collect(keys, take, &total);
    for (unsigned i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    keys_collect(keys, take, &total);
    for (unsigned i = 0; i < 4; i++) moved += busy[i].moved;
    assert_true(moved > 0);
    assert_int_equal(total.use.octets[1], moved);
    keys_close(keys);
    ledger_close(ledger);
}

/* --- store --- */

static char folder[] = "/tmp/sluice-usage-XXXXXX";

static struct store *open_store(char path[128])
{
    struct store *store;
    char message[STORE_MESSAGE_SIZE];
    snprintf(path, 128, "%s/usage.db", folder);
    if (store_open(&store, path, message) < 0) fail_msg("%s", message);
    return store;
}

static void remove_store(void)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-lock"};
    char path[160];
    for (unsigned i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/usage.db%s", folder, ends[i]);
        unlink(path);
    }
}

struct loaded {
    unsigned keys, most;
    struct limit_sums sums[8];
    struct limit_key key[8];
};

static bool load(void *context, const struct limit_key *key, const struct limit_sums *sums)
{
    struct loaded *loaded = context;
    if (loaded->keys == loaded->most) return false;
    loaded->key[loaded->keys] = *key;
    loaded->sums[loaded->keys++] = *sums;
    return true;
}

static void test_what_was_written_is_read(void **state)
{
    (void)state;
    char path[128], message[STORE_MESSAGE_SIZE], node[STORE_NODE_SIZE], again[STORE_NODE_SIZE];
    struct ledger *l;
    struct store *store = open_store(path), *second;
    struct loaded loaded = {.most = 8};
    assert_int_equal(store_open(&second, path, message), -1); /* one process alone */
    assert_non_null(strstr(message, "another process"));
    assert_int_equal(ledger_open(&l, 16), 0);
    add(l, "user:a", 1, WALL_S - 40 * 24 * HOUR_S);
    add(l, "user:b%20c", 2, WALL_S - 24 * HOUR_S);
    add(l, "user:b%20c", 4, WALL_S + HOUR_S);
    for (unsigned i = 0; i < 2; i++) assert_int_equal(store_write(store, l, message), 0); /* it adds */
    assert_int_equal(store_node(store, node, message), 0);
    store_close(store);
    store = open_store(path);
    struct limit_time time = at(WALL_S + HOUR_S);
    assert_int_equal(store_load(store, &time, UINT32_MAX, load, &loaded, message), 0);
    assert_int_equal(loaded.keys, 2);
    struct limit_key first = key_of("user:b%20c");
    assert_true(limit_key_equal(&loaded.key[0], &first)); /* the one that was used last */
    static const uint64_t up[] = {8, 8, 8, 12, 12};
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) assert_int_equal(loaded.sums[0].octets[i][0], up[i]);
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) assert_int_equal(loaded.sums[1].octets[i][0], i == LIMIT_EVER ? 2 : 0);
    loaded = (struct loaded){.most = 1};
    assert_int_equal(store_load(store, &time, UINT32_MAX, load, &loaded, message), 0);
    assert_int_equal(loaded.keys, 1);
    assert_int_equal(store_node(store, again, message), 0);
    assert_true(strlen(node) == 32 && strcmp(node, again) == 0);
    store_close(store);
    ledger_close(l);
    remove_store();
}

static struct store_query ask(struct store *store, struct store_query query)
{
    char message[STORE_MESSAGE_SIZE];
    if (store_ask(store, NULL, &query, message) < 0) fail_msg("%s", message);
    return query;
}

static void test_questions(void **state)
{
    (void)state;
    char path[128], message[STORE_MESSAGE_SIZE];
    struct ledger *l;
    struct store *store = open_store(path);
    assert_int_equal(ledger_open(&l, 16), 0);
    for (unsigned i = 0; i < 48; i++) add(l, "user:a", 1, WALL_S + (int64_t)i * HOUR_S); /* two days, two months */
    add(l, "total", 5, WALL_S);
    assert_int_equal(store_write(store, l, message), 0);
    struct store_query q = ask(store, (struct store_query){.to = INT64_MAX, .by = STORE_BY_MONTH, .rows_max = 10});
    assert_true(q.row_count == 3 && !q.more);
    assert_string_equal(q.names + q.rows[0].key, "total");
    assert_string_equal(q.names + q.rows[2].key, "user:a");
    assert_true(q.rows[1].up == 24 && q.rows[1].connections == 24 && q.rows[2].begin == WALL_S + 24 * HOUR_S);
    free(q.rows), free(q.names);
    q = ask(
        store,
        (struct store_query){
            .key = "user:a", .from = WALL_S + HOUR_S, .to = WALL_S + 30 * HOUR_S, .by = STORE_BY_DAY, .rows_max = 1});
    assert_true(q.row_count == 1 && q.more && q.rows[0].up == 23 && q.rows[0].begin == WALL_S);
    free(q.rows), free(q.names);
    q = ask(store,
            (struct store_query){.key = "user:a", .to = INT64_MAX, .by = STORE_BY_HOUR, .skip = 45, .rows_max = 10});
    assert_true(q.row_count == 3 && !q.more && q.rows[0].begin == WALL_S + 45 * HOUR_S);
    free(q.rows), free(q.names);
    q = ask(store, (struct store_query){.key = "user:nobody", .to = INT64_MAX, .rows_max = 10});
    assert_true(q.row_count == 0 && !q.more);
    free(q.rows), free(q.names);
    store_close(store);
    ledger_close(l);
    remove_store();
}

static uint64_t wal_pages(const struct store *store)
{
    return store_wal_size(store) / 4096;
}

/* What is not written counts in answers, in rows that are there and in new ones, and stays unwritten; where somebody
 * else writes, what is written is the answer. */
static void test_answers_have_what_is_not_written(void **state)
{
    (void)state;
    char path[128], message[STORE_MESSAGE_SIZE];
    struct ledger *l;
    struct store *store = open_store(path);
    struct store_query query = {.to = INT64_MAX, .by = STORE_BY_HOUR, .rows_max = 10}, q = query;
    assert_int_equal(ledger_open(&l, 16), 0);
    add(l, "user:b", 1, WALL_S);
    assert_int_equal(store_write(store, l, message), 0);
    ledger_clear(l);
    add(l, "user:b", 2, WALL_S);
    add(l, "user:a", 4, WALL_S + HOUR_S);
    add(l, "user:b", 8, WALL_S + HOUR_S);
    uint64_t pages = wal_pages(store);
    for (unsigned i = 0; i < 100; i++) {
        q = query;
        assert_int_equal(store_ask(store, l, &q, message), 0);
        assert_true(q.row_count == 3 && q.rows[0].up == 4 && q.rows[1].up == 3 && q.rows[2].up == 8);
        free(q.rows), free(q.names);
    }
    assert_true(ledger_rows(l) == 3 && wal_pages(store) == pages);
    sqlite3 *other;
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK); /* after a ROLLBACK it may */
    q = query;
    assert_int_equal(store_ask(store, l, &q, message), 0);
    assert_true(q.row_count == 1 && q.rows[0].up == 1);
    free(q.rows), free(q.names);
    assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    assert_int_equal(store_write(store, l, message), 0);
    q = ask(store, query);
    assert_true(q.row_count == 3 && q.rows[1].up == 3);
    free(q.rows), free(q.names);
    store_close(store);
    ledger_close(l);
    remove_store();
}

/* Somebody reads for as long as it takes: the log grows, which is to be seen, nothing is lost, and it is cut back by
 * the first transaction behind that. */
static void test_a_reader_holds_up_the_log(void **state)
{
    (void)state;
    char path[128], message[STORE_MESSAGE_SIZE], key[32];
    struct ledger *l;
    struct store *store = open_store(path);
    struct limit_time time = at(WALL_S);
    struct limit_key last = key_of("user:u999");
    struct limit_sums sums;
    unsigned writes = 0;
    sqlite3 *reader;
    assert_int_equal(ledger_open(&l, 1000), 0);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "user:u%u", i);
        add(l, key, 1, WALL_S);
    }
    assert_int_equal(sqlite3_open(path, &reader), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM usage", NULL, NULL, NULL), SQLITE_OK);
    for (; store_wal_size(store) < 10u << 20; writes++) {
        assert_true(writes < 1000);
        assert_int_equal(store_write(store, l, message), 0);
    }
    assert_int_equal(sqlite3_exec(reader, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(reader), SQLITE_OK);
    assert_int_equal(store_write(store, l, message), 0);
    assert_int_equal(store_wal_size(store), 0);
    assert_true(store_find(store, &last, &time, &sums));
    assert_int_equal(sums.octets[LIMIT_HOUR][0], writes + 1);
    store_close(store);
    ledger_close(l);
    remove_store();
}

/* One key at a time, and the keys of some kinds. */
static void test_what_is_known_of_a_key(void **state)
{
    (void)state;
    char path[128], message[STORE_MESSAGE_SIZE];
    struct ledger *l;
    struct store *store = open_store(path);
    struct limit_sums sums;
    struct limit_key a = key_of("user:a"), nobody = key_of("user:nobody");
    assert_int_equal(ledger_open(&l, 16), 0);
    add(l, "user:a", 1, WALL_S - 40 * 24 * HOUR_S);
    add(l, "user:a", 2, WALL_S);
    add(l, "user:a", 4, WALL_S + HOUR_S);
    add(l, "source:192.0.2.1", 8, WALL_S + 2 * HOUR_S);
    assert_int_equal(store_write(store, l, message), 0);
    struct limit_time time = at(WALL_S + HOUR_S);
    for (unsigned i = 0; i < 3; i++) {
        assert_false(store_find(store, &nobody, &time, &sums));
        assert_true(store_find(store, &a, &time, &sums));
        static const uint64_t up[] = {4, 6, 6, 6, 7};
        for (unsigned p = 0; p < LIMIT_PERIODS; p++) assert_int_equal(sums.octets[p][0], up[p]);
    }
    assert_true(store_has_more(store, 1, message) == 1 && store_has_more(store, 2, message) == 0);
    struct loaded loaded = {.most = 8};
    assert_int_equal(store_load(store, &time, 1u << LIMIT_USER, load, &loaded, message), 0);
    assert_true(loaded.keys == 1 && limit_key_equal(&loaded.key[0], &a));
    store_close(store);
    ledger_close(l);
    remove_store();
}

/* A writer that is killed at any moment leaves a database that is sound, with whole transactions in it. */
static void test_killed_writers_leave_whole_transactions(void **state)
{
    (void)state;
    char path[128], message[STORE_MESSAGE_SIZE];
    struct limit_time time = at(WALL_S);
    for (unsigned i = 0; i < 20; i++) {
        int gone;
        pid_t child = fork();
        if (child == 0) {
            struct ledger *l;
            struct store *store = open_store(path);
            if (ledger_open(&l, 16) < 0) _exit(1);
            add(l, "user:a", 3, WALL_S);
            add(l, "user:b", 3, WALL_S);
            for (;;) store_write(store, l, message);
        }
        usleep(3000 * (i + 1));
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &gone, 0), child);
        struct loaded loaded = {.most = 8};
        struct store *store = open_store(path);
        assert_int_equal(store_load(store, &time, UINT32_MAX, load, &loaded, message), 0);
        if (loaded.keys > 0) {
            assert_int_equal(loaded.keys, 2);
            assert_true(loaded.sums[0].octets[LIMIT_EVER][0] == loaded.sums[1].octets[LIMIT_EVER][0]);
            assert_true(loaded.sums[0].octets[LIMIT_DAY][0] == loaded.sums[0].octets[LIMIT_EVER][0]);
        }
        store_close(store);
    }
    remove_store();
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) && setup(state) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    remove_store();
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_quota_takes_over),
        cmocka_unit_test(test_what_is_used_elsewhere_counts_here),
        cmocka_unit_test(test_sums_by_period),
        cmocka_unit_test(test_departures_keep_their_order_and_lose_nothing),
        cmocka_unit_test(test_rows_by_key_and_hour),
        cmocka_unit_test(test_a_full_ledger_books_on_the_kind),
        cmocka_unit_test(test_a_backlog_is_bounded_and_sums_stay_right),
        cmocka_unit_test(test_use_is_collected_once),
        cmocka_unit_test(test_who_leaves_hands_over_and_finds_it_again),
        cmocka_unit_test(test_a_change_of_periods_counts_what_is_not_collected),
        cmocka_unit_test(test_keys_that_were_put_before_take_over),
        cmocka_unit_test(test_what_others_have_used_is_set_by_handle),
        cmocka_unit_test(test_threads_lose_nothing),
        cmocka_unit_test(test_what_was_written_is_read),
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_answers_have_what_is_not_written),
        cmocka_unit_test(test_a_reader_holds_up_the_log),
        cmocka_unit_test(test_what_is_known_of_a_key),
        cmocka_unit_test(test_killed_writers_leave_whole_transactions),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
