/* The suites of tests/lua/, without a server: the real modules, and stubs for what needs one. And the sets. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lua/modules.h"
#include "support.h"

static lua_State *open_state(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaL_requiref(L, "regex", luaopen_regex, 1);
    luaL_requiref(L, "time", luaopen_time, 1);
    luaL_requiref(L, "zlib", luaopen_zlib, 1);
    luaL_requiref(L, "sets", luaopen_sets, 0);
    lua_settop(L, 0);
    luaopen_marshal(L);
    lua_setglobal(L, "marshal");
    return L;
}

static void run(lua_State *L, const char *code)
{
    if (luaL_dostring(L, code) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
    lua_settop(L, 0);
}

static void suite(const char *file)
{
    lua_State *L = open_state();
    run(L, "package.path = 'tests/lua/?.lua;lua/scripts/?.lua'");
    if (luaL_dofile(L, file) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
    lua_close(L);
}

static void test_libruleset(void **state)
{
    (void)state;
    suite("tests/lua/test_libruleset.lua");
}

static void test_agent(void **state)
{
    (void)state;
    suite("tests/lua/test_agent.lua");
}

static void test_domains(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L,
        "local sets = require('sets')\n"
        "local d = sets.domains('# a comment\\n\\n example.com \\r\\n.ORG\\nx.y # behind\\n')\n"
        "assert(#d == 3)\n"
        "assert(d('example.com') and d('a.EXAMPLE.com.') and d('org') and d('z.org') and d('x.y'))\n"
        "assert(not d('y') and not d('xexample.com') and not d('com') and not d('') and not d('.'))\n"
        "assert(not d(('a.'):rep(200) .. 'org') == true)\n"
        "assert(#sets.domains({}) == 0 and not sets.domains({})('a'))\n"
        "assert(#sets.domains({'a', 'A', '.a', 'a.'}) == 1)\n"
        "for _, bad in ipairs{ {''}, {'.'}, {('x'):rep(256)}, {1}, {{}} } do assert(not pcall(sets.domains, bad)) end\n"
        "assert(not pcall(sets.domains) and not pcall(sets.domains, 5) and not pcall(d))");
    lua_close(L);
}

static void test_domains_against_a_model(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "local sets = require('sets') math.randomseed(3)\n"
           "local function name() local t = {} for i = 1, math.random(3) do t[i] = ('abc'):sub(math.random(3)):sub(1, "
           "2) end\n"
           "  return table.concat(t, '.') end\n"
           "for round = 1, 200 do\n"
           "  local list, model = {}, {}\n"
           "  for i = 1, math.random(0, 12) do list[i] = name() model[list[i]] = true end\n"
           "  local set = sets.domains(list)\n"
           "  for i = 1, 40 do\n"
           "    local host, expected = name(), false\n"
           "    local rest = host\n"
           "    while rest do expected = expected or model[rest] or false rest = rest:match('^[^.]*%.(.*)$') end\n"
           "    assert(set(host) == expected, host)\n"
           "  end\n"
           "end");
    lua_close(L);
}

static void test_subnets_against_a_model(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "local sets = require('sets') math.randomseed(4)\n"
           "local function text(n) return ('%d.%d.%d.%d'):format(n >> 24, n >> 16 & 255, n >> 8 & 255, n & 255) end\n"
           "for round = 1, 200 do\n"
           "  local list, model = {}, {}\n"
           "  for i = 1, math.random(0, 10) do\n"
           "    local bits = math.random(0, 32)\n"
           "    local mask = 0xffffffff << (32 - bits) & 0xffffffff\n"
           "    local net = math.random(0, 0xffffffff) & mask & 0xf00000ff\n"
           "    list[i], model[i] = text(net) .. '/' .. bits, { net, mask }\n"
           "  end\n"
           "  local set = sets.subnets(list)\n"
           "  for i = 1, 60 do\n"
           "    local ip, expected = math.random(0, 0xffffffff) & 0xf00000ff, false\n"
           "    for _, m in ipairs(model) do expected = expected or ip & m[2] == m[1] end\n"
           "    assert(set(ip) == expected, text(ip))\n"
           "  end\n"
           "end\n"
           "assert(sets.subnets('0.0.0.0/0')(0) and sets.subnets('0.0.0.0/0')(0xffffffff))\n"
           "assert(not sets.subnets('0.0.0.0/0')(-1) and not sets.subnets('0.0.0.0/0')(1 << 32))\n"
           "local six = sets.subnets6('::/1\\n8000::/1')\n"
           "assert(six(0, 0) and six(-1, -1))\n"
           "local two = sets.subnets6({'2001:db8::/64', '2001:db8:0:1::/64', 'fe80::1/128'})\n"
           "assert(two(0x20010db800000001, -1) and not two(0x20010db800000002, 0))\n"
           "assert(two(0xfe80 << 48, 1) and not two(0xfe80 << 48, 2))\n"
           "for _, bad in ipairs{ '1.2.3.4', '1.2.3.0/33', '1.2.3.4/24', 'x/8', '1.2.3.0/', '1.2.3.0/-1', "
           "'1.2.3.0/2x', '::/0' } do\n"
           "  assert(not pcall(sets.subnets, bad), bad)\n"
           "end\n"
           "assert(not pcall(sets.subnets6, '1.2.3.0/24') and not pcall(sets.subnets6, '2001:db8::1/64'))");
    lua_close(L);
}

static void test_equal(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "local equal = require('sets').equal\n"
           "assert(equal('', '') and equal('abc', 'abc') and not equal('abc', 'abd') and not equal('abc', 'ab'))\n"
           "assert(not equal('', 'a') and not equal('a', '') and not equal('ab', 'abab') and equal('a\\0b', 'a\\0b'))");
    lua_close(L);
}

/* Times are printed, not judged: make bench does that. */
static void test_large_lists(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "local sets, lines = require('sets'), {}\n"
           "for i = 1, 1000000 do lines[i] = ('host%d.zone%d.example'):format(i, i % 1000) end\n"
           "local text = table.concat(lines, '\\n')\n"
           "local t0 = time.thread() local d = sets.domains(text) local t1 = time.thread()\n"
           "assert(#d == 1000000 and d('www.host777.zone777.example') and not d('host777.zone778.example'))\n"
           "for i = 1, 100000 do d('a.b.host12345.zone345.example') end\n"
           "print(('# 1,000,000 domains in %.2f s, %.0f ns a look-up'):format(t1 - t0, (time.thread() - t1) * 1e4))\n"
           "lines = {}\n"
           "for i = 1, 100000 do lines[i] = ('%d.%d.%d.0/24'):format(1 + i % 200, i // 200 % 250, i * 7 % 250) end\n"
           "t0 = time.thread() local s = sets.subnets(lines) t1 = time.thread()\n"
           "assert(s(1 + 777 % 200 << 24 | 777 // 200 << 16 | 777 * 7 % 250 << 8 | 9))\n"
           "for i = 1, 100000 do s(i * 30000) end\n"
           "print(('# 100,000 networks in %.2f s, %.0f ns a look-up'):format(t1 - t0, (time.thread() - t1) * 1e4))");
    lua_close(L);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_libruleset),
        cmocka_unit_test(test_agent),
        cmocka_unit_test(test_domains),
        cmocka_unit_test(test_domains_against_a_model),
        cmocka_unit_test(test_subnets_against_a_model),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_large_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
