/* What a session keeps of a flow; flow.h has what it does. */
#ifndef SLUICE_CORE_SESSION_FLOW_STATE_H
#define SLUICE_CORE_SESSION_FLOW_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/buffers.h"
#include "core/io/list.h"
#include "core/session/flow_pace.h"
#include "core/session/keys.h"

enum flow_phase {
    FLOW_IDLE,   /* has not begun */
    FLOW_OPEN,   /* its source may have more */
    FLOW_ENDING, /* its source has ended, or its limit is reached; what is held is still to be sent */
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
    FLOW_RESTING = 1 << 9,   /* deferred, or its time has not come yet */
    FLOW_SLOW = 1 << 10,     /* SPLICE: its sink took less than was there, a short while ago */
    FLOW_CUT = 1 << 11,      /* moved all that its limits let it: more may be there */
    FLOW_READABLE = 1 << 12, /* COPY, under a limit: its source is known to have something */
    FLOW_DRY = 1 << 13,      /* the same: its source had less than was asked for the last time */
    FLOW_GATHERS = 1 << 14,  /* more of what was received may come in this turn: it is sent at its end */
    FLOW_VAIN = 1 << 15,     /* SPLICE: it was woken the last time and got nothing, though something was there */
};

#define FLOW_UNLIMITED UINT64_MAX

struct flow_owner;

/* Octets that a flow has booked with its limits, see limited.h; 0: none. */
struct limit_ticket {
    uint64_t due_us;
    uint32_t octets;
    bool waits;                          /* counted as waiting */
    bool ahead;                          /* what was granted last moves in front of those that wait */
    uint16_t versions[KEYS_PER_SESSION]; /* of the limits that it was booked with: in one that has changed it is void */
};

/* What moves in one direction, see flow.h; flows[CLIENT] is upstream-bound: a flow is named by the side that it reads
 * from. */
struct flow {
    uint8_t phase;  /* enum flow_phase, flow.h */
    uint8_t mode;   /* enum flow_mode */
    uint8_t streak; /* reads in a row that speak for the other mode */
    uint8_t prompt; /* SINGLE: sends in a row that left nothing held; SLOW: visits that did not wait for the sink */
    uint16_t flags; /* enum flow_flag */
    uint16_t pipe;  /* borrowed, or PIPES_NONE */
    struct buffer_list held;
    uint8_t gathered; /* COPY: held buffers that the send in flight has, from the first one on */
    const struct flow_owner *owner;
    uint64_t limit;       /* octets that it may still take from its source; FLOW_UNLIMITED */
    const uint8_t *early; /* octets in memory that come before the socket's */
    uint32_t early_left;  /* of them not held yet */
    uint32_t own;         /* octets at the front that are our own reply: no traffic */
    uint32_t own_early;   /* of them not held yet */
    uint32_t sending;     /* octets of the send that is in flight, of traffic and of our own reply; 0: none is */
    uint32_t pipe_fill;   /* octets in the pipe */
    uint32_t room;        /* SPLICE: octets that the sink is known to take */
    uint64_t visit;       /* SPLICE: octets moved since the source was last dry */
    struct flow_pace pace;
    uint64_t bytes;      /* delivered */
    uint32_t granted;    /* octets that its limits let move now: an operation is under way, or has just been */
    uint32_t granted_at; /* the hour in which they were taken, see limited.c */
    uint64_t taken;      /* octets of limits that it has used: those that are delivered, and those on their way */
    struct limit_ticket ticket;
    struct link link; /* on the worker's list of starved or of deferred flows, or on none */
};

static inline bool flow_is_open(const struct flow *f)
{
    return f->phase == FLOW_OPEN || f->phase == FLOW_ENDING;
}

#endif
