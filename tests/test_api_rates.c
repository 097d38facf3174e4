/* How fast counters grow, by two looks at each, and the first so many of all. */
#include <stdlib.h>

#include "api/ranking.h"
#include "api/rates.h"
#include "tests/support.h"

#define SECOND UINT64_C(1000000)
#define NOW    (1000 * SECOND)

static struct rates rates;

static int setup(void **state)
{
    (void)state;
    return rates_open(&rates, 100) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    rates_close(&rates);
    return 0;
}

static struct rate look(uint32_t index, uint64_t handle, uint64_t up, uint64_t down, uint64_t now_us)
{
    return rates_look(&rates, index, handle, (uint64_t[2]){up, down}, now_us);
}

static void assert_rate(struct rate rate, double up, double down)
{
    assert_true(rate.known);
    assert_true(rate.per_second[0] > up - 0.001 && rate.per_second[0] < up + 0.001);
    assert_true(rate.per_second[1] > down - 0.001 && rate.per_second[1] < down + 0.001);
}

static void test_the_mean_between_two_looks(void **state)
{
    (void)state;
    assert_false(look(3, 7, 1000, 5, NOW).known);
    assert_rate(look(3, 7, 3000, 5, NOW + 2 * SECOND), 1000, 0);
    assert_rate(look(3, 7, 3000, 50005, NOW + 7 * SECOND), 0, 10000);
    assert_rate(look(3, 7, UINT64_C(1) << 40, 50005, NOW + 8 * SECOND), (double)((UINT64_C(1) << 40) - 3000), 0);
    assert_false(look(4, 7, 0, 0, NOW + 8 * SECOND).known); /* each row by itself */
}

/* Any number of pages may ask: looks that are close to each other are one. */
static void test_looks_that_are_close(void **state)
{
    (void)state;
    look(0, 1, 0, 0, NOW);
    for (unsigned i = 1; i < 9; i++) assert_false(look(0, 1, 100 * i, 0, NOW + i * SECOND / 10).known);
    assert_rate(look(0, 1, 1000, 0, NOW + SECOND), 1000, 0);
    for (unsigned i = 1; i < 9; i++) assert_rate(look(0, 1, 9999999, 0, NOW + SECOND + i * SECOND / 10), 1000, 0);
    assert_rate(look(0, 1, 3000, 0, NOW + 2 * SECOND), 2000, 0);
}

/* What was long ago is not what is now, and a row that is another's has no past: its counter may be smaller. */
static void test_rows_without_a_past(void **state)
{
    (void)state;
    look(0, 1, 0, 0, NOW);
    assert_false(look(0, 1, 5000, 0, NOW + RATES_STALE_US + 1).known);
    assert_rate(look(0, 1, 6000, 0, NOW + RATES_STALE_US + 1 + SECOND), 1000, 0);
    assert_false(look(0, 2, 10, 0, NOW + RATES_STALE_US + 2 * SECOND).known);
    assert_false(look(0, 2, 20, 0, NOW + RATES_STALE_US + 2 * SECOND + 1).known);
    assert_rate(look(0, 2, 40, 0, NOW + RATES_STALE_US + 3 * SECOND), 30, 0);
    assert_false(look(0, 1, 0, 0, NOW + RATES_STALE_US + 3 * SECOND + 1).known);
}

static void test_when_one_pass_is_enough(void **state)
{
    (void)state;
    assert_false(rates_are_fresh(&rates, NOW));
    rates_end_pass(&rates, NOW);
    assert_true(rates_are_fresh(&rates, NOW));
    assert_true(rates_are_fresh(&rates, NOW + 5 * SECOND));
    assert_false(rates_are_fresh(&rates, NOW + 6 * SECOND));
}

/* --- ranking --- */

static struct ranked ranked(uint64_t handle, double up, double down, uint64_t connections)
{
    return (struct ranked){
        .rate = {.known = true, .per_second = {up, down}}, .connections = connections, .handle = handle};
}

static void test_order(void **state)
{
    (void)state;
    struct ranking r;
    const struct ranked all[] = {ranked(5, 0, 0, 0), ranked(4, 0, 0, 0), ranked(3, 1, 2, 0),
                                 ranked(2, 2, 2, 0), ranked(1, 0, 0, 9), {.connections = 10, .handle = 0},
                                 ranked(6, 0, 3, 1)};
    const uint64_t order[] = {2, 6, 3, 0, 1, 4, 5};
    assert_true(ranking_open(&r, 100));
    for (unsigned i = 0; i < 7; i++) ranking_offer(&r, &all[i]);
    ranking_sort(&r);
    assert_int_equal(r.count, 7);
    for (unsigned i = 0; i < 7; i++) assert_int_equal(r.all[i].handle, order[i]);
    ranking_close(&r);
}

/* Of any number, in any order, the same. */
static void test_the_first_of_many(void **state)
{
    (void)state;
    unsigned short seed[3] = {1, 2, 3};
    for (unsigned round = 0; round < 200; round++) {
        struct ranking r;
        uint32_t room = 1 + (uint32_t)nrand48(seed) % 30, count = (uint32_t)nrand48(seed) % 200;
        uint32_t step = 1 + 2 * ((uint32_t)nrand48(seed) % 97); /* odd: with 256 it has no factor in common */
        assert_true(ranking_open(&r, room));
        for (uint32_t i = 0, at = (uint32_t)nrand48(seed) % 256, left = count; left > 0 && i < 256;
             i++, at = (at + step) % 256) {
            if (at >= count) continue;
            struct ranked one = ranked(at, at, 0, 0);
            ranking_offer(&r, &one);
            left--;
        }
        ranking_sort(&r);
        assert_int_equal(r.count, count < room ? count : room);
        for (uint32_t i = 0; i < r.count; i++) assert_int_equal(r.all[i].handle, count - 1 - i);
        ranking_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_mean_between_two_looks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_looks_that_are_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rows_without_a_past, setup, teardown),
        cmocka_unit_test_setup_teardown(test_when_one_pass_is_enough, setup, teardown),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_the_first_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
