/* What becomes of a session has one name: that of the counter, and of the line in the access log. An end in order is
 * none of them, whatever comes behind it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/io/queue.h"
#include "core/session/access.h"
#include "core/session/errand_kinds.h"
#include "tests/sim_bench.h"
#include "tests/support.h"

#define MINUTE_MS 60000u

static struct sim_bench bench;
static struct access_feed feed;
static struct sleeper sleeper;
static struct sim_conn *client;

/* A listener of that kind, which forwards to 10.0.0.0 where it asks for no target. */
static void prepare(enum listener_kind kind)
{
    sim_bench_prepare(&bench);
    bench.config.listeners[0].kind = kind;
    bench.config.idle_timeout_ms = 30 * MINUTE_MS;
    bench.config.half_close_timeout_ms = 10 * MINUTE_MS;
    bench.config.socks5_udp = true;
    bench.config.udp_peers = 64;
    feed = (struct access_feed){.sleeper = &sleeper, .wake_fd = -1};
    assert_int_equal(record_ring_open(&feed.ring, 1u << 17), 0);
    bench.worker.access = &feed;
}

static void begin(enum listener_kind kind)
{
    prepare(kind);
    sim_bench_open(&bench, 1);
    client = sim_bench_connect(&bench, 0, 4096);
    sim_bench_pass(&bench, 100);
}

static void say(struct sim_conn *conn, const char *text)
{
    assert_int_equal(sim_write(conn, text, strlen(text)), strlen(text));
}

static void hear(struct sim_conn *conn, const char *text)
{
    char heard[1024];
    int32_t size = sim_read(conn, heard, sizeof heard - 1);
    if (size < 0 || strncmp(heard, text, strlen(text)) != 0) fail_msg("heard %d octets, not \"%s\"", size, text);
}

static void expect_counters(enum failure failure)
{
    for (enum failure f = FAIL_NONE; f < FAIL_COUNT; f++)
        if (counter_read(&bench.worker.stats.failures[f]) != (f == failure && f != FAIL_NONE))
            fail_msg("%s: %llu, where the outcome is %s", failure_row(f)->label,
                     (unsigned long long)counter_read(&bench.worker.stats.failures[f]), failure_row(failure)->label);
}

static void expect_record(enum failure failure, unsigned status)
{
    const struct access_record *record = record_ring_peek(feed.ring);
    assert_non_null(record);
    assert_string_equal(record->event, "end");
    assert_string_equal(record->result, failure == FAIL_NONE ? "ok" : failure_row(failure)->label);
    assert_int_equal(record->status, status);
    record_ring_pop(feed.ring);
}

/* The session is over by now, and that is what became of it. status  of HTTP, 0: none. */
static void expect_outcome(enum failure failure, unsigned status)
{
    sim_bench_pass(&bench, 10000); /* PARTING and LINGER have their times */
    assert_int_equal(bench.worker.sessions.used, 0);
    expect_record(failure, status);
    assert_null(record_ring_peek(feed.ring));
    expect_counters(failure);
    sim_bench_close(&bench);
    assert_null(record_ring_peek(feed.ring));
    record_ring_close(feed.ring);
}

static void begin_relay(void)
{
    begin(LISTENER_FORWARD);
    assert_int_equal(bench.upstream_count, 1);
    say(client, "hello");
    say(bench.upstreams[0], "welcome");
    sim_bench_pass(&bench, 100);
    hear(bench.upstreams[0], "hello");
    hear(client, "welcome");
}

static void begin_tunnel(void)
{
    begin(LISTENER_HTTP);
    say(client, "CONNECT 10.0.0.7:443 HTTP/1.1\r\n\r\n");
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.upstream_count, 1);
    hear(client, "HTTP/1.1 200");
}

static void begin_exchange(void)
{
    char request[1024];
    begin(LISTENER_HTTP);
    say(client, "GET http://10.0.0.7/ HTTP/1.1\r\n\r\n");
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.upstream_count, 1);
    assert_true(sim_read(bench.upstreams[0], request, sizeof request) > 0);
}

static void begin_association(void)
{
    begin(LISTENER_SOCKS);
    assert_int_equal(sim_write(client, "\5\1\0", 3), 3);
    sim_bench_pass(&bench, 100);
    assert_int_equal(sim_write(client, "\5\3\0\1\0\0\0\0\0\0", 10), 10);
    sim_bench_pass(&bench, 100);
    hear(client, "\5");
}

static void kill_it(int32_t expected)
{
    struct message message;
    struct kill_errand errand = {.errand.run = errand_kill, .slot = 0};
    bench.deaf = true; /* what comes back is ours */
    errand.generation = pool_generation(&bench.worker.sessions, 0);
    errand_kill(&errand.errand, &bench.worker);
    assert_int_equal(errand.errand.result, expected);
    while (queue_pop(bench.mail, &message)) continue;
    bench.deaf = false;
}

/* --- relays --- */

static void test_relay_in_order(void **state)
{
    (void)state;
    begin_relay();
    sim_end(client);
    sim_bench_pass(&bench, 100);
    sim_end(bench.upstreams[0]);
    sim_bench_pass(&bench, 100);
    sim_close(client);
    expect_outcome(FAIL_NONE, 0);
}

static void test_relay_is_reset(void **state)
{
    (void)state;
    begin_relay();
    sim_reset(client, ECONNRESET);
    expect_outcome(FAIL_CLIENT_RESET, 0);
    begin_relay();
    sim_reset(bench.upstreams[0], ECONNRESET);
    expect_outcome(FAIL_TARGET_RESET, 0);
    begin_relay(); /* nobody answers any more: keepalive */
    sim_reset(bench.upstreams[0], ETIMEDOUT);
    expect_outcome(FAIL_TARGET_RESET, 0);
    begin_tunnel();
    sim_reset(client, ECONNRESET);
    expect_outcome(FAIL_CLIENT_RESET, 200);
}

/* Who had ended in order and went before the other one had said all: what that said has nowhere to go. */
static void test_half_closed_relay_is_reset(void **state)
{
    (void)state;
    begin_relay();
    sim_end(client);
    sim_bench_pass(&bench, 100);
    sim_reset(client, ECONNRESET);
    sim_bench_pass(&bench, 2000);
    sim_end(bench.upstreams[0]);
    expect_outcome(FAIL_CLIENT_RESET, 0);
    begin_relay();
    say(bench.upstreams[0], "all");
    sim_end(bench.upstreams[0]);
    sim_bench_pass(&bench, 100);
    sim_reset(bench.upstreams[0], ECONNRESET);
    sim_bench_pass(&bench, 5000);
    hear(client, "all");
    sim_bench_pass(&bench, 5000);
    assert_int_equal(sim_read(client, (char[1]){0}, 1), 0);
    expect_outcome(FAIL_TARGET_RESET, 0);
}

/* Both have ended in order. A reset that comes then means something only if it takes octets along. */
static void part(bool reads)
{
    begin_relay();
    say(bench.upstreams[0], "rest");
    sim_end(bench.upstreams[0]);
    sim_end(client);
    sim_bench_pass(&bench, 100);
    assert_int_equal(session_at(&bench.worker, 0)->state, SESSION_PARTING);
    if (reads) hear(client, "rest");
}

static void test_reset_behind_both_ends(void **state)
{
    (void)state;
    part(true);
    sim_reset(client, ECONNRESET);
    expect_outcome(FAIL_NONE, 0);
    part(false);
    sim_reset(client, ECONNRESET);
    expect_outcome(FAIL_CLIENT_RESET, 0);
}

static void test_relay_times_out(void **state)
{
    (void)state;
    begin_relay();
    sim_bench_pass(&bench, 50 * MINUTE_MS);
    expect_outcome(FAIL_IDLE_TIMEOUT, 0);
    begin_relay();
    sim_end(client);
    sim_bench_pass(&bench, 20 * MINUTE_MS);
    expect_outcome(FAIL_HALF_CLOSE_TIMEOUT, 0);
    part(false);
    sim_bench_pass(&bench, 20 * MINUTE_MS);
    expect_outcome(FAIL_HALF_CLOSE_TIMEOUT, 0);
}

/* --- associations --- */

static void test_association(void **state)
{
    (void)state;
    begin_association();
    sim_end(client);
    expect_outcome(FAIL_NONE, 0);
    begin_association();
    sim_reset(client, ECONNRESET);
    expect_outcome(FAIL_CLIENT_RESET, 0);
    begin_association();
    sim_bench_pass(&bench, 50 * MINUTE_MS);
    expect_outcome(FAIL_IDLE_TIMEOUT, 0);
}

/* --- plain HTTP --- */

static void serve(void)
{
    begin_exchange();
    say(bench.upstreams[0], "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    sim_bench_pass(&bench, 100);
    hear(client, "HTTP/1.1 200 OK");
    expect_record(FAIL_NONE, 200);
    assert_int_equal(session_at(&bench.worker, 0)->state, SESSION_IDLE);
}

/* Between two requests nothing is under way: there is no line, and nothing has failed. */
static void test_nothing_behind_a_response(void **state)
{
    (void)state;
    for (unsigned end = 0; end < 3; end++) {
        serve();
        if (end == 0) sim_reset(client, ECONNRESET);
        if (end == 1) kill_it(0);
        if (end == 2) sim_bench_pass(&bench, 2 * MINUTE_MS);
        sim_bench_pass(&bench, 100);
        assert_int_equal(bench.worker.sessions.used, 0);
        expect_counters(FAIL_NONE);
        sim_bench_close(&bench);
        assert_null(record_ring_peek(feed.ring));
        record_ring_close(feed.ring);
    }
}

/* The next request of the same connection fails by itself. */
static void test_next_request(void **state)
{
    (void)state;
    serve();
    say(client, "GET http://10.0.0.7/ HT");
    sim_bench_pass(&bench, 100);
    sim_reset(client, ECONNRESET);
    expect_outcome(FAIL_PEER, 0);
    serve();
    say(client, "GET http://10.0.0.7/ HTTP/1.1\r\n\r\n");
    sim_bench_pass(&bench, 100);
    kill_it(0);
    expect_outcome(FAIL_KILLED, 0);
}

/* --- by the operator, and by a stop --- */

static void test_killed(void **state)
{
    static void (*const begins[])(void) = {begin_relay, begin_tunnel, begin_exchange, begin_association};
    (void)state;
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        begins[i]();
        kill_it(0);
        expect_outcome(FAIL_KILLED, begins[i] == begin_tunnel ? 200 : 0);
    }
    begin(LISTENER_SOCKS);
    kill_it(0); /* in its handshake */
    expect_outcome(FAIL_KILLED, 0);
    begin(LISTENER_SOCKS);
    say(client, "nonsense");
    sim_bench_pass(&bench, 10);
    kill_it(-ENOENT); /* it is over */
    expect_outcome(FAIL_VERSION, 0);
}

/* Refused, and waiting for its client to read that. */
static void test_first_cause_stays(void **state)
{
    (void)state;
    begin(LISTENER_HTTP);
    say(client, "GET nonsense\r\n\r\n");
    sim_bench_pass(&bench, 10);
    assert_int_equal(bench.worker.sessions.used, 1);
    kill_it(0);
    expect_outcome(FAIL_SYNTAX, 400);
}

static void test_drained(void **state)
{
    static void (*const begins[])(void) = {begin_relay, begin_tunnel, begin_exchange, begin_association};
    (void)state;
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        begins[i]();
        atomic_fetch_add(&bench.stops, 2); /* at once */
        sim_bench_pass(&bench, 100);
        assert_int_equal(counter_read(&bench.worker.stats.drain_resets), 1);
        expect_outcome(FAIL_DRAIN, begins[i] == begin_tunnel ? 200 : 0);
    }
}

/* --- connections that become no session --- */

static uint64_t refused(void)
{
    return counter_read(&bench.worker.stats.refused_limit);
}

/* So many at once, the clock being at the beginning of a second. */
static void knock(unsigned count)
{
    uint64_t second_us = 1000000, now_us = sim_now_us(), before = refused();
    sim_bench_pass(&bench, (second_us - now_us % second_us) / 1000 + 1);
    for (unsigned i = 0; i < count; i++) {
        struct sim_conn *visitor = sim_bench_connect(&bench, 0, 64);
        for (unsigned turn = 0; turn < 10 && !visitor->far_reset; turn++) sim_bench_turn(&bench, 1);
        assert_true(visitor->far_reset);
        assert_int_equal(refused(), before + i + 1);
        sim_close(visitor);
    }
    assert_true(sim_now_us() / second_us <= now_us / second_us + 1);
}

static unsigned read_refusals(const char *label)
{
    unsigned count = 0;
    const struct access_record *record;
    for (; (record = record_ring_peek(feed.ring)) != NULL; count++) {
        assert_string_equal(record->event, "end");
        assert_string_equal(record->result, label);
        assert_int_equal(record->worker, ACCESS_NO_ID);
        assert_int_not_equal(record->client.kind, ADDRESS_NONE);
        assert_true(record->total_us == ACCESS_NONE && record->up == 0);
        record_ring_pop(feed.ring);
    }
    return count;
}

/* A flood at the door is counted, and has so many lines a second: the rest is a number. */
static void test_refused_at_accept(void **state)
{
    (void)state;
    prepare(LISTENER_FORWARD);
    bench.config.max_sessions = 1;
    sim_bench_open(&bench, 1);
    client = sim_bench_connect(&bench, 0, 4096);
    sim_bench_pass(&bench, 100);
    knock(ACCESS_REFUSALS_MAX);
    assert_int_equal(read_refusals("max_sessions"), ACCESS_REFUSALS_MAX);
    assert_int_equal(counter_read(&feed.suppressed), 0);
    knock(ACCESS_REFUSALS_MAX + 50);
    assert_int_equal(read_refusals("max_sessions"), ACCESS_REFUSALS_MAX);
    assert_int_equal(counter_read(&feed.suppressed), 50);
    knock(1);
    assert_int_equal(read_refusals("max_sessions"), 1);
    assert_int_equal(counter_read(&feed.suppressed), 50);
    assert_int_equal(refused(), 2 * ACCESS_REFUSALS_MAX + 51);
    sim_end(client);
    sim_end(bench.upstreams[0]);
    expect_outcome(FAIL_NONE, 0);
}

/* The label is that of the counter, whatever stands in the way. */
static void test_labels_at_accept(void **state)
{
    static const char *const labels[] = {"max_sessions", "max_startups", "pool"};
    (void)state;
    for (unsigned way = 0; way < 3; way++) {
        prepare(LISTENER_SOCKS);
        if (way == 0) bench.config.max_sessions = 1;
        if (way == 1) bench.config.startup_full = 1;
        if (way == 2) bench.config.setups = 1;
        sim_bench_open(&bench, 1);
        client = sim_bench_connect(&bench, 0, 4096);
        sim_bench_pass(&bench, 100);
        knock(1);
        assert_int_equal(read_refusals(labels[way]), 1);
        sim_reset(client, ECONNRESET);
        expect_outcome(FAIL_PEER, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relay_in_order),
        cmocka_unit_test(test_relay_is_reset),
        cmocka_unit_test(test_half_closed_relay_is_reset),
        cmocka_unit_test(test_reset_behind_both_ends),
        cmocka_unit_test(test_relay_times_out),
        cmocka_unit_test(test_association),
        cmocka_unit_test(test_nothing_behind_a_response),
        cmocka_unit_test(test_next_request),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_first_cause_stays),
        cmocka_unit_test(test_drained),
        cmocka_unit_test(test_refused_at_accept),
        cmocka_unit_test(test_labels_at_accept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
