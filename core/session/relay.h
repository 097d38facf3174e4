/* Two flows, one function (relay_advance): read while not writing, half-close, adaptive path.
 *
 *   COPY     multishot receive into the worker's buffer group, one send at a time. Idle: no buffer, no pipe.
 *   SPLICE   poll, then splice(2) through a borrowed pipe. Idle: no pipe.
 *
 *   IDLE --the handshake's last send is back--> OPEN --end received--> ENDING (what is held is still to be sent)
 *   --all sent, SHUT_WR--> DONE; both DONE: orderly close. An error on either side resets both; but if that side has
 * ended before, what it sent is delivered first: the opposite flow is LOST, and when the first one is DONE the session
 * goes to PARTING. */
#ifndef SLUICE_CORE_SESSION_RELAY_H
#define SLUICE_CORE_SESSION_RELAY_H

#include "core/session/session.h"

enum flow_phase {
    FLOW_IDLE,   /* has not begun */
    FLOW_OPEN,   /* its source may have more */
    FLOW_ENDING, /* its source has ended; what is held is still to be sent */
    FLOW_DONE,   /* all is sent */
    FLOW_LOST,   /* its sink is gone, and what its source still sends is lost */
};
enum flow_mode { FLOW_COPY, FLOW_SPLICE };
enum flow_flag {
    FLOW_TURNING = 1 << 0,   /* to SPLICE as soon as the receive has ended and all held buffers are sent */
    FLOW_PAUSED = 1 << 1,    /* the receive was cancelled because too much is held */
    FLOW_STARVED = 1 << 2,   /* waits for the buffer group to fill up */
    FLOW_COPY_ONLY = 1 << 3, /* the kernel cannot splice here */
    FLOW_PATIENT = 1 << 4,   /* there was no pipe the last time */
    FLOW_SINGLE = 1 << 5,    /* receives one buffer at a time: its sink was slow */
    FLOW_INTERNAL = 1 << 6,  /* the coordinator's own: not counted as traffic */
    FLOW_WRITABLE = 1 << 7,  /* the poll of the sink has just said so */
    FLOW_WAITED = 1 << 8,    /* SINGLE: had to wait for the sink since the last buffer was sent */
    FLOW_PROVEN = 1 << 9,    /* its end was an orderly one, see relay_prove_end() */
    FLOW_RESTING = 1 << 10,  /* deferred, or its time has not come yet */
};

/* The session has entered RELAY. The octets of the setup slot go first (`out` to the client, the rest of `head` to the
 * upstream); the slot is given back as soon as buffers hold them. */
void relay_begin(struct worker *w, struct session *s);
void relay_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c);
void relay_on_timer(struct worker *w, struct session *s);
/* The one function that runs a flow: looks at what is held and in flight, and starts what is missing. */
void relay_advance(struct worker *w, struct session *s, enum session_side from);
/* Microseconds until the first resting flow goes on; UINT64_MAX: none rests. */
uint64_t relay_rest_us(const struct worker *w);
/* Flows that were deferred, and those whose time has come, go on in the order of their coming as far as this turn's
 * work allows. */
void relay_wake_resting(struct worker *w);
/* Gives back the flows' pipes; for session_close(). */
void relay_drop(struct worker *w, struct session *s);
/* Gives back the held buffers, when no send can be reading them any more. */
void relay_release(struct worker *w, struct session *s);

#endif
