/* Calls to peers with a real coordinator and a worker that dials; the peer is a thread that does as it is told. First
 * the calls themselves, then await.invoke and neosocksd.invoke as scripts see them. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/control/coordinator.h"
#include "core/control/coordinator_private.h"
#include "core/io/log.h"
#include "core/process/config_size.h"
#include "core/process/options.h"
#include "lua/engine/codec.h"
#include "lua/engine/engine.h"
#include "lua/engine/state.h"
#include "lua/modules/rpc.h"
#include "tests/call_answer.h"
#include "tests/support.h"

#define MIME          "Content-Type: application/x-neosocksd-rpc; version=1\r\n"
#define PATIENCE_MS   20000u
#define RECEIVED_SIZE 65536u

static struct config config;
static struct coordinator *coordinator;
static struct engine *engine;

/* --- a peer --- */

struct peer {
    /* What it does. */
    const char *answer; /* NULL: none */
    size_t answer_size; /* 0: of the text */
    bool deaf;          /* answers at once, and reads nothing */
    _Atomic bool over;  /* the call has its result */
    bool proxy;         /* accepts a CONNECT first */
    bool lingers;       /* keeps the connection until the other side closes it */
    /* What came of it. */
    char received[RECEIVED_SIZE];
    size_t size, head_size;
    bool closed; /* the other side did */

    int listener;
    uint16_t port;
    pthread_t thread;
};

static bool peer_read(struct peer *p, int fd)
{
    ssize_t got = recv(fd, p->received + p->size, sizeof p->received - 1 - p->size, 0);
    if (got <= 0) return false;
    p->size += (size_t)got;
    p->received[p->size] = '\0';
    return true;
}

/* Reads up to the end of a head and of the body that it announces. */
static bool peer_read_request(struct peer *p, int fd)
{
    char *end;
    while ((end = strstr(p->received, "\r\n\r\n")) == NULL)
        if (!peer_read(p, fd)) return false;
    p->head_size = (size_t)(end + 4 - p->received);
    const char *length = strcasestr(p->received, "\r\nContent-Length:");
    size_t body = length ? strtoul(length + 17, NULL, 10) : 0;
    while (p->size < p->head_size + body)
        if (!peer_read(p, fd)) return false;
    return true;
}

static void peer_send(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0) return;
        data += sent;
        size -= (size_t)sent;
    }
}

static void peer_tunnel(struct peer *p, int fd)
{
    static const char established[] = "HTTP/1.1 200 Connection established\r\n\r\n";
    if (!peer_read_request(p, fd)) return;
    assert_non_null(strstr(p->received, "CONNECT peer.internal:80 HTTP/1.1\r\n"));
    peer_send(fd, established, sizeof established - 1);
    p->size = 0;
    p->received[0] = '\0';
}

static void *peer_main(void *argument)
{
    struct peer *p = argument;
    int fd = accept(p->listener, NULL, NULL);
    if (fd < 0) return NULL;
    if (p->proxy) peer_tunnel(p, fd);
    if (!p->deaf && !peer_read_request(p, fd)) p->closed = true;
    if (p->answer) peer_send(fd, p->answer, p->answer_size > 0 ? p->answer_size : strlen(p->answer));
    if (p->lingers) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        /* To close in front of octets that were not read would reset what has just been said. */
        for (unsigned i = 0; p->deaf && !atomic_load(&p->over) && i < PATIENCE_MS; i++) usleep(1000);
        p->closed = poll(&waiting, 1, PATIENCE_MS) == 1;
    }
    close(fd);
    return NULL;
}

static void peer_open(struct peer *p)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(p->listener >= 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(listen(p->listener, 8), 0);
    p->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&p->thread, NULL, peer_main, p), 0);
}

static void peer_close(struct peer *p)
{
    atomic_store(&p->over, true);
    shutdown(p->listener, SHUT_RDWR); /* ends an accept that nobody has answered */
    pthread_join(p->thread, NULL);
    close(p->listener);
}

/* --- calls --- */

struct outcome {
    bool called;
    struct rpc_result result;
};

/* As the one who waits does it. */
static struct rpc_result unpacked(struct rpc_result result)
{
    struct rpc_result plain = {.ok = true};
    if (!result.ok || result.codec == CODEC_NONE) return result;
    if (codec_decode(result.codec, result.text.data, result.text.size, CODEC_OUTPUT_MAX, &plain.text.data,
                     &plain.text.size) != CODEC_OK)
        plain = (struct rpc_result){.text = {strdup("error parsing response"), 22}};
    free(result.text.data);
    return plain;
}

static void on_done(void *context, const struct rpc_result *result)
{
    struct outcome *outcome = context;
    assert_false(outcome->called);
    *outcome = (struct outcome){.called = true, .result = unpacked(*result)};
}

static struct rpc_request request_to(const struct peer *p, const char *code)
{
    struct rpc_request request = {.path = RPC_CALL, .code = code, .size = strlen(code), .timeout_ms = PATIENCE_MS};
    char text[32];
    int size = snprintf(text, sizeof text, "127.0.0.1:%u", p->port);
    assert_true(rpc_peer_parse(text, (size_t)size, &request.peer));
    return request;
}

static void turn_until_idle(void)
{
    while (!rpc_is_idle()) assert_int_equal(coordinator_turn(coordinator), 0);
}

static struct rpc_result run(const struct rpc_request *request)
{
    struct outcome outcome = {0};
    const char *error;
    assert_non_null(rpc_start(coordinator, request, on_done, &outcome, &error));
    assert_false(outcome.called);
    turn_until_idle();
    assert_true(outcome.called);
    return outcome.result;
}

static void assert_result(struct rpc_result result, bool ok, const char *text)
{
    assert_non_null(result.text.data);
    if (result.ok != ok || strcmp(result.text.data, text) != 0) fail_msg("%d, %s", result.ok, result.text.data);
    assert_int_equal(result.text.size, strlen(text));
    free(result.text.data);
}

static void check(struct peer *p, bool ok, const char *text)
{
    peer_open(p);
    struct rpc_request request = request_to(p, "return 1");
    assert_result(run(&request), ok, text);
    peer_close(p);
}

/* --- tests --- */

static void test_call(void **state)
{
    struct peer *p = calloc(1, sizeof *p);
    char expected[512];
    struct rpc_counters before = *rpc_get_counters();
    (void)state;
    assert_non_null(p);
    p->answer = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 13\r\n\r\nreturn true,1";
    p->lingers = true;
    check(p, true, "return true,1");
    assert_true(p->closed);
    snprintf(
        expected, sizeof expected,
        "POST /ruleset/rpcall HTTP/1.1\r\nAccept-Encoding: deflate\r\nConnection: close\r\nContent-Length: 8\r\n" MIME
        "\r\nreturn 1");
    assert_string_equal(p->received, expected);
    const struct rpc_counters *after = rpc_get_counters();
    assert_int_equal(after->calls, before.calls + 1);
    assert_int_equal(after->failed, before.failed);
    assert_int_equal(after->bytes_out - before.bytes_out, strlen(expected));
    assert_int_equal(after->bytes_in - before.bytes_in, strlen(p->answer));
    free(p);
}

/* Source from 256 octets on is deflated, and so may the answer be. */
static void test_codings(void **state)
{
    static char code[257], answer[512];
    char *coded, *decoded;
    size_t size, decoded_size;
    struct peer *p = calloc(1, sizeof *p);
    (void)state;
    assert_non_null(p);
    memset(code, ' ', 256);
    assert_int_equal(codec_encode(CODEC_GZIP, "return true,\"gzip\"", 18, &coded, &size), CODEC_OK);
    int head = snprintf(answer, sizeof answer,
                        "HTTP/1.1 200 OK\r\n" MIME "Content-Encoding: gzip\r\nContent-Length: %zu\r\n\r\n", size);
    memcpy(answer + head, coded, size);
    free(coded);
    p->answer = answer;
    p->answer_size = (size_t)head + size;
    peer_open(p);
    struct rpc_request request = request_to(p, code);
    assert_result(run(&request), true, "return true,\"gzip\"");
    peer_close(p);
    assert_non_null(strstr(p->received, "\r\nContent-Encoding: deflate\r\n"));
    assert_int_equal(
        codec_decode(CODEC_DEFLATE, p->received + p->head_size, p->size - p->head_size, 1024, &decoded, &decoded_size),
        CODEC_OK);
    assert_int_equal(decoded_size, 256);
    assert_memory_equal(decoded, code, 256);
    free(decoded);
    free(p);
}

/* Every answer, what it is called in a script. */
static void test_answers(void **state)
{
    static const struct {
        const char *answer;
        bool ok;
        const char *text;
    } rows[] = {
        {"HTTP/1.0 200 OK\r\n" MIME "\r\nreturn true", true, "return true"},
        {"HTTP/1.1 200 OK\r\n" MIME "Content-Length: 0\r\n\r\n", true, ""},
        {"HTTP/1.1 200 OK\r\n" MIME "Content-Encoding: deflate\r\nContent-Length: 0\r\n\r\n", true, ""},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" MIME "\r\n1\r\n7\r\n0\r\n\r\n", true, "7"},
        {"HTTP/1.1 500 Internal Server Error\r\n" MIME "Content-Length: 4\r\n\r\nwhat", false, "what"},
        {"HTTP/1.1 500 Internal Server Error\r\n\r\nwhat", false, "HTTP/1.1 500 Internal Server Error"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1", false, "unsupported content-type"},
        {"HTTP/1.1 200 OK\r\n" MIME "Content-Length: x\r\n\r\n1", false, "error parsing response"},
        {"HTTP/1.1 200 OK\r\n" MIME "Content-Encoding: deflate\r\nContent-Length: 3\r\n\r\nabc", false,
         "error parsing response"},
        {"HTTP/1.1 200 OK\r\n" MIME "Content-Length: 9\r\n\r\nshort", false, "error receiving response"},
        {"HTTP/1.1 200 OK\r\nContent-Le", false, "error receiving response"},
        {"220 smtp\r\n", false, "error receiving response"},
        {"", false, "error receiving response"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct peer *p = calloc(1, sizeof *p);
        assert_non_null(p);
        p->answer = rows[i].answer;
        check(p, rows[i].ok, rows[i].text);
        free(p);
    }
}

/* A bomb of 65 MiB in 64 KiB. */
static void test_bomb(void **state)
{
    size_t size = (size_t)65 << 20, coded_size;
    char *plain = calloc(size, 1), *coded;
    struct peer *p = calloc(1, sizeof *p);
    (void)state;
    assert_non_null(plain);
    assert_non_null(p);
    assert_int_equal(codec_encode(CODEC_DEFLATE, plain, size, &coded, &coded_size), CODEC_OK);
    char *answer = malloc(coded_size + 256);
    assert_non_null(answer);
    int head = snprintf(
        answer, 256, "HTTP/1.1 200 OK\r\n" MIME "Content-Encoding: deflate\r\nContent-Length: %zu\r\n\r\n", coded_size);
    memcpy(answer + head, coded, coded_size);
    p->answer = answer;
    p->answer_size = (size_t)head + coded_size;
    check(p, false, "error parsing response");
    free(answer);
    free(coded);
    free(plain);
    free(p);
}

/* The largest answer, through a buffer that grows; one octet more is too much. */
static void test_large_answer(void **state)
{
    static const char head[] = "HTTP/1.1 200 OK\r\n" MIME "\r\n";
    size_t size = sizeof head - 1 + RPC_BODY_SIZE_MAX;
    struct peer *p = calloc(1, sizeof *p);
    char *answer = malloc(size + 1);
    (void)state;
    assert_non_null(p);
    assert_non_null(answer);
    memset(answer, 'x', size + 1);
    memcpy(answer, head, sizeof head - 1);
    p->answer = answer;
    p->answer_size = size;
    peer_open(p);
    struct rpc_request request = request_to(p, "return 1");
    struct rpc_result result = run(&request);
    peer_close(p);
    assert_true(result.ok);
    assert_int_equal(result.text.size, RPC_BODY_SIZE_MAX);
    assert_memory_equal(result.text.data, answer + sizeof head - 1, result.text.size);
    free(result.text.data);
    memset(p, 0, sizeof *p);
    p->answer = answer;
    p->answer_size = size + 1;
    check(p, false, "error parsing response");
    free(answer);
    free(p);
}

/* A peer that refuses before it has read everything is heard. */
static void test_early_answer(void **state)
{
    size_t size = (size_t)8 << 20;
    char *code = malloc(size + 1);
    struct peer *p = calloc(1, sizeof *p);
    unsigned seed = 1;
    (void)state;
    assert_non_null(code);
    assert_non_null(p);
    for (size_t i = 0; i < size; i++) code[i] = (char)(1 + (seed = seed * 1103515245u + 12345u) / 65536u % 255u);
    code[size] = '\0';
    p->answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
    p->deaf = p->lingers = true;
    peer_open(p);
    struct rpc_request request = request_to(p, code);
    assert_result(run(&request), false, "HTTP/1.1 413 Content Too Large");
    peer_close(p);
    free(code);
    free(p);
}

static void test_invoke(void **state)
{
    struct peer *p = calloc(1, sizeof *p);
    (void)state;
    assert_non_null(p);
    p->answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nTime Cost           : 1ms\n";
    peer_open(p);
    struct rpc_request request = request_to(p, "msgh.x()");
    request.path = RPC_INVOKE;
    snprintf(request.peer.token, sizeof request.peer.token, "t0ken");
    assert_result(run(&request), true, "");
    peer_close(p);
    assert_memory_equal(p->received, "POST /ruleset/invoke HTTP/1.1\r\n", 31);
    assert_non_null(strstr(p->received, "\r\nAuthorization: Bearer t0ken\r\n"));
    free(p);
}

static void test_chain(void **state)
{
    struct peer *p = calloc(1, sizeof *p);
    struct proxy_uri hop = {.scheme = PROXY_HTTP};
    (void)state;
    assert_non_null(p);
    p->proxy = true;
    p->answer = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 1\r\n\r\n1";
    peer_open(p);
    struct rpc_request request = request_to(p, "return 1");
    hop.address = request.peer.address;
    request.hops = &hop;
    request.hop_count = 1;
    assert_true(rpc_peer_parse("peer.internal:80", 16, &request.peer));
    assert_result(run(&request), true, "1");
    peer_close(p);
    assert_null(strstr(p->received, "Host:"));
    free(p);
}

static void test_no_connection(void **state)
{
    struct peer *p = calloc(1, sizeof *p);
    struct proxy_uri hops[ROUTE_HOPS_MAX];
    const char *error;
    (void)state;
    assert_non_null(p);
    peer_open(p);
    struct rpc_request request = request_to(p, "return 1");
    peer_close(p); /* the port is free again, nobody listens */
    struct rpc_counters before = *rpc_get_counters();
    assert_result(run(&request), false, "connection failed");
    assert_int_equal(rpc_get_counters()->failed, before.failed + 1);
    request.hops = hops;
    request.hop_count = ROUTE_HOPS_MAX;
    memset(hops, 0, sizeof hops);
    for (unsigned i = 0; i < ROUTE_HOPS_MAX; i++) hops[i].address = request.peer.address;
    config.hop_count = 1; /* and one of -x is one too many */
    uint32_t waiters = coordinator->waiters.used;
    assert_null(rpc_start(coordinator, &request, on_done, NULL, &error));
    assert_int_equal(coordinator->waiters.used, waiters); /* it waits for nothing */
    config.hop_count = 0;
    assert_string_equal(error, "connection failed");
    assert_true(rpc_is_idle());
    free(p);
}

static void test_timeout(void **state)
{
    struct peer *p = calloc(1, sizeof *p);
    (void)state;
    assert_non_null(p);
    p->answer = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 10\r\n\r\nhalf";
    p->lingers = true;
    peer_open(p);
    struct rpc_request request = request_to(p, "return 1");
    request.timeout_ms = 300;
    uint64_t start = coordinator_now_ms(coordinator);
    assert_result(run(&request), false, "timeout");
    assert_in_range(coordinator_now_ms(coordinator) - start, 300, 5000);
    peer_close(p);
    assert_true(p->closed);
    free(p);
}

static void test_cancel(void **state)
{
    struct outcome outcome = {0}, stopped = {0};
    const char *error;
    struct peer *p = calloc(1, sizeof *p);
    (void)state;
    assert_non_null(p);
    p->lingers = true;
    peer_open(p);
    struct rpc_request request = request_to(p, "return 1");
    struct rpc_call *call = rpc_start(coordinator, &request, on_done, &outcome, &error);
    assert_non_null(call);
    for (int i = 0; i < 20; i++) coordinator_turn(coordinator);
    rpc_cancel(call);
    turn_until_idle();
    peer_close(p);
    assert_true(p->closed);
    assert_false(outcome.called);

    /* At once, with the dialling under way; and by the end of the process. */
    request.timeout_ms = 5000;
    rpc_cancel(rpc_start(coordinator, &request, on_done, &outcome, &error));
    assert_non_null(rpc_start(coordinator, &request, on_done, &stopped, &error));
    rpc_stop();
    turn_until_idle();
    assert_false(outcome.called);
    assert_true(stopped.called);
    assert_result(stopped.result, false, "cancelled");
    free(p);
}

/* A ruleset may call while it is loaded, before there are workers. */
static void test_before_workers(void **state)
{
    struct outcome outcome = {0};
    const char *error;
    struct peer *p = calloc(1, sizeof *p);
    (void)state;
    assert_non_null(p);
    p->answer = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 1\r\n\r\n1";
    peer_open(p);
    struct rpc_request request = request_to(p, "return 1");
    assert_non_null(rpc_start(coordinator, &request, on_done, &outcome, &error));
    assert_int_equal(coordinator_turn(coordinator), 0);
    assert_int_equal(coordinator_start(coordinator, &(int){-1}), 0);
    turn_until_idle();
    assert_true(outcome.called);
    assert_result(outcome.result, true, "1");
    peer_close(p);
    free(p);
}

/* --- scripts --- */

/* With the peer's address as a local variable. An expected answer that begins with * is a part of it. */
static struct engine_job *script_start(const struct peer *p, const char *source, struct answer *answer)
{
    char text[1024];
    int size = snprintf(text, sizeof text, "local peer = '127.0.0.1:%u' %s", p->port, source);
    assert_in_range(size, 1, sizeof text - 1);
    return engine_rpcall(engine, text, (size_t)size, on_finished, answer);
}

static void script_run(const struct peer *p, const char *source, const char *expected)
{
    struct answer answer = {0};
    script_start(p, source, &answer);
    while (!answer.called) assert_int_equal(coordinator_turn(coordinator), 0);
    if (*expected != '*')
        assert_string_equal(answer.body, expected);
    else if (!strstr(answer.body, expected + 1))
        fail_msg("%s: nothing of %s", answer.body, expected + 1);
    assert_true(answer.ok);
    turn_until_idle();
}

/* One call, to which the peer gives `body`. */
static void script_check(const char *body, const char *source, const char *expected)
{
    struct peer *p = calloc(1, sizeof *p);
    char answer[1024];
    assert_non_null(p);
    snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\n" MIME "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    p->answer = answer;
    peer_open(p);
    script_run(p, source, expected);
    peer_close(p);
    free(p);
}

/* The same with `plain` deflated, and cut off by `cut` octets. */
static void script_check_packed(const char *plain, size_t size, size_t cut, const char *source, const char *expected)
{
    struct peer *p = calloc(1, sizeof *p);
    char *coded;
    size_t coded_size;
    assert_non_null(p);
    assert_int_equal(codec_encode(CODEC_DEFLATE, plain, size, &coded, &coded_size), CODEC_OK);
    char *answer = malloc(coded_size + 256);
    assert_non_null(answer);
    coded_size -= cut;
    int head = snprintf(
        answer, 256, "HTTP/1.1 200 OK\r\n" MIME "Content-Encoding: deflate\r\nContent-Length: %zu\r\n\r\n", coded_size);
    memcpy(answer + head, coded, coded_size);
    p->answer = answer;
    p->answer_size = (size_t)head + coded_size;
    peer_open(p);
    script_run(p, source, expected);
    peer_close(p);
    free(answer);
    free(coded);
    free(p);
}

/* What is packed is unpacked within the time budget, and read so: here 63 MiB of literals in 64 KiB. */
static void test_script_packed(void **state)
{
    static const char give[] = "local ok, f = await.invoke('', peer) return f()",
                      fail[] = "return await.invoke('', peer)";
    size_t size = (size_t)63 << 20;
    char *large = malloc(size);
    uint32_t budget = engine->limits.budget_ms;
    (void)state;
    assert_non_null(large);
    script_check_packed("return 1,{2}", 12, 0, give, "return true,1,{2,}");
    script_check_packed("return 1,{2}", 12, 3, fail, "return true,false,\"error parsing response\"");
    memset(large, ' ', size);
    memcpy(large + size - 8, "return 5", 8);
    script_check_packed(large, size, 0, give, "return true,5");
    for (size_t i = 0; i + 1 < size; i += 2) memcpy(large + i, "1,", 2);
    large[0] = '{';
    large[1] = ' ';
    engine->limits.budget_ms = 50;
    script_check_packed(large, size, 0, fail, "*time budget");
    engine->limits.budget_ms = budget;
    free(large);
}

static void test_script_values(void **state)
{
    static const char count[] = "local ok, f = await.invoke('', peer) return ok, type(f), select('#', f()), f()";
    (void)state;
    script_check("return true,\"ok\",nil,{1,[\"a\"]=2,},nil", count,
                 "return true,true,\"function\",5,true,\"ok\",nil,{1,[\"a\"]=2,},nil");
    script_check("return true", count, "return true,true,\"function\",1,true");
    script_check("return false,\"message\"", count, "return true,true,\"function\",2,false,\"message\"");
    script_check("", count, "return true,true,\"function\",0");
    /* The function may be called again, and keeps its values while rubbish is collected. */
    script_check("return {1,}", "local _, f = await.invoke('', peer) collectgarbage() f()[1] = 2 return f()",
                 "return true,{2,}");
    script_check("return 1", "return await.invoke('', 'http://token@' .. peer) ~= nil", "return true,true");
}

/* Code in an answer is an error, whatever it would do. */
static void test_script_hostile(void **state)
{
    static const char *const bodies[] = {
        "os.exit(7)",
        "return os.exit(7)",
        "return (function() os.exit(7) end)()",
        "return {os.exit(7)}",
        "return {[os.exit(7)]=1}",
        "while true do end",
        "return true,\"ok\" os.exit(7)",
        "return setmetatable({}, {__index = os.exit})",
        "\x1bLua",
        "return {{{",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        script_check(bodies[i], "return await.invoke('', peer)", "return true,false,\"error parsing response\"");
}

static void test_script_failures(void **state)
{
    struct peer *p = calloc(1, sizeof *p);
    (void)state;
    assert_non_null(p);
    p->answer = "HTTP/1.1 500 Internal Server Error\r\n" MIME "Content-Length: 4\r\n\r\nwhat";
    peer_open(p);
    script_run(p, "return await.invoke('', peer)", "return true,false,\"what\"");
    peer_close(p);
    script_run(p, "return await.invoke('', peer)", "return true,false,\"connection failed\"");
    script_run(p, "return await.invoke('', peer, 'socks5://' .. peer)", "return true,false,\"connection failed\"");
    free(p);
}

/* The last argument is the first hop. */
static void test_script_chain(void **state)
{
    struct peer *p = calloc(1, sizeof *p);
    (void)state;
    assert_non_null(p);
    p->proxy = true;
    p->answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    peer_open(p);
    script_run(p, "return await.invoke('', 'other.internal:1', 'http://peer.internal:80', 'http://' .. peer)",
               "return true,false,\"connection failed\"");
    peer_close(p);
    assert_non_null(strstr(p->received, "CONNECT other.internal:1 HTTP/1.1\r\n"));
    memset(p, 0, sizeof *p);
    p->proxy = true;
    p->answer = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 8\r\n\r\nreturn 5";
    peer_open(p);
    script_run(p, "local ok, f = await.invoke('', 'peer.internal:80', 'http://' .. peer) return f()", "return true,5");
    peer_close(p);
    free(p);
}

static void test_script_arguments(void **state)
{
    static const char *const sources[] = {
        "''",
        "'', nil",
        "'', {}",
        "'', ''",
        "'', 'host'",
        "'', peer, nil",
        "'', peer, 'x'",
        "'', peer, peer",
        "'', peer, 'ftp://x'",
        "'', peer, 'http://x', nil",
        "'', 'http://a:b@x'",
    };
    struct peer none = {.port = 1};
    char source[256];
    (void)state;
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        snprintf(source, sizeof source, "local ok, m = pcall(await.invoke, %s) return ok, m:match('invalid address$')",
                 sources[i]);
        script_run(&none, source, "return true,false,\"invalid address\"");
        snprintf(source, sizeof source,
                 "local ok, m = pcall(neosocksd.invoke, %s) return ok, m:match('invalid address$')", sources[i]);
        script_run(&none, source, "return true,false,\"invalid address\"");
    }
    script_run(&none, "local ok, m = pcall(await.invoke) return m:match('string expected, got no value')",
               "return true,\"string expected, got no value\"");
    struct engine_text error = {0};
    static const char outside[] = "await.invoke('', '127.0.0.1:1')";
    assert_int_equal(engine_invoke(engine, outside, sizeof outside - 1, &error), -1);
    assert_non_null(strstr(error.data, "not in asynchronous routine"));
    engine_text_free(&error);
}

static void test_script_invoke(void **state)
{
    struct peer *p = calloc(1, sizeof *p);
    struct rpc_counters before = *rpc_get_counters();
    (void)state;
    assert_non_null(p);
    p->answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    peer_open(p);
    script_run(p, "return select('#', neosocksd.invoke('msgh.x()', peer))", "return true,0");
    peer_close(p);
    assert_string_equal(p->received + p->head_size, "msgh.x()");
    assert_int_equal(rpc_get_counters()->failed, before.failed);
    free(p);
}

/* A coroutine that is closed takes its call with it; one that a script resumes leaves it to itself. */
static void test_script_abandons(void **state)
{
    struct peer *p = calloc(1, sizeof *p);
    struct answer answer = {0};
    (void)state;
    assert_non_null(p);
    p->lingers = true;
    peer_open(p);
    struct engine_job *call = script_start(p, "return await.invoke('', peer)", &answer);
    assert_non_null(call);
    for (int i = 0; i < 20; i++) assert_int_equal(coordinator_turn(coordinator), 0);
    engine_job_cancel(call);
    turn_until_idle();
    assert_false(answer.called);
    peer_close(p);
    assert_true(p->closed);

    memset(p, 0, sizeof *p);
    p->answer = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 8\r\n\r\nreturn 1";
    peer_open(p);
    script_run(p,
               "local co = coroutine.create(function() return await.invoke('', peer) end) coroutine.resume(co) "
               "local ok, m = coroutine.resume(co) co = nil collectgarbage() return ok, m:match('resumed by a script')",
               "return true,false,\"resumed by a script\"");
    peer_close(p);
    free(p);
}

static int open_all(void **state)
{
    (void)state;
    log_open(LOG_TO_STDERR, LOG_LEVEL_ERROR);
    config_defaults(&config);
    config.workers = 1;
    config.max_sessions = 64;
    config_size(&config);
    int error = coordinator_open(&coordinator, &config);
    return error < 0 ? error : engine_open(&engine, coordinator);
}

static int close_all(void **state)
{
    (void)state;
    coordinator_stop(coordinator);
    int error = coordinator_run(coordinator);
    engine_close(engine);
    coordinator_close(coordinator);
    return error;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_before_workers), /* starts them */
        cmocka_unit_test(test_call),
        cmocka_unit_test(test_codings),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_large_answer),
        cmocka_unit_test(test_early_answer),
        cmocka_unit_test(test_invoke),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_no_connection),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_script_values),
        cmocka_unit_test(test_script_packed),
        cmocka_unit_test(test_script_hostile),
        cmocka_unit_test(test_script_failures),
        cmocka_unit_test(test_script_chain),
        cmocka_unit_test(test_script_arguments),
        cmocka_unit_test(test_script_invoke),
        cmocka_unit_test(test_script_abandons),
    };
    return cmocka_run_group_tests_name("rpc", tests, open_all, close_all);
}
