/* sets.domains: large lists of names. */
#ifndef SLUICE_LUA_MODULES_DOMAINS_H
#define SLUICE_LUA_MODULES_DOMAINS_H

#include <lua.h>

/* Once for each Lua state, before domains_new(). */
void domains_open(lua_State *L);
/* sets.domains(list) -> predicate, which says of a host whether it or a domain above it is in the list  [-0, +1, e] */
int domains_new(lua_State *L);

#endif
