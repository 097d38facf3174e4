/* A session whose verdict names a group (group.h): the member that takes the group's place in it, what it has proven
 * of itself, and another one after it.
 *
 *   verdict with group:NAME > upstream_choose() > dial > hop > upstream_connected()
 *                              ^                   \      \
 *                              `-- ROUTE (again) <-- upstream_moves_on(): the member is judged
 *
 * Another member is tried while nothing of the client's has been delivered: up to the success reply. A member is to
 * blame that cannot be reached, does not accept our user and password, is silent, or answers what its protocol does not
 * know. One that answers as it should is not, whatever it says of the target: clients choose targets. A try that is
 * over has left its member, so that each is blamed once at most. */
#ifndef SLUICE_CORE_SESSION_UPSTREAM_H
#define SLUICE_CORE_SESSION_UPSTREAM_H

#include "core/session/session.h"

/* Puts a member into the verdict, if a group stands there. FAIL_NONE; or FAIL_NO_UPSTREAM, and behind a try the failure
 * of that one. */
enum failure upstream_choose(struct worker *w, struct session *s);
/* A verdict that is new: nothing has been tried. */
void upstream_begin(struct setup *setup);
/* The session's attempt has failed. Judges the member, which it leaves. True: another one may be tried. */
bool upstream_moves_on(struct worker *w, struct session *s, enum failure failure);
/* The upstream stands. */
void upstream_connected(struct worker *w, struct session *s);
/* When the member must have answered, ring_now_ms(); UINT64_MAX: nothing waits for a member alone. */
uint64_t upstream_deadline_ms(const struct worker *w, const struct session *s);
/* It needs its member no more. */
void upstream_leave(struct session *s);

/* What the end of a try says. Pure. */
struct upstream_judgement {
    bool blame; /* the member failed */
    bool clear; /* the member did what it should */
    bool retry; /* another one may do better */
};
struct upstream_judgement upstream_judge(const struct session *s, const struct setup *setup, enum failure failure);

#endif
