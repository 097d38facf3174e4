/* The table behind a decision: `return addr, proxy, {source = "203.0.113.7", mark = 5, interface = "eth1"}`. A member
 * is a row of the table in verdict_options.c: its name, and the function that reads its value. */
#ifndef SLUICE_LUA_MODULES_VERDICT_OPTIONS_H
#define SLUICE_LUA_MODULES_VERDICT_OPTIONS_H

#include <lua.h>

#include "core/session/route_request.h"

/* Whether the last value, at `first` + 1 or behind it, is such a table: then the decision ends in front of it. */
bool verdict_options_are_there(lua_State *L, int first);
/* Reads the table on top of the stack into the verdict, without metamethods, and takes it off. NULL, or what is wrong
 * with a member, which stays on the stack as long as its place does. */
const char *verdict_options_take(lua_State *L, struct route_verdict *verdict);

#endif
