/* sluice.users: the users of --users, as scripts see and change them. Hashes and passwords go in, and never out. A
 * change holds for new sessions as soon as it is made: at once; or, where a password is to be hashed or the file to be
 * written, when the coroutine goes on. What is not written is gone when SIGHUP reads the file again. */
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/control/account_change.h"
#include "core/control/coordinator.h"
#include "lua/engine/coroutine.h"
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

/* --- changes that take time: a password is hashed, the file is written --- */

struct changing {
    struct account_change change; /* first; the coordinator's until it is done */
    struct park park;
    const char *function; /* for messages */
    const char *wrong;    /* see account_change */
    bool dead;            /* its coroutine is gone; what was begun is finished */
};

static void changing_free(struct changing *c)
{
    explicit_bzero(c, sizeof *c);
    free(c);
}

static void changing_done(struct account_change *self, const char *wrong)
{
    struct changing *c = (struct changing *)self;
    c->wrong = wrong;
    if (!c->dead) coroutine_resume(&c->park, c);
    changing_free(c);
}

static void changing_abandon(struct park *park)
{
    struct changing *c = (struct changing *)((char *)park - offsetof(struct changing, park));
    c->dead = true;
}

/* Raises where the caller cannot wait. */
static struct changing *changing_new(lua_State *L, const char *function, struct users *users, const char *name,
                                     bool persist)
{
    coroutine_check(L);
    if (engine_is_closing(engine_of(L))) luaL_error(L, "sluice.users.%s: the server stops", function);
    struct changing *c = calloc(1, sizeof *c);
    if (!c) {
        luaL_error(L, "not enough memory");
        return NULL; /* it does not return */
    }
    c->function = function;
    c->change.users = users;
    c->change.done = changing_done;
    c->change.order.job.path = persist ? users_path(users) : NULL;
    snprintf(c->change.order.job.name, sizeof c->change.order.job.name, "%s", name);
    return c;
}

/* Continuation of set() and remove(): how it ended, or what a script has resumed the coroutine with. */
static int changing_finish(lua_State *L, int status, lua_KContext context)
{
    const struct changing *c = coroutine_result(L);
    (void)status, (void)context;
    if (!c) return lua_gettop(L);
    if (c->wrong) return luaL_error(L, "sluice.users.%s: %s", c->function, c->wrong);
    if (!c->change.order.job.removes) return 0;
    lua_pushboolean(L, 1);
    return 1;
}

static int changing_begin(lua_State *L, struct changing *c)
{
    lua_settop(L, 0);
    coroutine_park(L, &c->park, changing_abandon);
    coordinator_change_user(engine_coordinator(engine_of(L)), &c->change);
    return lua_yieldk(L, 0, 0, changing_finish);
}

/* The field's value stays on the stack; NULL: it is not there. */
static const char *field(lua_State *L, int table, const char *name)
{
    int type = lua_getfield(L, table, name);
    if (type == LUA_TNIL) return NULL;
    if (type != LUA_TSTRING) luaL_error(L, "sluice.users.set: %s is no string", name);
    return check_text(L, lua_gettop(L));
}

static bool flag(lua_State *L, int table, const char *name)
{
    int type = lua_getfield(L, table, name);
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "sluice.users.set: %s is no boolean", name);
    bool set = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return set;
}

static int set_slowly(lua_State *L, struct users *users, const struct users_change *change, const char *password,
                      bool persist)
{
    const char *name = lua_tostring(L, 1);
    struct changing *c = changing_new(L, "set", users, name, persist);
    struct users_job *job = &c->change.order.job;
    const char *wrong = users_judge_change(users, name, change, password != NULL, &job->texts);
    if (wrong) {
        changing_free(c);
        return luaL_error(L, "sluice.users.set: %s", wrong);
    }
    c->change.has_groups = change->groups != NULL;
    c->change.has_limit = change->limit != NULL;
    job->hashes = password != NULL;
    if (password) snprintf(job->password, sizeof job->password, "%s", password);
    return changing_begin(L, c);
}

/* sluice.users.set(name, {hash = | password =, groups = "a,b", limit =, persist =} [, file]): what is left out stays.
 * Yields where a password is hashed or the file written.                                      [-0, +0, e; yields] */
static int users_set(lua_State *L)
{
    struct users *users = check_store(L, 3);
    struct users_change change;
    const char *name = check_text(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    change.hash = field(L, 2, "hash");
    change.groups = field(L, 2, "groups");
    change.limit = field(L, 2, "limit");
    const char *password = field(L, 2, "password");
    bool persist = flag(L, 2, "persist");
    if (password && change.hash) return luaL_error(L, "sluice.users.set: give a hash, or a password that is made one");
    if (password || persist) return set_slowly(L, users, &change, password, persist);
    const char *wrong = users_put(users, name, &change);
    return wrong ? luaL_error(L, "sluice.users.set: %s", wrong) : 0;
}

/* sluice.users.remove(name [, file [, persist]]) -> whether there was one of that name. persist: the line in the file
 * goes, too, and the call yields.                                                             [-0, +1, e; yields] */
static int users_drop(lua_State *L)
{
    struct users *users = check_store(L, 2);
    const char *name = check_text(L, 1);
    struct users_row row = {.locked = false};
    if (lua_toboolean(L, 3) && users_find(users, name, &row)) {
        struct changing *c = changing_new(L, "remove", users, name, true);
        c->change.order.job.removes = true;
        return changing_begin(L, c);
    }
    lua_pushboolean(L, users_remove(users, name));
    return 1;
}

int luaopen_users(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"get", users_get}, {"list", users_list}, {"remove", users_drop}, {"set", users_set}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
