/* Fixed slots with generations: memory taken once, handed out and returned in O(1), last in first out so that hot slots
 * stay hot.
 *
 * A slot's generation grows each time it is given back, so that a tag (slot, generation) of an earlier owner is
 * recognised. The first use of a slot touches its memory, not the start of the program: what was never needed is never
 * resident. */
#ifndef SLUICE_CORE_IO_POOL_H
#define SLUICE_CORE_IO_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POOL_NONE UINT32_MAX

struct pool {
    uint8_t *slots;        /* count * slot_size octets, mapped, zeroed by the kernel */
    uint32_t *generations; /* per slot, 24 bits used */
    uint32_t *next_free;   /* per slot; POOL_NONE ends, see pool.c for the mark of a taken one */
    uint32_t slot_size;    /* octets, rounded up to 64 */
    uint32_t count;
    uint32_t used; /* slots taken */
    uint32_t used_peak;
    uint32_t used_high; /* most since it was trimmed */
    uint32_t first_free;
    uint32_t untouched; /* slots from here on were never handed out */
};

int pool_open(struct pool *pool, uint32_t count, size_t slot_size); /* 0 or -ENOMEM */
void pool_close(struct pool *pool);
/* A slot's index, or POOL_NONE when none is free. Its contents are what its last owner left (zero at first). */
uint32_t pool_take(struct pool *pool);
void pool_give(struct pool *pool, uint32_t slot); /* asserts that it was taken */
/* After a burst: gives the memory of free slots back to the system. No effect while a quarter of the slots that were
 * taken at the same time still are, or while little was touched. Contents are zero again, generations go on. */
void pool_trim(struct pool *pool);
uint32_t pool_generation(const struct pool *pool, uint32_t slot);
bool pool_is_taken(const struct pool *pool, uint32_t slot);

static inline void *pool_at(const struct pool *pool, uint32_t slot)
{
    return pool->slots + (size_t)slot * pool->slot_size;
}

/* The slot in which `inside`, a pointer into one of the pool's slots, lies. */
static inline uint32_t pool_slot_of(const struct pool *pool, const void *inside)
{
    return (uint32_t)((size_t)((const uint8_t *)inside - pool->slots) / pool->slot_size);
}

#endif
