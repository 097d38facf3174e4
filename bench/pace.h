/* Operations at a rate: the k-th begins k intervals after the first, or as soon after that as a flow is free, and its
 * time is counted from when it should have begun. So a proxy that stalls is charged with all that had to wait (open
 * loop).
 *
 * Flows that have nothing to do rest in a list. In rtt, http and udp that is an open flow between two operations, in
 * connect, which takes free slots instead, nobody rests. */
#ifndef SLUICE_BENCH_PACE_H
#define SLUICE_BENCH_PACE_H

#include "bench/client.h"

/* Whether an open flow has to wait for its next operation until that is due. */
static inline bool pace_holds(const struct client *c, const struct flow *f)
{
    bool busy = c->o.idle_flows > 0 && (size_t)(f - c->flows) < c->o.flows;
    return c->pace.interval_ns > 0 && c->o.mode != &mode_connect && !busy;
}

static inline void pace_begin(struct client *c, uint64_t now)
{
    double rate = c->o.idle_flows > 0 ? c->o.idle_flows / c->o.idle_every : c->o.rate;
    c->pace.interval_ns = rate > 0 ? 1e9 / rate : 0;
    c->pace.next_ns = (double)now;
}

/* When the operation that is next should begin, if that is not later than `now`; 0: nothing is due. */
static inline uint64_t pace_due(const struct client *c, uint64_t now)
{
    return c->pace.interval_ns > 0 && c->pace.next_ns <= (double)now ? (uint64_t)c->pace.next_ns : 0;
}

static inline void pace_step(struct client *c)
{
    c->pace.next_ns += c->pace.interval_ns;
    c->pace.begun++;
}

static inline void pace_rest(struct client *c, struct flow *f)
{
    f->rests = true;
    TAILQ_INSERT_TAIL(&c->pace.resting, f, resting);
}

static inline void pace_leave(struct client *c, struct flow *f)
{
    if (f->rests) TAILQ_REMOVE(&c->pace.resting, f, resting);
    f->rests = false;
}

#endif
