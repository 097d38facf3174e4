/* On the simulated kernel: who is told that a worker ends, and that a client has gone. */
#include "tests/sim_bench.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/session/message.h"

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

/* The coordinator's answer to a question that nobody waits for any more. */
static void give_back(struct sim_bench *self, const struct message *message)
{
    struct message answer = *message;
    if (message->kind != MESSAGE_ROUTE) return;
    answer.result = -ECANCELED;
    assert_true(queue_push(self->worker.inbox, &answer));
}

static bool is_watched(void)
{
    return (session_at(&bench.worker, 0)->inflight & SESSION_BIT(SESSION_WATCH + CLIENT)) != 0;
}

static void never(struct sim_bench *self, const struct address *to, struct sim_verdict *verdict)
{
    (void)self, (void)to;
    verdict->never = true;
}

/* A client is watched when others have kept it waiting for DIAL_STAGGER_MS, whoever that is: no sooner, for that costs
 * an operation, and not much later. Then its reset ends the session. */
static void test_watch_begins(void **state)
{
    (void)state;
    for (unsigned waits_for = 0; waits_for < 3; waits_for++) {
        sim_bench_prepare(&bench);
        bench.address_count = 1;
        if (waits_for == 0) assert_true(address_from_host("slow.test", 9, 80, &bench.config.listeners[0].forward));
        if (waits_for == 1) bench.on_connect = never;
        if (waits_for == 2) atomic_store(&bench.revision, 1);
        bench.holds = bench.deaf = true;
        sim_bench_open(&bench, 1);
        sim_bench_pass(&bench, 50);
        struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
        sim_bench_pass(&bench, 200);
        assert_int_equal(bench.worker.sessions.used, 1);
        assert_false(is_watched());
        sim_bench_pass(&bench, 100);
        assert_true(is_watched());
        sim_reset(client, ECONNRESET);
        sim_bench_pass(&bench, 10);
        assert_int_equal(counter_read(&bench.worker.stats.failures[FAIL_PEER]), 1);
        bench.holds = bench.deaf = false;
        bench.on_mail = give_back;
        sim_bench_pass(&bench, 100);
        sim_bench_close(&bench);
    }
}

#define MINUTE_MS 60000u

static void say(struct sim_conn *conn, const char *text)
{
    assert_int_equal(sim_write(conn, text, strlen(text)), strlen(text));
}

/* A response that stays away in the middle, as one may for hours: with --idle-timeout 0, and with one. */
static void wait_for_a_response(uint32_t idle_timeout_ms, uint32_t ends_after_ms)
{
    char text[1024];
    sim_bench_prepare(&bench);
    bench.config.idle_timeout_ms = idle_timeout_ms;
    bench.config.listeners[0].kind = LISTENER_HTTP;
    sim_bench_open(&bench, 1);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
    say(client, "GET http://10.0.0.7/ HTTP/1.1\r\n\r\n");
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.upstream_count, 1);
    assert_true(sim_read(bench.upstreams[0], text, sizeof text) > 0);
    say(bench.upstreams[0], "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
    sim_bench_pass(&bench, 100);
    assert_true(sim_read(client, text, sizeof text) > 5);
    sim_bench_pass(&bench, ends_after_ms - MINUTE_MS / 2);
    assert_int_equal(bench.worker.sessions.used, 1);
    say(bench.upstreams[0], "6"); /* what moves begins the time anew */
    sim_bench_pass(&bench, ends_after_ms - MINUTE_MS / 2);
    assert_int_equal(bench.worker.sessions.used, 1);
    assert_int_equal(sim_read(client, text, sizeof text), 1);
    sim_bench_pass(&bench, MINUTE_MS);
    assert_int_equal(bench.worker.sessions.used, 0);
    assert_int_equal(sim_read(client, text, sizeof text), -ECONNRESET);
    assert_int_equal(counter_read(&bench.worker.stats.failures[FAIL_RESPONSE_TIMEOUT]), 1);
    sim_bench_close(&bench);
}

static void test_response_that_stays_away(void **state)
{
    (void)state;
    wait_for_a_response(0, 60 * MINUTE_MS);
    wait_for_a_response(5 * MINUTE_MS, 5 * MINUTE_MS);
}

/* What a request's head needed beyond its setup slot is free again when the head is sent, not when the response is
 * there. */
static void test_large_head_is_given_back(void **state)
{
    char text[SETUP_HEAD_SIZE + 2000], heard[sizeof text];
    (void)state;
    sim_bench_prepare(&bench);
    bench.config.listeners[0].kind = LISTENER_HTTP;
    sim_bench_open(&bench, 1);
    snprintf(text, sizeof text, "GET http://10.0.0.7/ HTTP/1.1\r\nPad: %0*u\r\n\r\n", (int)sizeof text - 100, 0u);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 65536);
    say(client, text);
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.upstream_count, 1);
    assert_true(sim_read(bench.upstreams[0], heard, sizeof heard) > (int32_t)SETUP_HEAD_SIZE);
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.worker.heads.used, 0);
    say(bench.upstreams[0], "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    sim_bench_pass(&bench, 100);
    assert_true(sim_read(client, heard, sizeof heard) > 2);
    sim_close(client);
    sim_bench_close(&bench);
}

/* A relay in which nothing has moved yet has its whole time, and so has one in which something has. */
static void test_idle_relay(void **state)
{
    char text[8];
    (void)state;
    sim_bench_prepare(&bench);
    bench.config.idle_timeout_ms = 4 * MINUTE_MS;
    sim_bench_open(&bench, 1);
    sim_bench_pass(&bench, 10 * MINUTE_MS); /* the clock is not at its beginning */
    struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
    for (unsigned round = 0; round < 2; round++) {
        sim_bench_pass(&bench, 4 * MINUTE_MS - 1000);
        assert_int_equal(bench.worker.sessions.used, 1);
        say(client, "x");
        sim_bench_pass(&bench, 100);
        assert_int_equal(sim_read(bench.upstreams[0], text, sizeof text), 1);
    }
    sim_bench_pass(&bench, 4 * MINUTE_MS - 1000);
    assert_int_equal(bench.worker.sessions.used, 1);
    sim_bench_pass(&bench, 2 * MINUTE_MS); /* it is looked at four times in that time */
    assert_int_equal(bench.worker.sessions.used, 0);
    assert_int_equal(sim_read(client, text, sizeof text), -ECONNRESET);
    sim_bench_close(&bench);
}

/* Adds what has come to the text. */
static void hear(struct sim_conn *conn, char *text, size_t size)
{
    size_t used = strlen(text);
    int32_t more = sim_read(conn, text + used, size - used - 1);
    if (more > 0) text[used + (size_t)more] = '\0';
}

/* A stop in the middle of a response behind which the connection was to go on. A client with nothing more to say would
 * hold the drain until its time-out, and be reset at the end of it; a request that is there already is served. */
static void stop_in_a_response(bool pipelined)
{
    char text[2048] = "", request[256];
    sim_bench_prepare(&bench);
    bench.config.drain_ms = bench.config.timeout_ms;
    bench.config.listeners[0].kind = LISTENER_HTTP;
    sim_bench_open(&bench, 1);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
    say(client, "GET http://10.0.0.7/ HTTP/1.1\r\n\r\n");
    if (pipelined) say(client, "GET http://10.0.0.7/ HTTP/1.1\r\n\r\n");
    sim_bench_pass(&bench, 100);
    say(bench.upstreams[0], "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
    sim_bench_pass(&bench, 100);
    atomic_fetch_add(&bench.stops, 1);
    sim_bench_pass(&bench, 100);
    say(bench.upstreams[0], "67890");
    sim_bench_pass(&bench, 100);
    hear(client, text, sizeof text);
    assert_non_null(strstr(text, "1234567890"));
    assert_null(strstr(text, "Connection: close"));
    assert_int_equal(bench.upstream_count, pipelined ? 2 : 1);
    if (pipelined) {
        assert_true(sim_read(bench.upstreams[1], request, sizeof request) > 0);
        say(bench.upstreams[1], "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        sim_bench_pass(&bench, 100);
        hear(client, text, sizeof text);
        assert_non_null(strstr(text, "Connection: close\r\n\r\nok"));
    }
    assert_int_equal(sim_read(client, request, sizeof request), 0);
    sim_bench_pass(&bench, 3000);
    assert_true(bench.worker.stopped);
    assert_int_equal(counter_read(&bench.worker.stats.drain_resets), 0);
    sim_bench_close(&bench);
}

static void test_stop_in_a_response(void **state)
{
    (void)state;
    stop_in_a_response(false);
    stop_in_a_response(true);
}

/* A client takes its time for what its upstream had sent before an orderly end, and for that end; the upstream has been
 * gone for long. Then it learns that it can send nothing more, and not before it could read the end. */
static void test_end_before_the_reset(void **state)
{
    char text[8];
    (void)state;
    sim_bench_prepare(&bench);
    sim_bench_open(&bench, 1);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
    sim_bench_pass(&bench, 100);
    say(bench.upstreams[0], "all");
    sim_end(bench.upstreams[0]);
    sim_bench_pass(&bench, 100);
    sim_reset(bench.upstreams[0], ECONNRESET);
    sim_bench_pass(&bench, 10000);
    assert_int_equal(sim_read(client, text, sizeof text), 3);
    sim_bench_pass(&bench, 10000);
    assert_int_equal(sim_read(client, text, sizeof text), 0);
    assert_int_equal(bench.worker.sessions.used, 1);
    sim_bench_pass(&bench, 10000);
    assert_int_equal(bench.worker.sessions.used, 0);
    assert_true(client->far_reset);
    sim_bench_close(&bench);
}

/* A proxy of a chain ends in order when it has said so many octets of its grant; the client has sent something. */
static void end_of_a_proxy(size_t said)
{
    static const uint8_t grant[] = {0, 0x5a, 0, 0, 0, 0, 0, 0};
    bool granted = said == sizeof grant;
    char text[64];
    sim_bench_prepare(&bench);
    bench.config.hop_count = 1;
    bench.config.hops[0] = (struct proxy_uri){.scheme = PROXY_SOCKS4A,
                                              .address = {.kind = ADDRESS_IPV4, .port = 1080, .ipv4 = {10, 0, 0, 9}}};
    sim_bench_open(&bench, 1);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
    say(client, "x");
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.upstream_count, 1);
    assert_true(sim_read(bench.upstreams[0], text, sizeof text) > 0);
    assert_int_equal(sim_write(bench.upstreams[0], grant, said), said);
    sim_close(bench.upstreams[0]);
    sim_bench_pass(&bench, 100);
    assert_int_equal(counter_read(&bench.worker.stats.failures[FAIL_PROXY_CLOSED]), granted ? 0 : 1);
    assert_int_equal(sim_read(client, text, sizeof text), granted ? 0 : -ECONNRESET);
    sim_bench_pass(&bench, 3000);
    assert_int_equal(bench.worker.sessions.used, 0);
    assert_true(client->far_reset); /* nobody has what it sent */
    sim_bench_close(&bench);
}

/* Before the whole grant it is the end of a handshake, which has failed; behind it the end of an empty stream, which
 * the client gets before the reset. */
static void test_end_of_a_proxy(void **state)
{
    (void)state;
    for (size_t said = 0; said <= 8; said++) end_of_a_proxy(said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backlog_at_a_stop),
        cmocka_unit_test(test_watch_is_armed_again),
        cmocka_unit_test(test_watch_begins),
        cmocka_unit_test(test_response_that_stays_away),
        cmocka_unit_test(test_large_head_is_given_back),
        cmocka_unit_test(test_end_before_the_reset),
        cmocka_unit_test(test_end_of_a_proxy),
        cmocka_unit_test(test_idle_relay),
        cmocka_unit_test(test_stop_in_a_response),
    };
    return cmocka_run_group_tests_name("ends", tests, NULL, NULL);
}
