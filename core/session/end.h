/* How a session ends, from whatever state: stop (cancel and close), join (wait until nothing is in flight), release
 * (give the slots back). */
#ifndef SLUICE_CORE_SESSION_END_H
#define SLUICE_CORE_SESSION_END_H

#include "core/session/session.h"

enum session_end { SESSION_ORDERLY, SESSION_RESET };

/* Counts and logs the failure, drops the upstream, queues the protocol's refusal. The next state: REPLY or CLOSING. */
enum session_state session_fail(struct worker *w, struct session *s, enum failure failure);
/* What ends a session without an answer, or behind its answer: counted, and what the access log tells, if it is the
 * first cause and anything was under way. */
void session_blame(struct worker *w, struct session *s, enum failure cause);
/* Stop: cancels and closes all, then CLOSING; the slot is released here if nothing is in flight. */
void session_close(struct worker *w, struct session *s, enum session_end end);
/* A CLOSING session: released if nothing is in flight any more. */
void session_join(struct worker *w, struct session *s);
/* Closes one side's descriptor, cancelling what is in flight on it. */
void session_drop_side(struct worker *w, struct session *s, enum session_side side, enum session_end end);
/* Gives the setup slot back; what is shown of the session is kept as its label. */
void session_release_setup(struct worker *w, struct session *s);

#endif
