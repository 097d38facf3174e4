/* The limit of one key: what it bounds, and what is used of it. Any worker may use it at any time without a lock;
 * keys.h has the table of them, limited.h puts sessions under them.
 *
 * Octets move in three steps: a flow books some (bucket.h), waits until they are due, and takes them from the quota
 * (quota.h) when they are about to move; then it settles, which gives back what did not move. So nobody holds octets of
 * a quota while it waits, and flows that wait for one key are served in turn, whichever worker they are on. */
#ifndef SLUICE_CORE_SESSION_LIMIT_H
#define SLUICE_CORE_SESSION_LIMIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/io/bucket.h"
#include "core/io/calendar.h"
#include "core/io/quota.h"
#include "protocols/limit_text.h"

/* So long the flows that wait for a key wait for each other: the octets of one turn are chosen by it, so that an
 * exchange is answered beside bulk flows. Of more than 50 flows each waits a millisecond for each of them, up to the
 * longest round, as long as that makes their turns no longer than LIMIT_QUANTUM_FAIR: each turn wakes a flow. */
#define LIMIT_ROUND_MS     50u
#define LIMIT_ROUND_MS_MAX 200u
/* Octets of one turn: about a segment, so that a slow key does not move crumbs; what is worth a wake-up; and what a
 * pipe holds. */
#define LIMIT_QUANTUM_MIN  1400u
#define LIMIT_QUANTUM_FAIR 16384u
#define LIMIT_QUANTUM_MAX  (1u << 20)
/* A flow that has not moved anything for so long may move LIMIT_QUANTUM_MIN octets in front of those that wait: so an
 * exchange of a few octets, or a key that is pressed, is answered at once beside any number of bulk flows. What moves
 * so is a fiftieth of the speed, at most, and is booked as all else is: those that wait, wait longer by it. */
#define LIMIT_SPARSE_US   100000u
#define LIMIT_AHEAD_SHARE 50u
#define LIMIT_AHEAD_MIN   (2 * LIMIT_QUANTUM_MIN) /* at once: a request, and its response */
/* Flows may ask so much later than at their turn, so that one wake-up serves several of them. What they have not booked
 * meanwhile is saved, and they catch up: where the burst is LIMIT_LATE_SHARE times as long, which that of 100 ms is. */
#define LIMIT_LATE_US    1024u /* a power of two, so that the wheel of timers meets them where it enters a slot */
#define LIMIT_LATE_SHARE 8u
/* Octets: a burst that is smaller would let no large datagram pass. */
#define LIMIT_DATAGRAMS 65536u

/* Terms that may be replaced while they are obeyed: each word by itself. */
struct limit_rules {
    _Atomic uint32_t connections, half_open, resolving;
    _Atomic uint32_t rate_seconds, burst;
    _Atomic uint64_t rate; /* 0: no bound */
    _Atomic uint64_t speed[LIMIT_DIRECTIONS], speed_burst[LIMIT_DIRECTIONS];
    _Atomic uint64_t quota[LIMIT_DIRECTIONS];
    _Atomic uint8_t period[LIMIT_DIRECTIONS];
};

struct limit {
    _Atomic(const struct limit_rules *) rules; /* its own, those of its kind, or none */
    struct limit_rules own;
    struct bucket rate, speed[LIMIT_DIRECTIONS];
    struct bucket ahead[LIMIT_DIRECTIONS]; /* of `speed`: what moves in front of those that wait */
    struct quota quota[LIMIT_DIRECTIONS];
    _Atomic uint32_t version;                   /* of what was booked: it counts changes of the rules */
    _Atomic uint32_t waiting[LIMIT_DIRECTIONS]; /* flows that have booked and wait */
    _Atomic uint32_t connections;               /* at the moment */
    _Atomic uint32_t half_open, resolving;      /* likewise, see newcomer.h */
    _Atomic uint64_t admitted, refused;         /* connections, since the key is known */
    _Atomic uint64_t octets[2];                 /* delivered up and down, likewise */
    /* Of these, what somebody who keeps accounts has collected. */
    _Atomic uint64_t collected_octets[2], collected_admitted, collected_refused;
};

/* What a key has used since it was last asked. */
struct limit_use {
    uint64_t octets[2];  /* delivered up and down */
    int64_t connections; /* admitted, less those that another key has refused */
    uint64_t refused;
};

static inline bool limit_use_is_none(const struct limit_use *use)
{
    return use->octets[0] == 0 && use->octets[1] == 0 && use->connections == 0 && use->refused == 0;
}

/* What the clock says: microseconds of the rings' clock, and the calendar's periods. */
struct limit_time {
    uint64_t now_us;
    const struct calendar *calendar;
    int64_t wall_s; /* since 1970 */
};

/* Octets up and down that a key has used in each period, LIMIT_EVER: in all. */
struct limit_sums {
    uint64_t octets[LIMIT_PERIODS][2];
    uint64_t under_way[LIMIT_DIRECTIONS]; /* beyond that: taken from a quota, and not delivered yet */
};

enum limit_verdict { LIMIT_ADMITTED, LIMIT_CONNECTIONS, LIMIT_RATE, LIMIT_QUOTA };

/* --- rules: by whoever makes the key, afterwards by one thread --- */

extern const struct limit_rules limit_no_rules;

void limit_rules_set(struct limit_rules *rules, const struct limit_terms *terms);
void limit_rules_get(const struct limit_rules *rules, struct limit_terms *terms);
bool limit_rules_have_quota(const struct limit_rules *rules);
/* Whether they have a quota of which a key with these sums has used something. */
bool limit_rules_need(const struct limit_rules *rules, const struct limit_sums *sums);
/* A key that nobody uses yet. */
void limit_open(struct limit *limit, const struct limit_rules *rules, const struct limit_time *time);
/* From now on it obeys these, which may be the same with other words in them. What was booked is void: who waits books
 * again. What was saved, and what is used of quotas, stays. */
void limit_change(struct limit *limit, const struct limit_rules *rules, const struct limit_time *time);
/* Octets of a quota count in a period that is not over: forgetting the key would give them back. */
bool limit_keeps_quota(const struct limit *limit, const struct limit_time *time);
/* Of a key that nobody uses yet: so much of its quotas is used. */
void limit_restore(struct limit *limit, const struct limit_sums *sums, const struct limit_time *time);
/* Bits (1 << direction) of quotas whose period began at another moment by one than by the other: where it did not, what
 * is used is the same. */
uint32_t limit_rules_compare(const struct limit_rules *rules, const struct limit_terms *terms,
                             const struct limit_time *time);
/* Behind limit_change(): so much is used of the quotas that have another period now (`changed`, of
 * limit_rules_compare() before). One thread at a time. */
void limit_adopt(struct limit *limit, uint32_t changed, const struct limit_sums *sums, const struct limit_time *time);
/* Quotas of that period, which began then: what is used of them elsewhere, up and down. One thread. */
void limit_set_elsewhere(struct limit *limit, enum limit_period period, int64_t begin, const uint64_t octets[2]);
/* So much more was used here, in the periods around `time`, by a process before this one. */
void limit_give(struct limit *limit, const uint64_t octets[2], const struct limit_time *time);
/* Bits (1 << enum limit_period) of the periods that it has a quota for. */
uint32_t limit_quota_periods(const struct limit *limit);
/* Octets of that quota that are used in its period. */
uint64_t limit_quota_used(const struct limit *limit, enum limit_direction direction, const struct limit_time *time);

/* --- connections --- */

/* One more connection. ADMITTED: limit_leave() follows when it ends. RATE: `wait_us` says when one would be admitted,
 * UINT64_MAX: never. Else nothing has changed, but for the count of refusals. */
enum limit_verdict limit_admit(struct limit *limit, const struct limit_time *time, uint64_t *wait_us);
/* It was admitted here, and refused by another key: as if it had not come. */
void limit_withdraw(struct limit *limit);
void limit_leave(struct limit *limit);
/* A connection that is there already comes under the limit: nothing is refused. limit_leave() follows. */
void limit_join(struct limit *limit);

/* --- before that: handshakes, and questions to the resolver --- */

/* One more handshake. False: it has as many as it may have; else limit_end_handshake() follows. */
bool limit_begin_handshake(struct limit *limit);
/* One that cannot be refused any more; the same follows. */
void limit_add_handshake(struct limit *limit);
void limit_end_handshake(struct limit *limit);
/* One more question; likewise. */
bool limit_begin_question(struct limit *limit);
void limit_end_question(struct limit *limit);

/* --- octets; `from` is LIMIT_UP or LIMIT_DOWN --- */

/* The most that a flow should book now: at least LIMIT_QUANTUM_MIN. UINT32_MAX: no speed is bounded. */
uint32_t limit_quantum(const struct limit *limit, enum limit_direction from);
/* Books; returns when they may move. */
uint64_t limit_book(struct limit *limit, enum limit_direction from, uint32_t octets, uint64_t now_us);
/* Whether a flow that asks LIMIT_LATE_US late loses nothing by it. */
bool limit_waits_for_late(const struct limit *limit, enum limit_direction from);
/* Booked and not used. */
void limit_unbook(struct limit *limit, enum limit_direction from, uint32_t octets);
/* Whether octets that are booked may move now, though it is not their turn: LIMIT_QUANTUM_MIN at most, see above. */
bool limit_pass_ahead(struct limit *limit, enum limit_direction from, uint32_t octets, uint64_t now_us);
/* They were allowed that, and have not moved. */
void limit_keep_ahead(struct limit *limit, enum limit_direction from, uint32_t octets);
void limit_wait(struct limit *limit, enum limit_direction from, int waiting); /* 1: one more waits, -1: one less */

/* Takes octets of the quotas, as many as all of them have. *spent becomes true when none is left, and none will come
 * back. */
uint32_t limit_take(struct limit *limit, enum limit_direction from, uint32_t octets, const struct limit_time *time,
                    bool *spent);
/* Of `taken` octets `moved` have moved. same_hour: as that in which they were taken, so that no period has ended since:
 * octets of an old one are not given back to the next. */
void limit_settle(struct limit *limit, enum limit_direction from, uint32_t taken, uint32_t moved, bool same_hour);
/* Takes a whole datagram at once, if it is its turn: false, if not. Bursts of datagrams may be LIMIT_DATAGRAMS long. */
bool limit_pass(struct limit *limit, enum limit_direction from, uint32_t octets, uint64_t now_us);
/* Octets that have moved and were never delivered. */
void limit_refund(struct limit *limit, enum limit_direction from, uint64_t octets, const struct limit_time *time);
void limit_count(struct limit *limit, enum limit_direction from, uint64_t octets); /* are delivered */

/* --- accounts: one thread --- */

/* Octets that were taken and are not delivered yet. To be asked before what is delivered: then none is missing, some
 * may be seen twice. Any thread. */
void limit_under_way(const struct limit *limit, uint64_t octets[LIMIT_DIRECTIONS]);

/* What was not collected yet. False: nothing. Any thread may look. */
bool limit_uncollected(const struct limit *limit, struct limit_use *use);
void limit_collect(struct limit *limit, const struct limit_use *use); /* it is collected */

#endif
