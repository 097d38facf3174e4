/* Sessions under limits: which keys a session is under, whether it may come, and octets before they move.
 *
 * A session comes under a limit when its request is known: first under those that need no verdict (source, listener,
 * target, total), so that whoever is over them costs no decision; then under that of its user and those that the
 * ruleset gives it. It leaves them when it ends, or with its request, where a client's connection goes on. A session is
 * under KEYS_PER_SESSION limits at most; each bounds it by itself. */
#ifndef SLUICE_CORE_SESSION_LIMITED_H
#define SLUICE_CORE_SESSION_LIMITED_H

#include "core/session/session.h"

/* Puts it under the limits of its client. FAIL_NONE; or why it is refused: then it is under none. */
enum failure limited_admit_client(struct worker *w, struct session *s);
/* The same for its user (proven: somebody has checked who it is) and what the verdict names; refused, it is still under
 * those that it was under before. May be called again for another verdict on the same request (await.forward): limits
 * that it is under already count once, and it leaves those that only the earlier verdict named. */
enum failure limited_admit_request(struct worker *w, struct session *s, bool proven, const uint64_t *named,
                                   uint8_t named_count);
/* For an association: the limits that the verdict on another target of it names, beside those that it is under. */
enum failure limited_admit_more(struct worker *w, struct session *s, const uint64_t *named, uint8_t named_count);
/* Whether all of them are still there: of a verdict that was remembered. */
bool limited_knows(struct worker *w, const uint64_t *named, uint8_t named_count);
/* What the flow has taken and not delivered is given back: nothing of it is in flight any more, see flow_sends(). */
void limited_refund(struct worker *w, struct session *s, enum session_side from);
/* Its request is over, and nothing of it is in flight. What was taken and not delivered is given back. */
void limited_leave(struct worker *w, struct session *s);

/* --- octets, of who is under a limit --- */

static inline bool limited_is(const struct session *s)
{
    return s->limit_count > 0;
}

#define LIMITED_SPENT UINT64_MAX

/* Octets that the flow may move now, at most `wanted`: limited_settle() follows when they have moved. 0: it asks again
 * at *again_us, and is in line until then; LIMITED_SPENT: a quota has none left. */
uint32_t limited_take(struct worker *w, struct session *s, enum session_side from, uint32_t wanted, uint64_t *again_us);
/* When to wake a flow that is to ask again at `again_us`: flows whose turns come near each other are woken together,
 * LIMIT_LATE_US later at most. */
uint64_t limited_wake_us(const struct worker *w, const struct session *s, enum session_side from, uint64_t again_us);
/* So many of them have moved; the rest is given back. */
void limited_settle(struct worker *w, struct session *s, enum session_side from, uint32_t moved);
/* The flow waits no more. What it has taken is still to be settled. */
void limited_forget(struct worker *w, struct session *s, enum session_side from);
/* The flow is in line for octets. */
bool limited_waits(const struct session *s, enum session_side from);
/* What it is in line for is void, because a limit has changed: it should ask at once. */
bool limited_is_stale(struct worker *w, const struct session *s, enum session_side from);

enum limited_passage { LIMITED_PASSES, LIMITED_DROPPED, LIMITED_OVER };
/* A datagram, which moves as a whole or not at all: at once, for nobody holds its sender back. LIMITED_OVER: a quota is
 * spent. */
enum limited_passage limited_pass(struct worker *w, struct session *s, enum session_side from, uint32_t octets);
/* It passed, and could not be sent. */
void limited_return(struct worker *w, struct session *s, enum session_side from, uint32_t octets);
/* Octets are delivered: also of a session that no limit bounds, for the tally. */
void limited_count(struct worker *w, struct session *s, enum session_side from, uint64_t octets);

#endif
