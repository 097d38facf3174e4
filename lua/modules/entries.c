#include "lua/modules/entries.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lua/engine/quote.h"
#include "protocols/list_text.h"

#define SHOWN_SIZE 80u /* of a wrong entry, in its message */

static const char *next_element(struct entries *e, size_t *size)
{
    int type = lua_rawgeti(e->L, 1, ++e->index);
    if (type != LUA_TNIL && type != LUA_TSTRING) luaL_error(e->L, "entry %I is no string", e->index);
    const char *text = lua_tolstring(e->L, -1, size);
    lua_pop(e->L, 1);
    return text;
}

const char *entries_next(struct entries *e, size_t *size)
{
    const char *entry;
    do {
        if (e->at)
            entry = list_next_line(&e->at, e->end, size);
        else
            entry = next_element(e, size);
    } while (entry && *size == 0);
    return entry;
}

struct entries entries_open(lua_State *L)
{
    struct entries e = {.L = L};
    if (lua_type(L, 1) == LUA_TSTRING) {
        size_t size;
        e.at = lua_tolstring(L, 1, &size);
        e.end = e.at + size;
        return e;
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    return e;
}

_Noreturn void entries_refuse(lua_State *L, const char *what, const char *entry, size_t size)
{
    char text[SHOWN_SIZE * QUOTE_OCTET_MAX + 1];
    size_t used = 0;
    for (size_t i = 0; i < size && i < SHOWN_SIZE; i++) used += quote_octet(text + used, (unsigned char)entry[i], true);
    text[used] = '\0';
    luaL_error(L, "invalid %s \"%s\"%s", what, text, size > SHOWN_SIZE ? "..." : "");
    abort(); /* luaL_error() does not return, but its declaration does not say so */
}
