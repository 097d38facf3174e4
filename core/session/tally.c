#include "core/session/tally.h"

#include <assert.h>
#include <string.h>

#include "core/session/worker.h"

/* A table that is full is asked again after so long: it looks at many places before it says so. */
#define FULL_US 1000000u

static bool read_user(const struct worker *w, const struct session *s, struct limit_key *key)
{
    const struct credentials *credentials = &setup_of(w, s)->credentials;
    if (!credentials->present || !credentials->user[0]) return false;
    limit_key_text(LIMIT_USER, credentials->user, strlen(credentials->user), key);
    return true;
}

static void release_user(struct worker *w, struct session *s)
{
    if (s->tally_user != KEYS_NONE) keys_release(w->tally->users, s->tally_user);
    s->tally_user = KEYS_NONE;
}

/* The one that it has had is looked at first: the requests of a connection are one user's nearly always. */
static void hold_user(struct worker *w, struct session *s, bool proven)
{
    struct tally *tally = w->tally;
    struct limit_key key;
    uint64_t now = ring_now_us(w->ring);
    bool any = read_user(w, s, &key);
    if (any && s->tally_user != KEYS_NONE && limit_key_equal(keys_key(tally->users, s->tally_user), &key)) return;
    release_user(w, s);
    if (!any) return;
    if (now >= tally->full_until_us && keys_hold(tally->users, &key, !proven, now, &s->tally_user) == KEYS_FOUND)
        return;
    if (now >= tally->full_until_us) tally->full_until_us = now + FULL_US;
    s->tally_user = KEYS_NONE;
    counter_add(&tally->missed, 1);
}

/* One connection more, or one less. */
static void count_connection(struct worker *w, const struct session *s, void (*count)(counter *c, uint64_t amount))
{
    if (s->tally_user != KEYS_NONE) count(&w->tally->user_counts[s->tally_user].connections, 1);
    if (s->tally_rule > 0) count(&w->tally->rule_counts[s->tally_rule].connections, 1);
}

void tally_begin(struct worker *w, struct session *s, bool proven)
{
    if (!w->tally) return;
    tally_end(w, s);
    hold_user(w, s, proven);
    s->tally_rule = s->rule <= TALLY_RULES ? s->rule : 0;
    s->tallied = true;
    count_connection(w, s, counter_add);
}

void tally_end(struct worker *w, struct session *s)
{
    if (!s->tallied) return;
    count_connection(w, s, counter_subtract);
    s->tallied = false;
    s->tally_rule = 0;
}

void tally_release(struct worker *w, struct session *s)
{
    if (!w->tally) return;
    tally_end(w, s);
    release_user(w, s);
}
