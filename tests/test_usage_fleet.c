/* core/usage/sharing: boxes that share quotas, on a clock of ours, with a server that is away, loses answers, forgets
 * and steps back. The server, and what talks to it (core/usage/fleet), are doubles that stand in this file. */
#include "core/usage/sharing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/usage/collector.h"
#include "core/usage/fleet.h"
#include "tests/limit_keys.h"
#include "tests/support.h"

#define SECOND_US UINT64_C(1000000)
#define STEP_US   UINT64_C(10000)
#define WALL_S    INT64_C(1795996800) /* 2026-11-30 00:00:00 UTC, a Monday */

/* --- the server --- */

struct field {
    char name[LIMIT_KEY_TEXT_SIZE + 64], node[FLEET_NODE_SIZE];
    uint64_t sums[2];
};

enum weather { FAIR, AWAY, LOSES_ANSWERS };

static struct {
    struct field fields[256];
    unsigned count;
    enum weather weather;
    unsigned calls, items, items_most; /* that it was asked */
} server;

static struct field *field_of(const struct fleet_item *item, const char *node)
{
    char key[LIMIT_KEY_TEXT_SIZE], name[sizeof server.fields[0].name];
    limit_key_format(&item->key, key, sizeof key);
    snprintf(name, sizeof name, "%u:%lld:%s", item->period, (long long)item->begin, key);
    for (unsigned i = 0; i < server.count; i++)
        if (strcmp(server.fields[i].name, name) == 0 && strcmp(server.fields[i].node, node) == 0)
            return &server.fields[i];
    assert_true(server.count < sizeof server.fields / sizeof *server.fields);
    struct field *f = &server.fields[server.count++];
    *f = (struct field){.sums = {0, 0}};
    snprintf(f->name, sizeof f->name, "%s", name);
    snprintf(f->node, sizeof f->node, "%s", node);
    return f;
}

/* What the script does (core/usage/fleet.c). */
static void serve(struct fleet_item *item, const char *node)
{
    struct field *own = field_of(item, node);
    for (unsigned d = 0; d < 2; d++) {
        item->mine[d] = own->sums[d];
        item->others[d] = 0;
    }
    for (unsigned i = 0; i < server.count; i++) {
        const struct field *f = &server.fields[i];
        if (f == own || strcmp(f->name, own->name) != 0) continue;
        for (unsigned d = 0; d < 2; d++) item->others[d] += f->sums[d];
    }
    for (unsigned d = 0; d < 2; d++)
        if (item->told[d] > own->sums[d]) own->sums[d] = item->told[d];
}

static uint64_t server_sum(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < server.count; i++) sum += server.fields[i].sums[0] + server.fields[i].sums[1];
    return sum;
}

/* --- what talks to it --- */

struct fleet {
    char node[FLEET_NODE_SIZE];
    struct fleet_batch batch;
};

int fleet_open(struct fleet **out, const struct usage_text *where, const char *node)
{
    (void)where;
    *out = calloc(1, sizeof **out);
    if (!*out) return -ENOMEM;
    snprintf((*out)->node, sizeof(*out)->node, "%s", node);
    return 0;
}

bool fleet_wait(struct fleet *fleet, uint32_t wait_ms)
{
    (void)fleet, (void)wait_ms;
    return true;
}

void fleet_close(struct fleet *fleet, uint32_t wait_ms)
{
    (void)wait_ms;
    free(fleet);
}

int fleet_event_fd(const struct fleet *fleet)
{
    (void)fleet;
    return -1;
}

struct fleet_batch *fleet_batch(struct fleet *fleet)
{
    return &fleet->batch;
}

void fleet_send(struct fleet *fleet)
{
    struct fleet_batch *b = &fleet->batch;
    server.calls++;
    server.items += b->count;
    if (b->count > server.items_most) server.items_most = b->count;
    b->result = server.weather == FAIR ? 0 : -1;
    snprintf(b->message, sizeof b->message, "%s", server.weather == FAIR ? "" : "the test says so");
    if (server.weather == AWAY) return;
    for (uint32_t i = 0; i < b->count; i++) serve(&b->items[i], fleet->node);
    if (server.weather == FAIR) return;
    for (uint32_t i = 0; i < b->count; i++) /* nobody has seen that */
        for (unsigned d = 0; d < 2; d++) b->items[i].mine[d] = b->items[i].others[d] = 0;
}

/* --- a box --- */

struct box {
    const char *node;
    struct keys *keys;
    struct ledger *ledger;
    struct sharing *sharing;
    struct collector collector;
    uint32_t held;  /* of the user, who has a connection */
    uint64_t moved; /* of this process */
};

static uint64_t clock_us;

static void put(struct box *b, const char *key, const char *terms)
{
    struct limit_key k = key_of(key);
    struct limit_terms t;
    assert_null(limit_terms_parse(terms, strlen(terms), &t));
    assert_int_equal(keys_put(b->keys, &k, &t, clock_us), KEYS_CHANGED);
}

/* written: what its database has of the user. */
static void open_box_of(struct box *b, const char *node, const char *terms, uint64_t written, uint32_t room)
{
    struct usage_text where;
    struct limit_key key = key_of("user:a");
    *b = (struct box){.node = node};
    assert_null(usage_text_parse("redis://127.0.0.1", 17, &where));
    int64_t wall_s = WALL_S + (int64_t)(clock_us / SECOND_US);
    assert_int_equal(keys_open(&b->keys, 64, clock_us, wall_s), 0);
    assert_int_equal(ledger_open(&b->ledger, room), 0);
    assert_int_equal(keys_keep_accounts(b->keys, ledger_past(b->ledger)), 0);
    put(b, "user:a", terms);
    struct limit_time time = keys_time(b->keys, clock_us);
    struct limit_sums sums = {.under_way = {0}};
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) sums.octets[i][1] = written;
    if (written > 0) assert_true(ledger_load(b->ledger, &key, &sums, &time));
    keys_restore(b->keys, clock_us);
    collector_open(&b->collector, b->keys, b->ledger, &time);
    assert_int_equal(keys_hold(b->keys, &key, false, clock_us, &b->held), KEYS_FOUND);
    limit_join(keys_at(b->keys, b->held));
    assert_int_equal(sharing_open(&b->sharing, b->keys, b->ledger, &where, node), 0);
}

static void open_box(struct box *b, const char *node, const char *terms, uint64_t written)
{
    open_box_of(b, node, terms, written, 64);
}

static void close_box(struct box *b)
{
    sharing_close(b->sharing);
    keys_close(b->keys);
    ledger_close(b->ledger);
}

static uint32_t move(struct box *b, uint32_t octets)
{
    struct limit *limit = keys_at(b->keys, b->held);
    struct limit_time time = keys_time(b->keys, clock_us);
    bool spent = false;
    uint32_t taken = limit_take(limit, LIMIT_DOWN, octets, &time, &spent);
    limit_settle(limit, LIMIT_DOWN, taken, taken, true);
    limit_count(limit, LIMIT_DOWN, taken);
    b->moved += taken;
    return taken;
}

static uint64_t used(struct box *b)
{
    struct limit_key key = key_of("user:a");
    struct keys_row row;
    assert_true(keys_find(b->keys, &key, clock_us, &row));
    return row.used[LIMIT_BOTH];
}

static struct sharing_figures figures_of(const struct box *b)
{
    struct sharing_figures figures;
    sharing_show(b->sharing, &figures);
    return figures;
}

/* What the thread of accounts does (core/usage/usage.c). */
static void turn(struct box *b)
{
    struct limit_time time = keys_time(b->keys, clock_us);
    if (collector_end_hour(&b->collector, &time) || clock_us % (10 * SECOND_US) == 0)
        collector_take(&b->collector, &time, true);
    sharing_turn(b->sharing, clock_us);
}

/* So much time passes; each box moves `rate` octets a second, as far as its quota lets it. */
static void pass(struct box *boxes, unsigned count, uint64_t us, uint32_t rate)
{
    for (uint64_t end = clock_us + us; clock_us < end; clock_us += STEP_US) {
        for (unsigned i = 0; i < count; i++) {
            if (clock_us % (60 * SECOND_US) == 0)
                keys_update_clock(boxes[i].keys, clock_us, WALL_S + (int64_t)(clock_us / SECOND_US));
            turn(&boxes[i]);
            if (rate > 0) move(&boxes[i], (uint32_t)(rate / (SECOND_US / STEP_US)));
        }
    }
}

static int begin(void **state)
{
    (void)state;
    setenv("TZ", "UTC0", 1);
    memset(&server, 0, sizeof server);
    clock_us = 1000 * SECOND_US;
    return 0;
}

/* --- tests --- */

static void open_two(struct box boxes[2], const char *terms)
{
    open_box(&boxes[0], "one", terms, 0);
    open_box(&boxes[1], "two", terms, 0);
}

static void close_two(struct box boxes[2])
{
    close_box(&boxes[0]);
    close_box(&boxes[1]);
}

/* Both at full speed: the fleet uses the whole quota, and beyond it what one second moves at most, at each box. */
static void test_a_quota_is_kept_within_a_second(void **state)
{
    (void)state;
    static const uint32_t rates[] = {10000, 100000, 1000000};
    for (unsigned i = 0; i < 3; i++) {
        struct box boxes[2];
        begin(NULL);
        open_two(boxes, "quota=5MB/month");
        pass(boxes, 2, 20 * SECOND_US, 0);
        pass(boxes, 1, (uint64_t)2000000 / rates[i] * SECOND_US, rates[i]); /* one alone has two MB of it */
        pass(boxes, 2, (uint64_t)5000000 / rates[i] * SECOND_US, rates[i]);
        uint64_t sum = boxes[0].moved + boxes[1].moved;
        assert_in_range(sum, 5000000, 5000000 + 2 * rates[i]);
        assert_true(boxes[0].moved > 2000000 && boxes[1].moved > 1000000);
        pass(boxes, 2, 20 * SECOND_US, rates[i]);
        assert_int_equal(boxes[0].moved + boxes[1].moved, sum); /* it is over for both */
        assert_int_equal(server_sum(), sum);
        assert_true(used(&boxes[0]) == sum && used(&boxes[1]) == sum);
        close_two(boxes);
    }
}

/* Away for ten minutes under load: both go on, nothing piles up, and the first exchange says it all. */
static void test_ten_minutes_without_redis(void **state)
{
    (void)state;
    struct box boxes[2];
    open_two(boxes, "quota=1GB/month");
    pass(boxes, 2, 5 * SECOND_US, 100000);
    pass(boxes, 2, SECOND_US, 0);
    uint64_t before = boxes[0].moved;
    assert_true(boxes[0].moved == 500000 && used(&boxes[0]) == 1000000 && server_sum() == 1000000);
    server.weather = AWAY;
    server.calls = server.items_most = 0;
    pass(boxes, 2, 600 * SECOND_US, 100000);
    for (unsigned i = 0; i < 2; i++) {
        struct sharing_figures figures = figures_of(&boxes[i]);
        assert_int_equal(boxes[i].moved, before + 60000000);
        assert_int_equal(used(&boxes[i]), before + boxes[i].moved); /* the last sums of the other one */
        assert_true(!figures.connected && figures.failures >= 500 && figures.failures <= 600);
    }
    assert_true(server.calls <= 2 * 600 && server.items_most == 1);
    assert_int_equal(server_sum(), 1000000);
    server.weather = FAIR;
    pass(boxes, 2, 2 * SECOND_US, 0);
    assert_int_equal(server_sum(), boxes[0].moved + boxes[1].moved);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(used(&boxes[i]), server_sum());
        assert_true(figures_of(&boxes[i]).connected && figures_of(&boxes[i]).lost == 0);
    }
    close_two(boxes);
}

/* The server does what it is told, and nobody hears of it: said again, it counts once. */
static void test_lost_answers_count_once(void **state)
{
    (void)state;
    struct box boxes[2];
    open_two(boxes, "quota=1GB/month");
    for (unsigned i = 0; i < 20; i++) {
        server.weather = i % 2 ? LOSES_ANSWERS : FAIR;
        pass(boxes, 2, 3 * SECOND_US, 10000);
    }
    server.weather = FAIR;
    pass(boxes, 2, 3 * SECOND_US, 0);
    assert_true(boxes[0].moved == 600000 && boxes[1].moved == 600000);
    assert_int_equal(server_sum(), 1200000);
    for (unsigned i = 0; i < 2; i++) assert_true(used(&boxes[i]) == 1200000 && figures_of(&boxes[i]).lost == 0);
    close_two(boxes);
}

/* A key that vanishes, and one that steps back, as behind a failover: noticed, and told again from the box's own sums.
 */
static void test_what_the_server_loses_is_told_again(void **state)
{
    (void)state;
    struct box boxes[2];
    open_two(boxes, "quota=1GB/month");
    pass(boxes, 2, 3 * SECOND_US, 10000);
    pass(boxes, 2, SECOND_US, 0);
    server.count = 0;
    pass(boxes, 2, 25 * SECOND_US, 0); /* nobody moves anything */
    assert_true(server_sum() == 60000 && used(&boxes[0]) == 60000 && used(&boxes[1]) == 60000);
    for (unsigned i = 0; i < server.count; i++) server.fields[i].sums[1] -= 777;
    pass(boxes, 2, 11 * SECOND_US, 10000);
    pass(boxes, 2, SECOND_US, 0);
    assert_int_equal(server_sum(), boxes[0].moved + boxes[1].moved);
    for (unsigned i = 0; i < 2; i++) assert_true(figures_of(&boxes[i]).lost == 2 && used(&boxes[i]) == server_sum());
    close_two(boxes);
}

/* Killed with octets told and not written, again and again, also while answers get lost: each octet counts once. */
static void test_a_box_that_is_killed_in_between(void **state)
{
    (void)state;
    struct box boxes[2];
    uint64_t moved = 0, written = 0;
    open_two(boxes, "quota=1GB/month");
    for (unsigned i = 0; i < 12; i++) {
        server.weather = i % 3 == 2 ? LOSES_ANSWERS : FAIR;
        pass(boxes, 2, 3 * SECOND_US, 10000);
        server.weather = FAIR;
        pass(boxes, 2, 2 * SECOND_US, 0); /* what the box has used before its kill is told */
        moved += boxes[0].moved;
        if (i % 2) written = moved; /* in half of the cases the file has it, too */
        close_box(&boxes[0]);
        open_box(&boxes[0], "one", "quota=1GB/month", written);
        pass(boxes, 2, 2 * SECOND_US, 0);
        assert_int_equal(used(&boxes[0]), moved + boxes[1].moved);
        assert_int_equal(figures_of(&boxes[0]).recovered, moved - written);
        written = moved; /* what was recovered is written, at the latest by now */
    }
    assert_int_equal(server_sum(), moved + boxes[1].moved);
    close_two(boxes);
}

/* The turn of a month while the server is away: what was used before does not count in the new one, here or there. */
static void test_a_month_that_ends_while_it_is_away(void **state)
{
    (void)state;
    struct box boxes[2];
    clock_us = (86400 - 30) * SECOND_US;
    open_two(boxes, "quota=1GB/month");
    pass(boxes, 2, 10 * SECOND_US, 10000);
    pass(boxes, 2, SECOND_US, 0);
    server.weather = AWAY;
    pass(boxes, 2, 38 * SECOND_US, 10000); /* half of it in December */
    server.weather = FAIR;
    pass(boxes, 2, 3 * SECOND_US, 0);
    assert_int_equal(boxes[0].moved, 480000);
    assert_true(used(&boxes[0]) == 380000 && used(&boxes[1]) == 380000);
    assert_int_equal(server_sum(), 2 * 100000 + 380000); /* of November what was told in time */
    close_two(boxes);
}

/* A number of the ledger that another key had before: what is known of that one does not count for the next. */
static void test_a_key_that_gets_the_number_of_another(void **state)
{
    (void)state;
    struct box b;
    struct limit_key first = key_of("user:a"), second = key_of("user:b");
    open_box_of(&b, "one", "quota=1GB/month", 0, 1);
    pass(&b, 1, 2 * SECOND_US, 10000);
    struct limit_time time = keys_time(b.keys, clock_us);
    collector_take(&b.collector, &time, true);
    uint32_t index = past_find(ledger_past(b.ledger), &first);
    assert_true(index != PAST_NONE && figures_of(&b).exchanges > 0);
    ledger_clear(b.ledger);
    limit_leave(keys_at(b.keys, b.held));
    keys_release(b.keys, b.held);
    assert_true(keys_remove(b.keys, &first, clock_us));
    struct fleet_item known = {
        .key = second, .period = LIMIT_MONTH, .begin = calendar_find(time.calendar, CALENDAR_MONTH, time.wall_s)};
    field_of(&known, "one")->sums[1] = 500; /* from before the process was killed */
    put(&b, "user:b", "quota=1GB/month");
    pass(&b, 1, 2 * SECOND_US, 0);
    assert_int_equal(past_find(ledger_past(b.ledger), &second), index);
    assert_int_equal(figures_of(&b).recovered, 500);
    struct keys_row row;
    assert_true(keys_find(b.keys, &second, clock_us, &row) && row.used[LIMIT_BOTH] == 500);
    close_box(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_quota_is_kept_within_a_second, begin),
        cmocka_unit_test_setup(test_ten_minutes_without_redis, begin),
        cmocka_unit_test_setup(test_lost_answers_count_once, begin),
        cmocka_unit_test_setup(test_what_the_server_loses_is_told_again, begin),
        cmocka_unit_test_setup(test_a_box_that_is_killed_in_between, begin),
        cmocka_unit_test_setup(test_a_month_that_ends_while_it_is_away, begin),
        cmocka_unit_test_setup(test_a_key_that_gets_the_number_of_another, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
