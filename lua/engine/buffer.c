#include "lua/engine/buffer.h"

#include <string.h>

struct buffer *buffer_push(lua_State *L, size_t room)
{
    struct buffer *b = lua_newuserdatauv(L, sizeof *b + room, 0);
    b->size = 0;
    b->room = room;
    return b;
}

struct buffer *buffer_reserve(lua_State *L, int index, size_t more)
{
    struct buffer *b = lua_touserdata(L, index);
    if (b->room - b->size >= more) return b;
    size_t room = b->room * 2 > b->size + more ? b->room * 2 : b->size + more;
    struct buffer *bigger = buffer_push(L, room);
    memcpy(bigger->octets, b->octets, b->size);
    bigger->size = b->size;
    lua_replace(L, index);
    return bigger;
}
