/* string.find, match, gmatch, gsub and rep: the same as Lua's own on a million random cases, and within the time
 * budget. CASES in the environment is another number of them, SEED another sequence. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua/engine/limits.h"
#include "lua/engine/standard.h"
#include "tests/support.h"

#ifdef __has_feature
#define SANITIZED __has_feature(address_sanitizer)
#else
#define SANITIZED 0
#endif

enum { CASES = SANITIZED ? 50000 : 1000000, TEXT_MAX = 64 };

static struct limits limits;
static lua_State *lua;
static const char *const names[] = {"find", "match", "gmatch", "gsub", "rep"};
enum { FIND, MATCH, GMATCH, GSUB, REP, FUNCTIONS };

/* Lua's own functions stand in the registry under their names. */
static int open_state(void **state)
{
    (void)state;
    limits = (struct limits){.whole = &limits, .budget_ms = 1000 * support_slow()};
    limits_watch_open();
    lua = lua_newstate(limits_allocate, &limits);
    if (!lua) return -1;
    luaL_openlibs(lua);
    lua_getglobal(lua, "string");
    for (int i = 0; i < FUNCTIONS; i++) {
        lua_getfield(lua, -1, names[i]);
        lua_setfield(lua, LUA_REGISTRYINDEX, names[i]);
    }
    lua_pop(lua, 1);
    strings_open(lua);
    return 0;
}

static int close_state(void **state)
{
    (void)state;
    lua_close(lua);
    limits_watch_close();
    return 0;
}

/* --- random cases --- */

static uint64_t seed;

static uint32_t below(uint32_t end)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % end;
}

struct text {
    char octets[TEXT_MAX];
    size_t size;
};

static void add(struct text *t, const char *what, size_t size)
{
    if (TEXT_MAX - t->size < size) return;
    memcpy(t->octets + t->size, what, size);
    t->size += size;
}

static void make_subject(struct text *t)
{
    static const char common[] = "ab1 .", rare[] = "aAbBzZ019_ \t\n.,%-()[]^$*+?\0\x7f\x80\xff";
    t->size = 0;
    bool plain = below(3) > 0;
    for (uint32_t left = below(24); left > 0; left--)
        add(t, plain ? &common[below(5)] : &rare[below(sizeof rare - 1)], 1);
}

static void make_pattern(struct text *t)
{
    static const char *const parts[] = {
        "a",    "b",     "1",     ".",     ".",     "%a",     "%A",     "%d",    "%D",     "%s",  "%S", "%w",
        "%W",   "%l",    "%u",    "%p",    "%P",    "%c",     "%C",     "%x",    "%X",     "%g",  "%G", "%.",
        "%%",   "%-",    "%(",    "%z",    "[ab]",  "[^a]",   "[a-z]",  "[^%s]", "[%a_-]", "[]]", " ",  "[^]a]",
        "[a-]", "[%]b]", "[1-b]", "[%d.]", "[b-a]", "[a%-z]", "[a-%z]", "(",     ")",      "()",  "^",  "$",
        "%1",   "%2",    "%0",    "%b()",  "%bab",  "%b",     "%f[%w]", "%f",    "%f[^a]", "[",   "%",  "]",
        "-",    "(a*)",  "(.-)",  "(.)",   "(b)%1", "(%w+)",  "(a",     "b)",    "[^",     "[]",  "[%", "Z",
    };
    static const char repeats[] = "*+-?";
    t->size = 0;
    if (below(6) == 0) add(t, "^", 1);
    for (uint32_t left = below(7); left > 0; left--) {
        const char *part = parts[below(below(2) == 0 ? 24 : sizeof parts / sizeof *parts)];
        add(t, part, strlen(part));
        if (below(3) == 0) add(t, &repeats[below(4)], 1);
        if (below(200) == 0) add(t, "\0", 1);
    }
    if (below(6) == 0) add(t, "$", 1);
}

static void push_start(void)
{
    if (below(2) == 0)
        lua_pushnil(lua);
    else
        lua_pushinteger(lua, (lua_Integer)below(60) - 30);
}

static int replace_function(lua_State *L)
{
    if (lua_rawlen(L, 1) % 3 == 0) return 0;
    if (lua_gettop(L) == 2) lua_pushinteger(L, 42);
    return 1;
}

static void push_replacement(void)
{
    static const char *const texts[] = {"", "x", "<%0>", "%1", "%2%1", "%%", "%", "%x", "a%", "%9", "%1%0%1"};
    switch (below(8)) {
    case 0: lua_pushcfunction(lua, replace_function); return;
    case 1:
        lua_createtable(lua, 0, 2);
        lua_pushliteral(lua, "[A]");
        lua_setfield(lua, -2, "a");
        lua_pushboolean(lua, below(2) == 0); /* true is no replacement */
        lua_setfield(lua, -2, "b");
        return;
    case 2: lua_pushinteger(lua, below(100)); return;
    case 3: lua_pushnumber(lua, 0.5); return;
    default: lua_pushstring(lua, texts[below(sizeof texts / sizeof *texts)]); return;
    }
}

/* Pushes the arguments; their number. */
static int push_case(int function)
{
    struct text subject, pattern;
    make_subject(&subject);
    make_pattern(&pattern);
    lua_pushlstring(lua, subject.octets, subject.size);
    if (function == REP) {
        lua_pushinteger(lua, (lua_Integer)below(20) - 2);
        lua_pushlstring(lua, pattern.octets, below(2) ? pattern.size : 0);
        return 3;
    }
    lua_pushlstring(lua, pattern.octets, pattern.size);
    if (function == GSUB) {
        push_replacement();
        if (below(3) == 0)
            lua_pushinteger(lua, (lua_Integer)below(6) - 1);
        else
            lua_pushnil(lua);
        return 4;
    }
    push_start();
    if (function != FIND) return 3;
    lua_pushboolean(lua, below(8) == 0);
    return 4;
}

/* --- running them --- */

/* All that an iterator gives, in one table: argument 1. */
static int walk_all(lua_State *L)
{
    lua_Integer count = 0;
    lua_newtable(L);
    for (;;) {
        lua_settop(L, 2);
        lua_pushvalue(L, 1);
        lua_call(L, 0, LUA_MULTRET);
        int results = lua_gettop(L) - 2;
        if (results == 0 || lua_isnil(L, 3)) return 1;
        lua_pushinteger(L, results);
        lua_insert(L, 3);
        for (int i = results + 1; i > 0; i--) lua_rawseti(L, 2, count + i);
        count += results + 1;
    }
}

/* On the stack: function, `arguments` values. Leaves status and results above `top`. */
static int call(int top, int arguments, bool walk)
{
    int status = lua_pcall(lua, arguments, LUA_MULTRET, 0);
    if (status != LUA_OK || !walk) return status;
    lua_pushcfunction(lua, walk_all);
    lua_insert(lua, top + 1);
    return lua_pcall(lua, lua_gettop(lua) - top - 1, LUA_MULTRET, 0);
}

static bool same_value(int a, int b)
{
    if (lua_type(lua, a) != lua_type(lua, b)) return false;
    if (lua_type(lua, a) != LUA_TTABLE)
        return lua_rawequal(lua, a, b) && lua_isinteger(lua, a) == lua_isinteger(lua, b);
    if (lua_rawlen(lua, a) != lua_rawlen(lua, b)) return false;
    for (lua_Integer i = (lua_Integer)lua_rawlen(lua, a); i > 0; i--) {
        lua_rawgeti(lua, a, i);
        lua_rawgeti(lua, b, i);
        bool same = same_value(lua_gettop(lua) - 1, lua_gettop(lua));
        lua_pop(lua, 2);
        if (!same) return false;
    }
    return true;
}

static void print_values(const char *what, int first, int last)
{
    print_message("%s:", what);
    for (int i = first; i <= last; i++) {
        print_message(" %s", luaL_tolstring(lua, i, NULL));
        lua_pop(lua, 1);
    }
    print_message("\n");
}

/* Arguments are at 1 to `count`. */
static void compare(int function, int count, uint64_t number)
{
    lua_getfield(lua, LUA_REGISTRYINDEX, names[function]);
    for (int i = 1; i <= count; i++) lua_pushvalue(lua, i);
    int stock = call(count, count, function == GMATCH), middle = lua_gettop(lua);
    lua_getglobal(lua, "string");
    lua_getfield(lua, -1, names[function]);
    lua_remove(lua, -2);
    for (int i = 1; i <= count; i++) lua_pushvalue(lua, i);
    int ours = call(middle, count, function == GMATCH), top = lua_gettop(lua);
    bool same = stock == ours && top - middle == middle - count;
    for (int i = count + 1; same && i <= middle; i++) same = same_value(i, i + middle - count);
    if (!same) {
        print_values("arguments", 1, count);
        print_values("Lua's own", count + 1, middle);
        print_values("ours", middle + 1, top);
        fail_msg("string.%s differs in case %llu", names[function], (unsigned long long)number);
    }
    lua_settop(lua, 0);
}

static void test_same_as_stock(void **state)
{
    const char *cases = getenv("CASES"), *first = getenv("SEED");
    uint64_t count = cases ? strtoull(cases, NULL, 10) : CASES;
    (void)state;
    seed = first ? strtoull(first, NULL, 10) : 1;
    for (uint64_t i = 0; i < count; i++) {
        int function = below(20) == 0 ? REP : (int)below(REP);
        compare(function, push_case(function), i);
    }
}

/* --- what random cases do not reach --- */

static void runs(const char *code)
{
    if (luaL_dostring(lua, code) != LUA_OK) fail_msg("%s\n%s", lua_tostring(lua, -1), code);
    lua_settop(lua, 0);
}

static void raises(const char *code, const char *part)
{
    if (luaL_dostring(lua, code) == LUA_OK) fail_msg("no error: %s", code);
    if (!strstr(lua_tostring(lua, -1), part)) fail_msg("%s\ninstead of %s: %s", lua_tostring(lua, -1), part, code);
    lua_settop(lua, 0);
}

static void test_edges(void **state)
{
    (void)state;
    raises("return ('a'):rep(300):find(('a?'):rep(300))", "pattern too complex");
    raises("return ('a'):find(('('):rep(33))", "too many captures");
    raises("return ('a'):match(('()'):rep(33))", "too many captures");
    raises("return ('xx'):rep(1 << 62)", "too large");
    raises("return ('x'):rep(1 << 40, ('y'):rep(1 << 24))", "too large");
    raises("return string.find()", "bad argument #1 to 'find'");
    raises("return string.gsub('a', 'b')", "bad argument #3 to 'gsub' (string/function/table expected, got no value)");
    runs("assert(('a'):rep(5, ', ') == 'a, a, a, a, a' and (''):rep(4, '-') == '---' and (''):rep(1 << 60) == '')");
    runs("assert(string.rep(123, 2) == '123123')");
}

/* Every octet of every class, alone and in a set. */
static void test_classes(void **state)
{
    (void)state;
    lua_newtable(lua);
    for (int i = 0; i < 2; i++) {
        lua_getfield(lua, LUA_REGISTRYINDEX, names[i]);
        lua_setfield(lua, -2, names[i]);
    }
    lua_setglobal(lua, "stock");
    runs("for class = 1, 255 do for octet = 0, 255 do\n"
         "    local s, p = string.char(octet), '%' .. string.char(class)\n"
         "    if not p:find('[%dbf]') then\n"
         "        assert(s:find(p) == stock.find(s, p), p)\n"
         "        assert(s:find('[' .. p .. ']') == stock.find(s, '[' .. p .. ']'), p)\n"
         "        assert(s:find('[^' .. p .. 'a]') == stock.find(s, '[^' .. p .. 'a]'), p)\n"
         "    end\n"
         "end end");
}

/* --- the budget --- */

static void exceeds(const char *code)
{
    limits.budget_ms = 50;
    limits_enter(&limits, limits_now_ns());
    raises(code, "time budget of 50 ms exceeded");
    limits_leave(&limits);
}

/* Without a budget each of these takes from many minutes to for ever. */
static void test_budget(void **state)
{
    (void)state;
    exceeds("return ('a'):rep(250):find('.-.-.-.-.-b')");
    exceeds("return ('a'):rep(250):match('(a*)(a*)(a*)(a*)(a*)(a*)b')");
    exceeds("for _ in ('a'):rep(250):gmatch('.-.-.-.-.-.-b') do end");
    exceeds("return ('a'):rep(250):gsub('a*a*a*a*a*a*a*b', '')");
    exceeds("return ('a'):rep(30):find(('a?'):rep(30) .. ('a'):rep(30) .. 'b')");
    exceeds("return ('('):rep(1 << 20):gsub('%b()', '')");
    exceeds("return ('a'):rep(1 << 20):find('[^b-z]*[^a]')");
    exceeds("return ('ab'):rep(1 << 20):find('(.*)%1c')");
    exceeds("return ('a'):rep(1 << 20):gsub('()', '%1', 1 << 40):rep(1000):find('.-.-x')");
    limits_enter(&limits, limits_now_ns()); /* each entry begins anew */
    runs("assert(('example.com:443'):match('^(.-):(%d+)$') == 'example.com')");
    limits_leave(&limits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_stock),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_budget),
    };
    return cmocka_run_group_tests(tests, open_state, close_state);
}
