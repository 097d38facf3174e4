/* load, loadfile, dofile, and the files of require: text only, since bytecode that a script makes up may do anything to
 * the process. Compiling counts against the time budget. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "lua/engine/limits.h"
#include "lua/engine/standard.h"

/* Octets that are compiled between two looks at the clock. */
#define CHUNK_SLICE ((size_t)4096)

struct slices {
    const char *text;
    size_t left;
};

static const char *read_slice(lua_State *L, void *context, size_t *size)
{
    struct slices *s = context;
    const char *slice = s->text;
    limits_spend(L);
    *size = s->left < CHUNK_SLICE ? s->left : CHUNK_SLICE;
    s->text += *size;
    s->left -= *size;
    return *size > 0 ? slice : NULL;
}

/* The function at index 1 gives the pieces; the last one stays at index 5, so that it lives. */
static const char *read_piece(lua_State *L, void *context, size_t *size)
{
    (void)context;
    luaL_checkstack(L, 2, "too many nested functions");
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        *size = 0;
        return NULL;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "reader function must return a string");
    lua_replace(L, 5);
    return lua_tolstring(L, 5, size);
}

/* The chunk or what is wrong with it is on the top; `environment`: an index, or 0. */
static int chunk_result(lua_State *L, int status, int environment)
{
    if (status != LUA_OK) {
        limits_check(L);
        luaL_pushfail(L);
        lua_insert(L, -2);
        return 2;
    }
    if (environment != 0) {
        lua_pushvalue(L, environment);
        if (!lua_setupvalue(L, -2, 1)) lua_pop(L, 1);
    }
    return 1;
}

static bool forbids_text(lua_State *L, const char *mode)
{
    if (!mode || strchr(mode, 't')) return false;
    luaL_pushfail(L);
    lua_pushfstring(L, "attempt to load a text chunk (mode is '%s')", mode);
    return true;
}

/* load(chunk[, name[, mode[, environment]]]) -> function | nil, message                             [-0, +n, e] */
static int chunks_load(lua_State *L)
{
    struct slices s;
    const char *text = lua_tolstring(L, 1, &s.left), *mode = luaL_optstring(L, 3, NULL);
    int environment = lua_isnone(L, 4) ? 0 : 4, status;
    if (text) {
        const char *name = luaL_optstring(L, 2, text);
        if (forbids_text(L, mode)) return 2;
        s.text = text;
        status = lua_load(L, read_slice, &s, name, "t");
    } else {
        const char *name = luaL_optstring(L, 2, "=(load)");
        luaL_checktype(L, 1, LUA_TFUNCTION);
        if (forbids_text(L, mode)) return 2;
        lua_settop(L, 5);
        status = lua_load(L, read_piece, NULL, name, "t");
    }
    return chunk_result(L, status, environment);
}

/* loadfile([name[, mode[, environment]]]) -> function | nil, message                                [-0, +n, e] */
static int chunks_loadfile(lua_State *L)
{
    const char *name = luaL_optstring(L, 1, NULL), *mode = luaL_optstring(L, 2, NULL);
    int environment = lua_isnone(L, 3) ? 0 : 3;
    if (forbids_text(L, mode)) return 2;
    return chunk_result(L, luaL_loadfilex(L, name, "t"), environment);
}

static int dofile_end(lua_State *L, int status, lua_KContext context)
{
    (void)status, (void)context;
    return lua_gettop(L) - 1;
}

/* dofile([name]) -> what it returns                                                          [-0, +n, e; yields] */
static int chunks_dofile(lua_State *L)
{
    const char *name = luaL_optstring(L, 1, NULL);
    lua_settop(L, 1);
    if (luaL_loadfilex(L, name, "t") != LUA_OK) return lua_error(L);
    lua_callk(L, 0, LUA_MULTRET, 0, dofile_end);
    return dofile_end(L, LUA_OK, 0);
}

/* A searcher of require(): the file that package.path leads to. Upvalue: the table package.         [-0, +2, e] */
static int search_file(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_getfield(L, lua_upvalueindex(1), "searchpath");
    lua_pushvalue(L, 1);
    if (lua_getfield(L, lua_upvalueindex(1), "path") != LUA_TSTRING) luaL_error(L, "'package.path' must be a string");
    lua_call(L, 2, 2);
    if (lua_isnil(L, -2)) return 1; /* where it was looked for */
    lua_pop(L, 1);
    const char *file = lua_tostring(L, -1);
    if (luaL_loadfilex(L, file, "t") != LUA_OK)
        return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", name, file, lua_tostring(L, -1));
    lua_insert(L, -2);
    return 2;
}

void chunks_open(lua_State *L)
{
    lua_register(L, "load", chunks_load);
    lua_register(L, "loadfile", chunks_loadfile);
    lua_register(L, "dofile", chunks_dofile);
    lua_getglobal(L, LUA_LOADLIBNAME);
    lua_getfield(L, -1, "searchers");
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, search_file, 1);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 2);
}
