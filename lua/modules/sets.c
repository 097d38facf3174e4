/* sets.*: large lists of names and networks with answers that do not depend on their size, and comparisons. */
#include <lauxlib.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lua/modules/domains.h"
#include "lua/modules/modules.h"
#include "lua/modules/subnets.h"

/* sets.cidr(text) -> subnet, bits                                                                   [-0, +2, e] */
static int sets_cidr(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    struct subnet subnet = subnets_check(L, AF_INET, text, size);
    lua_pushinteger(L, (lua_Integer)subnet.first.low);
    lua_pushinteger(L, subnet.bits);
    return 2;
}

/* sets.cidr6(text) -> high and low half of the subnet, bits                                         [-0, +3, e] */
static int sets_cidr6(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    struct subnet subnet = subnets_check(L, AF_INET6, text, size);
    lua_pushinteger(L, (lua_Integer)subnet.first.high);
    lua_pushinteger(L, (lua_Integer)subnet.first.low);
    lua_pushinteger(L, subnet.bits);
    return 3;
}

/* sets.equal(secret, given) -> boolean: strings, in a time that depends on what is given alone        [-0, +1, e] */
static int sets_equal(lua_State *L)
{
    size_t secret_size, size;
    const char *secret = luaL_checklstring(L, 1, &secret_size), *given = luaL_checklstring(L, 2, &size);
    volatile uint8_t differs = secret_size != size;
    for (size_t i = 0; i < size; i++) differs |= (uint8_t)(given[i] ^ (secret_size > 0 ? secret[i % secret_size] : 0));
    lua_pushboolean(L, differs == 0);
    return 1;
}

int luaopen_sets(lua_State *L)
{
    static const luaL_Reg functions[] = {{"domains", domains_new},
                                         {"subnets", subnets_new_ipv4},
                                         {"subnets6", subnets_new_ipv6},
                                         {"cidr", sets_cidr},
                                         {"cidr6", sets_cidr6},
                                         {"equal", sets_equal},
                                         {NULL, NULL}};
    domains_open(L);
    subnets_open(L);
    luaL_newlib(L, functions);
    return 1;
}
