/* A counter with one writer and any number of readers: relaxed atomics, which on our CPUs are plain loads and stores.
 */
#ifndef SLUICE_CORE_IO_COUNTER_H
#define SLUICE_CORE_IO_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t counter;

/* Only the owner calls this: a load and a store, no locked instruction. */
static inline void counter_add(counter *c, uint64_t amount)
{
    uint64_t now = atomic_load_explicit(c, memory_order_relaxed);
    atomic_store_explicit(c, now + amount, memory_order_relaxed);
}

static inline void counter_subtract(counter *c, uint64_t amount)
{
    counter_add(c, 0 - amount);
}

static inline void counter_set(counter *c, uint64_t value)
{
    atomic_store_explicit(c, value, memory_order_relaxed);
}

static inline uint64_t counter_read(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

#endif
