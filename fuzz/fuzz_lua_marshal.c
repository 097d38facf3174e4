/* What a peer answers: read as literals. What could be read is written, and read again, to the same text. */
#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lua/marshal.h"

static int round_trip(lua_State *L)
{
    size_t size, again_size;
    int count = marshal_decode(L, lua_touserdata(L, 1), (size_t)lua_tointeger(L, 2));
    if (count < 0) return 0;
    marshal_encode(L, 3);
    const char *text = lua_tolstring(L, -1, &size);
    int base = lua_gettop(L);
    if (marshal_decode(L, text, size) != count) abort();
    marshal_encode(L, base + 1);
    const char *again = lua_tolstring(L, -1, &again_size);
    /* The order of a table's other keys may change from one table to the next, their length does not. */
    if (size != again_size) abort();
    if (!memchr(text, '[', size) && memcmp(text, again, size) != 0) abort();
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
