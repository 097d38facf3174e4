/* The buffers of scripts: how they are made, layouts of any width, segments that share memory, what must be refused. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua/socket/data.h"
#include "lua/socket/socket.h"
#include "tests/support.h"

static lua_State *L;

static int open_state(void **state)
{
    (void)state;
    L = luaL_newstate();
    if (!L) return -1;
    luaL_openlibs(L);
    luaL_requiref(L, "data", luaopen_data, 1);
    lua_pop(L, 1);
    return 0;
}

static int close_state(void **state)
{
    (void)state;
    lua_close(L);
    return 0;
}

static void run(const char *source)
{
    if (luaL_dostring(L, source) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
    lua_settop(L, 0);
}

/* The chunk raises, with these words in the message. */
static void refuse(const char *source, const char *words)
{
    if (luaL_dostring(L, source) == LUA_OK) fail_msg("accepted: %s", source);
    const char *message = lua_tostring(L, -1);
    if (!message || !strstr(message, words)) fail_msg("%s: %s", source, message ? message : "no text");
    lua_settop(L, 0);
}

static void test_new(void **state)
{
    (void)state;
    run("local d = data.new(3) assert(#d == 3 and d:string() == '\\0\\0\\0')");
    run("local d = data.new{0, 127, 128, 255} assert(d:string() == '\\x00\\x7f\\x80\\xff')");
    run("local d = data.new'text' assert(debug.getmetatable(d).__tostring(d, 1, 2) == 'text')");
    run("local d = data.new'text\\0more' assert(#d == 9 and tostring(d) == 'text\\0more')");
    run("local d = data.new'12' assert(d:string() == '12')"); /* a text, not a size */
    run("assert(require'data' == data)");
    run("for _, v in ipairs{0, '', {}} do assert(data.new(v) == nil) end assert(data.new() == nil and data.new(nil) == "
        "nil)");
    run("assert(#data.new(2.0) == 2)");
    refuse("data.new(-1)", "size out of range");
    refuse("data.new(1 << 40)", "size out of range");
    refuse("data.new(1.5)", "no integer representation");
    refuse("data.new(true)", "size, table of octets or text expected, got boolean");
    refuse("data.new{1, 256}", "element 2 is no octet");
    refuse("data.new{-1}", "element 1 is no octet");
    refuse("data.new{'x'}", "element 1 is no octet");
    refuse("data.new{1, 2, [4] = 3, [3] = {}}", "element 3 is no octet");
}

/* What the original's own tests ask for, in our words. */
static void test_layout(void **state)
{
    (void)state;
    run("local d = data.new{0x0f} d.no = 1 assert(d.no == nil)");
    run("local d = data.new{0x0f} assert(d:layout{octet = {0, 8}, last = {7, 1}} == d) assert(d.octet == 15) "
        "d.last = 0 assert(d.octet == 14)");
    run("l = data.layout{be = {0, 16}, le = {0, 16, 'number', 'le'}, little = {0, 16, 'little'}, net = {0, 16, 'net'}, "
        "four = {16, 4}, nine = {20, 9}, outside = {32, 1}} "
        "d = data.new{0xaa, 0xbb, 0xcc, 0xdd}:layout(l) "
        "assert(d.be == 0xaabb and d.le == 0xbbaa and d.little == 0xbbaa and d.net == 0xaabb) "
        "assert(d.four == 0xc and d.nine == 0x19b and d.outside == nil) d.outside = 1");
    run("local named = data.new{1, 2}:layout{n = {offset = 0, length = 16, type = 'number', endian = 'host'}} "
        "assert(named.n == string.unpack('=I2', '\\1\\2'))");
    run("local d = data.new(16):layout{big = {0, 65}, word = {0, 64}, odd = {3, 64}} "
        "d.word = -1 assert(d.word == -1 and d.big == nil and d.odd == ~7) d.big = 5 assert(d.word == -1) "
        "d.odd = math.mininteger assert(d.odd == math.mininteger and d.word == -1 << 61 | 1 << 60)");
    run("local d = data.new'\\a':layout{a = {1, 7}} assert(d.a == 7)");
    run("local d = data.new'abcdef':layout{s = {0, 6, 's'}, out = {1, 6, 's'}, two = {2, 2, 'string'}} "
        "assert(d.s == 'abcdef' and d.out == nil and d.two == 'cd') d.s = 'hij' assert(d.s == 'hijdef') "
        "d.two = 'WXYZ' assert(d.s == 'hiWXef') d.two = 5 assert(d.two == '5X')");
}

/* Every offset and width against the same done with a text of bits. */
static void test_bits(void **state)
{
    (void)state;
    run("local function bits(d) local t = {} for i = 0, #d - 1 do for b = 7, 0, -1 do t[#t + 1] = d[i] >> b & 1 end "
        "end "
        "return table.concat(t) end "
        "local d = data.new(12) "
        "for offset = 0, 20 do for length = 1, 64 do "
        "  for i = 0, 11 do d[i] = (i * 73 + offset * 31 + length) & 255 end "
        "  local before = bits(d) "
        "  d:layout{f = {offset, length}} "
        "  local expected = 0 for c in before:sub(offset + 1, offset + length):gmatch'.' do expected = expected << 1 | "
        "tonumber(c) end "
        "  assert(d.f == expected, offset .. ' ' .. length) "
        "  local value = 0x5bd1e995a5c3f00d "
        "  d.f = value "
        "  local written = {} for b = length - 1, 0, -1 do written[#written + 1] = value >> b & 1 end "
        "  assert(bits(d) == before:sub(1, offset) .. table.concat(written) .. before:sub(offset + length + 1)) "
        "end end");
    run("local d = data.new(12) "
        "for offset = 0, 9 do for length = 1, 64 do "
        "  local mask = length == 64 and -1 or (1 << length) - 1 "
        "  d:layout{f = {offset, length, 'little'}, first = {offset, math.min(8, length)}} "
        "  d.f = 0x5bd1e995a5c3f00d & mask "
        "  assert(d.f == 0x5bd1e995a5c3f00d & mask) assert(d.first == 0x0d & mask) "
        "end end");
    run("local d = data.new{1, 2, 3, 4, 5, 6, 7, 8}:layout{n = {0, 64, 'l'}, m = {8, 24, 'number', 'little'}} "
        "assert(d.n == 0x0807060504030201 and d.m == 0x040302)");
}

static void test_layout_refused(void **state)
{
    (void)state;
    refuse("data.layout()", "table expected");
    refuse("data.layout{f = 1}", "a field is described by a table");
    refuse("data.layout{f = {}}", "wrong or missing offset");
    refuse("data.layout{f = {0}}", "wrong or missing length");
    refuse("data.layout{f = {0, 0}}", "wrong or missing length");
    refuse("data.layout{f = {-1, 8}}", "wrong or missing offset");
    refuse("data.layout{f = {0.5, 8}}", "wrong or missing offset");
    refuse("data.layout{f = {0, 8, 'x'}}", "unknown type");
    refuse("data.layout{f = {0, 8, ''}}", "type is empty");
    refuse("data.layout{f = {0, 8, {}}}", "type must be a text");
    refuse("data.layout{f = {0, 8, 'n', 'x'}}", "unknown endian");
    refuse("data.new(1):layout(5)", "layout or table expected");
    refuse("data.new(1):layout()", "layout or table expected");
    refuse("data.new(1):layout(data.new(1))", "layout or table expected");
    refuse("data.new(1):layout{f = {0, 8}}.f = 'x'", "number expected");
    refuse("data.new(1):layout{f = {0, 8}}.f = 1.5", "no integer representation");
    refuse("data.new(1):layout{f = {0, 1, 's'}}.f = {}", "string expected");
    /* Offsets and lengths that would wrap around lie outside. */
    run("local d = data.new(4):layout{a = {math.maxinteger, 8}, b = {0, math.maxinteger}, c = {math.maxinteger, "
        "math.maxinteger}, d = {math.maxinteger, math.maxinteger, 's'}, e = {25, 8}, f = {1, 4, 's'}} "
        "for c in ('abcdef'):gmatch'.' do assert(d[c] == nil) d[c] = 1 end assert(d:string() == '\\0\\0\\0\\0')");
}

static void test_segment(void **state)
{
    (void)state;
    run("local l = data.layout{n = {0, 16}} local d = data.new{1, 2, 3, 4} "
        "local s = d:segment(1, 3) assert(#s == 3 and s:layout(l).n == 0x0203) "
        "local t = s:segment(1):layout(l) assert(#t == 2 and t.n == 0x0304) "
        "local all = d:segment() all[0] = 9 assert(d[0] == 9 and #all == 4) "
        "d, s, all = nil collectgarbage() collectgarbage() assert(t.n == 0x0304) t.n = 5 assert(t.n == 5)");
    run("local d = data.new(4) assert(#d:segment(4) == 0 and #d:segment(2, 0) == 0 and d:segment(4):string() == '')");
    run("local d = data.new(4) assert(not d:segment(5) and not d:segment(-1) and not d:segment(0, 5) "
        "and not d:segment(2, 3) and not d:segment(0, -1) and not d:segment(1, math.maxinteger) "
        "and not d:segment(math.mininteger))");
    run("local d = data.new'abcd' assert(d:string(1) == 'bcd' and d:string(1, 2) == 'bc' and not d:string(5))");
    run("local d = data.new{1}:layout{n = {0, 8}} local s = d:segment() assert(s.n == nil)");
    refuse("data.new(4):segment('x')", "number expected");
    refuse("data.new(4).segment({})", "data expected, got table");
}

static void test_octets(void **state)
{
    (void)state;
    run("local d = data.new{5, 6} assert(d[0] == 5 and d[1] == 6 and d[2] == nil and d[-1] == nil and d[1.0] == 6 "
        "and d[0.5] == nil and d['0'] == nil) d[1] = 255 d[7] = 1 assert(d[1] == 255)");
    refuse("data.new(1)[0] = 256", "an octet is 0...255");
    refuse("data.new(1)[0] = -1", "an octet is 0...255");
    refuse("data.new(1)[0] = 'x'", "number expected");
    /* Fields stand before what is ours, the original's methods before fields. */
    run("local d = data.new{1, 2}:layout{string = {8, 8}, [0] = {8, 8}, segment = {0, 8}} "
        "assert(d.string == 2 and d[0] == 2 and type(d.segment) == 'function')");
}

/* The classes are told apart, and scripts cannot get at their tables. */
static void test_classes(void **state)
{
    struct data_view view;
    (void)state;
    run("assert(getmetatable(data.new(1)) == false and getmetatable(data.layout{}) == false)");
    refuse("setmetatable(data.new(1), {})", "table expected");
    refuse("getmetatable''.__index.upper(data.new(1))", "string expected");
    luaL_dostring(L, "return data.new'xyz':segment(1), data.layout{}, io.stdout, 5, nil");
    assert_true(data_to_view(L, 1, &view));
    assert_int_equal(view.size, 2);
    assert_memory_equal(view.octets, "yz", 2);
    for (int i = 2; i <= 5; i++) assert_false(data_to_view(L, i, &view));
    assert_int_equal(lua_gettop(L), 5);
    lua_settop(L, 0);
}

/* An allocator that fails: buffers are refused, nothing is lost. */
static size_t allocations_left;

static void *allocate(void *ud, void *block, size_t old_size, size_t new_size)
{
    (void)ud, (void)old_size;
    if (new_size == 0) {
        free(block);
        return NULL;
    }
    if (allocations_left == 0) return NULL;
    allocations_left--;
    return realloc(block, new_size);
}

static void test_memory(void **state)
{
    static const char source[] = "local d = data.new{1, 2, 3}:layout{a = {0, 8}, b = {8, 1, 's'}} "
                                 "return d:segment(1):string() .. d.a";
    (void)state;
    bool succeeded = false;
    allocations_left = 1000000;
    lua_State *other = lua_newstate(allocate, NULL);
    assert_non_null(other);
    luaL_requiref(other, "data", luaopen_data, 1);
    for (size_t limit = 0; limit < 1000 && !succeeded; limit++) {
        lua_settop(other, 0);
        allocations_left = limit;
        succeeded = luaL_dostring(other, source) == LUA_OK;
        if (!succeeded) assert_string_equal(lua_tostring(other, -1), "not enough memory");
    }
    assert_true(succeeded);
    assert_string_equal(lua_tostring(other, -1), "\2\0031");
    lua_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new),     cmocka_unit_test(test_layout),
        cmocka_unit_test(test_bits),    cmocka_unit_test(test_layout_refused),
        cmocka_unit_test(test_segment), cmocka_unit_test(test_octets),
        cmocka_unit_test(test_classes), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests_name("data", tests, open_state, close_state);
}
