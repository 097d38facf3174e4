#include "lua/engine/limits.h"

#include <assert.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lua/engine/watch.h"

/* Instructions between two looks at the clock, about ten microseconds. */
#define LIMITS_INTERVAL 1000
/* An allocation of that size is a look at the clock too: string.rep() takes milliseconds within one instruction. */
#define LIMITS_LARGE ((size_t)256 << 10)

/* All states run on one thread, whose signal handlers read it. */
static _Atomic(lua_State *) running;
/* The watch has interrupted a thread that may have stopped running since, before its hook could run. */
static atomic_bool interrupted;
static atomic_uint due; /* samples that wait to be taken */
static void (*sampler)(lua_State *L, unsigned samples);

uint64_t limits_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static lua_State *limits_running(void)
{
    return atomic_load_explicit(&running, memory_order_relaxed);
}

/* Lets the hook run before the thread's next instruction, and when a C function returns. For signal handlers. */
static void limits_interrupt(lua_State *L);

/* Whatever runs next of the entry: see limits_run(). */
static void limits_interrupt_running(void)
{
    lua_State *L = limits_running();
    if (!L) return;
    atomic_store_explicit(&interrupted, true, memory_order_relaxed);
    limits_interrupt(L);
}

/* How long the thread has waited for a CPU costs a system call: it is asked when the budget may be used up only. */
bool limits_look(struct limits *l)
{
    if (l->over || !l->entered) return l->over;
    uint64_t now = limits_now_ns(), budget = (uint64_t)l->budget_ms * 1000000u;
    if (now < l->look_ns) return false;
    uint64_t delay = watch_delay_ns() - l->delay_start_ns, used = now - l->start_ns;
    used = used > delay ? used - delay : 0;
    l->over = used >= budget;
    l->look_ns = now + (l->over ? 0 : budget - used);
    if (l->over) limits_interrupt_running(); /* who looks may be in a finalizer, whose error is not passed on */
    return l->over;
}

void *limits_allocate(void *ud, void *block, size_t old_size, size_t new_size)
{
    struct limits *l = ud, *whole = l->whole;
    size_t held = block ? old_size : 0; /* for a new block old_size is its type */
    if (new_size == 0) {
        free(block);
        l->bytes -= held;
        whole->bytes_all -= held;
        l->blocks -= block != NULL;
        return NULL;
    }
    if (new_size > held && l->entered) {
        if (whole->bytes_max > 0 && whole->bytes_all - held + new_size > whole->bytes_max) return NULL;
        if (new_size >= LIMITS_LARGE && limits_look(l)) return NULL;
    }
    void *fresh = realloc(block, new_size);
    if (!fresh) return NULL;
    l->bytes += new_size - held;
    whole->bytes_all += new_size - held;
    l->blocks += block == NULL;
    return fresh;
}

struct limits *limits_of(lua_State *L)
{
    static struct limits none; /* of a state that is not ours: never entered, and so never over */
    void *ud;
    return lua_getallocf(L, &ud) == limits_allocate ? ud : &none;
}

static void limits_push_reason(lua_State *L, const struct limits *l)
{
    if (l->ending)
        lua_pushliteral(L, "the script has ended the process");
    else
        lua_pushfstring(L, "time budget of %d ms exceeded", (int)l->budget_ms);
}

/* --- samples --- */

void limits_set_sampler(void (*take)(lua_State *L, unsigned samples))
{
    sampler = take;
    atomic_store_explicit(&due, 0, memory_order_relaxed);
}

bool limits_sample(unsigned samples)
{
    lua_State *L = limits_running();
    if (!L) return false;
    atomic_fetch_add_explicit(&due, samples, memory_order_relaxed);
    limits_interrupt(L);
    return true;
}

static void limits_take_samples(lua_State *L)
{
    if (atomic_load_explicit(&due, memory_order_relaxed) == 0) return;
    unsigned samples = atomic_exchange_explicit(&due, 0, memory_order_relaxed);
    if (sampler && samples > 0) sampler(L, samples);
}

/* --- the hook, and who runs --- */

static void limits_cut(lua_State *L, lua_Debug *where);

static void limits_hook(lua_State *L, lua_Debug *where)
{
    struct limits *l = limits_of(L);
    atomic_store_explicit(&interrupted, false, memory_order_relaxed);
    limits_take_samples(L);
    if (!limits_look(l)) {
        if (lua_gethookcount(L) != LIMITS_INTERVAL) limits_watch(L); /* interrupted, or of an entry that has ended */
        return;
    }
    bool names_line = where->event != LUA_HOOKRET; /* else interrupted in C: the next instruction has a line to name */
    lua_sethook(L, names_line ? limits_cut : limits_hook, LUA_MASKCOUNT, 1);
    if (!names_line) return;
    lua_getinfo(L, "Sl", where);
    lua_pushfstring(L, "%s:%d: ", where->short_src, where->currentline);
    limits_push_reason(L, l);
    lua_concat(L, 2);
    lua_error(L);
}

/* The hook of a coroutine that it has ended, or is about to: see limits_is_cut(). */
static void limits_cut(lua_State *L, lua_Debug *where)
{
    limits_hook(L, where);
}

void limits_watch(lua_State *L)
{
    lua_sethook(L, limits_hook, LUA_MASKCOUNT, LIMITS_INTERVAL);
}

static void limits_interrupt(lua_State *L)
{
    bool cut = lua_gethook(L) == limits_cut; /* while the error is made, finalizers and signals may bring us here */
    lua_sethook(L, cut ? limits_cut : limits_hook, LUA_MASKCOUNT | LUA_MASKRET, 1);
}

lua_State *limits_run(lua_State *L)
{
    lua_State *before = limits_running();
    atomic_store_explicit(&running, L, memory_order_relaxed);
    if (L && atomic_load_explicit(&interrupted, memory_order_relaxed)) limits_interrupt(L);
    return before;
}

void limits_ran(lua_State *L, lua_State *before)
{
    limits_take_samples(L);
    limits_run(before);
}

void limits_watch_open(void)
{
    watch_open(limits_interrupt_running);
}

void limits_watch_close(void)
{
    watch_close();
}

void limits_enter(struct limits *limits, uint64_t now_ns)
{
    assert(!limits->entered);
    uint64_t budget = (uint64_t)limits->budget_ms * 1000000u;
    limits->entered = true;
    limits->over = false;
    limits->start_ns = now_ns;
    limits->look_ns = now_ns + budget;
    limits->outer = watch_enter(now_ns, budget);
    limits->delay_start_ns = watch_delay_before_ns();
}

void limits_leave(struct limits *limits)
{
    assert(limits->entered);
    watch_leave(limits->outer);
    limits->entered = limits->over = limits->ending = false;
    atomic_store_explicit(&interrupted, false, memory_order_relaxed);
}

/* --- what catches errors ---
 *
 * As Lua's own, but over the budget they pass the error on: a pcall in each of a hundred nested coroutines would hold
 * it up for ever otherwise. */

static void limits_raise(lua_State *L)
{
    luaL_where(L, 1);
    limits_push_reason(L, limits_of(L));
    lua_concat(L, 2);
    lua_error(L);
}

void limits_check(lua_State *L)
{
    if (limits_of(L)->over) limits_raise(L);
}

int limits_end(lua_State *L)
{
    limits_of(L)->over = limits_of(L)->ending = true;
    limits_raise(L);
    return 0;
}

void limits_spend(lua_State *L)
{
    if (limits_look(limits_of(L))) limits_raise(L);
}

/* The error on the top is what the budget's end has made of a call, "Interrupted system call" perhaps: says so. */
static int limits_pass_on(lua_State *L)
{
    const char *text = lua_tostring(L, -1);
    if (text && !limits_of(L)->ending && !strstr(text, "time budget") && lua_checkstack(L, 8))
        lua_pushfstring(L, "time budget of %d ms exceeded: %s", (int)limits_of(L)->budget_ms, text);
    return lua_error(L);
}

/* The results stand at `first` and above, or the error there. */
static int limits_caught(lua_State *L, int status, lua_KContext first)
{
    bool good = status == LUA_OK || status == LUA_YIELD;
    if (!good && limits_of(L)->over) return limits_pass_on(L);
    luaL_checkstack(L, 1, NULL);
    lua_pushboolean(L, good);
    lua_insert(L, (int)first);
    return lua_gettop(L) - (int)first + 1;
}

/* pcall(f, ...)                                                                            [-0, +n, -; yields] */
static int limits_pcall(lua_State *L)
{
    luaL_checkany(L, 1);
    return limits_caught(L, lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, 1, limits_caught), 1);
}

/* An error that the hook raises calls the handler from within the hook, where Lua calls no hooks: one that loops there
 * would loop for ever. Over the budget no handler of a script is called. */
static int limits_handle(lua_State *L)
{
    if (limits_of(L)->over) return 1;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

/* xpcall(f, handler, ...)                                                                  [-0, +n, -; yields] */
static int limits_xpcall(lua_State *L)
{
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_checkstack(L, 2, NULL);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, limits_handle, 1);
    lua_pushvalue(L, 1);
    lua_replace(L, 2); /* the function behind its handler */
    lua_replace(L, 1);
    return limits_caught(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 2, limits_caught), 2);
}

/* --- coroutines --- */

/* Runs it with the `count` values on the top. The number of its results, which are on the top, or -1 and an error. */
static int limits_continue(lua_State *L, lua_State *co, int count)
{
    int results = 0;
    if (!lua_checkstack(co, count)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, count);
    lua_State *outer = limits_run(co);
    int status = lua_resume(co, L, count, &results);
    limits_ran(co, outer);
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return -1;
    }
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        lua_pushliteral(L, "too many results to resume");
        return -1;
    }
    lua_xmove(co, L, results);
    return results;
}

/* coroutine.resume(co, ...)                                                                        [-0, +n, -] */
static int limits_resume(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "coroutine");
    int results = limits_continue(L, co, lua_gettop(L) - 1);
    return limits_caught(L, results < 0 ? LUA_ERRRUN : LUA_OK, 2);
}

int limits_run_finalizer(lua_State *co, lua_State *from, int *results)
{
    struct limits *l = limits_of(co);
    bool entered = l->entered;
    if (!entered) limits_enter(l, limits_now_ns());
    limits_watch(co);
    lua_State *outer = limits_run(co);
    int status = lua_resume(co, from, lua_gettop(co) - 1, results);
    limits_ran(co, outer);
    if (!entered) limits_leave(l);
    return status;
}

/* Whether the hook has ended it: see limits_hook(). */
static bool limits_is_cut(lua_State *co)
{
    int status = lua_status(co);
    return status != LUA_OK && status != LUA_YIELD && lua_gethook(co) == limits_cut;
}

bool limits_close(lua_State *co, int *status)
{
    *status = lua_status(co);
    if (limits_is_cut(co)) return false;
    limits_watch(co);
    lua_State *outer = limits_run(co);
    *status = lua_resetthread(co);
    limits_run(outer);
    return true;
}

/* The coroutine has ended with the error on the top: closes it, and says where wrap()'s function was called. */
static int limits_wrap_failed(lua_State *L, lua_State *co)
{
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD && !limits_of(L)->over) {
        lua_xmove(L, co, 1); /* what closes may raise another one */
        if (limits_close(co, &status) || lua_gettop(co) > 0) lua_xmove(co, L, 1);
    }
    if (limits_of(L)->over) return limits_pass_on(L);
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

/* The function that wrap() returns. Upvalue: the coroutine.                                         [-0, +n, e] */
static int limits_wrapped(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    int results = limits_continue(L, co, lua_gettop(L));
    return results < 0 ? limits_wrap_failed(L, co) : results;
}

/* coroutine.wrap(f) -> function                                                                     [-0, +1, e] */
static int limits_wrap(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushcclosure(L, limits_wrapped, 1);
    return 1;
}

static const char *limits_state(lua_State *L, lua_State *co)
{
    lua_Debug where;
    if (co == L) return "running";
    return lua_status(co) == LUA_OK && lua_getstack(co, 0, &where) ? "normal" : NULL;
}

/* coroutine.close(co) -> true | false, error                                                        [-0, +n, e] */
static int limits_close_coroutine(lua_State *L)
{
    int status;
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "coroutine");
    const char *state = limits_state(L, co);
    if (state) return luaL_error(L, "cannot close a %s coroutine", state);
    bool closed = limits_close(co, &status);
    limits_check(L);
    lua_pushboolean(L, status == LUA_OK);
    if (status == LUA_OK) return 1;
    if (closed)
        lua_xmove(co, L, 1);
    else
        lua_pushliteral(L, "the coroutine's time budget was exceeded");
    return 2;
}

void limits_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"resume", limits_resume}, {"wrap", limits_wrap}, {"close", limits_close_coroutine}, {NULL, NULL}};
    lua_register(L, "pcall", limits_pcall);
    lua_register(L, "xpcall", limits_xpcall);
    lua_getglobal(L, LUA_COLIBNAME);
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 1);
}
