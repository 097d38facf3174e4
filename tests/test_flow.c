/* On the simulated kernel: when a flow turns from one path to the other, and answers that go out octet by octet. */
#include "tests/sim_bench.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define BUFFER 16384u /* octets of a buffer, and what counts as much in SPLICE */

static struct sim_bench bench;
static uint8_t octets[BUFFER];

static struct sim_conn *relay(enum relay_mode mode)
{
    sim_bench_prepare(&bench);
    bench.config.relay = mode;
    sim_bench_open(&bench, 1);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 65536);
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.upstream_count, 1);
    return client;
}

/* So many pieces of that size, one by one, all of which arrive. */
static void send_pieces(struct sim_conn *client, unsigned count, uint32_t size)
{
    static uint8_t got[BUFFER];
    for (; count > 0; count--) {
        assert_int_equal(sim_write(client, octets, size), size);
        sim_bench_pass(&bench, 10);
        assert_int_equal(sim_read(bench.upstreams[0], got, sizeof got), size);
        assert_memory_equal(got, octets, size);
    }
}

static void assert_turns(uint64_t to_splice, uint64_t to_copy)
{
    assert_int_equal(counter_read(&bench.worker.stats.to_splice), to_splice);
    assert_int_equal(counter_read(&bench.worker.stats.to_copy), to_copy);
}

/* Four buffers in a row that are full; one that is not begins the row anew. */
static void test_bulk_turns_to_splice(void **state)
{
    (void)state;
    struct sim_conn *client = relay(RELAY_AUTO);
    send_pieces(client, 3, BUFFER);
    send_pieces(client, 1, BUFFER - 1);
    send_pieces(client, 3, BUFFER);
    assert_turns(0, 0);
    send_pieces(client, 1, BUFFER);
    assert_turns(1, 0);
    assert_int_equal(counter_read(&bench.worker.stats.bytes_copy), 8 * BUFFER - 1);
    send_pieces(client, 1, BUFFER);
    assert_int_equal(counter_read(&bench.worker.stats.bytes_splice), BUFFER);
    assert_int_equal(counter_read(&bench.worker.stats.bytes_copy), 8 * BUFFER - 1);
    sim_bench_close(&bench);
}

/* Eight small rounds in a row; a large one begins the row anew. (Sizes that divide what the sink is known to take: what
 * is left of that cuts a round.) */
static void test_small_rounds_turn_back(void **state)
{
    (void)state;
    struct sim_conn *client = relay(RELAY_AUTO);
    send_pieces(client, 4, BUFFER);
    send_pieces(client, 6, 128); /* the round in which it turned has moved nothing, and counts */
    assert_turns(1, 0);
    send_pieces(client, 1, 128);
    assert_turns(1, 1);
    sim_bench_close(&bench);
    client = relay(RELAY_AUTO);
    send_pieces(client, 5, BUFFER);
    send_pieces(client, 7, BUFFER / 2);
    send_pieces(client, 1, BUFFER);
    send_pieces(client, 7, 100);
    assert_turns(1, 0);
    send_pieces(client, 1, 100);
    assert_turns(1, 1);
    send_pieces(client, 3, BUFFER); /* and a new row of full buffers */
    assert_turns(1, 1);
    send_pieces(client, 1, BUFFER);
    assert_turns(2, 1);
    sim_bench_close(&bench);
}

/* Whoever wants one path gets it, whatever is sent. */
static void test_one_path(void **state)
{
    (void)state;
    struct sim_conn *client = relay(RELAY_SPLICE);
    assert_turns(2, 0);
    send_pieces(client, 20, 100);
    assert_turns(2, 0);
    assert_int_equal(counter_read(&bench.worker.stats.bytes_splice), 2000);
    sim_bench_close(&bench);
    client = relay(RELAY_COPY);
    send_pieces(client, 20, BUFFER);
    assert_turns(0, 0);
    assert_int_equal(counter_read(&bench.worker.stats.bytes_copy), 20 * BUFFER);
    sim_bench_close(&bench);
}

/* Each receive brings one buffer, as on kernels that know no limit: while a buffer is being sent the next one is
 * received, and a third one is not. */
static void test_one_buffer_ahead(void **state)
{
    uint8_t got[64];
    (void)state;
    struct sim_conn *client = relay(RELAY_COPY);
    sim_get_chances()->multishot = 1000;
    bench.upstreams[0]->out.room = 64;
    for (uint32_t piece = 1; piece <= 4; piece++) {
        assert_int_equal(sim_write(client, octets, 1000), 1000);
        sim_bench_pass(&bench, 10);
        assert_int_equal(bench.worker.buffers.leased, piece < 2 ? 1 : 2);
    }
    assert_int_equal(client->in.used, 2000);
    uint32_t heard = 0;
    for (int32_t size; (size = sim_read(bench.upstreams[0], got, sizeof got)) > 0; sim_bench_pass(&bench, 10))
        heard += (uint32_t)size;
    assert_int_equal(heard, 4000);
    sim_bench_close(&bench);
}

/* What one receive brings in several buffers goes out in one send, behind which one receive is armed. */
static void test_burst_goes_out_as_one(void **state)
{
    static uint8_t sent[3 * BUFFER + 100], got[sizeof sent];
    (void)state;
    struct sim_conn *client = relay(RELAY_COPY);
    for (uint32_t i = 0; i < sizeof sent; i++) sent[i] = (uint8_t)(i / 7 * 31 + i);
    uint64_t before = counter_read(&ring_get_stats(bench.worker.ring)->submissions);
    assert_int_equal(sim_write(client, sent, sizeof sent), sizeof sent);
    sim_bench_pass(&bench, 10);
    assert_int_equal(counter_read(&ring_get_stats(bench.worker.ring)->submissions) - before, 2);
    assert_int_equal(sim_read(bench.upstreams[0], got, sizeof got), sizeof got);
    assert_memory_equal(got, sent, sizeof got);
    assert_int_equal(bench.worker.buffers.leased, 0);
    sim_bench_close(&bench);
}

/* A buffer that is full, behind which nothing comes, does not wait for more. */
static void test_full_buffer_does_not_wait(void **state)
{
    static uint8_t got[BUFFER];
    (void)state;
    struct sim_conn *client = relay(RELAY_COPY);
    assert_int_equal(sim_write(client, octets, BUFFER), BUFFER);
    sim_bench_pass(&bench, 1);
    assert_int_equal(sim_read(bench.upstreams[0], got, sizeof got), BUFFER);
    sim_bench_close(&bench);
}

/* A sink that takes nothing: what is in the send, and two buffers behind it, are held; the rest waits with the kernel.
 */
static void test_slow_sink_holds_little(void **state)
{
    static uint8_t got[BUFFER];
    (void)state;
    struct sim_conn *client = relay(RELAY_COPY);
    bench.upstreams[0]->out.room = 64;
    uint32_t written = 0, heard = 0;
    for (size_t size; (size = sim_write(client, octets, 1000)) > 0; sim_bench_pass(&bench, 2))
        written += (uint32_t)size;
    assert_in_range(bench.worker.buffers.leased, 1, 6);
    for (int32_t size; (size = sim_read(bench.upstreams[0], got, sizeof got)) > 0; sim_bench_pass(&bench, 5))
        heard += (uint32_t)size;
    assert_int_equal(heard, written);
    sim_bench_close(&bench);
}

/* --- answers --- */

static void refuse(struct sim_bench *self, const struct address *to, struct sim_verdict *verdict)
{
    (void)self, (void)to;
    verdict->error = -ECONNREFUSED;
}

/* All words of a client come at once, and its socket takes an octet of the answers at a time: none of them is sent
 * twice, or in front of another one. */
static void answer_octet_by_octet(uint8_t code)
{
    static const uint8_t words[] = {5, 1, 0, 5, 1, 0, 1, 10, 0, 0, 9, 0, 80};
    const uint8_t expected[] = {5, 0, 5, code, 0, 1};
    uint8_t heard[32];
    uint32_t size = 0;
    sim_bench_prepare(&bench);
    bench.config.listeners[0].kind = LISTENER_AUTO;
    if (code != 0) bench.on_connect = refuse;
    sim_bench_open(&bench, 1);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 64);
    client->out.room = 1;
    assert_int_equal(sim_write(client, words, sizeof words), sizeof words);
    for (unsigned i = 0; i < 100; i++) {
        sim_bench_pass(&bench, 10);
        int32_t read = sim_read(client, heard + size, sizeof heard - size);
        if (read > 0) size += (uint32_t)read;
    }
    assert_int_equal(size, 12);
    assert_memory_equal(heard, expected, sizeof expected);
    assert_int_equal(counter_read(&bench.worker.stats.handshake_out), 12);
    assert_int_equal(counter_read(&bench.worker.stats.handshake_in), sizeof words);
    sim_close(client);
    sim_bench_close(&bench);
}

static void test_answers_octet_by_octet(void **state)
{
    (void)state;
    answer_octet_by_octet(0);
    answer_octet_by_octet(5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bulk_turns_to_splice),
        cmocka_unit_test(test_small_rounds_turn_back),
        cmocka_unit_test(test_one_path),
        cmocka_unit_test(test_one_buffer_ahead),
        cmocka_unit_test(test_burst_goes_out_as_one),
        cmocka_unit_test(test_full_buffer_does_not_wait),
        cmocka_unit_test(test_slow_sink_holds_little),
        cmocka_unit_test(test_answers_octet_by_octet),
    };
    memset(octets, 'x', sizeof octets);
    return cmocka_run_group_tests_name("flow", tests, NULL, NULL);
}
