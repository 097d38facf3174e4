#include "lua/modules/target.h"

#include "protocols/group_text.h"

bool target_read_address(lua_State *L, int index, struct address *out)
{
    size_t size;
    if (!lua_isstring(L, index)) return false;
    lua_pushvalue(L, index); /* a number at `index` stays one */
    const char *text = lua_tolstring(L, -1, &size);
    bool good = size <= TARGET_TEXT_MAX &&
                (group_address_parse(text, size, out) || address_parse(text, size, ADDRESS_PORT_REQUIRED, 0, out));
    lua_pop(L, 1);
    return good;
}

int target_read_hops(lua_State *L, int first, size_t size_max, struct proxy_uri *hops, unsigned max)
{
    int top = lua_gettop(L), count = 0;
    for (int i = top; i >= first; i--) {
        size_t size;
        const char *text = lua_type(L, i) == LUA_TSTRING ? lua_tolstring(L, i, &size) : NULL;
        if (!text || (unsigned)count == max || size >= size_max) return -1;
        if (group_hop_parse(text, size, &hops[count++])) return -1;
    }
    return count;
}
