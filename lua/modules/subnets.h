/* sets.subnets and sets.subnets6: large lists of networks. */
#ifndef SLUICE_LUA_MODULES_SUBNETS_H
#define SLUICE_LUA_MODULES_SUBNETS_H

#include <lua.h>
#include <stddef.h>

#include "protocols/subnet.h"

/* Once for each Lua state, before the others. */
void subnets_open(lua_State *L);
/* sets.subnets(list) -> predicate, which says of an address, as one integer, whether a network has it  [-0, +1, e] */
int subnets_new_ipv4(lua_State *L);
/* sets.subnets6(list) -> predicate, of the two halves of an address                                 [-0, +1, e] */
int subnets_new_ipv6(lua_State *L);
/* A network as subnet_parse() reads it; raises an error if it is none. */
struct subnet subnets_check(lua_State *L, int family, const char *entry, size_t size);

#endif
