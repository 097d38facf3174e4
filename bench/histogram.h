/* Times: a histogram with 32 steps in each power of two of nanoseconds: 3 % apart, whatever the size. */
#ifndef SLUICE_BENCH_HISTOGRAM_H
#define SLUICE_BENCH_HISTOGRAM_H

#include <stdint.h>

enum { STEPS_LOG2 = 5, STEPS = 1 << STEPS_LOG2, BUCKETS = (64 - STEPS_LOG2) * STEPS };

struct histogram {
    uint64_t count;
    uint64_t buckets[BUCKETS];
};

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
    if (ns < STEPS) ns = STEPS;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns) - STEPS_LOG2;
    h->buckets[power * STEPS + (ns >> power) - STEPS]++;
    h->count++;
}

static inline double histogram_quantile_us(const struct histogram *h, double quantile)
{
    uint64_t wanted = (uint64_t)((double)h->count * quantile), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted) return (double)((uint64_t)(i % STEPS + STEPS) << (i / STEPS)) / 1000.0;
    }
    return 0;
}

#endif
