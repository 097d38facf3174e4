#include "core/session/limit.h"

#include <assert.h>
#include <string.h>

const struct limit_rules limit_no_rules = {
    .connections = LIMIT_CONNECTIONS_NONE,
    .half_open = LIMIT_CONNECTIONS_NONE,
    .resolving = LIMIT_CONNECTIONS_NONE,
    .rate_seconds = 1,
    .quota = {LIMIT_QUOTA_NONE, LIMIT_QUOTA_NONE, LIMIT_QUOTA_NONE},
    .period = {LIMIT_EVER, LIMIT_EVER, LIMIT_EVER},
};

#define READ(word)         atomic_load_explicit(&(word), memory_order_relaxed)
#define WRITE(word, value) atomic_store_explicit(&(word), value, memory_order_relaxed)

/* --- rules --- */

void limit_rules_set(struct limit_rules *rules, const struct limit_terms *terms)
{
    WRITE(rules->connections, terms->connections);
    WRITE(rules->half_open, terms->half_open);
    WRITE(rules->resolving, terms->resolving);
    WRITE(rules->rate, terms->rate);
    WRITE(rules->rate_seconds, terms->rate_seconds);
    WRITE(rules->burst, terms->burst);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        WRITE(rules->speed[d], terms->speed[d]);
        WRITE(rules->speed_burst[d], terms->speed_burst[d]);
        WRITE(rules->quota[d], terms->quota[d]);
        WRITE(rules->period[d], terms->period[d]);
    }
}

void limit_rules_get(const struct limit_rules *rules, struct limit_terms *terms)
{
    *terms = (struct limit_terms){.connections = READ(rules->connections),
                                  .half_open = READ(rules->half_open),
                                  .resolving = READ(rules->resolving),
                                  .rate = (uint32_t)READ(rules->rate),
                                  .rate_seconds = READ(rules->rate_seconds),
                                  .burst = READ(rules->burst)};
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        terms->speed[d] = READ(rules->speed[d]);
        terms->speed_burst[d] = READ(rules->speed_burst[d]);
        terms->quota[d] = READ(rules->quota[d]);
        terms->period[d] = READ(rules->period[d]);
    }
}

static const struct limit_rules *rules_of(const struct limit *limit)
{
    return atomic_load_explicit(&limit->rules, memory_order_acquire);
}

/* False: the rate of connections has no bound. */
static bool read_rate(const struct limit_rules *rules, struct bucket_rate *out)
{
    uint64_t rate = READ(rules->rate), burst = READ(rules->burst);
    *out = (struct bucket_rate){.pieces = rate, .seconds = READ(rules->rate_seconds), .burst = burst ? burst : rate};
    return rate > 0;
}

static bool read_speed(const struct limit_rules *rules, unsigned direction, struct bucket_rate *out)
{
    uint64_t speed = READ(rules->speed[direction]), burst = READ(rules->speed_burst[direction]);
    if (burst == 0) burst = speed / 10 + 1; /* 100 ms */
    *out = (struct bucket_rate){.pieces = speed, .seconds = 1, .burst = burst};
    return speed > 0;
}

static int64_t begin_of(uint8_t period, const struct limit_time *time)
{
    static_assert((int)LIMIT_HOUR == (int)CALENDAR_HOUR && (int)LIMIT_MONTH == (int)CALENDAR_MONTH, "the same order");
    if (period >= CALENDAR_PERIODS) return QUOTA_EVER;
    return calendar_find(time->calendar, (enum calendar_period)period, time->wall_s);
}

static int64_t period_of(const struct limit_rules *rules, unsigned direction, const struct limit_time *time)
{
    return begin_of(READ(rules->period[direction]), time);
}

void limit_open(struct limit *limit, const struct limit_rules *rules, const struct limit_time *time)
{
    memset(limit, 0, sizeof *limit);
    bucket_open(&limit->rate, time->now_us);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        bucket_open(&limit->speed[d], time->now_us);
        bucket_open(&limit->ahead[d], time->now_us);
        quota_open(&limit->quota[d], period_of(rules, d, time));
    }
    atomic_store_explicit(&limit->rules, rules, memory_order_release);
}

void limit_change(struct limit *limit, const struct limit_rules *rules, const struct limit_time *time)
{
    atomic_store_explicit(&limit->rules, rules, memory_order_release);
    bucket_reset(&limit->rate, time->now_us);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) bucket_reset(&limit->speed[d], time->now_us);
    atomic_fetch_add_explicit(&limit->version, 1, memory_order_release);
}

bool limit_keeps_quota(const struct limit *limit, const struct limit_time *time)
{
    const struct limit_rules *rules = rules_of(limit);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        if (READ(rules->quota[d]) == LIMIT_QUOTA_NONE) continue;
        if (quota_used(&limit->quota[d], period_of(rules, d, time)) > 0) return true;
    }
    return false;
}

static uint64_t octets_of(unsigned direction, const uint64_t octets[2])
{
    return direction == LIMIT_BOTH ? octets[LIMIT_UP] + octets[LIMIT_DOWN] : octets[direction];
}

static uint64_t sum_of(const struct limit_rules *rules, unsigned direction, const struct limit_sums *sums)
{
    return sums->under_way[direction] + octets_of(direction, sums->octets[READ(rules->period[direction])]);
}

bool limit_rules_need(const struct limit_rules *rules, const struct limit_sums *sums)
{
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        if (READ(rules->quota[d]) != LIMIT_QUOTA_NONE && sum_of(rules, d, sums) > 0) return true;
    return false;
}

bool limit_rules_have_quota(const struct limit_rules *rules)
{
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        if (READ(rules->quota[d]) != LIMIT_QUOTA_NONE) return true;
    return false;
}

void limit_restore(struct limit *limit, const struct limit_sums *sums, const struct limit_time *time)
{
    const struct limit_rules *rules = rules_of(limit);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        quota_restore(&limit->quota[d], period_of(rules, d, time), sum_of(rules, d, sums));
}

uint32_t limit_rules_compare(const struct limit_rules *rules, const struct limit_terms *terms,
                             const struct limit_time *time)
{
    uint32_t changed = 0;
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        if (begin_of(READ(rules->period[d]), time) != begin_of(terms->period[d], time)) changed |= 1u << d;
    return changed;
}

void limit_adopt(struct limit *limit, uint32_t changed, const struct limit_sums *sums, const struct limit_time *time)
{
    const struct limit_rules *rules = rules_of(limit);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        if (changed & 1u << d) quota_adopt(&limit->quota[d], period_of(rules, d, time), sum_of(rules, d, sums));
}

void limit_set_elsewhere(struct limit *limit, enum limit_period period, int64_t begin, const uint64_t octets[2])
{
    const struct limit_rules *rules = rules_of(limit);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        if (READ(rules->quota[d]) != LIMIT_QUOTA_NONE && READ(rules->period[d]) == period)
            quota_set_elsewhere(&limit->quota[d], begin, octets_of(d, octets));
}

void limit_give(struct limit *limit, const uint64_t octets[2], const struct limit_time *time)
{
    const struct limit_rules *rules = rules_of(limit);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        quota_give(&limit->quota[d], period_of(rules, d, time), octets_of(d, octets));
}

uint32_t limit_quota_periods(const struct limit *limit)
{
    const struct limit_rules *rules = rules_of(limit);
    uint32_t periods = 0;
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        if (READ(rules->quota[d]) != LIMIT_QUOTA_NONE) periods |= 1u << READ(rules->period[d]);
    return periods;
}

uint64_t limit_quota_used(const struct limit *limit, enum limit_direction direction, const struct limit_time *time)
{
    return quota_used(&limit->quota[direction], period_of(rules_of(limit), direction, time));
}

/* --- connections --- */

/* One more, if there are fewer. */
static bool add_one(_Atomic uint32_t *gauge, uint32_t most)
{
    uint32_t now = READ(*gauge);
    do {
        if (now >= most) return false;
    } while (!atomic_compare_exchange_weak_explicit(gauge, &now, now + 1, memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void subtract_one(_Atomic uint32_t *gauge)
{
    uint32_t before = atomic_fetch_sub_explicit(gauge, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
}

static bool has_spent_quota(struct limit *limit, const struct limit_rules *rules, const struct limit_time *time)
{
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        uint64_t most = READ(rules->quota[d]);
        if (most != LIMIT_QUOTA_NONE && quota_is_spent(&limit->quota[d], most, period_of(rules, d, time))) return true;
    }
    return false;
}

static enum limit_verdict judge(struct limit *limit, const struct limit_time *time, uint64_t *wait_us)
{
    const struct limit_rules *rules = rules_of(limit);
    struct bucket_rate rate;
    if (has_spent_quota(limit, rules, time)) return LIMIT_QUOTA;
    if (!add_one(&limit->connections, READ(rules->connections))) return LIMIT_CONNECTIONS;
    if (!read_rate(rules, &rate)) return LIMIT_ADMITTED;
    *wait_us = bucket_take(&limit->rate, &rate, 1, time->now_us);
    if (*wait_us == 0) return LIMIT_ADMITTED;
    limit_leave(limit);
    return LIMIT_RATE;
}

enum limit_verdict limit_admit(struct limit *limit, const struct limit_time *time, uint64_t *wait_us)
{
    *wait_us = 0;
    enum limit_verdict verdict = judge(limit, time, wait_us);
    atomic_fetch_add_explicit(verdict == LIMIT_ADMITTED ? &limit->admitted : &limit->refused, 1, memory_order_relaxed);
    return verdict;
}

void limit_withdraw(struct limit *limit)
{
    struct bucket_rate rate;
    if (read_rate(rules_of(limit), &rate)) bucket_give_back(&limit->rate, &rate, 1);
    atomic_fetch_sub_explicit(&limit->admitted, 1, memory_order_relaxed);
    limit_leave(limit);
}

void limit_leave(struct limit *limit)
{
    subtract_one(&limit->connections);
}

void limit_join(struct limit *limit)
{
    atomic_fetch_add_explicit(&limit->connections, 1, memory_order_relaxed);
}

/* --- before that --- */

static bool admit_one(struct limit *limit, _Atomic uint32_t *gauge, uint32_t most)
{
    if (add_one(gauge, most)) return true;
    atomic_fetch_add_explicit(&limit->refused, 1, memory_order_relaxed);
    return false;
}

bool limit_begin_handshake(struct limit *limit)
{
    return admit_one(limit, &limit->half_open, READ(rules_of(limit)->half_open));
}

void limit_add_handshake(struct limit *limit)
{
    atomic_fetch_add_explicit(&limit->half_open, 1, memory_order_relaxed);
}

void limit_end_handshake(struct limit *limit)
{
    subtract_one(&limit->half_open);
}

bool limit_begin_question(struct limit *limit)
{
    return admit_one(limit, &limit->resolving, READ(rules_of(limit)->resolving));
}

void limit_end_question(struct limit *limit)
{
    subtract_one(&limit->resolving);
}

/* --- speed --- */

static uint64_t within(uint64_t value, uint64_t least, uint64_t most)
{
    if (value < least) return least;
    return value < most ? value : most;
}

static uint32_t quantum_of(const struct limit *limit, const struct limit_rules *rules, unsigned direction)
{
    uint64_t speed = READ(rules->speed[direction]);
    if (speed == 0) return UINT32_MAX;
    uint64_t flows = READ(limit->waiting[direction]) + UINT64_C(1), turn = speed * LIMIT_ROUND_MS / 1000 / flows;
    if (turn < LIMIT_QUANTUM_FAIR) {
        turn = speed * within(flows, LIMIT_ROUND_MS, LIMIT_ROUND_MS_MAX) / 1000 / flows;
        if (turn > LIMIT_QUANTUM_FAIR) turn = LIMIT_QUANTUM_FAIR;
    }
    if (turn < LIMIT_QUANTUM_MIN) return LIMIT_QUANTUM_MIN;
    return turn < LIMIT_QUANTUM_MAX ? (uint32_t)turn : LIMIT_QUANTUM_MAX;
}

uint32_t limit_quantum(const struct limit *limit, enum limit_direction from)
{
    const struct limit_rules *rules = rules_of(limit);
    uint32_t one = quantum_of(limit, rules, from), both = quantum_of(limit, rules, LIMIT_BOTH);
    return one < both ? one : both;
}

static uint64_t book(struct limit *limit, unsigned direction, uint32_t octets, uint64_t now_us)
{
    struct bucket_rate rate;
    if (!read_speed(rules_of(limit), direction, &rate)) return now_us;
    return bucket_book(&limit->speed[direction], &rate, octets, now_us);
}

uint64_t limit_book(struct limit *limit, enum limit_direction from, uint32_t octets, uint64_t now_us)
{
    uint64_t one = book(limit, from, octets, now_us), both = book(limit, LIMIT_BOTH, octets, now_us);
    return one > both ? one : both;
}

static bool waits_for_late(const struct limit_rules *rules, unsigned direction)
{
    struct bucket_rate rate;
    if (!read_speed(rules, direction, &rate)) return true;
    return rate.burst / LIMIT_LATE_SHARE >= rate.pieces / (1000000 / LIMIT_LATE_US);
}

bool limit_waits_for_late(const struct limit *limit, enum limit_direction from)
{
    const struct limit_rules *rules = rules_of(limit);
    return waits_for_late(rules, from) && waits_for_late(rules, LIMIT_BOTH);
}

static void unbook(struct limit *limit, unsigned direction, uint32_t octets)
{
    struct bucket_rate rate;
    if (read_speed(rules_of(limit), direction, &rate)) bucket_give_back(&limit->speed[direction], &rate, octets);
}

void limit_unbook(struct limit *limit, enum limit_direction from, uint32_t octets)
{
    unbook(limit, from, octets);
    unbook(limit, LIMIT_BOTH, octets);
}

static bool read_ahead(const struct limit_rules *rules, unsigned direction, struct bucket_rate *out)
{
    uint64_t speed = READ(rules->speed[direction]), burst = speed / 100; /* 10 ms */
    *out = (struct bucket_rate){
        .pieces = speed, .seconds = LIMIT_AHEAD_SHARE, .burst = burst > LIMIT_AHEAD_MIN ? burst : LIMIT_AHEAD_MIN};
    return speed > 0;
}

static bool pass_ahead(struct limit *limit, unsigned direction, uint32_t octets, uint64_t now_us)
{
    struct bucket_rate rate;
    if (!read_ahead(rules_of(limit), direction, &rate)) return true;
    return bucket_take(&limit->ahead[direction], &rate, octets, now_us) == 0;
}

static void keep_ahead(struct limit *limit, unsigned direction, uint32_t octets)
{
    struct bucket_rate rate;
    if (read_ahead(rules_of(limit), direction, &rate)) bucket_give_back(&limit->ahead[direction], &rate, octets);
}

bool limit_pass_ahead(struct limit *limit, enum limit_direction from, uint32_t octets, uint64_t now_us)
{
    if (!pass_ahead(limit, from, octets, now_us)) return false;
    if (pass_ahead(limit, LIMIT_BOTH, octets, now_us)) return true;
    keep_ahead(limit, from, octets);
    return false;
}

void limit_keep_ahead(struct limit *limit, enum limit_direction from, uint32_t octets)
{
    keep_ahead(limit, from, octets);
    keep_ahead(limit, LIMIT_BOTH, octets);
}

void limit_wait(struct limit *limit, enum limit_direction from, int waiting)
{
    atomic_fetch_add_explicit(&limit->waiting[from], (uint32_t)waiting, memory_order_relaxed);
    atomic_fetch_add_explicit(&limit->waiting[LIMIT_BOTH], (uint32_t)waiting, memory_order_relaxed);
}

static bool pass(struct limit *limit, unsigned direction, uint32_t octets, uint64_t now_us)
{
    struct bucket_rate rate;
    if (!read_speed(rules_of(limit), direction, &rate)) return true;
    if (rate.burst < LIMIT_DATAGRAMS) rate.burst = LIMIT_DATAGRAMS;
    return bucket_take(&limit->speed[direction], &rate, octets, now_us) == 0;
}

bool limit_pass(struct limit *limit, enum limit_direction from, uint32_t octets, uint64_t now_us)
{
    if (!pass(limit, from, octets, now_us)) return false;
    if (pass(limit, LIMIT_BOTH, octets, now_us)) return true;
    unbook(limit, from, octets);
    return false;
}

/* --- quotas: that of the direction, and that of both. What is used is counted where nothing is bounded, too --- */

static unsigned quota_at(enum limit_direction from, unsigned i)
{
    return i == 0 ? (unsigned)from : (unsigned)LIMIT_BOTH;
}

uint32_t limit_take(struct limit *limit, enum limit_direction from, uint32_t octets, const struct limit_time *time,
                    bool *spent)
{
    const struct limit_rules *rules = rules_of(limit);
    for (unsigned i = 0; i < 2; i++) {
        unsigned d = quota_at(from, i);
        uint64_t most = READ(rules->quota[d]);
        int64_t period = period_of(rules, d, time);
        struct quota_grant grant = quota_take(&limit->quota[d], most, period, octets);
        if (grant.octets == 0 && octets > 0) *spent |= quota_is_spent(&limit->quota[d], most, period);
        if (i > 0 && grant.octets < octets) { /* the first has had more */
            struct quota_grant rest = {.octets = octets - grant.octets, .period = period_of(rules, from, time)};
            quota_settle(&limit->quota[from], &rest, 0);
        }
        octets = (uint32_t)grant.octets;
    }
    return octets;
}

#define NO_PERIOD (INT64_MIN + 1)

void limit_settle(struct limit *limit, enum limit_direction from, uint32_t taken, uint32_t moved, bool same_hour)
{
    const struct limit_rules *rules = rules_of(limit);
    for (unsigned i = 0; i < 2; i++) {
        unsigned d = quota_at(from, i);
        bool same = same_hour || READ(rules->period[d]) == LIMIT_EVER;
        struct quota_grant grant = {.octets = taken, .period = same ? READ(limit->quota[d].period) : NO_PERIOD};
        quota_settle(&limit->quota[d], &grant, moved);
    }
}

void limit_refund(struct limit *limit, enum limit_direction from, uint64_t octets, const struct limit_time *time)
{
    const struct limit_rules *rules = rules_of(limit);
    for (unsigned i = 0; i < 2; i++) {
        unsigned d = quota_at(from, i);
        quota_refund(&limit->quota[d], period_of(rules, d, time), octets);
    }
}

void limit_count(struct limit *limit, enum limit_direction from, uint64_t octets)
{
    atomic_fetch_add_explicit(&limit->octets[from], octets, memory_order_relaxed);
}

/* --- accounts --- */

void limit_under_way(const struct limit *limit, uint64_t octets[LIMIT_DIRECTIONS])
{
    uint64_t delivered[LIMIT_DIRECTIONS] = {READ(limit->octets[LIMIT_UP]), READ(limit->octets[LIMIT_DOWN])};
    delivered[LIMIT_BOTH] = delivered[LIMIT_UP] + delivered[LIMIT_DOWN];
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        uint64_t taken = quota_taken(&limit->quota[d]);
        octets[d] = taken > delivered[d] ? taken - delivered[d] : 0;
    }
}

/* What is collected is read first: it is never more than what is counted later. */
static uint64_t ahead(const _Atomic uint64_t *counted, const _Atomic uint64_t *collected)
{
    uint64_t behind = atomic_load_explicit(collected, memory_order_acquire);
    return atomic_load_explicit(counted, memory_order_relaxed) - behind;
}

bool limit_uncollected(const struct limit *limit, struct limit_use *use)
{
    for (unsigned i = 0; i < 2; i++) use->octets[i] = ahead(&limit->octets[i], &limit->collected_octets[i]);
    use->connections = (int64_t)ahead(&limit->admitted, &limit->collected_admitted);
    use->refused = ahead(&limit->refused, &limit->collected_refused);
    return !limit_use_is_none(use);
}

void limit_collect(struct limit *limit, const struct limit_use *use)
{
    for (unsigned i = 0; i < 2; i++)
        atomic_store_explicit(&limit->collected_octets[i], READ(limit->collected_octets[i]) + use->octets[i],
                              memory_order_release);
    WRITE(limit->collected_admitted, READ(limit->collected_admitted) + (uint64_t)use->connections);
    WRITE(limit->collected_refused, READ(limit->collected_refused) + use->refused);
}
