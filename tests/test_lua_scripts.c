/* The suites of tests/lua/, without a server: the real modules, and stubs for what needs one. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lua/modules/modules.h"
#include "tests/support.h"

static lua_State *open_state(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaL_requiref(L, "regex", luaopen_regex, 1);
    luaL_requiref(L, "time", luaopen_time, 1);
    luaL_requiref(L, "zlib", luaopen_zlib, 1);
    luaL_requiref(L, "sets", luaopen_sets, 0);
    luaL_requiref(L, "literals", luaopen_literals, 0);
    lua_settop(L, 0);
    luaopen_marshal(L);
    lua_setglobal(L, "marshal");
    return L;
}

static void suite(const char *file)
{
    lua_State *L = open_state();
    if (luaL_dostring(L, "package.path = 'tests/lua/?.lua;lua/scripts/?.lua'") != LUA_OK) fail();
    if (luaL_dofile(L, file) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
    lua_close(L);
}

static void test_libruleset(void **state)
{
    (void)state;
    suite("tests/lua/test_libruleset.lua");
}

static void test_documents(void **state)
{
    (void)state;
    suite("tests/lua/test_documents.lua");
}

static void test_agent(void **state)
{
    (void)state;
    suite("tests/lua/test_agent.lua");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_libruleset),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_agent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
