/* Shares the slots for handshakes among sources, so that one source cannot take all of them and keep everybody else out
 * until its connections time out.
 *
 * A source may have as many handshakes under way as there are slots left: then one alone gets half of all, n of them
 * get a part of n+1 each, and there is always room for somebody new (dynamic thresholds, Choudhury and Hahne 1998). Up
 * to CROWD_FLOOR on a worker are always allowed. As long as fewer are under way in all than are free, none can have
 * more than its share, so that nobody is counted: the normal case costs one comparison. share.h says what a source is,
 * and bounds what established sessions hold. */
#ifndef SLUICE_CORE_SESSION_CROWD_H
#define SLUICE_CORE_SESSION_CROWD_H

#include <stdbool.h>
#include <stdint.h>

struct worker;
struct crowd;
struct host_port;

#define CROWD_FLOOR 64u

/* For a worker's pool of `setups` slots. 0 or -ENOMEM. */
int crowd_open(struct crowd **out, uint32_t setups);
void crowd_close(struct crowd *crowd);
/* Whether this client may begin a handshake; `sessions_left`: of the process. Logged once in a
 * while when it may not. */
bool crowd_admits(struct worker *w, const struct host_port *client, uint64_t sessions_left);
/* The connection that crowd_admits() was asked about last has got this setup slot; the slot is given back. */
void crowd_take(struct worker *w, uint32_t setup);
void crowd_give(struct worker *w, uint32_t setup);

#endif
