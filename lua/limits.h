/* What a script may use: memory (--memlimit) and the time of one entry (--lua-budget).
 *
 * Memory: each state counts its own, and all of them together have the limit. The allocator refuses to grow beyond it;
 * Lua collects what this state has left behind and tries again, then raises `not enough memory`. Outside of entries C
 * code of ours pushes values without protection: the limit does not bind it then.
 *
 * Time: a count hook looks at the clock. Once an entry is over its budget the hook runs at every instruction and raises
 * each time, and what catches errors passes this one on, until the entry has ended. What runs inside one call of a C
 * function cannot be interrupted, unless it allocates a lot; neither can finalizers, for which Lua switches hooks off.
 */
#ifndef SLUICE_LUA_LIMITS_H
#define SLUICE_LUA_LIMITS_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct limits {
    size_t bytes, blocks; /* given out */
    struct limits *whole; /* has what follows first, for all states together; may be this one itself */
    size_t bytes_all;
    size_t bytes_max; /* 0: no limit */
    /* Of this state. */
    uint32_t budget_ms; /* CPU time of one entry */
    bool entered;       /* between limits_enter() and limits_leave() */
    bool timed;         /* cpu_start_ns and look_ns are set */
    bool over;          /* the budget is used up */
    uint64_t cpu_start_ns;
    uint64_t look_ns; /* monotonic: before it the budget cannot be used up */
};

/* The lua_Alloc of a state whose `ud` begins with a struct limits. */
void *limits_allocate(void *ud, void *block, size_t old_size, size_t new_size);
/* Sets the hook on a thread; threads that it creates inherit it. Again at each start: scripts have debug.sethook(). */
void limits_watch(lua_State *L);
/* Lets the hook run before the thread's next instruction, and when a C function returns. For signal handlers. */
void limits_interrupt(lua_State *L);
/* `L` is the thread that runs from now on, of whatever state; returns the one before it, to be set again. */
lua_State *limits_run(lua_State *L);
/* That thread, NULL: no Lua runs. For signal handlers. It may be one that has resumed the one that runs:
 * coroutine.wrap() tells nobody. */
lua_State *limits_running(void);
/* Puts our pcall, xpcall and coroutine.resume in the place of Lua's: they do not hold up a budget's error. */
void limits_open(lua_State *L);
/* Raises if the budget is used up: for C functions that have caught an error. */
void limits_check(lua_State *L);
void limits_enter(struct limits *limits);
void limits_leave(struct limits *limits);
uint64_t limits_now_ns(void); /* monotonic */

#endif
