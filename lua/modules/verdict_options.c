#include "lua/modules/verdict_options.h"

#include <lauxlib.h>
#include <string.h>

#include "protocols/egress_text.h"

/* The value stands on top. NULL, or what is wrong: static text that says what to give. */
typedef const char *option_reader(lua_State *L, struct route_verdict *verdict);

static const char *read_interface(lua_State *L, struct route_verdict *verdict)
{
    size_t size;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &size) : NULL;
    if (text && egress_parse_device(text, size, verdict->egress.device)) return NULL;
    return "give the name of an interface, such as \"eth1\"";
}

static const char *read_mark(lua_State *L, struct route_verdict *verdict)
{
    lua_Integer mark = lua_type(L, -1) == LUA_TNUMBER ? lua_tointeger(L, -1) : -1;
    if (lua_type(L, -1) != LUA_TNUMBER || !lua_isinteger(L, -1) || mark < 0 || mark > UINT32_MAX)
        return "give an integer from 0 to 4294967295";
    verdict->egress.marked = true;
    verdict->egress.mark = (uint32_t)mark;
    return NULL;
}

static const char *read_source(lua_State *L, struct route_verdict *verdict)
{
    size_t size;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &size) : NULL;
    if (!text) return "give a string, such as \"192.0.2.7\" or \"2001:db8::/64,by=user\"";
    const char *wrong = egress_parse_sources(text, size, &verdict->egress.sources);
    return wrong ? wrong : egress_check_sources(&verdict->egress.sources);
}

/* false: none, whatever the listener sends. */
static const char *read_proxy_protocol(lua_State *L, struct route_verdict *verdict)
{
    bool off = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
    lua_Integer version = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
    if (!off && version != 1 && version != 2) return "give 1 or 2, or false for none";
    verdict->proxy_protocol = off ? ROUTE_HEADER_NONE : (uint8_t)version;
    return NULL;
}

static const struct {
    const char *name;
    option_reader *read;
} rows[] = {{"interface", read_interface},
            {"mark", read_mark},
            {"proxy_protocol", read_proxy_protocol},
            {"source", read_source}};

/* Of rows, for messages. */
#define KNOWN "interface, mark, proxy_protocol, source"

/* A member's name stands below its value on top of the stack. Pushes what is wrong with it, or nothing: NULL. */
static const char *read_member(lua_State *L, struct route_verdict *verdict)
{
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    if (!name) return lua_pushstring(L, "the table of the decision has a member without a name, give one of " KNOWN);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].name, name) != 0) continue;
        const char *wrong = rows[i].read(L, verdict);
        return wrong ? lua_pushfstring(L, "the decision's member `%s': %s", name, wrong) : NULL;
    }
    return lua_pushfstring(L, "the decision has no member `%s', give one of " KNOWN, name);
}

bool verdict_options_are_there(lua_State *L, int first)
{
    return lua_gettop(L) > first && lua_istable(L, -1);
}

const char *verdict_options_take(lua_State *L, struct route_verdict *verdict)
{
    int table = lua_gettop(L);
    const char *wrong = NULL;
    luaL_checkstack(L, 8, NULL);
    for (lua_pushnil(L); !wrong && lua_next(L, table) != 0;) {
        wrong = read_member(L, verdict);
        if (!wrong) lua_pop(L, 1);
    }
    if (wrong) lua_replace(L, table); /* in the table's place it lives as long as the values of the decision do */
    lua_settop(L, wrong ? table : table - 1);
    return wrong;
}
