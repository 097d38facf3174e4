/* sluice.users: the users of --users, as scripts see and change them. Hashes go in, and never out. A change holds for
 * new sessions at once; SIGHUP reads the file again, in which nothing of it stands. */
#include <lauxlib.h>
#include <string.h>

#include "core/control/coordinator.h"
#include "lua/engine/entry.h"
#include "lua/engine/state.h"
#include "lua/modules/modules.h"

#define LIST_DEFAULT 1000
#define LIST_MAX     10000

/* The store of the file that stands at `index`; without it the first one. */
static struct users *check_store(lua_State *L, int index)
{
    struct coordinator *c = engine_coordinator(engine_of(L));
    uint32_t count = coordinator_user_stores(c);
    const char *path = luaL_optstring(L, index, NULL);
    for (uint32_t i = 1; i <= count; i++)
        if (!path || strcmp(path, users_path(coordinator_users(c, i))) == 0) return coordinator_users(c, i);
    luaL_error(L, path ? "sluice.users: no listener has the users of %s" : "sluice.users: there are none, give --users",
               path);
    return NULL;
}

/* Text without a zero octet, which would be cut there. */
static const char *check_text(lua_State *L, int index)
{
    size_t size;
    const char *text = luaL_checklstring(L, index, &size);
    luaL_argcheck(L, strlen(text) == size, index, "it has a zero octet");
    return text;
}

static void push_groups(lua_State *L, const char *groups)
{
    lua_newtable(L);
    for (lua_Integer i = 1; *groups; i++) {
        size_t size = strcspn(groups, ",");
        lua_pushlstring(L, groups, size);
        lua_rawseti(L, -2, i);
        groups += size + (groups[size] != '\0');
    }
}

static void push_row(lua_State *L, const struct users_row *row)
{
    char limit[LIMIT_TERMS_TEXT_SIZE];
    lua_createtable(L, 0, 4);
    lua_pushstring(L, row->name);
    lua_setfield(L, -2, "name");
    push_groups(L, row->groups);
    lua_setfield(L, -2, "groups");
    lua_pushboolean(L, row->locked);
    lua_setfield(L, -2, "locked");
    if (!row->has_limit) return;
    limit_terms_format(&row->limit, limit, sizeof limit);
    lua_pushstring(L, limit);
    lua_setfield(L, -2, "limit");
}

/* sluice.users.get(name [, file]) -> {name =, groups = {...}, locked =, limit =} | nil                [-0, +1, e] */
static int users_get(lua_State *L)
{
    struct users_row row = {.locked = false};
    struct users *users = check_store(L, 2);
    if (users_find(users, check_text(L, 1), &row))
        push_row(L, &row);
    else
        lua_pushnil(L);
    return 1;
}

/* sluice.users.list([after [, count [, file]]]) -> names, in their order, from behind `after` on      [-0, +1, e] */
static int users_list(lua_State *L)
{
    struct users_row row = {.locked = false};
    struct users *users = check_store(L, 3);
    const char *after = lua_isnoneornil(L, 1) ? NULL : check_text(L, 1);
    lua_Integer count = luaL_optinteger(L, 2, LIST_DEFAULT);
    luaL_argcheck(L, count >= 1 && count <= LIST_MAX, 2, "give 1 to 10000");
    lua_newtable(L);
    for (lua_Integer i = 1; i <= count && users_next(users, after, &row); i++) {
        after = lua_pushstring(L, row.name); /* the table keeps it */
        lua_rawseti(L, -2, i);
    }
    return 1;
}

/* The field's value stays on the stack; NULL: it is not there. */
static const char *field(lua_State *L, int table, const char *name)
{
    int type = lua_getfield(L, table, name);
    if (type == LUA_TNIL) return NULL;
    if (type != LUA_TSTRING) luaL_error(L, "sluice.users.set: %s is no string", name);
    return check_text(L, lua_gettop(L));
}

/* sluice.users.set(name, {hash =, groups = "a,b", limit =} [, file]): what is left out stays             [-0, +0, e] */
static int users_set(lua_State *L)
{
    struct users *users = check_store(L, 3);
    struct users_change change;
    const char *name = check_text(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    change.hash = field(L, 2, "hash");
    change.groups = field(L, 2, "groups");
    change.limit = field(L, 2, "limit");
    const char *wrong = users_put(users, name, &change);
    return wrong ? luaL_error(L, "sluice.users.set: %s", wrong) : 0;
}

/* sluice.users.remove(name [, file]) -> whether there was one of that name                            [-0, +1, e] */
static int users_drop(lua_State *L)
{
    struct users *users = check_store(L, 2);
    lua_pushboolean(L, users_remove(users, check_text(L, 1)));
    return 1;
}

int luaopen_users(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"get", users_get}, {"list", users_list}, {"remove", users_drop}, {"set", users_set}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
