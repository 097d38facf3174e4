/* On the simulated kernel: what is counted when something runs short or is left over, to the last one. Buffers, pipes,
 * room in a queue, the time of a drain; and the octets of datagrams. */
#include "tests/sim_bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/session/errand_kinds.h"
#include "core/session/message.h"
#include "core/session/route_request.h"

#define BUFFER 16384u

static struct sim_bench bench;
static uint8_t octets[BUFFER];

static uint64_t counted(const counter *one)
{
    return counter_read(one);
}

static void say(struct sim_conn *conn, const void *data, size_t size)
{
    assert_int_equal(sim_write(conn, data, size), size);
}

static void hear(struct sim_conn *conn, const void *data, int32_t size)
{
    uint8_t got[64];
    assert_int_equal(sim_read(conn, got, sizeof got), size);
    assert_memory_equal(got, data, (size_t)size);
}

static struct sim_conn *relay(uint32_t room)
{
    struct sim_conn *client = sim_bench_connect(&bench, 0, room);
    uint32_t before = bench.upstream_count;
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.upstream_count, before + 1);
    return client;
}

/* --- buffers --- */

/* Each receive that finds the group empty counts, and is armed again as long as there are buffers. */
static void test_receives_without_a_buffer(void **state)
{
    (void)state;
    sim_bench_prepare(&bench);
    sim_bench_open(&bench, 1);
    struct sim_conn *client = relay(4096);
    say(client, "hello", 5);
    sim_get_chances()->no_buffers = 1000;
    for (uint64_t turn = 1; turn <= 3; turn++) {
        sim_bench_turn(&bench, 1);
        assert_int_equal(counted(&bench.worker.stats.starved), turn);
    }
    sim_get_chances()->no_buffers = 0;
    sim_bench_pass(&bench, 100);
    hear(bench.upstreams[0], "hello", 5);
    assert_int_equal(counted(&bench.worker.stats.starved), 3);
    sim_bench_close(&bench);
}

/* Of eight buffers four are held by clients that do not read: the fifth is not asked for before one of them is back. */
static void test_half_of_the_buffers_is_awaited(void **state)
{
    struct sim_conn *slow[2], *client;
    (void)state;
    sim_bench_prepare(&bench);
    bench.config.buffers = bench.config.buffers_lent = 8;
    sim_bench_open(&bench, 1);
    for (unsigned i = 0; i < 2; i++) {
        slow[i] = relay(64);
        for (unsigned piece = 0; piece < 2; piece++) {
            say(bench.upstreams[i], octets, 1000);
            sim_bench_pass(&bench, 10);
        }
    }
    assert_int_equal(bench.worker.buffers.leased, 4);
    client = relay(4096);
    say(client, "hello", 5);
    sim_get_chances()->no_buffers = 1000;
    sim_bench_turn(&bench, 1);
    sim_get_chances()->no_buffers = 0;
    sim_bench_pass(&bench, 1000);
    assert_int_equal(sim_read(bench.upstreams[2], octets, 1), -EAGAIN);
    for (unsigned i = 0; i < 40 && bench.worker.buffers.leased == 4; i++) {
        sim_read(slow[0], octets, sizeof octets);
        sim_bench_pass(&bench, 1);
    }
    sim_bench_pass(&bench, 100);
    hear(bench.upstreams[2], "hello", 5);
    assert_int_equal(counted(&bench.worker.stats.starved), 1);
    sim_reset(slow[0], ECONNRESET);
    sim_reset(slow[1], ECONNRESET);
    sim_bench_close(&bench);
}

/* --- datagrams --- */

#define HEADER 10u /* of SOCKS5, with an IPv4 address */

static struct {
    uint32_t up, down; /* payload that has left */
    struct net_address outer;
} datagrams;

static struct net_address at(const char *host, uint16_t port)
{
    struct address plain;
    struct net_address out;
    assert_true(address_from_host(host, strlen(host), port, &plain));
    assert_true(net_address_from(&plain, &out));
    return out;
}

static bool is_at(const struct net_address *there, const char *host, uint16_t port)
{
    struct net_address other = at(host, port);
    return there->size == other.size && memcmp(&there->storage, &other.storage, other.size) == 0;
}

static void note_datagram(struct sim_bench *self, const struct net_address *from, const struct net_address *to,
                          const uint8_t *data, size_t size)
{
    (void)self;
    if (is_at(to, "10.1.1.1", 6000)) {
        assert_true(size > HEADER && data[3] == 1);
        datagrams.down += (uint32_t)(size - HEADER);
    } else {
        assert_true(is_at(to, "10.2.2.2", 7000));
        datagrams.outer = *from;
        datagrams.up += (uint32_t)size;
    }
}

static uint16_t associate(void)
{
    static const uint8_t words[] = {5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0};
    uint8_t reply[12];
    memset(&datagrams, 0, sizeof datagrams);
    sim_bench_prepare(&bench);
    bench.config.listeners[0] = (struct listener_config){.kind = LISTENER_AUTO};
    bench.config.socks5_udp = true;
    bench.config.udp_peers = 16;
    bench.on_datagram = note_datagram;
    sim_bench_open(&bench, 1);
    struct sim_conn *client = sim_bench_connect(&bench, 0, 4096);
    client->far_address = at("10.1.1.1", 50000);
    say(client, words, sizeof words);
    sim_bench_pass(&bench, 100);
    assert_int_equal(sim_read(client, reply, sizeof reply), sizeof reply);
    assert_int_equal(reply[3], 0);
    return (uint16_t)(reply[10] << 8 | reply[11]);
}

static void send_up(uint16_t port, uint32_t size)
{
    static const uint8_t header[HEADER] = {0, 0, 0, 1, 10, 2, 2, 2, 7000 >> 8, 7000 & 0xff};
    struct net_address from = at("10.1.1.1", 6000);
    uint8_t data[SIM_DATAGRAM_MAX] = {0};
    memcpy(data, header, sizeof header);
    assert_true(sim_datagram(port, &from, data, HEADER + size));
}

static void send_down(uint32_t size)
{
    struct sockaddr_in outer;
    struct net_address from = at("10.2.2.2", 7000);
    memcpy(&outer, &datagrams.outer.storage, sizeof outer);
    assert_true(sim_datagram((uint16_t)(outer.sin_port << 8 | outer.sin_port >> 8), &from, octets, size));
}

static void assert_datagrams(uint64_t up, uint64_t octets_up, uint64_t down, uint64_t octets_down)
{
    const struct stats *stats = &bench.worker.stats;
    assert_int_equal(counted(&stats->datagrams_up), up);
    assert_int_equal(counted(&stats->bytes_up), octets_up);
    assert_int_equal(datagrams.up, octets_up);
    assert_int_equal(counted(&stats->datagrams_down), down);
    assert_int_equal(counted(&stats->bytes_down), octets_down);
    assert_int_equal(datagrams.down, octets_down);
    assert_int_equal(counted(&stats->bytes_copy), octets_up + octets_down);
    assert_int_equal(counted(&stats->datagrams_dropped), 0);
}

/* Of both directions the payload counts, without the header that a client's datagrams have. */
static void test_octets_of_datagrams(void **state)
{
    (void)state;
    uint16_t port = associate();
    send_up(port, 100);
    sim_bench_pass(&bench, 100);
    assert_datagrams(1, 100, 0, 0);
    send_down(7);
    send_down(30);
    sim_bench_pass(&bench, 100);
    assert_datagrams(1, 100, 2, 37);
    send_up(port, 1);
    sim_bench_pass(&bench, 100);
    assert_datagrams(2, 101, 2, 37);
    sim_bench_close(&bench);
}

/* The sockets of an association starve one by one, and each goes on. */
static void test_datagrams_without_a_buffer(void **state)
{
    (void)state;
    uint16_t port = associate();
    send_up(port, 5);
    sim_bench_pass(&bench, 100);
    sim_get_chances()->no_buffers = 1000;
    send_down(6);
    sim_bench_turn(&bench, 1);
    assert_int_equal(counted(&bench.worker.stats.starved), 1);
    send_up(port, 7);
    sim_bench_turn(&bench, 1);
    assert_int_equal(counted(&bench.worker.stats.starved), 3);
    sim_get_chances()->no_buffers = 0;
    sim_bench_pass(&bench, 100);
    assert_datagrams(2, 12, 1, 6);
    assert_int_equal(counted(&bench.worker.stats.starved), 3);
    sim_bench_close(&bench);
}

/* --- pipes --- */

/* The client sends so many whole buffers, one by one, all of which arrive. */
static void send_buffers(struct sim_conn *client, struct sim_conn *upstream, unsigned count)
{
    static uint8_t got[BUFFER];
    for (; count > 0; count--) {
        say(client, octets, sizeof octets);
        sim_bench_pass(&bench, 10);
        assert_int_equal(sim_read(upstream, got, sizeof got), sizeof got);
    }
}

static void assert_turns(uint64_t to_splice, uint64_t missing, uint64_t to_copy)
{
    const struct stats *stats = &bench.worker.stats;
    assert_int_equal(counted(&stats->to_splice), to_splice);
    assert_int_equal(counted(&stats->pipes_missing), missing);
    assert_int_equal(counted(&stats->to_copy), to_copy);
}

/* Bulk begins with the fourth whole buffer; without a pipe it goes on as a copy, and asks again behind 64 more. */
static void test_bulk_without_a_pipe(void **state)
{
    (void)state;
    sim_bench_prepare(&bench);
    bench.config.pipes = 0;
    sim_bench_open(&bench, 1);
    struct sim_conn *client = relay(65536);
    send_buffers(client, bench.upstreams[0], 3);
    assert_turns(0, 0, 0);
    send_buffers(client, bench.upstreams[0], 1);
    assert_turns(1, 1, 1);
    send_buffers(client, bench.upstreams[0], 63);
    assert_turns(1, 1, 1);
    send_buffers(client, bench.upstreams[0], 1);
    assert_turns(2, 2, 2);
    assert_int_equal(counted(&bench.worker.stats.bytes_copy), 68 * BUFFER);
    assert_int_equal(counted(&bench.worker.stats.bytes_splice), 0);
    sim_bench_close(&bench);
}

/* --- room in the queue to the coordinator --- */

static struct message questions[8];
static uint32_t question_count;

static void note_question(struct sim_bench *self, const struct message *message)
{
    (void)self;
    if (message->kind != MESSAGE_ROUTE) return;
    assert_true(question_count < 8);
    questions[question_count++] = *message;
}

static void answer_questions(void)
{
    for (uint32_t i = 0; i < question_count; i++) {
        route_decide_builtin(questions[i].body, NULL, 0);
        if (!queue_push(bench.worker.inbox, &questions[i])) { /* it holds as few */
            sim_bench_turn(&bench, 0);
            assert_true(queue_push(bench.worker.inbox, &questions[i]));
        }
    }
    question_count = 0;
}

/* Of six questions four find room. The others wait, are tried with each tick, and reach the coordinator once. */
static void test_questions_that_wait(void **state)
{
    struct sim_conn *clients[6];
    (void)state;
    question_count = 0;
    sim_bench_prepare(&bench);
    bench.config.queue_capacity = 4;
    bench.on_mail = note_question;
    atomic_store(&bench.revision, 1);
    sim_bench_open(&bench, 1);
    sim_bench_pass(&bench, 10);
    bench.deaf = true;
    for (unsigned i = 0; i < 6; i++) {
        clients[i] = sim_bench_connect(&bench, 0, 4096);
        sim_bench_turn(&bench, 1);
        assert_int_equal(counted(&bench.worker.stats.routes_asked), i < 4 ? i + 1 : 4);
        assert_int_equal(counted(&bench.worker.stats.queue_full), i < 4 ? 0 : i - 3);
    }
    sim_bench_pass(&bench, 5000);
    assert_true(counted(&bench.worker.stats.queue_full) > 2);
    assert_int_equal(counted(&bench.worker.stats.routes_asked), 4);
    bench.deaf = false;
    sim_bench_pass(&bench, 5000);
    assert_int_equal(question_count, 6);
    assert_int_equal(counted(&bench.worker.stats.routes_asked), 6);
    answer_questions();
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.upstream_count, 6);
    for (unsigned i = 0; i < 6; i++) sim_close(clients[i]);
    sim_bench_close(&bench);
}

/* --- the time of a drain --- */

static void lend(void *errand)
{
    assert_true(queue_push(bench.worker.inbox, &(struct message){.kind = MESSAGE_ERRAND, .body = errand}));
}

/* Clients count whatever they do, and relays of scripts; a call that the coordinator makes itself does not. */
static void test_sessions_that_a_drain_resets(void **state)
{
    struct sim_conn *ends[2], *clients[3], *call;
    struct relay_errand errand = {.errand.run = errand_relay};
    struct dial_errand dial = {.errand.run = errand_dial, .timeout_ms = 60000};
    uint8_t octet;
    (void)state;
    sim_bench_prepare(&bench);
    sim_bench_forward(&bench, &(struct address){.kind = ADDRESS_IPV4, .port = 80, .ipv4 = {10, 0, 0, 0}});
    bench.config.listeners[1].kind = LISTENER_AUTO;
    bench.config.drain_ms = 1000;
    sim_bench_open(&bench, 1);
    clients[0] = relay(4096);
    clients[1] = relay(4096);
    clients[2] = sim_bench_connect(&bench, 1, 4096); /* it says nothing */
    struct sim_conn *gone = relay(4096);
    for (unsigned i = 0; i < 2; i++) errand.fds[i] = sim_lend(&ends[i], 4096, 4096);
    lend(&errand);
    dial.target = (struct address){.kind = ADDRESS_IPV4, .port = 80, .ipv4 = {10, 0, 0, 9}};
    dial.fd = sim_lend(&call, 4096, 4096);
    lend(&dial);
    sim_bench_pass(&bench, 100);
    assert_int_equal(bench.worker.sessions.used, 6);
    atomic_fetch_add(&bench.stops, 1);
    sim_bench_turn(&bench, 0);
    sim_bench_pass(&bench, 500);
    sim_close(gone); /* in time */
    sim_close(bench.upstreams[2]);
    sim_bench_pass(&bench, 400);
    assert_int_equal(bench.worker.sessions.used, 5);
    assert_int_equal(counted(&bench.worker.stats.drain_resets), 0);
    sim_bench_pass(&bench, 300);
    assert_int_equal(counted(&bench.worker.stats.drain_resets), 4);
    assert_int_equal(bench.worker.sessions.used, 0);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(sim_read(clients[i], &octet, 1), -ECONNRESET);
    for (unsigned i = 0; i < 2; i++) assert_int_equal(sim_read(ends[i], &octet, 1), -ECONNRESET);
    sim_bench_close(&bench);
    assert_int_equal(counted(&bench.worker.stats.drain_resets), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receives_without_a_buffer),    cmocka_unit_test(test_half_of_the_buffers_is_awaited),
        cmocka_unit_test(test_octets_of_datagrams),          cmocka_unit_test(test_datagrams_without_a_buffer),
        cmocka_unit_test(test_bulk_without_a_pipe),          cmocka_unit_test(test_questions_that_wait),
        cmocka_unit_test(test_sessions_that_a_drain_resets),
    };
    memset(octets, 'x', sizeof octets);
    return cmocka_run_group_tests_name("shortage", tests, NULL, NULL);
}
