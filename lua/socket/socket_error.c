/* What failing calls raise. The original raises the bare negative errno: `code` is that number, and an error can be
 * concatenated as the number could. */
#include <stdio.h>
#include <string.h>

#include "lua/socket/socket.h"
#include "lua/socket/socket_private.h"

const struct class_key socket_error_class = {"socket.error"};

struct failure_object { /* its user value: the text */
    int error;
    const char *call; /* static */
};

void socket_push_error(lua_State *L, const char *call, int error)
{
    if (error < 0) error = -error;
    const char *name = strerrorname_np(error);
    struct failure_object *f = lua_newuserdatauv(L, sizeof *f, 1);
    *f = (struct failure_object){error, call};
    lua_pushfstring(L, "%s: %s (%s)", call, name ? name : "unknown error", strerror(error));
    lua_setiuservalue(L, -2, 1);
    class_set(L, &socket_error_class);
}

int socket_raise(lua_State *L, const char *call, int error)
{
    socket_push_error(L, call, error);
    return lua_error(L);
}

const char *socket_error_text(lua_State *L, int index)
{
    const char *text = NULL;
    if (!class_test(L, index, &socket_error_class)) return NULL;
    if (lua_getiuservalue(L, index, 1) == LUA_TSTRING) text = lua_tostring(L, -1);
    lua_pop(L, 1);
    return text;
}

static int error_tostring(lua_State *L)
{
    class_check(L, 1, &socket_error_class);
    lua_getiuservalue(L, 1, 1);
    return 1;
}

/* err.code (negative, as the original's error), errno, name, call, message. */
static int error_index(lua_State *L)
{
    const struct failure_object *f = class_check(L, 1, &socket_error_class);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(key, "code") == 0)
        lua_pushinteger(L, -f->error);
    else if (strcmp(key, "errno") == 0)
        lua_pushinteger(L, f->error);
    else if (strcmp(key, "name") == 0)
        lua_pushstring(L, strerrorname_np(f->error));
    else if (strcmp(key, "call") == 0)
        lua_pushstring(L, f->call);
    else if (strcmp(key, "message") == 0)
        lua_getiuservalue(L, 1, 1);
    else
        lua_pushnil(L);
    return 1;
}

static int error_concat(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    luaL_tolstring(L, 2, NULL);
    lua_concat(L, 2);
    return 1;
}

/* Two errors are equal if their numbers are. */
static int error_equal(lua_State *L)
{
    const struct failure_object *a = class_test(L, 1, &socket_error_class);
    const struct failure_object *b = class_test(L, 2, &socket_error_class);
    lua_pushboolean(L, a && b && a->error == b->error);
    return 1;
}

void socket_open_errors(lua_State *L)
{
    static const luaL_Reg events[] = {{"__tostring", error_tostring},
                                      {"__index", error_index},
                                      {"__concat", error_concat},
                                      {"__eq", error_equal},
                                      {NULL, NULL}};
    class_open_hidden(L, &socket_error_class, events);
    lua_pop(L, 1);
}
