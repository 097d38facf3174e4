/* Functions of Lua's standard libraries that have been replaced: each gives what Lua's own gives, but none can run long
 * without counting against the time budget, take the budget off, or reach what belongs to the engine. */
#ifndef SLUICE_LUA_ENGINE_STANDARD_H
#define SLUICE_LUA_ENGINE_STANDARD_H

#include <lua.h>
#include <stdbool.h>

void strings_open(lua_State *L);       /* string.find, match, gmatch, gsub, rep; methods of strings as well */
void tables_open(lua_State *L);        /* table.concat, insert, move, remove, sort */
void finalizers_open(lua_State *L);    /* setmetatable, getmetatable; before debugging_open() */
void debugging_open(lua_State *L);     /* debug.* */
void chunks_open(lua_State *L);        /* load, loadfile, dofile, require's files: text only */
void process_calls_open(lua_State *L); /* os.execute, exit, setlocale, io.popen */

/* setmetatable() without its checks: argument 1 gets what stands on the top.                       [-1, +0, e] */
void finalizers_set(lua_State *L);
/* The metatable of argument 1, or nothing and false. That of a userdata is a copy.                 [-0, +0|1, m] */
bool finalizers_get(lua_State *L);

#endif
