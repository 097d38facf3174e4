/* What the engine does with sources, questions and calls, and within what limits. */
#include "lua/engine/limits.h"
#include "tests/engine_asked.h"

/* --- loading --- */

static void test_update(void **state)
{
    struct ask a;
    (void)state;
    assert_false(engine_has_ruleset(engine));
    assert_int_equal(engine_revision(engine), 0);
    install("\xef\xbb\xbf#!/usr/bin/lua\nassert(... == 'ruleset') return { resolve = function(a) return a end }");
    assert_true(engine_has_ruleset(engine));
    uint32_t revision = engine_revision(engine);
    assert_true(revision > 0);
    update_fails(NULL, "return 1", 8, "ruleset: expected table, got number");
    update_fails(NULL, "", 0, "ruleset: expected table, got nil");
    update_fails(NULL, "x =", 3, "ruleset:1: unexpected symbol near <eof>");
    update_fails(NULL, "\n\nerror('no')", 13, "ruleset:3: no");
    update_fails(NULL, "#!\n\nerror('no')", 15, "ruleset:3: no");
    update_fails(NULL, "\033Lua", 4, "attempt to load a binary chunk (mode is 't')");
    assert_int_equal(engine_revision(engine), revision);
    ask(&a, "a.b:1", 0); /* the old one is still there */
    assert_string_equal(verdict(&a), "dial a.b:1");
    install("return {}");
    assert_true(engine_revision(engine) > revision);
}

static void update_module(const char *module, const char *code)
{
    assert_int_equal(engine_update(engine, module, NULL, code, strlen(code), NULL), 0);
}

static void test_update_module(void **state)
{
    struct engine_text error = {0};
    (void)state;
    update_module("m", "assert(... == 'm') a_global = 1");
    assert_false(engine_has_ruleset(engine));
    run("assert(package.loaded.m == true and m == nil and a_global == 1)");
    update_module("m", "return {1}");
    run("assert(package.loaded.m[1] == 1 and m == nil) _G.m = package.loaded.m");
    update_module("m", "return {2}");
    run("assert(package.loaded.m[1] == 2 and m == package.loaded.m) _G.m = {3}");
    update_module("m", "return {4}");
    run("assert(package.loaded.m[1] == 4 and m[1] == 3)");
    update_fails("m", "error('no')", 11, "m:1: no");
    run("assert(package.loaded.m[1] == 4)");
    assert_int_equal(engine_update(engine, "m", "@file.lua", "error('no')", 11, &error), -1);
    assert_string_equal(error.data, "file.lua:1: no");
    engine_text_free(&error);
}

static void test_invoke(void **state)
{
    (void)state;
    run("x = 1 assert(_G.x == nil and x == 1) _G.y = 2 assert(select('#', ...) == 0)");
    run("assert(x == nil and y == 2)");
    raises("error('no')", "(invoke):1: no");
    raises("x =", "(invoke):1: unexpected symbol");
    raises("error({})", "(error object is not a string)");
    raises("error()", "(nil)");
    raises("await.sleep(1)", "not in asynchronous routine");
    raises("await.idle()", "not in asynchronous routine");
    raises("await.resolve('a.b')", "not in asynchronous routine");
    raises("await.forward('a.b:1')", "await.forward must be called from a ruleset request handler");
    raises("sluice.cache(1)", "sluice.cache must be called from a ruleset request handler");
    run("assert(neosocksd.stats().lasterror:find('sluice.cache must be called', 1, true))");
    run("local f = load('x') assert(f == nil) assert(load('return 1', 'x', 't')() == 1)");
}

static void test_require(void **state)
{
    char folder[] = "/tmp/sluice-require-XXXXXX", back[4096];
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_non_null(getcwd(back, sizeof back));
    assert_int_equal(chdir(folder), 0);
    FILE *file = fopen("agent.lua", "w");
    assert_non_null(file);
    fputs("return 'mine'", file);
    fclose(file);
    run("assert(require('agent') == 'mine')");                        /* a file wins */
    run("assert(type(require('libruleset').resolve) == 'function')"); /* in the binary */
    run("assert(type(require('agent_paths').find) == 'function')");   /* and so are parts of what a file has replaced */
    run("local ok, e = pcall(require, 'nothing') assert(not ok and e:find(\"no embedded script 'nothing.lua'\"))");
    run("assert(require('sluice') == neosocksd and sluice == neosocksd)");
    run("assert(package.path == '?.lua' and package.cpath == '?.so' and NDEBUG == true)");
    unlink("agent.lua");
    assert_int_equal(chdir(back), 0);
    rmdir(folder);
}

/* --- decisions --- */

static void decides(const char *values, const char *expected)
{
    char code[4096];
    struct ask a;
    snprintf(code, sizeof code, "return { resolve = function(addr) return %s end }", values);
    install(code);
    ask(&a, "Name.Example:80", 3);
    if (strcmp(verdict(&a), expected) != 0) fail_msg("%s: %s, not %s", values, verdict(&a), expected);
}

static void test_decisions(void **state)
{
    (void)state;
    decides("addr", "dial Name.Example:80");
    decides("'1.2.3.4:5'", "dial 1.2.3.4:5");
    decides("'[::1]:5'", "dial [::1]:5");
    decides("addr, 'socks5://b:2', 'http://a:1'", "dial Name.Example:80 a:1 b:2"); /* the last is the first hop */
    decides("addr, 'socks4a://u:p@a'", "dial Name.Example:80 a:1080");
    decides("", "reject");
    decides("nil", "reject");
    decides("false", "reject");
    decides("true", "reject");
    decides("5", "reject");
    decides("{}", "reject");
    decides("'no port'", "reject");
    decides("':80'", "reject");
    decides("'a.b:65536'", "reject");
    decides("'::1:80'", "reject");
    decides("'a\\0b:80'", "reject");
    decides("('x'):rep(2000) .. ':1'", "reject");
    decides("addr, nil", "reject");
    decides("addr, 5", "reject");
    decides("addr, 'ftp://a:1'", "reject");
    decides("addr, 'http://a:1', nil", "reject");
    decides("addr, table.unpack((function() local t = {} for i = 1, 17 do t[i] = 'http://a:1' end return t end)())",
            "reject");
    decides("table.unpack({}, 1, 250)", "reject");
    decides("error('no')", "reject");
    decides("error({})", "reject");
    decides("error()", "reject");
    decides("nil .. ''", "reject");
}

/* The chain of -x comes first; both together are bounded. */
static void test_decisions_behind_chain(void **state)
{
    (void)state;
    assert_null(proxy_uri_parse("http://x:1", 10, &config.hops[0]));
    assert_null(proxy_uri_parse("http://y:2", 10, &config.hops[1]));
    config.hop_count = 2;
    decides("addr", "dial Name.Example:80 x:1 y:2");
    decides("addr, 'http://b:1', 'http://a:1'", "dial Name.Example:80 x:1 y:2 a:1 b:1");
    decides("addr, table.unpack((function() local t = {} for i = 1, 15 do t[i] = 'http://a:1' end return t end)())",
            "reject");
}

/* What a decision's table says of the way out, as text. */
static const char *way(const char *values)
{
    static char text[128];
    char code[4096];
    struct ask a;
    snprintf(code, sizeof code, "return { resolve = function(addr) return %s end }", values);
    install(code);
    ask(&a, "Name.Example:80", 3);
    if (strncmp(verdict(&a), "dial Name.Example:80", 20) != 0) return verdict(&a);
    const struct egress_terms *t = &a.request.verdict.egress;
    snprintf(text, sizeof text, "%u hops, %u sources by %u, mark %d %u, interface %s", a.request.verdict.hop_count,
             t->sources.count, t->sources.by, t->marked, t->mark, t->device);
    return text;
}

static void test_decisions_with_options(void **state)
{
    (void)state;
    assert_string_equal(way("addr"), "0 hops, 0 sources by 0, mark 0 0, interface ");
    assert_string_equal(way("addr, {}"), "0 hops, 0 sources by 0, mark 0 0, interface ");
    assert_string_equal(way("addr, {source = '192.0.2.7', mark = 5, interface = 'eth1'}"),
                        "0 hops, 1 sources by 0, mark 1 5, interface eth1");
    assert_string_equal(way("addr, 'http://b:1', 'http://a:1', {mark = 0}"),
                        "2 hops, 0 sources by 0, mark 1 0, interface ");
    assert_string_equal(way("addr, {source = '2001:db8::/64,192.0.2.0/28,by=round'}"),
                        "0 hops, 2 sources by 3, mark 0 0, interface ");
    assert_string_equal(way("addr, setmetatable({}, {__index = error, __pairs = error, __len = error})"),
                        "0 hops, 0 sources by 0, mark 0 0, interface ");
}

/* What a decision's table says of the PROXY header for its target. */
static unsigned header_of(const char *values)
{
    char code[256];
    struct ask a;
    snprintf(code, sizeof code, "return { resolve = function(addr) return addr, %s end }", values);
    install(code);
    ask(&a, "Name.Example:80", 3);
    assert_string_equal(verdict(&a), "dial Name.Example:80");
    return a.request.verdict.proxy_protocol;
}

static void test_decisions_with_headers(void **state)
{
    (void)state;
    assert_int_equal(header_of("{}"), ROUTE_HEADER_UNSAID);
    assert_int_equal(header_of("{proxy_protocol = 1}"), 1);
    assert_int_equal(header_of("{proxy_protocol = 2, mark = 5}"), 2);
    assert_int_equal(header_of("{proxy_protocol = false}"), ROUTE_HEADER_NONE);
}

static void refuses(const char *values, const char *why)
{
    char code[512];
    decides(values, "reject");
    snprintf(code, sizeof code, "local e = sluice.stats().lasterror assert(e:find(%s, 1, true), e)", why);
    run(code);
}

static void test_options_that_are_wrong(void **state)
{
    (void)state;
    refuses("addr, {colour = 1}",
            "'the decision has no member `colour\\', give one of interface, mark, proxy_protocol, source'");
    refuses("addr, {'192.0.2.7'}", "'a member without a name'");
    refuses("addr, {[{}] = 1}", "'a member without a name'");
    refuses("addr, {source = 5}", "'member `source\\': give a string'");
    refuses("addr, {source = '192.0.2.0/33'}", "'member `source\\': this is no network'");
    refuses("addr, {source = '192.0.2.7\\0'}", "'member `source'");
    refuses("addr, {source = 'by=user'}", "'member `source\\': by= chooses among addresses'");
    refuses("addr, {mark = '5'}", "'member `mark\\': give an integer'");
    refuses("addr, {mark = -1}", "'member `mark'");
    refuses("addr, {mark = 1 << 32}", "'member `mark'");
    refuses("addr, {mark = 5.0}", "'member `mark'");
    refuses("addr, {proxy_protocol = 3}", "'member `proxy_protocol\\': give 1 or 2, or false for none'");
    refuses("addr, {proxy_protocol = true}", "'member `proxy_protocol'");
    refuses("addr, {proxy_protocol = '2'}", "'member `proxy_protocol'");
    refuses("addr, {proxy_protocol = 2.0}", "'member `proxy_protocol'");
    refuses("addr, {interface = true}", "'member `interface\\': give the name of an interface'");
    refuses("addr, {interface = 'sixteen--letters'}", "'member `interface'");
    refuses("addr, {mark = 5}, 'http://a:1'", "'neither nil, false nor host:port'"); /* it stands at the end */
    refuses("addr, {mark = 5}, {mark = 5}", "'neither nil, false nor host:port'");
    refuses("{mark = 5}", "'neither nil, false nor host:port'");
    decides("nil, {colour = 1}", "reject");
}

/* The way of a try is the same. */
static void test_tries_with_options(void **state)
{
    struct ask a;
    (void)state;
    install("return { resolve = function(addr)\n"
            "  local ok, e = pcall(await.forward, addr, {mark = 'x'})\n"
            "  assert(not ok and e:find('member `mark', 1, true), e)\n"
            "  await.forward(addr, 'http://a:1', {mark = 7}) end }");
    ask(&a, "Name.Example:80", 3);
    turn_until(&a);
    assert_string_equal(verdict(&a), "try Name.Example:80 a:1");
    assert_int_equal(a.request.verdict.egress.mark, 7);
    ask_again(&a, FAIL_REFUSED);
    turn_until(&a);
    assert_string_equal(verdict(&a), "reject");
}

static void test_arguments(void **state)
{
    struct ask a;
    (void)state;
    install("local function note(name) return function(addr, user, password, ...)\n"
            "  assert(select('#', ...) == 0)\n"
            "  seen = name .. ' ' .. addr .. ' ' .. tostring(user) .. ' ' .. tostring(password) end end\n"
            "return setmetatable({ resolve = note 'resolve' }, { __index = function(_, k) return note(k) end })");
    ask(&a, "Name.Example:80", 0);
    run("assert(seen == 'resolve Name.Example:80 nil nil')");
    ask(&a, "1.2.3.4:80", 1);
    run("assert(seen == 'route 1.2.3.4:80 nil nil')");
    ask(&a, "[2001:DB8::1]:80", 2);
    run("assert(seen == 'route6 [2001:db8::1]:80 nil nil')");
    ask(&a, "", 3); /* a forwarder without a target */
    run("assert(seen == 'resolve :0 nil nil')");
    a.credentials = (struct credentials){.present = true, .user = "me", .password = ""};
    ask_again(&a, FAIL_NONE);
    run("assert(seen == 'resolve :0 me ')");
    install("return {}");
    ask(&a, "a.b:1", 4);
    assert_string_equal(verdict(&a), "reject");
    run("assert(neosocksd.stats().lasterror:find('no function resolve'))");
    run("_G.ruleset = 5");
    ask(&a, "a.b:1", 4);
    assert_string_equal(verdict(&a), "reject");
    install("return { resolve = 7 }");
    ask(&a, "a.b:1", 4);
    assert_string_equal(verdict(&a), "reject");
    run("assert(neosocksd.stats().lasterror == 'attempt to call a number value')");
    struct engine_counters counters;
    engine_get_counters(engine, &counters);
    assert_int_equal(counters.routes, 8);
    assert_int_equal(counters.rejects, 8);
}

static void test_request_command(void **state)
{
    static const char *const words[] = {[ROUTE_CONNECT] = "connect",
                                        [ROUTE_BIND] = "bind",
                                        [ROUTE_ASSOCIATE] = "associate",
                                        [ROUTE_REQUEST] = "request"};
    struct ask a;
    char code[64];
    (void)state;
    run("assert(request.command == nil and request.other == nil and request[1] == nil)");
    install("return { resolve = function(addr) await.sleep(0) seen = request.command end,\n"
            "  login = function() seen = tostring(request.command) return true end }");
    for (unsigned i = 0; i < 4; i++) {
        ask(&a, "a.b:1", i);
        turn_until(&a);
        a.request.command = (uint8_t)i;
        ask_again(&a, FAIL_NONE);
        turn_until(&a);
        assert_string_equal(verdict(&a), "reject");
        snprintf(code, sizeof code, "assert(seen == '%s', seen)", words[i]);
        run(code);
    }
    a.request.callback = ROUTE_BY_LOGIN; /* the request has not come yet */
    ask_again(&a, FAIL_NONE);
    run("assert(seen == 'nil', seen)");
}

static void test_traceback(void **state)
{
    struct ask a;
    (void)state;
    install("return { resolve = function() error('no') end }");
    ask(&a, "a.b:1", 0);
    run("assert(neosocksd.stats().lasterror == 'ruleset:1: no')");
    engine->traceback = true;
    ask(&a, "a.b:1", 0);
    run("assert(neosocksd.stats().lasterror:find('^ruleset:1: no\\nstack traceback:\\n'))");
}

static void test_cache(void **state)
{
    struct ask a;
    (void)state;
    install("return { resolve = function(addr) sluice.cache(1.5) return addr end,\n"
            "  route = function(addr) sluice.cache(86401) end, route6 = function(addr) return addr end }");
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "dial a.b:1");
    assert_int_equal(a.request.verdict.cache_ms, 1500);
    ask(&a, "1.2.3.4:1", 0);
    assert_string_equal(verdict(&a), "reject");
    ask(&a, "[::1]:1", 0);
    assert_int_equal(a.request.verdict.cache_ms, 0);
}

static void test_tag(void **state)
{
    struct ask a;
    (void)state;
    install("return { resolve = function(addr, user)\n"
            "  if addr == 'no.tag:1' then return addr end\n"
            "  assert(sluice.tag('not this one') == true)\n"
            "  if addr == 'a.try:1' then sluice.tag('tried') await.forward(addr) end\n"
            "  sluice.tag(addr == 'empty.tag:1' and '' or addr == 'long.tag:1' and ('x'):rep(100) or 5)\n"
            "  return addr end }");
    ask(&a, "a.b:1", 0);
    assert_string_equal(engine_tag(engine, a.request.verdict.rule), "5");
    uint32_t five = a.request.verdict.rule;
    ask(&a, "a.b:1", 1);
    assert_int_equal(a.request.verdict.rule, five);
    ask(&a, "a.try:1", 2);
    assert_string_equal(engine_tag(engine, a.request.verdict.rule), "tried");
    ask_again(&a, FAIL_REFUSED);
    assert_string_equal(verdict(&a), "dial a.try:1");
    assert_int_equal(a.request.verdict.rule, five);
    ask(&a, "no.tag:1", 2);
    assert_null(engine_tag(engine, a.request.verdict.rule));
    ask(&a, "empty.tag:1", 2);
    assert_null(engine_tag(engine, a.request.verdict.rule));
    ask(&a, "long.tag:1", 2);
    assert_int_equal(strlen(engine_tag(engine, a.request.verdict.rule)), 64);
    run("assert(sluice.tag('x') == false)");
    raises("sluice.tag()", "bad argument #1 to 'tag' (value expected)");
    assert_null(engine_tag(engine, 0));
    assert_null(engine_tag(engine, 5000));

    /* as many as there is room for: the others have none, and are no error */
    install("n = 0 return { resolve = function(addr) n = n + 1 sluice.tag(n) return addr end }");
    for (unsigned i = 1; i <= 5000; i++) {
        ask(&a, "a.b:1", 0);
        char text[16];
        snprintf(text, sizeof text, "%u", i);
        const char *tag = engine_tag(engine, a.request.verdict.rule);
        assert_true(i > 4000 || (tag && strcmp(tag, text) == 0));
    }
    assert_null(engine_tag(engine, a.request.verdict.rule));
}

/* --- limits --- */

/* The error names chunk and line, at once, as far as a busy machine lets us; the engine goes on. */
static void exceeds(const char *code)
{
    uint64_t start = limits_now_ns();
    raises(code, "time budget");
    assert_true(limits_now_ns() - start < UINT64_C(30000000000) * support_slow());
    run("assert(1 + 1 == 2) for i = 1, 10000 do local _ = i end");
}

static void test_budget(void **state)
{
    struct ask a;
    char exceeded[64], code[128];
    unsigned budget_ms = 100 * support_slow();
    (void)state;
    engine->limits.budget_ms = budget_ms;
    snprintf(exceeded, sizeof exceeded, "(invoke):2: time budget of %u ms exceeded", budget_ms);
    raises("\nwhile true do end", exceeded);
    exceeds("while true do pcall(function() while true do end end) end");
    exceeds("local function f() while true do pcall(f) end end f()");
    exceeds("while true do xpcall(error, function(m) while true do end end) end");
    exceeds("while true do local s = ('x'):rep(1 << 26) end");
    exceeds("while true do pcall(string.rep, 'x', 1 << 26) end");
    exceeds("while true do coroutine.resume(coroutine.create(function() while true do end end)) end");
    exceeds("local function nest() coroutine.wrap(function() while true do pcall(nest) end end)() end nest()");
    exceeds("local function nest() neosocksd.async(type, function() while true do pcall(nest) end end) end nest()");
    exceeds("pcall(debug.sethook) while true do neosocksd.async(type, function() while true do end end) end");
    exceeds("local t = setmetatable({}, { __index = function() while true do end end }) return t.x");
    install(
        "return { resolve = function() while true do pcall(error) end end, tick = function() while true do end end,\n"
        "  route = function(addr) return addr end }");
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "reject");
    snprintf(code, sizeof code, "assert(neosocksd.stats().lasterror:find('^ruleset:1: time budget of %u ms exceeded'))",
             budget_ms);
    run(code);
    for (int i = 0; i < 300; i++) {
        ask(&a, "1.2.3.4:1", 0);
        assert_string_equal(verdict(&a), "dial 1.2.3.4:1");
    }
}

/* As Lua's own, but for its handler. */
static void test_xpcall(void **state)
{
    struct ask a;
    (void)state;
    run("local function all(...) return table.concat({ select('#', ...), tostring((...)), tostring((select(2, ...))) "
        "}, "
        "' ') end\n"
        "local function same(m) return m end\n"
        "assert(all(xpcall(function(...) return ... end, same, 1, 2, 3)) == '4 true 1')\n"
        "assert(all(xpcall(function() end, same)) == '1 true nil')\n"
        "assert(all(xpcall(error, function(m) return m .. '!', 5 end, 'x')) == '2 false x!')\n"
        "assert(all(xpcall(error, same, nil)) == '2 false nil') assert(all(xpcall(nil, same)):find('^2 false "
        "attempt'))\n"
        "assert(select(2, xpcall(error, debug.traceback, 'm')):find('^m\\nstack traceback:.*in main chunk'))\n"
        "assert(not xpcall(error, error, 'twice')) assert(not pcall(xpcall, error)) assert(not pcall(xpcall, error, "
        "5))\n"
        "assert(all(pcall(function(...) return ... end, 1, 2)) == '3 true 1' and all(pcall(error, 'x')) == '2 false "
        "x')\n"
        "assert(select(2, pcall(pcall)) == \"bad argument #1 to 'pcall' (value expected)\" and all(pcall(type, nil)) "
        "== '2 true nil')\n"
        "local co = coroutine.create(function(...) local got = coroutine.yield(...) error(got, 0) end)\n"
        "assert(all(coroutine.resume(co, 7, 8)) == '3 true 7' and all(coroutine.resume(co, 'e')) == '2 false e')\n"
        "assert(all(coroutine.resume(co)) == '2 false cannot resume dead coroutine')\n"
        "assert(all(coroutine.resume(coroutine.running())) == '2 false cannot resume non-suspended coroutine')\n"
        "assert(all(coroutine.resume(coroutine.create(type), nil)) == '2 true nil')\n"
        "assert(not pcall(coroutine.resume, 5) and select('#', pcall(table.unpack, {}, 1, 1e5)) == 100001)");
    install("return { resolve = function(addr)\n"
            "  local ok, got = xpcall(function(a) await.sleep(0) return a end, error, addr) assert(ok)\n"
            "  local bad, why = xpcall(function() await.sleep(0) error('x', 0) end, function(m) return m .. '!' end)\n"
            "  assert(not bad and why == 'x!') return got end }");
    ask(&a, "a.b:1", 0);
    turn_until(&a);
    assert_string_equal(verdict(&a), "dial a.b:1");
}

static void test_memlimit(void **state)
{
    struct ask a;
    (void)state;
    engine->limits.bytes_max = engine->limits.bytes + (8 << 20);
    raises("local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end", "not enough memory");
    raises("return ('x'):rep(1 << 30)", "not enough memory");
    run("local ok, e = pcall(string.rep, 'x', 1 << 30) assert(not ok and e == 'not enough memory')");
    install("return { resolve = function(addr) if addr == 'big.one:1' then return ('x'):rep(1 << 30) end return addr "
            "end }");
    ask(&a, "big.one:1", 0);
    assert_string_equal(verdict(&a), "reject");
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "dial a.b:1");
    assert_true(engine->limits.bytes <= engine->limits.bytes_max);
    struct engine_memory memory;
    engine_get_memory(engine, &memory);
    assert_int_equal(memory.limit, engine->limits.bytes_max);
    engine->limits.bytes_max = 0;
}

static void finish_call(void *context, bool ok, const char *body, size_t size);

struct reply {
    unsigned count;
    bool ok;
    char body[512];
};

static void finish_call(void *context, bool ok, const char *body, size_t size)
{
    struct reply *reply = context;
    reply->count++;
    reply->ok = ok;
    assert_true(size < sizeof reply->body);
    memcpy(reply->body, body, size);
    reply->body[size] = '\0';
}

/* Loading, deciding and answering a call, with less and less memory: whatever fails, fails cleanly. */
static void test_every_allocation(void **state)
{
    static const char code[] = "local t = { resolve = function(addr) local s = addr .. ('x'):rep(50) await.sleep(0)\n"
                               "  await.idle() return addr, 'http://a:1' end } return t";
    unsigned good = 0, failed = 0;
    (void)state;
    install(code);
    for (size_t room = 0; room < 24576; room += 24) {
        struct ask a;
        struct reply reply = {0};
        engine_collect(engine);
        engine->limits.bytes_max = engine->limits.bytes + room;
        struct engine_text error = {0};
        int loaded = engine_update(engine, NULL, NULL, code, sizeof code - 1, &error);
        engine_text_free(&error);
        ask(&a, "a.b:1", 0);
        struct engine_job *call = engine_rpcall(engine, "await.sleep(0) return {1, 'two'}", 32, finish_call, &reply);
        assert_true(call || reply.count == 1);
        for (int i = 0; i < 200 && (a.answers == 0 || reply.count == 0); i++) turn();
        assert_int_equal(a.answers, 1);
        assert_int_equal(reply.count, 1);
        engine->limits.bytes_max = 0;
        bool all = loaded == 0 && a.result == 0 && a.request.verdict.order == ROUTE_DIAL && reply.ok;
        good += all;
        failed += !all;
    }
    assert_true(good > 10 && failed > 10);
    struct ask a;
    ask(&a, "a.b:1", 0);
    turn_until(&a);
    assert_string_equal(verdict(&a), "dial a.b:1 a:1");
}

/* --- calls of peers --- */

static void calls(const char *code, bool ok, const char *body)
{
    struct reply reply = {0};
    struct engine_job *call = engine_rpcall(engine, code, strlen(code), finish_call, &reply);
    assert_true(call || reply.count == 1);
    for (int i = 0; i < 200 && reply.count == 0; i++) turn();
    assert_int_equal(reply.count, 1);
    if (reply.ok != ok || strcmp(reply.body, body) != 0) fail_msg("%d %s\n%s", reply.ok, reply.body, code);
}

static void test_rpcall(void **state)
{
    (void)state;
    calls("return 'ok', 1, nil, {1, 2, a = 3}, nil", true, "return true,\"ok\",1,nil,{1,2,[\"a\"]=3,},nil");
    calls("", true, "return true");
    calls("await.sleep(0.01) return 5", true, "return true,5");
    calls("x = 1 return x, rawget(_G, 'x')", true, "return true,1,nil");
    calls("x =", false, "(rpc):1: unexpected symbol near <eof>");
    calls("\033Lua", false, "attempt to load a binary chunk (mode is 't')");
    calls("error('a \"quoted\\\\\\n\\1 text\\127', 0)", true, "return false,\"a \\\"quoted\\\\\\\n\\001 text\\127\"");
    calls("error('no')", true, "return false,\"(rpc):1: no\"");
    calls("await.sleep(0.01) error('late')", true, "return false,\"(rpc):1: late\"");
    calls("error({})", true, "return false,\"(error object is not a string)\"");
    engine->limits.budget_ms = 50;
    calls("while true do pcall(error) end", true, "return false,\"(rpc):1: time budget of 50 ms exceeded\"");
    calls("return await.forward('a.b:1')", true,
          "return false,\"(rpc):1: await.forward must be called from a ruleset request handler\"");
    struct reply reply = {0};
    const char *unmarshallable = "return print";
    assert_null(engine_rpcall(engine, unmarshallable, strlen(unmarshallable), finish_call, &reply));
    assert_true(reply.count == 1 && reply.ok);
    assert_non_null(strstr(reply.body, "is not marshallable\""));
    assert_memory_equal(reply.body, "return false,\"function: ", 24);
}

static void test_rpcall_ends_early(void **state)
{
    struct reply reply = {0}, other = {0};
    (void)state;
    struct engine_job *call = engine_rpcall(engine, "await.sleep(1000)", 17, finish_call, &reply);
    assert_non_null(call);
    engine_job_cancel(call);
    assert_int_equal(reply.count, 0);
    assert_non_null(engine_rpcall(engine, "coroutine.yield()", 17, finish_call, &reply));
    engine_collect(engine);
    engine_collect(engine);
    for (int i = 0; i < 100 && reply.count == 0; i++) turn();
    assert_int_equal(reply.count, 1);
    assert_string_equal(reply.body, "return false,\"coroutine was abandoned\"");
    assert_non_null(engine_rpcall(engine, "await.sleep(1000)", 17, finish_call, &other));
    engine_close(engine);
    assert_int_equal(other.count, 1);
    coordinator_close(coordinator);
    assert_int_equal(open_engine(NULL), 0); /* for the end of the test */
}

/* --- ticks and texts --- */

static void test_tick(void **state)
{
    (void)state;
    install("ticks = 0 return { tick = function(now) ticks = ticks + 1 assert(math.abs(now - os.time()) < 5) end }");
    run("neosocksd.setinterval(0.02)");
    for (int i = 0; i < 5; i++) turn();
    run("assert(ticks >= 2, ticks) neosocksd.setinterval(-1) _G.ticks = 0");
    for (int i = 0; i < 3; i++) turn();
    run("assert(ticks >= 2 and ticks < 20, ticks)");
    for (const char *const *stop = (const char *const[]){"0", "0/0", "1/0", "-1/0", "5e-324", NULL}; *stop; stop++) {
        char code[96];
        snprintf(code, sizeof code, "neosocksd.setinterval(0.001) neosocksd.setinterval(%s) _G.ticks = 0", *stop);
        run(code);
        turn();
        run("assert(ticks == 0)");
    }
    install("return { tick = function() error('in tick') end }");
    run("neosocksd.setinterval(0.01)");
    for (int i = 0; i < 3; i++) turn();
    run("assert(neosocksd.stats().lasterror == 'ruleset:1: in tick') neosocksd.setinterval(1e300)");
    raises("neosocksd.setinterval()", "bad argument #1 to 'setinterval' (number expected, got no value)");
    raises("neosocksd.setinterval('1')", "bad argument #1 to 'setinterval' (number expected, got string)");
}

static void check_text(bool good, struct engine_text *text, bool ok, const char *expected)
{
    assert_int_equal(good, ok);
    if (expected)
        assert_string_equal(text->data, expected);
    else
        assert_null(text->data);
    engine_text_free(text);
}

static void test_texts(void **state)
{
    struct engine_text text;
    (void)state;
    check_text(engine_healthy(engine, &text), &text, true, NULL);
    check_text(engine_stats(engine, 1, NULL, &text), &text, true, NULL);
    install("return {}");
    check_text(engine_stats(engine, 1, NULL, &text), &text, true, NULL);
    check_text(engine_metrics(engine, &text), &text, true, NULL);
    check_text(engine_healthy(engine, &text), &text, true, NULL);
    install("return { stats = function(dt, q) return dt .. ' ' .. tostring(q) end, metrics = function(...)\n"
            "  return select('#', ...) .. '\\n' end, healthy = function() return complaint end }");
    check_text(engine_stats(engine, 1.5, NULL, &text), &text, true, "1.5 nil");
    check_text(engine_stats(engine, 2, "x", &text), &text, true, "2.0 x");
    check_text(engine_metrics(engine, &text), &text, true, "0\n");
    check_text(engine_healthy(engine, &text), &text, true, NULL);
    run("_G.complaint = ''");
    check_text(engine_healthy(engine, &text), &text, true, "");
    run("_G.complaint = 'ill'");
    check_text(engine_healthy(engine, &text), &text, false, "ill");
    install("local function f() error('bad') end return { stats = f, metrics = f, healthy = f }");
    check_text(engine_stats(engine, 1, NULL, &text), &text, false, "ruleset:1: bad");
    check_text(engine_metrics(engine, &text), &text, false, "ruleset:1: bad");
    check_text(engine_healthy(engine, &text), &text, false, "ruleset:1: bad");
    install("return { stats = 5, metrics = 'x', healthy = {} }");
    check_text(engine_stats(engine, 1, NULL, &text), &text, true, NULL);
    check_text(engine_metrics(engine, &text), &text, true, NULL);
    check_text(engine_healthy(engine, &text), &text, true, NULL);
}

/* --- neosocksd.* --- */

static void test_functions(void **state)
{
    (void)state;
    run("assert(neosocksd.parse_ipv4('1.2.3.4') == 0x01020304 and neosocksd.parse_ipv4('255.255.255.255') == 2^32 - "
        "1)\n"
        "for _, v in ipairs{ '1.2.3', '1.2.3.256', '::1', '', 5, {}, '1.2.3.4 ' } do\n"
        "  assert(select('#', neosocksd.parse_ipv4(v)) == 0) end\n"
        "assert(select('#', neosocksd.parse_ipv4()) == 0)\n"
        "local h, l = neosocksd.parse_ipv6('ffff:2::3') assert(h == 0xffff000200000000 and l == 3)\n"
        "h, l = neosocksd.parse_ipv6('::ffff:1.2.3.4') assert(h == 0 and l == 0xffff01020304)\n"
        "for _, v in ipairs{ 'fe80::1%lo', '1.2.3.4', 5, '' } do assert(select('#', neosocksd.parse_ipv6(v)) == 0) "
        "end");
    run("local function is(s, host, port) local h, p = neosocksd.splithostport(s) assert(h == host and p == port, s) "
        "end\n"
        "is('a:1', 'a', '1') is('[::1]:80', '::1', '80') is(':', '', '') is('host:', 'host', '') is(':80', '', '80')\n"
        "is('a:http', 'a', 'http')\n"
        "for _, v in ipairs{ 'a', '::1:80', '' } do\n"
        "  local ok, e = pcall(neosocksd.splithostport, v) assert(not ok and e == 'invalid address: `' .. v .. \"'\", "
        "e) end\n"
        "local ok, e = pcall(neosocksd.splithostport, ('x'):rep(262)) assert(e == 'address too long: 262 bytes', e)");
    raises("neosocksd.splithostport({})", "bad argument #1 to 'splithostport' (string expected, got table)");
    raises("pcall = pcall(neosocksd.splithostport) error(select(2, _G.pcall(neosocksd.splithostport)))",
           "bad argument #1 to 'neosocksd.splithostport' (string expected, got no value)");
    run("assert(math.abs(neosocksd.now() - os.time()) < 5)\n"
        "assert(neosocksd.resolve('127.0.0.1') == '127.0.0.1')\n"
        "assert(select('#', neosocksd.resolve('not a name')) == 0)\n"
        "assert(neosocksd.traceback('m'):find('^m\\nstack traceback:\\n') and neosocksd.traceback(5):find('^5\\n'))\n"
        "assert(neosocksd.traceback() == '(nil)' and neosocksd.traceback({}):find('^%(table: 0x'))");
    raises("neosocksd.resolve()", "bad argument #1 to 'resolve' (string expected, got no value)");
}

static uint64_t began_ns;

static void test_stats_table(void **state)
{
    (void)state;
    engine_set_api_counters(engine, &(struct engine_api_counters){3, 2});
    run("local s = neosocksd.stats()\n"
        "for k in ('num_halfopen num_sessions num_sessions_peak num_request num_success num_reject_ruleset ' ..\n"
        "  'num_reject_timeout num_reject_upstream byt_up byt_down num_accept num_serve num_dns_query ' ..\n"
        "  'num_dns_success num_thread_active num_thread_peak'):gmatch('%S+') do\n"
        "  assert(math.type(s[k]) == 'integer' and s[k] == 0, k) end\n"
        "assert(s.num_api_request == 3 and s.num_api_success == 2 and s.lasterror == nil)\n"
        "assert(s.bytes_allocated > 1000 and s.num_object > 100 and math.type(s.uptime) == 'float' and s.uptime > "
        "1e3)");
    /* Since the engine was opened, which this program has done. */
    char code[160];
    snprintf(code, sizeof code, "assert(neosocksd.stats().uptime <= require('time').monotonic() * 1e9 - %llu)",
             (unsigned long long)began_ns);
    run(code);
}

static void test_config_table(void **state)
{
    (void)state;
    config.proxy_text = "http://x:1";
    config.api_text = "127.0.0.1:9080";
    run("local c = neosocksd.config()\n"
        "assert(c.proxy == 'http://x:1' and c.restapi == '127.0.0.1:9080' and c.api == c.restapi)\n"
        "assert(c.listen == nil and c.forward == nil and c.http_listen == nil and c.ruleset == nil)\n"
        "assert(c.timeout == 60 and math.type(c.timeout) == 'float' and c.loglevel == 4 and c.memlimit == 0)\n"
        "assert(c.block_multicast and not c.block_local and c.tcp_nodelay and not c.auth_required)\n"
        "assert(c.startup_limit_rate == 30 and c.resolve_pf == 0 and c.max_sessions == 64)\n"
        "assert(neosocksd.config() ~= c)");
    /* Each by itself is what it is in the table, the name that restapi had, too. */
    run("local count = 0\n"
        "for key, value in pairs(neosocksd.config()) do\n"
        "  local one = neosocksd.setting(key) count = count + 1\n"
        "  assert(one == value or type(value) == 'table' and #one == #value, key)\n"
        "end\n"
        "assert(count > 20 and neosocksd.setting('api') == '127.0.0.1:9080' and neosocksd.setting('proxy') == "
        "'http://x:1')\n"
        "assert(select('#', neosocksd.setting('nosuch')) == 1 and neosocksd.setting('nosuch') == nil)\n"
        "assert(select('#', neosocksd.setting('ruleset')) == 1 and neosocksd.setting('ruleset') == nil)\n"
        "assert(select(2, pcall(neosocksd.setting)):find('string expected'))");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ENGINE(test_update),
        WITH_ENGINE(test_update_module),
        WITH_ENGINE(test_invoke),
        WITH_ENGINE(test_require),
        WITH_ENGINE(test_decisions),
        WITH_ENGINE(test_decisions_behind_chain),
        WITH_ENGINE(test_decisions_with_options),
        WITH_ENGINE(test_decisions_with_headers),
        WITH_ENGINE(test_options_that_are_wrong),
        WITH_ENGINE(test_tries_with_options),
        WITH_ENGINE(test_arguments),
        WITH_ENGINE(test_request_command),
        WITH_ENGINE(test_traceback),
        WITH_ENGINE(test_cache),
        WITH_ENGINE(test_tag),
        WITH_ENGINE(test_budget),
        WITH_ENGINE(test_xpcall),
        WITH_ENGINE(test_memlimit),
        WITH_ENGINE(test_every_allocation),
        WITH_ENGINE(test_rpcall),
        WITH_ENGINE(test_rpcall_ends_early),
        WITH_ENGINE(test_tick),
        WITH_ENGINE(test_texts),
        WITH_ENGINE(test_functions),
        WITH_ENGINE(test_stats_table),
        WITH_ENGINE(test_config_table),
    };
    began_ns = limits_now_ns();
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
