/* core/session/dial on the simulated kernel: which attempt is given up, whose address a connect reads, and what becomes
 * of a client whose response is there before an attempt that lost. */
#include "tests/sim_bench.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct sim_bench bench;

static void forward_to_name(void)
{
    struct listener_config *l = &bench.config.listeners[0];
    assert_true(address_from_host("many.test", 9, 80, &l->forward));
}

/* The third of ten fails when the fourth has started, so that the fifth takes its place; only the fifth ever answers,
 * at a time when its neighbour, older than it, is to make room. */
static void ten_addresses(struct sim_bench *self, const struct address *to, struct sim_verdict *verdict)
{
    (void)self;
    verdict->never = true;
    if (to->ipv4[3] == 2) *verdict = (struct sim_verdict){.error = -ECONNREFUSED, .delay_us = 300000};
    if (to->ipv4[3] == 4) *verdict = (struct sim_verdict){.delay_us = 900000, .room_in = 65536, .room_out = 65536};
}

static void test_the_oldest_attempt_makes_room(void **state)
{
    (void)state;
    sim_bench_prepare(&bench);
    forward_to_name();
    bench.address_count = 10;
    bench.on_connect = ten_addresses;
    sim_bench_open(&bench, 1);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
    sim_bench_pass(&bench, 4000);
    assert_int_equal(bench.upstream_count, 1);
    assert_int_equal(bench.reached[0].ipv4[3], 4);
    sim_reset(client, ECONNRESET);
    sim_bench_pass(&bench, 100);
    sim_bench_close(&bench);
}

#define RACE_US 1300000u /* the clock begins at 1,000,000: the second attempt starts 250 ms later */

/* At one moment the first attempt fails, so that a third one is armed, the second one wins, so that the setup slot is
 * free, and another client comes, who takes it. */
static void race(struct sim_bench *self, const struct address *to, struct sim_verdict *verdict)
{
    (void)self;
    if (to->port != 80) return;
    if (to->ipv4[3] < 2) verdict->delay_us = RACE_US - sim_now_us();
    if (to->ipv4[3] == 0) verdict->error = -ECONNREFUSED;
    if (to->ipv4[3] == 2) verdict->never = true;
}

static struct sim_conn *second;

static bool come_second(struct sim_bench *self, uint64_t *wake_us)
{
    if (second) return false;
    if (sim_now_us() < RACE_US) {
        if (RACE_US < *wake_us) *wake_us = RACE_US;
        return false;
    }
    second = sim_bench_connect(self, 1, 4096);
    return true;
}

/* The simulated kernel says so if an address is changed between its connect and the submission. */
static void test_connect_keeps_its_address(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        sim_bench_prepare(&bench);
        forward_to_name();
        sim_bench_forward(&bench, &(struct address){.kind = ADDRESS_IPV4, .port = 81, .ipv4 = {10, 9, 9, 9}});
        bench.address_count = 3;
        bench.on_connect = race;
        bench.act = come_second;
        second = NULL;
        sim_bench_open(&bench, seed);
        struct sim_conn *first = sim_bench_connect(&bench, 0, 4096);
        sim_bench_pass(&bench, 600);
        assert_int_equal(bench.upstream_count, 2);
        sim_reset(first, ECONNRESET);
        sim_reset(second, ECONNRESET);
        sim_bench_pass(&bench, 100);
        sim_bench_close(&bench);
    }
}

/* The first address never answers, the second one at once. */
static void second_wins(struct sim_bench *self, const struct address *to, struct sim_verdict *verdict)
{
    (void)self;
    verdict->never = to->ipv4[3] == 0;
}

static bool answer_requests(struct sim_bench *self, uint64_t *wake_us)
{
    static const char response[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    char request[1024];
    bool moved = false;
    (void)wake_us;
    for (uint32_t i = 0; i < self->upstream_count; i++) {
        if (sim_read(self->upstreams[i], request, sizeof request) <= 0) continue;
        assert_int_equal(sim_write(self->upstreams[i], response, sizeof response - 1), sizeof response - 1);
        moved = true;
    }
    return moved;
}

/* The kernel takes its time to cancel the loser, so that the whole response is there before it: a client that was told
 * that its connection goes on may send the next request. */
static void test_response_before_the_loser(void **state)
{
    static const char request[] = "GET http://many.test/ HTTP/1.1\r\n\r\n";
    char response[1024];
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        sim_bench_prepare(&bench);
        bench.config.listeners[0].kind = LISTENER_HTTP;
        bench.address_count = 2;
        bench.on_connect = second_wins;
        bench.act = answer_requests;
        sim_bench_open(&bench, seed);
        sim_get_chances()->delay = 700;
        struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(sim_write(client, request, sizeof request - 1), sizeof request - 1);
            sim_bench_pass(&bench, 600);
            int32_t size = sim_read(client, response, sizeof response - 1);
            assert_true(size > 0);
            response[size] = '\0';
            assert_non_null(strstr(response, "\r\n\r\nok"));
            assert_null(strstr(response, "Connection: close"));
        }
        assert_int_equal(counter_read(&bench.worker.stats.successes), 3);
        sim_end(client);
        sim_bench_pass(&bench, 100);
        assert_int_equal(sim_read(client, response, sizeof response), 0);
        sim_bench_close(&bench);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_oldest_attempt_makes_room),
        cmocka_unit_test(test_connect_keeps_its_address),
        cmocka_unit_test(test_response_before_the_loser),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
