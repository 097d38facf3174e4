/* The end of an established session that ended in order: everything is sent and our sides are shut, but a peer has not
 * acknowledged it all. Closed now, its socket would be an orphan, which the kernel drops when memory or patience runs
 * short, together with the octets in it.
 *
 *   RELAY, EXCHANGE --all sent, something unacknowledged--> PARTING --acknowledged, or its time is over--> CLOSING
 *
 * A side whose own end has not been received is read and what comes is thrown away, since closing with octets unread is
 * a reset: it gets two seconds to end. The session holds neither setup slot nor exchange nor buffer meanwhile. */
#ifndef SLUICE_CORE_SESSION_PARTING_H
#define SLUICE_CORE_SESSION_PARTING_H

#include "core/session/session.h"

/* Both directions of a relay have ended, `last` being the side whose end is not announced yet: closes the session, now
 * if everything is acknowledged. Or the flow from `last` is LOST, since the other side has gone after its own end: then
 * `last` gets all that this one sent, and is reset if it had sent something that nobody has got. */
void parting_end_relay(struct worker *w, struct session *s, enum session_side last);
/* The response of an exchange is sent: the same for the client alone. */
void parting_end_exchange(struct worker *w, struct session *s);
/* Neither direction is complete, and no more of either is moved: `failure` is counted and logged. What the kernel has
 * is still delivered, then both sides are reset. The setup slot of a relay has been given back. */
void parting_cut(struct worker *w, struct session *s, enum failure failure);
void parting_on_completion(struct worker *w, struct session *s);
void parting_on_timer(struct worker *w, struct session *s);

#endif
