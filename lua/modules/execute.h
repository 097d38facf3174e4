/* Commands of scripts: a child in a session of its own, waited for by its pidfd on the coordinator's ring.
 *
 *   await.execute > running > ended: reaped, the coroutine goes on
 *                      | abandoned: killed with its process group, still waited for */
#ifndef SLUICE_LUA_MODULES_EXECUTE_H
#define SLUICE_LUA_MODULES_EXECUTE_H

#include <lua.h>
#include <stdbool.h>

/* await.execute(command) -> true | nil, "exit" | "signal", code, as os.execute(); nil, message, errno if it could not
 * be started. Runs by /bin/sh -c, with our standard streams and environment.                      [-0, +3, e; yields]
 */
int await_execute(lua_State *L);

/* The process stops, every park has been abandoned: kills what children there still are. Turns of the coordinator then
 * make execute_is_idle() true: no child is waited for. */
void execute_stop(void);
bool execute_is_idle(void);

#endif
