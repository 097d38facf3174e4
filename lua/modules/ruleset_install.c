#include <string.h>

#include "lua/engine/entry.h"
#include "lua/engine/instance.h"
#include "lua/engine/load.h"
#include "lua/modules/auth.h"
#include "lua/modules/ruleset.h"

bool ruleset_push_callback(lua_State *L, const char *name)
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

void ruleset_revise(struct ruleset *r, bool is_there)
{
    struct engine *e = r->engine;
    r->revision = r->revision + 1 < ROUTE_REVISION_AUTH ? r->revision + 1 : 1;
    r->is_there = is_there;
    engine_set_who(e, is_there ? "the ruleset" : "the script of -r or -c");
    r->auth = is_there && auth_read(e, coordinator_config(e->c)->auth_required);
    coordinator_set_revision(e->c, is_there ? r->revision | (r->auth ? ROUTE_REVISION_AUTH : 0) : 0);
}

bool engine_has_ruleset(const struct engine *e)
{
    return e->ruleset->is_there;
}

const char *engine_source_hash(const struct engine *e)
{
    return e->ruleset->is_there ? e->ruleset->source_hash : "";
}

bool engine_requires_auth(const struct engine *e)
{
    return e && e->ruleset->auth;
}

uint32_t engine_revision(const struct engine *e)
{
    return e->ruleset->is_there ? e->ruleset->revision : 0;
}

/* --- what the API runs --- */

static int invoke(lua_State *L)
{
    const struct ruleset_source *source = lua_touserdata(L, 1);
    if (load_chunk(L, source->code, source->size, "=(invoke)") != LUA_OK) return lua_error(L);
    load_sandbox(L);
    lua_call(L, 0, 0);
    return 0;
}

int engine_invoke(struct engine *e, const char *code, size_t size, struct engine_text *error)
{
    struct ruleset_source source = {.code = code, .size = size};
    return engine_protect(e, invoke, &source, error);
}

/* Runs the chunk with its module's name: its result stands on top. */
static void run_chunk(lua_State *L, const struct ruleset_source *source, const char *name)
{
    const char *chunkname = lua_pushfstring(L, "=%s", source->chunkname ? source->chunkname : name);
    if (source->chunkname && strchr("=@", source->chunkname[0])) chunkname = source->chunkname;
    if (load_chunk(L, source->code, source->size, chunkname) != LUA_OK) lua_error(L);
    lua_pushstring(L, name);
    lua_call(L, 1, 1);
}

void ruleset_run(lua_State *L, const struct ruleset_source *source, const struct config *config)
{
    const struct engine *e = engine_of(L);
    run_chunk(L, source, "ruleset");
    if (!lua_istable(L, -1)) luaL_error(L, "ruleset: expected table, got %s", luaL_typename(L, -1));
    auth_judge(L, -1, config, coordinator_config(e->c)->auth_required || ruleset_of(e)->auth);
    lua_setglobal(L, "ruleset");
}

static int update_ruleset(lua_State *L)
{
    ruleset_run(L, lua_touserdata(L, 1), coordinator_config(engine_of(L)->c));
    return 0;
}

/* package.loaded[M] becomes the result; the global M only if it was the old one. */
static int update_module(lua_State *L)
{
    const struct ruleset_source *source = lua_touserdata(L, 1);
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
    struct ruleset_source source = {module, chunkname, code, size};
    int result = engine_protect(e, module ? update_module : update_ruleset, &source, error);
    if (result == 0 && !module) digest_sha256(code, size, e->ruleset->source_hash);
    if (result == 0) ruleset_revise(e->ruleset, !module || e->ruleset->is_there);
    return result;
}
