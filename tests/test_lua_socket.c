/* Sockets of scripts with a real coordinator and a worker that relays: each function with right and wrong arguments,
 * what blocks and what ends the waiting. */
#include "lua/socket/socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "tests/socket_scripts.h"

/* The call raises, and its message has these words. */
static void refuse(const char *call, const char *words)
{
    struct answer answer;
    char source[1024];
    snprintf(source, sizeof source,
             "local ok, e = pcall(function() local s, u = socket.new('i', 't'), socket.new('i', 'u') %s end) "
             "return ok, tostring(e)",
             call);
    start(source, &answer);
    while (!answer.called) turn();
    if (strncmp(answer.body, "return true,false,", 18) != 0 || !strstr(answer.body, words))
        fail_msg("%s\n   gave %s", call, answer.body);
}

static void test_new(void **state)
{
    (void)state;
    check(
        "for _, f in ipairs{'inet', 'i', 'inet6', 'i6', 'unix', 'x'} do for _, t in ipairs{'tcp', 't', 'udp', 'u'} do "
        "local s <close> = socket.new(f, t) assert(tostring(s):find('^socket %(')) end end "
        "assert(require'socket' == socket)");
    check("local s = socket.new('internet', 'tea') assert(tostring(s):find('inet, tcp', 1, true)) s:close() s:close() "
          "assert(tostring(s) == 'socket (closed)')");
    refuse("socket.new()", "string expected");
    refuse("socket.new('q', 't')", "invalid family name");
    refuse("socket.new('i', 'q')", "invalid type name");
    refuse("socket.new('', 't')", "invalid family name");
    refuse("s.bind({}, '127.0.0.1', 1)", "socket expected, got table");
    refuse("s:close() s:listen(1)", "listen: EBADF");
    refuse("s.nothing()", "nil value");
    check("local s = socket.new('i', 't') assert(getmetatable(s) == false) s:close()");
}

static void test_addresses(void **state)
{
    (void)state;
    check("local s <close> = socket.new('i', 't') s:bind(0x7f000001) local ip, port = s:getsockname() "
          "assert(ip == '127.0.0.1' and port > 0)");
    check("local port = free_port() local s <close> = socket.new('i', 't') s:bind('127.0.0.1', port) "
          "assert(select(2, s:getsockname()) == port)");
    check("local s <close> = socket.new('i6', 't') s:bind('::1') assert(s:getsockname() == '::1')");
    check("local s <close> = socket.new('i6', 't') s:bind('127.0.0.1') assert(s:getsockname() == '::ffff:127.0.0.1')");
    check(
        "local s <close> = socket.new('x', 't') s:bind('\\0sluice-test') assert(s:getsockname() == '\\0sluice-test')");
    check("local s <close> = socket.new('x', 't') assert(s:getsockname() == '')");
    for (const char *const *method = (const char *const[]){"bind", "connect", NULL}; *method; method++) {
        static const char *const rows[][2] = {{"'127.0.0.1', 0", "Port number out of range"},
                                              {"'127.0.0.1', 65536", "Port number out of range"},
                                              {"'127.0.0.1', -1", "Port number out of range"},
                                              {"'127.0.0.1', 'x'", "number expected"},
                                              {"'127.0.0.1', 1.5", "no integer representation"},
                                              {"'localhost', 1", "invalid address"},
                                              {"'', 1", "invalid address"},
                                              {"'127.1', 1", "invalid address"},
                                              {"{}, 1", "address as text or number expected"},
                                              {"nil, 1", "address as text or number expected"},
                                              {"-1, 1", "invalid address"},
                                              {"1 << 32, 1", "invalid address"},
                                              {"1.5, 1", "invalid address"},
                                              {"'::1', 1", "invalid address"}};
        char call[128];
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            snprintf(call, sizeof call, "s:%s(%s)", *method, rows[i][0]);
            refuse(call, rows[i][1]);
        }
    }
    refuse("s:connect('127.0.0.1')", "number expected");
    refuse("s:connect('127.0.0.1', 1, 'X')", "invalid flags name");
    refuse("local x = socket.new('x', 't') x:bind('')", "path empty or too long");
    refuse("local x = socket.new('x', 't') x:bind(('p'):rep(108))", "path empty or too long");
    refuse("local x = socket.new('x', 't') x:bind('a\\0b')", "path with a zero octet");
    refuse("local x = socket.new('i6', 't') x:bind('::1%nothing')", "invalid address");
    refuse("local x = socket.new('i6', 't') x:bind(('1'):rep(99))", "invalid address");
    refuse("s:bind('192.0.2.1', 5)", "bind: EADDRNOTAVAIL (Cannot assign requested address)");
    refuse("s:listen(0)", "Backlog number out of range");
    refuse("s:listen()", "number expected");
    refuse("u:listen(1)", "listen: EOPNOTSUPP");
    refuse("s:getpeername()", "getpeername: ENOTCONN");
}

static void test_errors(void **state)
{
    (void)state;
    check("local port = free_port() local s <close> = socket.new('i', 't') local e = fails(s.connect, s, '127.0.0.1', "
          "port) "
          "assert(tostring(e) == 'connect: ECONNREFUSED (Connection refused)') "
          "assert(e.code == -111 and tonumber(e.code) == -111 and e.errno == 111 and e.name == 'ECONNREFUSED') "
          "assert(e.call == 'connect' and e.message == tostring(e) and e.other == nil and e[1] == nil) "
          "assert('failed: ' .. e == 'failed: ' .. tostring(e) and e .. '!' == tostring(e) .. '!') "
          "local again <close> = socket.new('i', 't') assert(e == fails(again.connect, again, '127.0.0.1', port)) "
          "assert(e ~= fails(s.getpeername, s) and e ~= -111) "
          "assert(getmetatable(e) == false)");
    run("socket.new('i', 't'):getpeername()",
        "return false,\"getpeername: ENOTCONN (Transport endpoint is not connected)\"");
}

static void test_tables_and_buffers(void **state)
{
    (void)state;
    check("local a, b = pair() "
          "assert(a:send{1, 2, 255, 0} == 4) local d, n = b:recv(10) assert(n == 4 and #d == 4 and d[3] == 255 and "
          "d[4] == 0) "
          "assert(b:sendmsg({}, {7, 8, 9}) == 3) local h local msg = {iov_len = 2} d, n, h = a:recvmsg(msg) "
          "assert(#d == 2 and n == 2 and h == msg and h.iov_len == 2 and h.flags == 0) "
          "assert(h.name.addr == '127.0.0.1' and h.name.port == select(2, a:getpeername())) "
          "d, n = a:recv(5) assert(#d == 1 and d[1] == 9) "
          "local out = data.new{0xff, 0xfe, 0} assert(a:send(out:segment(1)) == 2) local buf = data.new(8) "
          "local got, size = b:recv(buf:segment(3)) assert(size == 2 and buf[3] == 0xfe and buf[4] == 0 and #got == 5) "
          "a:sendmsg({flags = 0}, 'text') got, size, h = b:recvmsg({}, buf) assert(got == buf and size == 4 and "
          "h.iov_len == 8) "
          "assert(buf:string(0, size) == 'text') "
          "assert(a:send(buf:segment(0, 0)) == 0) "
          "a:sendmsg({}, {5}) got, size = b:recvmsg({iov_len = 3}, nil, 'D') assert(got[1] == 5) "
          "assert(fails(b.recvmsg, b, {}, buf, 'D').name == 'EAGAIN' and fails(b.recvmsg, b, {iov_len = 1}, 'D').call "
          "== 'recvmsg') "
          "assert(fails(b.recv, b, 1, 'D').call == 'recv' and fails(b.recv, b, buf, 0x40).code == -11) "
          "a:close() d, n = b:recv(3) assert(n == 0 and #d == 0) d, n = b:recv(buf) assert(d == buf and n == 0) "
          "b:close()");
    check("local a, b = pair() a:send(('x'):rep(3 << 20):sub(1, 100)) local d, n = b:recv(1 << 20) assert(#d == 100) "
          "a:close() b:close()");
    refuse("s:recv()", "size or data expected");
    refuse("s:recv('5')", "size or data expected");
    refuse("s:recv(0)", "size must be positive");
    refuse("s:recv(data.new(1):segment(1))", "buffer is empty");
    refuse("s:recv(-1)", "size must be positive");
    refuse("s:recv((1 << 20) + 1)", "at most 1 MiB");
    refuse("s:recv(1.5)", "size must be an integer");
    refuse("s:recv(1, 'X')", "invalid flags name");
    refuse("s:recv(1, {})", "flags as text or number expected");
    refuse("s:recv(1, -1)", "invalid flags");
    refuse("s:recvmsg()", "table expected");
    refuse("s:recvmsg({})", "'iov_len' can not be empty");
    refuse("s:recvmsg({iov_len = 'x'})", "size must be an integer");
    refuse("s:recvmsg({iov_len = 0})", "size must be positive");
    refuse("s:recvmsg({iov_len = 1}, {})", "flags as text or number expected");
    refuse("s:recvmsg({iov_len = 1}, nil, 'X')", "invalid flags name");
    refuse("s:recvmsg({}, data.new(1), 'X')", "invalid flags name");
    refuse("s:sendmsg('x', 'x')", "table expected");
    refuse("s:sendmsg({})", "data must be a table");
    refuse("s:sendmsg({}, {})", "data can not be empty");
    refuse("s:sendmsg({}, {256})", "element 1 is no octet");
    refuse("s:sendmsg({}, {-1})", "element 1 is no octet");
    refuse("s:sendmsg({}, {1, 'x'})", "element 2 is no octet");
    refuse("s:sendmsg({flags = 'X'}, {1})", "invalid flags name");
    refuse("s:sendmsg({name = 5}, {1})", "'name' must be a table");
    refuse("u:sendmsg({name = {addr = 'x', port = 1}}, {1})", "invalid address");
    refuse("u:sendmsg({name = {addr = '127.0.0.1'}}, {1})", "number expected");
    refuse("u:sendmsg({name = {addr = '127.0.0.1', port = 0}}, {1})", "Port number out of range");
    refuse("s:send()", "data must be a table");
    refuse("s:send(io.stdout)", "data must be a table");
    refuse("s:send{1}", "send: EPIPE");
    refuse("s:sendmsg({}, {1})", "sendmsg: EPIPE");
    refuse("s:recv(1)", "recv: ENOTCONN");
    refuse("u:send{1}", "send: EDESTADDRREQ");
}

static void test_datagrams(void **state)
{
    (void)state;
    check(
        "local a, b = socket.new('i', 'u'), socket.new('i', 'u') b:bind('127.0.0.1') local ip, port = b:getsockname() "
        "b:setsockopt('s', 'r', 1 << 20) "
        "for _, size in ipairs{1, 512, 1472, 65507} do "
        "  local text = ('0123456789'):rep(6551):sub(1, size) local buf = data.new(65536) "
        "  assert(a:sendmsg({name = {addr = ip, port = port}}, text) == size) "
        "  local _, n, h = b:recvmsg({}, buf) assert(n == size and buf:string(0, n) == text) "
        "  assert(h.name.addr == '127.0.0.1' and h.name.port == select(2, a:getsockname())) "
        "  assert(b:sendmsg(h, {size & 255}) == 1) assert(a:recv(9)[1] == size & 255) "
        "end "
        "assert(fails(a.sendmsg, a, {name = {ip, port}}, ('x'):rep(65508)).name == 'EMSGSIZE') "
        "a:sendmsg({name = {ip, port}}, {1, 2, 3, 4}) local d, n, h = b:recvmsg{iov_len = 2} assert(n == 2 and h.flags "
        "& 0x20 ~= 0) "
        "a:sendmsg({name = {ip, port}}, {1, 2, 3, 4}) d, n = b:recv(2, 0x20) assert(n == 4 and #d == 2) "
        "a:connect(ip, port) assert(a:send('text') == 4) assert(b:receive() == 'text') "
        "assert(a:send('') == 0) assert(b:receive(100) == '') assert(a:send('cut off') == 7) assert(b:receive(3) == "
        "'cut') "
        "assert(b:settimeout(0) == nil) local t, why, part = b:receive() assert(not t and why == 'timeout' and part == "
        "'') "
        "a:close() b:close()");
    check("local a, b = socket.new('i6', 'u'), socket.new('i6', 'u') b:bind('::1') a:connect(b:getsockname()) "
          "a:send{1} local _, _, h = b:recvmsg{iov_len = 1} assert(h.name.addr == '::1') a:close() b:close()");
    check("local a, b = socket.new('x', 'u'), socket.new('x', 'u') a:bind('\\0sluice-a') b:bind('\\0sluice-b') "
          "a:sendmsg({name = {addr = '\\0sluice-b'}}, 'hello') local d, n, h = b:recvmsg{iov_len = 9} "
          "assert(n == 5 and h.name.addr == '\\0sluice-a' and h.name.port == nil) a:close() b:close()");
    /* The longest that receive() takes of a Unix socket, whose datagrams may be longer than those of UDP. */
    check("local a <close> = socket.new('x', 'u') local b <close> = socket.new('x', 'u') "
          "b:bind('\\0sluice-test-datagrams') "
          "a:connect('\\0sluice-test-datagrams') for _, wanted in ipairs{1 << 20, 65535, false} do "
          "  assert(a:send(('x'):rep(65535)) == 65535) assert(#b:receive(wanted or nil) == 65535) "
          "end assert(a:send(('x'):rep(65536)) == 65536) assert(#b:receive() == 65535)");
}

static void test_families(void **state)
{
    (void)state;
    check("local s = socket.new('i6', 't') s:bind('::1') s:listen(1) local c = socket.new('i6', 't') "
          "c:connect(s:getsockname()) "
          "local p = s:accept() assert(p:getpeername() == '::1') c:send'six' assert(p:receive(3) == 'six') "
          "s:close() c:close() p:close()");
    check("os.remove'build/test.socket' local s = socket.new('x', 't') s:bind'build/test.socket' s:listen(1) "
          "assert(s:getsockname() == 'build/test.socket') "
          "local c = socket.new('x', 't') c:connect'build/test.socket' local p = s:accept() "
          "assert(c:getpeername() == 'build/test.socket' and p:getpeername() == '') "
          "c:send{1, 2} assert(p:recv(2)[2] == 2) s:close() c:close() p:close() os.remove'build/test.socket'");
    /* The listener's queue is full: it is tried again until there is room, or until the time is over. */
    check("local s = socket.new('x', 't') s:bind'\\0sluice-full' s:listen(1) local held = {} "
          "for i = 1, 2 do held[i] = socket.new('x', 't') held[i]:connect'\\0sluice-full' end "
          "local c = socket.new('x', 't') assert(fails(c.connect, c, '\\0sluice-full', nil, 'D').name == 'EAGAIN') "
          "c:settimeout(0.05) assert(fails(c.connect, c, '\\0sluice-full').name == 'ETIMEDOUT') c:settimeout() "
          "together(function() c:connect'\\0sluice-full' end, function() await.sleep(0.03) held[3] = s:accept() end) "
          "c:close() s:close() for _, h in ipairs(held) do h:close() end");
}

/* Both ways at once, more than any buffer of the kernel holds. */
static void test_partial(void **state)
{
    (void)state;
    check("local a, b = pair() a:setsockopt('s', 's', 8192) b:setsockopt('s', 'r', 8192) "
          "local text = ('0123456789abcdef'):rep(1 << 16) local got = {} "
          "together(function() assert(a:send(text) == #text) a:shutdown'send' end, "
          "  function() local buf = data.new(10000) while true do local _, n = b:recv(buf) if n == 0 then break end "
          "    got[#got + 1] = buf:string(0, n) if #got % 64 == 0 then await.sleep(0) end end end, "
          "  function() assert(b:send(data.new(text)) == #text) end, "
          "  function() assert(a:receive(#text) == text) end) "
          "assert(table.concat(got) == text) a:close() b:close()");
    /* What is left when the time is over, or when it must not block, is told. */
    check("local a, b = unix_pair() a:settimeout(0.02) local text = ('x'):rep(32 << 20) "
          "local ok, sent, total = true, nil, 0 while ok do ok, sent = pcall(a.sendmsg, a, {}, text) total = total + "
          "(ok and sent or 0) end "
          "assert(total > 0 and total < #text and sent.name == 'ETIMEDOUT') "
          "assert(fails(a.sendmsg, a, {}, text).name == 'ETIMEDOUT' and fails(a.sendmsg, a, {flags = 0x40}, text).name "
          "== 'EAGAIN') "
          "local last, why, index = a:send(text) assert(last == nil and why == 'timeout' and index == 0) "
          "last, why, index = a:send(text, 5, 9) assert(index == 4) a:close() b:close()");
    check("local a, b = pair() b:settimeout(0) local text = ('y'):rep(3 << 20) "
          "together(function() a:send(text) end, function() local n = 0 while n < #text do "
          "  local t, why, part = b:receive(#text - n) n = n + #(t or part) assert(t or why == 'timeout') "
          "await.sleep(0) end end) "
          "a:close() b:close()");
}

static void test_receive(void **state)
{
    (void)state;
    check("local a, b = pair() a:send'one\\r\\ntwo\\nth' assert(b:receive() == 'one' and b:receive'*l' == 'two') "
          "together(function() assert(b:receive'l' == 'three') end, function() await.sleep(0) a:send'ree\\n12345rest' "
          "end) "
          "assert(b:receive(5) == '12345' and b:receive(0) == '') "
          "assert(b:recv(2)[1] == ('r'):byte()) "
          "together(function() assert(b:receive'*a' == 'st and the end') end, function() a:send' and the end' "
          "a:close() end) "
          "local t, why, part = b:receive'*a' assert(t == nil and why == 'closed' and part == '') "
          "t, why, part = b:receive() assert(t == nil and why == 'closed' and part == '') b:close() "
          "t, why = b:receive() assert(t == nil and why == 'closed') t, why = b:send'x' assert(t == nil and why == "
          "'closed')");
    check("local a, b = pair() a:send'half' a:shutdown'send' local t, why, part = b:receive(5) "
          "assert(not t and why == 'closed' and part == 'half') a:close() b:close()");
    check("local a, b = pair() b:settimeout(0.02) a:send'half' local t, why, part = b:receive(5) "
          "assert(not t and why == 'timeout' and part == 'half') t, why, part = b:receive() assert(why == 'timeout' "
          "and part == '') "
          "a:close() b:close()");
    check("local a, b = pair() local line = ('x'):rep(200000) together(function() a:send(line .. '\\n') end, "
          "function() assert(b:receive() == line) end) "
          "together(function() a:send(('x'):rep(1 << 20)) a:send'\\n' end, function() local t, why, part = b:receive() "
          "assert(not t and why == 'Message too long' and #part == 1 << 20) assert(b:receive() == '') end) a:close() "
          "b:close()");
    check("local a, b = pair() assert(a:send('abcdef', 2) == 6 and a:send('abcdef', -2, -2) == 5 and a:send('abc', 3, "
          "2) == 2 "
          "and a:send('abc', 9) == 3 and a:send('abc', -9, 1) == 1 and a:send(12) == 2) assert(b:receive(9) == "
          "'bcdefea12') "
          "a:close() b:close()");
    refuse("s:receive('x')", "invalid receive pattern");
    refuse("s:receive(-1)", "size must be in 0...64 MiB");
    refuse("s:receive((64 << 20) + 1)", "size must be in 0...64 MiB");
    refuse("s:receive({})", "string expected");
    refuse("s:send('x', 'y')", "number expected");
}

static void test_resets(void **state)
{
    (void)state;
    check("local a, b = pair() b:setsockopt('s', 'l', 0) together(function() assert(fails(a.recv, a, 1).name == "
          "'ECONNRESET') end, "
          "function() await.sleep(0) b:close() end) assert(fails(a.send, a, {1}).name == 'EPIPE') a:close()");
    check("local a, b = pair() a:send'x' b:setsockopt('socket', 'SO_LINGER', 0) await.sleep(0) b:close() "
          "local t, why, part = a:receive(1) assert(t == nil and why == 'closed' and part == '') "
          "t, why = a:send('x') assert(t == nil and why == 'closed') a:close()");
    check("local a, b = pair() a:shutdown'r' a:shutdown(1) assert(select(2, b:recv(1)) == 0) assert(fails(a.send, a, "
          "{1}).name == 'EPIPE') "
          "b:shutdown() b:close() a:close()");
    refuse("s:shutdown('x')", "invalid option 'x'");
    refuse("s:shutdown(3)", "invalid direction");
    refuse("s:shutdown()", "shutdown: ENOTCONN");
}

static void test_timeouts(void **state)
{
    (void)state;
    check("local a, b = pair() a:settimeout(0.03) local t = time.monotonic() local e = fails(a.recv, a, 1) t = "
          "time.monotonic() - t "
          "assert(e.name == 'ETIMEDOUT' and t >= 0.02 and t < 5) "
          "a:settimeout(5) together(function() a:recv(1) end, function() await.sleep(0.01) b:send{1} end) "
          "a:settimeout(-1) together(function() a:recv(1) end, function() await.sleep(0.05) b:send{1} end) "
          "a:settimeout(0) assert(fails(a.recv, a, 1).name == 'ETIMEDOUT') b:send{1} await.sleep(0.01) "
          "assert(a:recv(1)[1] == 1) "
          "a:close() b:close()");
    check("local s <close> = socket.new('i', 't') s:bind'127.0.0.1' s:listen(1) s:settimeout(0.01) "
          "assert(fails(s.accept, s).name == 'ETIMEDOUT' and fails(s.accept, s, 'D').name == 'EAGAIN')");
    /* Nobody answers there: a full queue drops what comes. */
    check("local s <close> = socket.new('i', 't') s:bind'127.0.0.1' s:listen(1) local _, port = s:getsockname() local "
          "held = {} "
          "for i = 1, 2 do held[i] = socket.new('i', 't') held[i]:connect('127.0.0.1', port) end "
          "local c <close> = socket.new('i', 't') assert(fails(c.connect, c, '127.0.0.1', port, 'D').name == "
          "'EINPROGRESS') "
          "assert(fails(c.connect, c, '127.0.0.1', port).name == 'EALREADY') "
          "local d <close> = socket.new('i', 't') d:settimeout(0.02) assert(fails(d.connect, d, '127.0.0.1', "
          "port).name == 'ETIMEDOUT') "
          "for _, h in ipairs(held) do h:close() end");
    refuse("s:settimeout('x')", "number expected");
    refuse("s:settimeout(1e10)", "timeout out of range");
    refuse("s:settimeout(0/0)", "timeout out of range");
    refuse("s:accept('X')", "invalid flags name");
    refuse("s:accept()", "accept: EINVAL");
}

/* What net.ipv4.tcp_congestion_control says. */
static void read_congestion_control(char name[16])
{
    FILE *file = fopen("/proc/sys/net/ipv4/tcp_congestion_control", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%15s", name), 1);
    fclose(file);
}

/* TCP sockets of this process that have another congestion control than the namespace's; *count: all. */
static unsigned count_other_congestion(unsigned *count)
{
    char wanted[16];
    unsigned others = 0;
    read_congestion_control(wanted);
    *count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        char name[16] = "";
        socklen_t size = sizeof name;
        if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size) < 0) continue;
        ++*count;
        others += strcmp(name, wanted) != 0;
    }
    return others;
}

/* Also on loopback: a listener there may be one for TPROXY, whose clients are far away. */
static void test_congestion_control(void **state)
{
    unsigned before, after, others_before, others;
    (void)state;
    engine_collect(engine); /* what the tests before have left behind is not to go in between */
    others_before = count_other_congestion(&before);
    check("local s = socket.new('i6', 't') s:bind('::1') _G.kept = {s, pair()}");
    others = count_other_congestion(&after);
    check("for _, s in ipairs(kept) do s:close() end kept = nil");
    assert_int_equal(after, before + 3);
    assert_int_equal(others, others_before);
}

static void test_options(void **state)
{
    (void)state;
    check("local s, u = socket.new('i', 't'), socket.new('i', 'u') "
          "for _, o in ipairs{'b', 'd', 'dt', 'e', 'k', 'l', 'n', 'o', 'p', 'r', 'ra', 'rp', 's', 't'} do "
          "assert(math.type(u:getsockopt('s', o)) == 'integer', o) end "
          "assert(s:getsockopt('s', 't') == 1 and u:getsockopt('s', 'type') == 2) "
          "s:setsockopt('s', 'k', 1) assert(s:getsockopt('socket', 'SO_KEEPALIVE') == 1) "
          "s:setsockopt('SOL_SOCKET', 'keepalive', false) assert(s:getsockopt('s', 'k') == 0) "
          "s:setsockopt('s', 'r', 65536) assert(s:getsockopt('s', 'r') >= 65536) "
          "s:setsockopt('t', 'TCP_NODELAY', true) assert(s:getsockopt('tcp', 'nodelay') == 1) "
          "s:setsockopt('IPPROTO_IP', 'IP_TTL', 9) assert(s:getsockopt('i', 'ttl') == 9) "
          "assert(s:getsockopt('s', 'l') == -1) s:setsockopt('s', 'l', 0) assert(s:getsockopt('s', 'l') == 0) "
          "s:setsockopt('s', 'l', -1) assert(s:getsockopt('s', 'l') == -1) "
          "local six = socket.new('i6', 't') six:setsockopt('ipv6', 'IPV6_V6ONLY', 1) "
          "assert(six:getsockopt('IPPROTO_IPV6', 'v6only') == 1) "
          "u:setsockopt('u', 'cork', 0) assert(fails(s.setsockopt, s, 's', 't', 1).name == 'ENOPROTOOPT') "
          "s:close() u:close() six:close()");
    refuse("s:getsockopt()", "string expected");
    refuse("s:getsockopt('q', 'r')", "invalid level name");
    refuse("s:getsockopt('s', 'q')", "invalid option name");
    refuse("s:getsockopt('t', 'r')", "invalid option name");
    refuse("s:getsockopt('r', 'r')", "invalid option name");
    refuse("s:setsockopt('s', 'k')", "number expected");
    refuse("s:setsockopt('s', 'l', 1)",
           "bad argument #3 to 'setsockopt' (LINGER is 0 (reset) or -1 (off)"); /* close would wait */
    refuse("s:setsockopt('s', 'k', 'x')", "number expected");
    refuse("s:setsockopt('s', 'r', 1 << 31)", "value out of range");
    refuse("s:getsockopt('u', 'cork')", "getsockopt: EOPNOTSUPP");
}

static void test_outside(void **state)
{
    static const char source[] = "local s <close> = socket.new('i', 't') s:bind('127.0.0.1') s:listen(1) "
                                 "assert(select(2, pcall(s.accept, s, 'D')).name == 'EAGAIN') "
                                 "s:settimeout(0) assert(select(2, pcall(s.accept, s)).name == 'ETIMEDOUT') "
                                 "s:settimeout() s:accept()";
    struct engine_text error = {0};
    (void)state;
    assert_int_equal(engine_invoke(engine, source, sizeof source - 1, &error), -1);
    assert_non_null(strstr(error.data, "accept would block: not in asynchronous routine"));
    engine_text_free(&error);
    static const char raises[] = "socket.new('i', 't'):getpeername()";
    assert_int_equal(engine_invoke(engine, raises, sizeof raises - 1, &error), -1);
    assert_string_equal(error.data, "getpeername: ENOTCONN (Transport endpoint is not connected)");
    engine_text_free(&error);
}

static void test_close_while_waiting(void **state)
{
    (void)state;
    check("local a, b = pair() local e together(function() e = fails(a.recv, a, 1) end, function() await.sleep(0) "
          "a:close() end) "
          "assert(e.name == 'ECANCELED') assert(fails(a.recv, a, 1).name == 'EBADF') assert(select(2, b:recv(1)) == 0) "
          "b:close()");
    check("local a, b = pair() together(function() local t, why = a:receive() assert(not t and why == 'closed') end, "
          "function() await.sleep(0) a:close() end) b:close()");
    check("local a, b = pair() do local c <close> = a end assert(select(2, b:recv(1)) == 0) b:close()");
    /* Several wait for the same, each is served. */
    check("local a, b = pair() local sum = 0 local function one() local o = a:recv(1)[1] sum = sum + o end "
          "together(one, one, one, function() await.sleep(0) b:send{1} b:send{2} b:send{4} end) assert(sum == 7) "
          "a:close() b:close()");
}

/* What is closed is closed: its port, or name, can be had again in the same step. */
static void test_port_is_free_at_once(void **state)
{
    (void)state;
    check(
        "local port = free_port() local waits = {function(s) s:accept() end, function(s) socket.poll{s}:select() end, "
        "function(s) s:settimeout(60) s:accept() end} "
        "for _ = 1, 20 do for _, wait in ipairs(waits) do "
        "  local s, x, u = socket.new('i', 't'), socket.new('x', 't'), socket.new('i', 'u') "
        "  s:setsockopt('s', 'ra', 1) s:bind('127.0.0.1', port) s:listen(5) x:bind'\\0sluice-again' x:listen(5) "
        "  u:bind('127.0.0.1', port) "
        "  neosocksd.async(function() end, wait, s) neosocksd.async(function() end, wait, x) "
        "  neosocksd.async(function() end, u.recv, u, 1) await.sleep(0) s:close() x:close() u:close() end end "
        /* Not even armed yet, and its number is somebody else's at once. */
        "for _ = 1, 20 do local s = socket.new('i', 'u') s:bind('127.0.0.1', port) local e "
        "  neosocksd.async(function(_, why) e = why end, s.recv, s, 1) s:close() "
        "  local a, b = pair() a:send'x' await.sleep(0.001) assert(e.name == 'ECANCELED') assert(b:receive(1) == 'x') "
        "  a:close() b:close() end");
}

static void test_abandoned(void **state)
{
    struct answer answer;
    (void)state;
    check("collectgarbage() collectgarbage()");
    unsigned before = support_count_descriptors(), sockets = socket_count(engine);
    static const char *const waits[] = {
        "local a, b = pair() a:recv(1)",
        "local a, b = pair() a:receive'*a'",
        "local a, b = pair() a:settimeout(60) a:recv(1)",
        "local a, b = pair() a:send(('x'):rep(32 << 20))",
        "local s = socket.new('i', 't') s:bind'127.0.0.1' s:listen(1) s:accept()",
        "local a, b = pair() socket.poll{a, b}:select()",
        "local a, b = pair() socket.poll{a, b}:select(60)",
        ("local s = socket.new('x', 't') s:bind'\\0sluice-w' s:listen(1) local held = {} for i = 1, 3 do "
         "local c = socket.new('x', 't') c:connect'\\0sluice-w'held[i] = c end")};
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++) {
        struct engine_job *call = start(waits[i], &answer);
        for (int turns = 0; turns < 8; turns++) turn();
        assert_false(answer.called);
        assert_false(socket_is_idle());
        engine_job_cancel(call);
        while (!socket_is_idle()) turn();
        engine_collect(engine);
        engine_collect(engine);
        assert_int_equal(socket_count(engine), sockets);
        assert_int_equal(support_count_descriptors(), before);
    }
    /* Collected without having been closed; with a poll that is still in the kernel, too. */
    check("local a, b = pair() _G.kept = b a = nil collectgarbage() collectgarbage() assert(select(2, kept:recv(1)) == "
          "0) "
          "kept:close() kept = nil");
    check("local a, b = pair() local co = coroutine.create(function() a:recv(1) end) coroutine.resume(co) "
          "local ok = coroutine.resume(co, 5) a:close() b:close()");
    engine_collect(engine);
    while (!socket_is_idle()) turn();
    assert_int_equal(support_count_descriptors(), before);
}

/* A script may resume what waits, with whatever it likes: that ends the call, and nothing else. */
static void test_meddling(void **state)
{
    static const char *const calls[] = {"a.recv, a, 1",
                                        "a.recv, a, data.new(5)",
                                        "a.recvmsg, a, {iov_len = 5}",
                                        "a.receive, a, '*a'",
                                        "a.receive, a",
                                        "a.send, a, ('x'):rep(32 << 20)",
                                        "a.sendmsg, a, {}, big",
                                        "server.accept, server",
                                        "select, set",
                                        "a.relay, a, c",
                                        "full.connect, full, '\\0sluice-meddle'"};
    static const char *const values[] = {
        "", ", nil", ", 0", ", 'x', {}, 3", ", -1", ", 1 << 40", ", nil, nil, 1, 2, 3, 4, 5, 6, 7, 8"};
    char source[1024];
    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        for (size_t j = 0; j < sizeof values / sizeof values[0]; j++) {
            snprintf(
                source, sizeof source,
                "local big = data.new(32 << 20) local a, b = pair() local c, d = pair() local set = socket.poll{b, d} "
                "local select = set.select "
                "local server, full, held = socket.new('x', 't'), socket.new('x', 't'), {} "
                "server:bind'\\0sluice-meddle' server:listen(1) "
                "if %d > 0 then for i = 1, 2 do held[i] = socket.new('x', 't') held[i]:connect'\\0sluice-meddle' end "
                "end "
                "local co = coroutine.create(function(...) return pcall(...) end) coroutine.resume(co, %s) "
                "assert(coroutine.status(co) == 'suspended') await.sleep(0) "
                "for _ = 1, 3 do if coroutine.status(co) == 'suspended' then coroutine.resume(co%s) end end "
                "for _, s in ipairs{a, b, c, d, server, full, held[1], held[2]} do s:close() end await.sleep(0.02)",
                strstr(calls[i], "full") != NULL, calls[i], values[j]);
            check(source);
        }
    }
    engine_collect(engine);
    while (!socket_is_idle()) turn();
}

static void test_poll(void **state)
{
    unsigned before;
    (void)state;
    engine_collect(engine);
    engine_collect(engine);
    before = support_count_descriptors();
    check("local a, b = pair() local c, d = pair() local set = socket.poll{b, d} assert(#set == 2 and set:select(0) == "
          "nil) "
          "a:send{1} assert(set:select() == 0) b:recv(1) c:send{1} assert(set:select(5) == 1) d:recv(1) "
          "assert(set:select(0.01) == nil) "
          "together(function() assert(set:select() == 1) end, function() await.sleep(0) c:close() end) "
          "a:close() b:close() d:close()");
    check("local a, b = pair() local set = socket.poll{b, b, b} a:send{1} assert(set:select() == 0) "
          "b:setsockopt('s', 'l', 0) b:close() assert(fails(set.select, set).name == 'EBADF') a:close()");
    check("local a, b = pair() local c, d = pair() local set = socket.poll{b, d} "
          "together(function() assert(fails(set.select, set).name == 'EBADF') end, function() await.sleep(0) b:close() "
          "await.sleep(0) d:close() end) "
          "a:close() c:close()");
    check("local a, b = pair() local set = socket.poll{b} b = nil collectgarbage() collectgarbage() a:send{1} "
          "assert(set:select(1) == 0) a:close() set = nil collectgarbage() collectgarbage()");
    check("local near, far = {}, {} for i = 1, 1000 do near[i], far[i] = pair() end local set = socket.poll(far) "
          "assert(set:select(0) == nil) "
          "for _, i in ipairs{1, 1000, 500, 777} do "
          "  together(function() assert(set:select() == i - 1) far[i]:recv(1) end, function() await.sleep(0) "
          "near[i]:send{1} end) end "
          "for i = 1, 1000 do near[i]:send{i & 255} end local seen, count = {}, 0 "
          "while count < 1000 do local i = set:select() + 1 assert(not seen[i]) seen[i] = true count = count + 1 "
          "  assert(far[i]:recv(5)[1] == i & 255) end assert(set:select(0) == nil) "
          "for i = 1, 1000 do near[i]:close() far[i]:close() end");
    refuse("socket.poll()", "table expected");
    refuse("socket.poll{}", "1...65536 sockets are needed");
    refuse("socket.poll{s, 5}", "table of sockets expected");
    refuse("s:close() socket.poll{s}", "poll: EBADF");
    refuse("socket.poll{s}:select('x')", "number expected");
    refuse("socket.poll{s}.select(s)", "socket.poll expected, got socket");
    engine_collect(engine);
    engine_collect(engine);
    while (!socket_is_idle()) turn();
    assert_int_equal(support_count_descriptors(), before);
}

static void test_relay(void **state)
{
    struct answer answer;
    (void)state;
    /* client a <-> b relayed c <-> d upstream */
    check(
        "local a, b = pair() local c, d = pair() local up, down, why local text = ('z'):rep(3 << 20) "
        "together(function() up, down, why = b:relay(c) end, "
        "  function() a:send'to you' assert(d:receive(6) == 'to you') together(function() d:send(text) "
        "d:shutdown'send' end, "
        "    function() assert(a:receive(#text) == text) end) a:shutdown'send' assert(select(2, d:recv(1)) == 0) end) "
        "assert(up == 6 and down == #text and why == nil) assert(tostring(b) == 'socket (closed)') "
        "assert(fails(c.recv, c, 1).name == 'EBADF') a:close() d:close()");
    check("local a, b = pair() local c, d = pair() local up, down, why "
          "together(function() up, down, why = b:relay(c) end, function() await.sleep(0.01) a:setsockopt('s', 'l', 0) "
          "a:close() "
          "  assert(fails(d.recv, d, 1).name == 'ECONNRESET') end) "
          "assert(up == 0 and down == 0 and why.name == 'ECONNRESET') d:close()");
    check("local a, b = pair() local set = socket.poll{a, b} local c, d = pair() together(function() b:relay(c) end, "
          "function() "
          "await.sleep(0.01) a:close() d:close() end) assert(fails(set.select, set).name == 'EBADF')");
    check("local a, b = pair() local c, d = pair() together(function() a:recv(1) end, function() await.sleep(0) "
          "assert(fails(a.relay, a, c).name == 'EBUSY') b:send{1} end) "
          "for _, s in ipairs{a, b, c, d} do s:close() end");
    refuse("s:relay()", "socket expected");
    refuse("s:relay(u)", "relay: ENOTCONN");
    refuse("local a, b = pair() a:relay(a)", "another socket expected");
    refuse("local a, b = pair() u:connect('127.0.0.1', 9) a:relay(u)", "stream socket expected");
    refuse("local a, b = pair() b:close() a:relay(b)", "relay: EBADF");
    /* Its coroutine is cancelled: both ends hear of it. */
    struct engine_job *call = start("_G.a, _G.b = pair() local c c, _G.d = pair() b:relay(c)", &answer);
    for (int i = 0; i < 8; i++) turn();
    assert_false(answer.called);
    engine_job_cancel(call);
    check("a:settimeout(10) d:settimeout(10) local function ends(s) local ok, _, n = pcall(s.recv, s, 1) return not ok "
          "and _.name ~= 'ETIMEDOUT' or n == 0 end "
          "assert(ends(d)) a:close() d:close() _G.a, _G.b, _G.d = nil");
}

static void update(const char *ruleset)
{
    struct engine_text error = {0};
    if (engine_update(engine, NULL, NULL, ruleset, strlen(ruleset), &error) < 0) fail_msg("%s", error.data);
}

/* A new ruleset takes the place of the old one's table, and that is all: what waits goes on, what nobody holds any more
 * is collected, and what the new one closes has ended. */
static void test_ruleset_update(void **state)
{
    (void)state;
    check("await.sleep(0.2) collectgarbage() collectgarbage()"); /* a worker may still close what it has relayed */
    unsigned before = support_count_descriptors();
    update("local mine = socket.new('i', 't') mine:bind'127.0.0.1' mine:listen(5) "
           "_G.server = socket.new('x', 't') server:bind'\\0sluice-update' server:listen(5) "
           "local s = server "
           "neosocksd.async(function(ok, e) _G.ended = e end, function() "
           "  while true do local c <close> = s:accept() c:send'first' end end) "
           "return {held = mine, route = function(a) return a end}");
    check("local c <close> = socket.new('x', 't') c:connect'\\0sluice-update' assert(c:receive'*a' == 'first')");
    unsigned held = support_count_descriptors();
    update("return {route = function(a) return a end}");
    check("local c <close> = socket.new('x', 't') c:connect'\\0sluice-update' assert(c:receive'*a' == 'first' and not "
          "ended)");
    check("collectgarbage() collectgarbage()");
    assert_int_equal(support_count_descriptors(), held - 1); /* the one that only the old table held */
    update("server:close() _G.server = socket.new('x', 't') server:bind'\\0sluice-update' server:listen(5) "
           "local s = server "
           "neosocksd.async(function() end, function() while true do local c <close> = s:accept() c:send'second' end "
           "end) return {}");
    check("local c <close> = socket.new('x', 't') c:connect'\\0sluice-update' assert(c:receive'*a' == 'second') "
          "assert(ended.name == 'ECANCELED') server:close() await.sleep(0) _G.server, _G.ended = nil");
    update("return {}");
    check("collectgarbage() collectgarbage()");
    assert_int_equal(support_count_descriptors(), before);
}

/* Two that never have to wait leave others their turn, and stay within the time budget. */
static void test_fairness(void **state)
{
    (void)state;
    check("local a, b = pair() local done, turns = false, 0 local buf, out = data.new(1 << 16), data.new(1 << 16) "
          "together(function() for _ = 1, 4096 do a:send(out) assert(b:recv(buf)) end done = true a:close() end, "
          "function() while not done do await.sleep(0) turns = turns + 1 end end) assert(turns > 50, turns) b:close()");
}

static void test_many(void **state)
{
    unsigned before;
    (void)state;
    check("collectgarbage() collectgarbage()");
    before = support_count_descriptors();
    check("for _ = 1, 2000 do local a, b = pair() a:send'x' assert(b:receive(1) == 'x') a:close() b:close() end");
    check("for _ = 1, 2000 do local a, b = pair() end collectgarbage() collectgarbage()");
    assert_int_equal(support_count_descriptors(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_tables_and_buffers),
        cmocka_unit_test(test_datagrams),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_partial),
        cmocka_unit_test(test_receive),
        cmocka_unit_test(test_resets),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_congestion_control),
        cmocka_unit_test(test_outside),
        cmocka_unit_test(test_close_while_waiting),
        cmocka_unit_test(test_abandoned),
        cmocka_unit_test(test_meddling),
        cmocka_unit_test(test_poll),
        cmocka_unit_test(test_relay),
        cmocka_unit_test(test_fairness),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_port_is_free_at_once),
        cmocka_unit_test(test_ruleset_update),
    };
    return cmocka_run_group_tests_name("socket", tests, open_all, close_all);
}
