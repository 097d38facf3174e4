/* lua/modules/sets: what is an entry and what is none, random sets against models that look at every entry, memory that
 * runs out at every place, lists that change while they are read, and large lists. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lua/modules/modules.h"
#include "tests/support.h"

/* Memory that ends: the allocation number `fail_at` fails, and every one behind it that is larger than what it
 * replaces; 0: none. */
struct memory {
    size_t bytes;
    unsigned count, fail_at;
};

static void *memory_allocate(void *ud, void *block, size_t old_size, size_t new_size)
{
    struct memory *m = ud;
    size_t old = block ? old_size : 0;
    if (new_size == 0) {
        m->bytes -= old;
        free(block);
        return NULL;
    }
    if (new_size > old && m->fail_at != 0 && ++m->count >= m->fail_at) return NULL;
    void *new_block = realloc(block, new_size);
    if (new_block) m->bytes += new_size - old;
    return new_block;
}

static lua_State *open_state_with(struct memory *m)
{
    lua_State *L = lua_newstate(memory_allocate, m);
    assert_non_null(L);
    luaL_openlibs(L);
    luaL_requiref(L, "time", luaopen_time, 1);
    luaL_requiref(L, "sets", luaopen_sets, 1);
    lua_settop(L, 0);
    return L;
}

static struct memory plenty;

static lua_State *open_state(void)
{
    plenty = (struct memory){0};
    return open_state_with(&plenty);
}

static void close_state(lua_State *L)
{
    lua_close(L);
    assert_int_equal(plenty.bytes, 0);
}

static void run(lua_State *L, const char *code)
{
    if (luaL_dostring(L, code) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
    lua_settop(L, 0);
}

static void test_domains(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L,
        "local d = sets.domains('# a comment\\n\\n example.com \\r\\n.ORG\\nx.y # behind\\n')\n"
        "assert(#d == 3)\n"
        "assert(d('example.com') and d('a.EXAMPLE.com.') and d('org') and d('z.org') and d('x.y'))\n"
        "assert(not d('y') and not d('xexample.com') and not d('com') and not d('') and not d('.'))\n"
        "assert(d(('a.'):rep(200) .. 'org') and not d(('a.'):rep(200) .. 'net'))\n"
        "local l = sets.domains({('x'):rep(255)})\n"
        "assert(l(('x'):rep(255)) and l('a.' .. ('x'):rep(255)) and not l(('x'):rep(256)) and not l(('x'):rep(254)))\n"
        "assert(sets.domains({'com', 'example.com'})('a.example.com') and sets.domains({'example.com', "
        "'com'})('b.com'))\n"
        "assert(#sets.domains({}) == 0 and not sets.domains({})('a'))\n"
        "assert(#sets.domains({'a', 'A', '.a', 'a.'}) == 1)\n"
        "assert(#sets.domains({'', 'a', '', 'b'}) == 2)\n"
        "for _, bad in ipairs{ {'.'}, {'..'}, {('x'):rep(256)}, {1}, {{}}, '..' } do assert(not pcall(sets.domains, "
        "bad)) end\n"
        "assert(not pcall(sets.domains) and not pcall(sets.domains, 5) and not pcall(d))");
    close_state(L);
}

static void test_domains_against_a_model(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "math.randomseed(3)\n"
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
    close_state(L);
}

static void test_subnets_against_a_model(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "math.randomseed(4)\n"
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
    close_state(L);
}

static void test_equal(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "local equal = sets.equal\n"
           "assert(equal('', '') and equal('abc', 'abc') and not equal('abc', 'abd') and not equal('abc', 'ab'))\n"
           "assert(not equal('', 'a') and not equal('a', '') and not equal('ab', 'abab') and equal('a\\0b', 'a\\0b'))");
    close_state(L);
}

/* Times are printed, not judged: make bench does that. */
static void test_large_lists(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "local lines = {}\n"
           "for i = 1, 1000000 do lines[i] = ('host%d.zone%d.example'):format(i, i % 1000) end\n"
           "local text = table.concat(lines, '\\n')\n"
           "local t0 = time.thread() local d = sets.domains(lines) local t1 = time.thread()\n"
           "print(('# 1,000,000 domains of a table in %.2f s'):format(t1 - t0))\n"
           "d = nil collectgarbage()\n"
           "t0 = time.thread() d = sets.domains(text) t1 = time.thread()\n"
           "assert(#d == 1000000 and d('www.host777.zone777.example') and not d('host777.zone778.example'))\n"
           "for i = 1, 100000 do d('a.b.host12345.zone345.example') end\n"
           "print(('# of a text in %.2f s, %.0f ns a look-up'):format(t1 - t0, (time.thread() - t1) * 1e4))\n"
           "lines = {}\n"
           "for i = 1, 100000 do lines[i] = ('%d.%d.%d.0/24'):format(1 + i % 200, i // 200 % 250, i * 7 % 250) end\n"
           "t0 = time.thread() local s = sets.subnets(lines) t1 = time.thread()\n"
           "assert(s(1 + 777 % 200 << 24 | 777 // 200 << 16 | 777 * 7 % 250 << 8 | 9))\n"
           "for i = 1, 100000 do s(i * 30000) end\n"
           "print(('# 100,000 networks in %.2f s, %.0f ns a look-up'):format(t1 - t0, (time.thread() - t1) * 1e4))");
    close_state(L);
}

/* Texts of errors; what is shown of an entry is quoted, and cut. */
static void test_messages(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "local function message(part, f, ...)\n"
           "  local ok, text = pcall(f, ...)\n"
           "  assert(not ok and text == part, tostring(text))\n"
           "end\n"
           "local d, four, six = sets.domains, sets.subnets, sets.subnets6\n"
           "message('invalid subnet \"10.0.0.1/8\"', four, {'10.0.0.0/8', '10.0.0.1/8'})\n"
           "message('invalid subnet \"10.0.0.1\"', four, '# all\\n10.0.0.0/8\\n10.0.0.1')\n"
           "message('invalid prefix size \"10.0.0.0/33\"', four, {'10.0.0.0/33'})\n"
           "message('invalid prefix size \"10.0.0.0/\"', four, {'10.0.0.0/'})\n"
           "message('invalid prefix size \"10.0.0.0/0008\"', four, {'10.0.0.0/0008'})\n"
           "message('invalid prefix size \"10.0.0.0/8/8\"', four, {'10.0.0.0/8/8'})\n"
           "message('invalid subnet \"/8\"', four, {'/8'})\n"
           "message('invalid subnet \"10.0.0.0\\\\000/8\"', four, {'10.0.0.0\\0/8'})\n"
           "message('invalid subnet \"' .. ('x'):rep(80) .. '\"...', four, {('x'):rep(100) .. '/8'})\n"
           "message('invalid prefix size \"::/129\"', six, {'::/129'})\n"
           "message('invalid subnet \"::1/127\"', six, {'::1/127'})\n"
           "message('invalid subnet \"fe80::%lo/64\"', six, {'fe80::%lo/64'})\n"
           "message('invalid domain \"..\"', d, 'a.example\\n..\\n' .. ('b\\n'):rep(1000))\n"
           "message('invalid domain \"' .. ('\\\\\"'):rep(80) .. '\"...', d, {('\"'):rep(300)})\n"
           "message('entry 2 is no string', d, {'a', 2})\n"
           "message('entry 1 is no string', four, {true})\n"
           "assert(select(2, pcall(d, 5)):find('table expected, got number'))\n"
           "assert(select(2, pcall(four({}), nil)):find('number expected, got nil'))\n"
           "assert(select(2, pcall(four({}), 1.5)):find('no integer representation'))\n"
           "assert(select(2, pcall(six({}), 1)):find('number expected, got no value'))\n"
           "local call = getmetatable(d({})).__call\n"
           "for _, other in ipairs{ four({}), io.stdout, 'x', {} } do assert(not pcall(call, other, 'a')) end");
    close_state(L);
}

static void test_subnets6_against_a_model(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L,
        "math.randomseed(5)\n"
        "local function mask(bits) return bits <= 0 and 0 or bits >= 64 and -1 or ~(-1 >> bits) end\n"
        "local function word() return math.random(0, 3) << 62 | math.random(0, 3) << 30 | math.random(0, 3) end\n"
        "local function text(high, low)\n"
        "  local groups = {}\n"
        "  for i = 0, 7 do groups[i + 1] = ('%x'):format((i < 4 and high or low) >> (48 - i % 4 * 16) & 0xffff) end\n"
        "  return table.concat(groups, ':')\n"
        "end\n"
        "for round = 1, 200 do\n"
        "  local list, model = {}, {}\n"
        "  for i = 1, math.random(0, 10) do\n"
        "    local bits = math.random(0, 128)\n"
        "    local m = { mask(bits), mask(bits - 64) }\n"
        "    m[3], m[4] = word() & m[1], word() & m[2]\n"
        "    list[i], model[i] = text(m[3], m[4]) .. '/' .. bits, m\n"
        "  end\n"
        "  local set = sets.subnets6(list)\n"
        "  for i = 1, 60 do\n"
        "    local high, low, expected = word(), word(), false\n"
        "    for _, m in ipairs(model) do expected = expected or high & m[1] == m[3] and low & m[2] == m[4] end\n"
        "    assert(set(high, low) == expected, text(high, low))\n"
        "  end\n"
        "end");
    close_state(L);
}

/* Many names that differ little, with all that is below and beside them. */
static void test_domains_in_numbers(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "local list = {}\n"
           "for i = 1, 20000 do list[i] = ('n%d.z%d.test'):format(i, i % 7) end\n"
           "local from_list, from_text = sets.domains(list), sets.domains(table.concat(list, '\\r\\n'))\n"
           "for _, set in ipairs{ from_list, from_text } do\n"
           "  assert(#set == 20000)\n"
           "  for i = 1, 20000 do\n"
           "    local name = list[i]\n"
           "    assert(set(name) and set('x.' .. name) and not set('x' .. name) and not set(name .. 'x'))\n"
           "    assert(not set(('n%d.z%d.test'):format(i, (i + 1) % 7)))\n"
           "  end\n"
           "end");
    close_state(L);
}

/* Finalizers run whenever Lua allocates: one that makes the list longer, or empties it, must not matter. */
static void test_lists_that_change(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "collectgarbage('generational')\n"
           "for _, build in ipairs{ sets.domains, sets.subnets, sets.subnets6 } do\n"
           "  local entry = build == sets.domains and 'name%d.test' or build == sets.subnets and '10.0.%d.0/24' or "
           "'%x::/16'\n"
           "  for round = 1, 40 do\n"
           "    local list = {}\n"
           "    for i = 1, 50 do list[i] = entry:format(i) end\n"
           "    local changes = 0\n"
           "    local function change()\n"
           "      changes = changes + 1\n"
           "      if round % 2 == 0 then\n"
           "        for i = 51, 200 do list[i] = entry:format(i) end\n"
           "      else\n"
           "        for i = #list, 1, -1 do list[i] = nil end\n"
           "      end\n"
           "    end\n"
           "    collectgarbage('stop')\n"
           "    for i = 1, 30 do setmetatable({}, { __gc = change }) end\n"
           "    collectgarbage('restart')\n"
           "    collectgarbage('setpause', 0) collectgarbage('incremental', 1, 1000, 0)\n"
           "    local ok, result = pcall(build, list)\n"
           "    assert(ok or result == 'the list has changed while it was read' , result)\n"
           "    if not ok then _G.noticed = true end\n"
           "  end\n"
           "end\n"
           "assert(noticed, 'no finalizer ran in between: this tests nothing')");
    close_state(L);
}

/* Every allocation fails in its turn: an error, and nothing is lost. */
static void test_memory_that_ends(void **state)
{
    static const char *const codes[] = {
        "return sets.domains({'a.test', 'b.test', 'c.test', 'd.test', 'e.test'})('x.c.test')",
        "return sets.domains('a.test\\nb.test')('b.test')",
        "return sets.subnets({'10.0.0.0/8', '10.0.0.0/9', '192.168.0.0/16'})(0x0a000001)",
        "return sets.subnets6('2001:db8::/32\\n')(0x20010db800000000, 1)",
        "return sets.equal('a', 'a')",
    };
    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        unsigned failures = 0;
        bool done = false;
        for (unsigned n = 1; !done; n++) {
            struct memory m = {0};
            lua_State *L = open_state_with(&m);
            assert_int_equal(luaL_loadstring(L, codes[i]), LUA_OK);
            lua_gc(L, LUA_GCSTOP);
            m.fail_at = n;
            int status = lua_pcall(L, 0, 1, 0);
            m.fail_at = 0;
            assert_true(status == LUA_OK || status == LUA_ERRMEM);
            done = status == LUA_OK;
            failures += !done;
            if (done) assert_true(lua_toboolean(L, -1));
            lua_close(L);
            assert_int_equal(m.bytes, 0);
            assert_true(n < 1000);
        }
        if (i + 1 < sizeof codes / sizeof *codes) assert_true(failures > 0);
    }
}

/* What a set takes is counted: a limit on the state holds. */
static void test_memory_is_the_states(void **state)
{
    lua_State *L = open_state();
    (void)state;
    run(L, "local t = {} for i = 1, 100000 do t[i] = ('host%d.example'):format(i) end\n"
           "text = table.concat(t, '\\n') t = nil collectgarbage() collectgarbage()");
    size_t before = plenty.bytes;
    run(L, "set = sets.domains(text)");
    assert_in_range(plenty.bytes - before, 3 << 20, 8 << 20);
    run(L, "set = nil collectgarbage() collectgarbage()");
    assert_true(plenty.bytes <= before);
    close_state(L);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_domains),
        cmocka_unit_test(test_domains_against_a_model),
        cmocka_unit_test(test_domains_in_numbers),
        cmocka_unit_test(test_subnets_against_a_model),
        cmocka_unit_test(test_subnets6_against_a_model),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_lists_that_change),
        cmocka_unit_test(test_memory_that_ends),
        cmocka_unit_test(test_memory_is_the_states),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_large_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
