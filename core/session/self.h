/* Keeps sessions from connecting to this process itself: applies the doors and the notes of own.h to a session.
 *
 * A target is the operator's word if the operator has named it: -f, -x, a call of a script, proxies of a chain, a
 * verdict of a ruleset that changes both host and port. What a client has chosen, or has had a part in choosing, must
 * not be a door of ours. And whatever was said, a connection that comes back to a listener that it has already passed
 * is a circle, and ends. */
#ifndef SLUICE_CORE_SESSION_SELF_H
#define SLUICE_CORE_SESSION_SELF_H

#include "core/session/failure.h"
#include "core/session/session.h"
#include "protocols/address.h"

struct worker;

/* Whether this address, about to be dialled for the session, is one that it must not reach: FAIL_SELF, FAIL_LOOP (a
 * listener that it has passed), else FAIL_NONE. */
enum failure self_forbids(const struct worker *w, const struct session *s, const struct address *to);
/* The same for the target that a chain is about to be asked for: what the last proxy takes for this machine is known
 * only if that proxy runs here. Asked before dialling, and again when the first proxy is reached. */
enum failure self_forbids_behind_chain(const struct worker *w, const struct session *s);
/* Whether the session's client is a connection of ours that has passed the same listener before. Else the session
 * learns from it what it has passed. */
bool self_came_back(const struct worker *w, struct session *s);
/* Whether a connection to this address should be begun by net_connect(), so that it is noted before it can come back.
 */
bool self_may_return(const struct worker *w, const struct session *s, const struct address *to);
/* It has begun: `fd` has a local address. The note is the session's, until the next one or self_forget(). */
void self_note(const struct worker *w, struct session *s, int fd, const struct address *to);
void self_forget(const struct worker *w, struct session *s);

#endif
