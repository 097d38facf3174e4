#include "lua/engine/entry.h"

#include <assert.h>
#include <string.h>

#include "lua/engine/limits.h"
#include "lua/engine/state.h"
#include "lua/engine/text.h"

struct engine *engine_of(lua_State *L)
{
    void *ud;
    lua_getallocf(L, &ud);
    return ud;
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

void engine_enter(struct engine *e)
{
    if (e->entries.depth++ > 0) return;
    e->entries.start_ns = limits_now_ns();
    heartbeat_enter(coordinator_heartbeat(e->c), e->who, e->entries.start_ns / 1000000u);
    limits_enter(&e->limits, e->entries.start_ns);
}

void engine_leave(struct engine *e)
{
    struct entries *entries = &e->entries;
    assert(entries->depth > 0);
    if (--entries->depth > 0) return;
    if (!lua_gc(e->L, LUA_GCISRUNNING)) lua_gc(e->L, LUA_GCRESTART); /* a script has stopped it: for itself alone */
    limits_leave(&e->limits);
    heartbeat_leave(coordinator_heartbeat(e->c));
    entries->durations[entries->count++ % ENTRY_DURATIONS] = limits_now_ns() - entries->start_ns;
    if (e->rooms->on_leave) e->rooms->on_leave(e);
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
        const char *(*error_text)(lua_State *, int) = engine_of(L)->rooms->error_text;
        const char *text = error_text && lua_checkstack(L, 3) ? error_text(L, index) : NULL;
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
