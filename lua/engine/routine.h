/* Routines: coroutines that the engine itself starts, and whose results it delivers. */
#ifndef SLUICE_LUA_ENGINE_ROUTINE_H
#define SLUICE_LUA_ENGINE_ROUTINE_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/io/list.h"

struct engine;
struct park;

/* A coroutine that waits. A free place has no park and names the next free one. */
struct parked {
    struct park *park;
    lua_CFunction where; /* it waits in: a script may have resumed it by itself, so that it waits elsewhere now */
    uint32_t next_free;
};

/* Part of struct engine; its owner is coroutine.c. */
struct coroutines {
    lua_State *resumed; /* by us, at this moment: a routine that ends otherwise was resumed by a script */
    const void *result; /* of the operation it waited for; its continuation takes it */
    struct parked *parked;
    uint32_t parked_size, parked_free, parked_count;
    struct link routines;    /* all records, those of the pool as well */
    uint64_t tended_entries; /* how many there had been when coroutine_tend() last looked */
    uint64_t tend_ms;        /* not before */
    int pooled;              /* coroutines in the pool */
    uint64_t active, active_peak;
};

struct routine;
/* What a coroutine of ours does at its end. Exactly one of the two is called. */
struct routine_class {
    /* The values from `first` on are the results, or the error if not ok. May raise as long as nothing is delivered. */
    void (*deliver)(struct routine *r, lua_State *L, bool ok, int first);
    /* It will never end: collected, cancelled, or broken (why: a text). Does not raise. */
    void (*lost)(struct routine *r, const char *why);
    lua_CFunction message; /* handles its errors; NULL: engine_message() */
    bool pooled;           /* nobody else has the coroutine: it is used again */
};
/* Not memory of Lua's, and without a finalizer: Lua drops a finalizer without a word when there is no memory or no
 * stack to call it. That a coroutine is gone is noticed by coroutine_tend(). */
struct routine {
    struct link link; /* in its engine's routines */
    struct engine *engine;
    const struct routine_class *class;
    void *owner;
    struct park *park; /* what it waits for, or NULL */
    bool live;         /* started and not at its end */
};

int coroutine_open(lua_State *L); /* registry entries; protected */
/* Between entries: ends the routines whose coroutines have been collected or closed, or were run to their end by a
 * script. Every turn; looks ten times a second at most, and only if Lua has run since. */
void coroutine_tend(struct engine *e);
void coroutine_lose_all(struct engine *e); /* before the state is closed; nothing is started any more */
void coroutine_close(struct engine *e);
/* Ends the operation of every parked coroutine; none will be resumed. */
void coroutine_abandon_all(struct engine *e);
/* Closes every coroutine of the state, with what is to be closed in it; no other can begin or wait from now on. */
void coroutine_close_all(struct engine *e);
/* On the stack: what the class wants on its coroutine (or nil), a function, `arguments` values. Runs the function in a
 * coroutine until it waits or ends; the four become the coroutine. *started is written before it runs. Raises only
 * before it has started. */
void routine_start(lua_State *L, const struct routine_class *class, void *owner, int arguments,
                   struct routine **started);
/* Index on the coroutine's stack, within deliver(), of what the class wanted there. */
#define ROUTINE_EXTRA 2
/* Why a coroutine is lost that nobody will resume. */
#define ROUTINE_ABANDONED "coroutine was abandoned"
/* Closes the coroutine wherever it waits; lost() is called unless it had ended. */
void routine_cancel(struct routine *r, const char *why);
/* The routine whose own coroutine L is; NULL: main thread, or a script's coroutine. */
struct routine *routine_of(lua_State *L);

#endif
