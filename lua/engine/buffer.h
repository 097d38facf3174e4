/* A text that grows in a userdata on the stack: the collector knows its size, and frees it on errors; it may stay there
 * while its coroutine waits. A luaL_Buffer can neither, and wants the top of the stack for itself. Other octets that
 * grow are a struct octets (octets.h). */
#ifndef SLUICE_LUA_ENGINE_BUFFER_H
#define SLUICE_LUA_ENGINE_BUFFER_H

#include <lua.h>
#include <stddef.h>

struct buffer {
    size_t size, room;
    char octets[];
};

/* Pushes an empty one.                                                                              [-0, +1, m] */
struct buffer *buffer_push(lua_State *L, size_t room);
/* The one at `index` with room for `more` octets, at least twice the room it had: a larger one may have taken its
 * place, and then Lua may have run.                                                                        [-0, +0, m]
 */
struct buffer *buffer_reserve(lua_State *L, int index, size_t more);

#endif
