/* User and password against the users of a listener (--users), before anybody else is asked.
 *
 *   a pair that this worker has seen verified    known here at once                    > what the listener asks next
 *   any other                                    > VERIFY: lent to the checkers        > the same, or a refusal
 *
 * What a worker remembers of a pair is a keyed hash, and for which era of the store it holds: a change of any user of
 * that store ends the era. The pair is then asked for once more; whether it costs another slow hash the checkers
 * decide, who know whether that user has changed (core/control/checkers.h). The password is wiped here as soon as it
 * has been judged, so that nobody behind sees it: a ruleset gets the name alone. */
#ifndef SLUICE_CORE_SESSION_VERIFY_H
#define SLUICE_CORE_SESSION_VERIFY_H

#include "core/session/session.h"

/* Its label. */
const char *password_outcome_name(enum password_outcome outcome);

/* Whether clients of the session's listener must be among its users. */
bool verify_is_due(const struct worker *w, const struct session *s);
/* The credentials are whole. True: this worker has seen them verified; the password is wiped. */
bool verify_knows(struct worker *w, struct session *s);
/* Otherwise: VERIFY. */
enum session_state verify_begin(struct worker *w, struct session *s);
/* VERIFY: the answer is there. FAIL_NONE, or why the client is refused; the password is wiped. */
enum failure verify_finish(struct worker *w, struct session *s);

#endif
