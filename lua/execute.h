/* Commands of scripts: a child in a session of its own, waited for by its pidfd on the coordinator's ring.
 *
 *   await.execute > running > ended: reaped, the coroutine goes on
 *                      | abandoned: killed with its process group, still waited for */
#ifndef SLUICE_LUA_EXECUTE_H
#define SLUICE_LUA_EXECUTE_H

#include <lua.h>
#include <stdbool.h>

/* await.execute(command) -> true | nil, "exit" | "signal", code, as os.execute(); nil, message, errno if it could not
 * be started. Runs by /bin/sh -c, with our standard streams and environment.                      [-0, +3, e; yields]
 */
int await_execute(lua_State *L);

/* Whether no child is waited for. Behind the abandoning of every park, turns of the coordinator make it true. */
bool execute_is_idle(void);

#endif
