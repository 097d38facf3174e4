/* What scripts are made of sockets: the examples of docs/lua-socket.md, each run, and the SOCKS4 proxy of lua/examples/
 * with clients that know what they do, and with others. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/socket_scripts.h"

/* --- the examples of the documents --- */

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static void test_documents(void **state)
{
    static const char fence[] = "\n```lua\n";
    char *text = read_file("docs/lua-socket.md");
    int count = 0;
    (void)state;
    for (char *at = text; (at = strstr(at, fence)) != NULL; count++) {
        char *begin = at + sizeof fence - 1, *end = strstr(begin, "\n```\n");
        assert_non_null(end);
        *end = '\0';
        run(begin, "return true");
        at = end + 1;
    }
    assert_true(count >= 20);
    free(text);
}

/* --- the SOCKS4 proxy --- */

static uint16_t proxy_port;

static void replace(char *text, const char *old, const char *fresh)
{
    char *at = strstr(text, old);
    if (!at) {
        fail_msg("the example has no %s", old);
        return;
    }
    size_t rest = strlen(at + strlen(old)) + 1;
    memmove(at + strlen(fresh), at + strlen(old), rest);
    memcpy(at, fresh, strlen(fresh));
}

static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* Starts the example with these settings; its coroutine is the call. */
static struct engine_job *start_proxy(const char *mode, const char *clients, const char *idle, struct answer *answer)
{
    char *source = read_file("lua/examples/socks4_proxy.lua"), text[64];
    proxy_port = free_port();
    snprintf(text, sizeof text, "\"127.0.0.1\", %u", proxy_port);
    replace(source, "\"127.0.0.1\", 8080", text);
    snprintf(text, sizeof text, "mode = \"%s\"", mode);
    replace(source, "mode = \"script\"", text);
    snprintf(text, sizeof text, "max_clients = %s", clients);
    replace(source, "max_clients = 1000", text);
    replace(source, "setup_seconds = 10", "setup_seconds = 1");
    snprintf(text, sizeof text, "idle_seconds = %s", idle);
    replace(source, "idle_seconds = 300", text);
    struct engine_job *call = start(source, answer);
    free(source);
    turn();
    assert_false(answer->called);
    return call;
}

/* Functions for its clients, and an origin that sends back what it gets, in capitals. */
static const char client_prelude[] =
    "origin = socket.new('i', 't') origin:bind'127.0.0.1' origin:listen(1024) _, origin_port = origin:getsockname() "
    "neosocksd.async(function() end, function() while true do local c = origin:accept() neosocksd.async(function() "
    "c:close() end, function() "
    "  while true do local d, n = c:recv(4096) if n == 0 then break end local t = {} for i = 1, n do t[i] = "
    "string.char(d[i]):upper() end "
    "  c:send(table.concat(t)) end end) end end) "
    "function dialled() local c = socket.new('i', 't') c:connect('127.0.0.1', proxy_port) c:settimeout(5) return c end "
    "function ask(request) local c = dialled() c:send(request) return c, c:receive(8) end "
    "function socks4(port, user, ip, name) return string.pack('>BBI2I4z', 4, 1, port or origin_port, ip or 0x7f000001, "
    "user or '') "
    "  .. (name and name .. '\\0' or '') end "
    "granted, rejected = '\\0\\x5a\\0\\0\\0\\0\\0\\0', '\\0\\x5b\\0\\0\\0\\0\\0\\0' ";

static void open_clients(void)
{
    char source[4096];
    snprintf(source, sizeof source, "_ENV = _G proxy_port = %u %s", proxy_port, client_prelude);
    check(source);
}

static void check_proxy(void)
{
    check("local c, r = ask(socks4()) assert(r == granted) c:send'hello' assert(c:receive(5) == 'HELLO') c:send'again' "
          "assert(c:receive(5) == 'AGAIN') c:shutdown'send' assert(c:receive'*a' == nil) c:close()");
    check("local c, r = ask(socks4(nil, 'somebody') .. 'early') assert(r == granted and c:receive(5) == 'EARLY') "
          "c:close()");
    check("local c, r = ask(socks4(nil, 'x', 1, '127.0.0.1') .. 'named') assert(r == granted and c:receive(5) == "
          "'NAMED') c:close()");
    /* Octet by octet. */
    check("local c = dialled() c:setsockopt('t', 'nodelay', 1) for o in socks4(nil, 'u', 255, '127.0.0.1'):gmatch'.' "
          "do c:send(o) await.sleep(0) end "
          "assert(c:receive(8) == granted) c:close()");
    /* More than any buffer holds, both ways. */
    check("local c, r = ask(socks4()) local text = ('abcdefgh'):rep(1 << 16) together(function() c:send(text) "
          "c:shutdown'send' end, "
          "function() assert(c:receive'*a' == text:upper()) end) c:close()");
}

static void check_refusals(void)
{
    check(
        "local port = free_port() local bad = {socks4(port), string.pack('>BBI2I4z', 4, 2, origin_port, 0x7f000001, "
        "''), "
        "string.pack('>BBI2I4z', 4, 0, 1, 0x7f000001, ''), socks4(nil, ('u'):rep(256)), socks4(nil, ('u'):rep(2000)), "
        "socks4(nil, '', 1, ('n'):rep(256)), "
        "socks4(nil, '', 1, ''), socks4(nil, '', 0), string.pack('>BBI2I4z', 4, 1, 0, 0x7f000001, ''), '\\5\\1\\0', "
        "'GET / HTTP/1.0\\r\\n\\r\\n', "
        "('x'):rep(100000), socks4(nil, '', 1, 'a b')} "
        "for i, request in ipairs(bad) do local c, r = ask(request) assert(r == rejected, 'row ' .. i .. "
        "tostring(r)) assert(c:receive(1) == "
        "nil) c:close() end");
    /* Half a request, and silence: refused at its time, or the end is answered. */
    check("local c = dialled() c:send(socks4():sub(1, 5)) local t, why = c:receive(8) assert(t == nil and why == "
          "'closed') c:close()");
    check("local c = dialled() c:send(socks4():sub(1, 5)) c:shutdown'send' assert(c:receive(8) == rejected) c:close()");
    check("local c = dialled() c:close()");
}

/* Its coroutine is cancelled: nobody listens any more. */
static void end_proxy(struct engine_job *call)
{
    engine_job_cancel(call);
    check("await.sleep(0.05) assert(not pcall(dialled)) origin:close() await.sleep(0.05)");
}

static void test_proxy_script(void **state)
{
    struct answer answer;
    (void)state;
    struct engine_job *call = start_proxy("script", "1000", "1.5", &answer);
    open_clients();
    check_proxy();
    check_refusals();
    /* Silent for too long; but not while one direction moves. */
    check("local c, r = ask(socks4()) assert(c:receive(1) == nil) c:close()");
    check(
        "local s <close> = socket.new('i', 't') s:bind'127.0.0.1' s:listen(5) "
        "local c, r = ask(socks4(select(2, s:getsockname()))) local up = s:accept() "
        "for _ = 1, 10 do await.sleep(0.3) up:send'x' end assert(c:receive(10) == 'xxxxxxxxxx') up:close() c:close()");
    /* A reset goes through. */
    check("local s <close> = socket.new('i', 't') s:bind'127.0.0.1' s:listen(5) local c, r = ask(socks4(select(2, "
          "s:getsockname()))) "
          "local up = s:accept() up:setsockopt('s', 'l', 0) up:close() assert(fails(c.recv, c, 1).name == "
          "'ECONNRESET') c:close()");
    end_proxy(call);
}

/* As many as it takes, at the same time, and one more. */
static void test_proxy_crowd(void **state)
{
    struct answer answer;
    (void)state;
    struct engine_job *call = start_proxy("script", "1000", "60", &answer);
    open_clients();
    check("collectgarbage() collectgarbage()");
    unsigned before = support_count_descriptors();
    check("local held = {} for i = 1, 1000 do local c, r = ask(socks4()) assert(r == granted, i) held[i] = c end "
          "for i = 1, 1000 do held[i]:send('m' .. i % 10) end for i = 1, 1000 do assert(held[i]:receive(2) == 'M' .. i "
          "% 10) end "
          "local c = dialled() assert(c:receive(1) == nil) c:close() "
          "for i = 1, 1000 do held[i]:close() end");
    unsigned after = before + 1;
    for (int i = 0; i < 100 && after != before; i++) {
        check("await.sleep(0.05) collectgarbage() collectgarbage()");
        after = support_count_descriptors();
    }
    assert_int_equal(after, before);
    end_proxy(call);
}

static void test_proxy_relay(void **state)
{
    struct answer answer;
    (void)state;
    struct engine_job *call = start_proxy("relay", "8", "1.5", &answer);
    open_clients();
    check_proxy();
    check_refusals();
    /* Those before have a place each until the proxy has seen their end. */
    check("local function soon() for _ = 1, 200 do local c, r = ask(socks4()) if r == granted then return c end "
          "c:close() "
          "await.sleep(0.02) end error'no place' end "
          "local held = {} for i = 1, 8 do held[i] = soon() end "
          "local c = dialled() assert(c:receive(1) == nil) c:close() for i = 1, 8 do held[i]:close() end "
          "soon():close()");
    end_proxy(call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_proxy_script),
        cmocka_unit_test(test_proxy_crowd),
        cmocka_unit_test(test_proxy_relay),
    };
    return cmocka_run_group_tests_name("socket proxy", tests, open_all, close_all);
}
