#include "lua/engine/coroutine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "lua/engine/coroutine_private.h"
#include "lua/engine/entry.h"
#include "lua/engine/limits.h"
#include "lua/engine/state.h"
#include "lua/engine/task.h"

/* Key of the registry. */
static const char parked_key;

/* The extra space of a thread has its task, or for a coroutine that a script has made the place in which it is
 * parked, as an odd number; 0: neither. */
uintptr_t *thread_mark(lua_State *L)
{
    static_assert(LUA_EXTRASPACE >= sizeof(uintptr_t), "a thread has room for its mark");
    return lua_getextraspace(L);
}

static uintptr_t place_mark(int place)
{
    return (uintptr_t)place << 1 | 1;
}

/* --- parking --- */

static int parked_grow(struct engine *e)
{
    uint32_t size = e->coroutines.parked_size ? e->coroutines.parked_size * 2 : 64;
    struct parked *bigger = realloc(e->coroutines.parked, size * sizeof *bigger);
    if (!bigger) return -1;
    for (uint32_t i = e->coroutines.parked_size; i < size; i++)
        bigger[i] = (struct parked){.next_free = i + 1 < size ? i + 1 : UINT32_MAX};
    e->coroutines.parked = bigger;
    e->coroutines.parked_free = e->coroutines.parked_size;
    e->coroutines.parked_size = size;
    return 0;
}

/* The next place is there, in the registry's table too: parking needs no more memory. */
static void parked_reserve(lua_State *L, struct engine *e)
{
    if (e->coroutines.parked_free == UINT32_MAX && parked_grow(e) < 0) luaL_error(L, "not enough memory");
    luaL_checkstack(L, 8, NULL);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &parked_key);
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, (lua_Integer)e->coroutines.parked_free + 1);
    lua_pop(L, 1);
}

void coroutine_check(lua_State *L)
{
    struct engine *e = engine_of(L);
    if (!lua_isyieldable(L)) luaL_error(L, "not in asynchronous routine");
    if (e->closing) luaL_error(L, "the script is being ended");
    parked_reserve(L, e);
}

/* The C function that is running: the one that is about to yield. */
static lua_CFunction running_function(lua_State *L)
{
    lua_Debug where;
    if (!lua_getstack(L, 0, &where) || !lua_getinfo(L, "f", &where)) return NULL;
    lua_CFunction function = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    return function;
}

/* What the thread is parked for, or NULL: one thing at a time, whoever has made it. */
static struct park *thread_park(struct engine *e, lua_State *L)
{
    const struct task *t = task_of(L);
    uintptr_t mark = *thread_mark(L);
    if (t) return t->park;
    return mark & 1 ? e->coroutines.parked[mark >> 1].park : NULL;
}

static void thread_set_park(lua_State *L, struct park *park)
{
    struct task *t = task_of(L);
    if (t)
        t->park = park;
    else
        *thread_mark(L) = park ? place_mark(park->anchor) : 0;
}

/* Takes the park off; the coroutine is no longer anchored. */
static void park_release(struct park *park)
{
    struct engine *e = park->engine;
    struct parked *place = &e->coroutines.parked[park->anchor];
    assert(place->park == park);
    lua_rawgetp(e->L, LUA_REGISTRYINDEX, &parked_key);
    lua_pushboolean(e->L, 0); /* not nil: the place stays, so that the next one there needs no memory */
    lua_rawseti(e->L, -2, (lua_Integer)park->anchor + 1);
    lua_pop(e->L, 1);
    *place = (struct parked){.next_free = e->coroutines.parked_free};
    e->coroutines.parked_free = (uint32_t)park->anchor;
    e->coroutines.parked_count--;
    thread_set_park(park->L, NULL);
    park->L = NULL;
}

void park_abandon(struct park *park)
{
    void (*abandon)(struct park * self) = park->abandon;
    park_release(park);
    abandon(park);
}

void coroutine_park(lua_State *L, struct park *park, void (*abandon)(struct park *self))
{
    struct engine *e = engine_of(L);
    coroutine_check(L);
    struct park *stale = thread_park(e, L);
    if (stale) park_abandon(stale); /* a script resumed it by itself */
    uint32_t place = e->coroutines.parked_free;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &parked_key);
    lua_pushthread(L);
    lua_rawseti(L, -2, (lua_Integer)place + 1);
    lua_pop(L, 1);
    e->coroutines.parked_free = e->coroutines.parked[place].next_free;
    e->coroutines.parked[place] = (struct parked){.park = park, .where = running_function(L)};
    e->coroutines.parked_count++;
    *park = (struct park){.abandon = abandon, .L = L, .anchor = (int)place, .engine = e};
    thread_set_park(L, park);
}

struct park *coroutine_park_at(const struct engine *e, uint32_t place)
{
    return place < e->coroutines.parked_size ? e->coroutines.parked[place].park : NULL;
}

void coroutine_unpark(struct park *park)
{
    park_release(park);
}

void coroutine_abandon_all(struct engine *e)
{
    for (uint32_t i = 0; i < e->coroutines.parked_size; i++)
        if (e->coroutines.parked[i].park) park_abandon(e->coroutines.parked[i].park);
}

/* --- running --- */

void coroutine_run(struct engine *e, lua_State *from, lua_State *co, int count)
{
    lua_State *outer = e->coroutines.resumed, *ran = limits_run(co);
    int results = 0;
    limits_watch(co);
    e->coroutines.resumed = co;
    int status = lua_resume(co, from, count, &results);
    e->coroutines.resumed = outer;
    limits_ran(co, ran);
    if (status == LUA_YIELD)
        lua_pop(co, results);
    else if (status == LUA_OK)
        task_ended(e, co, task_of(co), results);
    else
        task_broken(e, co, task_of(co));
}

/* Whether the coroutine still waits where it parked. Only a script that resumes what is not its own makes a difference.
 */
static bool park_is_waited_for(const struct park *park)
{
    lua_State *L = park->L;
    if (lua_status(L) != LUA_YIELD) return false;
    lua_CFunction function = running_function(L);
    return function == park->engine->coroutines.parked[park->anchor].where;
}

const void *coroutine_result(lua_State *L)
{
    struct engine *e = engine_of(L);
    const void *result = e->coroutines.result;
    e->coroutines.result = NULL;
    return result;
}

void coroutine_resume(struct park *park, const void *result)
{
    struct engine *e = park->engine;
    lua_State *co = park->L;
    bool waited_for = park_is_waited_for(park);
    lua_pushthread(co);
    lua_xmove(co, e->L, 1); /* the anchor while it runs */
    park_release(park);
    if (waited_for && !e->closing) {
        engine_enter(e);
        e->coroutines.result = result;
        coroutine_run(e, e->L, co, 0);
        e->coroutines.result = NULL;
        engine_leave(e);
    }
    lua_pop(e->L, 1);
}

/* --- opening and closing --- */

void coroutine_close_thread(struct engine *e, lua_State *co)
{
    int status;
    bool waits = lua_status(co) == LUA_YIELD; /* else it has ended, and the error is the one that it ended with */
    if (!limits_close(co, &status)) return;
    if (waits && status != LUA_OK) {
        const char *text = engine_error_text(co, -1);
        LOG_LINES(LOG_LEVEL_ERROR, "coroutine, while it was closed: %s", text);
        engine_note_error(e, text);
    }
    lua_settop(co, 0);
}

/* Those that scripts have made by themselves. What is closed with one cannot make others wait: see coroutine_check().
 */
static void threads_close_parked(struct engine *e)
{
    for (uint32_t i = 0; i < e->coroutines.parked_size; i++) {
        struct park *park = e->coroutines.parked[i].park;
        if (!park) continue;
        lua_State *co = park->L;
        lua_pushthread(co);
        lua_xmove(co, e->L, 1);
        park_abandon(park);
        coroutine_close_thread(e, co);
        lua_pop(e->L, 1);
    }
}

void coroutine_close_all(struct engine *e)
{
    e->closing = true;
    engine_enter(e); /* all of it has the time of one entry */
    lua_checkstack(e->L, 8);
    task_close_all(e);
    threads_close_parked(e);
    engine_leave(e);
}

void coroutine_open(lua_State *L)
{
    engine_of(L)->coroutines.parked_free = UINT32_MAX;
    *thread_mark(L) = 0; /* inherited by what scripts create */
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &parked_key);
}

void coroutine_free(struct engine *e)
{
    free(e->coroutines.parked);
}
