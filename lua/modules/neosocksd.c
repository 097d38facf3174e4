/* neosocksd.*, which is sluice.* too (contract section 5.3). */
#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/io/log.h"
#include "core/session/stats.h"
#include "lua/engine/entry.h"
#include "lua/engine/limits.h"
#include "lua/engine/offload.h"
#include "lua/engine/profile.h"
#include "lua/engine/state.h"
#include "lua/engine/task.h"
#include "lua/modules/modules.h"
#include "lua/modules/rpc.h"
#include "lua/modules/ruleset.h"
#include "protocols/subnet.h"

#define ADDRESS_SIZE_MAX 261u

/* --- async --- */

/* Calls finish(ok, ...). It may not yield; what it raises is kept as the last error. */
static void async_call_finish(lua_State *L, bool ok, int first)
{
    struct engine *e = engine_of(L);
    luaL_checkstack(L, 4, NULL);
    lua_pushvalue(L, TASK_EXTRA);
    lua_insert(L, first);
    lua_pushboolean(L, ok);
    lua_insert(L, first + 1);
    if (lua_pcall(L, lua_gettop(L) - first, 0, 0) == LUA_OK) return;
    const char *text = engine_error_text(L, -1);
    LOG_LINES(LOG_LEVEL_ERROR, "neosocksd.async: %s", text);
    engine_note_error(e, text);
    lua_pop(L, 1);
}

static void async_deliver(struct task *t, lua_State *L, bool ok, int first)
{
    (void)t;
    async_call_finish(L, ok, first);
}

/* Nobody will resume it any more; who waits for it has no better chance. */
static void async_lost(struct task *t, const char *why)
{
    if (strcmp(why, TASK_ABANDONED) != 0) LOG_LINES(LOG_LEVEL_ERROR, "neosocksd.async: %s", why);
    engine_note_error(t->engine, why);
}

static const struct task_class async_class = {.deliver = async_deliver, .lost = async_lost};

/* neosocksd.async(finish, func, ...) -> coroutine                                                    [-0, +1, e] */
static int neosocksd_async(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checkany(L, 2);
    task_start(L, &async_class, NULL, lua_gettop(L) - 2, NULL);
    limits_check(L);
    return 1;
}

/* --- ticks and clock --- */

/* neosocksd.setinterval(n)                                                                           [-0, +0, e] */
static int neosocksd_setinterval(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TNUMBER);
    struct engine *e = engine_of(L);
    if (e != e->root) return luaL_error(L, "setinterval is for rulesets: a script waits with await.sleep");
    ruleset_set_interval(e->ruleset, lua_tonumber(L, 1));
    return 0;
}

/* neosocksd.now() -> seconds since 1970                                                              [-0, +1, -] */
static int neosocksd_now(lua_State *L)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec * 1e-9);
    return 1;
}

/* --- addresses --- */

/* neosocksd.parse_ipv4(s) -> integer | nothing                                                       [-0, +1, -] */
static int neosocksd_parse_ipv4(lua_State *L)
{
    struct number address;
    if (lua_type(L, 1) != LUA_TSTRING || !number_parse(AF_INET, lua_tostring(L, 1), &address)) return 0;
    lua_pushinteger(L, (lua_Integer)address.low);
    return 1;
}

/* neosocksd.parse_ipv6(s) -> high, low | nothing                                                     [-0, +2, -] */
static int neosocksd_parse_ipv6(lua_State *L)
{
    struct number address;
    if (lua_type(L, 1) != LUA_TSTRING || !number_parse(AF_INET6, lua_tostring(L, 1), &address)) return 0;
    lua_pushinteger(L, (lua_Integer)address.high);
    lua_pushinteger(L, (lua_Integer)address.low);
    return 2;
}

/* neosocksd.splithostport(s) -> host, port                                                           [-0, +2, e] */
static int neosocksd_splithostport(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size), *colon = NULL;
    if (size > ADDRESS_SIZE_MAX) return luaL_error(L, "address too long: %d bytes", (int)size);
    for (size_t i = size; i > 0 && !colon; i--)
        if (text[i - 1] == ':') colon = text + i - 1;
    size_t host = colon ? (size_t)(colon - text) : 0;
    bool bracketed = host >= 2 && text[0] == '[' && colon[-1] == ']';
    if (!colon || (!bracketed && memchr(text, ':', host))) return luaL_error(L, "invalid address: `%s'", text);
    lua_pushlstring(L, text + bracketed, host - 2u * bracketed);
    lua_pushlstring(L, colon + 1, size - host - 1);
    return 2;
}

/* A look-up by the C library, on a thread: a server that does not answer takes longer than the time budget. */
struct name_job {
    struct offload_job job; /* first */
    int family;
    bool found;
    char address[NI_MAXHOST];
    char name[];
};

static void name_work(struct offload_job *job)
{
    struct name_job *n = (struct name_job *)job;
    struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM, .ai_family = n->family};
    if (getaddrinfo(n->name, NULL, &hints, &list) != 0) return;
    n->found =
        getnameinfo(list->ai_addr, list->ai_addrlen, n->address, sizeof n->address, NULL, 0, NI_NUMERICHOST) == 0;
    freeaddrinfo(list);
}

static void name_discard(struct offload_job *job)
{
    free(job);
}

/* neosocksd.resolve(name) -> address | nothing. Waits, and all of Lua with it.                       [-0, +1, e] */
static int neosocksd_resolve(lua_State *L)
{
    size_t size;
    char address[NI_MAXHOST];
    const char *name = luaL_checklstring(L, 1, &size);
    struct name_job *n = calloc(1, sizeof *n + size + 1);
    if (!n) return luaL_error(L, "not enough memory");
    n->job.work = name_work;
    n->job.discard = name_discard;
    n->family = coordinator_config(engine_of(L)->c)->family;
    memcpy(n->name, name, size);
    if (!offload_run(L, &n->job)) {
        limits_check(L);
        return luaL_error(L, "too many look-ups have not ended yet");
    }
    bool found = n->found;
    memcpy(address, n->address, sizeof address);
    free(n);
    if (found) lua_pushstring(L, address);
    return found;
}

/* --- counters --- */

static void set_count(lua_State *L, const char *name, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, name);
}

struct totals {
    uint64_t half_open, active, peak, accepted, refused, requests, successes, bytes_up, bytes_down;
    uint64_t failures[FAIL_COUNT], gave_up;
};

static void sum_workers(const struct coordinator *c, struct totals *t)
{
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {
        const struct stats *w = coordinator_worker_stats(c, i);
        t->half_open += counter_read(&w->half_open);
        t->active += counter_read(&w->established);
        uint64_t peak = counter_read(&w->peak_of_all);
        if (peak > t->peak) t->peak = peak;
        t->accepted += counter_read(&w->accepted);
        t->refused += counter_read(&w->refused_limit) + counter_read(&w->refused_resource);
        t->requests += counter_read(&w->requests);
        t->successes += counter_read(&w->successes);
        t->bytes_up += counter_read(&w->bytes_up);
        t->bytes_down += counter_read(&w->bytes_down);
        t->gave_up += counter_read(&w->gave_up); /* before the failures that it is a part of */
        for (unsigned f = 0; f < FAIL_COUNT; f++) t->failures[f] += counter_read(&w->failures[f]);
    }
}

static void push_totals(lua_State *L, const struct totals *t)
{
    uint64_t rejected = t->gave_up, timeout = 0, upstream = 0;
    for (enum failure f = FAIL_NONE; f < FAIL_COUNT; f++) {
        if (failure_is_rejection(f)) rejected += t->failures[f];
        if (failure_is_timeout(f)) timeout += t->failures[f];
        if (failure_is_upstream(f)) upstream += t->failures[f];
    }
    set_count(L, "num_halfopen", t->half_open);
    set_count(L, "num_sessions", t->active);
    set_count(L, "num_sessions_peak", t->peak);
    set_count(L, "num_request", t->requests);
    set_count(L, "num_success", t->successes);
    set_count(L, "num_reject_ruleset", rejected);
    set_count(L, "num_reject_timeout", timeout);
    set_count(L, "num_reject_upstream", upstream - t->gave_up);
    set_count(L, "byt_up", t->bytes_up);
    set_count(L, "byt_down", t->bytes_down);
    set_count(L, "num_accept", t->accepted + t->refused);
    set_count(L, "num_serve", t->accepted);
}

/* neosocksd.stats() -> table                                                                         [-0, +1, m] */
static int neosocksd_stats(lua_State *L)
{
    struct engine *e = engine_of(L);
    struct resolve_counts dns = coordinator_resolve_counts(e->c);
    uint64_t asked = dns.queries + dns.cache_hits + dns.coalesced + dns.local;
    struct totals totals = {0};
    sum_workers(e->c, &totals);
    struct ruleset *r = ruleset_of(e);
    if (r->api_reader) r->api_reader(r->api_context, &r->api);
    lua_createtable(L, 0, 25);
    push_totals(L, &totals);
    set_count(L, "num_forward_failed", r->counters.forwards_failed); /* ours */
    set_count(L, "num_api_request", r->api.requests);
    set_count(L, "num_api_success", r->api.successes);
    set_count(L, "num_dns_query", asked);
    set_count(L, "num_dns_success", dns.found);
    set_count(L, "bytes_allocated", e->limits.bytes);
    set_count(L, "num_object", e->limits.blocks);
    set_count(L, "num_thread_active", e->tasks.active);
    set_count(L, "num_thread_peak", e->tasks.active_peak);
    lua_pushnumber(L, (lua_Number)(limits_now_ns() - e->opened_ns));
    lua_setfield(L, -2, "uptime");
    if (e->last_error[0]) {
        lua_pushstring(L, e->last_error);
        lua_setfield(L, -2, "lasterror");
    }
    return 1;
}

/* --- messages --- */

/* neosocksd.traceback(v) -> string                                                                   [-0, +1, m] */
static int neosocksd_traceback(lua_State *L)
{
    if (lua_isnoneornil(L, 1))
        lua_pushliteral(L, "(nil)");
    else if (lua_isstring(L, 1))
        luaL_traceback(L, L, lua_tostring(L, 1), 1);
    else
        lua_pushfstring(L, "(%s: %p)", luaL_typename(L, 1), lua_topointer(L, 1));
    if (LOG_ON(LOG_LEVEL_VERBOSE)) LOGV("%s", lua_tostring(L, -1));
    return 1;
}

int luaopen_neosocksd(lua_State *L)
{
    static const luaL_Reg functions[] = {{"async", neosocksd_async},
                                         {"cache", sluice_cache},
                                         {"invoke", neosocksd_invoke},
                                         {"is_own", sluice_is_own},
                                         {"list", sluice_list},
                                         {"limit", sluice_limit},
                                         {"now", neosocksd_now},
                                         {"parse_ipv4", neosocksd_parse_ipv4},
                                         {"parse_ipv6", neosocksd_parse_ipv6},
                                         {"profile", sluice_profile},
                                         {"resolve", neosocksd_resolve},
                                         {"setinterval", neosocksd_setinterval},
                                         {"splithostport", neosocksd_splithostport},
                                         {"stats", neosocksd_stats},
                                         {"tag", sluice_tag},
                                         {"traceback", neosocksd_traceback},
                                         {"unauthorized", sluice_unauthorized},
                                         {NULL, NULL}};
    luaL_newlib(L, functions);
    luaopen_upstreams(L);
    lua_setfield(L, -2, "upstreams");
    luaopen_users(L);
    lua_setfield(L, -2, "users");
    return 1;
}
