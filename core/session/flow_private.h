/* What flow.c, which runs flows and moves octets in COPY, and flow_splice.c use of each other. */
#ifndef SLUICE_CORE_SESSION_FLOW_PRIVATE_H
#define SLUICE_CORE_SESSION_FLOW_PRIVATE_H

#include "core/session/session.h"
#include "core/session/worker.h"

/* A sink with less room is waited for. A socket that poll(2) calls writable takes at least so much. */
#define FLOW_ROOM_MIN 2048u

static inline enum session_side flow_sink(enum session_side from)
{
    return from == CLIENT ? UPSTREAM : CLIENT;
}

static inline bool flow_in_flight(const struct session *s, unsigned op)
{
    return (s->inflight & SESSION_BIT(op)) != 0;
}

static inline struct session *flow_session_of(const struct worker *w, const struct flow *f, enum session_side *from)
{
    struct session *s = session_at(w, pool_slot_of(&w->sessions, f));
    *from = f == &s->flows[CLIENT] ? CLIENT : UPSTREAM;
    return s;
}

/* The least of what is asked for and what the flow may still take. */
static inline size_t flow_bound(const struct flow *f, size_t size)
{
    return f->limit < size ? (size_t)f->limit : size;
}

/* Notes that octets were taken from the source. With the last one that the flow may take it is ENDING. */
static inline void flow_take(struct flow *f, uint64_t octets)
{
    assert(octets <= f->limit);
    if (f->limit != FLOW_UNLIMITED) f->limit -= octets;
    if (f->limit == 0) f->phase = FLOW_ENDING;
}

/* --- of flow.c --- */

/* Octets that its limits let the flow move now, at most `wanted`; limited_settle() follows. 0: it rests until its turn
 * has come, or the session is spent. */
uint32_t flow_grant(struct worker *w, struct session *s, enum session_side from, uint32_t wanted);
/* The session is spent: ends it if all that its flows have taken is sent. True: it may be gone. */
bool flow_cut(struct worker *w, struct session *s, enum session_side from);

/* All is sent: the flow is DONE, and its owner is told. */
void flow_finish(struct worker *w, struct session *s, enum session_side from);

/* The flow waits for buffers no longer. */
void flow_feed(struct flow *f);

/* --- of flow_splice.c --- */

/* Runs a flow in SPLICE. Returns when it waits: for source, sink or time, or when it is done. */
void flow_splice(struct worker *w, struct session *s, enum session_side from);
/* Turns a flow to SPLICE that holds nothing and has no receive in flight. */
void flow_turn_to_splice(struct worker *w, struct session *s, enum session_side from);
/* Ends the flow's rest. */
void flow_end_rest(struct worker *w, struct session *s, enum session_side from);
/* To the pool if it is empty, else it is closed with what is in it. Without a pipe nothing happens. */
void flow_return_pipe(struct worker *w, struct flow *f);

#endif
