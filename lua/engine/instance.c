#include "lua/engine/instance.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "lua/engine/coroutine.h"
#include "lua/engine/entry.h"
#include "lua/engine/limits.h"
#include "lua/engine/load.h"
#include "lua/engine/standard.h"
#include "lua/engine/task.h"
#include "lua/engine/text.h"

/* --- settings --- */

static void engine_set_limits(struct engine *e, const struct config *config)
{
    e->limits.whole->bytes_max = (size_t)config->memlimit_mib << 20;
    e->limits.budget_ms = config->lua_budget_ms;
    e->traceback = config->traceback;
    lua_pushboolean(e->L, config->log_level < LOG_LEVEL_DEBUG); /* for rulesets before 1.3 */
    lua_setglobal(e->L, "NDEBUG");
}

static int obey(lua_State *L)
{
    engine_set_limits(engine_of(L), lua_touserdata(L, 1));
    return 0;
}

int engine_obey(struct engine *e, const struct config *config)
{
    return engine_protect(e, obey, (void *)(uintptr_t)config, NULL);
}

void engine_set_who(struct engine *e, const char *who)
{
    snprintf(e->who, sizeof e->who, "%s", who);
}

/* --- opening --- */

/* Files of the working directory win over what is in the binary. */
static void open_package(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_pushliteral(L, "?.lua");
    lua_setfield(L, -2, "path");
    lua_pushliteral(L, "?.so");
    lua_setfield(L, -2, "cpath");
    lua_getfield(L, -1, "searchers");
    lua_pushcfunction(L, load_search_embedded);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 2);
}

static int engine_init(lua_State *L)
{
    struct engine *e = lua_touserdata(L, 1);
    luaL_openlibs(L);
    limits_open(L);
    strings_open(L);
    tables_open(L);
    finalizers_open(L);
    debugging_open(L);
    chunks_open(L);
    process_calls_open(L);
    open_package(L);
    coroutine_open(L);
    task_open(L);
    if (e->rooms->open) e->rooms->open(L);
    engine_set_limits(e, coordinator_config(e->c));
    lua_gc(L, LUA_GCGEN, 0, 0);
    return 0;
}

static int engine_panic(lua_State *L)
{
    LOGF("Lua: an error outside of all protection: %s", engine_error_text(L, -1));
    return 0; /* and Lua aborts */
}

void engine_free(struct engine *e)
{
    e->closing = true;
    if (e->L) {
        task_lose_all(e);
        uint64_t now_ns = limits_now_ns();
        heartbeat_enter(coordinator_heartbeat(e->c), e->who, now_ns / 1000000u);
        limits_enter(&e->limits, now_ns); /* finalizers run, all in the time of one entry */
        limits_watch(e->L);
        lua_close(e->L);
        if (e->rooms->on_closed) e->rooms->on_closed(e);
        limits_leave(&e->limits);
        heartbeat_leave(coordinator_heartbeat(e->c));
    }
    limits_watch_close();
    coroutine_free(e);
    if (e->rooms->release) e->rooms->release(e);
    free(e);
}

struct engine *engine_new(struct coordinator *c, struct engine *root, const struct engine_rooms *rooms, const char *who)
{
    struct engine_text error = {0};
    struct engine *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    limits_watch_open();
    e->c = c;
    e->root = root ? root : e;
    e->rooms = rooms;
    engine_set_who(e, who);
    link_init(&e->tasks.all);
    e->limits.whole = &e->root->limits;
    e->opened_ns = limits_now_ns();
    e->limits.budget_ms = coordinator_config(c)->lua_budget_ms;
    bool prepared = !rooms->prepare || rooms->prepare(e) == 0;
    e->L = prepared ? lua_newstate(limits_allocate, e) : NULL;
    if (e->L) lua_atpanic(e->L, engine_panic);
    if (!e->L || engine_protect(e, engine_init, e, &error) < 0) {
        LOGE("Lua could not be started: %s", error.data ? error.data : "not enough memory");
        engine_text_free(&error);
        engine_free(e);
        return NULL;
    }
    return e;
}

/* --- memory and time --- */

static int compare_durations(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;
    return *left < *right ? -1 : *left > *right;
}

static void engine_sort_events(const struct engine *e, struct engine_memory *out)
{
    static uint64_t sorted[ENTRY_DURATIONS];
    size_t count = e->entries.count < ENTRY_DURATIONS ? (size_t)e->entries.count : ENTRY_DURATIONS;
    out->events = (uint32_t)count;
    if (count == 0) return;
    memcpy(sorted, e->entries.durations, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_durations);
    out->event_p50 = sorted[count * 50 / 100];
    out->event_p90 = sorted[count * 90 / 100];
    out->event_p99 = sorted[count * 99 / 100];
    out->event_max = sorted[count - 1];
}

void engine_get_memory(const struct engine *e, struct engine_memory *out)
{
    *out = (struct engine_memory){.bytes = e->limits.bytes,
                                  .objects = e->limits.blocks,
                                  .limit = e->limits.whole->bytes_max,
                                  .threads = e->tasks.active,
                                  .threads_peak = e->tasks.active_peak};
    engine_sort_events(e, out);
}

static int collect(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

void engine_collect(struct engine *e)
{
    engine_protect(e, collect, NULL, NULL);
}
