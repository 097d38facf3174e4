/* Lua values as the text of literals (marshal.c) and back (unmarshal.c), contract section 4.4. Text that comes from a
 * peer is read here, and never compiled: nothing in it can run. */
#ifndef SLUICE_LUA_MODULES_MARSHAL_H
#define SLUICE_LUA_MODULES_MARSHAL_H

#include <lua.h>

/* Pushes the text of the values from index `first` to the top, separated by commas. Raises for what has no literal, for
 * circles, for nesting deeper than 196, and without memory.                                           [-0, +1, e] */
void marshal_encode(lua_State *L, int first);

/* Reads `return v, v, ...`, with or without the word, as literals: nil, booleans, numbers (also 1/0, -1/0 and 0/0),
 * strings in all of Lua's forms, tables; comments are skipped. Pushes the values and returns their number, which may be
 * close to what a stack holds (a million): check it before pushing much more. Or pushes a message and returns -1: for
 * what is no literal, for tables nested deeper than 200, for more values than a stack holds. Raises memory errors and
 * nothing else: call it protected, with `text` in memory that an error does not lose. [-0, +n or 1, m] */
int marshal_decode(lua_State *L, const char *text, size_t size);

#endif
