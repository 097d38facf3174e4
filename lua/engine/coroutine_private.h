/* What coroutine.c and coroutine_tasks.c have of each other. */
#ifndef SLUICE_LUA_ENGINE_COROUTINE_PRIVATE_H
#define SLUICE_LUA_ENGINE_COROUTINE_PRIVATE_H

#include <lua.h>
#include <stdint.h>

struct engine;
struct park;
struct task;

/* The extra space of a coroutine: see coroutine.c. */
uintptr_t *thread_mark(lua_State *L);
/* Ends the operation; its coroutine goes on without it, or not at all. */
void park_abandon(struct park *park);
/* Resumes with `count` values on the stack of co, which is anchored by the caller. */
void coroutine_run(struct engine *e, lua_State *from, lua_State *co, int count);
/* Closes it, with what is to be closed in it. It stands on the stack of e->L, or is anchored otherwise. What is raised
 * meanwhile nobody can catch: it is logged, and stats().lasterror. */
void coroutine_close_thread(struct engine *e, lua_State *co);

/* Of a run: it has ended, with so many results, or with an error, which is on its stack. t: NULL for a script's own. */
void task_ended(struct engine *e, lua_State *co, struct task *t, int results);
void task_broken(struct engine *e, lua_State *co, struct task *t);

#endif
