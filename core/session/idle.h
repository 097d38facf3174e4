/* Between two plain HTTP requests of a client whose connection goes on (RFC 9112 section 9.3). The session holds its
 * descriptor alone: no setup slot, exchange, buffer or upstream. It ends when the client does, when nothing comes for
 * --timeout or --idle-timeout, whichever is less, and at a stop. */
#ifndef SLUICE_CORE_SESSION_IDLE_H
#define SLUICE_CORE_SESSION_IDLE_H

#include "core/session/session.h"

/* The response is delivered, nothing is in flight but the watch of the client. What the client sent behind its request
 * stands at the front of the setup slot's head: HELLO if there is something, else IDLE. */
void idle_begin(struct worker *w, struct session *s);
void idle_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c);
void idle_on_timer(struct worker *w, struct session *s);

#endif
