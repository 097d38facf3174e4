/* Where a session goes: the target itself, the chain of -x, or what the ruleset says.
 *
 *   no ruleset                    the verdict is made here             > dial
 *   a verdict that holds still    the same (verdicts.h)                > dial
 *   a ruleset                     > LOGIN, ROUTE: the coordinator has the question > what the verdict says */
#ifndef SLUICE_CORE_SESSION_ROUTE_H
#define SLUICE_CORE_SESSION_ROUTE_H

#include "core/session/session.h"

/* The request is known, its target stands in the setup slot: ROUTE, or what dialling begins with. */
enum session_state route_begin(struct worker *w, struct session *s);
/* ROUTE: something of the attempt before is in flight. */
bool route_must_wait(const struct session *s);
/* ROUTE: another member of a group is due (setup.upstream.again), and nothing is in flight: begins with it. */
enum session_state route_again(struct worker *w, struct session *s);
enum session_state route_step(struct worker *w, struct session *s);
/* Does what the verdict in the setup slot says. */
enum session_state route_obey(struct worker *w, struct session *s);
/* LOGIN, ROUTE: posts the question that is due (setup.asking), if that can be done now. session_proceed() calls this
 * whenever such a state has been entered, or a step has left the question due; the timer calls it, too. */
void route_ask(struct worker *w, struct session *s);

/* Whether clients must give user and password: by the settings, or by the word of the ruleset that is in force. */
bool route_wants_credentials(const struct worker *w);
/* Whether somebody has checked, or is about to check, who the client is. */
bool route_knows_client(const struct worker *w, const struct session *s);
/* SOCKS5: user and password are accepted. */
enum session_state route_admit(struct worker *w, struct session *s);
/* SOCKS5: user and password have come, the target has not: LOGIN, or what their judgement leads to. */
enum session_state route_login(struct worker *w, struct session *s);
enum session_state route_login_step(struct worker *w, struct session *s);

#endif
