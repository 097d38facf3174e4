/* Coroutines that wait for other coroutines: the futures and callbacks of libruleset.lua are made of this.
 *
 *   pause: parked --wake(its ticket)--> ready --a later turn of the coordinator--> resumed
 *
 * Who wakes others only marks them. The engine resumes them from the top of its loop, each in an entry of its own: a
 * waiter that uses up its budget, or raises, takes nothing from the others or from who woke it. A ticket is a number,
 * so that one that a script keeps for too long, or makes up, can do no harm. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "lua/engine/coroutine.h"
#include "lua/engine/entry.h"
#include "lua/engine/limits.h"
#include "lua/engine/state.h"
#include "lua/modules/modules.h"
#include "lua/modules/wakeup.h"

/* Names, answers of workers and the API get their turn after so much time of waiters; the rest goes on behind them. */
#define WAKEUP_SLICE_NS 5000000u

enum wakeup_op { WAKEUP_OP_TURN };

struct pause {
    struct park park;
    struct link link; /* among those that are ready, if it is */
    bool ready;
    uint32_t serial;
};

#define SERIAL_MAX INT32_MAX /* a ticket is a Lua integer: serial and place */

/* Those of all states. */
struct wakeups {
    struct engine *root;
    struct link ready; /* coroutines that somebody has woken */
    uint32_t ready_count;
    struct waiter waiter;
    bool armed;
    uint32_t serial; /* of the last pause */
};

static void wakeup_arm(struct wakeups *w)
{
    if (w->armed) return;
    struct coordinator *c = w->root->c;
    ring_wake(coordinator_ring(c), coordinator_ring(c), coordinator_tag(c, &w->waiter, WAKEUP_OP_TURN));
    w->armed = true;
    w->root->waking++;
}

static void pause_unready(struct wakeups *w, struct pause *p)
{
    if (!p->ready) return;
    link_remove(&p->link);
    p->ready = false;
    w->ready_count--;
}

static void pause_abandon(struct park *park)
{
    struct pause *p = link_owner(park, struct pause, park);
    pause_unready(park->engine->root->wakeups, p);
    free(p);
}

/* Those that were ready when this turn began, and no more than fit into a slice. */
static void wakeup_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    struct wakeups *w = link_owner(waiter, struct wakeups, waiter);
    (void)op, (void)completion;
    w->armed = false;
    w->root->waking--;
    uint64_t end = limits_now_ns() + WAKEUP_SLICE_NS;
    for (uint32_t left = w->ready_count; left > 0 && w->ready_count > 0; left--) {
        struct pause *p = link_owner(link_take_first(&w->ready), struct pause, link);
        p->ready = false;
        w->ready_count--;
        coroutine_resume(&p->park, NULL);
        free(p);
        if (limits_now_ns() >= end) break;
    }
    if (w->ready_count > 0) wakeup_arm(w);
}

static void wakeup_on_time(struct waiter *waiter)
{
    (void)waiter;
    assert(0 && "it has no deadline");
}

int wakeup_open(struct engine *root)
{
    struct wakeups *w = calloc(1, sizeof *w);
    if (!w) return -1;
    w->root = root;
    link_init(&w->ready);
    w->waiter = (struct waiter){.on_completion = wakeup_on_completion, .on_time = wakeup_on_time};
    if (!coordinator_attach(root->c, &w->waiter)) {
        free(w);
        return -1;
    }
    root->wakeups = w;
    return 0;
}

void wakeup_close(struct engine *root)
{
    struct wakeups *w = root->wakeups;
    root->wakeups = NULL;
    assert(w->ready_count == 0);
    coordinator_detach(root->c, &w->waiter);
    free(w);
}

/* --- for scripts --- */

static int pause_done(lua_State *L, int status, lua_KContext context)
{
    (void)L, (void)status, (void)context;
    return 0;
}

/* pause(tickets): waits until somebody wakes the ticket that is appended to that list               [-0, +0, e; yields]
 */
static int wakeup_pause(lua_State *L)
{
    struct wakeups *w = engine_of(L)->root->wakeups;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_Integer next = (lua_Integer)lua_rawlen(L, 1) + 1;
    lua_pushinteger(L, 0);
    lua_rawseti(L, 1, next);
    coroutine_check(L);
    /* Behind coroutine_park() nothing may raise: the ticket goes into a place that is there, which takes no memory. A
     * finalizer may have run since it was made. */
    if (lua_rawgeti(L, 1, next) != LUA_TNUMBER) return luaL_error(L, "the list of tickets has changed");
    lua_settop(L, 1);
    struct pause *p = calloc(1, sizeof *p);
    if (!p) return luaL_error(L, "not enough memory");
    coroutine_park(L, &p->park, pause_abandon);
    w->serial = w->serial == SERIAL_MAX ? 1 : w->serial + 1;
    p->serial = w->serial;
    lua_pushinteger(L, (lua_Integer)p->serial << 32 | p->park.anchor);
    lua_rawseti(L, 1, next);
    return lua_yieldk(L, 0, 0, pause_done);
}

/* wake(ticket): nothing happens if nobody waits with it any more                                       [-0, +0, e] */
static int wakeup_wake(lua_State *L)
{
    const struct engine *e = engine_of(L);
    struct wakeups *w = e->root->wakeups;
    lua_Integer ticket = luaL_checkinteger(L, 1);
    uint32_t place = (uint32_t)ticket, serial = (uint32_t)((lua_Unsigned)ticket >> 32);
    struct park *park = coroutine_park_at(e, place);
    if (!park || park->abandon != pause_abandon) return 0;
    struct pause *p = link_owner(park, struct pause, park);
    if (p->serial != serial || p->ready) return 0;
    link_append(&w->ready, &p->link);
    p->ready = true;
    w->ready_count++;
    wakeup_arm(w);
    return 0;
}

int luaopen_wakeup(lua_State *L)
{
    static const luaL_Reg functions[] = {{"pause", wakeup_pause}, {"wake", wakeup_wake}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
