/* The turns of hours, days, weeks and months in accounts and quotas, and what is left behind a kill at any moment:
 * keys, collector, ledger and database together, on a clock of ours. */
#include "core/usage/collector.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/usage/store.h"
#include "tests/limit_keys.h"
#include "tests/support.h"

#define SECOND_US UINT64_C(1000000)
#define HOUR_S    3600

/* Central Europe, without the machine's tables of zones: its clocks change on 2026-03-29 and 2026-10-25. */
#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"

static char folder[] = "/tmp/sluice-turns-XXXXXX";

/* One box: everything between the workers' counters and the database. */
struct box {
    struct keys *keys;
    struct ledger *ledger;
    struct store *store;
    struct collector collector;
    int64_t start_s, wall_s;
    uint64_t written_us;
};

static uint64_t now_us(const struct box *b)
{
    return (uint64_t)(b->wall_s - b->start_s + 1000) * SECOND_US;
}

static struct limit_time now(const struct box *b)
{
    return keys_time(b->keys, now_us(b));
}

static void put(struct box *b, const char *key, const char *terms)
{
    struct limit_key k = key_of(key);
    struct limit_terms t;
    assert_null(limit_terms_parse(terms, strlen(terms), &t));
    assert_int_equal(keys_put(b->keys, &k, &t, now_us(b)), KEYS_CHANGED);
}

static bool load(void *context, const struct limit_key *key, const struct limit_sums *sums)
{
    const struct box *b = context;
    struct limit_time time = now(b);
    return ledger_load(b->ledger, key, sums, &time);
}

/* As usage_open() does it. */
static void open_box(struct box *b, int64_t wall_s, const char *terms)
{
    char path[128], message[STORE_MESSAGE_SIZE];
    *b = (struct box){.start_s = wall_s, .wall_s = wall_s};
    snprintf(path, sizeof path, "%s/usage.db", folder);
    assert_int_equal(keys_open(&b->keys, 64, now_us(b), wall_s), 0);
    assert_int_equal(ledger_open(&b->ledger, 64), 0);
    assert_int_equal(keys_keep_accounts(b->keys, ledger_past(b->ledger)), 0);
    put(b, "user:a", terms);
    struct limit_time time = now(b);
    if (store_open(&b->store, path, message) < 0) fail_msg("%s", message);
    assert_int_equal(store_load(b->store, &time, UINT32_MAX, load, b, message), 0);
    keys_restore(b->keys, now_us(b));
    collector_open(&b->collector, b->keys, b->ledger, &time);
}

static void write_box(struct box *b)
{
    char message[STORE_MESSAGE_SIZE];
    if (store_write(b->store, b->ledger, message) < 0) fail_msg("%s", message);
    ledger_clear(b->ledger);
    b->written_us = now_us(b);
}

static void close_box(struct box *b)
{
    keys_close(b->keys);
    store_close(b->store);
    ledger_close(b->ledger);
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

/* What the thread of accounts does when it wakes up. */
static void look(struct box *b)
{
    struct limit_time time = now(b);
    bool over = collector_end_hour(&b->collector, &time);
    if (over || now_us(b) - b->written_us >= 10 * SECOND_US) {
        collector_take(&b->collector, &time, true);
        write_box(b);
    } else {
        collector_take(&b->collector, &time, false);
    }
}

/* Nothing happens until then. */
static void leap(struct box *b, int64_t wall_s)
{
    b->wall_s = wall_s;
    keys_update_clock(b->keys, now_us(b), wall_s);
    look(b);
}

/* The coordinator's clock and the thread's turns, up to that moment. */
static void pass(struct box *b, int64_t wall_s, int64_t step_s)
{
    while (b->wall_s < wall_s) {
        struct limit_time time = now(b);
        int64_t quarter_s = (int64_t)(collector_wait_us(&time) / SECOND_US);
        int64_t step = quarter_s < step_s ? quarter_s : step_s;
        leap(b, b->wall_s + step < wall_s ? b->wall_s + step : wall_s);
    }
}

static uint32_t hold(struct box *b, const char *key)
{
    struct limit_key k = key_of(key);
    uint32_t held;
    assert_int_equal(keys_hold(b->keys, &k, false, now_us(b), &held), KEYS_FOUND);
    return held;
}

static uint32_t move(struct box *b, uint32_t held, uint32_t octets)
{
    struct limit *limit = keys_at(b->keys, held);
    struct limit_time time = now(b);
    bool spent = false;
    uint32_t taken = limit_take(limit, LIMIT_DOWN, octets, &time, &spent);
    limit_settle(limit, LIMIT_DOWN, taken, taken, true);
    limit_count(limit, LIMIT_DOWN, taken);
    return taken;
}

static struct store_query ask(struct box *b, enum store_by by, int64_t from, int64_t to)
{
    char message[STORE_MESSAGE_SIZE];
    struct store_query query = {.key = "user:a", .from = from, .to = to, .by = by, .rows_max = STORE_ROWS_MAX};
    if (store_ask(b->store, b->ledger, &query, message) < 0) fail_msg("%s", message);
    return query;
}

static void forget(struct store_query *query)
{
    free(query->rows);
    free(query->names);
}

static void set_zone(const char *zone)
{
    setenv("TZ", zone, 1);
    tzset();
}

static int64_t moment(int year, int month, int day, int hour, int minute)
{
    struct tm tm = {
        .tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute, .tm_isdst = -1};
    return (int64_t)mktime(&tm);
}

/* --- turns --- */

#define QUARTER_S 900

/* One octet each quarter of an hour: every row has the quarters of its hour, day or month. */
static void check_rows(struct box *b, enum store_by by, int64_t begin, int64_t end)
{
    static const enum calendar_period periods[] = {
        [STORE_BY_HOUR] = CALENDAR_HOUR, [STORE_BY_DAY] = CALENDAR_DAY, [STORE_BY_MONTH] = CALENDAR_MONTH};
    struct store_query q = ask(b, by, begin, INT64_MAX);
    assert_false(q.more);
    for (uint32_t i = 0; i < q.row_count; i++) {
        int64_t next = calendar_next(periods[by], calendar_begin(periods[by], begin));
        if (next > end) next = end;
        assert_int_equal(q.rows[i].begin, calendar_begin(periods[by], begin));
        assert_int_equal(q.rows[i].down, (next - begin) / QUARTER_S);
        begin = next;
    }
    assert_int_equal(begin, end);
    forget(&q);
}

static void count_days(struct box *b, int64_t begin, unsigned days)
{
    uint32_t a = hold(b, "user:a");
    int64_t end = begin;
    for (unsigned i = 0; i < days; i++) end = calendar_next(CALENDAR_DAY, end);
    for (int64_t at = begin; at < end; at += QUARTER_S) {
        pass(b, at, QUARTER_S);
        assert_int_equal(move(b, a, 1), 1);
    }
    pass(b, end, 1);
    check_rows(b, STORE_BY_HOUR, begin, end);
    check_rows(b, STORE_BY_DAY, begin, end);
    check_rows(b, STORE_BY_MONTH, begin, end);
    keys_release(b->keys, a);
}

static void test_rows_of_days_of_23_and_25_hours_and_of_month_ends(void **state)
{
    (void)state;
    static const struct {
        int month, day;
        unsigned days;
    } spans[] = {{2, 26, 5}, {3, 27, 8}, {10, 23, 11}, {12, 30, 4}};
    struct box b;
    set_zone(BERLIN);
    for (unsigned i = 0; i < sizeof spans / sizeof *spans; i++) {
        int64_t begin = moment(2026, spans[i].month, spans[i].day, 0, 0);
        open_box(&b, begin, "connections=9");
        count_days(&b, begin, spans[i].days);
        close_box(&b);
    }
    open_box(&b, moment(2027, 2, 1, 0, 0), "connections=9");
    struct store_query q = ask(&b, STORE_BY_DAY, moment(2026, 3, 28, 0, 0), moment(2026, 3, 31, 0, 0));
    assert_true(q.row_count == 3 && q.rows[0].down == 96 && q.rows[1].down == 92 && q.rows[2].down == 96);
    forget(&q);
    q = ask(&b, STORE_BY_DAY, moment(2026, 10, 25, 0, 0), moment(2026, 10, 26, 0, 0));
    assert_true(q.row_count == 1 && q.rows[0].down == 100);
    forget(&q);
    close_box(&b);
    remove_store();
}

/* Octets of the last and of the first second of an hour, which is that of a month. */
static void test_octets_beside_the_turn_of_an_hour(void **state)
{
    (void)state;
    struct box b;
    set_zone(BERLIN);
    int64_t turn = moment(2026, 11, 1, 0, 0);
    open_box(&b, turn - 4000, "connections=9");
    uint32_t a = hold(&b, "user:a");
    leap(&b, turn - 1);
    assert_int_equal(move(&b, a, 100), 100);
    pass(&b, turn, 1);
    assert_int_equal(move(&b, a, 7), 7);
    pass(&b, turn + 1, 1);
    struct store_query q = ask(&b, STORE_BY_HOUR, 0, INT64_MAX);
    assert_true(q.row_count == 1 && q.rows[0].begin == turn - HOUR_S && q.rows[0].down == 100);
    forget(&q);
    pass(&b, turn + 20, 1);
    q = ask(&b, STORE_BY_HOUR, 0, INT64_MAX);
    assert_true(q.row_count == 2 && q.rows[1].begin == turn && q.rows[1].down == 7);
    forget(&q);
    q = ask(&b, STORE_BY_MONTH, 0, INT64_MAX);
    assert_true(q.row_count == 2 && q.rows[0].down == 100 && q.rows[1].begin == turn && q.rows[1].down == 7);
    forget(&q);
    keys_release(b.keys, a);
    close_box(&b);
    remove_store();
}

/* A wall clock that is put back by some hours books in the hours that it shows, and nothing is lost or doubled. */
static void test_a_clock_that_is_put_back(void **state)
{
    (void)state;
    struct box b;
    set_zone("UTC0");
    int64_t begin = moment(2026, 5, 4, 12, 0);
    open_box(&b, begin, "quota=1000B/hour");
    uint32_t a = hold(&b, "user:a");
    move(&b, a, 600);
    pass(&b, begin + 20, 1);
    uint64_t real_us = now_us(&b);
    b.start_s -= 5 * HOUR_S; /* the rings' clock goes on as ever */
    b.wall_s -= 5 * HOUR_S;
    assert_int_equal(now_us(&b), real_us);
    keys_update_clock(b.keys, now_us(&b), b.wall_s);
    assert_int_equal(move(&b, a, 600), 400); /* the quota is not given twice */
    look(&b);
    pass(&b, b.wall_s + 20, 1);
    struct store_query q = ask(&b, STORE_BY_DAY, 0, INT64_MAX);
    assert_true(q.row_count == 1 && q.rows[0].down == 1000);
    forget(&q);
    keys_release(b.keys, a);
    close_box(&b);
    remove_store();
}

/* A quota of each period is used up, again and again: it comes back with the first second of the next period, whole,
 * and not before; also where the box was stopped, or killed, in between. */
static void check_turns(const char *period, enum calendar_period kind, int64_t begin, unsigned turns, bool restarts)
{
    struct box b;
    char terms[64];
    snprintf(terms, sizeof terms, "quota-down=500B/%s", period);
    begin = calendar_begin(kind, begin);
    open_box(&b, begin, terms);
    for (unsigned i = 0; i < turns; i++) {
        int64_t next = calendar_next(kind, begin);
        uint32_t a = hold(&b, "user:a");
        assert_int_equal(move(&b, a, 300), 300);
        pass(&b, begin + 15, 15);
        if (restarts) {
            keys_release(b.keys, a);
            close_box(&b);
            open_box(&b, begin + 16, terms);
            a = hold(&b, "user:a");
        }
        assert_int_equal(move(&b, a, 300), 200);
        leap(&b, next - 1);
        assert_int_equal(move(&b, a, 300), 0);
        pass(&b, next, 1);
        begin = next;
        keys_release(b.keys, a);
    }
    pass(&b, begin + 15, 15);
    struct store_query q = ask(&b, STORE_BY_HOUR, 0, INT64_MAX);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < q.row_count; i++) sum += q.rows[i].down;
    assert_int_equal(sum, turns * 500u);
    forget(&q);
    close_box(&b);
    remove_store();
}

static void test_quotas_come_back_with_their_period(void **state)
{
    (void)state;
    static const char *const zones[] = {BERLIN, "UTC0", "IST-5:30", "NPT-5:45",
                                        "LHST-10:30LHDT-11,M10.1.0,M4.1.0" /* by half an hour */};
    static const struct {
        const char *name;
        enum calendar_period period;
        int month, day, hour;
        unsigned turns;
    } spans[] = {{"hour", CALENDAR_HOUR, 3, 28, 22, 8},   {"hour", CALENDAR_HOUR, 10, 24, 22, 8},
                 {"hour", CALENDAR_HOUR, 4, 4, 22, 8},    {"hour", CALENDAR_HOUR, 10, 3, 22, 8},
                 {"day", CALENDAR_DAY, 3, 27, 12, 5},     {"day", CALENDAR_DAY, 10, 23, 12, 5},
                 {"day", CALENDAR_DAY, 4, 3, 12, 5},      {"day", CALENDAR_DAY, 10, 2, 12, 5},
                 {"week", CALENDAR_WEEK, 12, 20, 12, 3},  {"month", CALENDAR_MONTH, 1, 31, 12, 4},
                 {"month", CALENDAR_MONTH, 9, 30, 12, 4}, {"month", CALENDAR_MONTH, 11, 30, 12, 3}};
    for (unsigned i = 0; i < (SUPPORT_SANITIZED ? 1 : sizeof zones / sizeof *zones); i++) {
        set_zone(zones[i]);
        for (unsigned j = 0; j < sizeof spans / sizeof *spans; j++) {
            int64_t begin = moment(2026, spans[j].month, spans[j].day, spans[j].hour, 0);
            check_turns(spans[j].name, spans[j].period, begin, spans[j].turns, false);
            check_turns(spans[j].name, spans[j].period, begin, spans[j].turns, true);
        }
    }
}

/* --- kills --- */

/* What the child has done when it is killed: read by the parent afterwards. */
struct trail {
    _Atomic uint64_t moved;      /* octets, in all */
    _Atomic uint64_t before[16]; /* moved when second number (mod 16) began */
    _Atomic int64_t second;      /* of the virtual clock */
};

/* Twelve hundred octets a second, for ever; a second lasts as long as its work and a little more. */
static _Noreturn void live(int64_t wall_s, struct trail *trail)
{
    struct box b;
    open_box(&b, wall_s, "quota-down=1TB");
    uint32_t a = hold(&b, "user:a");
    for (;;) {
        atomic_store(&trail->before[b.wall_s % 16], atomic_load(&trail->moved));
        atomic_store(&trail->second, b.wall_s);
        for (unsigned i = 0; i < 3; i++) {
            move(&b, a, 400);
            atomic_fetch_add(&trail->moved, 400);
        }
        pass(&b, b.wall_s + 1, 1);
        usleep(200); /* so that it is not always killed while it writes */
    }
}

static void check_integrity(void)
{
    char path[128];
    sqlite3 *db;
    sqlite3_stmt *statement;
    snprintf(path, sizeof path, "%s/usage.db", folder);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(statement, 0), "ok");
    sqlite3_finalize(statement);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static uint64_t used_of_quota(struct box *b)
{
    struct limit_key key = key_of("user:a");
    struct keys_row row;
    assert_true(keys_find(b->keys, &key, now_us(b), &row));
    return row.used[LIMIT_DOWN];
}

static unsigned kills_wanted(void)
{
    const char *text = getenv("SLUICE_USAGE_KILLS");
    return text ? (unsigned)atoi(text) : SUPPORT_SANITIZED ? 4 : 20;
}

/* What there is in rows of hours: the same as in all, for both are written in one transaction. */
static uint64_t sum_of_rows(struct box *b)
{
    struct store_query q = ask(b, STORE_BY_MONTH, 0, INT64_MAX);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < q.row_count; i++) sum += q.rows[i].down;
    forget(&q);
    return sum;
}

static pid_t live_in_a_child(int64_t wall_s, struct trail *trail)
{
    int status;
    atomic_store(&trail->second, wall_s - 1);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) live(wall_s, trail);
    while (atomic_load(&trail->second) < wall_s + 11) {
        assert_int_equal(waitpid(child, &status, WNOHANG), 0); /* it is well */
        usleep(500);
    }
    return child;
}

/* A box that is killed again and again, at any moment: in a transaction, at a check-point, between two. The database is
 * sound, the quota is what it was within the last ten seconds, and never less than it was at the start before. */
static void test_kills(void **state)
{
    (void)state;
    struct trail *trail = mmap(NULL, sizeof *trail, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t last = 0, lost_most = 0;
    unsigned kills = kills_wanted(), seed = 1, moved_on = 0;
    assert_true(trail != MAP_FAILED);
    set_zone("UTC0");
    int64_t wall_s = moment(2026, 8, 1, 0, 0);
    for (unsigned i = 0; i < kills; i++) {
        int status;
        struct box b;
        pid_t child = live_in_a_child(wall_s, trail);
        seed = seed * 1103515245 + 12345;
        usleep(seed >> 16 & 0x7fff);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        if (i % 2) check_integrity(); /* else the box finds the log as it was left */
        int64_t second = atomic_load(&trail->second);
        open_box(&b, second + 1, "quota-down=1TB");
        uint64_t used = used_of_quota(&b), moved = atomic_load(&trail->moved);
        assert_true(used <= moved && used >= atomic_load(&trail->before[(second - 10) % 16]));
        assert_true(used >= last && used == sum_of_rows(&b));
        moved_on += used > last;
        if (moved - used > lost_most) lost_most = moved - used;
        close_box(&b);
        check_integrity();
        last = used;
        atomic_store(&trail->moved, used);
        for (unsigned j = 0; j < 16; j++) atomic_store(&trail->before[j], used);
        wall_s = second + 2;
    }
    print_message("%u kills: integrity_check ok, at most %llu octets of 1200 a second missing\n", kills,
                  (unsigned long long)lost_most);
    assert_int_equal(moved_on, kills); /* each of them has lived for more than ten seconds */
    munmap(trail, sizeof *trail);
    remove_store();
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
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
        cmocka_unit_test(test_rows_of_days_of_23_and_25_hours_and_of_month_ends),
        cmocka_unit_test(test_octets_beside_the_turn_of_an_hour),
        cmocka_unit_test(test_a_clock_that_is_put_back),
        cmocka_unit_test(test_quotas_come_back_with_their_period),
        cmocka_unit_test(test_kills),
    };
    if (getenv("SLUICE_USAGE_KILLS")) cmocka_set_test_filter("test_kills"); /* make usage-kills */
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
