#include "lua/modules/given_limits.h"

#include <lauxlib.h>
#include <string.h>

/* A term and its value, which stand on top as key and value of a table. */
static void read_term(lua_State *L, struct limit_terms *terms)
{
    size_t name_size, size;
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "sluice.limit: terms are named, such as {connections = 10}");
    if (!lua_isnumber(L, -1) && lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "sluice.limit: %s is neither a number nor a string", lua_tostring(L, -2));
    const char *name = lua_tolstring(L, -2, &name_size);
    lua_pushvalue(L, -1); /* converted in place a number would stay one in the table, but not for lua_next() */
    const char *value = lua_tolstring(L, -1, &size);
    const char *wrong = limit_terms_set(terms, name, name_size, value, size);
    if (wrong) luaL_error(L, "sluice.limit: %s", wrong);
    lua_pop(L, 1);
}

static void read_terms(lua_State *L, int table, struct limit_terms *terms)
{
    limit_terms_init(terms);
    luaL_checkstack(L, 4, NULL);
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) read_term(L, terms);
    const char *wrong = limit_terms_check(terms);
    if (wrong) luaL_error(L, "sluice.limit: %s", wrong);
}

static void read_key(lua_State *L, struct limit_key *key)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size), *wrong = limit_key_parse(text, size, key);
    luaL_argcheck(L, !wrong, 1, wrong);
    luaL_argcheck(L, !key->every, 1, "give one key, such as user:alice");
}

/* The handle of a key that is there already. */
static uint64_t find_limit(lua_State *L, struct coordinator *c, const struct limit_key *key)
{
    struct keys *keys = coordinator_keys(c);
    uint32_t held;
    if (keys_hold(keys, key, false, ring_now_us(coordinator_ring(c)), &held) != KEYS_FOUND)
        luaL_error(L, "sluice.limit: there is no limit %s; give its terms", lua_tostring(L, 1));
    uint64_t handle = keys_handle(keys, held);
    keys_release(keys, held);
    return handle;
}

static void add_handle(lua_State *L, struct coordinator *c, struct given_limits *given, uint64_t handle)
{
    unsigned kinds = (unsigned)__builtin_popcount(keys_kinds(coordinator_keys(c)));
    for (unsigned i = 0; i < given->count; i++)
        if (given->handles[i] == handle) return;
    if (kinds + given->count >= KEYS_PER_SESSION)
        luaL_error(L, "sluice.limit: a request is under %d limits at most, those of its kinds included",
                   (int)KEYS_PER_SESSION);
    given->handles[given->count++] = handle;
}

static void remove_handle(struct given_limits *given, uint64_t handle)
{
    for (unsigned i = 0; i < given->count; i++)
        if (given->handles[i] == handle) given->handles[i--] = given->handles[--given->count];
}

void given_limits_add(lua_State *L, struct coordinator *c, struct given_limits *given)
{
    struct limit_key key;
    struct limit_terms terms;
    uint64_t handle;
    read_key(L, &key);
    if (!coordinator_keys(c)) luaL_error(L, "sluice.limit: the server has not started yet");
    if (lua_isnoneornil(L, 2)) {
        add_handle(L, c, given, find_limit(L, c, &key));
        return;
    }
    if (lua_isboolean(L, 2) && !lua_toboolean(L, 2)) {
        remove_handle(given, find_limit(L, c, &key));
        return;
    }
    luaL_checktype(L, 2, LUA_TTABLE);
    read_terms(L, 2, &terms);
    const char *wrong = limit_check(&key, &terms);
    if (wrong) luaL_error(L, "sluice.limit: %s", wrong);
    if (coordinator_name_limit(c, &key, &terms, &handle) == KEYS_NO_ROOM)
        luaL_error(L, "sluice.limit: the table of keys is full, give more --limit-keys");
    add_handle(L, c, given, handle);
}

/* A kind of its own: who is under it follows from the tag. */
static void write_rule(struct coordinator *c, const char *rule, struct route_verdict *verdict)
{
    struct keys *keys = coordinator_keys(c);
    struct limit_key key;
    uint32_t held;
    if (!rule || !(keys_kinds(keys) & 1u << LIMIT_RULE) || verdict->limit_count == KEYS_PER_SESSION) return;
    limit_key_text(LIMIT_RULE, rule, strlen(rule), &key);
    if (keys_hold(keys, &key, false, ring_now_us(coordinator_ring(c)), &held) != KEYS_FOUND) return;
    verdict->limits[verdict->limit_count++] = keys_handle(keys, held);
    keys_release(keys, held);
}

void given_limits_write(struct coordinator *c, const struct given_limits *given, const char *rule,
                        struct route_verdict *verdict)
{
    verdict->limit_count = given->count;
    memcpy(verdict->limits, given->handles, given->count * sizeof *given->handles);
    if (coordinator_keys(c)) write_rule(c, rule, verdict);
}
