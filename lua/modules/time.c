/* time.*: clocks in seconds with fractions (contract section 5.5). */
#include <lauxlib.h>
#include <time.h>

#include "lua/modules/modules.h"

static double time_read(clockid_t clock)
{
    struct timespec now;
    return clock_gettime(clock, &now) == 0 ? (double)now.tv_sec + (double)now.tv_nsec * 1e-9 : -1.0;
}

/* time.monotonic() -> seconds since some moment in the past, -1: no such clock                        [-0, +1, -] */
static int time_monotonic(lua_State *L)
{
    lua_pushnumber(L, time_read(CLOCK_MONOTONIC));
    return 1;
}

/* time.process() -> CPU seconds of the process                                                        [-0, +1, -] */
static int time_process(lua_State *L)
{
    lua_pushnumber(L, time_read(CLOCK_PROCESS_CPUTIME_ID));
    return 1;
}

/* time.thread() -> CPU seconds of the thread that runs Lua                                            [-0, +1, -] */
static int time_thread(lua_State *L)
{
    lua_pushnumber(L, time_read(CLOCK_THREAD_CPUTIME_ID));
    return 1;
}

/* time.unix() -> seconds since 1970                                                                   [-0, +1, -] */
static int time_unix(lua_State *L)
{
    lua_pushnumber(L, time_read(CLOCK_REALTIME));
    return 1;
}

/* The results of f stand where its arguments stood, above the start time, which they replace by what has passed. */
static int time_measured(lua_State *L, int status, lua_KContext context)
{
    (void)status;
    (void)context;
    lua_pushnumber(L, time_read(CLOCK_MONOTONIC) - lua_tonumber(L, 1));
    lua_replace(L, 1);
    return lua_gettop(L);
}

/* time.measure(f, ...) -> seconds, results of f(...)                                            [-0, +n, e; yields] */
static int time_measure(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_pushnumber(L, time_read(CLOCK_MONOTONIC));
    lua_insert(L, 1);
    lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, time_measured);
    return time_measured(L, LUA_OK, 0);
}

int luaopen_time(lua_State *L)
{
    static const luaL_Reg functions[] = {{"monotonic", time_monotonic},
                                         {"process", time_process},
                                         {"thread", time_thread},
                                         {"unix", time_unix},
                                         {"wall", time_unix},
                                         {"measure", time_measure},
                                         {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
