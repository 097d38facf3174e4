/* Where scripts spend their time: samples of Lua's stack, one each millisecond of CPU time of the coordinator's thread.
 *
 *   the thread's timer > signal: a sample is asked for, the thread that Lua runs on is interrupted (limits_sample)
 *                      > its hook, or the end of its run: the stack is read and counted
 *
 * Time that the thread sleeps is nobody's. One profile at a time; while there is none, nothing of this runs. */
#ifndef SLUICE_LUA_ENGINE_PROFILE_H
#define SLUICE_LUA_ENGINE_PROFILE_H

#include <lua.h>
#include <stdbool.h>

/* sluice.profile(seconds) -> folded stacks                                                    [-0, +1, e; yields] */
int sluice_profile(lua_State *L);
bool profile_is_running(void);

#endif
