/* A refusal on its way: REPLY while it is being sent, LINGER while the client may still read it. */
#ifndef SLUICE_CORE_SESSION_LINGER_H
#define SLUICE_CORE_SESSION_LINGER_H

#include "core/session/session.h"

enum session_state linger_reply_step(struct worker *w, struct session *s);
enum session_state linger_step(struct worker *w, struct session *s);
void linger_on_timer(struct worker *w, struct session *s); /* LINGER */

#endif
