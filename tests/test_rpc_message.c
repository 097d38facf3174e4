/* Remote calls on the wire: requests octet by octet, and answers as ten versions of peers have sent them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocols/rpc_message.h"
#include "tests/support.h"

#define MIME "Content-Type: application/x-neosocksd-rpc; version=1\r\n"

/* --- Content-Type --- */

static bool is_type(const char *text)
{
    size_t size = strlen(text);
    uint8_t *copy = support_guard(text, size);
    bool is = rpc_is_content_type((const char *)copy, size);
    support_unguard(copy, size);
    return is;
}

static void test_types(void **state)
{
    static const char *const right[] = {
        RPC_CONTENT_TYPE,
        "application/x-neosocksd-rpc;version=1",
        "APPLICATION/X-Neosocksd-RPC; Version=1",
        "application/x-neosocksd-rpc; version=\"1\"",
        "application/x-neosocksd-rpc; version=\"\\1\"",
        "application/x-neosocksd-rpc ; charset=utf-8 ; version=1 ",
        "application/x-neosocksd-rpc; x=\"a;version=2\\\"\"; version=1",
        "application/x-neosocksd-rpc;; version=1;",
        "application/x-neosocksd-rpc; version=1; version=1",
        "\tapplication/x-neosocksd-rpc\t;\tversion=1\t",
    };
    static const char *const wrong[] = {
        "",
        "application/x-neosocksd-rpc",
        "application/x-neosocksd-rpc; version=2",
        "application/x-neosocksd-rpc; version=11",
        "application/x-neosocksd-rpc; version=\"11\"",
        "application/x-neosocksd-rpc; version=\"\"",
        "application/x-neosocksd-rpc; version=",
        "application/x-neosocksd-rpc; version",
        "application/x-neosocksd-rpc; version =1",
        "application/x-neosocksd-rpc; version= 1",
        "application/x-neosocksd-rpc; version=\"1",
        "application/x-neosocksd-rpc; version=\"1\\",
        "application/x-neosocksd-rpc; version=1; version=2",
        "application/x-neosocksd-rpc; version=1 charset=utf-8",
        "application/x-neosocksd-rpc; versions=1",
        "application/x-neosocksd-rpc; x=\"a; version=1",
        "application/x-neosocksd-rpc, version=1",
        "application/x-neosocksd-rpcs; version=1",
        "application /x-neosocksd-rpc; version=1",
        "text/plain; version=1",
        "application/; version=1",
    };
    (void)state;
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++)
        if (!is_type(right[i])) fail_msg("refused: %s", right[i]);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (is_type(wrong[i])) fail_msg("accepted: %s", wrong[i]);
}

/* --- peers --- */

static bool peer_parse(const char *text, struct rpc_peer *peer)
{
    size_t size = strlen(text);
    uint8_t *copy = support_guard(text, size);
    bool is = rpc_peer_parse((const char *)copy, size, peer);
    support_unguard(copy, size);
    return is;
}

static void assert_peer(const char *text, const char *address, const char *token)
{
    struct rpc_peer peer;
    char out[ADDRESS_TEXT_SIZE];
    if (!peer_parse(text, &peer)) fail_msg("refused: %s", text);
    address_format(&peer.address, out, sizeof out);
    assert_string_equal(out, address);
    assert_string_equal(peer.token, token);
}

static void test_peers(void **state)
{
    static const char *const wrong[] = {"",
                                        ":",
                                        "host",
                                        "host:",
                                        ":80",
                                        "host:65536",
                                        "::1:80",
                                        "http://",
                                        "http://a:b@host:80",
                                        "http://a%20b@host:80",
                                        "http://a%0d%0ab@host:80",
                                        "http://\x80@host:80",
                                        "http://a@b@host:80",
                                        "http://host:80/ruleset",
                                        "https://host:80",
                                        "socks5://host:80",
                                        "token@host:80"};
    struct rpc_peer peer;
    (void)state;
    assert_peer("127.0.0.1:9080", "127.0.0.1:9080", "");
    assert_peer("[::1]:9080", "[::1]:9080", "");
    assert_peer("api.neosocksd.internal:80", "api.neosocksd.internal:80", "");
    assert_peer("http://peer:81", "peer:81", "");
    assert_peer("HTTP://peer", "peer:80", "");
    assert_peer("http://s3cr%3at@[::1]:81/", "[::1]:81", "s3cr:t");
    assert_peer("http://s3cret:@peer:81", "peer:81", "s3cret");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (peer_parse(wrong[i], &peer)) fail_msg("accepted: %s", wrong[i]);
}

/* --- requests --- */

static void assert_request(const char *peer_text, enum rpc_path path, size_t body_size, bool deflated,
                           const char *expected)
{
    struct rpc_peer peer;
    uint8_t out[RPC_REQUEST_HEAD_SIZE_MAX + 1];
    assert_true(peer_parse(peer_text, &peer));
    size_t size = rpc_write_request(out, sizeof out - 1, &peer, path, body_size, deflated);
    out[size] = '\0';
    assert_string_equal((const char *)out, expected);
}

static void test_requests(void **state)
{
    (void)state;
    assert_request("127.0.0.1:9080", RPC_CALL, 20, false,
                   "POST /ruleset/rpcall HTTP/1.1\r\n"
                   "Accept-Encoding: deflate\r\n"
                   "Connection: close\r\n"
                   "Content-Length: 20\r\n" MIME "\r\n");
    assert_request("http://abc@[::1]:9080", RPC_INVOKE, 4194304, true,
                   "POST /ruleset/invoke HTTP/1.1\r\n"
                   "Accept-Encoding: deflate\r\n"
                   "Connection: close\r\n"
                   "Content-Length: 4194304\r\n" MIME "Content-Encoding: deflate\r\n"
                   "Authorization: Bearer abc\r\n\r\n");
}

static void test_longest_request(void **state)
{
    struct rpc_peer peer = {.address = {.kind = ADDRESS_NAME, .name_size = ADDRESS_NAME_MAX, .port = 65535}};
    uint8_t out[RPC_REQUEST_HEAD_SIZE_MAX];
    struct http_head head;
    size_t scanned = 0, used;
    (void)state;
    memset(peer.address.name, 'n', ADDRESS_NAME_MAX);
    memset(peer.token, 't', CREDENTIALS_PART_MAX);
    size_t size = rpc_write_request(out, sizeof out, &peer, RPC_CALL, SIZE_MAX, true);
    assert_int_equal(http_parse_request(out, size, &scanned, &head, &used), PARSE_OK);
    assert_int_equal(used, size);
    assert_int_equal(head.field_count, 6);
}

/* What peers send, each ends with its body. A server must read all of these, with or without Host. */
static const struct {
    const char *version, *text;
    bool keep_alive;
} requests[] = {
    {"HEAD",
     "POST /ruleset/rpcall HTTP/1.1\r\nAccept-Encoding: deflate\r\nConnection: close\r\nContent-Length: 21\r\n" MIME
     "\r\nreturn rpc[\"echo\"](1)",
     false},
    {"1.5",
     "POST /ruleset/rpcall HTTP/1.1\r\nAccept-Encoding: deflate\r\nConnection: keep-alive\r\nContent-Length: "
     "18\r\n" MIME "\r\nreturn rpc.echo(1)",
     true},
    {"1.4.2",
     "POST /ruleset/invoke HTTP/1.1\r\nAccept-Encoding: deflate\r\nContent-Length: 13\r\n" MIME "\r\nmsgh.hello(1)",
     false},
    {"1.3",
     "POST /ruleset/rpcall HTTP/1.1\r\nAccept-Encoding: deflate\r\nContent-Length: 18\r\n" MIME
     "\r\nreturn rpc.echo(1)",
     false},
    {"1.2",
     "POST /ruleset/rpcall HTTP/1.1\r\nAccept: application/x-neosocksd-rpc\r\nAccept-Encoding: "
     "deflate\r\nContent-Length: 18\r\n" MIME "\r\nreturn rpc.echo(1)",
     false},
};

static void test_requests_of_versions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        const uint8_t *data = (const uint8_t *)requests[i].text;
        size_t size = strlen(requests[i].text), scanned = 0, used;
        struct http_head head;
        enum http_framing framing;
        uint64_t length;
        assert_int_equal(http_parse_request(data, size, &scanned, &head, &used), PARSE_OK);
        assert_int_equal(http_body_judge(data, &head, HTTP_BODY_NONE, &framing, &length), 0);
        assert_int_equal(framing, HTTP_BODY_LENGTH);
        assert_int_equal(length, size - used);
        const struct http_field *type = http_find_field(data, &head, "Content-Type");
        assert_true(rpc_is_content_type((const char *)data + type->value.at, type->value.size));
        assert_true(http_list_has(data, &head, "Accept-Encoding", "deflate"));
        assert_int_equal(http_list_has(data, &head, "Connection", "keep-alive"), requests[i].keep_alive);
    }
}

/* --- answers --- */

struct expectation {
    const char *name, *text;
    enum rpc_path path;
    bool at_end; /* it takes the end of the connection to know */
    enum rpc_outcome outcome;
    const char *body; /* or status line */
    enum rpc_coding coding;
};

#define DATE "Date: Wed, 25 Nov 2026 19:36:25 GMT\r\n"

static const struct expectation answers[] = {
    {.name = "HEAD",
     .text = "HTTP/1.1 200 OK\r\n" DATE "Connection: close\r\n" MIME "Content-Length: 16\r\n\r\nreturn true,\"ok\"",
     .body = "return true,\"ok\""},
    {.name = "HEAD, deflated",
     .text = "HTTP/1.1 200 OK\r\n" DATE "Connection: close\r\n" MIME
             "Content-Encoding: deflate\r\nContent-Length: 4\r\n\r\n\x78\x9c\x01\x02",
     .coding = RPC_DEFLATE,
     .body = "\x78\x9c\x01\x02"},
    {.name = "HEAD, run-time error",
     .text = "HTTP/1.1 500 Internal Server Error\r\n" DATE "Connection: close\r\nContent-Type: text/plain; "
             "charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 21\r\n\r\nrpcall did not return",
     .outcome = RPC_STATUS,
     .body = "HTTP/1.1 500 Internal Server Error"},
    {.name = "1.5, kept alive",
     .text = "HTTP/1.1 200 OK\r\n" DATE "Connection: keep-alive\r\n" MIME "Content-Length: 11\r\n\r\nreturn true",
     .body = "return true"},
    {.name = "1.5.1, run-time error",
     .text =
         "HTTP/1.1 200 OK\r\n" DATE "Connection: close\r\n" MIME "Content-Length: 22\r\n\r\nreturn false,\"message\"",
     .body = "return false,\"message\""},
    {.name = "1.4.3, no Connection",
     .text = "HTTP/1.1 200 OK\r\n" DATE MIME "Content-Length: 13\r\n\r\nreturn true,1",
     .body = "return true,1"},
    {.name = "1.4.3, error page without length",
     .text = "HTTP/1.1 500 Internal Server Error\r\n" DATE
             "Content-Type: text/plain; charset=utf-8\r\n\r\n(rpc):1: syntax error",
     .outcome = RPC_STATUS,
     .body = "HTTP/1.1 500 Internal Server Error"},
    {.name = "1.3, run-time error",
     .text = "HTTP/1.1 200 OK\r\n" DATE MIME "Content-Length: 22\r\n\r\nreturn false,\"message\"",
     .body = "return false,\"message\""},
    {.name = "1.2, run-time error",
     .text = "HTTP/1.1 500 Internal Server Error\r\n" DATE MIME "Content-Length: 7\r\n\r\nmessage",
     .outcome = RPC_MESSAGE,
     .body = "message"},
    {.name = "1.2, run-time error without length",
     .text = "HTTP/1.1 500 Internal Server Error\r\n" DATE MIME "\r\nmessage",
     .at_end = true,
     .outcome = RPC_MESSAGE,
     .body = "message"},
    {.name = "a coding does not matter to a message",
     .text = "HTTP/1.1 500 Oops\r\n" MIME "Content-Encoding: br\r\nContent-Length: 2\r\n\r\n\x01\x02",
     .outcome = RPC_MESSAGE,
     .body = "\x01\x02"},
    {.name = "a message without text",
     .text = "HTTP/1.1 500 Oops\r\n" MIME "Content-Length: 0\r\n\r\n",
     .outcome = RPC_STATUS,
     .body = "HTTP/1.1 500 Oops"},
    {.name = "a message without text or length",
     .text = "HTTP/1.1 500 \r\n" MIME "\r\n",
     .at_end = true,
     .outcome = RPC_STATUS,
     .body = "HTTP/1.1 500 "},
    {.name = "no reason",
     .text = "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n",
     .outcome = RPC_STATUS,
     .body = "HTTP/1.1 404"},
    {.name = "HTTP/1.0, until close",
     .text = "HTTP/1.0 200 OK\r\n" MIME "\r\nreturn true,2",
     .at_end = true,
     .body = "return true,2"},
    {.name = "HTTP/1.0, empty", .text = "HTTP/1.0 200 OK\r\n" MIME "\r\n", .at_end = true, .body = ""},
    {.name = "chunks",
     .text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" MIME
             "\r\n7\r\nreturn \r\n3;x=y\r\ntru\r\n1\r\ne\r\n0\r\nTrailer: x\r\n\r\n",
     .body = "return true"},
    {.name = "gzip",
     .text = "HTTP/1.1 200 OK\r\ncontent-encoding: GZIP\r\n" MIME "Content-Length: 1\r\n\r\n\x1f",
     .coding = RPC_GZIP,
     .body = "\x1f"},
    {.name = "identity",
     .text = "HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n" MIME "Content-Length: 1\r\n\r\n1",
     .body = "1"},
    {.name = "no content", .text = "HTTP/1.1 204 No Content\r\n" MIME "\r\n", .body = ""},
    {.name = "interim answers",
     .text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n" MIME
             "Content-Length: 1\r\n\r\n1",
     .body = "1"},
    {.name = "switched protocols",
     .text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
     .outcome = RPC_STATUS,
     .body = "HTTP/1.1 101 Switching Protocols"},
    {.name = "moved",
     .text = "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
     .outcome = RPC_STATUS,
     .body = "HTTP/1.1 302 Found"},
    {.name = "another type",
     .text = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\n1",
     .outcome = RPC_WRONG_TYPE},
    {.name = "no type", .text = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1", .outcome = RPC_WRONG_TYPE},
    {.name = "two types",
     .text = "HTTP/1.1 200 OK\r\n" MIME MIME "Content-Length: 1\r\n\r\n1",
     .outcome = RPC_WRONG_TYPE},
    {.name = "another version",
     .text = "HTTP/1.1 200 OK\r\nContent-Type: application/x-neosocksd-rpc; version=2\r\nContent-Length: 1\r\n\r\n1",
     .outcome = RPC_WRONG_TYPE},
    {.name = "invoked",
     .path = RPC_INVOKE,
     .text = "HTTP/1.1 200 OK\r\n" DATE "Connection: close\r\nContent-Length: 0\r\n\r\n",
     .body = ""},
    {.name = "invoked, 1.4.2 tells the time cost",
     .path = RPC_INVOKE,
     .text = "HTTP/1.1 200 OK\r\n" DATE "Content-Type: text/plain\r\n\r\nTime Cost           : 1.0ms\n",
     .body = ""},
    {.name = "not invoked",
     .path = RPC_INVOKE,
     .text = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
     .outcome = RPC_STATUS,
     .body = "HTTP/1.1 401 Unauthorized"},
    {.name = "an unknown coding",
     .text = "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n" MIME "Content-Length: 1\r\n\r\n1",
     .outcome = RPC_MALFORMED},
    {.name = "two codings",
     .text =
         "HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Encoding: gzip\r\n" MIME "Content-Length: 1\r\n\r\n1",
     .outcome = RPC_MALFORMED},
    {.name = "two lengths",
     .text = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 1\r\nContent-Length: 2\r\n\r\n1",
     .outcome = RPC_MALFORMED},
    {.name = "a length that is none",
     .text = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: -1\r\n\r\n1",
     .outcome = RPC_MALFORMED},
    {.name = "a length beyond the limit",
     .text = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 4194305\r\n\r\n1",
     .outcome = RPC_MALFORMED},
    {.name = "a chunk that is none",
     .text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" MIME "\r\nxyz\r\n",
     .outcome = RPC_MALFORMED},
    {.name = "chunks in HTTP/1.0",
     .text = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" MIME "\r\n0\r\n\r\n",
     .outcome = RPC_MALFORMED},
    {.name = "a field that is none", .text = "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", .outcome = RPC_MALFORMED},
    {.name = "endless interim answers",
     .text = "HTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 100 "
             "\r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\n",
     .outcome = RPC_MALFORMED},
    {.name = "nothing", .text = "", .at_end = true, .outcome = RPC_UNREADABLE},
    {.name = "SSH", .text = "SSH-2.0-x\r\n", .outcome = RPC_UNREADABLE},
    {.name = "HTTP/2", .text = "HTTP/2 200\r\n\r\n", .outcome = RPC_UNREADABLE},
    {.name = "no status", .text = "HTTP/1.1 OK\r\n\r\n", .outcome = RPC_UNREADABLE},
    {.name = "a control in the status line", .text = "HTTP/1.1 200 O\nK\r\n\r\n", .outcome = RPC_UNREADABLE},
    {.name = "half a head", .text = "HTTP/1.1 200 OK\r\n" MIME, .at_end = true, .outcome = RPC_UNREADABLE},
    {.name = "half a body",
     .text = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 10\r\n\r\nreturn",
     .at_end = true,
     .outcome = RPC_UNREADABLE},
    {.name = "chunks without end",
     .text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" MIME "\r\n1\r\n1\r\n",
     .at_end = true,
     .outcome = RPC_UNREADABLE},
};

/* What was received, in a buffer from whose end nothing may be read. */
struct reading {
    struct rpc_answer answer;
    uint8_t *kept;
    size_t size;
};

static bool reading_add(struct reading *r, const char *data, size_t size)
{
    uint8_t *joined = malloc(r->size + size + 1);
    assert_non_null(joined);
    if (r->size > 0) memcpy(joined, r->kept, r->size);
    memcpy(joined + r->size, data, size);
    if (r->kept) support_unguard(r->kept, r->size);
    size_t total = r->size + size, kept = total;
    uint8_t *copy = support_guard(joined, total);
    free(joined);
    bool over = rpc_answer_read(&r->answer, copy, &kept);
    assert_true(kept <= total);
    r->kept = support_guard(copy, kept);
    r->size = kept;
    support_unguard(copy, total);
    return over;
}

static void assert_reading(const struct reading *r, const struct expectation *e)
{
    const struct rpc_answer *answer = &r->answer;
    if (answer->outcome != e->outcome) fail_msg("%s: outcome %u", e->name, answer->outcome);
    if (e->outcome == RPC_STATUS) {
        assert_int_equal(answer->status_line_size, strlen(e->body));
        assert_memory_equal(r->kept, e->body, answer->status_line_size);
    } else if (e->outcome == RPC_VALUES || e->outcome == RPC_MESSAGE) {
        assert_int_equal(answer->body_size, strlen(e->body));
        assert_memory_equal(r->kept + answer->body_at, e->body, answer->body_size);
        if (e->outcome == RPC_VALUES) assert_int_equal(answer->coding, e->coding);
    }
}

/* `step` octets at a time, the first time `first`. */
static void read_in_pieces(const struct expectation *e, size_t first, size_t step)
{
    struct reading r = {.answer.path = (uint8_t)e->path};
    size_t size = strlen(e->text), at = 0, piece = first;
    bool over = false;
    while (at < size && !over) {
        if (piece > size - at) piece = size - at;
        over = reading_add(&r, e->text + at, piece);
        at += piece;
        piece = step;
    }
    if (over == e->at_end) fail_msg("%s: over %d", e->name, over);
    if (!over) rpc_answer_end(&r.answer);
    assert_reading(&r, e);
    if (r.kept) support_unguard(r.kept, r.size);
}

static void test_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        size_t size = strlen(answers[i].text);
        read_in_pieces(&answers[i], size, 1);
        read_in_pieces(&answers[i], 1, 1);
        for (size_t cut = 1; cut < size; cut++) read_in_pieces(&answers[i], cut, size);
    }
}

/* A connection that ends before the whole of it is there must never pass for a whole one. */
static void test_prefixes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        const struct expectation *e = &answers[i];
        if (e->at_end || (e->outcome != RPC_VALUES && e->outcome != RPC_MESSAGE)) continue;
        for (size_t size = 0; size < strlen(e->text); size++) {
            struct reading r = {.answer.path = (uint8_t)e->path};
            if (reading_add(&r, e->text, size)) {
                assert_int_equal(e->path, RPC_INVOKE); /* which does not wait for the body */
            } else {
                rpc_answer_end(&r.answer);
                assert_int_equal(r.answer.outcome, RPC_UNREADABLE);
            }
            support_unguard(r.kept, r.size);
        }
    }
}

/* What follows an answer is not part of it. */
static void test_more_than_an_answer(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\n";
    static const struct expectation one = {.body = "1"};
    struct reading r = {0};
    (void)state;
    assert_true(reading_add(&r, text, sizeof text - 1));
    assert_reading(&r, &one);
    support_unguard(r.kept, r.size);
}

/* --- limits --- */

static bool feed(struct rpc_answer *answer, uint8_t *data, size_t *size, const void *more, size_t more_size)
{
    assert_true(*size <= RPC_ANSWER_SIZE_MAX);
    memcpy(data + *size, more, more_size);
    *size += more_size;
    return rpc_answer_read(answer, data, size);
}

static size_t feed_forever(const char *head, const char *piece, struct rpc_answer *answer)
{
    size_t size = 0, fed = 0, piece_size = strlen(piece);
    uint8_t *data = malloc(RPC_ANSWER_SIZE_MAX + 65536);
    assert_non_null(data);
    bool over = feed(answer, data, &size, head, strlen(head));
    while (!over && fed < 4 * RPC_BODY_SIZE_MAX) {
        over = feed(answer, data, &size, piece, piece_size);
        fed += piece_size;
    }
    assert_true(over);
    free(data);
    return fed;
}

static void test_endless_answers(void **state)
{
    static char piece[65536];
    struct rpc_answer answer = {0};
    (void)state;
    memset(piece, '1', sizeof piece - 1);
    size_t fed = feed_forever("HTTP/1.1 200 OK\r\n" MIME "\r\n", piece, &answer);
    assert_int_equal(answer.outcome, RPC_MALFORMED);
    assert_in_range(fed, RPC_BODY_SIZE_MAX, RPC_BODY_SIZE_MAX + sizeof piece);

    answer = (struct rpc_answer){0};
    feed_forever("HTTP/1.1 200 OK\r\nX: ", piece, &answer);
    assert_int_equal(answer.outcome, RPC_MALFORMED);

    answer = (struct rpc_answer){0};
    feed_forever("HTTP/1.1 200 ", piece, &answer);
    assert_int_equal(answer.outcome, RPC_UNREADABLE);

    snprintf(piece, 7, "%x\r\n", 65536u - 16);
    piece[6] = '1';
    memcpy(piece + 6 + 65536 - 16, "\r\n", 3);
    answer = (struct rpc_answer){0};
    feed_forever("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" MIME "\r\n", piece, &answer);
    assert_int_equal(answer.outcome, RPC_MALFORMED);
    assert_true(answer.body_size <= RPC_BODY_SIZE_MAX);
}

static void test_largest_answer(void **state)
{
    static const char head[] = "HTTP/1.1 200 OK\r\n" MIME "Content-Length: 4194304\r\n\r\n";
    struct rpc_answer answer = {0};
    size_t size = 0;
    uint8_t *data = malloc(RPC_ANSWER_SIZE_MAX), *body = malloc(RPC_BODY_SIZE_MAX);
    (void)state;
    assert_non_null(data);
    assert_non_null(body);
    memset(body, 'x', RPC_BODY_SIZE_MAX);
    assert_false(feed(&answer, data, &size, head, sizeof head - 1));
    assert_false(feed(&answer, data, &size, body, RPC_BODY_SIZE_MAX - 1));
    assert_true(feed(&answer, data, &size, body, 1));
    assert_int_equal(answer.outcome, RPC_VALUES);
    assert_int_equal(answer.body_size, RPC_BODY_SIZE_MAX);
    free(body);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_peers),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_longest_request),
        cmocka_unit_test(test_requests_of_versions),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_more_than_an_answer),
        cmocka_unit_test(test_endless_answers),
        cmocka_unit_test(test_largest_answer),
    };
    return cmocka_run_group_tests_name("rpc_message", tests, NULL, NULL);
}
