/* Coroutines and what suspends them. The words, each for one thing:
 *
 *   entry      Lua runs, from engine_enter() to engine_leave() (entry.h)
 *   coroutine  Lua's; in C a lua_State, which lua.h calls a thread. Scripts make some, the engine others
 *   task       a coroutine that the engine has started, and what is to be done at its end (task.h)
 *   active     a task that has started and not ended
 *   parked     a coroutine that waits for an operation of C; the operation has a struct park
 *
 *   task_start > running --await.*: coroutine_park--> parked --its operation ends: coroutine_resume--> running > ended
 *
 * While it is parked a coroutine is anchored, so that only an operation keeps a coroutine alive: one that yields by
 * itself and that nobody holds is collected, and its question answered as a failure. Each coroutine waits for one thing
 * at a time. */
#ifndef SLUICE_LUA_ENGINE_COROUTINE_H
#define SLUICE_LUA_ENGINE_COROUTINE_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "lua/engine/entry.h"

struct park {
    /* The coroutine will not be resumed: its client is gone, or the process stops. Ends the operation and frees what
     * belongs to it; coroutine_resume() must not be called any more. */
    void (*abandon)(struct park *self);
    lua_State *L; /* the coroutine; NULL when nothing is parked */
    int anchor;   /* its place in the registry */
    struct engine *engine;
};

/* Raises `not in asynchronous routine` where the caller cannot yield, or for want of memory. Behind it coroutine_park()
 * does not raise: so it comes before anything that an error would lose. */
void coroutine_check(lua_State *L);
/* Parks the running coroutine. The caller starts the operation and returns lua_yieldk(L, 0, context, continuation). */
void coroutine_park(lua_State *L, struct park *park, void (*abandon)(struct park *self));
/* The operation is over. Runs the coroutine until it parks again or ends; every park, this one too, may be gone when it
 * returns. `result` is for the continuation alone, and stays the caller's, who keeps it until this returns; NULL: there
 * is nothing to say. Nobody pushes values onto a coroutine that waits: what Lua allocates there lies outside of every
 * entry, and may run finalizers. */
void coroutine_resume(struct park *park, const void *result);
/* The first call of a continuation that expects a result. NULL: a script has resumed the coroutine by itself, with
 * whatever values it liked. */
const void *coroutine_result(lua_State *L);
/* The operation could not even begin: undoes coroutine_park() in the same C function. */
void coroutine_unpark(struct park *park);
/* The operation whose park stands at that place (park.anchor), or NULL. */
struct park *coroutine_park_at(const struct engine *e, uint32_t place);

/* --- for who opens and closes states --- */

void coroutine_open(lua_State *L); /* entries of the registry; protected */
/* Ends the operation of every parked coroutine; none will be resumed. */
void coroutine_abandon_all(struct engine *e);
/* Closes every coroutine of the state, with what is to be closed in it; no other can begin or wait from now on. */
void coroutine_close_all(struct engine *e);
void coroutine_free(struct engine *e); /* there is no Lua any more */

#endif
