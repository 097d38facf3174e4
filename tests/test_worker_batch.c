/* How long a turn of the loop waits, and how much bulk it moves: more when bulk flows are alone. */
#include "core/session/worker.h"
#include "tests/support.h"

static const struct config config = {.bulk_turn = 1000};

static struct worker calm(uint32_t polls)
{
    return (struct worker){.config = &config, .calm_turns = WORKER_CALM_TURNS, .polls = polls, .served = 1};
}

static void test_many_busy_flows_wake_together(void **state)
{
    (void)state;
    struct worker w = calm(WORKER_BATCH_SHARE * 5);
    assert_int_equal(worker_batch(&w), 5);
    w.polls += WORKER_BATCH_SHARE - 1;
    assert_int_equal(worker_batch(&w), 5);
    w.polls = WORKER_BATCH_SHARE * (WORKER_BATCH_MAX + 7);
    assert_int_equal(worker_batch(&w), WORKER_BATCH_MAX);
}

static void test_few_flows_do_not_wait(void **state)
{
    (void)state;
    struct worker w = calm(2 * WORKER_BATCH_SHARE - 1);
    assert_int_equal(worker_batch(&w), 1);
    w.polls = 0;
    assert_int_equal(worker_batch(&w), 1);
}

/* Or a worker with paused readers would wake up for nothing. */
static void test_flows_that_are_not_busy_do_not_wait(void **state)
{
    (void)state;
    struct worker w = calm(WORKER_BATCH_SHARE * 5);
    w.served = 0;
    assert_int_equal(worker_batch(&w), 1);
}

static void test_others_are_not_kept_waiting(void **state)
{
    (void)state;
    struct worker w = calm(WORKER_BATCH_SHARE * 5);
    w.calm_turns--;
    assert_int_equal(worker_batch(&w), 1);
    assert_int_equal(worker_bulk_turn(&w), 1000);
    w.calm_turns++;
    assert_int_equal(worker_bulk_turn(&w), 1000 * WORKER_CALM_FACTOR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_busy_flows_wake_together),
        cmocka_unit_test(test_few_flows_do_not_wait),
        cmocka_unit_test(test_flows_that_are_not_busy_do_not_wait),
        cmocka_unit_test(test_others_are_not_kept_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
