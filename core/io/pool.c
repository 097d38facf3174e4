/* The free list is threaded through next_free[], beside the slots and not inside them: what a session left behind in
 * its slot stays readable for a debugger, and a write after release cannot break the list.
 *
 *     0 ........... untouched ............. count
 *     taken or on the free list | zeroed by the kernel, never resident */
#include "core/io/pool.h"

#include "core/io/memory.h"
#include "core/io/ring.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define POOL_TAKEN     (UINT32_MAX - 1) /* in next_free[] */
#define POOL_TRIM_MIN  256u             /* slots: fewer are not worth a system call */
#define POOL_ALIGNMENT 64u              /* a cache line: two slots never share one */

static size_t pool_index_size(const struct pool *pool)
{
    return (size_t)pool->count * sizeof(uint32_t);
}

int pool_open(struct pool *pool, uint32_t count, size_t slot_size)
{
    assert(count > 0 && count < POOL_TAKEN);
    assert(slot_size > 0 && slot_size <= UINT32_MAX - POOL_ALIGNMENT);
    size_t rounded = (slot_size + POOL_ALIGNMENT - 1) / POOL_ALIGNMENT * POOL_ALIGNMENT;
    *pool = (struct pool){.slot_size = (uint32_t)rounded, .count = count, .first_free = POOL_NONE};
    if (rounded > SIZE_MAX / count) return -ENOMEM;

    pool->slots = memory_map(rounded * count);
    pool->generations = memory_map(pool_index_size(pool));
    pool->next_free = memory_map(pool_index_size(pool));
    if (pool->slots != NULL && pool->generations != NULL && pool->next_free != NULL) return 0;
    pool_close(pool);
    return -ENOMEM;
}

void pool_close(struct pool *pool)
{
    if (pool->slots != NULL) munmap(pool->slots, (size_t)pool->slot_size * pool->count);
    if (pool->generations != NULL) munmap(pool->generations, pool_index_size(pool));
    if (pool->next_free != NULL) munmap(pool->next_free, pool_index_size(pool));
    *pool = (struct pool){.first_free = POOL_NONE};
}

/* Slots that were in use before come first: their memory is resident, and probably still in a cache. */
static uint32_t pool_pick(struct pool *pool)
{
    uint32_t slot = pool->first_free;
    if (slot != POOL_NONE) {
        pool->first_free = pool->next_free[slot];
        return slot;
    }
    return pool->untouched < pool->count ? pool->untouched++ : POOL_NONE;
}

uint32_t pool_take(struct pool *pool)
{
    uint32_t slot = pool_pick(pool);
    if (slot == POOL_NONE) {
        assert(pool->used == pool->count);
        return POOL_NONE;
    }
    assert(slot < pool->untouched);
    pool->next_free[slot] = POOL_TAKEN;
    if (++pool->used > pool->used_peak) pool->used_peak = pool->used;
    if (pool->used > pool->used_high) pool->used_high = pool->used;
    return slot;
}

/* The generation wraps: a tag that survives 2^24 lives of its slot is no danger, because an operation in flight pins
 * the slot. */
void pool_give(struct pool *pool, uint32_t slot)
{
    assert(pool_is_taken(pool, slot));
    assert(pool->used > 0);
    pool->generations[slot] = (pool->generations[slot] + 1) & RING_GENERATION_MAX;
    pool->next_free[slot] = pool->first_free;
    pool->first_free = slot;
    pool->used--;
}

/* The pages between slots that are taken. Slots smaller than a page are given back by the run. */
static void pool_give_back_free(struct pool *pool)
{
    for (uint32_t slot = 0; slot < pool->untouched;) {
        uint32_t first = slot;
        while (slot < pool->untouched && !pool_is_taken(pool, slot)) slot++;
        if (slot > first) memory_give_back(pool_at(pool, first), (size_t)(slot - first) * pool->slot_size);
        slot++;
    }
}

/* A walk over the slots is paid for by as many slots given, but for a factor. */
void pool_trim(struct pool *pool)
{
    uint32_t fallen = pool->used_high - pool->used;
    if (pool->used > 0 && (fallen < POOL_TRIM_MIN || fallen < pool->untouched / 8 || pool->used > pool->used_high / 4))
        return;
    if (pool->used == 0 && pool->untouched < POOL_TRIM_MIN) return;
    pool_give_back_free(pool);
    pool->used_high = pool->used;
    if (pool->used > 0) return;
    pool->first_free = POOL_NONE;
    pool->untouched = 0;
}

uint32_t pool_generation(const struct pool *pool, uint32_t slot)
{
    assert(slot < pool->count);
    return pool->generations[slot];
}

bool pool_is_taken(const struct pool *pool, uint32_t slot)
{
    assert(slot < pool->count);
    return slot < pool->untouched && pool->next_free[slot] == POOL_TAKEN;
}
