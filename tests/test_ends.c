/* On the simulated kernel: who is told that a worker ends, and that a client has gone. */
#include "tests/sim_bench.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct sim_bench bench;

/* Clients whom the kernel has taken in before the stop are served, whether they were accepted by then or not. */
static void test_backlog_at_a_stop(void **state)
{
    enum { CLIENTS = 6 };
    struct sim_conn *clients[CLIENTS];
    char text[8];
    (void)state;
    sim_bench_prepare(&bench);
    bench.config.drain_ms = 5000;
    sim_bench_open(&bench, 1);
    sim_bench_pass(&bench, 10);
    for (int i = 0; i < CLIENTS; i++) clients[i] = sim_bench_connect(&bench, 0, 4096);
    atomic_fetch_add(&bench.stops, 1);
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.upstream_count, CLIENTS);
    for (int i = 0; i < CLIENTS; i++) assert_int_equal(sim_write(clients[i], "hello", 5), 5);
    sim_bench_pass(&bench, 100);
    for (int i = 0; i < CLIENTS; i++) {
        assert_int_equal(sim_read(bench.upstreams[i], text, sizeof text), 5);
        sim_end(clients[i]);
        sim_end(bench.upstreams[i]);
    }
    sim_bench_pass(&bench, 100);
    sim_bench_close(&bench);
}

/* The watch of a client ends for no reason: another one takes its place, and the client's reset is noticed long before
 * the time-out. */
static void test_watch_is_armed_again(void **state)
{
    (void)state;
    sim_bench_prepare(&bench);
    assert_true(address_from_host("slow.test", 9, 80, &bench.config.listeners[0].forward));
    bench.address_count = 1;
    bench.holds = true;
    sim_bench_open(&bench, 1);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
    sim_bench_pass(&bench, 400); /* by now it is watched */
    sim_get_chances()->watch = 1000;
    sim_bench_pass(&bench, 1);
    sim_get_chances()->watch = 0;
    sim_bench_pass(&bench, 1000);
    assert_int_equal(bench.worker.sessions.used, 1);
    sim_reset(client, ECONNRESET);
    sim_bench_pass(&bench, 100);
    assert_int_equal(counter_read(&bench.worker.stats.failures[FAIL_PEER]), 1);
    bench.holds = false;
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.worker.sessions.used, 0);
    sim_bench_close(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backlog_at_a_stop),
        cmocka_unit_test(test_watch_is_armed_again),
    };
    return cmocka_run_group_tests_name("ends", tests, NULL, NULL);
}
