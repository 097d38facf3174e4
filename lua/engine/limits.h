/* What a script may use: memory (--memlimit) and the time of one entry (--lua-budget).
 *
 * Memory: each state counts its own, and all of them together have the limit. The allocator refuses to grow beyond it;
 * Lua collects what this state has left behind and tries again, then raises `not enough memory`. Outside of entries C
 * code of ours pushes values without protection: the limit does not bind it then.
 *
 * Time: of one entry, that is CPU time and what system calls of its C functions wait, but not what the thread waits for
 * a CPU. A count hook looks at the clock, and the watch (watch.h) brings it on when the budget may be used up. Once an
 * entry is over its budget the hook runs at every instruction and raises each time, and what catches errors passes this
 * one on, until the entry has ended. C functions that may run long look themselves: limits_step(), limits_spend(). */
#ifndef SLUICE_LUA_ENGINE_LIMITS_H
#define SLUICE_LUA_ENGINE_LIMITS_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lua/engine/watch.h"

struct limits {
    size_t bytes, blocks; /* given out */
    struct limits *whole; /* has what follows first, for all states together; may be this one itself */
    size_t bytes_all;
    size_t bytes_max; /* 0: no limit */
    /* Of this state. */
    uint32_t budget_ms; /* time of one entry */
    bool entered;       /* between limits_enter() and limits_leave() */
    bool over;          /* the budget is used up */
    bool ending;        /* no, but the script has ended the process */
    uint64_t start_ns;  /* monotonic */
    uint64_t look_ns;   /* monotonic: before it the budget cannot be used up */
    uint64_t delay_start_ns;
    struct watch_entry outer;
};

/* Those of a thread's state. */
struct limits *limits_of(lua_State *L);
/* The lua_Alloc of a state whose `ud` begins with a struct limits. */
void *limits_allocate(void *ud, void *block, size_t old_size, size_t new_size);
/* Sets the hook on a thread; threads that it creates inherit it. Again at each start: scripts have debug.sethook(). */
void limits_watch(lua_State *L);
/* `L` is the thread that runs from now on, of whatever state; returns the one before it, for limits_ran(). */
lua_State *limits_run(lua_State *L);
/* `L` has stopped running, and stands where it stopped; `before` runs again. */
void limits_ran(lua_State *L, lua_State *before);
/* Who wants to read the stack of the thread that runs; one at a time, NULL: nobody any more. `samples`: how often it
 * was asked for since it was last taken. Called between two instructions, or when a run ends; it may not raise. */
void limits_set_sampler(void (*take)(lua_State *L, unsigned samples));
/* Has so many samples taken of the thread that runs. False: no Lua runs. For signal handlers. */
bool limits_sample(unsigned samples);
/* Puts our pcall, xpcall and coroutine.resume, wrap and close in the place of Lua's: they do not hold up a budget's
 * error, and nothing runs in them where hooks are off. */
void limits_open(lua_State *L);
/* lua_resume() of a coroutine that runs a finalizer with its object, an entry of its own where there is none. */
int limits_run_finalizer(lua_State *co, lua_State *from, int *results);
/* lua_resetthread(), with what is to be closed in it, unless the budget has ended the coroutine: hooks are off in it
 * for ever then, so that nothing may run there any more. Whether it was closed; its status is in *status. */
bool limits_close(lua_State *co, int *status);
/* Raises if the budget is used up: for C functions that have caught an error. */
void limits_check(lua_State *L);
/* Looks at the clock, and raises if the budget is used up: for C functions that have taken long. */
void limits_spend(lua_State *L);
/* Raises an error that ends the entry as the budget's does: the script is not to go on. Does not return. */
int limits_end(lua_State *L);
bool limits_look(struct limits *limits); /* the same without raising */
/* For the loops of C functions: a step is some nanoseconds. */
#define LIMITS_STEPS 4096u
struct limits_meter {
    lua_State *L;
    uint32_t left; /* steps until the next look; begin with LIMITS_STEPS */
};
static inline void limits_step(struct limits_meter *meter, uint32_t steps)
{
    if (meter->left > steps) {
        meter->left -= steps;
        return;
    }
    meter->left = LIMITS_STEPS;
    limits_spend(meter->L);
}
/* The watch over entries: open while there is a state. */
void limits_watch_open(void);
void limits_watch_close(void);
void limits_enter(struct limits *limits, uint64_t now_ns);
void limits_leave(struct limits *limits);
uint64_t limits_now_ns(void); /* monotonic */

#endif
