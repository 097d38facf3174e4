/* Networks in a table of core/io/prefix_table, in memory of the Lua state, so that its limit holds. */
#include "lua/modules/subnets.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/io/prefix_table.h"
#include "lua/engine/class.h"
#include "lua/modules/entries.h"

static const struct class_key subnets_class = {"sluice.subnets"}, subnets6_class = {"sluice.subnets6"};

struct subnet subnets_check(lua_State *L, int family, const char *entry, size_t size)
{
    struct subnet subnet;
    const char *wrong = subnet_parse(family, entry, size, &subnet);
    if (wrong) entries_refuse(L, wrong, entry, size);
    return subnet;
}

/* The networks of the list at index 1, pushed; *count of them. */
static struct prefix *subnets_read(lua_State *L, int family, size_t *count)
{
    size_t size, most = 0;
    struct entries e = entries_open(L);
    while (entries_next(&e, &size)) most++;
    if (most > SIZE_MAX / sizeof(struct prefix) / 4 || prefix_table_size(most) == SIZE_MAX)
        luaL_error(L, "too many subnets");
    lua_settop(L, 1);
    struct prefix *networks = lua_newuserdatauv(L, most * sizeof *networks, 0);
    *count = 0;
    e = entries_open(L);
    for (const char *entry; (entry = entries_next(&e, &size));) {
        if (*count == most) luaL_error(L, ENTRIES_CHANGED);
        struct subnet subnet = subnets_check(L, family, entry, size);
        unsigned bits = (unsigned)subnet.bits + (family == AF_INET ? 96 : 0);
        networks[(*count)++] = (struct prefix){.first = subnet.first, .tag = 1, .bits = (uint8_t)bits};
    }
    return networks;
}

static int subnets_new(lua_State *L, int family, const struct class_key *class)
{
    size_t count;
    struct prefix *networks = subnets_read(L, family, &count);
    struct prefix_table *table = lua_newuserdatauv(L, sizeof *table, 1);
    *table = (struct prefix_table){.count = 0};
    void *memory = lua_newuserdatauv(L, prefix_table_size(count), 0);
    lua_setiuservalue(L, -2, 1);
    prefix_table_build(table, memory, networks, count, NULL, NULL);
    class_set(L, class);
    return 1;
}

int subnets_new_ipv4(lua_State *L)
{
    return subnets_new(L, AF_INET, &subnets_class);
}

int subnets_new_ipv6(lua_State *L)
{
    return subnets_new(L, AF_INET6, &subnets6_class);
}

/* predicate(ip) -> boolean                                                                          [-0, +1, e] */
static int subnets4_call(lua_State *L)
{
    const struct prefix_table *table = class_check(L, 1, &subnets_class);
    lua_Integer ip = luaL_checkinteger(L, 2);
    lua_pushboolean(L, ip >= 0 && ip <= UINT32_MAX && prefix_table_find(table, (struct number){0, (uint64_t)ip}) != 0);
    return 1;
}

/* predicate(high, low) -> boolean                                                                   [-0, +1, e] */
static int subnets6_call(lua_State *L)
{
    const struct prefix_table *table = class_check(L, 1, &subnets6_class);
    struct number address = {(uint64_t)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3)};
    lua_pushboolean(L, prefix_table_find(table, address) != 0);
    return 1;
}

void subnets_open(lua_State *L)
{
    static const luaL_Reg events[] = {{"__call", subnets4_call}, {NULL, NULL}};
    static const luaL_Reg events6[] = {{"__call", subnets6_call}, {NULL, NULL}};
    class_open(L, &subnets_class, events);
    class_open(L, &subnets6_class, events6);
    lua_pop(L, 2);
}
