/* What scripts that dial for clients ask: whether a target is this process itself. */
#include <lauxlib.h>

#include "core/session/machine.h"
#include "core/session/own.h"
#include "lua/engine/entry.h"
#include "lua/engine/state.h"
#include "lua/modules/modules.h"

/* Whether a number or a text is an address. A script's host may be 0x7f000001, as for socket.connect(). */
static bool read_host(lua_State *L, int index, struct address *out)
{
    size_t size;
    if (lua_isinteger(L, index)) {
        lua_Integer number = lua_tointeger(L, index);
        luaL_argcheck(L, number >= 0 && number <= UINT32_MAX, index, "invalid address");
        *out = (struct address){.kind = ADDRESS_IPV4};
        for (unsigned i = 0; i < 4; i++) out->ipv4[i] = (uint8_t)(number >> (24 - 8 * i));
        return true;
    }
    const char *text = luaL_checklstring(L, index, &size);
    return address_from_host(text, size, 0, out) && out->kind != ADDRESS_NAME;
}

/* sluice.is_own(address, port) -> whether the API, a listener or a script's socket would be reached there [-0, +1, e]
 */
int sluice_is_own(lua_State *L)
{
    struct coordinator *c = engine_coordinator(engine_of(L));
    struct address to;
    uint8_t listener;
    luaL_argcheck(L, read_host(L, 1, &to), 1, "invalid address");
    lua_Integer port = luaL_checkinteger(L, 2);
    luaL_argcheck(L, port >= 0 && port <= UINT16_MAX, 2, "port out of range");
    to.port = (uint16_t)port;
    bool is = false;
    if (!coordinator_config(c)->allow_self && own_may_return(coordinator_own(c), &to)) {
        int machine = machine_open();
        is = own_is(coordinator_own(c), machine, &to, &listener);
        machine_close(machine);
    }
    lua_pushboolean(L, is);
    return 1;
}
