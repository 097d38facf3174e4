/* Connects to the upstream: all addresses of a name in RFC 8305 order, 250 ms apart or as soon as one has failed; the
 * first that answers wins. With a chain it is the first proxy that is dialled, and hop.c takes over. */
#ifndef SLUICE_CORE_SESSION_DIAL_H
#define SLUICE_CORE_SESSION_DIAL_H

#include "core/session/session.h"

/* Begins to dial the verdict's target or its chain's first proxy: RESOLVE, DIAL, or a failure's state. */
enum session_state dial_begin(struct worker *w, struct session *s);
enum session_state dial_resolve_step(struct worker *w, struct session *s); /* the resolver has answered: s->result */
enum session_state dial_step(struct worker *w, struct session *s);    /* an attempt has completed: s->op, s->result */
enum session_state dial_on_time(struct worker *w, struct session *s); /* the stagger has passed */
/* The session's time is over: nobody has answered. */
void dial_note_timeout(struct worker *w, const struct session *s);
/* Cancels and closes all attempts. */
void dial_abandon(struct worker *w, struct session *s);

#endif
