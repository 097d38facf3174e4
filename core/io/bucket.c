#include "core/io/bucket.h"

#include <assert.h>
#include <stdbool.h>

/* 1/64 ns: an octet at 10 Gbit/s takes 51 of them, so that rounding up costs nothing to speak of, and the word spans
 * nine years. Moments are compared by their difference, as sequence numbers are, so that it may wrap. */
#define UNITS_PER_US     UINT64_C(64000)
#define UNITS_PER_SECOND UINT64_C(64000000000)
/* A piece, or a burst, that takes longer than this (two years) counts as one that takes so long. */
#define UNITS_MAX (UINT64_C(1) << 62)

__extension__ typedef unsigned __int128 wide;

/* What that many pieces take, rounded up. */
static uint64_t cost(const struct bucket_rate *rate, uint64_t pieces)
{
    assert(rate->pieces > 0 && rate->seconds > 0);
    wide units = ((wide)pieces * UNITS_PER_SECOND * rate->seconds + rate->pieces - 1) / rate->pieces;
    return units < UNITS_MAX ? (uint64_t)units : UNITS_MAX;
}

static bool is_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

/* Where the next piece begins: what was saved beyond the burst is lost. */
static uint64_t begin(uint64_t next, uint64_t now, uint64_t burst)
{
    return is_before(next, now - burst) ? now - burst : next;
}

void bucket_open(struct bucket *bucket, uint64_t now_us)
{
    atomic_store_explicit(&bucket->next, now_us * UNITS_PER_US - UNITS_MAX, memory_order_relaxed);
}

void bucket_reset(struct bucket *bucket, uint64_t now_us)
{
    uint64_t next = atomic_load_explicit(&bucket->next, memory_order_relaxed), now = now_us * UNITS_PER_US;
    while (is_before(now, next) && !atomic_compare_exchange_weak_explicit(&bucket->next, &next, now,
                                                                          memory_order_relaxed, memory_order_relaxed)) {
    }
}

static uint64_t units_to_us(uint64_t units)
{
    return (units + UNITS_PER_US - 1) / UNITS_PER_US;
}

uint64_t bucket_take(struct bucket *bucket, const struct bucket_rate *rate, uint64_t pieces, uint64_t now_us)
{
    uint64_t now = now_us * UNITS_PER_US, burst = cost(rate, rate->burst), piece = cost(rate, pieces);
    uint64_t next = atomic_load_explicit(&bucket->next, memory_order_relaxed), after;
    if (pieces > rate->burst) return UINT64_MAX;
    do {
        after = begin(next, now, burst) + piece;
        if (is_before(now, after)) return units_to_us(after - now);
    } while (!atomic_compare_exchange_weak_explicit(&bucket->next, &next, after, memory_order_relaxed,
                                                    memory_order_relaxed));
    return 0;
}

uint64_t bucket_book(struct bucket *bucket, const struct bucket_rate *rate, uint64_t pieces, uint64_t now_us)
{
    uint64_t now = now_us * UNITS_PER_US, burst = cost(rate, rate->burst), piece = cost(rate, pieces);
    uint64_t next = atomic_load_explicit(&bucket->next, memory_order_relaxed), after;
    do {
        after = begin(next, now, burst) + piece;
    } while (!atomic_compare_exchange_weak_explicit(&bucket->next, &next, after, memory_order_relaxed,
                                                    memory_order_relaxed));
    return is_before(now, after) ? now_us + units_to_us(after - now) : now_us;
}

void bucket_give_back(struct bucket *bucket, const struct bucket_rate *rate, uint64_t pieces)
{
    atomic_fetch_sub_explicit(&bucket->next, cost(rate, pieces), memory_order_relaxed);
}

uint64_t bucket_wait_us(const struct bucket *bucket, uint64_t now_us)
{
    uint64_t next = atomic_load_explicit(&bucket->next, memory_order_relaxed), now = now_us * UNITS_PER_US;
    return is_before(now, next) ? units_to_us(next - now) : 0;
}
