/* The table of states and steps, and the functions that run it: the only file that knows everything that a session can
 * do. Completions come in at session_on_completion() and run steps until one waits again. */
#ifndef SLUICE_CORE_SESSION_STEPS_H
#define SLUICE_CORE_SESSION_STEPS_H

#include "core/session/session.h"

/* A connection was accepted: takes ownership of fd. The caller has seen that there is room. source: of
 * newcomer_admits(). */
void session_open(struct worker *w, unsigned listener, int fd, const struct host_port *client, uint32_t source);
/* The same of a proxy's, whose header is to say who the client is (origin.h). */
void session_open_behind(struct worker *w, unsigned listener, int fd, const struct host_port *proxy);
void session_on_completion(struct worker *w, const struct ring_completion *c);
/* A request that was lent is back. */
void session_on_answer(struct worker *w, const struct message *answer);
void session_on_timer(struct worker *w, uint32_t slot);

#endif
