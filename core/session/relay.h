/* A relay: two flows without a limit, half-close, and the time in which nothing moves.
 *
 *   a flow is DONE: SHUT_WR towards its sink; both DONE: orderly close. An error on either side resets both; but if
 * that side has ended before, what it sent is delivered first: the opposite flow is LOST, and when the first one is
 * DONE the session goes to PARTING. */
#ifndef SLUICE_CORE_SESSION_RELAY_H
#define SLUICE_CORE_SESSION_RELAY_H

#include "core/session/session.h"

/* The session has entered RELAY. The octets of the setup slot go first (`out` to the client, the rest of `head` to the
 * upstream); the slot is given back as soon as buffers hold them. */
void relay_begin(struct worker *w, struct session *s);
void relay_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c);
void relay_on_timer(struct worker *w, struct session *s);

#endif
