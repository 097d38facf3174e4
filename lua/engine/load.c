#include "lua/engine/load.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua/engine/codec.h"
#include "lua/engine/embedded.h"
#include "lua/engine/octets.h"

#define LOAD_STEP ((size_t)65536)

/* A pipe has no size to ask for: reads until the end. One octet more than is allowed shows that there is more. */
static int read_stream(FILE *file, struct octets *out)
{
    do {
        int error = octets_reserve(out, out->size < LOAD_STEP ? LOAD_STEP : 1, LOAD_SIZE_MAX + 1);
        if (error < 0) return error;
        out->size += fread(out->data + out->size, 1, out->room - out->size, file);
        if (ferror(file)) return errno ? -errno : -EIO;
        if (out->size > LOAD_SIZE_MAX) return -EFBIG;
    } while (!feof(file));
    out->data[out->size] = '\0';
    return 0;
}

static int read_path(const char *path, struct engine_text *out)
{
    struct octets octets = {0};
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (!file) return -errno;
    errno = 0;
    int error = read_stream(file, &octets);
    if (file != stdin) fclose(file);
    *out = (struct engine_text){octets.data, octets.size};
    return error;
}

static enum codec_result unpack(struct engine_text *text)
{
    char *plain = NULL;
    size_t size = 0;
    enum codec_result result = codec_decode(CODEC_GZIP, text->data, text->size, LOAD_SIZE_MAX, &plain, &size);
    if (result != CODEC_OK) return result;
    engine_text_free(text);
    *text = (struct engine_text){.data = plain, .size = size};
    return CODEC_OK;
}

const char *load_read(const char *path, struct engine_text *out, char *reason, size_t reason_size)
{
    *out = (struct engine_text){0};
    int error = read_path(path, out);
    if (error < 0) {
        snprintf(reason, reason_size, "cannot read %s: %s", path, strerror(-error));
    } else if (codec_is_gzip(out->data, out->size) && unpack(out) != CODEC_OK) {
        snprintf(reason, reason_size, "read error (-1)"); /* as the contract has it, section 3.6 */
        error = -EIO;
    }
    if (error < 0) engine_text_free(out);
    return error < 0 ? reason : NULL;
}

int load_chunk(lua_State *L, const char *data, size_t size, const char *chunkname)
{
    if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) {
        data += 3;
        size -= 3;
    }
    if (size > 0 && data[0] == '#') { /* the line's end stays, so that lines keep their numbers */
        const char *end = memchr(data, '\n', size);
        size = end ? size - (size_t)(end - data) : 0;
        data = end ? end : "";
    }
    return luaL_loadbufferx(L, data, size, chunkname, "t");
}

void load_sandbox(lua_State *L)
{
    lua_createtable(L, 0, 0);
    lua_createtable(L, 0, 1);
    lua_pushglobaltable(L);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_setupvalue(L, -2, 1); /* _ENV is the one upvalue of a chunk */
}

int load_search_embedded(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const char *file = lua_pushfstring(L, "%s.lua", name);
    const struct embedded_file *found = embedded_find(file);
    if (!found) {
        lua_pushfstring(L, "no embedded script '%s'", file);
        return 1;
    }
    const char *chunkname = lua_pushfstring(L, "@%s", file);
    if (load_chunk(L, found->data, found->size, chunkname) != LUA_OK)
        return luaL_error(L, "error loading module '%s' from the binary:\n\t%s", name, lua_tostring(L, -1));
    lua_pushvalue(L, -3);
    return 2;
}
