/* Sockets for scripts (the API of the Lunatik socket library) and their buffers, in the manner of lualib.h, and what
 * the engine must know of them. docs/lua-socket.md lists the functions. */
#ifndef SLUICE_LUA_SOCKET_SOCKET_H
#define SLUICE_LUA_SOCKET_SOCKET_H

#include <lua.h>
#include <stdbool.h>

int luaopen_data(lua_State *L);
int luaopen_socket(lua_State *L);

/* Nothing of ours is in the kernel any more: behind coroutine_abandon_all() the coordinator has to turn until then. */
bool socket_is_idle(void);

/* The text of one of our error objects at `index`, or NULL if the value is none. Never raises, needs three places on
 * the stack; the text lives as long as that value. */
const char *socket_error_text(lua_State *L, int index);

/* Open sockets of a state. */
struct engine;
unsigned socket_count(const struct engine *owner);
/* Closes those that are left: Lua drops a finalizer without a word when there is no stack or no memory to call it, and
 * calls none for what finalizers make while the state is being closed. */
void socket_close_all(const struct engine *owner);

#endif
