/* When a bulk flow is looked at again: never at the price of a message that is answered, or of the sender's window. */
#include <string.h>

#include "core/session/flow_pace.h"
#include "tests/support.h"

#define WINDOW (16u << 20)
#define GATHER (1u << 20)
#define WORTH  (GATHER / FLOW_PACE_LEAST_SHARE)

struct stream {
    struct flow_pace pace;
    uint64_t now_us, back;
    uint32_t rate; /* octets per microsecond */
};

static struct stream begin(uint32_t rate, uint32_t window)
{
    struct stream s = {.now_us = (uint64_t)UINT32_MAX - 100, .back = 7, .rate = rate}; /* the low half wraps */
    flow_pace_begin(&s.pace, GATHER, s.back, s.now_us);
    assert_true(flow_pace_window_is_old(&s.pace));
    flow_pace_set_window(&s.pace, window);
    return s;
}

/* What has come in `us` is moved. */
static uint32_t visit(struct stream *s, uint32_t us)
{
    s->now_us += us;
    return flow_pace_visit(&s->pace, (uint64_t)us * s->rate, s->back, s->now_us);
}

/* Visits until the rest is what it will be. */
static uint32_t settle(struct stream *s)
{
    uint32_t rest = 0;
    for (unsigned i = 0; i < 200; i++) rest = visit(s, rest > 0 ? rest : 50);
    return rest;
}

static void test_rest_gathers_at_the_flows_rate(void **state)
{
    (void)state;
    struct stream s = begin(4000, WINDOW);
    assert_int_equal(settle(&s), GATHER / 4000);
}

static void test_rest_has_an_end(void **state)
{
    (void)state;
    struct stream s = begin(200, WINDOW);
    assert_int_equal(settle(&s), FLOW_PACE_US_MAX);
}

static void test_slow_flow_is_polled(void **state)
{
    (void)state;
    struct stream s = begin(WORTH / FLOW_PACE_US_MAX - 1, WINDOW);
    assert_int_equal(settle(&s), 0);
    s = begin(WORTH / FLOW_PACE_US_MAX + 1, WINDOW);
    assert_int_equal(settle(&s), FLOW_PACE_US_MAX);
}

static void test_very_fast_flow_is_polled(void **state)
{
    (void)state;
    struct stream s = begin(GATHER / FLOW_PACE_US_MIN, WINDOW);
    assert_true(settle(&s) >= FLOW_PACE_US_MIN);
    s = begin(GATHER / (FLOW_PACE_US_MIN - 1), WINDOW);
    assert_int_equal(settle(&s), 0);
}

/* A rest is worth an eighth of what has moved since something moved the other way. */
static void test_begin_of_a_message_is_polled(void **state)
{
    (void)state;
    struct stream s = begin(1000, WINDOW);
    uint32_t moved = 0;
    while (moved + 10000 < 8 * WORTH) {
        assert_int_equal(visit(&s, 10), 0);
        moved += 10000;
    }
    uint32_t rest = visit(&s, 10);
    assert_int_equal(rest, (moved + 10000) / 8 / 1000 < FLOW_PACE_US_MIN ? 0 : (moved + 10000) / 8 / 1000);
}

static void test_answer_ends_the_rests(void **state)
{
    (void)state;
    struct stream s = begin(1000, WINDOW);
    assert_true(settle(&s) > 0);
    s.back++;
    assert_int_equal(visit(&s, 50), 0);
    assert_int_equal(visit(&s, 50), 0); /* and what follows is a new message */
    assert_true(settle(&s) > 0);
}

static void test_window_stays_open(void **state)
{
    (void)state;
    struct stream s = begin(1000, 400000);
    assert_int_equal(settle(&s), 100);
    flow_pace_set_window(&s.pace, 4 * WORTH - 4);
    assert_int_equal(settle(&s), 0);
}

static void test_window_is_asked_for_again(void **state)
{
    (void)state;
    struct stream s = begin(1000, WINDOW);
    for (unsigned i = 0; i < 32; i++) {
        assert_false(flow_pace_window_is_old(&s.pace));
        (void)visit(&s, 50);
    }
    assert_true(flow_pace_window_is_old(&s.pace));
    for (unsigned i = 0; i < 300; i++) (void)visit(&s, 50); /* nobody has asked: still old */
    assert_true(flow_pace_window_is_old(&s.pace));
}

static void test_nothing_moved(void **state)
{
    (void)state;
    struct stream s = begin(1000, WINDOW);
    assert_true(settle(&s) > 0);
    assert_int_equal(flow_pace_visit(&s.pace, 0, s.back, s.now_us + 500), 0);
    assert_int_equal(flow_pace_visit(&s.pace, 1u << 20, s.back, s.now_us + 500), 0); /* in the same microsecond */
}

/* Days of a fast stream, and more than 4 GiB in one visit. */
static void test_numbers_stay_in_range(void **state)
{
    (void)state;
    struct stream s = begin(1, WINDOW);
    s.now_us += 1000;
    assert_true(flow_pace_visit(&s.pace, UINT64_MAX / 100000, s.back, s.now_us) <= FLOW_PACE_US_MAX);
    assert_int_equal(s.pace.run, UINT32_MAX);
    s.now_us += UINT32_MAX;
    assert_true(flow_pace_visit(&s.pace, 1u << 20, s.back, s.now_us) <= FLOW_PACE_US_MAX);
    assert_int_equal(s.pace.run, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rest_gathers_at_the_flows_rate),
        cmocka_unit_test(test_rest_has_an_end),
        cmocka_unit_test(test_slow_flow_is_polled),
        cmocka_unit_test(test_very_fast_flow_is_polled),
        cmocka_unit_test(test_begin_of_a_message_is_polled),
        cmocka_unit_test(test_answer_ends_the_rests),
        cmocka_unit_test(test_window_stays_open),
        cmocka_unit_test(test_window_is_asked_for_again),
        cmocka_unit_test(test_nothing_moved),
        cmocka_unit_test(test_numbers_stay_in_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
