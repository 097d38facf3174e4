/* Groups of upstreams: who their members are, what is known of each, and which one is next.
 *
 * A set of groups is made by the coordinator and never written while workers look at it; another set takes its place
 * (core/control/upstreams.h). What changes is in `struct group_member`, which is shared: it is of atomics, written by
 * every worker and the coordinator, and lives as long as a set or a session holds it. A member that stays in its group,
 * with the same URI, is the same one in the next set.
 *
 * Three verdicts on a member stand beside each other and never overwrite one another:
 *
 *   operator  UP, DRAIN, DOWN        by PUT /upstreams/NAME/MEMBER
 *   checks    UNKNOWN, UP, DOWN      UNKNOWN: no check has come to an end yet; without checks always UP
 *   passive   IN, OUT, TRIAL         what sessions have met: so many failures in a row take it out for a while, then
 *                                    one session at a time may try it
 *
 *   operator | checks  | passive                | chosen
 *   DRAIN,DOWN | any   | any                    | never
 *   UP       | DOWN    | any                    | never
 *   UP       | UP      | IN, or TRIAL and free  | first
 *   UP       | UNKNOWN | the same               | where none of those is
 *   UP       | UP, UNKNOWN | OUT, TRIAL and taken | where none of those is either: nobody is refused for a guess
 *
 * In each row backups come behind the others. A check that takes a member from DOWN to UP begins its passive record
 * anew; so does the operator's UP. Nothing else crosses over. */
#ifndef SLUICE_CORE_SESSION_GROUP_H
#define SLUICE_CORE_SESSION_GROUP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "protocols/group_text.h"

enum member_order { MEMBER_UP, MEMBER_DRAIN, MEMBER_DOWN }; /* the operator's */
enum member_checked { MEMBER_CHECKED_UNKNOWN, MEMBER_CHECKED_UP, MEMBER_CHECKED_DOWN };
enum member_passive { MEMBER_IN, MEMBER_OUT, MEMBER_TRIAL };

#define MEMBER_EJECT_DOUBLINGS 5u /* each time out in a row is twice as long as the one before, so often */

struct group_member {
    _Atomic uint32_t holders;
    uint32_t id; /* never the same again */
    bool target;
    struct proxy_uri uri;
    char text[ADDRESS_TEXT_SIZE]; /* host:port, its name within its group */

    _Atomic uint8_t order;   /* enum member_order */
    _Atomic uint8_t checked; /* enum member_checked */

    /* Passive. Times are ring_now_ms(). */
    _Atomic uint32_t failures;                   /* in a row */
    _Atomic uint64_t failed_ms[GROUP_FAILS_MAX]; /* when, a ring */
    _Atomic uint64_t out_until_ms;               /* 0: it is IN; in the past: TRIAL */
    _Atomic uint32_t times_out;                  /* in a row */
    _Atomic bool tried;                          /* TRIAL: a session tries it */

    /* Counters, and gauges. */
    _Atomic uint32_t sessions; /* that use it now */
    _Atomic uint64_t chosen, connected, failed, ejected;
    _Atomic uint64_t checks_passed, checks_failed;
    _Atomic uint8_t last_failure; /* enum failure of the last one, of a session or a check; 0: none */
};

/* A member's place in a group, with the terms of that group. */
struct seat {
    struct group_member *member;
    uint16_t weight;
    bool backup;
    uint32_t most; /* sessions; 0: no bound */
};

struct upstream_group {
    char name[GROUP_NAME_MAX + 1];
    uint8_t policy, check; /* enum group_policy, enum group_check */
    bool targets;
    bool scripted;    /* defined by a script, not by the settings */
    uint32_t holders; /* sets that it is in; the coordinator's */
    uint8_t tries, fails, rise, fall;
    uint8_t count;
    uint32_t timeout_ms, window_ms, eject_ms, interval_ms, check_timeout_ms;
    char path[GROUP_PATH_MAX + 1];
    _Atomic uint32_t turn; /* of ROUND, and where LEAST has a choice */
    struct seat seats[];
};

#define GROUPS_MAX 256u

struct upstream_groups {
    uint32_t count;
    struct upstream_group *all[GROUPS_MAX];
};

/* NULL: there is none of that name. groups  NULL is a set of none. */
struct upstream_group *groups_find(const struct upstream_groups *groups, const char *name);

struct group_member *member_hold(struct group_member *member);
void member_release(struct group_member *member); /* any thread */

/* --- what is known of a member --- */

enum member_passive member_passive(const struct group_member *member, uint64_t now_ms);

#define SEAT_NEVER 255u
/* The class that a seat is in: the lower, the sooner. SEAT_NEVER: not at all. */
uint8_t seat_rank(const struct seat *seat, uint64_t now_ms);

/* A session could not reach the member, or was answered with a broken protocol. True: that has taken it out. */
bool member_blame(struct group_member *member, const struct upstream_group *group, uint64_t now_ms, uint8_t failure,
                  bool trial);
/* It has answered as it should: what was held against it is void. True: it was out. */
bool member_clear(struct group_member *member);
uint64_t member_out_until_ms(const struct group_member *member); /* 0: it is IN */
/* A check's outcome. `streak` is the caller's: checks in a row, below 0 those that failed. True: the verdict is
 * another one now. */
bool member_on_check(struct group_member *member, const struct upstream_group *group, bool passed, uint8_t failure,
                     int *streak);

/* All of that as one word, and the counters, for people. */
enum member_state {
    MEMBER_STATE_UP,
    MEMBER_STATE_DOWN,    /* by its checks */
    MEMBER_STATE_UNKNOWN, /* no check has ended yet */
    MEMBER_STATE_OUT,     /* by what sessions have met */
    MEMBER_STATE_TRIAL,   /* one session at a time may try it */
    MEMBER_STATE_DRAINED, /* by the operator, as the next one */
    MEMBER_STATE_ORDERED_DOWN,
    MEMBER_STATES
};
const char *member_state_name(enum member_state state);

struct member_view {
    enum member_state state;
    enum member_order order;
    enum member_checked checked;
    enum member_passive passive;
    uint64_t out_ms; /* how much longer; 0: it is not OUT */
    uint32_t sessions;
    uint64_t chosen, connected, failed, ejected, checks_passed, checks_failed;
    uint8_t last_failure;
};
void seat_look(const struct seat *seat, uint64_t now_ms, struct member_view *out);

/* --- choosing --- */

/* What a choice is made of: one seat, as it is now. */
struct seat_view {
    uint8_t rank; /* SEAT_NEVER: not to be chosen */
    uint16_t weight;
    uint32_t sessions; /* LEAST */
    uint32_t id;       /* HASH */
};

/* The index of a seat, or -1. Of the seats with the lowest rank: ROUND, the one whose turn it is by weight; LEAST, the
 * one with the fewest sessions for its weight, `turn` says which where there are several; HASH, the one that `hash`
 * belongs to, which stays the same for most of all hashes when a seat comes or goes (rendezvous hashing).
 * turn  counts up by one from choice to choice. */
int group_pick(const struct seat_view *views, unsigned count, enum group_policy policy, uint32_t turn, uint64_t hash);

struct group_choice {
    struct group_member *member; /* held, and counted in its `sessions`: group_leave() */
    bool trial;                  /* it is the session that tries it */
};

/* Chooses among the members whose ids are not in `tried`. False: there is none to be had. */
bool group_choose(struct upstream_group *group, uint64_t now_ms, uint64_t hash, const uint32_t *tried,
                  unsigned tried_count, struct group_choice *out);
/* Whether group_choose() would find one. */
bool group_has_another(const struct upstream_group *group, uint64_t now_ms, const uint32_t *tried,
                       unsigned tried_count);
/* It is known what the trial has come to, if it was one. */
void group_end_trial(struct group_choice *choice);
/* The session uses the member no more. A trial without a verdict leaves the next one to somebody else. */
void group_leave(struct group_choice *choice);

#endif
