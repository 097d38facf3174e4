/* What Lua may do between a check and its use: finalizers run wherever something is allocated, metamethods wherever a
 * table is read or written, and both may close sockets, receive, resume coroutines and change tables. Here every
 * allocation runs a full collection with a finalizer of that kind. */
#include "lua/socket/socket.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/socket_scripts.h"

/* under(action, body): `action` is a finalizer's at every allocation of `body`, with its number as argument. */
static const char hostile[] =
    "function _G.under(action, body) local mt, live, n = {}, true, 0 "
    "  mt.__gc = function() if live then n = n + 1 pcall(action, n) setmetatable({}, mt) end end "
    "  setmetatable({}, mt) collectgarbage('incremental', 0, 0, 63) collectgarbage('setpause', 0) collectgarbage() "
    "  local result = table.pack(pcall(body)) live = false "
    "  collectgarbage('setpause', 200) collectgarbage('generational') return table.unpack(result, 1, result.n) end ";

static const char unix_name[] =
    "12345"; /* of a Unix socket, given as a number: to become text it takes an allocation */
static char folder[] = "/tmp/hostile-XXXXXX";
static int home = -1; /* the folder to go back to */

static int open_hostile(void **state)
{
    struct engine_text error = {0};
    home = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (home < 0 || !mkdtemp(folder) || chdir(folder) < 0) return -1;
    int failed = open_all(state);
    return failed == 0 ? engine_invoke(engine, hostile, sizeof hostile - 1, &error) : failed;
}

/* Scripts have left nothing else. */
static int close_hostile(void **state)
{
    int failed = close_all(state);
    (void)unlink(unix_name);
    if (fchdir(home) < 0 || close(home) < 0 || rmdir(folder) < 0) return -1;
    return failed;
}

/* The finalizer closes the socket at the first, the second, ... allocation of the call. */
static void test_closed_within_a_call(void **state)
{
    static const char *const calls[] = {
        "b:send{1, 2, 3} a:recv(16)",
        "b:send{1, 2, 3} a:recvmsg{iov_len = 16}",
        "b:send{1, 2, 3} a:recvmsg({}, data.new(2))",
        "a:recv(16)",
        "b:send('12345') a:receive(3)",
        "b:send('12345\\n') a:receive()",
        "b:send(('x'):rep(5000) .. '\\n') a:receive('*l')",
        "b:send(('x'):rep(5000)) b:close() a:receive('*a')",
        "a:send(123456)",
        "a:send{1, 2, 3}",
        "a:sendmsg({}, {1, 2, 3})",
        "a:getsockname()",
        "a:getpeername()",
        "a:shutdown(1.5)",
        "a:shutdown'w'",
        "a:getsockopt('s', 'RCVBUF')",
        "a:setsockopt(1, 2, 3)",
        "local s = socket.poll{a} s:select(0.01)",
        "local c, d = pair() d:close() b:close() a:relay(c)",
        "a = socket.new('i', 't') a:bind('127.0.0.1') a:listen(4) a:settimeout(0.01) a:accept()",
        "a = socket.new('i', 't') a:connect('127.0.0.1', tostring(9))",
        "a = socket.new('x', 'u') a:bind(12345)",
        "a = socket.new('x', 'u') a:connect(12345)",
        "a = socket.new('i', 'u') a:sendmsg({name = setmetatable({}, {__index = function() a:close() end})}, {1})",
    };
    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        char source[1024];
        snprintf(source, sizeof source,
                 "for at = 1, 12 do local a, b = pair() a:settimeout(0.005) b:settimeout(0.005) "
                 "under(function(n) if n >= at then a:close() end end, function() %s end) a:close() b:close() end",
                 calls[i]);
        check(source);
    }
    check("local a, b = pair() b:send{1, 2} "
          "pcall(a.recvmsg, a, setmetatable({iov_len = 4}, {__newindex = function() a:close() end})) b:close()");
}

/* A line of one octet is not paid for with the room for a long one. */
static void test_receive_leaves_little(void **state)
{
    (void)state;
    check("local a, b = pair() b:send(('\\n'):rep(200)) b:send(('x'):rep(300)) await.sleep(0.01) "
          "collectgarbage() collectgarbage('stop') local before = collectgarbage('count') "
          "for _ = 1, 200 do assert(a:receive() == '') end for _ = 1, 100 do assert(a:receive(3) == 'xxx') end "
          "local made = collectgarbage('count') - before collectgarbage('restart') assert(made < 1024, made) "
          "b:send(('y'):rep(10000) .. '\\n' .. ('z'):rep(100000)) b:close() assert(#a:receive() == 10000) "
          "assert(#a:receive('*a') == 100000) a:close()");
    check("local r = socket.new('i', 'u') r:bind('127.0.0.1') local _, port = r:getsockname() "
          "local s = socket.new('i', 'u') s:connect('127.0.0.1', port) "
          "for _, n in ipairs{1, 0, 1500, 60000, 3} do s:send(('d'):rep(n)) end "
          "for _, n in ipairs{1, 0, 1500, 60000, 3} do assert(#r:receive() == n) end r:close() s:close()");
}

static void test_layout_grows(void **state)
{
    (void)state;
    check("for at = 1, 6 do local t = {a = {0, 8}} "
          "under(function(n) if n == at then for i = 1, 2000 do t['k' .. i] = {0, 8} end end end, "
          "function() data.layout(t) end) end");
    /* A text that is made of a number, by then the layout is another one. */
    check("local d = data.new(8) for at = 1, 6 do d:layout{f = {0, 4, 's'}} "
          "under(function(n) if n == at then d:layout{} end end, function() d.f = 1234 end) end");
}

/* Octets of one connection never stand in another's table. */
static void test_receiving_within_receiving(void **state)
{
    (void)state;
    check("for round = 1, 20 do local a, b = pair() local c, d = pair() c:settimeout(0) a:settimeout(1) "
          "b:send(('a'):rep(64)) d:send(('b'):rep(64)) "
          "local ok, t, size = under(function() c:recv(16) end, function() return a:recv(64) end) "
          "assert(ok and size == 64, t) for i = 1, size do assert(t[i] == 97, t[i]) end "
          "a:close() b:close() c:close() d:close() end");
}

/* Results come without anything that Lua allocates on a coroutine that waits; a finalizer that resumes it finds it
 * where it waits, or running. */
static void test_resumed_by_finalizers(void **state)
{
    (void)state;
    for (const char *const *wait = (const char *const[]){"await.resolve('localhost')", "await.addresses('localhost')",
                                                         "await.execute('exit 3')", "await.sleep(0.001)", NULL};
         *wait; wait++) {
        char source[1024];
        snprintf(source, sizeof source,
                 "for at = 1, 12 do local done, co = 0, nil "
                 "under(function(n) if co and n %% at == 0 then coroutine.resume(co) end end, function() "
                 "co = coroutine.create(function() for _ = 1, 3 do %s end done = true end) coroutine.resume(co) "
                 "for _ = 1, 4 do await.sleep(0.001) end end) end",
                 *wait);
        check(source);
    }
}

/* A coroutine of the script's own waits for one thing at a time, whoever resumes it. */
static void test_stale_wait(void **state)
{
    (void)state;
    check(
        "local a, b = pair() local c, d = pair() a:settimeout(0.03) local got, size "
        "local co = coroutine.create(function() local ok, e = pcall(a.recv, a, 1) assert(not ok and e.name == 'EINTR') "
        "  got, size = c:recv(1) end) "
        "assert(coroutine.resume(co)) assert(coroutine.resume(co)) "
        "await.sleep(0.1) assert(coroutine.status(co) == 'suspended', 'ended by the wait before') "
        "d:send{7} await.sleep(0.05) assert(size == 1 and got[1] == 7) assert(coroutine.status(co) == 'dead') "
        "a:close() b:close() c:close() d:close()");
    check("local a, b = pair() local co, woken = nil, 0 "
          "co = coroutine.create(function() await.sleep(0.03) woken = 1 await.sleep(0.2) woken = 2 end) "
          "coroutine.resume(co) coroutine.resume(co) await.sleep(0.1) assert(woken == 1) await.sleep(0.2) "
          "assert(woken == 2) a:close() b:close()");
}

/* Finalizers that begin to wait, or to profile, while something is about to: one of them is refused, and no timer is
 * left.
 */
static void test_parked_by_finalizers(void **state)
{
    (void)state;
    check("for at = 1, 10 do for _, f in ipairs{await.sleep, sluice.profile} do "
          "under(function(n) if n % at == 0 then coroutine.wrap(f)(0.01) end end, function() sluice.profile(0.01) end) "
          "await.sleep(0.02) end end assert(type(sluice.profile(0.01)) == 'string')");
}

static unsigned turns_of(const char *source)
{
    struct answer answer;
    unsigned turns = 0;
    start(source, &answer);
    for (; !answer.called; turns++) turn();
    if (strcmp(answer.body, "return true") != 0) fail_msg("%s\n   gave %s", source, answer.body);
    return turns;
}

/* Where the kernel's event is always there, the loop does not run round and round. */
static void test_events_in_vain(void **state)
{
    (void)state;
    assert_in_range(
        turns_of("local r = socket.new('x', 'u') r:bind'\\0sluice-full' local s = socket.new('x', 'u') "
                 "local to = {name = {addr = '\\0sluice-full'}} "
                 "while pcall(s.sendmsg, s, {name = to.name, flags = 'D'}, {1}) do end "
                 "s:settimeout(0.2) local e = fails(s.sendmsg, s, to, {1}) assert(e.name == 'ETIMEDOUT', e) "
                 "r:recv(1) assert(s:sendmsg(to, {1}) == 1) r:close() s:close()"),
        1, 200);
    assert_in_range(turns_of("local a, b = pair() b:send{1, 2, 3} await.sleep(0.01) a:settimeout(0.2) "
                             "local e = fails(a.recv, a, 1, 0x2000) assert(e.name == 'ETIMEDOUT', e) "
                             "b:close() a:close()"),
                    1, 200);
}

/* Two that end each other's waiting have one round in a turn, and everybody else has the turn behind it. */
static void test_rounds_are_turns(void **state)
{
    (void)state;
    unsigned turns =
        turns_of("local rounds, mine = 0, {} "
                 "local function player(me, other) return function() while rounds < 400 do rounds = rounds + 1 "
                 "  local s = socket.new('i', 'u') s:bind('127.0.0.1') mine[me] = s "
                 "  if mine[other] then mine[other]:close() end pcall(s.recv, s, 1) end "
                 "  if mine[other] then mine[other]:close() end end end "
                 "together(player(1, 2), player(2, 1))");
    assert_in_range(turns, 300, 100000);
}

/* What finalizers make while a script's state is being closed goes with it. */
static void test_made_at_the_end(void **state)
{
    static const char source[] =
        "local class = {} class.__gc = function() for _ = 1, 3 do local s = socket.new('i', 't') s:bind('127.0.0.1') "
        "s:listen(1) keep = keep or {} keep[#keep + 1] = s keep[#keep + 1] = socket.poll{s} end end "
        "left = setmetatable({}, class)";
    struct engine_text error = {0};
    struct engine_script script;
    (void)state;
    unsigned before = support_count_descriptors();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(engine_add_script(engine, "ends", source, strlen(source), &error), ENGINE_SCRIPT_OK);
        while (engine_get_script(engine, 0, &script) && script.state == ENGINE_SCRIPT_RUNNING) turn();
        assert_int_equal(script.state, ENGINE_SCRIPT_FINISHED);
    }
    assert_true(engine_remove_script(engine, "ends"));
    for (int i = 0; i < 20 && support_count_descriptors() > before; i++) run("await.sleep(0.01)", "return true");
    assert_int_equal(support_count_descriptors(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed_within_a_call),
        cmocka_unit_test(test_receive_leaves_little),
        cmocka_unit_test(test_layout_grows),
        cmocka_unit_test(test_receiving_within_receiving),
        cmocka_unit_test(test_resumed_by_finalizers),
        cmocka_unit_test(test_parked_by_finalizers),
        cmocka_unit_test(test_stale_wait),
        cmocka_unit_test(test_events_in_vain),
        cmocka_unit_test(test_rounds_are_turns),
        cmocka_unit_test(test_made_at_the_end),
    };
    return cmocka_run_group_tests(tests, open_hostile, close_hostile);
}
