/* Classes of userdata that are known by an address instead of a name: testing for one needs no memory, and no script
 * finds it in the registry by its name. */
#ifndef SLUICE_LUA_ENGINE_CLASS_H
#define SLUICE_LUA_ENGINE_CLASS_H

#include <lauxlib.h>
#include <lua.h>

struct class_key {
    const char *name; /* for messages; the key itself is the struct's address */
};

/* Pushes the class's metatable, new, with these functions. getmetatable() gives scripts a copy.      [-0, +1, m] */
void class_open(lua_State *L, const struct class_key *key, const luaL_Reg *functions);
/* The same; getmetatable() gives scripts `false`. */
void class_open_hidden(lua_State *L, const struct class_key *key, const luaL_Reg *functions);
/* Makes the userdata on the top one of that class.                                                   [-0, +0, -] */
void class_set(lua_State *L, const struct class_key *key);
/* The block of the userdata at `index` if it is of that class, else NULL. Never raises; needs two places on the stack.
 */
void *class_test(lua_State *L, int index, const struct class_key *key);
/* The same; raises an argument error if it is not. */
void *class_check(lua_State *L, int index, const struct class_key *key);
/* Pushes a table whose values are the metatables of all classes of the state.                        [-0, +1, m] */
void class_push_all(lua_State *L);

#endif
