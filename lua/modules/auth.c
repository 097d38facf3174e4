#include "lua/modules/auth.h"

#include <lauxlib.h>
#include <string.h>

#include "core/io/log.h"
#include "lua/engine/entry.h"
#include "lua/engine/state.h"

/* Whether the table, or what its metatable finds, says auth = "required". Another word, or true, means nothing, and
 * that is told; a function or a table of that name is an old ruleset's own. */
static bool is_wanted(lua_State *L, int ruleset, bool tell)
{
    if (!lua_istable(L, ruleset)) return false;
    int type = lua_getfield(L, ruleset, "auth");
    const char *word = type == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    bool wanted = word && strcmp(word, "required") == 0;
    if (type == LUA_TBOOLEAN && lua_toboolean(L, -1)) word = "true";
    if (tell && word && !wanted)
        LOGW("ruleset: auth is \"%s\": only \"required\" has a meaning, clients are not asked for credentials", word);
    lua_pop(L, 1);
    return wanted;
}

static bool has_clients_without_credentials(const struct config *config)
{
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (config->listeners[i].kind == LISTENER_FORWARD || config->listeners[i].kind == LISTENER_TPROXY) return true;
    return false;
}

/* A libruleset of before decided whether to judge when it was loaded, and has kept what the settings were then. Ours
 * looks each time, and has a function `login`. */
static bool library_takes_no_notice(lua_State *L)
{
    int top = lua_gettop(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    bool old = lua_getfield(L, -1, "libruleset") == LUA_TTABLE;
    if (old) {
        lua_pushliteral(L, "login");
        old = lua_rawget(L, -2) == LUA_TNIL && lua_getglobal(L, "config") == LUA_TTABLE;
    }
    if (old) {
        lua_pushliteral(L, "auth_required");
        old = lua_rawget(L, -2) == LUA_TBOOLEAN && !lua_toboolean(L, -1);
    }
    lua_settop(L, top);
    return old;
}

/* A slip such as `login = check("a", "b")` must not let everybody in: nobody would miss a judge that cannot be asked.
 */
static void judge_login(lua_State *L, int ruleset)
{
    if (!lua_istable(L, ruleset)) return;
    int top = lua_gettop(L), type = lua_getfield(L, ruleset, "login");
    if (type != LUA_TNIL && type != LUA_TFUNCTION && luaL_getmetafield(L, -1, "__call") == LUA_TNIL)
        luaL_error(L, "ruleset: `login' must be a function; it is a %s", lua_typename(L, type));
    lua_settop(L, top);
}

void auth_judge(lua_State *L, int ruleset, const struct config *config, bool asked)
{
    ruleset = lua_absindex(L, ruleset);
    bool wanted = is_wanted(L, ruleset, false);
    judge_login(L, ruleset);
    if (wanted && has_clients_without_credentials(config))
        luaL_error(L, "ruleset: auth is \"required\", but clients of --forward and --tproxy cannot authenticate");
    if ((wanted || config->auth_required) && !asked && library_takes_no_notice(L))
        luaL_error(L,
                   "authentication is required, but the libruleset.lua of this folder was loaded before that was known "
                   "and would let everybody in: give --auth-required, or take that file away to use the one in "
                   "the binary");
}

struct look {
    bool wanted, secrets;
};

static int look(lua_State *L)
{
    struct look *seen = lua_touserdata(L, 1);
    lua_getglobal(L, "ruleset");
    seen->wanted = is_wanted(L, lua_gettop(L), true);
    if (lua_getglobal(L, "secrets") != LUA_TTABLE) return 0;
    lua_pushnil(L);
    seen->secrets = lua_next(L, -2) != 0;
    return 0;
}

bool auth_read(struct engine *e, bool required)
{
    struct look seen = {false, false};
    engine_protect(e, look, &seen, NULL);
    if (seen.secrets && !seen.wanted && !required)
        LOGW(
            "ruleset: there are secrets, but nobody is asked for them: give --auth-required, or auth = \"required\" in "
            "the ruleset's table");
    return seen.wanted;
}
