#include "lua/engine/coroutine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "lua/engine/state.h"

/* Coroutines that wait to be used again. */
#define POOL_MAX 256
/* How often coroutine_tend() looks. */
#define TEND_MS 100u

/* Keys of the registry. */
static const char parked_key, pool_key, live_key;

struct engine *engine_of(lua_State *L)
{
    void *ud;
    lua_getallocf(L, &ud);
    return ud;
}

/* The extra space of a thread has its routine, or for a coroutine that a script has made the place in which it is
 * parked, as an odd number; 0: neither. */
static uintptr_t *thread_mark(lua_State *L)
{
    static_assert(LUA_EXTRASPACE >= sizeof(uintptr_t), "a thread has room for its mark");
    return lua_getextraspace(L);
}

static uintptr_t place_mark(int place)
{
    return (uintptr_t)place << 1 | 1;
}

struct routine *routine_of(lua_State *L)
{
    uintptr_t mark = *thread_mark(L);
    return mark & 1 ? NULL : (struct routine *)mark;
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
    const struct routine *r = routine_of(L);
    uintptr_t mark = *thread_mark(L);
    if (r) return r->park;
    return mark & 1 ? e->coroutines.parked[mark >> 1].park : NULL;
}

static void thread_set_park(lua_State *L, struct park *park)
{
    struct routine *r = routine_of(L);
    if (r)
        r->park = park;
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

/* Ends the operation; its coroutine goes on without it, or not at all. */
static void park_abandon(struct park *park)
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

/* --- a coroutine's end --- */

static void routine_leave(struct routine *r)
{
    assert(r->live);
    r->live = false;
    r->engine->coroutines.active--;
    if (r->park) park_abandon(r->park);
}

static void routine_lose(struct routine *r, const char *why)
{
    if (!r->live) return;
    routine_leave(r);
    r->class->lost(r, why);
}

/* The coroutine, if it is still there: pushed onto e->L, else nil. */
static lua_State *routine_push(const struct routine *r)
{
    lua_State *L = r->engine->L;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &live_key);
    lua_rawgetp(L, -1, r);
    lua_remove(L, -2);
    return lua_tothread(L, -1);
}

/* The coroutine does not know it any more. */
static void routine_free(struct routine *r)
{
    struct engine *e = r->engine;
    lua_State *co = routine_push(r);
    assert(!r->live);
    if (co) {
        *thread_mark(co) = 0;
        lua_rawgetp(e->L, LUA_REGISTRYINDEX, &live_key);
        lua_pushnil(e->L);
        lua_rawsetp(e->L, -2, r); /* the key is there: no memory is needed */
        lua_pop(e->L, 1);
    }
    lua_pop(e->L, 1);
    link_remove(&r->link);
    free(r);
}

/* Behind the user's function, whoever has resumed it. A coroutine that the engine itself resumed returns its record,
 * which so stays on its stack for the next time. */
static int routine_finish(lua_State *L, int status, lua_KContext context)
{
    struct routine *r = routine_of(L);
    struct engine *e = engine_of(L);
    (void)context;
    if (!r) return 0; /* cancelled, and run nevertheless: by a finalizer at the very end */
    if (r->live) {
        if (r->park) park_abandon(r->park);
        r->class->deliver(r, L, status == LUA_OK || status == LUA_YIELD, ROUTINE_EXTRA + 2);
        routine_leave(r);
    }
    lua_settop(L, 1);
    return e->coroutines.resumed == L && r->class->pooled ? 1 : 0;
}

/* On the stack: record (its address), extra, message handler, function, arguments. */
static int routine_body(lua_State *L)
{
    int status = lua_pcallk(L, lua_gettop(L) - 4, LUA_MULTRET, 3, 0, routine_finish);
    return routine_finish(L, status, 0);
}

/* --- running --- */

static void pool_keep(struct engine *e, lua_State *co)
{
    lua_pushthread(co);
    lua_xmove(co, e->L, 1);
    lua_rawgetp(e->L, LUA_REGISTRYINDEX, &pool_key);
    lua_insert(e->L, -2);
    lua_rawseti(e->L, -2, ++e->coroutines.pooled); /* the table has room since it was made */
    lua_pop(e->L, 1);
}

static void routine_ended(struct engine *e, lua_State *co, struct routine *r, int results)
{
    if (r && r->class->pooled && results == 1 && e->coroutines.pooled < POOL_MAX && lua_gettop(co) == 1) {
        pool_keep(e, co);
        return;
    }
    if (!r) return;
    lua_settop(co, 0); /* dead, for coroutine.status() */
    routine_free(r);
}

static void routine_broken(struct engine *e, lua_State *co, struct routine *r)
{
    int status;
    const char *text = engine_error_text(co, -1);
    if (r && r->live)
        routine_lose(r, text);
    else
        LOG_LINES(LOG_LEVEL_ERROR, "coroutine: %s", text);
    engine_note_error(e, text);
    if (r) routine_free(r);
    limits_close(co, &status);
}

/* Resumes with `count` values on the stack of co, which is anchored by the caller. */
static void routine_run(struct engine *e, lua_State *from, lua_State *co, int count)
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
        routine_ended(e, co, routine_of(co), results);
    else
        routine_broken(e, co, routine_of(co));
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
        routine_run(e, e->L, co, 0);
        e->coroutines.result = NULL;
        engine_leave(e);
    }
    lua_pop(e->L, 1);
}

/* --- starting --- */

/* Whether it is as we left it: a script that has kept it may have resumed or closed it. */
static bool pool_is_intact(lua_State *co)
{
    const void *record = lua_touserdata(co, 1);
    return lua_status(co) == LUA_OK && lua_gettop(co) == 1 && record && record == routine_of(co);
}

/* Pushes a coroutine of the pool, or nothing: NULL. */
static lua_State *pool_take(lua_State *L, struct engine *e)
{
    while (e->coroutines.pooled > 0) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &pool_key);
        lua_rawgeti(L, -1, e->coroutines.pooled);
        lua_pushboolean(L, 0);
        lua_rawseti(L, -3, e->coroutines.pooled--);
        lua_remove(L, -2);
        lua_State *co = lua_tothread(L, -1);
        if (pool_is_intact(co)) return co;
        lua_pop(L, 1);
    }
    return NULL;
}

/* Pushes a coroutine whose stack holds its record alone. */
static lua_State *routine_take(lua_State *L, struct engine *e, bool pooled)
{
    lua_State *kept = pooled ? pool_take(L, e) : NULL;
    if (kept) return kept;
    lua_State *co = lua_newthread(L);
    struct routine *r = calloc(1, sizeof *r);
    if (!r) {
        luaL_error(L, "not enough memory");
        return NULL;
    }
    r->engine = e;
    link_append(&e->coroutines.routines, &r->link); /* what raises from here on leaves it to coroutine_tend() */
    lua_rawgetp(L, LUA_REGISTRYINDEX, &live_key);
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, r);
    lua_pop(L, 1);
    lua_pushlightuserdata(co, r);
    *thread_mark(co) = (uintptr_t)r;
    return co;
}

void routine_start(lua_State *L, const struct routine_class *class, void *owner, int arguments,
                   struct routine **started)
{
    struct engine *e = engine_of(L);
    int given = arguments + 2; /* extra and the function as well */
    luaL_checkstack(L, 6, NULL);
    if (e->closing) luaL_error(L, "the script is being ended");
    lua_State *co = routine_take(L, e, class->pooled);
    lua_insert(L, -given - 1);
    if (!lua_checkstack(co, given + LUA_MINSTACK)) luaL_error(L, "stack overflow");
    struct routine *r = routine_of(co);
    lua_pushcfunction(co, routine_body);
    lua_insert(co, 1);
    lua_xmove(L, co, given);
    lua_pushcfunction(co, class->message ? class->message : engine_message);
    lua_insert(co, -arguments - 2);
    r->class = class;
    r->owner = owner;
    r->live = true;
    if (++e->coroutines.active > e->coroutines.active_peak) e->coroutines.active_peak = e->coroutines.active;
    if (started) *started = r;
    routine_run(e, L, co, arguments + 4);
}

/* Closes a coroutine, with what is to be closed in it. It stands on the stack of e->L, or is anchored otherwise. What
 * is raised meanwhile nobody can catch: it is logged, and stats().lasterror. */
static void thread_close(struct engine *e, lua_State *co)
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

void routine_cancel(struct routine *r, const char *why)
{
    struct engine *e = r->engine;
    if (!r->live) return;
    lua_State *co = routine_push(r);
    routine_lose(r, why);
    routine_free(r);
    if (co) {
        engine_enter(e);
        thread_close(e, co);
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
static bool routine_is_over(const struct routine *r)
{
    if (r->park) return thread_is_over(r->park->L);
    bool over = thread_is_over(routine_push(r));
    lua_pop(r->engine->L, 1);
    return over;
}

static void routine_tend(struct routine *r)
{
    struct engine *e = r->engine;
    if (!routine_is_over(r)) return;
    engine_enter(e);
    routine_lose(r, ROUTINE_ABANDONED);
    routine_free(r);
    engine_leave(e);
}

void coroutine_tend(struct engine *e)
{
    uint64_t now = coordinator_now_ms(e->c);
    if (e->entries.count == e->coroutines.tended_entries || now < e->coroutines.tend_ms) return;
    for (struct link *link = e->coroutines.routines.next, *next; link != &e->coroutines.routines; link = next) {
        struct routine *r = link_owner(link, struct routine, link);
        next = link->next;
        routine_tend(r);
    }
    e->coroutines.tend_ms = now + TEND_MS;
    e->coroutines.tended_entries = e->entries.count;
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
        thread_close(e, co);
        lua_pop(e->L, 1);
    }
}

void coroutine_close_all(struct engine *e)
{
    e->closing = true;
    engine_enter(e); /* all of it has the time of one entry */
    lua_checkstack(e->L, 8);
    while (!link_is_empty(&e->coroutines.routines)) { /* nothing is added to them any more */
        struct routine *r = link_owner(link_take_first(&e->coroutines.routines), struct routine, link);
        if (r->live)
            routine_cancel(r, ROUTINE_ABANDONED);
        else
            routine_free(r);
    }
    threads_close_parked(e);
    engine_leave(e);
}

int coroutine_open(lua_State *L)
{
    engine_of(L)->coroutines.parked_free = UINT32_MAX;
    *thread_mark(L) = 0; /* inherited by what scripts create */
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &parked_key);
    lua_createtable(L, POOL_MAX, 0);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &pool_key);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &live_key);
    return 0;
}

void coroutine_lose_all(struct engine *e)
{
    while (!link_is_empty(&e->coroutines.routines)) {
        struct routine *r = link_owner(link_take_first(&e->coroutines.routines), struct routine, link);
        routine_lose(r, ROUTINE_ABANDONED);
        routine_free(r);
    }
}

void coroutine_close(struct engine *e)
{
    assert(link_is_empty(&e->coroutines.routines));
    free(e->coroutines.parked);
}
