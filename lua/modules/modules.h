/* The modules that every script finds in its globals, in the manner of lualib.h, and functions of theirs that other
 * files have. */
#ifndef SLUICE_LUA_MODULES_MODULES_H
#define SLUICE_LUA_MODULES_MODULES_H

#include <lua.h>

int luaopen_await(lua_State *L);
int luaopen_literals(lua_State *L);  /* a function */
int luaopen_marshal(lua_State *L);   /* a function */
int luaopen_neosocksd(lua_State *L); /* without config and setting, which boot/ adds */
int luaopen_regex(lua_State *L);
int luaopen_request(lua_State *L); /* ruleset.c: what is known of the request that is being decided */
int luaopen_sets(lua_State *L);
int luaopen_time(lua_State *L);
int luaopen_upstreams(lua_State *L); /* sluice.upstreams */
int luaopen_users(lua_State *L);     /* sluice.users */
int luaopen_wakeup(lua_State *L);
int luaopen_zlib(lua_State *L);

/* ruleset.c */
int await_forward(lua_State *L);
int sluice_cache(lua_State *L);
int sluice_limit(lua_State *L);
int sluice_tag(lua_State *L);
int sluice_unauthorized(lua_State *L);
/* own.c */
int sluice_is_own(lua_State *L);
/* listed.c */
int sluice_list(lua_State *L);

#endif
