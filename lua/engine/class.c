#include "lua/engine/class.h"

#include <stdbool.h>

/* Key of the registry. */
static const char all_key;

void class_push_all(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &all_key) == LUA_TTABLE) return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &all_key);
}

void class_open(lua_State *L, const struct class_key *key, const luaL_Reg *functions)
{
    lua_newtable(L);
    lua_pushstring(L, key->name);
    lua_setfield(L, -2, "__name");
    luaL_setfuncs(L, functions, 0);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
    class_push_all(L);
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, key);
    lua_pop(L, 1);
}

void class_open_hidden(lua_State *L, const struct class_key *key, const luaL_Reg *functions)
{
    class_open(L, key, functions);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
}

void class_set(lua_State *L, const struct class_key *key)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
    lua_setmetatable(L, -2);
}

void *class_test(lua_State *L, int index, const struct class_key *key)
{
    if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index)) return NULL;
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same ? lua_touserdata(L, index) : NULL;
}

void *class_check(lua_State *L, int index, const struct class_key *key)
{
    void *block = class_test(L, index, key);
    if (!block) luaL_typeerror(L, index, key->name);
    return block;
}
