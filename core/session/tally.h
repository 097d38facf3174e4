/* Who moves how much, whether a limit bounds it or not: each user, and each rule of the ruleset.
 *
 *   workers: counters of their own, by the user's place in a table of names and by the rule's tag --read--> coordinator
 *
 * A session is counted from its verdict until it leaves its limits (limited.h), the next request of a client again. No
 * word is written by two threads, and nothing is asked of them: who wants to know sums up (core/control/tallying). The
 * table of names is a table of keys without terms (keys.h), which workers fill without a lock. It is bounded: who finds
 * no place in it is served as everybody is, and counted as missed. */
#ifndef SLUICE_CORE_SESSION_TALLY_H
#define SLUICE_CORE_SESSION_TALLY_H

#include "core/io/counter.h"
#include "core/session/session.h"

#define TALLY_USERS 16384u /* names; those that nobody has proven fill three quarters at most */
#define TALLY_RULES 4096u  /* tags, from 1 on: as many as there may be */

struct tally_count {
    counter octets[2];   /* delivered up and down */
    counter connections; /* at the moment */
};

/* A worker's; it may have none, and then counts nobody. */
struct tally {
    struct keys *users; /* of the process: whose place `user_counts` goes by */
    struct tally_count *user_counts, *rule_counts;
    uint64_t full_until_us; /* the table had no room: nobody asks it before then */
    counter missed;         /* requests whose user found no place */
};

/* From now on it counts under its user and its rule, and under no others. proven: somebody has checked who it is. */
void tally_begin(struct worker *w, struct session *s, bool proven);
/* It does no longer; its user's place is kept for its next request. */
void tally_end(struct worker *w, struct session *s);
void tally_release(struct worker *w, struct session *s); /* it ends */

static inline void tally_count(struct worker *w, const struct session *s, enum session_side from, uint64_t octets)
{
    if (!s->tallied) return;
    if (s->tally_user != KEYS_NONE) counter_add(&w->tally->user_counts[s->tally_user].octets[from], octets);
    if (s->tally_rule > 0) counter_add(&w->tally->rule_counts[s->tally_rule].octets[from], octets);
}

#endif
