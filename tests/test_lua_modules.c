/* zlib, regex, time and marshal: from Lua, as scripts see them; and the literals of peers. */
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <lualib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua/engine/codec.h"
#include "lua/modules/marshal.h"
#include "lua/modules/modules.h"
#include "lua/modules/pattern.h"
#include "tests/support.h"

static lua_State *L;

static void open_modules(lua_State *state)
{
    luaL_openlibs(state);
    luaL_requiref(state, "zlib", luaopen_zlib, 1);
    luaL_requiref(state, "regex", luaopen_regex, 1);
    luaL_requiref(state, "time", luaopen_time, 1);
    lua_settop(state, 0);
    luaopen_marshal(state);
    lua_setglobal(state, "marshal");
}

static int setup(void **state)
{
    (void)state;
    L = luaL_newstate();
    open_modules(L);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lua_close(L);
    return 0;
}

/* The chunk runs without an error. */
static void passes(const char *code)
{
    if (luaL_dostring(L, code) != LUA_OK) fail_msg("%s\n%s", lua_tostring(L, -1), code);
    lua_settop(L, 0);
}

/* The chunk raises a message that holds `part`. */
static void raises(const char *code, const char *part)
{
    if (luaL_dostring(L, code) == LUA_OK) fail_msg("no error: %s", code);
    if (!strstr(lua_tostring(L, -1), part)) fail_msg("%s\ninstead of %s: %s", lua_tostring(L, -1), part, code);
    lua_settop(L, 0);
}

/* --- zlib --- */

static void test_zlib(void **state)
{
    (void)state;
    passes("for _, s in ipairs{'', 'a', ('x'):rep(100000), ('\\0\\255'):rep(999)} do\n"
           "  assert(zlib.uncompress(zlib.compress(s)) == s)\n"
           "  assert(zlib.gunzip(zlib.gzip(s)) == s)\n"
           "end\n"
           "assert(#zlib.compress(('x'):rep(100000)) < 1000)\n"
           "assert(zlib.gunzip(zlib.gzip('one') .. zlib.gzip('two')) == 'onetwo')\n"
           "assert(zlib.gunzip(zlib.gzip('one') .. ('\\0'):rep(512)) == 'one')");
    raises("zlib.uncompress('no zlib at all')", "uncompress error: -1");
    raises("zlib.gunzip('no gzip at all')", "gunzip error: -1");
    raises("zlib.uncompress('')", "uncompress error: -4");
    raises("zlib.gunzip('\\x1f\\x8b\\8')", "gunzip error: -4");
    raises("zlib.gunzip(zlib.compress('x'))", "gunzip error: -1");
    raises("zlib.uncompress(zlib.compress('x') .. 'y')", "uncompress error: -1");
    raises("zlib.gunzip(zlib.gzip('x') .. 'y')", "gunzip error: -1");
    raises("zlib.compress()", "string expected, got no value");
    raises("zlib.uncompress({})", "string expected, got table");
}

/* Every prefix is truncated, every flipped bit refused unless it changes nothing that counts: texts that are compressed
 * with fixed codes, with codes of their own, or not at all. */
static void test_zlib_damage(void **state)
{
    (void)state;
    passes(
        "math.randomseed(3)\n"
        "local noise, words = {}, {}\n"
        "for i = 1, 3000 do noise[i] = string.char(math.random(0, 255)) end\n"
        "for i = 1, 400 do words[i] = ({'some', 'text', 'proxy', 'a', '\\n'})[math.random(5)] .. math.random(99) end\n"
        "for _, s in ipairs{'', 'abcabcabcabc', table.concat(words, ' '), table.concat(noise) } do\n"
        "  for _, f in ipairs{ { zlib.compress, zlib.uncompress, 'uncompress' }, { zlib.gzip, zlib.gunzip, 'gunzip' } "
        "} do\n"
        "    local z = f[1](s)\n"
        "    for i = 0, #z - 1 do\n"
        "      local ok, e = pcall(f[2], z:sub(1, i))\n"
        "      assert(not ok and e == f[3] .. ' error: -4', ('%d of %d octets: %s'):format(i, #z, e))\n"
        "    end\n"
        "    for i = 1, #z do\n"
        "      local damaged = z:sub(1, i - 1) .. string.char(z:byte(i) ~ 16) .. z:sub(i + 1)\n"
        "      local ok, got = pcall(f[2], damaged)\n"
        "      assert(not ok or got == s, i)\n"
        "    end\n"
        "  end\n"
        "end");
}

/* The length of the extra field has two octets: every shorter prefix is a beginning. */
static void test_gzip_long_extra(void **state)
{
    static const unsigned char header[] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 3, 0x03, 0x01};
    static const unsigned char end[] = {0x4b, 0x04, 0x00, 0x43, 0xbe, 0xb7, 0xe8, 1, 0, 0, 0};
    enum { EXTRA = 0x0103, SIZE = sizeof header + EXTRA + sizeof end };
    unsigned char data[SIZE];
    char *out;
    size_t out_size;
    (void)state;
    memcpy(data, header, sizeof header);
    memset(data + sizeof header, 0xff, EXTRA);
    memcpy(data + sizeof header + EXTRA, end, sizeof end);
    for (size_t n = 0; n < SIZE; n++)
        assert_int_equal(codec_decode_exactly(CODEC_GZIP, data, n, 100, &out, &out_size), CODEC_TRUNCATED);
    assert_int_equal(codec_decode_exactly(CODEC_GZIP, data, SIZE, 100, &out, &out_size), CODEC_OK);
    assert_int_equal(out_size, 1);
    assert_string_equal(out, "a");
    free(out);
}

static enum codec_result decode_exactly(enum codec codec, const unsigned char *data, size_t size)
{
    char *out;
    size_t out_size;
    enum codec_result result = codec_decode_exactly(codec, data, size, 100, &out, &out_size);
    if (result == CODEC_OK) free(out);
    return result;
}

/* Wrong from the octet on that is wrong, whatever follows: nobody waits for more. */
static void test_gzip_header_that_is_wrong(void **state)
{
    static const unsigned char right[] = {0x1f, 0x8b, 8, 0,    0,    0,    0,    0, 0, 3,
                                          0x4b, 0x04, 0, 0x43, 0xbe, 0xb7, 0xe8, 1, 0, 0};
    (void)state;
    for (size_t at = 0; at < 4; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            unsigned char data[sizeof right];
            if (at == 3 && bit < 5) continue; /* what a header may have */
            memcpy(data, right, sizeof right);
            data[at] ^= (unsigned char)(1u << bit);
            for (size_t n = 0; n <= sizeof right; n++)
                assert_int_equal(decode_exactly(CODEC_GZIP, data, n), n > at ? CODEC_CORRUPT : CODEC_TRUNCATED);
        }
    }
}

/* RFC 1950 section 2.2: method 8, windows of 32 KiB at most, a checksum of 5 bits, no preset dictionary. */
static void test_zlib_headers(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        bool method = (first & 15) == 8 && first >> 4 <= 7;
        for (unsigned second = 0; second < 256; second++) {
            unsigned char data[] = {(unsigned char)first, (unsigned char)second};
            bool right = method && (first << 8 | second) % 31 == 0 && !(second & 32);
            if (first % 8 != 0 && second > 7) break; /* enough of those */
            assert_int_equal(decode_exactly(CODEC_DEFLATE, data, 1), method ? CODEC_TRUNCATED : CODEC_CORRUPT);
            assert_int_equal(decode_exactly(CODEC_DEFLATE, data, 2), right ? CODEC_TRUNCATED : CODEC_CORRUPT);
        }
    }
}

/* A member with all that a header may have, written by hand, and a second one behind it. */
static void test_gzip_members(void **state)
{
    static const unsigned char first[] = {0x1f, 0x8b, 8,    0x1f, 0,    0,   0, 0, 0, 3,    2,
                                          0,    'x',  'y',  'n',  0,    'c', 0, 1, 2, 0x4b, 0x04,
                                          0x00, 0x43, 0xbe, 0xb7, 0xe8, 1,   0, 0, 0};
    unsigned char data[256];
    char *second, *out;
    size_t second_size, out_size;
    (void)state;
    assert_int_equal(codec_encode(CODEC_GZIP, "bc", 2, &second, &second_size), CODEC_OK);
    memcpy(data, first, sizeof first);
    memcpy(data + sizeof first, second, second_size);
    size_t size = sizeof first + second_size;
    for (size_t n = 0; n < size; n++) {
        enum codec_result result = codec_decode_exactly(CODEC_GZIP, data, n, 100, &out, &out_size);
        assert_int_equal(result, n == sizeof first ? CODEC_OK : CODEC_TRUNCATED);
        if (result == CODEC_OK) free(out);
    }
    assert_int_equal(codec_decode(CODEC_GZIP, data, size, 100, &out, &out_size), CODEC_OK);
    assert_int_equal(out_size, 3);
    assert_string_equal(out, "abc");
    free(out);
    assert_int_equal(codec_decode(CODEC_GZIP, data, size, 2, &out, &out_size), CODEC_TOO_LARGE);
    data[sizeof first + second_size - 5] ^= 1; /* its checksum */
    assert_int_equal(codec_decode(CODEC_GZIP, data, size, 100, &out, &out_size), CODEC_CORRUPT);
    data[3] |= 0x20; /* reserved */
    assert_int_equal(codec_decode(CODEC_GZIP, data, size, 100, &out, &out_size), CODEC_CORRUPT);
    assert_true(codec_is_gzip(data, 3));
    assert_false(codec_is_gzip(data, 2));
    assert_false(codec_is_gzip("return {}", 9));
    free(second);
}

/* A gigabyte of zeroes in a megabyte: refused, with no more memory than the limit. */
static void test_codec_limit(void **state)
{
    size_t size = (size_t)100 << 20, packed_size, out_size = 0;
    char *zeroes = calloc(1, size), *packed, *out = NULL;
    (void)state;
    assert_non_null(zeroes);
    for (enum codec codec = CODEC_DEFLATE; codec <= CODEC_GZIP; codec++) {
        assert_int_equal(codec_encode(codec, zeroes, size, &packed, &packed_size), CODEC_OK);
        assert_int_equal(codec_decode(codec, packed, packed_size, CODEC_OUTPUT_MAX, &out, &out_size), CODEC_TOO_LARGE);
        assert_int_equal(codec_decode(codec, packed, packed_size, size - 1, &out, &out_size), CODEC_TOO_LARGE);
        assert_int_equal(codec_decode(codec, packed, packed_size, size, &out, &out_size), CODEC_OK);
        assert_int_equal(out_size, size);
        assert_memory_equal(out, zeroes, size);
        free(out);
        free(packed);
    }
    assert_int_equal(codec_decode(CODEC_NONE, "abc", 3, 2, &out, &out_size), CODEC_TOO_LARGE);
    assert_int_equal(codec_decode(CODEC_NONE, "abc", 3, 3, &out, &out_size), CODEC_OK);
    assert_string_equal(out, "abc");
    free(out);
    free(zeroes);
}

/* --- regex --- */

static void test_regex(void **state)
{
    (void)state;
    passes("local r = regex.compile('b+(c)?(d)?')\n"
           "local a, b = r:find('aabbcx') assert(a == 3 and b == 5)\n"
           "local m, c, d = r:match('aabbcx') assert(m == 'bbc' and c == 'c' and d == nil)\n"
           "assert(select('#', r:match('aabbcx')) == 3)\n"
           "assert(select('#', r:find('xyz')) == 0 and select('#', r:match('xyz')) == 0)\n"
           "assert(regex.find(r, 'b', 1) == 1 and r:find('b', 2) == nil)\n"
           "a, b = r:find('abab', 3) assert(a == 4 and b == 4)\n"
           "a = r:find('abab', -1) assert(a == 4)\n"
           "a = r:find('abab', -100) assert(a == 2)\n"
           "a = r:find('abab', 100) assert(a == nil)\n"
           "a, b = regex.compile('^x'):find('axx', 2) assert(a == 2)\n"
           "a, b = regex.compile('^$'):find('a\\n\\nb') assert(a == 3 and b == 2)\n"
           "a = regex.compile('ABC', regex.EXTENDED | regex.ICASE):find('xabc') assert(a == 2)\n"
           "a = regex.compile('a', regex.EXTENDED | regex.NOSUB):find('xa') assert(a == 2)\n"
           "a = regex.compile('a\\\\{2\\\\}', 0):find('xaa') assert(a == 2)");
    passes("local got = {}\n"
           "for m, g in regex.compile('([a-z])[0-9]*'):gmatch('a1b22c') do got[#got + 1] = m .. g end\n"
           "assert(table.concat(got, ',') == 'a1a,b22b,cc')\n"
           "local n = 0 for m in regex.compile('x*'):gmatch('axb') do n = n + 1 end\n"
           "assert(n == 4, n)\n"
           "assert(regex.EXTENDED == 1 and regex.ICASE == 2 and regex.NEWLINE == 4 and regex.NOSUB == 8)");
    raises("regex.compile('a(b')", "regex 'a(b': ");
    raises("regex.compile('a\\0b')", "string contains an embedded NUL byte");
    raises("regex.compile('a'):find('a\\0b')", "string contains an embedded NUL byte");
    raises("regex.compile()", "string expected");
    raises("regex.find('a', 'b')", "regex expected");
    raises("regex.compile(('(a)'):rep(80))", "it has more than 63 groups");
}

/* Bad syntax, misuse of the object, and arguments of wrong types. */
static void test_regex_misuse(void **state)
{
    (void)state;
    raises("regex.compile('[a')", "regex '[a': a bracket is malformed or not closed");
    raises("regex.compile('a**')", "regex 'a**': Invalid use of repetition operators");
    raises("regex.compile('a', 'x')", "bad argument #2 to 'compile' (number expected, got string)");
    raises("regex.compile('a'):find()", "string expected, got no value");
    raises("regex.compile('a'):find('a', {})", "number expected, got table");
    raises("regex.compile('a'):match({})", "string expected, got table");
    raises("regex.compile('a'):gmatch()", "string expected, got no value");
    raises("regex.match(io.stdout, 'b')", "regex expected, got FILE*");
    raises("local r = regex.compile('a') getmetatable(r).__gc(r) r:find('a')", "regex is closed");
    raises("local r = regex.compile('a') local f = r:gmatch('aa') getmetatable(r).__gc(r) f()", "regex is closed");
    raises("getmetatable(regex.compile('a')).__gc(io.stdout)", "regex expected, got FILE*");
    passes("assert(tostring(regex.compile('a')):find('^regex: '))\n"
           "assert(getmetatable(regex.compile('a')).__name == 'regex')\n"
           "local ok, e = pcall(regex.compile, ('x'):rep(100000)) assert(not ok and #e < 300 and e:find('%.%.%.'))\n"
           "assert(regex.compile(('(a)'):rep(63)):match(('a'):rep(63)))\n"
           "assert(select('#', regex.match(regex.compile('(a)|(b)'), 'b')) == 3)");
}

/* What would take exponential time elsewhere is linear here; what would take too much memory is refused. */
static void test_regex_pathological(void **state)
{
    (void)state;
    passes("local s = ('a'):rep(100000)\n"
           "assert(not regex.compile('(a*)*b'):find(s))\n"
           "assert(not regex.compile('(a|aa)+$'):find(s .. 'b'))\n"
           "assert(not regex.compile('(a?){30}(a*)*b'):find(s:sub(1, 10000)))\n"
           "assert(regex.compile('(x+x+)+y'):find(('x'):rep(5000) .. 'y') == 1)");
    passes("local r = regex.compile(('a?'):rep(300)) assert(r:find(('a'):rep(1000)))\n"
           "local ok, e = pcall(r.find, r, ('a'):rep(1000000))\n"
           "assert(not ok and e == 'string of 1000000 octets is too long for this regex', e)");
    raises("regex.compile('e\\\\\\\\)*')", "its parentheses do not match"); /* TRE would never end */
    raises("regex.compile('((a{200}){200}){200}')", "expand to too much");
    raises("regex.compile('(((a{1,99}){1,99}){1,99})')", "expand to too much");
    raises("regex.compile(('a?'):rep(2000))", "expand to too much");
    raises("regex.compile('(a|b)\\\\1')", "it has a back-reference");
    raises("regex.compile('(a|b)\\\\0')", "it has a back-reference");
    raises("regex.compile('\\\\(a\\\\)\\\\1', 0)", "it has a back-reference");
    raises("regex.compile(('x'):rep(9000))", "it is too long");
    raises("regex.compile(('(?:'):rep(500) .. 'a' .. (')'):rep(500))", "nested too deep");
}

static const char *judge(const char *pattern, unsigned flags, struct pattern_cost *cost)
{
    return pattern_judge(pattern, strlen(pattern), flags, cost);
}

static void test_pattern_judge(void **state)
{
    static const char *const fine[] = {
        "",      "a",     "a{3}",           "a{3,}",   "(a{10}){10}", "[{]{2}",   "\\{{2}", "a{255}",
        "a{,5}", "a{0}",  "[]a]",           "[^]a]",   "[a-]",        "[]-a]",    "a|",     "()",
        "(|a)*", "(a|)+", "\\x41",          "\\x{41}", "\\<a\\>",     "[\\]",     "{2}",    "(?:a)",
        "a+?",   "*",     "[[:alpha:]]{9}", "[[-z]",   "\\w+\\.x",    "a{1,2}{3}"};
    static const char *const costly[] = {"(a{150}){150}", "((a{30}){30}){30}", "(a|bcdefghijk){200}{200}",
                                         "a{10}{10}{10}{10}{10}", "((((a{99}){99})))*{3}",
                                         /* Brackets are as many characters as stand in them, and twice that without
                                          * regard to case; nothing at all is still a node. */
                                         "([acegikmoqsuwy]{99}){99}", "((()*){99}){99}", "((^){200}){200}",
                                         "(a?){255}{2}", "((a)?){255}", "(\\w{99}){99}",
                                         /* What looks like a bound must not hide what follows. */
                                         "[{](((a{99}){99}){99})", "\\{(((a{99}){99}){99})", "(((a{99}){99}){99})}"};
    static const char *const wrong[] = {"a{256}",
                                        "a{300,}",
                                        "a{4294967297}",
                                        "a{3,2}",
                                        "a{",
                                        "a{2",
                                        "a{x}",
                                        "a{,}",
                                        "a{}",
                                        "a{~3}",
                                        "a{1,2~3}",
                                        "a{+1,#2}",
                                        "{((a{99}){99}){99}}",
                                        "\\Q{\\E",
                                        "(?i)a",
                                        "(?#",
                                        "[a",
                                        "[[:alpha:",
                                        "[[:alpha:]",
                                        "[[:alpha:x]]",
                                        "[[.a.]]",
                                        "[[=a=]]",
                                        "[]",
                                        "[^",
                                        "\\",
                                        "\\x{0123456789abcdef0123456789abcdef0}",
                                        "\\x{41",
                                        "\\x{g}",
                                        "\\9",
                                        "\\0"};
    struct pattern_cost cost;
    (void)state;
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        if (judge(fine[i], PATTERN_EXTENDED, &cost)) fail_msg("%s is refused", fine[i]);
    for (size_t i = 0; i < sizeof costly / sizeof *costly; i++) {
        const char *why = judge(costly[i], PATTERN_EXTENDED, &cost);
        if (!why || !strstr(why, "expand to too much")) fail_msg("%s: %s", costly[i], why ? why : "allowed");
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (!judge(wrong[i], PATTERN_EXTENDED, &cost)) fail_msg("%s is allowed", wrong[i]);
}

/* In basic expressions the plain characters are literal and the escaped ones are not. */
static void test_pattern_basic(void **state)
{
    struct pattern_cost cost;
    (void)state;
    assert_null(judge("(a{99}){99}", 0, &cost));
    assert_null(judge("a|b+c?{2}", 0, &cost));
    assert_null(judge("\\(a\\{3\\}\\)\\{3,\\}", 0, &cost));
    assert_int_equal(cost.groups, 1);
    assert_non_null(judge("\\(\\(a\\{99\\}\\)\\{99\\}\\)\\{99\\}", 0, &cost));
    assert_non_null(judge("a\\{2}", 0, &cost));
    assert_non_null(judge("\\(\\{2\\}\\)", 0, &cost)); /* characters for TRE: it must not count as nothing */
    assert_non_null(judge("\\{2\\}", 0, &cost));
    assert_non_null(judge("a\\{2\\", 0, &cost));
    assert_non_null(judge("\\\\(a\\)", 0, &cost));
}

/* The estimates of known patterns: positions, transitions. */
static void test_pattern_cost(void **state)
{
    struct pattern_cost few, many;
    (void)state;
    assert_null(judge("abc", PATTERN_EXTENDED, &few));
    assert_int_equal(few.nodes, 5); /* three characters, two that join them */
    assert_int_equal(few.moves, 2 + 5);
    assert_null(judge("abc", PATTERN_EXTENDED | PATTERN_ICASE, &many));
    assert_int_equal(many.nodes, 3 * 3 + 2);
    assert_int_equal(many.moves, 2 * 4 + 11);
    assert_null(judge("(abc){4}", PATTERN_EXTENDED, &many));
    assert_true(many.nodes >= 4 * few.nodes);
    assert_int_equal(many.groups, 1);
    assert_null(judge("a*a*a*a*a*a*a*a*a*", 0, &few));
    assert_null(judge("a*?a*?a*?a*?a*?a*?a*?a*?a*?", 0, &many));
    assert_true(many.steps > few.steps); /* lazy repeats have tags */
    assert_int_equal(many.nodes, few.nodes);
    assert_null(judge("a?a?a?a?a?a?a?a?", PATTERN_EXTENDED, &many));
    assert_true(many.moves - many.nodes == 8 * 7 / 2); /* each to each behind it */
}

/* What each way of building a pattern adds, by hand from the rules in pattern.c: nodes, steps, and moves without nodes.
 */
static void test_pattern_sums(void **state)
{
    static const struct {
        const char *pattern;
        uint32_t nodes, steps, moves;
    } cases[] = {
        {"a", 1, 2, 0},      {"ab", 3, 6, 1},        {"a|b", 3, 9, 0},  {"a?", 2, 3, 0},   {"a*", 2, 4, 1},
        {"a+", 2, 4, 1},     {"a?b", 4, 9, 1},       {"ab?", 4, 9, 1},  {"(a)", 5, 10, 0}, {"(a)(b)", 11, 22, 1},
        {"[ab]", 5, 10, 0},  {"[ab]c", 7, 16, 3},    {"a{2}", 3, 6, 1}, {"a{0}", 1, 1, 0}, {"a{1,2}", 4, 9, 1},
        {"a{1,}", 4, 10, 2}, {"(?:a|b)c", 5, 14, 2}, {"", 1, 1, 0},     {"^", 1, 1, 0},
    };
    struct pattern_cost cost;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_null(judge(cases[i].pattern, PATTERN_EXTENDED, &cost));
        if (cost.nodes != cases[i].nodes || cost.steps != cases[i].steps || cost.moves - cost.nodes != cases[i].moves)
            fail_msg("%s: %u %u %u", cases[i].pattern, cost.nodes, cost.steps, cost.moves - cost.nodes);
    }
}

/* --- time --- */

static void test_time(void **state)
{
    (void)state;
    passes("for _, n in ipairs{'monotonic', 'process', 'thread', 'unix', 'wall'} do\n"
           "  local a = time[n]() local b = time[n]()\n"
           "  assert(math.type(a) == 'float' and a >= 0 and b >= a, n)\n"
           "end\n"
           "assert(math.abs(time.unix() - os.time()) < 5)\n"
           "local t, a, b, c = time.measure(function(x, y) return x + y, nil, 'z' end, 1, 2)\n"
           "assert(t >= 0 and t < 5 and a == 3 and b == nil and c == 'z')\n"
           "assert(select('#', time.measure(function() end)) == 1)\n"
           "local co = coroutine.wrap(function() return time.measure(coroutine.yield, 7) end)\n"
           "assert(co() == 7) local t, v = co('back') assert(v == 'back')");
    raises("time.measure()", "value expected");
    raises("time.measure(1)", "attempt to call a number value");
}

/* --- marshal --- */

static void test_marshal(void **state)
{
    (void)state;
    passes("local function is(text, ...) local got = marshal(...) assert(got == text, got) end\n"
           "is('')\n"
           "is('nil', nil) is('true,false', true, false)\n"
           "is('true,\"ok\",1,nil,{1,2,[\"a\"]=3,},nil', true, 'ok', 1, nil, {1, 2, a = 3}, nil)\n"
           "is('0', 0) is('-1', -1) is('999999999999', 999999999999) is('0xe8d4a51000', 1000000000000)\n"
           "is('-0xe8d4a51000', -1000000000000) is('0x8000000000000000', math.mininteger)\n"
           "is('0x7fffffffffffffff', math.maxinteger)\n"
           "is('0x1p+0', 1.0) is('-0x1.8p+1', -3.0) is('0', 0.0) is('-0.0', -0.0)\n"
           "is('1/0', 1/0) is('-1/0', -1/0) is('0/0', 0/0)\n"
           "is('\"a\\\\\\\\\\\\\"\\\\\\nb\\\\000\\\\009\\\\127\\255\"', 'a\\\\\"\\nb\\0\\t\\127\\255')\n"
           "is('{}', {}) is('{{},}', {{}}) is('{1,2,}', {1, 2})\n"
           "local shared = {} is('{{},{},}', {shared, shared})\n"
           "is('{[2]=1,}', {[2] = 1}) is('{[0x1.8p+0]=1,}', {[1.5] = 1})");
    raises("marshal(print)", "is not marshallable");
    raises("marshal({ { coroutine.create(print) } })", "is not marshallable");
    raises("local t = {} t[1] = t marshal(t)", "circular referenced table is not marshallable");
    passes("local t = {} for i = 2, 196 do t = {t} end assert(#marshal(t) > 300)");
    raises("local t = {} for i = 1, 400 do t = {t} end marshal(t)", "C stack overflow");
    passes("local big = {} for i = 1, 20000 do big[i] = 'item' .. i end\n"
           "local back = load('return ' .. marshal(big))() assert(#back == 20000 and back[777] == 'item777')");
}

static char warned[128];

static void note_warning(void *ud, const char *message, int continued)
{
    (void)ud;
    (void)continued;
    snprintf(warned, sizeof warned, "%s", message);
}

/* What a table's metatable says does not count, in either direction. */
static void test_marshal_metatables(void **state)
{
    (void)state;
    lua_setwarnf(L, note_warning, NULL);
    warned[0] = '\0';
    passes("assert(marshal({1}) == '{1,}')");
    assert_string_equal(warned, "");
    passes("local t = setmetatable({1}, {__index = {2, 3}, __len = error, __pairs = error, __tostring = error})\n"
           "assert(marshal(t) == '{1,}')");
    assert_string_equal(warned, "marshal: a metatable is ignored");
    raises("marshal(setmetatable({io.stdout}, {}))", "is not marshallable");
    lua_setwarnf(L, NULL, NULL);
}

/* The texts of errors as a whole, without a place in front: the function is one of C. */
static void test_marshal_errors(void **state)
{
    (void)state;
    passes("local function fails(expected, ...)\n"
           "  local ok, e = pcall(marshal, ...) assert(not ok and e == expected, e)\n"
           "end\n"
           "local co = coroutine.create(print)\n"
           "fails(tostring(print) .. ' is not marshallable', print)\n"
           "fails(tostring(co) .. ' is not marshallable', {{1, x = co}})\n"
           "fails(tostring(io.stdout) .. ' is not marshallable', {[io.stdout] = 1})\n"
           "local t = {} t.x = {{t}} fails('circular referenced table is not marshallable', t)\n"
           "t = {} t[t] = 1 fails('circular referenced table is not marshallable', t)\n"
           "t = {} for i = 2, 196 do t = {t} end assert(marshal(t) == ('{'):rep(196) .. '}' .. (',}'):rep(195))\n"
           "fails('C stack overflow', {t})\n"
           "local function failed(f, s, expected) local ok, e = pcall(f, s) assert(not ok and e == expected, e) end\n"
           "failed(zlib.uncompress, 'no zlib', 'uncompress error: -1')\n"
           "failed(zlib.gunzip, 'no gzip', 'gunzip error: -1')\n"
           "failed(regex.compile, 'a\\0b', 'string contains an embedded NUL byte')");
}

static int count_decoded_of(const char *text, size_t size)
{
    lua_settop(L, 0);
    return marshal_decode(L, text, size);
}

static int count_decoded(const char *text)
{
    return count_decoded_of(text, strlen(text));
}

static void decodes(const char *text, int count, const char *check)
{
    int got = count_decoded(text);
    if (got != count) fail_msg("%s: %d (%s)", text, got, got < 0 ? lua_tostring(L, -1) : "");
    assert_int_equal(lua_gettop(L), count < 0 ? 1 : count);
    if (!check) return;
    char code[512];
    snprintf(code, sizeof code, "local a, b, c, d = ... assert(%s, '%s')", check, "differs");
    assert_int_equal(luaL_loadstring(L, code), LUA_OK);
    lua_insert(L, 1);
    if (lua_pcall(L, count, 0, 0) != LUA_OK) fail_msg("%s: not %s", text, check);
}

static void test_decode(void **state)
{
    (void)state;
    decodes("", 0, NULL);
    decodes("return", 0, NULL);
    decodes(" return true ; ", 1, "a == true");
    decodes("return true,\"ok\",1,nil", 4, "a == true and b == 'ok' and c == 1 and d == nil");
    decodes("nil", 1, "a == nil");
    decodes("return {1,2,[\"a\"]=3,}", 1, "a[1] == 1 and a[2] == 2 and a.a == 3");
    decodes("{x = 1; ['y'] = {2}, 3}", 1, "a.x == 1 and a.y[1] == 2 and a[1] == 3");
    decodes("{nil, 2}", 1, "a[1] == nil and a[2] == 2");
    decodes("0x10,-0x1p4,-7,1e3", 4, "a == 16 and b == -16.0 and c == -7 and d == 1000.0");
    decodes("0x8000000000000000, -0xe8d4a51000", 2, "a == math.mininteger and b == -1000000000000");
    decodes("1/0, -1/0, 0/0, - 3", 4, "a == math.huge and b == -math.huge and c ~= c and d == -3");
    decodes("-0.0", 1, "1 / a == -math.huge");
    decodes("'a\\tb\\x41\\u{20ac}\\z   c\\065\\\nd'", 1, "a == 'a\\tbA\\u{20ac}cA\\nd'");
    decodes("[[long]], [==[a]]b]==], [[\nline]]", 3, "a == 'long' and b == 'a]]b' and c == 'line'");
    decodes("[[\r\na\r\nb\rc\n\nd]], [[\n\re]], 'x\\\r\ny', [==[]]]=]]==]", 4,
            "a == 'a\\nb\\nc\\n\\nd' and b == 'e' and c == 'x\\ny' and d == ']]]=]'");
    decodes("1 -- one\r, 2", 2, "b == 2");
    decodes("'\\u{0}\\u{7f}\\u{80}\\u{7ff}\\u{800}\\u{10FFFF}\\u{7FFFFFFF}'", 1,
            "a == utf8.char(0, 0x7f, 0x80, 0x7ff, 0x800, 0x10ffff, 0x7fffffff)");
    decodes("9223372036854775807, -9223372036854775808, 0xffffffffffffffffff, .5", 4,
            "a == math.maxinteger and b == -2^63 and math.type(b) == 'float' and c == -1 and d == 0.5");
    decodes("0x.8p1, 3., 0xA.8, 1E-2", 4, "a == 1.0 and b == 3.0 and c == 10.5 and d == 0.01");
    decodes("{[1]='x',[-1]='y',[true]='z',[1.5]='w',nil_=1,_a1=2}", 1,
            "a[1] == 'x' and a[-1] == 'y' and a[true] == 'z' and a[1.5] == 'w' and a.nil_ == 1 and a._a1 == 2");
    decodes("return--[==[]]]==]{--x\n[ [[k]] ]--\n=--\n1--\n;--\n}--\n;--", 1, "a.k == 1");
    decodes("1 --[[ a\ncomment ]] , -- another\n 2", 2, "a == 1 and b == 2");
    decodes("{[{1}]=2}", 1, "next(a)[1] == 1");
}

/* Whatever is no literal is a message, and nothing of it runs. */
static void test_decode_refuses(void **state)
{
    static const char *const bad[] = {"os.exit(1)",
                                      "return os.exit(1)",
                                      "return f()",
                                      "(1)",
                                      "1 + 1",
                                      "return 1 2",
                                      "1,",
                                      "function() end",
                                      "{1",
                                      "{[nil]=1}",
                                      "{[0/0]=1}",
                                      "{a=}",
                                      "'x",
                                      "'x\n'",
                                      "'\\q'",
                                      "'\\300'",
                                      "'\\xg0'",
                                      "'\\u{110000000}'",
                                      "\"a\" .. \"b\"",
                                      "2/0",
                                      "1/1",
                                      "0/00",
                                      "#{}",
                                      "not true",
                                      "-",
                                      "- 'x'",
                                      "1e",
                                      "0x",
                                      "nilx",
                                      "returntrue",
                                      "[[x",
                                      "--[[x",
                                      "{x==1}",
                                      "goto x",
                                      "return return 1",
                                      "a",
                                      "_ENV",
                                      "...",
                                      "1;2",
                                      "1 / 0x0"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (count_decoded(bad[i]) != -1) fail_msg("%s was read", bad[i]);
    assert_int_equal(count_decoded_of("'\\\0'", 4), -1); /* an escape that is the octet 0 */
    assert_int_equal(count_decoded_of("'\0'", 3), 1);
    char deep[1001];
    memset(deep, '{', 1000);
    deep[1000] = '\0';
    assert_int_equal(count_decoded(deep), -1);
    assert_string_equal(lua_tostring(L, -1) + strlen("at octet 201: "), "tables are nested too deep");
}

/* Room on the stack is bounded: an answer of more values than that is refused, not raised. */
static void test_decode_many(void **state)
{
    size_t count = 1100000;
    char *text = malloc(2 * count);
    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < count; i++) memcpy(text + 2 * i, "1,", 2);
    lua_settop(L, 0);
    assert_int_equal(marshal_decode(L, text, 2 * count - 1), -1);
    assert_int_equal(lua_gettop(L), 1);
    assert_non_null(strstr(lua_tostring(L, 1), "too many values"));
    lua_settop(L, 0);
    assert_int_equal(marshal_decode(L, text, 2 * 100000 - 1), 100000);
    lua_settop(L, 0);
    text[0] = '{';
    text[2 * count - 1] = '}';
    text[1] = ' ';
    assert_int_equal(marshal_decode(L, text, 2 * count), 1);
    assert_int_equal(lua_rawlen(L, 1), count - 1);
    lua_settop(L, 0);
    free(text);
}

/* What every beginning of a text is: refused or read, but never looked at behind its end. */
static void test_decode_prefixes(void **state)
{
    static const char text[] =
        "return {1,-0x1.8p+1,[\"a\\065\\x41\\u{41}\\z \"]={nil,true},x='\\\n',[ [=[k]=] ]=1/0,--[[c]]\n},0/0;";
    (void)state;
    for (size_t n = 0; n < sizeof text; n++) {
        uint8_t *copy = support_guard(text, n);
        lua_settop(L, 0);
        int count = marshal_decode(L, (const char *)copy, n);
        assert_int_equal(lua_gettop(L), count < 0 ? 1 : count);
        support_unguard(copy, n);
    }
    assert_int_equal(count_decoded(text), 2);
    lua_settop(L, 0);
}

/* Random values there and back, by our reader and by Lua's compiler. */
static int compare_back(lua_State *state)
{
    size_t size;
    marshal_encode(state, 1);
    const char *text = lua_tolstring(state, -1, &size);
    int count = marshal_decode(state, text, size);
    if (count < 0) return lua_error(state);
    lua_pushinteger(state, count);
    lua_insert(state, -count - 1);
    return count + 1;
}

static void test_round_trips(void **state)
{
    (void)state;
    lua_register(L, "back", compare_back);
    passes("math.randomseed(7)\n"
           "local function value(depth)\n"
           "  local k = math.random(depth > 3 and 5 or 7)\n"
           "  if k == 1 then return math.random(0)\n"
           "  elseif k == 2 then return (math.random() - 0.5) * 10 ^ math.random(-300, 300)\n"
           "  elseif k == 3 then return math.random(2) == 1\n"
           "  elseif k == 4 then local s = {} for i = 1, math.random(0, 40) do s[i] = string.char(math.random(0, 255)) "
           "end\n"
           "    return table.concat(s)\n"
           "  elseif k == 5 then return math.random(-100, 100) end\n"
           "  local t = {}\n"
           "  for i = 1, math.random(0, 5) do t[i] = value(depth + 1) end\n"
           "  for i = 1, math.random(0, 3) do t['k' .. i] = value(depth + 1) end\n"
           "  return t\n"
           "end\n"
           "local function same(a, b)\n"
           "  if type(a) ~= 'table' then return a == b and math.type(a) == math.type(b) end\n"
           "  for k, v in pairs(a) do if not same(v, b[k]) then return false end end\n"
           "  for k in pairs(b) do if a[k] == nil then return false end end\n"
           "  return true\n"
           "end\n"
           "for i = 1, 2000 do\n"
           "  local v = value(0)\n"
           "  local n, w = back(v) assert(n == 1 and same(v, w), i)\n"
           "  assert(same(v, load('return ' .. marshal(v))()), i)\n"
           "end");
}

/* --- the n-th allocation fails --- */

static long allocations_left;

static void *failing_allocator(void *ud, void *block, size_t old, size_t size)
{
    (void)ud;
    (void)old;
    if (size == 0) {
        free(block);
        return NULL;
    }
    if (allocations_left-- <= 0) return NULL;
    return realloc(block, size);
}

/* Reads what the first argument says.                                                                [-1, +n, e] */
static int decode_argument(lua_State *state)
{
    size_t size;
    const char *text = luaL_checklstring(state, 1, &size);
    int count = marshal_decode(state, text, size);
    return count < 0 ? lua_error(state) : count;
}

/* Runs the chunk with n allocations at most, for every n until it gets through: it fails for want of memory, or not at
 * all, and leaves nothing behind that the sanitizers would find. */
static void survives(const char *code)
{
    bool done = false;
    long n = 0;
    allocations_left = LONG_MAX;
    lua_State *small = lua_newstate(failing_allocator, NULL);
    assert_non_null(small);
    open_modules(small);
    lua_register(small, "decode", decode_argument);
    for (; !done && n < 20000; n++) {
        lua_settop(small, 0);
        lua_gc(small, LUA_GCCOLLECT, 0);
        assert_int_equal(luaL_loadstring(small, code), LUA_OK);
        allocations_left = n;
        int status = lua_pcall(small, 0, 0, 0);
        allocations_left = LONG_MAX;
        done = status == LUA_OK;
        if (!done && !strstr(lua_tostring(small, -1), "memory") && !strstr(lua_tostring(small, -1), "too many values"))
            fail_msg("%s: %s", code, lua_tostring(small, -1));
    }
    assert_true(done);
    assert_true(n > 0);
    lua_close(small);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    survives("local r = regex.compile('(a+)(b)?') r:match('xaab') for m in r:gmatch('aab ab') do end "
             "assert(r:find('a') == 1) assert(not pcall(regex.compile, ('('):rep(99)))");
    survives("local t = {1, 'two', {x = ('y'):rep(300), [1.5] = {{{}}}}} for i = 1, 300 do t[i] = 'item' .. i end "
             "assert(#marshal(t, t, t) > 3000)");
    survives(
        "local a, b = decode(\"return {1,'two',[3]={x=[[\" .. ('y'):rep(3000) .. \"]]},},'\" .. ('z'):rep(3000) .. "
        "\"'\") assert(a[1] == 1 and #b == 3000)");
    survives("local s = ('some text'):rep(1000) assert(zlib.gunzip(zlib.gzip(s)) == s)");
    survives("local s = ('some text'):rep(1000) assert(zlib.uncompress(zlib.compress(s)) == s)");
}

/* Of what modules leave in a state's memory nothing is left when the text is: the buffer of a large one is not kept. */
static void test_marshal_garbage(void **state)
{
    (void)state;
    passes("local t = {} for i = 1, 1000 do t[i] = ('x'):rep(1000) end\n"
           "collectgarbage() collectgarbage() local before, most = collectgarbage('count'), 0\n"
           "for i = 1, 200 do assert(#marshal(t) > 1000000) most = math.max(most, collectgarbage('count')) end\n"
           "assert(most - before < 32 * 1024, most)\n"
           "collectgarbage() assert(collectgarbage('count') - before < 64)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zlib),
        cmocka_unit_test(test_zlib_damage),
        cmocka_unit_test(test_gzip_header_that_is_wrong),
        cmocka_unit_test(test_zlib_headers),
        cmocka_unit_test(test_gzip_members),
        cmocka_unit_test(test_gzip_long_extra),
        cmocka_unit_test(test_codec_limit),
        cmocka_unit_test(test_regex),
        cmocka_unit_test(test_regex_misuse),
        cmocka_unit_test(test_regex_pathological),
        cmocka_unit_test(test_pattern_judge),
        cmocka_unit_test(test_pattern_basic),
        cmocka_unit_test(test_pattern_cost),
        cmocka_unit_test(test_pattern_sums),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_marshal),
        cmocka_unit_test(test_marshal_metatables),
        cmocka_unit_test(test_marshal_errors),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_decode_refuses),
        cmocka_unit_test(test_decode_many),
        cmocka_unit_test(test_decode_prefixes),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_marshal_garbage),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
