/* A thread that looks at the clock while Lua runs: when an entry may be over its budget it interrupts the thread of
 * Lua, again and again until the entry has ended.
 *
 *   the coordinator:  ---- watch_enter ==== Lua, or a system call of a C function ============ watch_leave ----
 *   the watch:        (sleeps) > looks when the budget may be used up > signal > signal ...     > (sleeps)
 *
 * The signal has no SA_RESTART, so that a read(2), open(2) or write(2) that blocks returns EINTR, and its handler lets
 * Lua's hook run before the next instruction. While no entry begins the watch sleeps without a timeout.
 *
 * Time that the coordinator has waited for a CPU is no time of the script's: the kernel counts it (schedstat). */
#ifndef SLUICE_LUA_ENGINE_WATCH_H
#define SLUICE_LUA_ENGINE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* An entry as the watch sees it. start_ns 0: none. */
struct watch_entry {
    uint64_t start_ns; /* monotonic */
    uint64_t budget_ns;
};

/* Starts the thread for the one that calls, on which all Lua runs. Counted: each open needs its close. */
void watch_open(void (*interrupt)(void));
void watch_close(void);
/* An entry has begun, or ended; entries of other states may lie around it. Returns the one that is hidden by it, to be
 * given to watch_leave(). */
struct watch_entry watch_enter(uint64_t start_ns, uint64_t budget_ns);
void watch_leave(struct watch_entry outer);
/* Nanoseconds that the thread of Lua has waited for a CPU so far. 0 for ever where the kernel does not tell. */
uint64_t watch_delay_ns(void);
/* The same as it was a short while ago, without a system call: not more than what watch_delay_ns() returns. */
uint64_t watch_delay_before_ns(void);

#endif
