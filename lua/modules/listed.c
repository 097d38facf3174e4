/* What scripts that serve clients of their own ask: what --allow-client, --deny-target and the like say. */
#include <lauxlib.h>

#include "core/session/lists.h"
#include "lua/engine/entry.h"
#include "lua/engine/state.h"
#include "lua/modules/modules.h"

static const struct lists *lists_of(lua_State *L)
{
    return coordinator_config(engine_coordinator(engine_of(L)))->lists;
}

static struct address check_host(lua_State *L, int index, bool literal, uint16_t port)
{
    size_t size;
    struct address address = {.kind = ADDRESS_NONE};
    const char *text = luaL_checklstring(L, index, &size);
    bool good = address_from_host(text, size, port, &address) && !(literal && address.kind == ADDRESS_NAME);
    luaL_argcheck(L, good, index, literal ? "invalid address" : "invalid host");
    return address;
}

static bool admit_target(lua_State *L)
{
    uint8_t allowed = 0;
    lua_Integer port = luaL_checkinteger(L, 3);
    luaL_argcheck(L, port >= 0 && port <= UINT16_MAX, 3, "port out of range");
    struct address asked = check_host(L, 2, false, (uint16_t)port);
    bool passes = lists_admit_target(lists_of(L), LIST_SCOPE_PROCESS, &asked, &allowed, asked.kind != ADDRESS_NAME);
    if (!passes || lua_isnoneornil(L, 4)) return passes;
    struct address found = check_host(L, 4, true, (uint16_t)port);
    return lists_admit_target(lists_of(L), LIST_SCOPE_PROCESS, &found, &allowed, true);
}

/* sluice.list("client", address), sluice.list("target", host, port [, an address of host]) -> whether the lists of the
 * process let it pass; a name without its address, as far as names can say                           [-0, +1, e] */
int sluice_list(lua_State *L)
{
    static const char *const subjects[] = {"client", "target", NULL};
    if (luaL_checkoption(L, 1, NULL, subjects) == 0) {
        struct address client = check_host(L, 2, true, 0);
        lua_pushboolean(L, lists_admit_client(lists_of(L), LIST_SCOPE_PROCESS, &client));
    } else {
        lua_pushboolean(L, admit_target(L));
    }
    return 1;
}
