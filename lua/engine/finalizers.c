/* Finalizers (__gc) of scripts, which Lua calls where its hooks are off: one that loops would loop for ever.
 *
 * So Lua never sees a script's finalizer. setmetatable() gives an object whose metatable has __gc a guard, a userdata
 * that only the object keeps alive. When the object is garbage the guard is, too; Lua calls the guard's finalizer,
 * which is ours, and that calls the script's in a coroutine: there hooks work, and the time budget holds.
 *
 *   guards (weak keys):  object --> guard --user value--> object
 *
 * The metatables of userdata belong to C, and Lua calls what stands in them: scripts get copies. */
#include <lauxlib.h>
#include <lualib.h>

#include "lua/engine/class.h"
#include "lua/engine/limits.h"
#include "lua/engine/standard.h"

/* Keys of the registry. */
static const struct class_key guard_class = {"finalizer"};
static const char guards_key, coroutine_key, copies_key;

/* --- running one --- */

static int call_finalizer(lua_State *L)
{
    lua_call(L, 1, 0); /* within it nothing can yield, as within any finalizer */
    return 0;
}

/* A script may have kept it, and have resumed it by itself. */
static bool is_idle(lua_State *co)
{
    lua_Debug where;
    return lua_status(co) == LUA_OK && lua_gettop(co) == 0 && lua_getstack(co, 0, &where) == 0;
}

/* Pushes the coroutine for finalizers; no finalizer runs within another.                            [-0, +1, m] */
static lua_State *push_coroutine(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &coroutine_key);
    lua_State *co = lua_tothread(L, -1);
    if (co && is_idle(co)) return co;
    lua_pop(L, 1);
    co = lua_newthread(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &coroutine_key);
    return co;
}

/* On the stack: object, finalizer. An error becomes a warning, as any of a finalizer.               [-2, +0, e] */
static void run_finalizer(lua_State *L)
{
    lua_State *co = push_coroutine(L);
    int results;
    lua_insert(L, -3);
    lua_pushcfunction(co, call_finalizer);
    lua_insert(L, -2); /* coroutine, finalizer, object */
    lua_xmove(L, co, 2);
    if (limits_run_finalizer(co, L, &results) == LUA_OK) {
        lua_settop(co, 0);
        lua_pop(L, 1);
        return;
    }
    lua_xmove(co, L, 1);
    lua_pushnil(L); /* its hooks may be off from now on */
    lua_rawsetp(L, LUA_REGISTRYINDEX, &coroutine_key);
    lua_error(L);
}

/* The guard's own finalizer. */
static int guard_collect(lua_State *L)
{
    if (!class_test(L, 1, &guard_class) || lua_getiuservalue(L, 1, 1) == LUA_TNIL) return 0;
    lua_pushnil(L);
    lua_setiuservalue(L, 1, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &guards_key);
    lua_pushvalue(L, 2);
    lua_pushnil(L);
    lua_rawset(L, -3); /* so that the object may get another one */
    lua_settop(L, 2);
    if (!lua_getmetatable(L, 2)) return 0;
    lua_pushliteral(L, "__gc");
    lua_rawget(L, 3);
    lua_remove(L, 3);
    if (lua_isfunction(L, 3)) run_finalizer(L);
    return 0;
}

/* --- setting one --- */

/* Gives the object at index 1 a guard, unless it has one.                                           [-0, +0, m] */
static void guard_object(lua_State *L)
{
    luaL_checkstack(L, 6, NULL);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &guards_key);
    lua_pushvalue(L, 1);
    if (lua_rawget(L, -2) == LUA_TNIL) {
        lua_newuserdatauv(L, 0, 1);
        class_set(L, &guard_class);
        lua_pushvalue(L, 1);
        lua_setiuservalue(L, -2, 1);
        lua_pushvalue(L, 1);
        lua_insert(L, -2);
        lua_rawset(L, -4);
    }
    lua_pop(L, 2);
}

/* On the top: the metatable. */
static void set_finalized(lua_State *L)
{
    int metatable = lua_gettop(L);
    guard_object(L);
    lua_pushliteral(L, "__gc");
    lua_pushvalue(L, -1);
    lua_rawget(L, metatable);
    lua_pushvalue(L, -2);
    lua_pushnil(L);
    lua_rawset(L, metatable);
    lua_pushvalue(L, metatable);
    lua_setmetatable(L, 1);
    lua_rawset(L, metatable); /* the place is there still: no memory is needed */
    lua_settop(L, metatable - 1);
}

void finalizers_set(lua_State *L)
{
    if (lua_istable(L, -1)) {
        lua_pushliteral(L, "__gc");
        bool finalized = lua_rawget(L, -2) != LUA_TNIL;
        lua_pop(L, 1);
        if (finalized) {
            set_finalized(L);
            return;
        }
    }
    lua_setmetatable(L, 1);
}

/* setmetatable(table, metatable) -> table                                                           [-0, +1, e] */
static int set_metatable(lua_State *L)
{
    int type = lua_type(L, 2);
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return luaL_error(L, "cannot change a protected metatable");
    lua_settop(L, 2);
    finalizers_set(L);
    return 1;
}

/* --- getting one --- */

/* Replaces the metatable on the top by its copy, the same one each time.                            [-1, +1, m] */
static void copy_metatable(lua_State *L)
{
    int metatable = lua_gettop(L);
    luaL_checkstack(L, 6, NULL);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &copies_key);
    lua_pushvalue(L, metatable);
    if (lua_rawget(L, -2) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_newtable(L);
        for (lua_pushnil(L); lua_next(L, metatable) != 0;) {
            lua_pushvalue(L, -2);
            lua_insert(L, -2);
            lua_rawset(L, -4);
        }
        lua_pushvalue(L, metatable);
        lua_pushvalue(L, -2);
        lua_rawset(L, -4);
    }
    lua_replace(L, metatable);
    lua_settop(L, metatable);
}

bool finalizers_get(lua_State *L)
{
    if (!lua_getmetatable(L, 1)) return false;
    if (lua_type(L, 1) == LUA_TUSERDATA) copy_metatable(L);
    return true;
}

/* getmetatable(value) -> metatable | nil                                                            [-0, +1, e] */
static int get_metatable(lua_State *L)
{
    luaL_checkany(L, 1);
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return 1;
    if (!finalizers_get(L)) lua_pushnil(L);
    return 1;
}

static void open_weak(lua_State *L, const void *key)
{
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void finalizers_open(lua_State *L)
{
    static const luaL_Reg methods[] = {{"__gc", guard_collect}, {NULL, NULL}};
    class_open_hidden(L, &guard_class, methods);
    lua_pop(L, 1);
    open_weak(L, &guards_key);
    open_weak(L, &copies_key);
    lua_register(L, "setmetatable", set_metatable);
    lua_register(L, "getmetatable", get_metatable);
}
