#include "core/control/waiters.h"

#include <assert.h>
#include <time.h>

#include "core/control/coordinator_private.h"
#include "core/control/workers.h"

int waiters_open(struct coordinator *c)
{
    int error = pool_open(&c->waiters, COORDINATOR_WAITERS_MAX, sizeof(struct waiter *));
    return error < 0 ? error : timer_open(&c->timers, COORDINATOR_WAITERS_MAX, ring_now_us(c->ring), 1);
}

void waiters_close(struct coordinator *c)
{
    if (c->timers) timer_close(c->timers);
    if (c->waiters.slots) pool_close(&c->waiters);
}

static struct waiter **waiter_at(const struct coordinator *c, uint32_t slot)
{
    return pool_at(&c->waiters, slot);
}

bool coordinator_attach(struct coordinator *c, struct waiter *waiter)
{
    waiter->slot = pool_take(&c->waiters);
    if (waiter->slot == POOL_NONE) return false;
    *waiter_at(c, waiter->slot) = waiter;
    return true;
}

void coordinator_detach(struct coordinator *c, struct waiter *waiter)
{
    assert(waiter->slot != POOL_NONE && *waiter_at(c, waiter->slot) == waiter);
    timer_clear(c->timers, waiter->slot);
    *waiter_at(c, waiter->slot) = NULL;
    pool_give(&c->waiters, waiter->slot);
    waiter->slot = POOL_NONE;
}

struct ring_tag coordinator_tag(const struct coordinator *c, const struct waiter *waiter, unsigned op)
{
    assert(op < COORDINATOR_WAITER_OPS && waiter->slot != POOL_NONE);
    return (struct ring_tag){.op = (uint8_t)(COORDINATOR_OP_WAITER + op),
                             .generation = pool_generation(&c->waiters, waiter->slot),
                             .slot = waiter->slot};
}

/* --- time --- */

/* The ring's clock as it is now; ring_now_us() is as old as this turn. */
static uint64_t clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

void coordinator_set_deadline(struct coordinator *c, struct waiter *waiter, uint64_t deadline_ms)
{
    coordinator_set_deadline_us(c, waiter, deadline_ms > UINT64_MAX / 1000 ? UINT64_MAX : deadline_ms * 1000);
}

void coordinator_set_deadline_us(struct coordinator *c, struct waiter *waiter, uint64_t deadline_us)
{
    assert(waiter->slot != POOL_NONE);
    /* What has become due by another's end is for the next turn: two that end each other would hold this one for ever.
     */
    if (c->expiring && deadline_us <= ring_now_us(c->ring)) deadline_us = ring_now_us(c->ring) + 1;
    timer_set(c->timers, waiter->slot, deadline_us);
}

void coordinator_clear_deadline(struct coordinator *c, struct waiter *waiter)
{
    assert(waiter->slot != POOL_NONE);
    timer_clear(c->timers, waiter->slot);
}

uint64_t coordinator_after_ms(uint64_t wait_ms)
{
    return clock_us() / 1000 + 1 + wait_ms;
}

uint64_t coordinator_after_us(uint64_t wait_us)
{
    return clock_us() + wait_us;
}

/* --- the loop's --- */

void waiters_on_completion(struct coordinator *c, const struct ring_completion *completion)
{
    assert(pool_generation(&c->waiters, completion->tag.slot) == completion->tag.generation);
    struct waiter *waiter = *waiter_at(c, completion->tag.slot);
    assert(waiter && waiter->slot == completion->tag.slot);
    coordinator_wake_workers(c);
    waiter->on_completion(waiter, completion->tag.op - COORDINATOR_OP_WAITER, completion);
}

void waiters_expire(struct coordinator *c)
{
    uint64_t now = ring_now_us(c->ring);
    c->expiring = true;
    for (uint32_t slot; (slot = timer_expire(c->timers, now)) != TIMER_NONE;) {
        struct waiter *waiter = *waiter_at(c, slot);
        coordinator_wake_workers(c);
        waiter->on_time(waiter);
    }
    c->expiring = false;
}

uint64_t waiters_wait_us(const struct coordinator *c)
{
    return timer_wait_exact(c->timers, clock_us());
}
