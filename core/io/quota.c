#include "core/io/quota.h"

/* While one thread notes the base of a new period. */
#define QUOTA_TURNING INT64_MIN
/* A wall clock that goes back by no more than this is one that is being corrected: the period that has begun stays. */
#define QUOTA_BACK_S 3600

void quota_open(struct quota *quota, int64_t period)
{
    quota_restore(quota, period, 0);
}

void quota_restore(struct quota *quota, int64_t period, uint64_t used)
{
    atomic_store_explicit(&quota->taken, used, memory_order_relaxed);
    atomic_store_explicit(&quota->given, used, memory_order_relaxed);
    atomic_store_explicit(&quota->base, 0, memory_order_relaxed);
    atomic_store_explicit(&quota->unsettled, 0, memory_order_relaxed);
    atomic_store_explicit(&quota->elsewhere, 0, memory_order_relaxed);
    atomic_store_explicit(&quota->elsewhere_period, QUOTA_TURNING, memory_order_relaxed);
    atomic_store_explicit(&quota->period, period, memory_order_release);
}

void quota_set_elsewhere(struct quota *quota, int64_t period, uint64_t octets)
{
    if (atomic_load(&quota->elsewhere_period) != period) atomic_store(&quota->elsewhere_period, QUOTA_TURNING);
    atomic_store(&quota->elsewhere, octets);
    atomic_store(&quota->elsewhere_period, period);
}

void quota_give(struct quota *quota, int64_t period, uint64_t octets)
{
    if (atomic_load(&quota->period) != period) return;
    atomic_fetch_add(&quota->given, octets);
    atomic_fetch_add(&quota->taken, octets);
}

static uint64_t used_elsewhere(const struct quota *quota, int64_t period)
{
    return atomic_load(&quota->elsewhere_period) == period ? atomic_load(&quota->elsewhere) : 0;
}

/* What of the limit is for us. */
static uint64_t our_part(const struct quota *quota, uint64_t limit, int64_t period)
{
    uint64_t others = used_elsewhere(quota, period);
    return others < limit ? limit - others : 0;
}

/* The period that `known` becomes at `period`. A clock that was put back a long way takes the period along, and what
 * was used in it: else a clock that was far ahead for a moment would leave the quota as it is for ever. */
static void quota_turn(struct quota *quota, int64_t period)
{
    int64_t known = atomic_load_explicit(&quota->period, memory_order_acquire);
    if (known == period || known == QUOTA_TURNING) return;
    if (known > period && known - period <= QUOTA_BACK_S) return;
    if (!atomic_compare_exchange_strong(&quota->period, &known, QUOTA_TURNING)) return;
    if (period > known) atomic_store(&quota->base, atomic_load(&quota->taken));
    atomic_store(&quota->period, period);
}

/* `taken` goes up before the base does: whoever asks in between sees too much used, not too little. Where somebody else
 * has begun the period first, nothing of what was used before is in it. */
void quota_adopt(struct quota *quota, int64_t period, uint64_t used)
{
    int64_t known = atomic_load_explicit(&quota->period, memory_order_acquire);
    bool ours = known != period && known != QUOTA_TURNING &&
                atomic_compare_exchange_strong(&quota->period, &known, QUOTA_TURNING);
    uint64_t before = atomic_fetch_add(&quota->taken, used);
    atomic_fetch_add(&quota->given, used);
    if (!ours) return;
    atomic_store(&quota->base, before);
    atomic_store(&quota->period, period);
}

static uint64_t quota_left(uint64_t limit, uint64_t taken, uint64_t base)
{
    uint64_t used = taken > base ? taken - base : 0;
    return used < limit ? limit - used : 0;
}

/* While another thread begins the period, its old base counts: less is left then, never more. */
struct quota_grant quota_take(struct quota *quota, uint64_t limit, int64_t period, uint64_t wanted)
{
    quota_turn(quota, period);
    struct quota_grant grant = {.period = atomic_load(&quota->period)};
    limit = our_part(quota, limit, period);
    uint64_t taken = atomic_load(&quota->taken);
    atomic_fetch_add(&quota->unsettled, wanted); /* before it is taken: nobody must think that it is spent for good */
    do {
        uint64_t left = quota_left(limit, taken, atomic_load(&quota->base));
        grant.octets = left < wanted ? left : wanted;
    } while (grant.octets > 0 && !atomic_compare_exchange_weak(&quota->taken, &taken, taken + grant.octets));
    atomic_fetch_sub(&quota->unsettled, wanted - grant.octets);
    return grant;
}

/* What was taken in one period is not given back to another, which would have more than its own then. */
void quota_settle(struct quota *quota, const struct quota_grant *grant, uint64_t moved)
{
    uint64_t rest = grant->octets - moved;
    if (rest > 0 && atomic_load(&quota->period) == grant->period) {
        atomic_fetch_sub(&quota->taken, rest);
        if (atomic_load(&quota->period) != grant->period) atomic_fetch_add(&quota->taken, rest);
    }
    atomic_fetch_sub(&quota->unsettled, grant->octets);
}

void quota_refund(struct quota *quota, int64_t period, uint64_t octets)
{
    if (atomic_load(&quota->period) != period) return;
    uint64_t taken = atomic_load(&quota->taken), base = atomic_load(&quota->base), back;
    do {
        back = taken - base < octets ? taken - base : octets;
        if (taken < base) return;
    } while (!atomic_compare_exchange_weak(&quota->taken, &taken, taken - back));
}

bool quota_is_spent(struct quota *quota, uint64_t limit, int64_t period)
{
    quota_turn(quota, period);
    if (atomic_load(&quota->unsettled) > 0) return false;
    return quota_left(our_part(quota, limit, period), atomic_load(&quota->taken), atomic_load(&quota->base)) == 0;
}

uint64_t quota_taken(const struct quota *quota)
{
    uint64_t given = atomic_load(&quota->given), taken = atomic_load(&quota->taken);
    return taken > given ? taken - given : 0;
}

uint64_t quota_used(const struct quota *quota, int64_t period)
{
    uint64_t base = atomic_load(&quota->base), taken = atomic_load(&quota->taken);
    int64_t known = atomic_load(&quota->period);
    uint64_t others = used_elsewhere(quota, period);
    if (known < period && known != QUOTA_TURNING) return others;
    return others + (taken > base ? taken - base : 0);
}
