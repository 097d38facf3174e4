/* When a flow in SPLICE whose source is dry is looked at again.
 *
 * A poll of a busy source wakes us for every few segments, and each wake-up of ours causes some of the sink's. So a
 * flow that streams is left alone, without a poll, until about `gather` octets have come at its own rate, or
 * FLOW_PACE_US_MAX are over. Two things must not wait:
 *
 *   a message that the other side answers: a rest is worth an eighth at most of what has moved since something last
 *   moved the other way;
 *   the sender: what gathers is a quarter of the source's receive buffer at most, so that its window stays open. */
#ifndef SLUICE_CORE_SESSION_FLOW_PACE_H
#define SLUICE_CORE_SESSION_FLOW_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define FLOW_PACE_US_MAX 600u
#define FLOW_PACE_US_MIN 40u /* to go to sleep and to be woken takes some ten of them */
/* Less than this share of `gather` is not worth the wait. */
#define FLOW_PACE_LEAST_SHARE 32u

struct flow_pace {
    uint32_t gather;     /* octets that may come during a rest */
    uint32_t visited_us; /* the low half of the time of the last visit */
    uint32_t back;       /* the low half of what had moved the other way by then */
    uint32_t run;        /* octets since something last moved the other way; stops at UINT32_MAX */
    uint32_t window;     /* octets of the source's receive buffer */
    uint8_t visits;      /* since it was asked for */
};

/* A flow that begins to splice, at `now_us`, when `back` octets have moved the other way. `gather`: as much as its pipe
 * takes. */
void flow_pace_begin(struct flow_pace *p, uint32_t gather, uint64_t back, uint64_t now_us);
/* Whether `window` is to be asked for again: a kernel changes the buffer's size while octets move. */
bool flow_pace_window_is_old(const struct flow_pace *p);
void flow_pace_set_window(struct flow_pace *p, uint32_t octets);
/* The source is dry, and `moved` octets have moved since the last visit; `back` as above. Microseconds for which the
 * flow is left alone; 0: poll its source now. */
uint32_t flow_pace_visit(struct flow_pace *p, uint64_t moved, uint64_t back, uint64_t now_us);

#endif
