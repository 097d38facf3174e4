#include "tests/sim_bench.h"

#include <string.h>

#include "core/io/log.h"
#include "core/session/worker_loop.h"

#define BENCH_QUEUE 64u

static void bench_answer(struct sim_bench *bench, const struct message *question)
{
    struct resolve_request *request = question->body;
    struct message answer = *question;
    request->count = bench->address_count;
    for (uint32_t i = 0; i < bench->address_count; i++)
        request->results[i] = (struct resolve_result){.kind = ADDRESS_IPV4, .octets = {10, 0, 0, (uint8_t)i}};
    if (!queue_push(bench->worker.names, &answer)) sim_fail("the inbox is full");
    if (sleeper_must_wake(&bench->worker.sleeper))
        sim_wake(bench->worker.ring, (struct ring_tag){.op = WORKER_OP_WAKE});
}

static bool bench_act(void *self, uint64_t *wake_us)
{
    struct sim_bench *bench = self;
    struct message message;
    bool moved = false;
    for (; !bench->deaf && queue_pop(bench->mail, &message); moved = true)
        if (bench->on_mail) bench->on_mail(bench, &message);
    for (; !bench->holds && queue_pop(bench->questions, &message); moved = true) bench_answer(bench, &message);
    return (bench->act && bench->act(bench, wake_us)) || moved;
}

static void bench_on_connect(void *self, const struct net_address *to, struct sim_verdict *verdict)
{
    struct sim_bench *bench = self;
    struct address plain;
    *verdict = (struct sim_verdict){.room_in = 65536, .room_out = 65536};
    if (!net_address_to(to, &plain)) sim_fail("a connect to an address of no known family");
    if (bench->on_connect) bench->on_connect(bench, &plain, verdict);
    static struct address asked[SIM_BENCH_CONNS_MAX];
    static uint32_t next;
    asked[next] = plain;
    verdict->owner = &asked[next];
    next = (next + 1) % SIM_BENCH_CONNS_MAX;
}

static void bench_on_established(void *self, struct sim_conn *conn)
{
    struct sim_bench *bench = self;
    if (bench->upstream_count == SIM_BENCH_CONNS_MAX) sim_fail("too many upstreams");
    bench->reached[bench->upstream_count] = *(const struct address *)conn->owner;
    bench->upstreams[bench->upstream_count++] = conn;
}

static void bench_on_datagram(void *self, const struct net_address *from, const struct net_address *to,
                              const uint8_t *data, size_t size)
{
    struct sim_bench *bench = self;
    if (bench->on_datagram) bench->on_datagram(bench, from, to, data, size);
}

static const struct sim_world_ops bench_ops = {bench_act, bench_on_connect, bench_on_established, NULL,
                                               bench_on_datagram};

void sim_bench_prepare(struct sim_bench *bench)
{
    memset(bench, 0, sizeof *bench);
    bench->config = (struct config){
        .timeout_ms = 60000,
        .sessions = 32,
        .setups = 32,
        .buffers = 64,
        .buffers_lent = 8,
        .bulk_turn = 1u << 20,
        .buffer_size = 16384,
        .pipes = 8,
        .pipe_size = 65536,
        .ring_entries = 256,
        .queue_capacity = BENCH_QUEUE,
        .associations = 2,
        .exchanges = 4,
        .heads = 8,
    };
    sim_bench_forward(bench, &(struct address){.kind = ADDRESS_IPV4, .port = 80, .ipv4 = {10, 0, 0, 0}});
}

void sim_bench_forward(struct sim_bench *bench, const struct address *to)
{
    struct listener_config *l = &bench->config.listeners[bench->config.listener_count++];
    *l = (struct listener_config){.kind = LISTENER_FORWARD, .forward = *to};
}

void sim_bench_open(struct sim_bench *bench, uint64_t seed)
{
    struct worker *w = &bench->worker;
    log_open(LOG_DISCARD, LOG_LEVEL_SILENCE);
    sim_begin(seed, NULL, 0, &bench_ops, bench);
    if (ring_open(&bench->far_ring, &(struct ring_options){.entries = 8}) < 0) sim_fail("no ring");
    bench->workers[0] = w;
    w->config = &bench->config;
    w->peers = bench->workers;
    w->resolver_stats = &bench->resolver;
    w->peer_count = 1;
    w->revision = &bench->revision;
    w->stops = &bench->stops;
    for (uint32_t i = 0; i < bench->config.listener_count; i++)
        w->listeners[i].fd = sim_listen((uint16_t)(SIM_BENCH_PORT + i));
    struct queue **queues[] = {&bench->mail, &bench->questions, &w->inbox, &w->names};
    for (unsigned i = 0; i < 4; i++)
        if (queue_open(queues[i], bench->config.queue_capacity) < 0) sim_fail("no queues");
    w->coordinator = (struct mailbox){.queue = bench->mail, .sleeper = &bench->far_sleeper, .ring = &bench->far_ring};
    w->resolver = (struct mailbox){.queue = bench->questions, .sleeper = &bench->far_sleeper, .ring = &bench->far_ring};
    w->own = sim_own();
    if (worker_open(w) < 0) sim_fail("worker_open() failed");
    worker_arm_listeners(w);
}

void sim_bench_turn(struct sim_bench *bench, uint64_t timeout_ms)
{
    if (worker_turn(&bench->worker, timeout_ms) < 0) sim_fail("worker_turn() failed");
}

void sim_bench_pass(struct sim_bench *bench, uint64_t ms)
{
    uint64_t until_us = sim_now_us() + ms * 1000;
    while (sim_now_us() < until_us) sim_bench_turn(bench, (until_us - sim_now_us()) / 1000 + 1);
}

struct sim_conn *sim_bench_connect(struct sim_bench *bench, uint32_t listener, uint32_t room)
{
    (void)bench;
    struct sim_conn *conn = sim_connect((uint16_t)(SIM_BENCH_PORT + listener), room, room, false);
    if (!conn) sim_fail("nothing listens for listener %u", listener);
    return conn;
}

void sim_bench_close(struct sim_bench *bench)
{
    struct worker *w = &bench->worker;
    atomic_fetch_add(&bench->stops, 1);
    for (unsigned i = 0; i < 10000 && !w->stopped; i++) sim_bench_turn(bench, 1);
    if (!w->stopped) sim_fail("the worker does not stop");
    for (unsigned i = 0; i < 30; i++) sim_bench_turn(bench, 1);
    if (w->sessions.used > 0 || w->setups.used > 0 || w->buffers.leased > 0) sim_fail("something is left at the end");
    worker_close(w);
    queue_close(w->inbox);
    queue_close(w->names);
    queue_close(bench->mail);
    queue_close(bench->questions);
    ring_destroy(bench->far_ring);
    if (sim_descriptors() > 0) sim_fail("%u descriptors are left at the end", sim_descriptors());
}
