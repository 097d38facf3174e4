/* core/io/timer against a model that looks at every deadline: random deadlines up to a year away, jumps in time,
 * entries set and cleared while others expire. */
#include "core/io/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT  300u
#define DAY_MS (UINT64_C(24) * 60 * 60 * 1000)

static uint64_t random_state = 88172645463325252u;

static uint64_t random_below(uint64_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % bound;
}

/* Near ones more often than far ones. */
static uint64_t random_span(void)
{
    static const uint64_t spans[] = {1, 9, 100, 600, 5000, 40000, 300000, DAY_MS, 10 * DAY_MS, 365 * DAY_MS};
    return random_below(spans[random_below(sizeof spans / sizeof *spans)]);
}

struct model {
    struct timer_wheel *wheel;
    uint32_t tick;
    uint64_t now_ms;
    uint64_t deadlines[COUNT]; /* UINT64_MAX: clear */
};

static void model_open(struct model *model, uint64_t now_ms, uint32_t tick)
{
    model->now_ms = now_ms;
    model->tick = tick;
    assert_int_equal(timer_open(&model->wheel, COUNT, now_ms, tick), 0);
    for (uint32_t i = 0; i < COUNT; i++) model->deadlines[i] = UINT64_MAX;
}

static void model_set(struct model *model, uint32_t entry, uint64_t deadline_ms)
{
    timer_set(model->wheel, entry, deadline_ms);
    model->deadlines[entry] = deadline_ms;
}

static void model_clear(struct model *model, uint32_t entry)
{
    timer_clear(model->wheel, entry);
    model->deadlines[entry] = UINT64_MAX;
}

static uint64_t model_earliest(const struct model *model)
{
    uint64_t earliest = UINT64_MAX;
    for (uint32_t i = 0; i < COUNT; i++)
        if (model->deadlines[i] < earliest) earliest = model->deadlines[i];
    return earliest;
}

/* One random change, as an owner makes them while others expire. */
static void model_disturb(struct model *model)
{
    uint32_t entry = (uint32_t)random_below(COUNT);
    switch (random_below(4)) {
    case 0: model_clear(model, entry); break;
    case 1: model_set(model, entry, model->now_ms + 1 + random_span()); break;
    default: break;
    }
}

static void model_expire(struct model *model)
{
    uint32_t entry;
    while ((entry = timer_expire(model->wheel, model->now_ms)) != TIMER_NONE) {
        assert_true(entry < COUNT);
        assert_true(model->deadlines[entry] <= model->now_ms); /* set, and not early */
        assert_false(timer_is_set(model->wheel, entry));
        model->deadlines[entry] = UINT64_MAX;
        model_disturb(model);
    }
    /* Nothing is left that is due for a whole tick. */
    uint64_t earliest = model_earliest(model);
    assert_true(earliest == UINT64_MAX || earliest + model->tick > model->now_ms);
}

static void model_check(const struct model *model)
{
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(timer_is_set(model->wheel, i), model->deadlines[i] != UINT64_MAX);
    uint64_t wait = timer_wait(model->wheel, model->now_ms);
    uint64_t exact = timer_wait_exact(model->wheel, model->now_ms);
    uint64_t earliest = model_earliest(model);
    assert_true(exact >= wait);
    if (earliest != UINT64_MAX) assert_true(model->now_ms + exact < earliest + model->tick);
    if (earliest == UINT64_MAX)
        assert_true(wait == UINT64_MAX);
    else
        assert_true(model->now_ms + wait < earliest + model->tick);
}

static void run_model(uint64_t now_ms, int rounds, uint32_t tick)
{
    struct model model;
    model_open(&model, now_ms, tick);
    for (int round = 0; round < rounds; round++) {
        for (uint64_t n = random_below(20); n > 0; n--)
            model_set(&model, (uint32_t)random_below(COUNT), model.now_ms + random_span());
        if (random_below(3) == 0) model_clear(&model, (uint32_t)random_below(COUNT));
        model_check(&model);
        model.now_ms += random_span();
        model_expire(&model);
        model_check(&model);
    }
    timer_close(model.wheel);
}

static void test_against_model(void **state)
{
    (void)state;
    run_model(0, 4000, TIMER_TICK_MS);
    run_model(1, 4000, TIMER_TICK_MS);
    run_model(123456789, 4000, TIMER_TICK_MS);
    run_model((UINT64_C(1) << 33) - 5, 4000, TIMER_TICK_MS); /* a carry through several digits is near */
    run_model(UINT64_C(1) << 62, 4000, TIMER_TICK_MS);
    run_model(123456789, 4000, 1); /* the coordinator's */
    run_model((UINT64_C(1) << 60) - 5, 4000, 1);
}

/* One entry, or a few: no sleep that ends for nothing. */
static void test_exact(void **state)
{
    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct timer_wheel *wheel;
        uint64_t now = random_below(100 * DAY_MS), earliest = UINT64_MAX;
        assert_int_equal(timer_open(&wheel, COUNT, now, 1), 0);
        for (uint32_t i = 0; i < 1 + (uint32_t)round % 16; i++) {
            uint64_t deadline = now + 1 + random_span();
            timer_set(wheel, i, deadline);
            if (deadline < earliest) earliest = deadline;
        }
        assert_int_equal(timer_expire(wheel, now), TIMER_NONE);
        assert_true(now + timer_wait_exact(wheel, now) == earliest);
        assert_true(timer_expire(wheel, earliest) != TIMER_NONE);
        timer_close(wheel);
    }
}

/* Sleeping as long as the wheel says meets every deadline within a tick, in few steps even for a far one. */
static void test_sleeping(void **state)
{
    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct timer_wheel *wheel;
        uint64_t now_ms = random_below(100 * DAY_MS);
        uint64_t deadline_ms = now_ms + random_span();
        int steps = 0;
        assert_int_equal(timer_open(&wheel, 1, now_ms, TIMER_TICK_MS), 0);
        timer_set(wheel, 0, deadline_ms);
        while (timer_expire(wheel, now_ms) == TIMER_NONE) {
            assert_true(++steps < 14);
            now_ms += timer_wait(wheel, now_ms);
        }
        assert_true(now_ms >= deadline_ms);
        assert_true(now_ms < deadline_ms + TIMER_TICK_MS);
        assert_true(timer_wait(wheel, now_ms) == UINT64_MAX);
        timer_close(wheel);
    }
}

static void test_edges(void **state)
{
    (void)state;
    struct timer_wheel *wheel;
    assert_int_equal(timer_open(&wheel, 3, 1000, TIMER_TICK_MS), 0);
    assert_int_equal(timer_expire(wheel, 1000), TIMER_NONE);
    assert_true(timer_wait(wheel, 1000) == UINT64_MAX);
    timer_clear(wheel, 0); /* not set */

    timer_set(wheel, 0, 0); /* long past */
    assert_int_equal(timer_wait(wheel, 1000), 0);
    assert_int_equal(timer_expire(wheel, 1000), 0);

    timer_set(wheel, 0, 1001);
    timer_set(wheel, 0, 5000); /* moved */
    assert_int_equal(timer_expire(wheel, 4999), TIMER_NONE);
    assert_int_equal(timer_expire(wheel, 5000), 0);
    assert_int_equal(timer_expire(wheel, 5000), TIMER_NONE);

    timer_set(wheel, 0, UINT64_MAX);
    timer_set(wheel, 1, UINT64_MAX - 1);
    timer_set(wheel, 2, UINT64_MAX / 2);
    assert_int_equal(timer_expire(wheel, UINT64_MAX / 2 - TIMER_TICK_MS), TIMER_NONE);
    assert_int_equal(timer_expire(wheel, UINT64_MAX / 2 + TIMER_TICK_MS), 2);
    assert_int_equal(timer_expire(wheel, UINT64_MAX - 2 * TIMER_TICK_MS), TIMER_NONE);
    assert_true(timer_is_set(wheel, 0));
    timer_clear(wheel, 0);
    timer_clear(wheel, 1);
    assert_true(timer_wait(wheel, UINT64_MAX - 2 * TIMER_TICK_MS) == UINT64_MAX);

    uint64_t last = UINT64_MAX / TIMER_TICK_MS * TIMER_TICK_MS; /* rounded up it would be past the end of time */
    timer_set(wheel, 0, UINT64_MAX);
    assert_int_equal(timer_expire(wheel, last - TIMER_TICK_MS), TIMER_NONE);
    assert_int_equal(timer_wait(wheel, last - TIMER_TICK_MS), TIMER_TICK_MS);
    assert_int_equal(timer_wait_exact(wheel, last - TIMER_TICK_MS), TIMER_TICK_MS);
    assert_int_equal(timer_expire(wheel, last), 0);
    timer_close(wheel);
}

/* Earlier deadlines come first when time has jumped over all of them; equal ones in the order of setting. */
static void test_order(void **state)
{
    (void)state;
    struct timer_wheel *wheel;
    assert_int_equal(timer_open(&wheel, COUNT, 0, TIMER_TICK_MS), 0);
    for (uint32_t i = 0; i < COUNT; i++) timer_set(wheel, i, (uint64_t)(COUNT - i / 2) * 1000);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t pair = COUNT / 2 - 1 - i / 2;
        assert_int_equal(timer_expire(wheel, 100 * DAY_MS), pair * 2 + i % 2);
    }
    assert_int_equal(timer_expire(wheel, 100 * DAY_MS), TIMER_NONE);
    timer_close(wheel);
}

/* An entry that was set again behind the back of the expiry keeps its new deadline. */
static void test_clear_while_due(void **state)
{
    (void)state;
    struct timer_wheel *wheel;
    assert_int_equal(timer_open(&wheel, 4, 0, TIMER_TICK_MS), 0);
    for (uint32_t i = 0; i < 4; i++) timer_set(wheel, i, 80);
    assert_int_equal(timer_expire(wheel, 1000), 0);
    timer_clear(wheel, 1);
    timer_set(wheel, 2, 2000);
    assert_int_equal(timer_expire(wheel, 1000), 3);
    assert_int_equal(timer_expire(wheel, 1000), TIMER_NONE);
    assert_int_equal(timer_expire(wheel, 1999), TIMER_NONE);
    assert_int_equal(timer_expire(wheel, 2000), 2);
    timer_close(wheel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model), cmocka_unit_test(test_exact), cmocka_unit_test(test_sleeping),
        cmocka_unit_test(test_edges),         cmocka_unit_test(test_order), cmocka_unit_test(test_clear_while_due),
    };
    return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
