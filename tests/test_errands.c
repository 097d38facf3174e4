/* On the simulated kernel: errands that are done while the coordinator does not read, more of them than its queue
 * holds. Each comes back once, in the order in which it was done, and nothing else is kept out of the queue by them. */
#include "tests/sim_bench.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/session/errand_kinds.h"
#include "core/session/message.h"

#define QUEUE  16u
#define RELAYS 48u
#define LISTS  100u

static struct sim_bench bench;
static struct relay_errand relays[RELAYS];
static struct list_errand lists[LISTS];
static struct sim_conn *ends[RELAYS][2];
static uint32_t came, came_before_last;
static bool stopped;

static void note(struct sim_bench *self, const struct message *message)
{
    (void)self;
    assert_false(stopped);
    if (message->kind == MESSAGE_STOPPED) {
        stopped = true;
        came_before_last = came;
        return;
    }
    assert_int_equal(message->kind, MESSAGE_ERRAND);
    if (((struct errand *)message->body)->run == errand_list) assert_ptr_equal(message->body, &lists[came]);
    came++;
}

static int set_up(void **state)
{
    (void)state;
    came = came_before_last = 0;
    stopped = false;
    sim_bench_prepare(&bench);
    bench.config.queue_capacity = QUEUE;
    bench.config.sessions = bench.config.setups = RELAYS;
    bench.config.drain_ms = 1000;
    bench.on_mail = note;
    sim_bench_open(&bench, 1);
    sim_bench_pass(&bench, 10);
    return 0;
}

static void lend(void *errand)
{
    assert_true(queue_push(bench.worker.inbox, &(struct message){.kind = MESSAGE_ERRAND, .body = errand}));
    sim_bench_turn(&bench, 1);
}

static void lend_relays(void)
{
    for (uint32_t i = 0; i < RELAYS; i++) {
        relays[i] = (struct relay_errand){
            .errand.run = errand_relay, .fds = {sim_lend(&ends[i][0], 4096, 4096), sim_lend(&ends[i][1], 4096, 4096)}};
        lend(&relays[i]);
    }
    assert_int_equal(bench.worker.sessions.used, RELAYS);
    assert_int_equal(came, 0);
}

static void end_relays(void)
{
    for (uint32_t i = 0; i < RELAYS; i++) {
        sim_close(ends[i][0]);
        sim_close(ends[i][1]);
    }
}

static uint32_t returned(void)
{
    return queue_depth(bench.mail);
}

/* The coordinator reads again: what the errands have left of the queue was free all the time. */
static void hear_all(uint32_t count)
{
    assert_in_range(returned(), 1, QUEUE / 4);
    assert_true(counter_read(&bench.worker.stats.queue_full) > 0);
    bench.deaf = false;
    sim_bench_pass(&bench, 100);
    assert_int_equal(came, count);
}

static void test_relays_that_end_at_once(void **state)
{
    (void)state;
    lend_relays();
    bench.deaf = true;
    end_relays();
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.worker.sessions.used, 0);
    hear_all(RELAYS);
    sim_bench_close(&bench);
}

static void test_lending_without_reading(void **state)
{
    (void)state;
    bench.deaf = true;
    for (uint32_t i = 0; i < LISTS; i++) {
        lists[i] = (struct list_errand){.errand.run = errand_list, .next = 0};
        lend(&lists[i]);
    }
    hear_all(LISTS);
    for (uint32_t i = 0; i < LISTS; i++) assert_int_equal(lists[i].next, UINT32_MAX); /* it was done */
    sim_bench_close(&bench);
}

/* A stop: the last message is the last one. */
static void test_stop_while_errands_wait(void **state)
{
    (void)state;
    lend_relays();
    bench.deaf = true;
    atomic_fetch_add(&bench.stops, 1);
    sim_bench_turn(&bench, 1); /* it has seen that */
    sim_bench_pass(&bench, bench.config.drain_ms + 100);
    assert_int_equal(bench.worker.sessions.used, 0);
    assert_false(bench.worker.stopped);
    assert_in_range(returned(), 1, QUEUE / 4);
    bench.deaf = false;
    end_relays();
    sim_bench_close(&bench);
    assert_true(stopped);
    assert_int_equal(came_before_last, RELAYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_relays_that_end_at_once, set_up),
        cmocka_unit_test_setup(test_lending_without_reading, set_up),
        cmocka_unit_test_setup(test_stop_while_errands_wait, set_up),
    };
    return cmocka_run_group_tests_name("errands", tests, NULL, NULL);
}
