/* How long things took: counts by size, eight buckets to each doubling, so that a quantile is right within 13 percent.
 * One writer, any reader, as all counters. */
#ifndef SLUICE_CORE_IO_HISTOGRAM_H
#define SLUICE_CORE_IO_HISTOGRAM_H

#include "core/io/counter.h"

#define HISTOGRAM_BUCKETS 256u /* microseconds: 0 to 7 exactly, then up to two hours */

struct histogram {
    counter buckets[HISTOGRAM_BUCKETS];
    counter sum_us;
    counter max_us;
};

/* The sum of several histograms, made by a reader. */
struct histogram_sum {
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t count, sum_us, max_us;
};

static inline unsigned histogram_bucket(uint64_t us)
{
    if (us < 8) return (unsigned)us;
    unsigned power = 63u - (unsigned)__builtin_clzll(us); /* >= 3 */
    unsigned bucket = (power - 2) * 8 + (unsigned)(us >> (power - 3) & 7);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* The smallest value that falls into a bucket; of HISTOGRAM_BUCKETS: the end of the last one. */
static inline uint64_t histogram_floor_us(unsigned bucket)
{
    if (bucket < 8) return bucket;
    return (uint64_t)(8 + bucket % 8) << (bucket / 8 - 1);
}

static inline void histogram_add(struct histogram *h, uint64_t us)
{
    counter_add(&h->buckets[histogram_bucket(us)], 1);
    counter_add(&h->sum_us, us);
    if (us > counter_read(&h->max_us)) counter_set(&h->max_us, us);
}

static inline void histogram_add_to(struct histogram_sum *sum, const struct histogram *h)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t count = counter_read(&h->buckets[i]);
        sum->buckets[i] += count;
        sum->count += count;
    }
    uint64_t max_us = counter_read(&h->max_us);
    sum->sum_us += counter_read(&h->sum_us);
    if (max_us > sum->max_us) sum->max_us = max_us;
}

/* Subtracts an older sum of the same histograms: what came since then is left. Of the largest value only the bucket is
 * known then. */
static inline void histogram_subtract(struct histogram_sum *sum, const struct histogram_sum *older)
{
    uint64_t most = 0;
    sum->count = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        sum->buckets[i] -= older->buckets[i] < sum->buckets[i] ? older->buckets[i] : sum->buckets[i];
        sum->count += sum->buckets[i];
        if (sum->buckets[i] > 0) most = histogram_floor_us(i + 1) - 1;
    }
    sum->sum_us -= older->sum_us < sum->sum_us ? older->sum_us : sum->sum_us;
    if (most < sum->max_us) sum->max_us = most;
}

/* Microseconds below which the share q (0 to 1) of all values lies; 0 if there are none. */
static inline uint64_t histogram_quantile(const struct histogram_sum *sum, double q)
{
    uint64_t rank = (uint64_t)(q * (double)sum->count), seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && sum->count > 0; i++) {
        seen += sum->buckets[i];
        if (seen <= rank && seen < sum->count) continue;
        uint64_t middle = (histogram_floor_us(i) + histogram_floor_us(i + 1)) / 2;
        return middle < sum->max_us ? middle : sum->max_us;
    }
    return 0;
}

#endif
