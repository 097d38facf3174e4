/* The modules that every script finds in its globals, in the manner of lualib.h. */
#ifndef SLUICE_LUA_MODULES_MODULES_H
#define SLUICE_LUA_MODULES_MODULES_H

#include <lua.h>

int luaopen_literals(lua_State *L); /* a function */
int luaopen_marshal(lua_State *L);  /* a function */
int luaopen_regex(lua_State *L);
int luaopen_sets(lua_State *L);
int luaopen_time(lua_State *L);
int luaopen_wakeup(lua_State *L);
int luaopen_zlib(lua_State *L);

#endif
