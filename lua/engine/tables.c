/* table.move, insert, remove, concat and sort in the place of Lua's: the same, but their loops count against the time
 * budget. With a metatable a table may have any length, so that each of them may run for ever. */
#include <lauxlib.h>
#include <limits.h>
#include <lualib.h>

#include "lua/engine/limits.h"
#include "lua/engine/standard.h"

enum use { USE_READ = 1, USE_WRITE = 2, USE_LENGTH = 4 };

/* In loops over positions: every thousandth is a look at the clock. */
static inline void tick(lua_State *L, lua_Integer position)
{
    if ((position & 1023) == 0) limits_spend(L);
}

static bool has_field(lua_State *L, const char *name)
{
    if (luaL_getmetafield(L, 1, name) == LUA_TNIL) return false;
    lua_pop(L, 1);
    return true;
}

/* A table, or what behaves like one. */
static void check_table(lua_State *L, int index, unsigned use)
{
    if (lua_type(L, index) == LUA_TTABLE) return;
    lua_pushvalue(L, index);
    lua_insert(L, 1); /* for has_field() */
    bool good = lua_getmetatable(L, 1);
    if (good) {
        lua_pop(L, 1);
        good = (!(use & USE_READ) || has_field(L, "__index")) && (!(use & USE_WRITE) || has_field(L, "__newindex")) &&
               (!(use & USE_LENGTH) || has_field(L, "__len"));
    }
    lua_remove(L, 1);
    if (!good) luaL_checktype(L, index, LUA_TTABLE);
}

static lua_Integer check_length(lua_State *L, unsigned use)
{
    check_table(L, 1, use | USE_LENGTH);
    return luaL_len(L, 1);
}

/* table.insert(t, [position,] value)                                                                [-0, +0, e] */
static int tables_insert(lua_State *L)
{
    lua_Integer end = (lua_Integer)((lua_Unsigned)check_length(L, USE_READ | USE_WRITE) + 1), position = end;
    int count = lua_gettop(L);
    if (count != 2 && count != 3) return luaL_error(L, "wrong number of arguments to 'insert'");
    if (count == 3) {
        position = luaL_checkinteger(L, 2);
        luaL_argcheck(L, (lua_Unsigned)position - 1 < (lua_Unsigned)end, 2, "position out of bounds");
        for (lua_Integer i = end; i > position; i--) {
            lua_geti(L, 1, i - 1);
            lua_seti(L, 1, i);
            tick(L, i);
        }
    }
    lua_seti(L, 1, position);
    return 0;
}

/* table.remove(t[, position]) -> value                                                              [-0, +1, e] */
static int tables_remove(lua_State *L)
{
    lua_Integer size = check_length(L, USE_READ | USE_WRITE), position = luaL_optinteger(L, 2, size);
    if (position != size)
        luaL_argcheck(L, (lua_Unsigned)position - 1 <= (lua_Unsigned)size, 2, "position out of bounds");
    lua_geti(L, 1, position);
    for (; position < size; position++) {
        lua_geti(L, 1, position + 1);
        lua_seti(L, 1, position);
        tick(L, position);
    }
    lua_pushnil(L);
    lua_seti(L, 1, position);
    return 1;
}

/* table.move(from, first, last, position[, to]) -> to                                               [-0, +1, e] */
static int tables_move(lua_State *L)
{
    lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3), position = luaL_checkinteger(L, 4);
    int to = lua_isnoneornil(L, 5) ? 1 : 5;
    check_table(L, 1, USE_READ);
    check_table(L, to, USE_WRITE);
    if (last >= first) {
        luaL_argcheck(L, first > 0 || last < LUA_MAXINTEGER + first, 3, "too many elements to move");
        lua_Integer count = last - first + 1;
        luaL_argcheck(L, position <= LUA_MAXINTEGER - count + 1, 4, "destination wrap around");
        /* Within one table from the end, where the elements move up onto others that are still to be moved. */
        bool upwards = position > first && position <= last && (to == 1 || lua_compare(L, 1, to, LUA_OPEQ));
        for (lua_Integer i = 0; i < count; i++) {
            lua_Integer at = upwards ? count - 1 - i : i;
            lua_geti(L, 1, first + at);
            lua_seti(L, to, position + at);
            tick(L, i);
        }
    }
    lua_pushvalue(L, to);
    return 1;
}

static void add_element(lua_State *L, luaL_Buffer *out, lua_Integer i)
{
    lua_geti(L, 1, i);
    if (!lua_isstring(L, -1)) luaL_error(L, "invalid value (at index %I) in table for 'concat'", (LUAI_UACINT)i);
    luaL_addvalue(out);
}

/* table.concat(t[, separator[, first[, last]]]) -> string                                           [-0, +1, e] */
static int tables_concat(lua_State *L)
{
    luaL_Buffer out;
    size_t size;
    lua_Integer last = check_length(L, USE_READ);
    const char *separator = luaL_optlstring(L, 2, "", &size);
    lua_Integer i = luaL_optinteger(L, 3, 1);
    last = luaL_optinteger(L, 4, last);
    luaL_buffinit(L, &out);
    for (; i < last; i++) {
        add_element(L, &out, i);
        luaL_addlstring(&out, separator, size);
        tick(L, i);
    }
    if (i == last) add_element(L, &out, i);
    luaL_pushresult(&out);
    return 1;
}

/* --- sort --- */

#define SORT_SMALL 4 /* that many are sorted by insertion */

struct sort {
    struct limits_meter meter; /* first */
    bool by_function;          /* at index 2 */
    uint32_t random;
};

/* Long strings take long to compare. */
static inline uint32_t steps_of(lua_State *L, int index)
{
    size_t size = lua_type(L, index) == LUA_TSTRING ? lua_rawlen(L, index) / 64 : 0;
    return size < LIMITS_STEPS ? (uint32_t)size : LIMITS_STEPS;
}

/* Whether the value at `a` comes before the one at `b`; both count from the top. */
static bool is_before(struct sort *s, int a, int b)
{
    lua_State *L = s->meter.L;
    limits_step(&s->meter, 4 + steps_of(L, a));
    if (!s->by_function) return lua_compare(L, a, b, LUA_OPLT);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, a - 1);
    lua_pushvalue(L, b - 2);
    lua_call(L, 2, 1);
    bool before = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return before;
}

static void sort_by_insertion(struct sort *s, lua_Integer first, lua_Integer last)
{
    lua_State *L = s->meter.L;
    for (lua_Integer i = first + 1; i <= last; i++) {
        lua_Integer hole = i;
        for (lua_geti(L, 1, i); hole > first; hole--) {
            lua_geti(L, 1, hole - 1);
            if (!is_before(s, -2, -1)) {
                lua_pop(L, 1);
                break;
            }
            lua_seti(L, 1, hole);
        }
        lua_seti(L, 1, hole);
    }
}

/* Any element as the pivot, moved to the front and left on the top. */
static void take_pivot(struct sort *s, lua_Integer first, lua_Integer last)
{
    lua_State *L = s->meter.L;
    s->random = s->random * 1664525u + 1013904223u;
    lua_Integer pivot = first + (lua_Integer)((uint64_t)s->random * (uint64_t)(last - first + 1) >> 32);
    lua_geti(L, 1, pivot);
    lua_geti(L, 1, first);
    lua_seti(L, 1, pivot);
    lua_pushvalue(L, -1);
    lua_seti(L, 1, first);
}

/* What is smaller than the pivot comes to lie in front of it, what is larger behind it. Returns where it lies. An order
 * that contradicts itself makes a wrong order of the elements, no more. */
static lua_Integer partition(struct sort *s, lua_Integer first, lua_Integer last)
{
    lua_State *L = s->meter.L;
    lua_Integer low = first + 1, high = last;
    take_pivot(s, first, last);
    for (;;) { /* the pivot is on the top */
        for (; low <= high; low++) {
            lua_geti(L, 1, low);
            if (!is_before(s, -1, -2)) break;
            lua_pop(L, 1);
        }
        if (low > high) break; /* all of the rest is smaller, and nothing was kept on the stack */
        for (; high > low; high--) {
            lua_geti(L, 1, high);
            if (!is_before(s, -3, -1)) break;
            lua_pop(L, 1);
        }
        if (high == low) {
            lua_pop(L, 1);
            high--;
            break;
        }
        lua_seti(L, 1, low++);
        lua_seti(L, 1, high--);
    }
    lua_geti(L, 1, high); /* the last of the smaller ones, or the pivot itself */
    lua_seti(L, 1, first);
    lua_seti(L, 1, high);
    return high;
}

static void sort_range(struct sort *s, lua_Integer first, lua_Integer last)
{
    while (last - first >= SORT_SMALL) {
        lua_Integer middle = partition(s, first, last);
        if (middle - first < last - middle) { /* the smaller part first: the depth is a logarithm */
            sort_range(s, first, middle - 1);
            first = middle + 1;
        } else {
            sort_range(s, middle + 1, last);
            last = middle - 1;
        }
    }
    sort_by_insertion(s, first, last);
}

/* table.sort(t[, before])                                                                           [-0, +0, e] */
static int tables_sort(lua_State *L)
{
    struct sort s = {.meter = {L, LIMITS_STEPS}, .random = 1};
    lua_Integer size = check_length(L, USE_READ | USE_WRITE);
    if (size < 2) return 0;
    luaL_argcheck(L, size < INT_MAX, 1, "array too big");
    if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    luaL_checkstack(L, 200, "");
    s.by_function = lua_isfunction(L, 2);
    sort_range(&s, 1, size);
    return 0;
}

void tables_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"concat", tables_concat}, {"insert", tables_insert}, {"move", tables_move},
                                         {"remove", tables_remove}, {"sort", tables_sort},     {NULL, NULL}};
    lua_getglobal(L, LUA_TABLIBNAME);
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 1);
}
