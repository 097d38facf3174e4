/* What a peer answers: read as literals. What could be read is written, and read again, to the same values; and to the
 * same text, unless there are keys in it, whose order may change from one table to the next. */
#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lua/modules/marshal.h"

static void check_same(lua_State *L, int a, int b);

static size_t count_fields(lua_State *L, int table)
{
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) count++;
    return count;
}

/* All of a is in b, and there are as many fields in both. A table that is a key is never found again. */
static void check_fields(lua_State *L, int a, int b)
{
    if (count_fields(L, a) != count_fields(L, b)) abort();
    for (lua_pushnil(L); lua_next(L, a); lua_pop(L, 1)) {
        if (lua_istable(L, -2)) continue;
        lua_pushvalue(L, -2);
        lua_rawget(L, b);
        check_same(L, lua_gettop(L) - 1, lua_gettop(L));
        lua_pop(L, 1);
    }
}

static void check_same(lua_State *L, int a, int b)
{
    luaL_checkstack(L, 8, NULL);
    if (lua_type(L, a) != lua_type(L, b)) abort();
    if (lua_istable(L, a))
        check_fields(L, a, b);
    else if (!lua_rawequal(L, a, b) && (lua_rawequal(L, a, a) || lua_rawequal(L, b, b)))
        abort(); /* they differ, and are not both nan */
}

static int round_trip(lua_State *L)
{
    size_t size, again_size;
    int count = marshal_decode(L, lua_touserdata(L, 1), (size_t)lua_tointeger(L, 2));
    if (count < 0) return 0;
    marshal_encode(L, 3);
    int base = lua_gettop(L);
    const char *text = lua_tolstring(L, base, &size);
    if (marshal_decode(L, text, size) != count) abort();
    for (int i = 0; i < count; i++) check_same(L, 3 + i, base + 1 + i);
    marshal_encode(L, base + 1);
    const char *again = lua_tolstring(L, -1, &again_size);
    if (!memchr(text, '[', size) && (size != again_size || memcmp(text, again, size) != 0)) abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lua_State *L;
    char *exact = malloc(size > 0 ? size : 1); /* whoever reads behind the end is caught */
    if (!L) L = luaL_newstate();
    if (!exact) return 0;
    if (size > 0) memcpy(exact, data, size);
    lua_settop(L, 0);
    lua_pushcfunction(L, round_trip);
    lua_pushlightuserdata(L, exact);
    lua_pushinteger(L, (lua_Integer)size);
    int status = lua_pcall(L, 2, 0, 0);
    /* Tables may be read 200 deep and written 196 deep. */
    if (status != LUA_OK && strcmp(lua_tostring(L, -1), "C stack overflow") != 0) abort();
    free(exact);
    return 0;
}
