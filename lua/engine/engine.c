#include "lua/engine/state.h"

#include <errno.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "lua/engine/load.h"
#include "lua/engine/standard.h"
#include "lua/modules/auth.h"
#include "lua/modules/execute.h"
#include "lua/modules/modules.h"
#include "lua/modules/rpc.h"
#include "lua/socket/socket.h"

#define ENGINE_IDLE_MS 5000u

void engine_text_free(struct engine_text *text)
{
    free(text->data);
    *text = (struct engine_text){0};
}

void engine_text_set(struct engine_text *text, const char *data, size_t size)
{
    text->data = malloc(size + 1);
    text->size = text->data ? size : 0;
    if (!text->data) return;
    if (size > 0) memcpy(text->data, data, size);
    text->data[size] = '\0';
}

struct coordinator *engine_coordinator(struct engine *e)
{
    return e->c;
}

bool engine_is_closing(const struct engine *e)
{
    return e->root->closing;
}

/* --- entries --- */

/* Other threads see who runs, should it not return. */
static void engine_beat(const struct engine *e, uint64_t now_ns)
{
    char who[HEARTBEAT_TEXT_SIZE];
    if (e->script) snprintf(who, sizeof who, "script %s", script_name(e->script));
    heartbeat_enter(coordinator_heartbeat(e->c),
                    e->script        ? who
                    : e->has_ruleset ? "the ruleset"
                                     : "the script of -r or -c",
                    now_ns / 1000000u);
}

void engine_enter(struct engine *e)
{
    if (e->depth++ > 0) return;
    e->entry_start_ns = limits_now_ns();
    engine_beat(e, e->entry_start_ns);
    limits_enter(&e->limits, e->entry_start_ns);
}

void engine_leave(struct engine *e)
{
    assert(e->depth > 0);
    if (--e->depth > 0) return;
    if (!lua_gc(e->L, LUA_GCISRUNNING)) lua_gc(e->L, LUA_GCRESTART); /* a script has stopped it: for itself alone */
    limits_leave(&e->limits);
    heartbeat_leave(coordinator_heartbeat(e->c));
    e->durations[e->entries++ % ENGINE_EVENTS] = limits_now_ns() - e->entry_start_ns;
    if (e->script) script_settle(e->script);
}

/* --- errors --- */

const char *engine_error_text(lua_State *L, int index)
{
    switch (lua_type(L, index)) {
    case LUA_TSTRING:
        /* Over the budget, large allocations are refused. */
        if (engine_of(L)->limits.over && strcmp(lua_tostring(L, index), "not enough memory") == 0)
            return "time budget exceeded in an allocation";
        return lua_tostring(L, index);
    case LUA_TNIL:
    case LUA_TNONE: return "(nil)";
    default: {
        const char *text = lua_checkstack(L, 3) ? socket_error_text(L, index) : NULL;
        return text ? text : "(error object is not a string)";
    }
    }
}

int engine_message(lua_State *L)
{
    const struct engine *e = engine_of(L);
    if (e->traceback && lua_type(L, 1) == LUA_TSTRING) luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
}

void engine_note_error(struct engine *e, const char *text)
{
    size_t size = strnlen(text, ENGINE_ERROR_SIZE - 1);
    memcpy(e->last_error, text, size);
    e->last_error[size] = '\0';
}

int engine_protect(struct engine *e, lua_CFunction function, void *argument, struct engine_text *error)
{
    lua_State *L = e->L;
    int top = lua_gettop(L);
    if (e->closing) {
        if (error) engine_text_set(error, "the server stops", 16);
        return -1;
    }
    if (!lua_checkstack(L, 8)) {
        if (error) engine_text_set(error, "stack overflow", 14);
        return -1;
    }
    engine_enter(e);
    limits_watch(L);
    lua_pushcfunction(L, engine_message);
    lua_pushcfunction(L, function);
    lua_pushlightuserdata(L, argument);
    lua_State *ran = limits_run(L);
    int status = lua_pcall(L, 1, 0, top + 1);
    limits_ran(L, ran);
    if (status != LUA_OK) {
        const char *text = engine_error_text(L, -1);
        engine_note_error(e, text);
        if (error) engine_text_set(error, text, strlen(text));
    }
    lua_settop(L, top);
    engine_leave(e);
    return status == LUA_OK ? 0 : -1;
}

/* --- the ruleset's table --- */

bool engine_push_callback(lua_State *L, const char *name)
{
    int top = lua_gettop(L);
    lua_getglobal(L, "ruleset");
    if (!lua_isnil(L, -1) && lua_getfield(L, -1, name) != LUA_TNIL) {
        lua_replace(L, top + 1);
        return true;
    }
    lua_settop(L, top);
    return false;
}

void engine_revise(struct engine *e, bool has_ruleset)
{
    e->revision = e->revision + 1 < ROUTE_REVISION_AUTH ? e->revision + 1 : 1;
    e->has_ruleset = has_ruleset;
    e->auth = has_ruleset && auth_read(e, coordinator_config(e->c)->auth_required);
    coordinator_set_revision(e->c, has_ruleset ? e->revision | (e->auth ? ROUTE_REVISION_AUTH : 0) : 0);
}

bool engine_has_ruleset(const struct engine *e)
{
    return e->has_ruleset;
}

const char *engine_source_hash(const struct engine *e)
{
    return e->has_ruleset ? e->source_hash : "";
}

bool engine_requires_auth(const struct engine *e)
{
    return e && e->auth;
}

uint32_t engine_revision(const struct engine *e)
{
    return e->has_ruleset ? e->revision : 0;
}

void engine_obey(struct engine *e, const struct config *config)
{
    e->limits.whole->bytes_max = (size_t)config->memlimit_mib << 20;
    e->limits.budget_ms = config->lua_budget_ms;
    e->traceback = config->traceback;
    lua_pushboolean(e->L, config->log_level < LOG_LEVEL_DEBUG); /* for rulesets before 1.3 */
    lua_setglobal(e->L, "NDEBUG");
}

/* --- opening --- */

static void open_module(lua_State *L, const char *name, lua_CFunction open)
{
    luaL_requiref(L, name, open, 1);
    lua_pop(L, 1);
}

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

static int load_sluice(lua_State *L)
{
    lua_getglobal(L, "neosocksd");
    return 1;
}

static void open_modules(lua_State *L)
{
    open_module(L, "zlib", luaopen_zlib);
    open_module(L, "regex", luaopen_regex);
    open_module(L, "time", luaopen_time);
    open_module(L, "marshal", luaopen_marshal);
    open_module(L, "await", luaopen_await);
    open_module(L, "neosocksd", luaopen_neosocksd);
    open_module(L, "data", luaopen_data);
    open_module(L, "socket", luaopen_socket);
    luaL_requiref(L, "sets", luaopen_sets, 0);
    luaL_requiref(L, "wakeup", luaopen_wakeup, 0);
    luaL_requiref(L, "literals", luaopen_literals, 0);
    lua_pop(L, 3);
    /* One table, two names; the sets stand in it as well. */
    lua_getglobal(L, "neosocksd");
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, "sets");
    for (const char *const *name = (const char *const[]){"domains", "subnets", "subnets6", NULL}; *name; name++) {
        lua_getfield(L, -1, *name);
        lua_setfield(L, -4, *name);
    }
    lua_pop(L, 2);
    lua_setglobal(L, "sluice");
    /* Not loaded, but to be had: messages name a function by the first of its loaded modules. */
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, load_sluice);
    lua_setfield(L, -2, "sluice");
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
    open_modules(L);
    engine_obey(e, coordinator_config(e->c));
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
        coroutine_lose_all(e);
        uint64_t now_ns = limits_now_ns();
        engine_beat(e, now_ns);
        limits_enter(&e->limits, now_ns); /* finalizers run, all in the time of one entry */
        limits_watch(e->L);
        lua_close(e->L);
        socket_close_all(e);
        limits_leave(&e->limits);
        heartbeat_leave(coordinator_heartbeat(e->c));
    }
    limits_watch_close();
    coroutine_close(e);
    settings_close(e);
    tags_close(e);
    free(e);
}

struct engine *engine_new(struct coordinator *c, struct engine *root)
{
    struct engine_text error = {0};
    struct engine *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    limits_watch_open();
    e->c = c;
    e->root = root ? root : e;
    link_init(&e->routines);
    e->limits.whole = &e->root->limits;
    e->answer = coordinator_answer;
    e->opened_ns = limits_now_ns();
    e->limits.budget_ms = coordinator_config(c)->lua_budget_ms;
    e->L = lua_newstate(limits_allocate, e);
    if (e->L) lua_atpanic(e->L, engine_panic);
    if (!e->L || engine_protect(e, engine_init, e, &error) < 0) {
        LOGE("Lua could not be started: %s", error.data ? error.data : "not enough memory");
        engine_text_free(&error);
        engine_free(e);
        return NULL;
    }
    return e;
}

int engine_open(struct engine **out, struct coordinator *c)
{
    struct engine *e = engine_new(c, NULL);
    if (!e) return -ENOMEM;
    int opened = wakeup_open(e) < 0 ? -ENOBUFS : ruleset_open(e);
    if (opened < 0) {
        engine_free(e);
        return opened;
    }
    *out = e;
    return 0;
}

/* Calls to peers, children, polls of sockets and sleeps that were abandoned: their last completions must find their
 * memory. A child that the kernel does not let die is not waited for. */
static void engine_await_idle(struct engine *e)
{
    uint64_t limit = coordinator_now_ms(e->c) + ENGINE_IDLE_MS;
    rpc_stop();
    execute_stop();
    while ((!rpc_is_idle() || !execute_is_idle() || !socket_is_idle() || e->waking > 0) &&
           coordinator_now_ms(e->c) < limit)
        if (coordinator_turn(e->c) < 0) return;
}

void engine_close(struct engine *e)
{
    if (!e) return;
    e->stopped = true;
    script_close_all(e);
    ruleset_stop(e);
    call_stop(e);
    e->closing = true; /* nothing of it runs any more while the loop turns on, and so nothing begins to wait */
    coroutine_abandon_all(e);
    engine_await_idle(e);
    ruleset_close(e);
    wakeup_close(e);
    engine_free(e);
}

/* --- memory and time --- */

static int compare_durations(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;
    return *left < *right ? -1 : *left > *right;
}

static void engine_sort_events(const struct engine *e, struct engine_memory *out)
{
    static uint64_t sorted[ENGINE_EVENTS];
    size_t count = e->entries < ENGINE_EVENTS ? (size_t)e->entries : ENGINE_EVENTS;
    out->events = (uint32_t)count;
    if (count == 0) return;
    memcpy(sorted, e->durations, count * sizeof *sorted);
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
                                  .threads = e->active,
                                  .threads_peak = e->active_peak};
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

void engine_get_counters(const struct engine *e, struct engine_counters *out)
{
    const struct rpc_counters *rpc = rpc_get_counters();
    *out = e->counters;
    out->calls = rpc->calls;
    out->calls_failed = rpc->failed;
    out->call_bytes_in = rpc->bytes_in;
    out->call_bytes_out = rpc->bytes_out;
}

void engine_set_api_reader(struct engine *e, engine_api_reader *read, void *context)
{
    e->api_reader = read;
    e->api_context = context;
}

void engine_set_api_counters(struct engine *e, const struct engine_api_counters *counters)
{
    e->api = *counters;
}

/* --- what the API runs --- */

struct source {
    const char *module, *chunkname, *code;
    size_t size;
};

static int invoke(lua_State *L)
{
    const struct source *source = lua_touserdata(L, 1);
    if (load_chunk(L, source->code, source->size, "=(invoke)") != LUA_OK) return lua_error(L);
    load_sandbox(L);
    lua_call(L, 0, 0);
    return 0;
}

int engine_invoke(struct engine *e, const char *code, size_t size, struct engine_text *error)
{
    struct source source = {.code = code, .size = size};
    return engine_protect(e, invoke, &source, error);
}

/* Runs the chunk with its module's name: its result stands on top. */
static void run_chunk(lua_State *L, const struct source *source, const char *name)
{
    const char *chunkname = lua_pushfstring(L, "=%s", source->chunkname ? source->chunkname : name);
    if (source->chunkname && strchr("=@", source->chunkname[0])) chunkname = source->chunkname;
    if (load_chunk(L, source->code, source->size, chunkname) != LUA_OK) lua_error(L);
    lua_pushstring(L, name);
    lua_call(L, 1, 1);
}

static int update_ruleset(lua_State *L)
{
    const struct source *source = lua_touserdata(L, 1);
    run_chunk(L, source, "ruleset");
    if (!lua_istable(L, -1)) return luaL_error(L, "ruleset: expected table, got %s", luaL_typename(L, -1));
    const struct config *config = coordinator_config(engine_of(L)->c);
    auth_judge(L, -1, config, config->auth_required || engine_of(L)->auth);
    lua_setglobal(L, "ruleset");
    return 0;
}

/* package.loaded[M] becomes the result; the global M only if it was the old one. */
static int update_module(lua_State *L)
{
    const struct source *source = lua_touserdata(L, 1);
    run_chunk(L, source, source->module);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
    }
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, source->module);
    lua_getglobal(L, source->module);
    bool alias = !lua_isnil(L, -2) && lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, source->module);
    lua_pop(L, 1);
    if (alias) lua_setglobal(L, source->module);
    return 0;
}

int engine_update(struct engine *e, const char *module, const char *chunkname, const char *code, size_t size,
                  struct engine_text *error)
{
    struct source source = {module, chunkname, code, size};
    int result = engine_protect(e, module ? update_module : update_ruleset, &source, error);
    if (result == 0 && !module) digest_sha256(code, size, e->source_hash);
    if (result == 0) engine_revise(e, !module || e->has_ruleset);
    return result;
}

/* --- callbacks that give a text --- */

struct question_text {
    const char *name, *q;
    double dt;
    bool with_arguments;
    struct engine_text *out;
};

static int ask_text(lua_State *L)
{
    const struct question_text *question = lua_touserdata(L, 1);
    size_t size;
    if (!engine_push_callback(L, question->name) || !lua_isfunction(L, -1)) return 0;
    if (question->with_arguments) {
        lua_pushnumber(L, question->dt);
        lua_pushstring(L, question->q); /* nil for NULL */
    }
    lua_call(L, question->with_arguments ? 2 : 0, 1);
    const char *text = lua_tolstring(L, -1, &size);
    if (text) engine_text_set(question->out, text, size);
    return 0;
}

bool engine_stats(struct engine *e, double dt, const char *q, struct engine_text *out)
{
    struct question_text question = {"stats", q, dt, true, out};
    *out = (struct engine_text){0};
    return engine_protect(e, ask_text, &question, out) == 0;
}

bool engine_metrics(struct engine *e, struct engine_text *out)
{
    struct question_text question = {.name = "metrics", .out = out};
    *out = (struct engine_text){0};
    if (engine_protect(e, ask_text, &question, out) == 0) return true;
    LOG_LINES(LOG_LEVEL_ERROR, "ruleset.metrics: %s", out->data ? out->data : "not enough memory");
    return false;
}

bool engine_healthy(struct engine *e, struct engine_text *complaint)
{
    struct question_text question = {.name = "healthy", .out = complaint};
    *complaint = (struct engine_text){0};
    if (!e->has_ruleset) return true;
    if (engine_protect(e, ask_text, &question, complaint) < 0) return false;
    return complaint->size == 0;
}
