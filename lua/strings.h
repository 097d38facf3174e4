/* string.find, match, gmatch, gsub and rep in the place of Lua's: the same results, but what they do counts against the
 * time budget (match.h). */
#ifndef SLUICE_LUA_STRINGS_H
#define SLUICE_LUA_STRINGS_H

#include <lua.h>

/* Replaces them in the table `string`, which is the methods of strings as well. */
void strings_open(lua_State *L);

#endif
