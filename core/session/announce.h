/* Tells the upstream who the client is: a PROXY header in front of all other octets, where the listener (--send-proxy)
 * or the verdict says so.
 *
 *   dial, hop > ANNOUNCE: the header is being sent > established
 *
 * Behind a chain it goes to the target, through the chain. A connection that has begun so is its client's alone: it
 * never waits for another request (conn_cache.h). */
#ifndef SLUICE_CORE_SESSION_ANNOUNCE_H
#define SLUICE_CORE_SESSION_ANNOUNCE_H

#include "core/session/session.h"

/* The way to the target stands: sends the header and enters ANNOUNCE; where none is wanted, what established_begin()
 * leads to. */
enum session_state announce_begin(struct worker *w, struct session *s);
enum session_state announce_step(struct worker *w, struct session *s);
/* The version of the header that the session's target gets; 0: none. The verdict is there. */
unsigned announce_version(const struct worker *w, const struct session *s);

#endif
