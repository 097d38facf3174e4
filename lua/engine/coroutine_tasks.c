#include "lua/engine/task.h"

#include <assert.h>
#include <stdlib.h>

#include "core/io/log.h"
#include "lua/engine/coroutine.h"
#include "lua/engine/coroutine_private.h"
#include "lua/engine/entry.h"
#include "lua/engine/limits.h"
#include "lua/engine/state.h"

/* Coroutines that wait to be used again. */
#define POOL_MAX 256
/* How often task_tend_all() looks. */
#define TEND_MS 100u

/* Keys of the registry. */
static const char pool_key, tasks_key;

struct task *task_of(lua_State *L)
{
    uintptr_t mark = *thread_mark(L);
    return mark & 1 ? NULL : (struct task *)mark;
}

/* --- the end --- */

static void task_leave(struct task *t)
{
    assert(t->active);
    t->active = false;
    t->engine->tasks.active--;
    if (t->park) park_abandon(t->park);
}

static void task_lose(struct task *t, const char *why)
{
    if (!t->active) return;
    task_leave(t);
    t->class->lost(t, why);
}

/* The coroutine, if it is still there: pushed onto e->L, else nil. */
static lua_State *task_push(const struct task *t)
{
    lua_State *L = t->engine->L;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
    lua_rawgetp(L, -1, t);
    lua_remove(L, -2);
    return lua_tothread(L, -1);
}

/* The coroutine does not know it any more. */
static void task_free(struct task *t)
{
    struct engine *e = t->engine;
    lua_State *co = task_push(t);
    assert(!t->active);
    if (co) {
        *thread_mark(co) = 0;
        lua_rawgetp(e->L, LUA_REGISTRYINDEX, &tasks_key);
        lua_pushnil(e->L);
        lua_rawsetp(e->L, -2, t); /* the key is there: no memory is needed */
        lua_pop(e->L, 1);
    }
    lua_pop(e->L, 1);
    link_remove(&t->link);
    free(t);
}

/* Behind the user's function, whoever has resumed it. A coroutine that the engine itself resumed returns its task's
 * address, which so stays on its stack for the next time. */
static int task_finish(lua_State *L, int status, lua_KContext context)
{
    struct task *t = task_of(L);
    struct engine *e = engine_of(L);
    (void)context;
    if (!t) return 0; /* cancelled, and run nevertheless: by a finalizer at the very end */
    if (t->active) {
        if (t->park) park_abandon(t->park);
        t->class->deliver(t, L, status == LUA_OK || status == LUA_YIELD, TASK_EXTRA + 2);
        task_leave(t);
    }
    lua_settop(L, 1);
    return e->coroutines.resumed == L && t->class->pooled ? 1 : 0;
}

/* On the stack: the task's address, extra, message handler, function, arguments. */
static int task_body(lua_State *L)
{
    int status = lua_pcallk(L, lua_gettop(L) - 4, LUA_MULTRET, 3, 0, task_finish);
    return task_finish(L, status, 0);
}

/* --- the pool, and what a run has come to --- */

static void pool_keep(struct engine *e, lua_State *co)
{
    lua_pushthread(co);
    lua_xmove(co, e->L, 1);
    lua_rawgetp(e->L, LUA_REGISTRYINDEX, &pool_key);
    lua_insert(e->L, -2);
    lua_rawseti(e->L, -2, ++e->tasks.pooled); /* the table has room since it was made */
    lua_pop(e->L, 1);
}

void task_ended(struct engine *e, lua_State *co, struct task *t, int results)
{
    if (t && t->class->pooled && results == 1 && e->tasks.pooled < POOL_MAX && lua_gettop(co) == 1) {
        pool_keep(e, co);
        return;
    }
    if (!t) return;
    lua_settop(co, 0); /* dead, for coroutine.status() */
    task_free(t);
}

void task_broken(struct engine *e, lua_State *co, struct task *t)
{
    int status;
    const char *text = engine_error_text(co, -1);
    if (t && t->active)
        task_lose(t, text);
    else
        LOG_LINES(LOG_LEVEL_ERROR, "coroutine: %s", text);
    engine_note_error(e, text);
    if (t) task_free(t);
    limits_close(co, &status);
}

/* --- starting --- */

/* Whether it is as we left it: a script that has kept it may have resumed or closed it. */
static bool pool_is_intact(lua_State *co)
{
    const void *task = lua_touserdata(co, 1);
    return lua_status(co) == LUA_OK && lua_gettop(co) == 1 && task && task == task_of(co);
}

/* Pushes a coroutine of the pool, or nothing: NULL. */
static lua_State *pool_take(lua_State *L, struct engine *e)
{
    while (e->tasks.pooled > 0) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &pool_key);
        lua_rawgeti(L, -1, e->tasks.pooled);
        lua_pushboolean(L, 0);
        lua_rawseti(L, -3, e->tasks.pooled--);
        lua_remove(L, -2);
        lua_State *co = lua_tothread(L, -1);
        if (pool_is_intact(co)) return co;
        lua_pop(L, 1);
    }
    return NULL;
}

/* Pushes a coroutine whose stack holds its task's address alone. */
static lua_State *task_take(lua_State *L, struct engine *e, bool pooled)
{
    lua_State *kept = pooled ? pool_take(L, e) : NULL;
    if (kept) return kept;
    lua_State *co = lua_newthread(L);
    struct task *t = calloc(1, sizeof *t);
    if (!t) {
        luaL_error(L, "not enough memory");
        return NULL;
    }
    t->engine = e;
    link_append(&e->tasks.all, &t->link); /* what raises from here on leaves it to task_tend_all() */
    lua_rawgetp(L, LUA_REGISTRYINDEX, &tasks_key);
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, t);
    lua_pop(L, 1);
    lua_pushlightuserdata(co, t);
    *thread_mark(co) = (uintptr_t)t;
    return co;
}

void task_start(lua_State *L, const struct task_class *class, void *owner, int arguments, struct task **started)
{
    struct engine *e = engine_of(L);
    int given = arguments + 2; /* extra and the function as well */
    luaL_checkstack(L, 6, NULL);
    if (e->closing) luaL_error(L, "the script is being ended");
    lua_State *co = task_take(L, e, class->pooled);
    lua_insert(L, -given - 1);
    if (!lua_checkstack(co, given + LUA_MINSTACK)) luaL_error(L, "stack overflow");
    struct task *t = task_of(co);
    lua_pushcfunction(co, task_body);
    lua_insert(co, 1);
    lua_xmove(L, co, given);
    lua_pushcfunction(co, class->message ? class->message : engine_message);
    lua_insert(co, -arguments - 2);
    t->class = class;
    t->owner = owner;
    t->active = true;
    if (++e->tasks.active > e->tasks.active_peak) e->tasks.active_peak = e->tasks.active;
    if (started) *started = t;
    coroutine_run(e, L, co, arguments + 4);
}

void task_cancel(struct task *t, const char *why)
{
    struct engine *e = t->engine;
    if (!t->active) return;
    lua_State *co = task_push(t);
    task_lose(t, why);
    task_free(t);
    if (co) {
        engine_enter(e);
        coroutine_close_thread(e, co);
        engine_leave(e);
    }
    lua_pop(e->L, 1);
}

/* Nothing will come of it any more. Only between entries: one that runs looks the same. */
static bool thread_is_over(lua_State *co)
{
    int status = co ? lua_status(co) : LUA_OK;
    return !co || (status != LUA_YIELD && (status != LUA_OK || lua_gettop(co) == 0));
}

/* What waits is anchored, and may have been closed by a script. */
static bool task_is_over(const struct task *t)
{
    if (t->park) return thread_is_over(t->park->L);
    bool over = thread_is_over(task_push(t));
    lua_pop(t->engine->L, 1);
    return over;
}

static void task_tend(struct task *t)
{
    struct engine *e = t->engine;
    if (!task_is_over(t)) return;
    engine_enter(e);
    task_lose(t, TASK_ABANDONED);
    task_free(t);
    engine_leave(e);
}

void task_tend_all(struct engine *e)
{
    uint64_t now = coordinator_now_ms(e->c);
    if (e->entries.count == e->tasks.tended_entries || now < e->tasks.tend_ms) return;
    for (struct link *link = e->tasks.all.next, *next; link != &e->tasks.all; link = next) {
        struct task *t = link_owner(link, struct task, link);
        next = link->next;
        task_tend(t);
    }
    e->tasks.tend_ms = now + TEND_MS;
    e->tasks.tended_entries = e->entries.count;
}

void task_close_all(struct engine *e)
{
    while (!link_is_empty(&e->tasks.all)) { /* nothing is added to them any more */
        struct task *t = link_owner(link_take_first(&e->tasks.all), struct task, link);
        if (t->active)
            task_cancel(t, TASK_ABANDONED);
        else
            task_free(t);
    }
}

void task_lose_all(struct engine *e)
{
    while (!link_is_empty(&e->tasks.all)) {
        struct task *t = link_owner(link_take_first(&e->tasks.all), struct task, link);
        task_lose(t, TASK_ABANDONED);
        task_free(t);
    }
}

void task_open(lua_State *L)
{
    lua_createtable(L, POOL_MAX, 0);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &pool_key);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &tasks_key);
}
