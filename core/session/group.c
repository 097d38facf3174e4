#include "core/session/group.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/hash.h"

#define load(place)         atomic_load_explicit(&(place), memory_order_relaxed)
#define store(place, value) atomic_store_explicit(&(place), (value), memory_order_relaxed)
#define count(place)        atomic_fetch_add_explicit(&(place), 1, memory_order_relaxed)

struct upstream_group *groups_find(const struct upstream_groups *groups, const char *name)
{
    for (uint32_t i = 0; groups && i < groups->count; i++)
        if (strcmp(groups->all[i]->name, name) == 0) return groups->all[i];
    return NULL;
}

struct group_member *member_hold(struct group_member *member)
{
    count(member->holders);
    return member;
}

void member_release(struct group_member *member)
{
    uint32_t before = atomic_fetch_sub_explicit(&member->holders, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before > 1) return;
    explicit_bzero(&member->uri.credentials, sizeof member->uri.credentials);
    free(member);
}

/* --- verdicts --- */

enum member_passive member_passive(const struct group_member *member, uint64_t now_ms)
{
    uint64_t until_ms = load(member->out_until_ms);
    if (until_ms == 0) return MEMBER_IN;
    return now_ms < until_ms ? MEMBER_OUT : MEMBER_TRIAL;
}

uint8_t seat_rank(const struct seat *seat, uint64_t now_ms)
{
    const struct group_member *member = seat->member;
    uint8_t checked = load(member->checked), rank = seat->backup;
    if (load(member->order) != MEMBER_UP || checked == MEMBER_CHECKED_DOWN) return SEAT_NEVER;
    if (seat->most > 0 && load(member->sessions) >= seat->most) return SEAT_NEVER;
    enum member_passive passive = member_passive(member, now_ms);
    if (passive == MEMBER_OUT || (passive == MEMBER_TRIAL && load(member->tried)))
        rank += 4;
    else if (checked == MEMBER_CHECKED_UNKNOWN)
        rank += 2;
    return rank;
}

static void member_eject(struct group_member *member, const struct upstream_group *group, uint64_t now_ms)
{
    uint32_t times = count(member->times_out);
    uint32_t doublings = times < MEMBER_EJECT_DOUBLINGS ? times : MEMBER_EJECT_DOUBLINGS;
    count(member->ejected);
    store(member->out_until_ms, now_ms + ((uint64_t)group->eject_ms << doublings));
}

/* Workers may be here at the same time: a failure more or less, but never one that is older than the window. */
bool member_blame(struct group_member *member, const struct upstream_group *group, uint64_t now_ms, uint8_t failure,
                  bool trial)
{
    count(member->failed);
    store(member->last_failure, failure);
    if (group->fails == 0) return false;
    enum member_passive passive = member_passive(member, now_ms);
    if (trial) {
        member_eject(member, group, now_ms);
        return true;
    }
    uint32_t nth = count(member->failures);
    store(member->failed_ms[nth % GROUP_FAILS_MAX], now_ms);
    if (passive != MEMBER_IN || nth + 1 < group->fails) return false;
    uint64_t first_ms = load(member->failed_ms[(nth + 1 - group->fails) % GROUP_FAILS_MAX]);
    if (first_ms + group->window_ms < now_ms) return false;
    member_eject(member, group, now_ms);
    return true;
}

/* Most members are as they should be, and nothing is written then. */
bool member_clear(struct group_member *member)
{
    if (load(member->failures) > 0) store(member->failures, 0);
    if (load(member->times_out) > 0) store(member->times_out, 0);
    return load(member->out_until_ms) > 0 &&
           atomic_exchange_explicit(&member->out_until_ms, 0, memory_order_relaxed) > 0;
}

uint64_t member_out_until_ms(const struct group_member *member)
{
    return load(member->out_until_ms);
}

bool member_on_check(struct group_member *member, const struct upstream_group *group, bool passed, uint8_t failure,
                     int *streak)
{
    uint8_t now = load(member->checked), next = now;
    if (passed)
        count(member->checks_passed);
    else
        count(member->checks_failed);
    if (!passed) store(member->last_failure, failure);
    if (passed)
        *streak = *streak > 0 ? *streak + 1 : 1;
    else
        *streak = *streak < 0 ? *streak - 1 : -1;
    /* The first one decides by itself: nobody knows better. */
    if (now == MEMBER_CHECKED_UNKNOWN) next = passed ? MEMBER_CHECKED_UP : MEMBER_CHECKED_DOWN;
    if (now == MEMBER_CHECKED_DOWN && *streak >= (int)group->rise) next = MEMBER_CHECKED_UP;
    if (now == MEMBER_CHECKED_UP && *streak <= -(int)group->fall) next = MEMBER_CHECKED_DOWN;
    if (next == now) return false;
    if (now == MEMBER_CHECKED_DOWN) member_clear(member);
    store(member->checked, next);
    return true;
}

/* --- for people --- */

const char *member_state_name(enum member_state state)
{
    static const char *const names[MEMBER_STATES] = {
        [MEMBER_STATE_UP] = "up",
        [MEMBER_STATE_DOWN] = "down",
        [MEMBER_STATE_UNKNOWN] = "unknown",
        [MEMBER_STATE_OUT] = "out",
        [MEMBER_STATE_TRIAL] = "trial",
        [MEMBER_STATE_DRAINED] = "drained",
        [MEMBER_STATE_ORDERED_DOWN] = "ordered_down",
    };
    assert(state < MEMBER_STATES);
    return names[state];
}

static enum member_state view_state(const struct member_view *view)
{
    if (view->order == MEMBER_DOWN) return MEMBER_STATE_ORDERED_DOWN;
    if (view->order == MEMBER_DRAIN) return MEMBER_STATE_DRAINED;
    if (view->checked == MEMBER_CHECKED_DOWN) return MEMBER_STATE_DOWN;
    if (view->passive == MEMBER_OUT) return MEMBER_STATE_OUT;
    if (view->passive == MEMBER_TRIAL) return MEMBER_STATE_TRIAL;
    return view->checked == MEMBER_CHECKED_UNKNOWN ? MEMBER_STATE_UNKNOWN : MEMBER_STATE_UP;
}

void seat_look(const struct seat *seat, uint64_t now_ms, struct member_view *out)
{
    const struct group_member *member = seat->member;
    uint64_t until_ms = member_out_until_ms(member);
    *out = (struct member_view){.order = (enum member_order)load(member->order),
                                .checked = (enum member_checked)load(member->checked),
                                .passive = member_passive(member, now_ms),
                                .out_ms = until_ms > now_ms ? until_ms - now_ms : 0,
                                .sessions = load(member->sessions),
                                .chosen = load(member->chosen),
                                .connected = load(member->connected),
                                .failed = load(member->failed),
                                .ejected = load(member->ejected),
                                .checks_passed = load(member->checks_passed),
                                .checks_failed = load(member->checks_failed),
                                .last_failure = load(member->last_failure)};
    out->state = view_state(out);
}

/* --- choosing --- */

static int pick_round(const struct seat_view *views, unsigned seats, uint8_t rank, uint32_t turn)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < seats; i++) sum += views[i].rank == rank ? views[i].weight : 0;
    if (sum == 0) return -1; /* the caller has seen one of that rank */
    uint32_t at = turn % sum;
    for (unsigned i = 0; i < seats; i++) {
        if (views[i].rank != rank) continue;
        if (at < views[i].weight) return (int)i;
        at -= views[i].weight;
    }
    return -1;
}

/* Begins at another seat each time, so that those which are alike get equal shares. */
static int pick_least(const struct seat_view *views, unsigned seats, uint8_t rank, uint32_t turn)
{
    int best = -1;
    for (unsigned n = 0; n < seats; n++) {
        unsigned i = (turn + n) % seats;
        if (views[i].rank != rank) continue;
        /* a/b < c/d without the division */
        uint64_t own = best < 0 ? 0 : (uint64_t)(views[i].sessions + 1) * views[best].weight;
        uint64_t other = best < 0 ? 1 : (uint64_t)(views[best].sessions + 1) * views[i].weight;
        if (own < other) best = (int)i;
    }
    return best;
}

/* Highest random weight (Thaler and Ravishankar 1998), for weights by way of the logarithm. */
static int pick_hash(const struct seat_view *views, unsigned seats, uint8_t rank, uint64_t hash)
{
    int best = -1;
    double best_score = 0;
    for (unsigned i = 0; i < seats; i++) {
        if (views[i].rank != rank) continue;
        uint64_t key[2] = {hash, views[i].id};
        uint64_t mixed = hash_keyed(key, &views[i].id, sizeof views[i].id) >> 11;
        double part = ((double)mixed + 1.0) / 9007199254740994.0; /* in (0, 1) */
        double score = (double)views[i].weight / -log(part);
        if (best < 0 || score > best_score) best = (int)i, best_score = score;
    }
    return best;
}

int group_pick(const struct seat_view *views, unsigned seats, enum group_policy policy, uint32_t turn, uint64_t hash)
{
    uint8_t rank = SEAT_NEVER;
    for (unsigned i = 0; i < seats; i++)
        if (views[i].rank < rank) rank = views[i].rank;
    if (rank == SEAT_NEVER) return -1;
    switch (policy) {
    case GROUP_LEAST: return pick_least(views, seats, rank, turn);
    case GROUP_HASH: return pick_hash(views, seats, rank, hash);
    case GROUP_ROUND: break;
    }
    return pick_round(views, seats, rank, turn);
}

static bool is_among(uint32_t id, const uint32_t *ids, unsigned ids_count)
{
    for (unsigned i = 0; i < ids_count; i++)
        if (ids[i] == id) return true;
    return false;
}

static void look_at_seats(const struct upstream_group *group, uint64_t now_ms, const uint32_t *tried,
                          unsigned tried_count, struct seat_view *views)
{
    for (unsigned i = 0; i < group->count; i++) {
        const struct seat *seat = &group->seats[i];
        bool again = is_among(seat->member->id, tried, tried_count);
        views[i] = (struct seat_view){.rank = again ? SEAT_NEVER : seat_rank(seat, now_ms),
                                      .weight = seat->weight,
                                      .sessions = load(seat->member->sessions),
                                      .id = seat->member->id};
    }
}

/* What other workers may take at the same time: a place among the member's sessions, and the trial. */
static bool take_seat(const struct seat *seat, uint64_t now_ms, struct group_choice *out)
{
    struct group_member *member = seat->member;
    uint32_t before = count(member->sessions);
    if (seat->most > 0 && before >= seat->most) {
        atomic_fetch_sub_explicit(&member->sessions, 1, memory_order_relaxed);
        return false;
    }
    bool free = false;
    out->member = member_hold(member);
    out->trial = member_passive(member, now_ms) == MEMBER_TRIAL &&
                 atomic_compare_exchange_strong_explicit(&member->tried, &free, true, memory_order_relaxed,
                                                         memory_order_relaxed);
    count(member->chosen);
    return true;
}

bool group_choose(struct upstream_group *group, uint64_t now_ms, uint64_t hash, const uint32_t *tried,
                  unsigned tried_count, struct group_choice *out)
{
    struct seat_view views[GROUP_MEMBERS_MAX];
    uint32_t turn = count(group->turn);
    look_at_seats(group, now_ms, tried, tried_count, views);
    for (int i; (i = group_pick(views, group->count, (enum group_policy)group->policy, turn, hash)) >= 0;) {
        const struct seat *seat = &group->seats[i];
        if (take_seat(seat, now_ms, out)) return true;
        views[i].rank = SEAT_NEVER;
    }
    return false;
}

bool group_has_another(const struct upstream_group *group, uint64_t now_ms, const uint32_t *tried, unsigned tried_count)
{
    for (unsigned i = 0; i < group->count; i++) {
        const struct seat *seat = &group->seats[i];
        if (!is_among(seat->member->id, tried, tried_count) && seat_rank(seat, now_ms) != SEAT_NEVER) return true;
    }
    return false;
}

void group_end_trial(struct group_choice *choice)
{
    if (choice->trial) store(choice->member->tried, false);
    choice->trial = false;
}

void group_leave(struct group_choice *choice)
{
    struct group_member *member = choice->member;
    if (!member) return;
    group_end_trial(choice);
    uint32_t before = atomic_fetch_sub_explicit(&member->sessions, 1, memory_order_relaxed);
    assert(before > 0);
    *choice = (struct group_choice){0};
    member_release(member);
}
