/* Coroutines of questions: what they wait for, and how they end. */
#include "tests/engine_asked.h"

/* --- waiting --- */

static void test_sleep(void **state)
{
    struct ask a;
    (void)state;
    install(
        "return { resolve = function(addr)\n"
        "  assert(select('#', await.sleep(0.01)) == 0) await.sleep('0.001') await.sleep(0) await.idle()\n"
        "  assert(select('#', coroutine.resume(coroutine.create(function() await.sleep(0) end))) == 1)\n"
        "  for _, n in ipairs{ -1, 0/0, 1/0, 1e10 } do\n"
        "    local ok, e = pcall(await.sleep, n)\n"
        "    assert(not ok and e == 'n must be finite and in [0, 1e9]', e) end\n"
        "  assert(not pcall(await.sleep)) assert(not pcall(await.sleep, {}))\n"
        "  local begin = time.monotonic() repeat until time.monotonic() - begin > 0.1\n"
        "  local fastest = 1 for i = 1, 10 do begin = time.monotonic() await.sleep(0.02)\n"
        "    local took = time.monotonic() - begin assert(took >= 0.02, took) fastest = math.min(fastest, took) end\n"
        "  assert(fastest < 0.1, fastest)\n" /* not each: the machine may have other work just then */
        "  assert(await.resolve('1.2.3.4') == '1.2.3.4' and await.resolve('::1') == '::1')\n"
        "  assert(await.addresses('1.2.3.4') == '1.2.3.4' and select('#', await.addresses('no name')) == 0)\n"
        "  local first, second = await.addresses('localhost') assert(first == await.resolve('localhost'))\n"
        "  assert(second == nil or second ~= first)\n"
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
    check_seen("false connection failed|false proxy authentication failed");
    struct engine_counters counters;
    engine_get_counters(engine, &counters);
    assert_int_equal(counters.routes, 2);
    assert_int_equal(counters.forwards_failed, 2);
}

/* Nobody learns whether a datagram arrives: the first way is the one. */
static void test_forward_of_datagrams(void **state)
{
    struct ask a;
    (void)state;
    install(forwarding);
    ask(&a, "a.b:1", 5);
    a.answers = 0;
    hooks.on_routed(hooks.context, 0, 5, 7, 0);
    run("_G.seen = {}");
    a.request.command = ROUTE_ASSOCIATE;
    ask_again(&a, FAIL_NONE);
    assert_string_equal(verdict(&a), "dial a.b:1 a:1 b:2");
    check_seen("true nil");
    ask_again(&a, FAIL_NONE); /* about another target of it: nothing is left of the first question */
    assert_string_equal(verdict(&a), "dial a.b:1 a:1 b:2");
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

/* There is no worker that would take it: the sockets stay where they are, in their sets as well. */
static void test_relay_without_room(void **state)
{
    struct ask a;
    (void)state;
    install(
        "return { resolve = function(addr)\n"
        "  local l <close> = socket.new('i', 't') l:bind('127.0.0.1') l:listen(4) local _, port = l:getsockname()\n"
        "  local function pair() local s = socket.new('i', 't') s:connect('127.0.0.1', port) return s, l:accept() end\n"
        "  local a, b = pair() local c, d = pair() local set = socket.poll{a, c}\n"
        "  local ok, e = pcall(a.relay, a, c) assert(not ok and e.name == 'EAGAIN', e)\n"
        "  d:send'x' assert(set:select(1) == 1) assert(c:receive(1) == 'x')\n"
        "  b:send'y' assert(set:select(1) == 0) assert(a:receive(1) == 'y')\n"
        "  for _, s in ipairs{a, b, c, d} do s:close() end return addr end }");
    ask(&a, "a.b:1", 0);
    turn_until(&a);
    assert_string_equal(verdict(&a), "dial a.b:1");
}

static void turn_for(uint64_t ms)
{
    uint64_t end = coordinator_now_ms(coordinator) + ms;
    run("coroutine.wrap(function() await.sleep(1) end)()"); /* somebody has to end the waiting of a turn */
    while (coordinator_now_ms(coordinator) < end) turn();
}

/* The drain is over: there are no ticks any more, whatever the loop still turns for. */
static void test_no_ticks_at_the_end(void **state)
{
    (void)state;
    install("ticks = 0 neosocksd.setinterval(0.005)\n"
            "coroutine.wrap(function() while true do await.sleep(0.002) end end)()\n"
            "return { tick = function() ticks = ticks + 1 coroutine.wrap(await.sleep)(10) end }");
    turn_for(50);
    run("assert(_G.ticks > 0) _G.ticks = 0");
    hooks.on_stop(hooks.context);
    turn_for(50);
    run("assert(_G.ticks == 0, tostring(_G.ticks))");
}

/* Being closed, it admits no entry: what was waited for comes in vain, and nothing begins to wait. */
static void test_no_entries_when_closed(void **state)
{
    struct engine_text error = {0};
    (void)state;
    run("_G.woken = false coroutine.wrap(function() await.sleep(0.01) _G.woken = true end)()\n"
        "coroutine.wrap(function() while true do await.sleep(0.002) end end)()");
    engine->closing = true;
    uint64_t end = coordinator_now_ms(coordinator) + 40;
    while (coordinator_now_ms(coordinator) < end && engine->coroutines.parked_count > 0) turn();
    assert_int_equal(engine_invoke(engine, "woken = true", 12, &error), -1);
    assert_string_equal(error.data, "the server stops");
    engine_text_free(&error);
    engine->closing = false;
    run("assert(_G.woken == false)");
}

/* What is raised while a coroutine is closed, nobody can catch: it is told. */
static void test_errors_while_closing(void **state)
{
    struct ask a;
    (void)state;
    install("return { resolve = function(addr)\n"
            "  local c <close> = setmetatable({}, {__close = function() error('within close') end})\n"
            "  await.sleep(9) end }");
    ask(&a, "a.b:1", 0);
    hooks.on_cancel(hooks.context, 0, 0, 7);
    assert_int_equal(a.answers, 1);
    assert_non_null(strstr(engine->last_error, "within close"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ENGINE(test_sleep),
        WITH_ENGINE(test_many_sleep),
        WITH_ENGINE(test_too_many_wait),
        WITH_ENGINE(test_forward),
        WITH_ENGINE(test_forward_of_datagrams),
        WITH_ENGINE(test_forward_without_session),
        WITH_ENGINE(test_forward_arguments),
        WITH_ENGINE(test_forward_abandoned),
        WITH_ENGINE(test_cancel),
        WITH_ENGINE(test_resumed_by_script),
        WITH_ENGINE(test_errors_while_closing),
        WITH_ENGINE(test_relay_without_room),
        WITH_ENGINE(test_no_ticks_at_the_end),
        WITH_ENGINE(test_no_entries_when_closed),
        WITH_ENGINE(test_meddling),
        WITH_ENGINE(test_foreign_coroutines),
        WITH_ENGINE(test_stop),
        WITH_ENGINE(test_async),
    };
    return cmocka_run_group_tests_name("coroutines", tests, NULL, NULL);
}
