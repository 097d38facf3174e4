/* sluice.upstreams: groups of upstreams that scripts define, and what is known of their members. */
#include "lua/modules/upstreams.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "core/session/failure.h"
#include "lua/engine/entry.h"
#include "lua/engine/state.h"
#include "lua/modules/modules.h"

static struct coordinator *coordinator_of(lua_State *L)
{
    return engine_coordinator(engine_of(L));
}

/* --- verdicts --- */

static bool judge_group(const struct coordinator *c, const struct address *address, bool as_target, char *why,
                        size_t size)
{
    const struct upstream_group *group = groups_find(coordinator_groups(c), address->name);
    if (!group)
        snprintf(why, size, "there is no group %s: define it, or give --upstream", address->name);
    else if (group->targets != as_target)
        snprintf(why, size, "group %s has %s, and stands in the place of %s", group->name,
                 as_target ? "proxies" : "targets", as_target ? "an address" : "a proxy");
    else
        return true;
    return false;
}

bool upstreams_judge(const struct coordinator *c, const struct route_verdict *verdict, char *why, size_t size)
{
    unsigned groups = 0;
    for (unsigned i = 0; i <= verdict->hop_count; i++) {
        bool as_target = i == verdict->hop_count;
        const struct address *address = as_target ? &verdict->target : &verdict->hops[i].address;
        if (address->kind != ADDRESS_GROUP) continue;
        if (!judge_group(c, address, as_target, why, size)) return false;
        if (++groups < 2) continue;
        snprintf(why, size, "a decision has one group at most, -x included");
        return false;
    }
    return true;
}

/* --- plans --- */

/* What is wrong, without the Lua stack in between: the plan is user data, and collected. */
static void judge(lua_State *L, const char *what, const char *wrong)
{
    if (wrong) luaL_error(L, "sluice.upstreams.define: %s%s%s", what ? what : "", what ? ": " : "", wrong);
}

/* The value on top of the stack as a term has it. It stays there, and a text of it in its place above. */
static const char *term_text(lua_State *L, size_t *size)
{
    if (lua_isboolean(L, -1))
        lua_pushstring(L, lua_toboolean(L, -1) ? "yes" : "no");
    else
        lua_pushvalue(L, -1); /* converted in place a number would stay one in the table, but not for lua_next() */
    const char *text = lua_isstring(L, -1) ? lua_tolstring(L, -1, size) : NULL;
    if (!text) luaL_error(L, "sluice.upstreams.define: a term is neither a number, a string nor a boolean");
    return text;
}

/* A term's name and its value stand on top. */
static void set_term(lua_State *L, struct group_plan *plan, const char *name, bool of_member)
{
    size_t size = 0;
    if (group_term_is_of_member(name, strlen(name)) != of_member)
        luaL_error(L, "sluice.upstreams.define: `%s' %s", name,
                   of_member ? "is no term of a member" : "is a term of a member, or of nothing");
    const char *text = term_text(L, &size);
    judge(L, NULL, group_plan_set(plan, name, strlen(name), text, size));
    lua_pop(L, 1);
}

static const char *term_name(lua_State *L)
{
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "sluice.upstreams.define: terms are named, such as weight = 2");
    return lua_tostring(L, -2);
}

static void add_text(lua_State *L, struct group_plan *plan, int index)
{
    size_t size;
    if (lua_type(L, index) != LUA_TSTRING)
        luaL_error(L, "sluice.upstreams.define: a member is a string, or a table that begins with one");
    const char *text = lua_tolstring(L, index, &size);
    judge(L, "members", group_plan_add(plan, text, size));
}

/* A member stands on top: "socks5://host", or {"socks5://host", weight = 2}. */
static void add_member(lua_State *L, struct group_plan *plan)
{
    int member = lua_gettop(L);
    if (!lua_istable(L, member)) {
        add_text(L, plan, member);
        return;
    }
    lua_rawgeti(L, member, 1);
    add_text(L, plan, -1);
    lua_pop(L, 1);
    for (lua_pushnil(L); lua_next(L, member); lua_pop(L, 1)) {
        if (lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1) continue;
        set_term(L, plan, term_name(L), true);
    }
}

static void add_members(lua_State *L, struct group_plan *plan, int table)
{
    if (lua_getfield(L, table, "members") != LUA_TTABLE) luaL_error(L, "sluice.upstreams.define: members is no table");
    int members = lua_gettop(L);
    lua_Unsigned count = lua_rawlen(L, members);
    for (lua_Unsigned i = 1; i <= count; i++) {
        lua_rawgeti(L, members, (lua_Integer)i);
        add_member(L, plan);
        lua_settop(L, members);
    }
    lua_pop(L, 1);
}

/* check = "tcp", or {type = "tcp", interval = 5, ...}, which stands on top. */
static void set_check(lua_State *L, struct group_plan *plan)
{
    int check = lua_gettop(L);
    if (!lua_istable(L, check)) {
        set_term(L, plan, "check", false);
        return;
    }
    for (lua_pushnil(L); lua_next(L, check); lua_pop(L, 1)) {
        const char *name = term_name(L);
        if (strcmp(name, "type") == 0) name = "check";
        if (strcmp(name, "timeout") == 0) name = "check-timeout";
        set_term(L, plan, name, false);
    }
}

static void set_terms(lua_State *L, struct group_plan *plan, int table)
{
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        const char *name = term_name(L);
        if (strcmp(name, "members") == 0) continue;
        if (strcmp(name, "check") == 0)
            set_check(L, plan);
        else
            set_term(L, plan, name, false);
    }
}

static void raise_change(lua_State *L, const char *function, enum groups_change change)
{
    static const char *const words[] = {[GROUPS_UNKNOWN] = "there is no such group",
                                        [GROUPS_TAKEN] = "the settings (--upstream) have a group of that name",
                                        [GROUPS_FULL] = "there are 256 groups already",
                                        [GROUPS_BUSY] = "the workers are busy, try again",
                                        [GROUPS_MEMORY] = "not enough memory"};
    if (change != GROUPS_CHANGED) luaL_error(L, "sluice.upstreams.%s: %s", function, words[change]);
}

/* sluice.upstreams.define(name, {members = {...}, check = ..., policy = ..., ...})                     [-0, +0, e] */
static int upstreams_define(lua_State *L)
{
    size_t size;
    const char *name = luaL_checklstring(L, 1, &size);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    luaL_checkstack(L, 12, NULL);
    struct group_plan *plan = lua_newuserdatauv(L, sizeof *plan, 0);
    group_plan_init(plan);
    judge(L, NULL, group_plan_name(plan, name, size));
    add_members(L, plan, 2);
    set_terms(L, plan, 2);
    judge(L, name, group_plan_check(plan));
    enum groups_change change = coordinator_define_group(coordinator_of(L), plan);
    explicit_bzero(plan, sizeof *plan); /* passwords */
    raise_change(L, "define", change);
    return 0;
}

/* sluice.upstreams.remove(name) -> whether there was one                                               [-0, +1, e] */
static int upstreams_remove(lua_State *L)
{
    enum groups_change change = coordinator_remove_group(coordinator_of(L), luaL_checkstring(L, 1));
    if (change != GROUPS_UNKNOWN) raise_change(L, "remove", change);
    lua_pushboolean(L, change == GROUPS_CHANGED);
    return 1;
}

/* sluice.upstreams.order(name, member, "up" | "drain" | "down") -> whether there is such a member      [-0, +1, e] */
static int upstreams_order(lua_State *L)
{
    static const char *const orders[] = {[MEMBER_UP] = "up", [MEMBER_DRAIN] = "drain", [MEMBER_DOWN] = "down", NULL};
    const char *name = luaL_checkstring(L, 1), *member = luaL_checkstring(L, 2);
    enum member_order order = (enum member_order)luaL_checkoption(L, 3, NULL, orders);
    lua_pushboolean(L, coordinator_order_member(coordinator_of(L), name, member, order));
    return 1;
}

static void push_count(lua_State *L, const char *field, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, field);
}

static void push_seat(lua_State *L, const struct seat *seat, uint64_t now_ms)
{
    struct member_view view;
    seat_look(seat, now_ms, &view);
    lua_createtable(L, 0, 8);
    lua_pushstring(L, seat->member->text);
    lua_setfield(L, -2, "member");
    lua_pushstring(L, member_state_name(view.state));
    lua_setfield(L, -2, "state");
    push_count(L, "weight", seat->weight);
    push_count(L, "sessions", view.sessions);
    push_count(L, "chosen", view.chosen);
    push_count(L, "connected", view.connected);
    push_count(L, "failed", view.failed);
    lua_pushboolean(L, seat->backup);
    lua_setfield(L, -2, "backup");
}

/* sluice.upstreams.get(name) -> list of {member =, state =, weight =, backup =, sessions =, chosen =, connected =,
 * failed =} | nil                                                                                      [-0, +1, e] */
static int upstreams_get(lua_State *L)
{
    struct coordinator *c = coordinator_of(L);
    const char *name = luaL_checkstring(L, 1);
    const struct upstream_group *group = groups_find(coordinator_groups(c), name);
    lua_newtable(L);
    /* Whatever is allocated may run finalizers, and those may define groups. */
    for (unsigned i = 0; group && i < group->count; i++) {
        push_seat(L, &group->seats[i], coordinator_now_ms(c));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
        group = groups_find(coordinator_groups(c), name);
    }
    if (!group) lua_pushnil(L);
    return 1;
}

int luaopen_upstreams(lua_State *L)
{
    static const luaL_Reg functions[] = {{"define", upstreams_define},
                                         {"get", upstreams_get},
                                         {"order", upstreams_order},
                                         {"remove", upstreams_remove},
                                         {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
