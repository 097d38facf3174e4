/* Tasks: coroutines that the engine itself starts, and whose outcome it delivers; coroutine.h has the words.
 * coroutine_tasks.c implements it. */
#ifndef SLUICE_LUA_ENGINE_TASK_H
#define SLUICE_LUA_ENGINE_TASK_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/io/list.h"

struct engine;
struct park;
struct task;

/* What a task does at its end. Exactly one of the two is called. */
struct task_class {
    /* The values from `first` on are the results, or the error if not ok. May raise as long as nothing is delivered. */
    void (*deliver)(struct task *t, lua_State *L, bool ok, int first);
    /* It will never end: collected, cancelled, or broken (why: a text). Does not raise. */
    void (*lost)(struct task *t, const char *why);
    lua_CFunction message; /* handles its errors; NULL: engine_message() */
    bool pooled;           /* nobody else has the coroutine: it is used again */
};

/* Not memory of Lua's, and without a finalizer: Lua drops a finalizer without a word when there is no memory or no
 * stack to call it. That a coroutine is gone is noticed by task_tend_all(). */
struct task {
    struct link link; /* in its engine's tasks */
    struct engine *engine;
    const struct task_class *class;
    void *owner;
    struct park *park; /* what it waits for, or NULL */
    bool active;       /* started and not at its end */
};

/* On the stack: what the class wants on its coroutine (or nil), a function, `arguments` values. Runs the function in a
 * coroutine until it waits or ends; the four become the coroutine. *started is written before it runs. Raises only
 * before it has started. */
void task_start(lua_State *L, const struct task_class *class, void *owner, int arguments, struct task **started);
/* Index on the coroutine's stack, within deliver(), of what the class wanted there. */
#define TASK_EXTRA 2
/* Why a coroutine is lost that nobody will resume. */
#define TASK_ABANDONED "coroutine was abandoned"
/* Closes the coroutine wherever it waits; lost() is called unless it had ended. */
void task_cancel(struct task *t, const char *why);
/* The task whose own coroutine L is; NULL: main thread, or a script's coroutine. */
struct task *task_of(lua_State *L);

void task_open(lua_State *L); /* entries of the registry; protected */
/* Between entries: ends the tasks whose coroutines have been collected or closed, or were run to their end by a script.
 * Every turn; looks ten times a second at most, and only if Lua has run since. */
void task_tend_all(struct engine *e);
void task_close_all(struct engine *e); /* cancels them; part of coroutine_close_all() */
void task_lose_all(struct engine *e);  /* before the state is closed; nothing is started any more */

#endif
