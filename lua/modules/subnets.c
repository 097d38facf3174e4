/* Ranges of addresses, sorted and merged once, then binary search. They are memory of the Lua state, so that its limit
 * holds. */
#include "lua/modules/subnets.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "lua/engine/class.h"
#include "lua/modules/entries.h"

static const struct class_key subnets_class = {"sluice.subnets"}, subnets6_class = {"sluice.subnets6"};

struct range {
    struct number first, last;
};
struct subnets {
    size_t count;
    struct range ranges[];
};

static int number_compare(struct number a, struct number b)
{
    if (a.high != b.high) return a.high < b.high ? -1 : 1;
    return a.low < b.low ? -1 : a.low > b.low;
}

static int range_compare(const void *a, const void *b)
{
    const struct range *left = a, *right = b;
    return number_compare(left->first, right->first);
}

/* The number behind it; the last one has none. */
static bool number_follows(struct number a, struct number b)
{
    struct number next = {a.high + (a.low == UINT64_MAX), a.low + 1};
    return (a.high != UINT64_MAX || a.low != UINT64_MAX) && number_compare(next, b) == 0;
}

struct subnet subnets_check(lua_State *L, int family, const char *entry, size_t size)
{
    struct subnet subnet;
    const char *wrong = subnet_parse(family, entry, size, &subnet);
    if (wrong) entries_refuse(L, wrong, entry, size);
    return subnet;
}

/* Sorted, and those that touch or overlap made one. */
static void subnets_merge(struct subnets *s)
{
    size_t kept = 0;
    if (s->count == 0) return;
    qsort(s->ranges, s->count, sizeof *s->ranges, range_compare);
    for (size_t i = 1; i < s->count; i++) {
        struct range *last = &s->ranges[kept], *next = &s->ranges[i];
        bool joins = number_compare(next->first, last->last) <= 0 || number_follows(last->last, next->first);
        if (!joins)
            s->ranges[++kept] = *next;
        else if (number_compare(next->last, last->last) > 0)
            last->last = next->last;
    }
    s->count = kept + 1;
}

static int subnets_new(lua_State *L, int family, const struct class_key *class)
{
    size_t count = 0, size;
    struct entries e = entries_open(L);
    while (entries_next(&e, &size)) count++;
    if (count > SIZE_MAX / sizeof(struct range) / 2) return luaL_error(L, "too many subnets");
    lua_settop(L, 1);
    struct subnets *subnets = lua_newuserdatauv(L, sizeof *subnets + count * sizeof(struct range), 0);
    subnets->count = 0;
    class_set(L, class);
    e = entries_open(L);
    for (const char *entry; (entry = entries_next(&e, &size));) {
        if (subnets->count == count) return luaL_error(L, ENTRIES_CHANGED);
        struct subnet subnet = subnets_check(L, family, entry, size);
        subnets->ranges[subnets->count++] = (struct range){subnet.first, subnet.last};
    }
    subnets_merge(subnets);
    return 1;
}

static bool subnets_hold(const struct subnets *s, struct number address)
{
    size_t low = 0, high = s->count; /* the first range that begins behind the address is in low...high */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (number_compare(s->ranges[middle].first, address) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && number_compare(address, s->ranges[low - 1].last) <= 0;
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
    const struct subnets *s = class_check(L, 1, &subnets_class);
    lua_Integer ip = luaL_checkinteger(L, 2);
    lua_pushboolean(L, ip >= 0 && ip <= UINT32_MAX && subnets_hold(s, (struct number){0, (uint64_t)ip}));
    return 1;
}

/* predicate(high, low) -> boolean                                                                   [-0, +1, e] */
static int subnets6_call(lua_State *L)
{
    const struct subnets *s = class_check(L, 1, &subnets6_class);
    struct number address = {(uint64_t)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3)};
    lua_pushboolean(L, subnets_hold(s, address));
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
