/* What the two halves of a relay have of each other: relay.c, which runs the flows and has COPY, and relay_splice.c. */
#ifndef SLUICE_CORE_SESSION_RELAY_PRIVATE_H
#define SLUICE_CORE_SESSION_RELAY_PRIVATE_H

#include "core/session/relay.h"
#include "core/session/worker.h"

/* With less room the sink is waited for; what a sink takes at least that poll(2) calls writable. */
#define RELAY_ROOM_MIN 2048u

static inline enum session_side relay_other(enum session_side side)
{
    return side == CLIENT ? UPSTREAM : CLIENT;
}

static inline bool relay_in_flight(const struct session *s, unsigned op)
{
    return (s->inflight & SESSION_BIT(op)) != 0;
}

static inline struct session *relay_session_of(const struct worker *w, const struct flow *f, enum session_side *from)
{
    struct session *s = session_at(w, pool_slot_of(&w->sessions, f));
    *from = f == &s->flows[CLIENT] ? CLIENT : UPSTREAM;
    return s;
}

static inline void relay_count(struct worker *w, struct flow *f, enum session_side from, uint64_t octets)
{
    f->bytes += octets;
    if (f->flags & FLOW_INTERNAL) return;
    counter_add(from == CLIENT ? &w->stats.bytes_up : &w->stats.bytes_down, octets);
    counter_add(f->mode == FLOW_SPLICE ? &w->stats.bytes_splice : &w->stats.bytes_copy, octets);
}

/* --- of relay.c --- */

/* An error on one side, of a send to it or a receive from it. If that side had ended in order, the other one still gets
 * what it sent. Otherwise what the other has not got yet is lost, and it must not take that for an orderly end. Nor
 * must the peer on this side, unless the error says that it is not there any more: then the cheaper end will do. */
void relay_reset(struct worker *w, struct session *s, enum session_side side, ssize_t error);
/* When an error cuts a send, the kernel tells of it there and nowhere else: what is received next looks like an orderly
 * end. So an end is believed, for relay_reset(), if the connection was still there after it: asked before each send to
 * a side that has ended, and when its end finds such a send in flight. */
void relay_prove_end(struct session *s, enum session_side side);
/* The same if the end waits for octets that the other side does not take: until it does, the proof may be gone. */
void relay_prove_slow_end(struct session *s, enum session_side side);
/* All is sent behind which the flow ends. Both are done: so is the session. */
void relay_finish_flow(struct worker *w, struct session *s, enum session_side from);

/* --- of relay_splice.c --- */

/* Runs a flow in SPLICE. Returns when it waits: for source, sink or time, or in another state. */
void relay_splice(struct worker *w, struct session *s, enum session_side from);
/* Nothing is held and no receive is in flight. */
void relay_turn_to_splice(struct worker *w, struct session *s, enum session_side from);
/* Leaves the flow alone until then: it is neither polled nor armed. */
void relay_rest(struct worker *w, struct session *s, enum session_side from, uint64_t until_us);
/* It rests no more. */
void relay_end_rest(struct worker *w, struct session *s, enum session_side from);
/* To the pool if it is empty, else it is closed with what is in it. Without a pipe nothing happens. */
void relay_return_pipe(struct worker *w, struct flow *f);

#endif
