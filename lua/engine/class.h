/* Classes of userdata that are known by an address instead of a name: testing for one needs no memory, and no script
 * finds it in the registry by its name. */
#ifndef SLUICE_LUA_ENGINE_CLASS_H
#define SLUICE_LUA_ENGINE_CLASS_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct class_key {
    const char *name; /* for messages; the key itself is the struct's address */
};

/* The block of the userdata at `index` if it is of that class, else NULL. Never raises; needs two places on the stack.
 */
static inline void *class_test(lua_State *L, int index, const struct class_key *key)
{
    if (lua_type(L, index) != LUA_TUSERDATA || !lua_getmetatable(L, index)) return NULL;
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same ? lua_touserdata(L, index) : NULL;
}

/* The same; raises an argument error if it is not. */
static inline void *class_check(lua_State *L, int index, const struct class_key *key)
{
    void *block = class_test(L, index, key);
    if (!block) luaL_typeerror(L, index, key->name);
    return block;
}

/* Makes the userdata on the top one of that class. */
static inline void class_set(lua_State *L, const struct class_key *key)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
    lua_setmetatable(L, -2);
}

/* Pushes the class's metatable, new, with these functions. Scripts cannot look into it. */
static inline void class_open(lua_State *L, const struct class_key *key, const luaL_Reg *functions)
{
    lua_newtable(L);
    lua_pushstring(L, key->name);
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    luaL_setfuncs(L, functions, 0);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

#endif
