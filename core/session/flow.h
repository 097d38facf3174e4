/* A flow: what moves from one socket of a session to the other, of a relay or of a body of plain HTTP.
 *
 * It has a source (octets in memory first, then the socket on the side that names it), a sink (the other side's
 * socket), what it holds, and a limit in octets. One function runs it, flow_advance(): read while not writing.
 *
 *   COPY     receive into the worker's buffer group, one send at a time. Idle: no buffer, no pipe.
 *   SPLICE   poll, then splice(2) through a borrowed pipe. Idle: no pipe.
 *
 *   IDLE --flow_open()--> OPEN --end received, or the limit reached--> ENDING (what is held is still to be sent)
 *   --all sent--> DONE, and its owner is told. */
#ifndef SLUICE_CORE_SESSION_FLOW_H
#define SLUICE_CORE_SESSION_FLOW_H

#include "core/session/session.h"

/* Whose flow it is. Each of these may end the session. */
struct flow_owner {
    /* The flow is DONE. `limit` of it is what it could still have taken: more than 0 if its source has ended. */
    void (*done)(struct worker *w, struct session *s, enum session_side from);
    /* A receive from `side` or a send to it has failed: -errno, or 0 when an error is known to be there, not which. */
    void (*broken)(struct worker *w, struct session *s, enum session_side from, enum session_side side, ssize_t error);
    /* A quota of the session is spent, and what its flows have taken is sent. */
    void (*spent)(struct worker *w, struct session *s, enum session_side from);
    /* All octets that it was given in memory are in buffers now: that memory is free. NULL: the owner need not know. */
    void (*emptied)(struct worker *w, struct session *s);
};

struct flow_start {
    const struct flow_owner *owner;
    uint64_t limit; /* octets that it takes at most, more than 0; FLOW_UNLIMITED */
    const uint8_t
        *early; /* octets that come before the socket's; stay where they are until the owner hears `emptied` */
    uint32_t early_size;
    uint32_t own; /* of them, at the front, our own reply: no traffic */
};

/* A session's flows as they are before the first one is opened. */
void flow_init(struct flow *f);
/* Begins a flow that is IDLE or DONE, holds nothing and has nothing in flight. It moves from the next flow_advance()
 * on. */
void flow_open(struct worker *w, struct session *s, enum session_side from, const struct flow_start *start);
/* The one function that runs a flow: looks at what is held and in flight, and starts what is missing. */
void flow_advance(struct worker *w, struct session *s, enum session_side from);
/* One of the operations of the two flows. False: it belongs to none that is open. */
bool flow_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c);
/* Octets of the flow are delivered: counts them by direction and path. */
void flow_count(struct worker *w, struct session *s, enum session_side from, uint64_t octets);
/* A send to that side is back, whatever has become of the session meanwhile: counts what the kernel has taken of it,
 * for that is on its way. True: it was a flow's, or an exchange's; false: nothing is counted, it was another's. */
bool flow_count_send(struct worker *w, struct session *s, enum session_side side, int32_t result);
/* Octets are in flight that the kernel may still take. */
bool flow_sends(const struct session *s);

/* Leaves the flow alone until then: it is neither polled nor armed. */
void flow_rest(struct worker *w, struct session *s, enum session_side from, uint64_t until_us);
/* Microseconds until the first resting flow goes on; UINT64_MAX: none rests. */
uint64_t flow_rest_us(const struct worker *w);
/* Flows that were deferred, and those whose time has come, go on in the order of their coming as far as this turn's
 * work allows. */
void flow_wake_resting(struct worker *w);

/* Flows go on that have received in this turn and waited for its end: what they have is sent together. */
void flow_send_gathered(struct worker *w);

/* Ends its rest, if it has one: it goes on at once. */
void flow_hurry(struct worker *w, struct session *s, enum session_side from);

/* Stops the flow: takes it off all lists and gives its pipe back; an open flow becomes IDLE. A send may still be
 * reading what it holds. */
void flow_drop(struct worker *w, struct session *s, enum session_side from);
/* Gives back the buffers that both flows hold, when no send can be reading them any more. */
void flow_release(struct worker *w, struct session *s);

#endif
