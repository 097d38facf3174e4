/* The engine with a real coordinator that has no workers: the tests ask in their place, and take the verdicts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "lua/codec.h"
#include "lua/state.h"
#include "support.h"

static struct config config;
static struct coordinator *coordinator;
static struct engine *engine;
static struct coordinator_hooks hooks;

/* --- a worker's part --- */

struct ask {
    struct route_request request; /* first */
    struct credentials credentials;
    unsigned answers;
    int32_t result;
};

static void on_answer(struct coordinator *c, struct route_request *request, int32_t result)
{
    struct ask *ask = (struct ask *)request;
    assert_ptr_equal(c, coordinator);
    ask->answers++;
    ask->result = result;
}

static void ask_again(struct ask *a, enum failure failure)
{
    a->answers = 0;
    a->request.failure = (uint8_t)failure;
    hooks.on_route(hooks.context, &a->request);
}

static void ask(struct ask *a, const char *target, uint32_t slot)
{
    memset(a, 0, sizeof *a);
    struct route_request *r = &a->request;
    r->credentials = &a->credentials;
    r->origin = (struct message){.slot = slot, .generation = 7};
    if (*target) assert_true(address_parse(target, strlen(target), ADDRESS_PORT_REQUIRED, 0, &r->target));
    r->callback = r->target.kind == ADDRESS_IPV4   ? ROUTE_BY_IPV4
                  : r->target.kind == ADDRESS_IPV6 ? ROUTE_BY_IPV6
                                                   : ROUTE_BY_NAME;
    ask_again(a, FAIL_NONE);
}

static void turn(void)
{
    assert_int_equal(coordinator_turn(coordinator), 0);
}

static void turn_until(const struct ask *a)
{
    for (int i = 0; i < 2000 && a->answers == 0; i++) turn();
    assert_int_equal(a->answers, 1);
}

/* The verdict as text: "reject", or order, target, and the hops' hosts in the order of travel. */
static const char *verdict(const struct ask *a)
{
    static char text[2048];
    char part[ADDRESS_TEXT_SIZE];
    const struct route_verdict *v = &a->request.verdict;
    assert_int_equal(a->answers, 1);
    if (a->result < 0) return a->result == -ECANCELED ? "cancelled" : "lost";
    if (v->order == ROUTE_REJECT) return "reject";
    address_format(&v->target, part, sizeof part);
    size_t used = (size_t)snprintf(text, sizeof text, "%s %s", v->order == ROUTE_TRY ? "try" : "dial", part);
    for (unsigned i = 0; i < v->hop_count; i++) {
        address_format(&v->hops[i].address, part, sizeof part);
        used += (size_t)snprintf(text + used, sizeof text - used, " %s", part);
    }
    return text;
}

/* --- opening --- */

static int open_engine(void **state)
{
    (void)state;
    log_open(LOG_DISCARD, LOG_LEVEL_NOTICE);
    config_defaults(&config);
    config.workers = 1;
    config.max_sessions = 64;
    config.nameservers = "127.0.0.1:9"; /* nobody is there, and nobody else is asked */
    config_size(&config);
    int error = coordinator_open(&coordinator, &config);
    if (error == 0) error = engine_open(&engine, coordinator);
    if (error < 0) return error;
    engine->answer = on_answer;
    hooks = ruleset_hooks(engine);
    return 0;
}

static int close_engine(void **state)
{
    (void)state;
    engine_close(engine);
    coordinator_close(coordinator);
    return 0;
}

/* --- running code --- */

static void install(const char *code)
{
    struct engine_text error = {0};
    if (engine_update(engine, NULL, NULL, code, strlen(code), &error) < 0) fail_msg("%s\n%s", error.data, code);
}

static void run(const char *code)
{
    struct engine_text error = {0};
    if (engine_invoke(engine, code, strlen(code), &error) < 0) fail_msg("%s\n%s", error.data, code);
}

/* Raises a message that holds `part`. */
static void raises(const char *code, const char *part)
{
    struct engine_text error = {0};
    if (engine_invoke(engine, code, strlen(code), &error) == 0) fail_msg("no error: %s", code);
    if (!strstr(error.data, part)) fail_msg("%s\ninstead of %s: %s", error.data, part, code);
    engine_text_free(&error);
}

static void update_fails(const char *module, const char *code, size_t size, const char *message)
{
    struct engine_text error = {0};
    assert_int_equal(engine_update(engine, module, NULL, code, size, &error), -1);
    assert_string_equal(error.data, message);
    engine_text_free(&error);
}

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

/* --- waiting --- */

static void test_sleep(void **state)
{
    struct ask a;
    (void)state;
    install("return { resolve = function(addr)\n"
            "  assert(select('#', await.sleep(0.01)) == 0) await.sleep('0.001') await.sleep(0) await.idle()\n"
            "  for _, n in ipairs{ -1, 0/0, 1/0, 1e10 } do\n"
            "    local ok, e = pcall(await.sleep, n)\n"
            "    assert(not ok and e == 'n must be finite and in [0, 1e9]', e) end\n"
            "  assert(not pcall(await.sleep)) assert(not pcall(await.sleep, {}))\n"
            "  local begin = time.monotonic() repeat until time.monotonic() - begin > 0.1\n"
            "  begin = time.monotonic() await.sleep(0.02) begin = time.monotonic() - begin assert(begin >= 0.02 and "
            "begin < 0.1, begin)\n"
            "  assert(await.resolve('1.2.3.4') == '1.2.3.4' and await.resolve('::1') == '::1')\n"
            "  assert(select('#', await.resolve('no name')) == 0) assert(not pcall(await.resolve))\n"
            "  assert(await.resolve('localhost') == '127.0.0.1' or await.resolve('localhost') == '::1')\n"
            "  return addr end }");
    ask(&a, "a.b:1", 0);
    assert_int_equal(a.answers, 0);
    struct engine_memory memory;
    engine_get_memory(engine, &memory);
    assert_int_equal(memory.threads, 1);
    turn_until(&a);
    assert_string_equal(verdict(&a), "dial a.b:1");
    engine_get_memory(engine, &memory);
    assert_int_equal(memory.threads, 0);
    assert_int_equal(memory.threads_peak, 1);
    assert_true(memory.events > 0 && memory.event_max >= memory.event_p50 && memory.event_p50 > 0);
}

static struct ask many[10000];

/* Decisions that wait cost memory, and no more than 4 KiB each. */
static void test_many_sleep(void **state)
{
    size_t count = sizeof many / sizeof *many;
    struct engine_memory before, during;
    (void)state;
    install("return { resolve = function(addr) await.sleep(0.3) return addr end }");
    engine_get_memory(engine, &before);
    for (uint32_t i = 0; i < count; i++) ask(&many[i], "a.b:1", i);
    engine_get_memory(engine, &during);
    assert_int_equal(during.threads, count);
    assert_true((during.bytes - before.bytes) / count < 4096);
    for (size_t i = 0; i < count; i++) {
        turn_until(&many[i]);
        assert_string_equal(verdict(&many[i]), "dial a.b:1");
    }
    run("collectgarbage() collectgarbage()");
    engine_get_memory(engine, &during);
    assert_int_equal(during.threads, 0);
}

static void test_too_many_wait(void **state)
{
    (void)state;
    run("local failed, why = 0\n"
        "local function finish(ok, e) if not ok then failed, why = failed + 1, e end end\n"
        "for i = 1, 65600 do neosocksd.async(finish, await.sleep, 1000) end\n"
        "assert(failed > 0 and failed < 200, failed) assert(why == 'too many operations wait already', why)");
}

/* --- await.forward --- */

static const char forwarding[] = "seen = {}\n"
                                 "local function forward(...) local ok, e = await.forward(...) seen[#seen + 1] = "
                                 "tostring(ok) .. ' ' .. tostring(e)\n"
                                 "  return ok end\n"
                                 "return { resolve = function(addr)\n"
                                 "  if forward(addr, 'http://b:2', 'http://a:1') then error('ignored') end\n"
                                 "  if forward('1.2.3.4:5') then return 'x:1' end\n"
                                 "  return 'last:1' end }";

static void check_seen(const char *expected)
{
    char code[512];
    snprintf(code, sizeof code, "local s = table.concat(seen, '|') assert(s == '%s', s) _G.seen = {}", expected);
    run(code);
}

static void test_forward(void **state)
{
    struct ask a;
    (void)state;
    install(forwarding);
    ask(&a, "a.b:1", 5);
    assert_string_equal(verdict(&a), "try a.b:1 a:1 b:2");
    hooks.on_routed(hooks.context, 0, 5, 6, 0); /* of an earlier session */
    hooks.on_routed(hooks.context, 0, 4, 7, 0);
    hooks.on_routed(hooks.context, 1, 5, 7, 0);
    check_seen("");
    a.answers = 0;
    hooks.on_routed(hooks.context, 0, 5, 7, 0);
    check_seen("true nil");
    assert_int_equal(a.answers, 0); /* what the callback does then is ignored */

    ask(&a, "a.b:1", 5);
    ask_again(&a, FAIL_REFUSED);
    assert_string_equal(verdict(&a), "try 1.2.3.4:5");
    ask_again(&a, FAIL_PROXY_AUTH);
    assert_string_equal(verdict(&a), "dial last:1");
    check_seen("false connection refused|false proxy authentication failed");
    struct engine_counters counters;
    engine_get_counters(engine, &counters);
    assert_int_equal(counters.routes, 2);
    assert_int_equal(counters.forwards_failed, 2);
}

static void test_forward_without_session(void **state)
{
    struct ask a;
    (void)state;
    install("seen = {}\n"
            "return { resolve = function(addr)\n"
            "  local ok, e = await.forward(addr) seen[1] = tostring(ok) .. ' ' .. tostring(e)\n"
            "  local again, why = pcall(await.forward, addr) seen[2] = tostring(again) .. ' ' .. why\n"
            "  return addr end }");
    const char *gone = "false request cancelled|false await.forward: the request is not forwardable";
    ask(&a, "a.b:1", 5);
    a.answers = 0;
    hooks.on_routed(hooks.context, 0, 5, 7, -ETIMEDOUT);
    check_seen("false timeout|false await.forward: the request is not forwardable");
    ask(&a, "a.b:1", 5);
    a.answers = 0;
    hooks.on_routed(hooks.context, 0, 5, 7, -ECANCELED);
    check_seen(gone);
    ask(&a, "a.b:1", 5);
    a.answers = 0;
    hooks.on_cancel(hooks.context, 0, 5, 7); /* the messages have crossed */
    check_seen(gone);
    ask(&a, "a.b:1", 5);
    hooks.on_routed(hooks.context, 0, 5, 7, 0);
    check_seen("true nil|false await.forward: the request is not forwardable");
    assert_int_equal(a.answers, 1);
}

static void test_forward_arguments(void **state)
{
    struct ask a;
    (void)state;
    install(
        "return { resolve = function(addr)\n"
        "  assert(select('#', await.forward()) == 1 and await.forward() == nil and await.forward(nil) == nil)\n"
        "  for _, bad in ipairs{ {'x'}, {5}, {{}}, {addr, 'x'}, {addr, 'http://a:1', 'ftp://b:1'} } do\n"
        "    local ok, e = pcall(await.forward, table.unpack(bad)) assert(not ok and e == 'invalid address', e) end\n"
        "  local why\n"
        "  neosocksd.async(function(ok, e) why = e end, await.forward, addr)\n"
        "  assert(why == 'await.forward must be called from a ruleset request handler', why)\n"
        "  why = select(2, coroutine.resume(coroutine.create(await.forward), addr))\n"
        "  assert(why == 'await.forward must be called from a ruleset request handler', why)\n"
        "  return 'good:1' end }");
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "dial good:1");
}

/* A coroutine that is gone while its try runs: the failure is the client's, and the callback is not called again. */
static void test_forward_abandoned(void **state)
{
    struct ask a;
    (void)state;
    install("calls = 0 return { resolve = function(addr)\n"
            "  calls = calls + 1 main = coroutine.running() await.forward(addr) end }");
    ask(&a, "a.b:1", 0);
    run("assert(coroutine.close(main)) _G.main = nil collectgarbage() collectgarbage()");
    for (int i = 0; i < 4; i++) turn(); /* a tenth of a second each */
    ask_again(&a, FAIL_REFUSED);
    assert_string_equal(verdict(&a), "reject");
    run("assert(calls == 1)");
}

/* --- coroutines that do not end as they should --- */

static void test_cancel(void **state)
{
    struct ask a;
    (void)state;
    install("closed = 0\n"
            "return { resolve = function(addr)\n"
            "  local guard <close> = setmetatable({}, { __close = function() closed = closed + 1 end })\n"
            "  if addr == 'yield.self:1' then held = coroutine.running() coroutine.yield() else await.sleep(1000) end\n"
            "  return addr end }");
    ask(&a, "a.b:1", 9);
    hooks.on_cancel(hooks.context, 0, 9, 8); /* not that one */
    assert_int_equal(a.answers, 0);
    hooks.on_cancel(hooks.context, 0, 9, 7);
    assert_string_equal(verdict(&a), "cancelled");
    run("assert(closed == 1)");
    hooks.on_cancel(hooks.context, 0, 9, 7); /* has been answered */
    assert_int_equal(a.answers, 1);
    ask(&a, "yield.self:1", 9);
    hooks.on_cancel(hooks.context, 0, 9, 7);
    assert_string_equal(verdict(&a), "cancelled");
    run("assert(closed == 2 and coroutine.status(held) == 'dead')");
    ask(&a, "yield.self:1", 9); /* the coroutine is gone before anybody cancels */
    run("_G.held = nil collectgarbage() collectgarbage()");
    turn_until(&a);
    assert_string_equal(verdict(&a), "lost");
    hooks.on_cancel(hooks.context, 0, 9, 7);
    assert_int_equal(a.answers, 1);
}

static void test_resumed_by_script(void **state)
{
    struct ask a;
    (void)state;
    install("return { resolve = function(addr) held = coroutine.running() return (coroutine.yield()) end }");
    ask(&a, "a.b:1", 0);
    assert_int_equal(a.answers, 0);
    run("assert(coroutine.resume(held, 'x:1')) assert(coroutine.status(held) == 'dead')");
    assert_string_equal(verdict(&a), "dial x:1");
}

/* A script may resume what waits for us, close it, or keep it for later: nothing of it may hurt. */
static void test_meddling(void **state)
{
    struct ask a;
    (void)state;
    install("return { resolve = function(addr) held = coroutine.running() await.sleep(0.02) await.sleep(0.03)\n"
            "  return addr end,\n"
            "  route = function(addr) held = coroutine.running() return addr end }");
    ask(&a, "a.b:1", 0);
    run("assert(coroutine.resume(held))"); /* now it waits for the second sleep */
    turn_until(&a);
    assert_string_equal(verdict(&a), "dial a.b:1");
    ask(&a, "a.b:1", 0);
    run("assert(coroutine.resume(held)) assert(coroutine.resume(held))");
    assert_string_equal(verdict(&a), "dial a.b:1");
    for (int i = 0; i < 3; i++) turn();
    ask(&a, "a.b:1", 0);
    run("assert(coroutine.close(held)) _G.held = nil");
    turn_until(&a);
    assert_string_equal(verdict(&a), "lost");
    for (const char *const *how = (const char *const[]){"coroutine.close(held)", "coroutine.resume(held)", NULL}; *how;
         how++) {
        ask(&a, "1.2.3.4:1", 1);
        assert_string_equal(verdict(&a), "dial 1.2.3.4:1");
        run(*how); /* it lies in the pool */
        run("_G.held = nil collectgarbage() collectgarbage()");
        ask(&a, "1.2.3.4:1", 1);
        assert_string_equal(verdict(&a), "dial 1.2.3.4:1");
    }
}

/* Coroutines of scripts wait as well; what they wait for ends with the engine. */
static void test_foreign_coroutines(void **state)
{
    struct ask a;
    (void)state;
    install("return { resolve = function(addr) local main, got = coroutine.running()\n"
            "  coroutine.wrap(function() await.sleep(0.01) got = 'late:1' coroutine.resume(main) end)()\n"
            "  coroutine.yield() return got end }");
    ask(&a, "a.b:1", 0);
    turn_until(&a);
    assert_string_equal(verdict(&a), "dial late:1");
    run("twice = coroutine.create(function() await.sleep(0.01) await.sleep(0.01) _G.done = true end)\n"
        "coroutine.resume(twice) coroutine.resume(twice) _G.twice = twice");
    for (int i = 0; i < 5; i++) turn();
    run("assert(done and coroutine.status(twice) == 'dead')");
    run("coroutine.wrap(function() await.sleep(0.001) error('foreign') end)()");
    for (int i = 0; i < 3; i++) turn();
    run("assert(neosocksd.stats().lasterror:find('foreign'))");
    run("coroutine.wrap(function() await.idle() end)()\n"
        "coroutine.wrap(function() await.sleep(1000) end)()\n"
        "coroutine.wrap(function() await.resolve('never.invalid') end)()");
}

static void test_stop(void **state)
{
    struct ask a, b, c;
    (void)state;
    install("return { resolve = function(addr) await.sleep(1000) end,\n"
            "  route = function(addr) held = coroutine.running() coroutine.yield() end }");
    ask(&a, "a.b:1", 0);
    ask(&b, "1.2.3.4:1", 1);
    hooks.on_stop(hooks.context);
    assert_string_equal(verdict(&a), "cancelled");
    assert_string_equal(verdict(&b), "cancelled");
    ask(&c, "a.b:1", 2);
    assert_string_equal(verdict(&c), "cancelled");
}

static void test_async(void **state)
{
    (void)state;
    run("local seen\n"
        "local function finish(...) seen = table.pack(...) end\n"
        "local co = neosocksd.async(finish, function(...) return ... end, 1, nil, 3)\n"
        "assert(type(co) == 'thread' and coroutine.status(co) == 'dead')\n"
        "assert(seen.n == 4 and seen[1] == true and seen[2] == 1 and seen[4] == 3)\n"
        "neosocksd.async(finish, function() error({5}) end) assert(seen[1] == false and seen[2][1] == 5)\n"
        "neosocksd.async(finish, 7) assert(not seen[1] and seen[2] == 'attempt to call a number value')\n"
        "neosocksd.async(finish, nil) assert(not seen[1] and seen[2] == 'attempt to call a nil value')\n"
        "neosocksd.async(function() error('from finish') end, print == nil and print or type, 1)\n"
        "assert(neosocksd.stats().lasterror:find('from finish'))\n"
        "neosocksd.async(function() await.sleep(1) end, type, 1)\n"
        "assert(neosocksd.stats().lasterror:find('not in asynchronous routine'))\n"
        "local co = neosocksd.async(finish, function() coroutine.yield() return 'again' end)\n"
        "assert(coroutine.resume(co)) assert(seen[1] and seen[2] == 'again' and coroutine.status(co) == 'dead')\n"
        "local deep deep = function(n) if n > 0 then neosocksd.async(function() end, deep, n - 1) end end deep(1000)\n"
        "neosocksd.async(function(ok) _G.slept = ok end, await.sleep, 0.01)");
    for (int i = 0; i < 3; i++) turn();
    run("assert(slept == true)");
    raises("neosocksd.async()", "bad argument #1 to 'async' (function expected, got no value)");
    raises("neosocksd.async(5, type)", "bad argument #1 to 'async' (function expected, got number)");
    raises("neosocksd.async(type)", "bad argument #2 to 'async' (value expected)");
}

/* --- limits --- */

/* The error names chunk and line, within a second or two; the engine goes on. */
static void exceeds(const char *code)
{
    uint64_t start = limits_now_ns();
    raises(code, "time budget");
    assert_true(limits_now_ns() - start < UINT64_C(4000000000));
    run("assert(1 + 1 == 2) for i = 1, 10000 do local _ = i end");
}

static void test_budget(void **state)
{
    struct ask a;
    (void)state;
    engine->limits.budget_ms = 100;
    raises("\nwhile true do end", "(invoke):2: time budget of 100 ms exceeded");
    exceeds("while true do pcall(function() while true do end end) end");
    exceeds("local function f() while true do pcall(f) end end f()");
    exceeds("while true do xpcall(error, function(m) while true do end end) end");
    exceeds("while true do local s = ('x'):rep(1 << 26) end");
    exceeds("while true do pcall(string.rep, 'x', 1 << 26) end");
    exceeds("while true do coroutine.resume(coroutine.create(function() while true do end end)) end");
    exceeds("local function nest() coroutine.wrap(function() while true do pcall(nest) end end)() end nest()");
    exceeds("local function nest() neosocksd.async(type, function() while true do pcall(nest) end end) end nest()");
    exceeds("debug.sethook() while true do neosocksd.async(type, function() while true do end end) end");
    exceeds("local t = setmetatable({}, { __index = function() while true do end end }) return t.x");
    install(
        "return { resolve = function() while true do pcall(error) end end, tick = function() while true do end end,\n"
        "  route = function(addr) return addr end }");
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "reject");
    run("assert(neosocksd.stats().lasterror:find('^ruleset:1: time budget of 100 ms exceeded'))");
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
        struct engine_call *call = engine_rpcall(engine, "await.sleep(0) return {1, 'two'}", 32, finish_call, &reply);
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
    struct engine_call *call = engine_rpcall(engine, code, strlen(code), finish_call, &reply);
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
    struct engine_call *call = engine_rpcall(engine, "await.sleep(1000)", 17, finish_call, &reply);
    assert_non_null(call);
    engine_call_cancel(call);
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
}

/* --- scripts of the command line --- */

static char script_path[] = "/tmp/sluice-script-XXXXXX";

static void write_script(const void *data, size_t size)
{
    FILE *file = fopen(script_path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static int open_with_script(void **state)
{
    memcpy(script_path + strlen(script_path) - 6, "XXXXXX", 6);
    int fd = mkstemp(script_path);
    if (fd < 0) return -1;
    close(fd);
    return open_engine(state);
}

static int close_with_script(void **state)
{
    unlink(script_path);
    return close_engine(state);
}

static int boot(const char *code)
{
    write_script(code, strlen(code));
    config.boot = script_path;
    return engine_boot(engine, &config);
}

static void boot_fails(const char *code, const char *why)
{
    struct config before = config;
    before.boot = script_path;
    assert_int_equal(boot(code), -1);
    if (!strstr(engine->last_error, why)) fail_msg("%s\ninstead of %s: %s", engine->last_error, why, code);
    assert_memory_equal(&config, &before, sizeof config); /* all or nothing */
}

static void test_boot_errors(void **state)
{
    (void)state;
    boot_fails("return 5", "config: expected table, got number");
    boot_fails("x =", "config:1: unexpected symbol near <eof>");
    boot_fails("error('no')", "config:1: no");
    boot_fails("return { timeout = 30, loglevel = 4.0 }", "boot: field `loglevel' must be an integer");
    boot_fails("return { timeout = '30' }", "boot: field `timeout' must be a number");
    boot_fails("return { max_sessions = 10, listen = 5 }", "boot: field `listen' must be a string");
    boot_fails("return { tcp_nodelay = 1 }", "boot: field `tcp_nodelay' must be a boolean");
    boot_fails("return { timeout = 4.9 }", "boot: field `timeout' is out of range");
    boot_fails("return { timeout = 0/0 }", "boot: field `timeout' is out of range");
    boot_fails("return { loglevel = 9 }", "boot: field `loglevel' is out of range");
    boot_fails("return { loglevel = -1 }", "boot: field `loglevel' is out of range");
    boot_fails("return { startup_limit_rate = 101 }", "boot: field `startup_limit_rate' is out of range");
    boot_fails("return { resolve_pf = 3 }", "boot: field `resolve_pf' is out of range");
    boot_fails("return { user_name = 'a\\0b' }", "boot: field `user_name' holds a zero octet");
    boot_fails("return { ruleset = 5 }", "config: `ruleset' must be a table; it is a number");
    boot_fails("return { max_sessions = 7, proxy = 'ftp://x' }", "config: failed to load fields");
    boot_fails("return { listen = 'no port' }", "config: failed to load fields");
    boot_fails("while true do end", "time budget of 5000 ms exceeded");
    assert_false(engine_has_ruleset(engine));
    config.boot = "/nowhere/at all";
    assert_int_equal(engine_boot(engine, &config), -1);
}

static void test_boot(void **state)
{
    (void)state;
    assert_int_equal(
        boot("assert(... == 'config' and select('#', ...) == 1 and neosocksd.config().timeout == 60)\n"
             "return { listen = '127.0.0.1:1080,127.0.0.1:1081', forward = ',x.y:80',\n"
             "  http_listen = '127.0.0.1:8080', proxy = 'socks5://a:1,http://b:2', restapi = '127.0.0.1:9080',\n"
             "  timeout = 5.5, loglevel = 3, resolve_pf = 2, memlimit = -3, pipe = true, traceback = true,\n"
             "  block_multicast = false, block_local = true, tcp_nodelay = false, tcp_sndbuf = 65536,\n"
             "  max_sessions = 9, startup_limit_start = 1, startup_limit_rate = 2, startup_limit_full = 3,\n"
             "  unknown = {}, daemonize = true, ruleset = { resolve = function(a) return a end } }"),
        0);
    assert_int_equal(config.listener_count, 3);
    assert_int_equal(config.listeners[0].kind, LISTENER_AUTO);
    assert_int_equal(config.listeners[1].kind, LISTENER_FORWARD);
    assert_string_equal(config.listeners[1].forward_text, "x.y:80");
    assert_int_equal(config.listeners[2].kind, LISTENER_HTTP);
    assert_int_equal(config.hop_count, 2);
    assert_int_equal(config.timeout_ms, 5500);
    assert_int_equal(config.log_level, 3);
    assert_int_equal(config.family, AF_INET);
    assert_int_equal(config.memlimit_mib, 0);
    assert_true(config.pipe && config.traceback && !config.tcp_nodelay && !config.daemonize);
    assert_int_equal(config.tcp_sndbuf, 65536);
    assert_int_equal(config.max_sessions, 9);
    assert_true(config.startup_start == 1 && config.startup_rate == 2 && config.startup_full == 3);
    assert_string_equal(config.api_text, "127.0.0.1:9080");
    assert_true(engine_has_ruleset(engine));
    run("assert(type(ruleset.resolve) == 'function' and neosocksd.config().listen == '127.0.0.1:1080,127.0.0.1:1081')");
}

static void test_boot_without_ruleset(void **state)
{
    (void)state;
    assert_int_equal(boot("return {}"), 0);
    assert_false(engine_has_ruleset(engine));
    assert_int_equal(boot("return { auth_required = true }"), -1);
    config.auth_required = false;
    assert_int_equal(boot("_G.ruleset = {} return {}"), 0);
    assert_true(engine_has_ruleset(engine));
}

static void test_ruleset_file(void **state)
{
    char *packed;
    size_t size;
    struct ask a;
    (void)state;
    config.ruleset = script_path;
    write_script("return 1", 8);
    assert_int_equal(engine_boot(engine, &config), -1);
    assert_string_equal(engine->last_error, "ruleset: expected table, got number");
    static const char code[] = "#!x\nassert(... == 'ruleset') return { resolve = function(a) return a end }";
    assert_int_equal(codec_encode(CODEC_GZIP, code, sizeof code - 1, &packed, &size), CODEC_OK);
    write_script(packed, size - 9);
    assert_int_equal(engine_boot(engine, &config), -1); /* cut off */
    write_script(packed, size);
    free(packed);
    assert_int_equal(engine_boot(engine, &config), 0);
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "dial a.b:1");
    run("assert(neosocksd.config().ruleset == '"
        "/tmp' or neosocksd.config().ruleset:find('sluice%-script'))");

    uint32_t revision = engine_revision(engine); /* SIGHUP */
    write_script("error('no')", 11);
    hooks.on_reload(hooks.context);
    assert_int_equal(engine_revision(engine), revision);
    unlink(script_path);
    hooks.on_reload(hooks.context);
    assert_int_equal(engine_revision(engine), revision);
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "dial a.b:1");
    write_script("return { resolve = function() return 'new:1' end }", 50);
    hooks.on_reload(hooks.context);
    assert_true(engine_revision(engine) > revision);
    ask(&a, "a.b:1", 0);
    assert_string_equal(verdict(&a), "dial new:1");
}

static const struct config *now(void)
{
    return coordinator_config(coordinator);
}

static void reload(const char *code)
{
    write_script(code, strlen(code));
    hooks.on_reload(hooks.context);
}

static void test_boot_reload(void **state)
{
    (void)state;
    config.listeners[0] = (struct listener_config){.text = "127.0.0.1:1080"};
    config.listener_count = 1;
    assert_int_equal(boot("count = (count or 0) + 1\n"
                          "return { timeout = 10, ruleset = { resolve = function() return 'one:1' end } }"),
                     0);
    reload("count = count + 1 return { timeout = 20.5, proxy = 'http://p:1', ruleset = { } }");
    assert_int_equal(now()->timeout_ms, 20500);
    assert_int_equal(now()->hop_count, 1);
    run("assert(count == 2 and ruleset.resolve == nil and neosocksd.config().timeout == 20.5)"); /* the same state */
    for (const char *const *bad =
             (const char *const[]){"return { timeout = 1, ruleset = { bad = 1 } }", "return { loglevel = 'x' }",
                                   "return { max_sessions = 1, startup_limit_full = 5 }", "error('x')", "return 5",
                                   "_G.ruleset = 5 error('x')",
                                   "_G.ruleset = nil return { auth_required = true, timeout = 30 }",
                                   "return { max_sessions = 4, proxy = 'x' }", NULL};
         *bad; bad++) {
        reload(*bad);
        assert_int_equal(now()->timeout_ms, 20500);
        assert_int_equal(now()->max_sessions, 64);
        run("assert(ruleset.bad == nil)");
        assert_true(engine_has_ruleset(engine));
    }
    for (int i = 0; i < 3; i++) { /* without a ruleset, and again: neosocksd frees its state twice */
        reload("_G.ruleset = 5 return { timeout = 30 }");
        assert_int_equal(now()->timeout_ms, 30000);
        assert_false(engine_has_ruleset(engine));
        assert_int_equal(engine_revision(engine), 0);
    }
    reload("return { ruleset = {} }");
    assert_true(engine_has_ruleset(engine));
}

#define WITH_ENGINE(f) cmocka_unit_test_setup_teardown(f, open_engine, close_engine)
#define WITH_SCRIPT(f) cmocka_unit_test_setup_teardown(f, open_with_script, close_with_script)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ENGINE(test_update),
        WITH_ENGINE(test_update_module),
        WITH_ENGINE(test_invoke),
        WITH_ENGINE(test_require),
        WITH_ENGINE(test_decisions),
        WITH_ENGINE(test_decisions_behind_chain),
        WITH_ENGINE(test_arguments),
        WITH_ENGINE(test_traceback),
        WITH_ENGINE(test_cache),
        WITH_ENGINE(test_tag),
        WITH_ENGINE(test_sleep),
        WITH_ENGINE(test_many_sleep),
        WITH_ENGINE(test_too_many_wait),
        WITH_ENGINE(test_forward),
        WITH_ENGINE(test_forward_without_session),
        WITH_ENGINE(test_forward_arguments),
        WITH_ENGINE(test_forward_abandoned),
        WITH_ENGINE(test_cancel),
        WITH_ENGINE(test_resumed_by_script),
        WITH_ENGINE(test_meddling),
        WITH_ENGINE(test_foreign_coroutines),
        WITH_ENGINE(test_stop),
        WITH_ENGINE(test_async),
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
        WITH_SCRIPT(test_boot_errors),
        WITH_SCRIPT(test_boot),
        WITH_SCRIPT(test_boot_without_ruleset),
        WITH_SCRIPT(test_ruleset_file),
        WITH_SCRIPT(test_boot_reload),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
