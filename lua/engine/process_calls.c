/* os.execute, os.exit, os.setlocale and io.popen in the place of Lua's: what they do to the process, and to all else
 * that waits for it, is bounded. */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/control/coordinator.h"
#include "core/io/log.h"
#include "lua/engine/coroutine.h"
#include "lua/engine/limits.h"
#include "lua/engine/spawn.h"
#include "lua/engine/standard.h"

/* --- children --- */

/* os.execute([command]) -> true | nil, "exit" or "signal", code                                     [-0, +n, e] */
static int process_execute(lua_State *L)
{
    struct spawned child;
    const char *command = luaL_optstring(L, 1, NULL);
    if (!command) {
        lua_pushboolean(L, access("/bin/sh", X_OK) == 0);
        return 1;
    }
    int error = spawn_shell(&child, command, -1, -1);
    if (error != 0) {
        errno = error;
        return luaL_fileresult(L, 0, NULL);
    }
    int status = spawn_wait(L, &child);
    limits_spend(L);
    errno = 0; /* luaL_execresult() takes it for an error of ours */
    return luaL_execresult(L, status);
}

/* A file of Lua's with a child at its other end. */
struct pipe_file {
    luaL_Stream stream; /* first */
    struct spawned child;
};

/* Called by file:close() and by the file's finalizer. */
static int pipe_close(lua_State *L)
{
    struct pipe_file *p = luaL_checkudata(L, 1, LUA_FILEHANDLE);
    fclose(p->stream.f); /* may wait, for a reader of what was written: then the watch interrupts it */
    int status = spawn_wait(L, &p->child);
    limits_spend(L);
    errno = 0; /* luaL_execresult() takes it for an error of ours */
    return luaL_execresult(L, status);
}

/* NULL: errno says why. The other end is *other. */
static FILE *pipe_open(bool reads, int *other)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return NULL;
    FILE *file = fdopen(ends[reads ? 0 : 1], reads ? "r" : "w");
    if (file) {
        *other = ends[reads ? 1 : 0];
        return file;
    }
    close(ends[0]);
    close(ends[1]);
    return NULL;
}

/* io.popen(command[, mode]) -> file | nil, message, errno                                           [-0, +n, e] */
static int process_popen(lua_State *L)
{
    const char *command = luaL_checkstring(L, 1), *mode = luaL_optstring(L, 2, "r");
    bool reads = *mode == 'r';
    int other = -1;
    luaL_argcheck(L, (reads || *mode == 'w') && mode[1] == '\0', 2, "invalid mode");
    struct pipe_file *p = lua_newuserdatauv(L, sizeof *p, 0);
    p->stream.closef = NULL; /* it is closed, so far */
    luaL_setmetatable(L, LUA_FILEHANDLE);
    fflush(NULL);
    p->stream.f = pipe_open(reads, &other);
    if (!p->stream.f) return luaL_fileresult(L, 0, command);
    int error = spawn_shell(&p->child, command, other, reads ? STDOUT_FILENO : STDIN_FILENO);
    close(other);
    if (error != 0) {
        fclose(p->stream.f);
        errno = error;
        return luaL_fileresult(L, 0, command);
    }
    p->stream.closef = pipe_close;
    return 1;
}

/* --- the process --- */

/* os.exit([code[, close]]): the process stops as at SIGTERM, with that status. Does not return.     [-0, +0, e] */
static int process_exit(lua_State *L)
{
    lua_Debug where = {0};
    struct coordinator *c = engine_coordinator(engine_of(L));
    int status = lua_isboolean(L, 1) ? (lua_toboolean(L, 1) ? EXIT_SUCCESS : EXIT_FAILURE)
                                     : (int)luaL_optinteger(L, 1, EXIT_SUCCESS);
    for (int level = 1; where.currentline <= 0 && lua_getstack(L, level, &where); level++) lua_getinfo(L, "Sl", &where);
    LOGN("%s:%d: os.exit(): the process stops with status %d", where.short_src, where.currentline, status & 0xff);
    coordinator_exit(c, status & 0xff);
    return limits_end(L);
}

/* os.setlocale([locale[, category]]) -> "C" | nil: numbers in everything that the process writes have points.
 *                                                                                                   [-0, +1, e] */
static int process_setlocale(lua_State *L)
{
    static const char *const categories[] = {"all", "collate", "ctype", "monetary", "numeric", "time", NULL};
    const char *locale = luaL_optstring(L, 1, "C");
    luaL_checkoption(L, 2, "all", categories);
    if (strcmp(locale, "C") == 0 || strcmp(locale, "POSIX") == 0)
        lua_pushliteral(L, "C");
    else
        luaL_pushfail(L);
    return 1;
}

void process_calls_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"execute", process_execute}, {"exit", process_exit}, {"setlocale", process_setlocale}, {NULL, NULL}};
    lua_getglobal(L, LUA_OSLIBNAME);
    luaL_setfuncs(L, functions, 0);
    lua_getglobal(L, LUA_IOLIBNAME);
    lua_pushcfunction(L, process_popen);
    lua_setfield(L, -2, "popen");
    lua_pop(L, 2);
}
