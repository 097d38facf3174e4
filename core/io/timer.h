/* A hierarchical timer wheel: one timer per slot of some pool, O(1) to set, move and clear; no allocation after open.
 *
 * Its owner chooses the unit of time and how many of them are one tick, the wheel's resolution: workers count
 * ring_now_ms() in ticks of TIMER_TICK_MS, since each tick may cost them a wake-up; the coordinator counts
 * ring_now_us() in ticks of one. A timer never fires early. Deadlines may be days away. */
#ifndef SLUICE_CORE_IO_TIMER_H
#define SLUICE_CORE_IO_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#define TIMER_TICK_MS 8u
#define TIMER_NONE    UINT32_MAX

struct timer_wheel; /* opaque */

/* `count` timers, all clear, the clock at `now`, a tick of `tick` units. 0 or -ENOMEM. Memory: at most 24 octets per
 * timer, touched on first use. */
int timer_open(struct timer_wheel **out, uint32_t count, uint64_t now, uint32_t tick);
void timer_close(struct timer_wheel *wheel);
void timer_set(struct timer_wheel *wheel, uint32_t timer, uint64_t deadline); /* replaces an earlier deadline */
void timer_clear(struct timer_wheel *wheel, uint32_t timer);                  /* fine if it is not set */
bool timer_is_set(const struct timer_wheel *wheel, uint32_t timer);
/* A timer whose deadline is <= now, cleared by this; TIMER_NONE when there is none left. Called in a loop; the owner
 * may set and clear timers between the calls. */
uint32_t timer_expire(struct timer_wheel *wheel, uint64_t now);
/* How long ring_wait() may sleep from `now` on: until something may expire, UINT64_MAX when nothing is set. May be too
 * short (a level of the wheel turns), never too long by more than a tick. */
uint64_t timer_wait(const struct timer_wheel *wheel, uint64_t now);
/* The same, but exact as long as few timers lie near the next one. It looks at up to sixteen timers: for owners whose
 * turn costs more than that. */
uint64_t timer_wait_exact(const struct timer_wheel *wheel, uint64_t now);

#endif
