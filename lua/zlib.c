/* zlib.*: strings to and from the zlib and gzip formats (contract section 5.5), on codec.h. */
#include <lauxlib.h>
#include <stdlib.h>

#include "codec.h"
#include "modules.h"

/* What zlib's own functions would have returned. */
static int zlib_code(enum codec_result result)
{
    return result == CODEC_TRUNCATED ? -4 : -1;
}

struct zlib_result {
    char *data; /* malloc'd */
    size_t size;
};

/* The string of the struct zlib_result that argument 1 points to.                                     [-1, +1, m] */
static int zlib_push(lua_State *L)
{
    const struct zlib_result *result = lua_touserdata(L, 1);
    lua_pushlstring(L, result->data, result->size);
    return 1;
}

/* Frees the octets even if there is no memory for the string. */
static int zlib_return(lua_State *L, struct zlib_result *result)
{
    lua_pushcfunction(L, zlib_push);
    lua_pushlightuserdata(L, result);
    int status = lua_pcall(L, 1, 1, 0);
    free(result->data);
    return status == LUA_OK ? 1 : lua_error(L);
}

static int zlib_decode(lua_State *L, enum codec codec, const char *name)
{
    size_t size;
    struct zlib_result result;
    const char *data = luaL_checklstring(L, 1, &size);
    luaL_checkstack(L, 4, NULL);
    enum codec_result code = codec_decode(codec, data, size, CODEC_OUTPUT_MAX, &result.data, &result.size);
    if (code == CODEC_NO_MEMORY) return luaL_error(L, "not enough memory");
    if (code != CODEC_OK) return luaL_error(L, "%s error: %d", name, zlib_code(code));
    return zlib_return(L, &result);
}

static int zlib_encode(lua_State *L, enum codec codec)
{
    size_t size;
    struct zlib_result result;
    const char *data = luaL_checklstring(L, 1, &size);
    luaL_checkstack(L, 4, NULL);
    if (codec_encode(codec, data, size, &result.data, &result.size) != CODEC_OK)
        return luaL_error(L, "not enough memory");
    return zlib_return(L, &result);
}

/* zlib.compress(s) -> string                                                                        [-0, +1, e] */
static int zlib_compress(lua_State *L)
{
    return zlib_encode(L, CODEC_DEFLATE);
}

/* zlib.uncompress(s) -> string                                                                      [-0, +1, e] */
static int zlib_uncompress(lua_State *L)
{
    return zlib_decode(L, CODEC_DEFLATE, "uncompress");
}

/* zlib.gzip(s) -> string                                                                            [-0, +1, e] */
static int zlib_gzip(lua_State *L)
{
    return zlib_encode(L, CODEC_GZIP);
}

/* zlib.gunzip(s) -> string                                                                          [-0, +1, e] */
static int zlib_gunzip(lua_State *L)
{
    return zlib_decode(L, CODEC_GZIP, "gunzip");
}

int luaopen_zlib(lua_State *L)
{
    static const luaL_Reg functions[] = {{"compress", zlib_compress},
                                         {"uncompress", zlib_uncompress},
                                         {"gzip", zlib_gzip},
                                         {"gunzip", zlib_gunzip},
                                         {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
