/* core/io/bucket, quota, calendar and hash: rates, octets for a period, and when periods begin, on a clock of ours. */
#include "core/io/bucket.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/io/calendar.h"
#include "core/io/hash.h"
#include "core/io/quota.h"
#include "tests/support.h"

#define SECOND_US UINT64_C(1000000)
#define HOUR_US   (3600 * SECOND_US)
#define THREADS   16u

/* --- a bucket by itself --- */

static void test_takes_the_burst_and_then_the_rate(void **state)
{
    (void)state;
    const struct bucket_rate rate = {.pieces = 10, .seconds = 1, .burst = 5};
    struct bucket b;
    uint64_t now = 77;
    bucket_open(&b, now);
    for (unsigned i = 0; i < 5; i++) assert_int_equal(bucket_take(&b, &rate, 1, now), 0);
    assert_int_equal(bucket_take(&b, &rate, 1, now), 100000);
    assert_int_equal(bucket_take(&b, &rate, 1, now + 99999), 1);
    assert_int_equal(bucket_take(&b, &rate, 1, now + 100000), 0);
    assert_true(bucket_take(&b, &rate, 6, now + HOUR_US) == UINT64_MAX);
    assert_int_equal(bucket_take(&b, &rate, 5, now + HOUR_US), 0);
}

static void test_slow_rates_are_told_apart(void **state)
{
    (void)state;
    const struct bucket_rate rate = {.pieces = 7, .seconds = 3600, .burst = 1};
    struct bucket b;
    bucket_open(&b, 0);
    assert_int_equal(bucket_take(&b, &rate, 1, 0), 0);
    uint64_t wait = bucket_take(&b, &rate, 1, 0);
    assert_true(wait >= HOUR_US / 7 && wait <= HOUR_US / 7 + 1);
}

static void test_bookings_stand_in_line(void **state)
{
    (void)state;
    const struct bucket_rate rate = {.pieces = 1000, .seconds = 1, .burst = 1};
    struct bucket b;
    bucket_open(&b, 0);
    assert_int_equal(bucket_book(&b, &rate, 1, 0), 0);
    assert_int_equal(bucket_book(&b, &rate, 10, 0), 10000);
    assert_int_equal(bucket_book(&b, &rate, 10, 5000), 20000);
    assert_int_equal(bucket_wait_us(&b, 5000), 15000);
    bucket_give_back(&b, &rate, 10);
    assert_int_equal(bucket_book(&b, &rate, 5, 5000), 15000);
    bucket_reset(&b, 6000);
    assert_int_equal(bucket_wait_us(&b, 6000), 0);
    assert_int_equal(bucket_book(&b, &rate, 3, 6000), 9000);
    bucket_reset(&b, 20000); /* what was saved stays */
    assert_int_equal(bucket_book(&b, &rate, 3, 20000), 22000);
}

/* Twelve hours of nothing are worth the burst, and a clock that goes back, or stands still, is worth nothing. */
static void test_idleness_and_clocks_give_no_more_than_the_burst(void **state)
{
    (void)state;
    const struct bucket_rate rate = {.pieces = 125000000, .seconds = 1, .burst = 12500000};
    struct bucket b;
    uint64_t now = HOUR_US;
    bucket_open(&b, now);
    now += 12 * HOUR_US;
    assert_int_equal(bucket_take(&b, &rate, rate.burst, now), 0);
    assert_true(bucket_take(&b, &rate, 1400, now) > 0);
    assert_true(bucket_take(&b, &rate, 1400, now - HOUR_US) > 0);
    assert_true(bucket_take(&b, &rate, 1400, 0) > 0);
    assert_true(bucket_take(&b, &rate, 1400, now) > 0);
    assert_true(bucket_book(&b, &rate, 1400, now - HOUR_US) > now);
}

/* All that a greedy taker gets in `time_us`, who asks each `step_us` for as much as there is. */
static uint64_t greed(const struct bucket_rate *rate, uint64_t piece, uint64_t step_us, uint64_t time_us)
{
    struct bucket b;
    uint64_t total = 0;
    bucket_open(&b, 0);
    for (uint64_t now = 0; now <= time_us; now += step_us)
        while (bucket_take(&b, rate, piece, now) == 0) total += piece;
    return total;
}

static void is_exact(uint64_t per_second, uint64_t piece, uint64_t step_us, uint64_t time_us)
{
    uint64_t due = per_second * time_us / SECOND_US, tenth = per_second / 10 < due / 10 ? per_second / 10 : due / 10;
    const struct bucket_rate rate = {.pieces = per_second, .seconds = 1, .burst = tenth + 1};
    uint64_t total = greed(&rate, piece, step_us, time_us);
    assert_true(total <= due + rate.burst);
    assert_true(total >= due - due / 100);
}

static void test_rates_are_exact_from_slow_to_fast(void **state)
{
    (void)state;
    is_exact(1000, 1, 1000, HOUR_US);
    is_exact(1000, 100, 1000, HOUR_US);
    is_exact(37500000, 1400, 1000, 60 * SECOND_US);                  /* 300 Mbit/s */
    is_exact(64000000, 16384, 1000, 60 * SECOND_US);                 /* 512 Mbit/s */
    is_exact(67000000, 16384, 1000, 60 * SECOND_US);                 /* where 32 bits would wrap */
    is_exact(1250000000, 65536, 1000, 60 * SECOND_US);               /* 10 Gbit/s */
    is_exact(1250000000, 2, 1, SECOND_US / 50);                      /* by 625 at a time */
    is_exact(UINT64_C(125000000000), 1 << 20, 1000, 10 * SECOND_US); /* 1 Tbit/s */
}

/* --- many threads --- */

static struct {
    struct bucket bucket;
    struct bucket_rate rate;
    struct quota quota;
    _Atomic uint64_t now, total;
    uint64_t until; /* how long it takes, in simulated microseconds */
    bool gives_back;
} shared;

/* Each thread has its own idea of the time, some behind the others. */
static void *take_in_turn(void *argument)
{
    uint64_t total = 0, takes = 0, lag = (uint64_t)(uintptr_t)argument * 100;
    for (;;) {
        uint64_t now = atomic_fetch_add(&shared.now, 1000);
        if (now >= shared.until) break;
        uint64_t mine = now > lag ? now - lag : 0;
        while (bucket_take(&shared.bucket, &shared.rate, 1400, mine) == 0) {
            total += 1400;
            if (!shared.gives_back || ++takes % 3 != 0) continue;
            bucket_give_back(&shared.bucket, &shared.rate, 1400);
            total -= 1400;
            break;
        }
    }
    atomic_fetch_add(&shared.total, total);
    return NULL;
}

static void run_threads(void *(*function)(void *))
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, function, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

static void threads_are_exact(bool gives_back, uint64_t seconds)
{
    shared.rate = (struct bucket_rate){.pieces = 125000, .seconds = 1, .burst = 12500};
    shared.gives_back = gives_back;
    shared.until = seconds * SECOND_US;
    atomic_store(&shared.now, 0);
    atomic_store(&shared.total, 0);
    bucket_open(&shared.bucket, 0);
    run_threads(take_in_turn);
    uint64_t due = shared.rate.pieces * seconds, total = atomic_load(&shared.total);
    assert_true(total <= due + shared.rate.burst);
    assert_true(total >= due - due / 100);
    /* Twelve hours of nothing, and a clock that steps back in between, are worth one burst. */
    atomic_store(&shared.now, shared.until - SECOND_US);
    run_threads(take_in_turn);
    assert_true(atomic_load(&shared.total) <= due + shared.rate.burst);
    uint64_t later = 13 * HOUR_US, got = 0;
    while (bucket_take(&shared.bucket, &shared.rate, 1400, later) == 0) got += 1400;
    assert_in_range(got, shared.rate.burst - 1400, shared.rate.burst);
}

static void test_threads_together_get_the_rate(void **state)
{
    (void)state;
    threads_are_exact(false, 3600);
    threads_are_exact(true, 300);
}

static uint64_t random_of(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void *take_quota(void *argument)
{
    uint64_t total = 0, idle = 0;
    uint64_t salt = (uintptr_t)argument;
    while (idle < 100) {
        struct quota_grant grant = quota_take(&shared.quota, 1000003, 1, 1 + random_of(&salt) % 500);
        uint64_t moved = grant.octets == 0 ? 0 : random_of(&salt) % (grant.octets + 1);
        quota_settle(&shared.quota, &grant, moved);
        total += moved;
        idle = quota_is_spent(&shared.quota, 1000003, 1) ? idle + 1 : 0;
    }
    atomic_fetch_add(&shared.total, total);
    return NULL;
}

static void test_threads_together_get_the_quota_to_the_octet(void **state)
{
    (void)state;
    atomic_store(&shared.total, 0);
    quota_open(&shared.quota, 1);
    run_threads(take_quota);
    assert_int_equal(atomic_load(&shared.total), 1000003);
    assert_int_equal(quota_used(&shared.quota, 1), 1000003);
}

/* --- quotas --- */

static uint64_t take(struct quota *quota, uint64_t limit, int64_t period, uint64_t wanted, uint64_t moved)
{
    struct quota_grant grant = quota_take(quota, limit, period, wanted);
    quota_settle(quota, &grant, moved < grant.octets ? moved : grant.octets);
    return grant.octets;
}

static void test_a_quota_is_never_exceeded(void **state)
{
    (void)state;
    struct quota q;
    quota_open(&q, 100);
    assert_int_equal(take(&q, 10, 100, 7, 7), 7);
    assert_int_equal(take(&q, 10, 100, 7, 1), 3);
    assert_int_equal(quota_used(&q, 100), 8);
    assert_int_equal(take(&q, 10, 100, 7, 7), 2);
    assert_int_equal(take(&q, 10, 100, 7, 7), 0);
    assert_true(quota_is_spent(&q, 10, 100));
    assert_int_equal(take(&q, 12, 100, 7, 7), 2); /* raised */
    assert_true(quota_is_spent(&q, 5, 100));      /* lowered below what is used */
}

static void test_what_may_come_back_is_not_spent(void **state)
{
    (void)state;
    struct quota q;
    quota_open(&q, 100);
    struct quota_grant grant = quota_take(&q, 10, 100, 10);
    assert_int_equal(take(&q, 10, 100, 1, 1), 0);
    assert_false(quota_is_spent(&q, 10, 100));
    quota_settle(&q, &grant, 4);
    assert_int_equal(take(&q, 10, 100, 10, 10), 6);
    assert_true(quota_is_spent(&q, 10, 100));
    quota_refund(&q, 100, 3);
    assert_int_equal(quota_used(&q, 100), 7);
    quota_refund(&q, 100, 30);
    assert_int_equal(quota_used(&q, 100), 0);
}

static void test_a_new_period_begins_anew_and_gets_nothing_from_the_old_one(void **state)
{
    (void)state;
    struct quota q;
    quota_open(&q, 1000);
    struct quota_grant late = quota_take(&q, 10, 1000, 10);
    assert_int_equal(take(&q, 10, 2000, 4, 4), 4);
    quota_settle(&q, &late, 0); /* of the old period: it must not make the new one larger */
    assert_int_equal(quota_used(&q, 2000), 4);
    quota_refund(&q, 1000, 4);
    assert_int_equal(take(&q, 10, 2000, 100, 100), 6);
    assert_true(quota_is_spent(&q, 10, 2000));
    assert_int_equal(quota_used(&q, 3000), 0);
    assert_false(quota_is_spent(&q, 10, 3000));
}

/* Set right by a little the clock begins no period twice; set back by far it takes what is used along. */
static void test_a_wall_clock_that_goes_back_gives_nothing(void **state)
{
    (void)state;
    struct quota q;
    quota_open(&q, 100000);
    assert_int_equal(take(&q, 10, 103600, 10, 10), 10);
    assert_int_equal(take(&q, 10, 100000, 10, 10), 0);
    assert_int_equal(take(&q, 10, 103600, 10, 10), 0);
    assert_int_equal(take(&q, 10, 50000, 10, 10), 0);
    assert_int_equal(take(&q, 10, 53600, 10, 10), 10);
}

static void test_what_was_used_is_restored(void **state)
{
    (void)state;
    struct quota q;
    quota_restore(&q, 100, 7);
    assert_int_equal(quota_used(&q, 100), 7);
    assert_int_equal(take(&q, 10, 100, 10, 10), 3);
    quota_restore(&q, 100, 7);
    assert_int_equal(take(&q, 10, 5000, 10, 10), 10);
}

/* --- the calendar --- */

static void set_zone(const char *zone)
{
    setenv("TZ", zone, 1);
    tzset();
}

static int64_t at(int year, int month, int day, int hour, int minute)
{
    struct tm tm = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute};
    return timegm(&tm);
}

static void test_periods_begin_in_local_time(void **state)
{
    (void)state;
    set_zone("XXX-5:30");
    int64_t now = at(2026, 11, 29, 20, 45); /* Monday the 30th, 02:15 there */
    assert_int_equal(calendar_begin(CALENDAR_HOUR, now), at(2026, 11, 29, 20, 30));
    assert_int_equal(calendar_begin(CALENDAR_DAY, now), at(2026, 11, 29, 18, 30));
    assert_int_equal(calendar_begin(CALENDAR_WEEK, now), at(2026, 11, 29, 18, 30));
    assert_int_equal(calendar_begin(CALENDAR_MONTH, now), at(2026, 10, 31, 18, 30));
    assert_int_equal(calendar_next(CALENDAR_MONTH, at(2026, 10, 31, 18, 30)), at(2026, 11, 30, 18, 30));
    assert_int_equal(calendar_begin(CALENDAR_WEEK, now - 86400), at(2026, 11, 22, 18, 30));
    set_zone("UTC0");
    assert_int_equal(calendar_next(CALENDAR_MONTH, at(2027, 1, 1, 0, 0)), at(2027, 2, 1, 0, 0));
    assert_int_equal(calendar_next(CALENDAR_MONTH, at(2026, 12, 1, 0, 0)), at(2027, 1, 1, 0, 0));
}

static void test_days_have_the_hours_that_they_have(void **state)
{
    (void)state;
    set_zone("CET-1CEST,M3.5.0,M10.5.0/3");
    int64_t spring = calendar_begin(CALENDAR_DAY, at(2026, 3, 29, 12, 0));
    assert_int_equal(spring, at(2026, 3, 28, 23, 0));
    assert_int_equal(calendar_next(CALENDAR_DAY, spring) - spring, 23 * 3600);
    int64_t autumn = calendar_begin(CALENDAR_DAY, at(2026, 10, 25, 12, 0));
    assert_int_equal(calendar_next(CALENDAR_DAY, autumn) - autumn, 25 * 3600);
    /* Clocks go forward at midnight: the day begins at one o'clock. */
    set_zone("BRT3BRST,M11.1.0/0,M2.3.0/0");
    int64_t missing = calendar_begin(CALENDAR_DAY, at(2026, 11, 1, 15, 0));
    assert_int_equal(missing, at(2026, 11, 1, 3, 0));
    assert_int_equal(calendar_next(CALENDAR_DAY, calendar_begin(CALENDAR_DAY, at(2026, 10, 31, 15, 0))), missing);
    /* And back at midnight: the hour before it is there twice, and belongs to the day before. */
    assert_int_equal(calendar_begin(CALENDAR_DAY, at(2026, 2, 15, 15, 0)), at(2026, 2, 15, 3, 0));
}

/* The periods of two years follow one another, and both ends of each lie in it. `exact`: not where clocks go back by
 * half an hour, and hours are not full. */
static void follow(enum calendar_period period, bool exact)
{
    int64_t begin = calendar_begin(period, at(2026, 1, 1, 12, 0));
    while (begin < at(2028, 1, 1, 0, 0)) {
        int64_t next = calendar_next(period, begin);
        assert_true(next > begin);
        if (exact) {
            assert_int_equal(calendar_begin(period, begin), begin);
            assert_int_equal(calendar_begin(period, next - 1), begin);
        }
        begin = next;
    }
}

/* Every second of two years lies in exactly one period of each kind. */
static void test_periods_have_no_gaps(void **state)
{
    (void)state;
    static const char *const zones[] = {"UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "BRT3BRST,M11.1.0/0,M2.3.0/0",
                                        "LHST-10:30LHDT-11,M10.1.0,M4.1.0"};
    for (size_t zone = 0; zone < sizeof zones / sizeof *zones; zone++) {
        set_zone(zones[zone]);
        for (unsigned period = 0; period < CALENDAR_PERIODS; period++)
            follow((enum calendar_period)period, period != CALENDAR_HOUR || zone < 3);
    }
    set_zone("UTC0");
}

static void test_the_table_knows_what_follows(void **state)
{
    (void)state;
    static struct calendar calendar;
    set_zone("UTC0");
    int64_t now = at(2026, 11, 29, 20, 45);
    calendar_update(&calendar, now);
    for (unsigned period = 0; period < CALENDAR_PERIODS; period++) {
        enum calendar_period p = (enum calendar_period)period;
        assert_int_equal(calendar_find(&calendar, p, now), calendar_begin(p, now));
        int64_t next = calendar_next(p, calendar_begin(p, now));
        assert_int_equal(calendar_find(&calendar, p, next - 1), calendar_begin(p, now));
        assert_int_equal(calendar_find(&calendar, p, next), next);
        int64_t before = calendar_begin(p, calendar_begin(p, now) - 1); /* it is over, but may be asked for */
        assert_int_equal(calendar_find(&calendar, p, calendar_begin(p, now) - 1), before);
        assert_int_equal(calendar_find(&calendar, p, before), before);
        assert_int_equal(calendar_find(&calendar, p, now - 400 * 86400), before);
    }
    assert_int_equal(calendar_find(&calendar, CALENDAR_HOUR, now + 10 * 3600), at(2026, 11, 30, 6, 0));
    calendar_update(&calendar, now + 3600);
    assert_int_equal(calendar_find(&calendar, CALENDAR_HOUR, now + 3600), at(2026, 11, 29, 21, 0));
}

/* --- the hash --- */

/* The first and the last of the vectors that its authors give: octets 0, 1, 2 ... under the key 0, 1, 2 ... 15. */
static void test_the_hash_is_siphash(void **state)
{
    (void)state;
    const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    uint8_t octets[63];
    for (unsigned i = 0; i < sizeof octets; i++) octets[i] = (uint8_t)i;
    assert_true(hash_keyed(key, octets, 0) == 0x726fdb47dd0e0e31u);
    assert_true(hash_keyed(key, octets, 15) == 0xa129ca6149be45e5u);
    assert_true(hash_keyed(key, octets, 63) == 0x958a324ceb064572u);
}

/* Vectors of draft-eastlake-fnv. */
static void test_the_plain_hash_is_fnv1a(void **state)
{
    (void)state;
    assert_true(hash_plain(HASH_START, NULL, 0) == 0xcbf29ce484222325u);
    assert_true(hash_plain(HASH_START, "a", 1) == 0xaf63dc4c8601ec8cu);
    assert_true(hash_plain(HASH_START, "foobar", 6) == 0x85944171f73967e8u);
    assert_true(hash_plain(hash_plain(HASH_START, "foo", 3), "bar", 3) == 0x85944171f73967e8u);
    assert_true(hash_plain_lower(HASH_START, "fOObAr", 6) == 0x85944171f73967e8u);
    const char edges[] = "@AZ[\xc1", lower[] = "@az[\xc1"; /* what stands beside the letters stays */
    assert_true(hash_plain_lower(HASH_START, edges, 5) == hash_plain(HASH_START, lower, 5));
    assert_int_equal(hash_fold(0x0000000100000003u), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_the_burst_and_then_the_rate),
        cmocka_unit_test(test_slow_rates_are_told_apart),
        cmocka_unit_test(test_bookings_stand_in_line),
        cmocka_unit_test(test_idleness_and_clocks_give_no_more_than_the_burst),
        cmocka_unit_test(test_rates_are_exact_from_slow_to_fast),
        cmocka_unit_test(test_threads_together_get_the_rate),
        cmocka_unit_test(test_threads_together_get_the_quota_to_the_octet),
        cmocka_unit_test(test_a_quota_is_never_exceeded),
        cmocka_unit_test(test_what_may_come_back_is_not_spent),
        cmocka_unit_test(test_a_new_period_begins_anew_and_gets_nothing_from_the_old_one),
        cmocka_unit_test(test_a_wall_clock_that_goes_back_gives_nothing),
        cmocka_unit_test(test_what_was_used_is_restored),
        cmocka_unit_test(test_periods_begin_in_local_time),
        cmocka_unit_test(test_days_have_the_hours_that_they_have),
        cmocka_unit_test(test_periods_have_no_gaps),
        cmocka_unit_test(test_the_table_knows_what_follows),
        cmocka_unit_test(test_the_hash_is_siphash),
        cmocka_unit_test(test_the_plain_hash_is_fnv1a),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
