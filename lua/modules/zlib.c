/* zlib.*: strings to and from the zlib and gzip formats (contract section 5.5), on codec.h. */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "lua/engine/codec.h"
#include "lua/engine/limits.h"
#include "lua/engine/offload.h"
#include "lua/engine/text.h"
#include "lua/modules/modules.h"
#include "lua/modules/zlib.h"

/* What zlib's own functions would have returned. */
static int zlib_code(enum codec_result result)
{
    return result == CODEC_TRUNCATED ? -4 : -1;
}

/* The string of the struct engine_text that argument 1 points to.                                     [-1, +1, m] */
static int zlib_push(lua_State *L)
{
    const struct engine_text *result = lua_touserdata(L, 1);
    lua_pushlstring(L, result->data, result->size);
    return 1;
}

/* Frees the octets even if there is no memory for the string. */
static int zlib_return(lua_State *L, struct engine_text *result)
{
    lua_pushcfunction(L, zlib_push);
    lua_pushlightuserdata(L, result);
    int status = lua_pcall(L, 1, 1, 0);
    free(result->data);
    return status == LUA_OK ? 1 : lua_error(L);
}

/* What is large goes to a thread, with a copy of the input, so that the caller does not wait longer than it may. */
#define ZLIB_LARGE ((size_t)16 << 10)

enum zlib_what { ZLIB_PACK, ZLIB_UNPACK, ZLIB_UNPACK_EXACTLY };

struct zlib_job {
    struct offload_job job; /* first */
    enum codec codec;
    enum zlib_what what;
    enum codec_result code;
    struct engine_text result;
    size_t size;
    char data[];
};

static enum codec_result zlib_run(enum codec codec, enum zlib_what what, const char *data, size_t size,
                                  struct engine_text *result)
{
    switch (what) {
    case ZLIB_PACK: return codec_encode(codec, data, size, &result->data, &result->size);
    case ZLIB_UNPACK: return codec_decode(codec, data, size, CODEC_OUTPUT_MAX, &result->data, &result->size);
    case ZLIB_UNPACK_EXACTLY: break;
    }
    return codec_decode_exactly(codec, data, size, CODEC_OUTPUT_MAX, &result->data, &result->size);
}

static void zlib_work(struct offload_job *job)
{
    struct zlib_job *z = (struct zlib_job *)job;
    z->code = zlib_run(z->codec, z->what, z->data, z->size, &z->result);
}

static void zlib_discard(struct offload_job *job)
{
    free(((struct zlib_job *)job)->result.data);
    free(job);
}

static enum codec_result zlib_offload(lua_State *L, enum codec codec, enum zlib_what what, const char *data,
                                      size_t size, struct engine_text *result)
{
    struct zlib_job *z = malloc(sizeof *z + size);
    if (!z) return CODEC_NO_MEMORY;
    *z = (struct zlib_job){
        .job = {.work = zlib_work, .discard = zlib_discard}, .codec = codec, .what = what, .size = size};
    memcpy(z->data, data, size);
    if (!offload_run(L, &z->job)) {
        limits_check(L);
        luaL_error(L, "too many strings are being packed or unpacked already");
    }
    enum codec_result code = z->code;
    *result = z->result;
    free(z);
    return code;
}

static enum codec_result zlib_convert(lua_State *L, enum codec codec, enum zlib_what what, struct engine_text *result)
{
    size_t size;
    const char *data = luaL_checklstring(L, 1, &size);
    luaL_checkstack(L, 4, NULL);
    if (size < ZLIB_LARGE) return zlib_run(codec, what, data, size, result);
    return zlib_offload(L, codec, what, data, size, result);
}

enum codec_result zlib_unpack(lua_State *L, enum codec codec, const char *data, size_t size, struct engine_text *out)
{
    *out = (struct engine_text){0};
    if (size < ZLIB_LARGE) return zlib_run(codec, ZLIB_UNPACK, data, size, out);
    return zlib_offload(L, codec, ZLIB_UNPACK, data, size, out);
}

static int zlib_decode(lua_State *L, enum codec codec, const char *name)
{
    struct engine_text result = {0};
    enum codec_result code = zlib_convert(L, codec, ZLIB_UNPACK_EXACTLY, &result);
    if (code == CODEC_NO_MEMORY) return luaL_error(L, "not enough memory");
    if (code != CODEC_OK) return luaL_error(L, "%s error: %d", name, zlib_code(code));
    return zlib_return(L, &result);
}

static int zlib_encode(lua_State *L, enum codec codec)
{
    struct engine_text result = {0};
    if (zlib_convert(L, codec, ZLIB_PACK, &result) != CODEC_OK) return luaL_error(L, "not enough memory");
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
