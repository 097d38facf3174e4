/* debug.*: what is for looking at scripts, and no more. The hook is the time budget's; the registry, the metatables and
 * values of userdata, and the variables of functions of C belong to code that trusts what it has put there. */
#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#include "lua/engine/standard.h"

/* Upvalue: its name.                                                                                [-0, +0, e] */
static int unavailable(lua_State *L)
{
    return luaL_error(L, "debug.%s is not available to scripts", lua_tostring(L, lua_upvalueindex(1)));
}

/* debug.getmetatable(value) -> metatable | nil; of a userdata a copy                                [-0, +1, e] */
static int debugging_getmetatable(lua_State *L)
{
    luaL_checkany(L, 1);
    if (!finalizers_get(L)) lua_pushnil(L);
    return 1;
}

/* debug.setmetatable(value, metatable) -> value                                                     [-0, +1, e] */
static int debugging_setmetatable(lua_State *L)
{
    int type = lua_type(L, 2);
    luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
    luaL_argcheck(L, lua_type(L, 1) != LUA_TUSERDATA, 1, "the metatable of a userdata cannot be changed");
    lua_settop(L, 2);
    finalizers_set(L);
    return 1;
}

/* --- upvalues, of functions in Lua --- */

/* debug.getupvalue(f, n) -> name, value | nothing                                                   [-0, +2, e] */
static int debugging_getupvalue(lua_State *L)
{
    int n = (int)luaL_checkinteger(L, 2);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    const char *name = lua_iscfunction(L, 1) ? NULL : lua_getupvalue(L, 1, n);
    if (!name) return 0;
    lua_pushstring(L, name);
    lua_insert(L, -2);
    return 2;
}

/* debug.setupvalue(f, n, value) -> name | nothing                                                   [-0, +1, e] */
static int debugging_setupvalue(lua_State *L)
{
    int n = (int)luaL_checkinteger(L, 2);
    luaL_checkany(L, 3);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 3);
    const char *name = lua_iscfunction(L, 1) ? NULL : lua_setupvalue(L, 1, n);
    if (!name) return 0;
    lua_pushstring(L, name);
    return 1;
}

/* --- frames, of functions in Lua --- */

/* Functions of debug.* may name a thread before their other arguments, whose number before the first is *shift. */
static lua_State *thread_of(lua_State *L, int *shift)
{
    lua_State *thread = lua_tothread(L, 1);
    *shift = thread ? 1 : 0;
    return thread ? thread : L;
}

/* The frame at that level. False: it is one of C. Raises if there is none. */
static bool read_frame(lua_State *L, lua_State *thread, int shift, lua_Debug *frame)
{
    int level = (int)luaL_checkinteger(L, shift + 1);
    if (!lua_getstack(thread, level, frame)) luaL_argerror(L, shift + 1, "level out of range");
    lua_getinfo(thread, "S", frame);
    return *frame->what != 'C';
}

/* debug.getlocal([thread,] f or level, n) -> name, value | name | nil                               [-0, +n, e] */
static int debugging_getlocal(lua_State *L)
{
    lua_Debug frame;
    int shift, n;
    lua_State *thread = thread_of(L, &shift);
    n = (int)luaL_checkinteger(L, shift + 2);
    if (lua_isfunction(L, shift + 1)) {
        lua_pushvalue(L, shift + 1);
        lua_pushstring(L, lua_getlocal(L, NULL, n));
        return 1;
    }
    bool readable = read_frame(L, thread, shift, &frame);
    if (!lua_checkstack(thread, 1)) return luaL_error(L, "stack overflow");
    const char *name = readable ? lua_getlocal(thread, &frame, n) : NULL;
    if (!name) {
        luaL_pushfail(L);
        return 1;
    }
    lua_xmove(thread, L, 1);
    lua_pushstring(L, name);
    lua_insert(L, -2);
    return 2;
}

/* debug.setlocal([thread,] level, n, value) -> name | nil                                           [-0, +1, e] */
static int debugging_setlocal(lua_State *L)
{
    lua_Debug frame;
    int shift, n;
    lua_State *thread = thread_of(L, &shift);
    n = (int)luaL_checkinteger(L, shift + 2);
    bool writable = read_frame(L, thread, shift, &frame);
    luaL_checkany(L, shift + 3);
    lua_settop(L, shift + 3);
    if (!lua_checkstack(thread, 1)) return luaL_error(L, "stack overflow");
    if (!writable) {
        luaL_pushfail(L);
        return 1;
    }
    lua_xmove(L, thread, 1);
    const char *name = lua_setlocal(thread, &frame, n);
    if (!name) lua_pop(thread, 1);
    lua_pushstring(L, name);
    return 1;
}

/* debug.getinfo([thread,] f or level [, what]) -> table | nil. Upvalue: Lua's own, which is called one level further
 * down. `func` of a running function of C stays away: those of the engine trust who calls them.     [-0, +1, e] */
static int debugging_getinfo(lua_State *L)
{
    lua_Debug frame;
    int shift;
    lua_State *thread = thread_of(L, &shift);
    bool by_level = !lua_isfunction(L, shift + 1), is_c = false;
    if (by_level) {
        lua_Integer level = luaL_checkinteger(L, shift + 1);
        if (level >= 0 && level < INT32_MAX && lua_getstack(thread, (int)level, &frame)) {
            lua_getinfo(thread, "S", &frame);
            is_c = *frame.what == 'C';
        }
        if (thread == L && level >= 0 && level < INT32_MAX) {
            lua_pushinteger(L, level + 1);
            lua_replace(L, shift + 1);
        }
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    if (is_c && lua_istable(L, -1)) {
        lua_pushnil(L);
        lua_setfield(L, -2, "func");
    }
    return 1;
}

static void open_unavailable(lua_State *L)
{
    static const char *const names[] = {"debug", "getregistry", "getuservalue", "sethook", "setuservalue", NULL};
    for (const char *const *name = names; *name; name++) {
        lua_pushstring(L, *name);
        lua_pushcclosure(L, unavailable, 1);
        lua_setfield(L, -2, *name);
    }
}

void debugging_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"getlocal", debugging_getlocal},
                                         {"getmetatable", debugging_getmetatable},
                                         {"getupvalue", debugging_getupvalue},
                                         {"setlocal", debugging_setlocal},
                                         {"setmetatable", debugging_setmetatable},
                                         {"setupvalue", debugging_setupvalue},
                                         {NULL, NULL}};
    lua_getglobal(L, LUA_DBLIBNAME);
    luaL_setfuncs(L, functions, 0);
    open_unavailable(L);
    lua_getfield(L, -1, "getinfo");
    lua_pushcclosure(L, debugging_getinfo, 1);
    lua_setfield(L, -2, "getinfo");
    lua_pop(L, 1);
}
