/* A worker on the simulated kernel for tests that plan every step themselves: one forwarding listener a target, a
 * resolver that answers at once, and a far end that the test plays between the turns. sim_world.h has the other kind,
 * which chance plays. */
#ifndef SLUICE_TESTS_SIM_BENCH_H
#define SLUICE_TESTS_SIM_BENCH_H

#include "core/session/session.h"
#include "core/session/worker.h"
#include "tests/sim.h"

#define SIM_BENCH_PORT      1000u /* + listener */
#define SIM_BENCH_CONNS_MAX 64u

struct sim_bench {
    struct config config;
    struct worker worker;
    struct worker *workers[1];
    struct ring *far_ring; /* of the coordinator and of the resolver */
    struct sleeper far_sleeper;
    struct queue *mail, *questions; /* to them */
    _Atomic uint32_t revision, stops;
    struct resolve_stats resolver;
    bool holds;             /* the resolver answers nobody now */
    bool deaf;              /* the coordinator reads nothing now */
    uint32_t address_count; /* of every name: 10.0.0.0, 10.0.0.1, ... */
    /* What becomes of a connect; NULL: it succeeds at once. */
    void (*on_connect)(struct sim_bench *bench, const struct address *to, struct sim_verdict *verdict);
    /* What the coordinator has read; NULL: it does not matter. */
    void (*on_mail)(struct sim_bench *bench, const struct message *message);
    /* A datagram has left the proxy; NULL: it does not matter. */
    void (*on_datagram)(struct sim_bench *bench, const struct net_address *from, const struct net_address *to,
                        const uint8_t *data, size_t size);
    /* Called in every round of the simulated kernel; NULL: nothing to do. True if something moved. */
    bool (*act)(struct sim_bench *bench, uint64_t *wake_us);
    uint32_t upstream_count;
    struct sim_conn *upstreams[SIM_BENCH_CONNS_MAX]; /* in the order in which they were established */
    struct address reached[SIM_BENCH_CONNS_MAX];     /* and where to */
};

/* Defaults for `config`: one listener that forwards to 10.0.0.0:80, small pools, no time-outs but --timeout. */
void sim_bench_prepare(struct sim_bench *bench);
void sim_bench_forward(struct sim_bench *bench, const struct address *to); /* one more listener */
void sim_bench_open(struct sim_bench *bench, uint64_t seed);
void sim_bench_turn(struct sim_bench *bench, uint64_t timeout_ms);
/* Turns until so many virtual milliseconds have passed. */
void sim_bench_pass(struct sim_bench *bench, uint64_t ms);
/* A client of that listener with so much room each way. */
struct sim_conn *sim_bench_connect(struct sim_bench *bench, uint32_t listener, uint32_t room);
/* Stops the worker, and checks that nothing is left. */
void sim_bench_close(struct sim_bench *bench);

#endif
