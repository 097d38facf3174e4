/* Plain HTTP through the proxy: what is refused, and both heads as they are written anew, octet by octet. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocols/http_forward.h"
#include "tests/support.h"

#define OUT_SIZE 40000u

/* A request or response on its way: what came, what was understood, what goes on. */
struct passage {
    uint8_t *data;
    size_t size;
    struct http_head head;
    struct http_forward_request request;
    struct http_forward_response response;
    size_t out_size;
    uint8_t out[OUT_SIZE];
};

static struct passage *passage_begin(const char *text)
{
    static struct passage p;
    if (p.data != NULL) support_unguard(p.data, p.size);
    p.size = strlen(text);
    p.data = support_guard(text, p.size);
    return &p;
}

/* The head that goes on, checked to need exactly the room that it takes. */
static void assert_out(struct passage *p, bool is_request, const char *expected)
{
    for (size_t size = 0; size <= p->out_size + 1; size++) {
        uint8_t *out = support_guard(p->out, size);
        size_t written = is_request
                             ? http_forward_write_request(p->data, &p->head, &p->request, out, size)
                             : http_forward_write_response(p->data, &p->head, &p->request, &p->response, out, size);
        support_unguard(out, size);
        assert_int_equal(written, size < p->out_size ? 0 : p->out_size);
    }
    p->out[p->out_size] = '\0';
    assert_string_equal((char *)p->out, expected);
}

static unsigned judge(struct passage *p)
{
    size_t scanned = 0, used;
    assert_int_equal(http_parse_request(p->data, p->size, &scanned, &p->head, &used), PARSE_OK);
    return http_forward_judge(p->data, &p->head, &p->request);
}

static struct passage *forward(const char *text, const char *expected)
{
    struct passage *p = passage_begin(text);
    assert_int_equal(judge(p), 0);
    p->out_size = http_forward_write_request(p->data, &p->head, &p->request, p->out, OUT_SIZE - 1);
    assert_out(p, true, expected);
    return p;
}

static unsigned refusal(const char *text)
{
    return judge(passage_begin(text));
}

static unsigned judge_answer(const char *text, struct http_forward_request request, struct passage **passage)
{
    struct passage *p = *passage = passage_begin(text);
    size_t scanned = 0, used;
    assert_int_equal(http_parse_response(p->data, p->size, &scanned, &p->head, &used), PARSE_OK);
    p->request = request;
    return http_forward_judge_response(p->data, &p->head, &p->request, &p->response);
}

static struct passage *answer(const char *text, struct http_forward_request request, const char *expected)
{
    struct passage *p;
    assert_int_equal(judge_answer(text, request, &p), 0);
    p->out_size = http_forward_write_response(p->data, &p->head, &p->request, &p->response, p->out, OUT_SIZE - 1);
    assert_out(p, false, expected);
    return p;
}

static const struct http_forward_request plain = {0}, head_request = {.head_method = true}, upgrade = {.upgrade = true},
                                         http10 = {.client_is_http10 = true};

static void assert_target(const struct passage *p, const char *expected)
{
    char text[ADDRESS_TEXT_SIZE];
    address_format(&p->request.target, text, sizeof text);
    assert_string_equal(text, expected);
}

static void request_is_rewritten(void **state)
{
    (void)state;
    struct passage *p = forward("GET http://Example.com/a/b?c=d HTTP/1.1\r\n"
                                "Host: example.com\r\n"
                                "User-Agent: t\r\n"
                                "Accept:  */* \r\n"
                                "\r\n",
                                "GET /a/b?c=d HTTP/1.1\r\n"
                                "Host: Example.com\r\n"
                                "User-Agent: t\r\n"
                                "Accept: */*\r\n"
                                "Via: 1.1 neosocksd\r\n"
                                "Connection: close\r\n"
                                "\r\n");
    assert_target(p, "Example.com:80");
    assert_int_equal(p->request.framing, HTTP_BODY_NONE);
    assert_false(p->request.upgrade || p->request.head_method || p->request.client_is_http10);
}

static void host_comes_from_the_target(void **state)
{
    (void)state;
    struct passage *p = forward("GET http://u:p@h@[::1]:8080 HTTP/1.0\r\nHost: evil\r\nVia: 1.1 x\r\n\r\n",
                                "GET / HTTP/1.0\r\nHost: [::1]:8080\r\nVia: 1.1 x\r\nVia: 1.0 neosocksd\r\n"
                                "Connection: close\r\n\r\n");
    assert_target(p, "[::1]:8080");
    assert_true(p->request.client_is_http10);
}

static void assert_path(const char *method, const char *target, const char *path)
{
    char text[256], expected[256];
    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\n\r\n", method, target);
    snprintf(expected, sizeof expected, "%s %s HTTP/1.1\r\nHost: a\r\nVia: 1.1 neosocksd\r\nConnection: close\r\n\r\n",
             method, path);
    forward(text, expected);
}

static void paths(void **state)
{
    (void)state;
    assert_path("GET", "http://a", "/");
    assert_path("GET", "HTTP://a/", "/");
    assert_path("GET", "http://a?q", "/?q");
    assert_path("GET", "http://a?q/@b", "/?q/@b");
    assert_path("GET", "http://a#f", "/");
    assert_path("GET", "http://a#f?q/x@b", "/");
    assert_path("GET", "http://a/x#f", "/x");
    assert_path("GET", "http://a/x?y?z#f", "/x?y?z");
    assert_path("GET", "http://a//b//../c", "//b//../c");
    assert_path("GET", "http://a/http://b/", "/http://b/");
    assert_path("GET", "http://a/\xc3\xa4", "/\xc3\xa4");
    assert_path("GET", "http://u@a/x@y", "/x@y");
    assert_path("OPTIONS", "http://a", "*");
    assert_path("OPTIONS", "http://a#f", "*");
    assert_path("OPTIONS", "http://a/", "/");
    assert_path("OPTIONS", "http://a?q", "/?q");
    assert_path("options", "http://a", "/");
}

static void hop_by_hop_fields_end_here(void **state)
{
    (void)state;
    forward("GET http://a/ HTTP/1.1\r\n"
            "Connection: keep-alive, X-Secret ,, x-OTHER\r\n"
            "Keep-Alive: timeout=5\r\n"
            "Proxy-Connection: keep-alive\r\n"
            "Proxy-Authorization: Basic YTpi\r\n"
            "proxy-authenticate: x\r\n"
            "Proxy-Authentication-Info: x\r\n"
            "TE: trailers\r\n"
            "Trailer: x\r\n"
            "Upgrade: websocket\r\n"
            "X-Secret: 1\r\n"
            "X-Secrets: 2\r\n"
            "connection: X-Third\r\n"
            "X-Third: 3\r\n"
            "X-Other: 4\r\n"
            "Expect: 100-continue\r\n"
            "Authorization: Basic YTpi\r\n"
            "\r\n",
            "GET / HTTP/1.1\r\n"
            "Host: a\r\n"
            "X-Secrets: 2\r\n"
            "Expect: 100-continue\r\n"
            "Authorization: Basic YTpi\r\n"
            "Via: 1.1 neosocksd\r\n"
            "Connection: close\r\n"
            "\r\n");
}

/* Connection must not be able to take away what we say ourselves. */
static void connection_cannot_drop_framing(void **state)
{
    (void)state;
    forward("POST http://a/ HTTP/1.1\r\nConnection: Content-Length, Host, Via, Connection\r\nContent-Length: "
            "03\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nVia: 1.1 neosocksd\r\nContent-Length: 3\r\nConnection: close\r\n\r\n");
}

static void bodies_are_framed_anew(void **state)
{
    (void)state;
    struct passage *p = forward("POST http://a/ HTTP/1.1\r\nX: y\r\nTransfer-Encoding:  CHUNKED\r\nA: b\r\n\r\n",
                                "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\nA: b\r\nVia: 1.1 neosocksd\r\n"
                                "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    assert_int_equal(p->request.framing, HTTP_BODY_CHUNKED);
    p = forward("PUT http://a/ HTTP/1.0\r\nContent-Length: 9223372036854775807\r\n\r\n",
                "PUT / HTTP/1.0\r\nHost: a\r\nVia: 1.0 neosocksd\r\nContent-Length: 9223372036854775807\r\n"
                "Connection: close\r\n\r\n");
    assert_int_equal(p->request.framing, HTTP_BODY_LENGTH);
    assert_true(p->request.length == INT64_MAX);
}

static void upgrades(void **state)
{
    (void)state;
    struct passage *p = forward("GET http://a/ HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
                                "Sec-WebSocket-Key: x\r\n\r\n",
                                "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: x\r\nVia: 1.1 neosocksd\r\n"
                                "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_true(p->request.upgrade);
    static const char *const none[] = {
        "GET http://a/ HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nConnection: upgrade\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nConnection: upgrade\r\nUpgrade:\r\n\r\n",
        "GET http://a/ HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nConnection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket, H2C\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        p = passage_begin(none[i]);
        assert_int_equal(judge(p), 0);
        assert_false(p->request.upgrade);
        size_t size = http_forward_write_request(p->data, &p->head, &p->request, p->out, OUT_SIZE - 1);
        p->out[size] = '\0';
        assert_null(strstr((char *)p->out, "pgrade"));
        assert_non_null(strstr((char *)p->out, "\r\nConnection: close\r\n"));
    }
    assert_int_equal(
        refusal("GET http://a/ HTTP/1.1\r\nConnection: upgrade\r\nContent-Length: 0\r\nUpgrade: x\r\n\r\n"), 0);
}

static void requests_that_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\n\r\n",
        "GET https://a/ HTTP/1.1\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\n\r\n",
        "GET http:/a/ HTTP/1.1\r\n\r\n",
        "GET http:// HTTP/1.1\r\n\r\n",
        "GET http:/// HTTP/1.1\r\n\r\n",
        "GET http://?q HTTP/1.1\r\n\r\n",
        "GET http://:80/ HTTP/1.1\r\n\r\n",
        "GET http://u@/ HTTP/1.1\r\n\r\n",
        "GET http://a:0/ HTTP/1.1\r\n\r\n",
        "GET http://a:65536/ HTTP/1.1\r\n\r\n",
        "GET http://a:b/ HTTP/1.1\r\n\r\n",
        "GET http://[::1/ HTTP/1.1\r\n\r\n",
        "GET http://[a]/ HTTP/1.1\r\n\r\n",
        "GET http://::1/ HTTP/1.1\r\n\r\n",
        "GET http://a\\@b\\c/ HTTP/1.1\r\n\r\n",
        "GET xhttp://a/ HTTP/1.1\r\n\r\n",
        "CONNECT http://a/ HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST http://a/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST http://a/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (refusal(bad[i]) != 400) fail_msg("accepted: %s", bad[i]);
    }
    assert_int_equal(refusal("POST http://a/ HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"), 413);
}

/* Comparing every field with every option must not become a way to keep the proxy busy. */
static void connection_options_are_bounded(void **state)
{
    (void)state;
    for (unsigned commas = HTTP_OPTIONS_MAX; commas <= HTTP_OPTIONS_MAX + 1; commas++) {
        char text[512] = "GET http://a/ HTTP/1.1\r\nConnection: x,,,,,\r\nConnection: ";
        for (unsigned i = 5; i < commas; i++) strcat(text, ",");
        strcat(text, "y\r\nY: z\r\n\r\n");
        assert_int_equal(refusal(text), commas > HTTP_OPTIONS_MAX ? 400 : 0);
        char reply[512] = "HTTP/1.1 200 OK\r\nConnection: ";
        for (unsigned i = 0; i < commas; i++) strcat(reply, ",");
        strcat(reply, "\r\n\r\n");
        struct passage *p;
        assert_int_equal(judge_answer(reply, plain, &p), commas > HTTP_OPTIONS_MAX ? 502 : 0);
    }
}

static void response_is_rewritten(void **state)
{
    (void)state;
    struct passage *p = answer("HTTP/1.0 200 Fine, thanks\r\n"
                               "Server: x\r\n"
                               "Connection: Keep-Alive, X-Hop\r\n"
                               "Keep-Alive: x\r\n"
                               "X-Hop: x\r\n"
                               "Proxy-Authenticate: x\r\n"
                               "Proxy-Connection: x\r\n"
                               "Upgrade: h2c\r\n"
                               "Trailer: x\r\n"
                               "TE: x\r\n"
                               "Set-Cookie: a\r\n"
                               "Content-Length: 5\r\n"
                               "Set-Cookie: b\r\n"
                               "\r\n",
                               plain,
                               "HTTP/1.1 200 OK\r\n"
                               "Server: x\r\n"
                               "Set-Cookie: a\r\n"
                               "Set-Cookie: b\r\n"
                               "Via: 1.0 neosocksd\r\n"
                               "Content-Length: 5\r\n"
                               "Connection: close\r\n"
                               "\r\n");
    assert_int_equal(p->response.framing, HTTP_BODY_LENGTH);
    assert_true(p->response.length == 5);
    assert_false(p->response.interim || p->response.switched || p->response.rechunk);
}

static void response_framing(void **state)
{
    (void)state;
    static const char chunked[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    struct passage *p = answer(chunked, plain,
                               "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\nTransfer-Encoding: chunked\r\n"
                               "Connection: close\r\n\r\n");
    assert_int_equal(p->response.framing, HTTP_BODY_CHUNKED);
    assert_true(p->response.rechunk);
    p = answer(chunked, http10, "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\nConnection: close\r\n\r\n");
    assert_int_equal(p->response.framing, HTTP_BODY_CHUNKED);
    assert_false(p->response.rechunk);
    p = answer("HTTP/1.1 599\r\n\r\n", plain, "HTTP/1.1 599 \r\nVia: 1.1 neosocksd\r\nConnection: close\r\n\r\n");
    assert_int_equal(p->response.framing, HTTP_BODY_UNTIL_CLOSE);
    assert_false(p->response.rechunk);
}

static void responses_without_body(void **state)
{
    (void)state;
    struct passage *p =
        answer("HTTP/1.1 200 OK\r\nContent-Length: 0700\r\n\r\n", head_request,
               "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\nContent-Length: 700\r\nConnection: close\r\n\r\n");
    assert_int_equal(p->response.framing, HTTP_BODY_NONE);
    p = answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", head_request,
               "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\nConnection: close\r\n\r\n");
    assert_int_equal(p->response.framing, HTTP_BODY_NONE);
    assert_false(p->response.rechunk);
    p = answer("HTTP/1.1 200 OK\r\n\r\n", head_request,
               "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\nConnection: close\r\n\r\n");
    assert_int_equal(p->response.framing, HTTP_BODY_NONE);
    p = answer("HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n", plain,
               "HTTP/1.1 304 Not Modified\r\nVia: 1.1 neosocksd\r\nContent-Length: 7\r\nConnection: close\r\n\r\n");
    assert_int_equal(p->response.framing, HTTP_BODY_NONE);
    p = answer("HTTP/1.1 204 x\r\nContent-Length: 7\r\n\r\n", plain,
               "HTTP/1.1 204 No Content\r\nVia: 1.1 neosocksd\r\nConnection: close\r\n\r\n");
    assert_int_equal(p->response.framing, HTTP_BODY_NONE);
}

/* Who expects a connection to go on: HTTP/1.1 unless it says otherwise, HTTP/1.0 if it asks. */
static void persistence_of_requests(void **state)
{
    static const struct {
        const char *version, *field;
        bool persistent;
    } cases[] = {
        {"1.1", "", true},
        {"1.1", "Connection: keep-alive\r\n", true},
        {"1.1", "Connection: close\r\n", false},
        {"1.1", "Connection: x\r\nConnection: y, CLOSE\r\n", false},
        {"1.1", "Connection: closer\r\n", true},
        {"1.1", "Proxy-Connection: close\r\n", true}, /* no field of ours: RFC 9112 appendix C.2.2 */
        {"1.0", "", false},
        {"1.0", "Connection: Keep-Alive\r\n", true},
        {"1.0", "Connection: keep-alive, close\r\n", false},
        {"1.0", "Proxy-Connection: keep-alive\r\n", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text, "GET http://a/ HTTP/%s\r\n%s\r\n", cases[i].version, cases[i].field);
        struct passage *p = passage_begin(text);
        assert_int_equal(judge(p), 0);
        assert_int_equal(p->request.persistent, cases[i].persistent);
    }
}

/* The client's connection goes on only behind a body whose end it sees without the connection's. */
static void persistence_of_responses(void **state)
{
    static const char until_close[] = "HTTP/1.1 200 OK\r\n\r\n";
    static const char chunked[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const char length[] = "HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n";
    struct http_forward_request keep = plain, keep10 = http10, keep_head = head_request;
    (void)state;
    keep.persistent = keep10.persistent = keep_head.persistent = true;
    answer(length, keep, "HTTP/1.1 200 OK\r\nVia: 1.0 neosocksd\r\nContent-Length: 5\r\n\r\n");
    answer(length, keep10,
           "HTTP/1.1 200 OK\r\nVia: 1.0 neosocksd\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n");
    answer(chunked, keep, "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\nTransfer-Encoding: chunked\r\n\r\n");
    answer(chunked, keep10, "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\nConnection: close\r\n\r\n");
    answer(until_close, keep, "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\nConnection: close\r\n\r\n");
    answer(until_close, keep_head, "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\n\r\n");
    answer(chunked, keep_head, "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\n\r\n");
    answer("HTTP/1.1 204 x\r\n\r\n", keep, "HTTP/1.1 204 No Content\r\nVia: 1.1 neosocksd\r\n\r\n");
    answer("HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n", keep,
           "HTTP/1.1 304 Not Modified\r\nVia: 1.1 neosocksd\r\nContent-Length: 7\r\n\r\n");
}

/* What may be sent again when its connection ends without an answer. */
static void repeatable_requests(void **state)
{
    static const struct {
        const char *text;
        bool repeatable;
    } cases[] = {
        {"GET http://a/ HTTP/1.1\r\n\r\n", true},
        {"HEAD http://a/ HTTP/1.1\r\n\r\n", true},
        {"OPTIONS http://a/ HTTP/1.1\r\n\r\n", true},
        {"TRACE http://a/ HTTP/1.1\r\n\r\n", true},
        {"PUT http://a/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n", true},
        {"DELETE http://a/ HTTP/1.1\r\n\r\n", true},
        {"PUT http://a/ HTTP/1.1\r\nContent-Length: 1\r\n\r\n", false},
        {"DELETE http://a/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false},
        {"GET http://a/ HTTP/1.1\r\nContent-Length: 3\r\n\r\n", false},
        {"POST http://a/ HTTP/1.1\r\n\r\n", false},
        {"PATCH http://a/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n", false},
        {"get http://a/ HTTP/1.1\r\n\r\n", false}, /* methods are case-sensitive: a method of its own */
        {"GETS http://a/ HTTP/1.1\r\n\r\n", false},
        {"GET http://a/ HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", false},
        {"GET http://a/ HTTP/1.0\r\n\r\n", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct passage *p = passage_begin(cases[i].text);
        assert_int_equal(judge(p), 0);
        if (p->request.repeatable != cases[i].repeatable) fail_msg("judged wrongly: %s", cases[i].text);
        assert_false(p->request.keep_upstream);
    }
}

/* An upstream whose connection is to go on is not told to close it; HTTP/1.0 and upgrades are written as before. */
static void upstreams_that_are_asked_to_keep(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"GET http://a/ HTTP/1.1\r\nConnection: close\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 neosocksd\r\n\r\n"},
        {"POST http://a/ HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
         "POST / HTTP/1.1\r\nHost: a\r\nVia: 1.1 neosocksd\r\nContent-Length: 3\r\n\r\n"},
        {"GET http://a/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
         "GET / HTTP/1.0\r\nHost: a\r\nVia: 1.0 neosocksd\r\nConnection: close\r\n\r\n"},
        {"GET http://a/ HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 neosocksd\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct passage *p = passage_begin(cases[i].text);
        assert_int_equal(judge(p), 0);
        p->request.keep_upstream = true;
        p->out_size = http_forward_write_request(p->data, &p->head, &p->request, p->out, OUT_SIZE - 1);
        assert_out(p, true, cases[i].expected);
    }
}

/* Whether the upstream's connection goes on behind a response: it was asked to, it says so, and its end is known. */
static void upstreams_that_keep(void **state)
{
    static const struct {
        const char *text;
        bool kept, kept_head; /* in answer to GET, to HEAD */
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, true},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, true},
        {"HTTP/1.1 200 OK\r\n\r\n", false, true},
        {"HTTP/1.1 204 x\r\n\r\n", true, true},
        {"HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n", true, true},
        {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", false, false},
        {"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 5\r\n\r\n", false, false},
        {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, false},
        {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\n", true, true},
        {"HTTP/1.1 100 x\r\n\r\n", false, false},
    };
    struct http_forward_request asked = plain, asked_head = head_request, asked10 = http10;
    struct passage *p;
    (void)state;
    asked.keep_upstream = asked_head.keep_upstream = asked10.keep_upstream = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(judge_answer(cases[i].text, asked, &p), 0);
        if (p->response.keep_upstream != cases[i].kept) fail_msg("judged wrongly: %s", cases[i].text);
        assert_int_equal(judge_answer(cases[i].text, asked_head, &p), 0);
        if (p->response.keep_upstream != cases[i].kept_head) fail_msg("judged wrongly: %s", cases[i].text);
        assert_int_equal(judge_answer(cases[i].text, plain, &p), 0);
        assert_false(p->response.keep_upstream);
        assert_int_equal(judge_answer(cases[i].text, asked10, &p), 0);
        assert_false(p->response.keep_upstream);
    }
}

/* Authentication that holds for all that follows on the connection, in whatever form it is named. */
static void authentication_of_connections(void **state)
{
    static const struct {
        const char *value;
        bool binds;
    } cases[] = {
        {"NTLM", true},
        {"ntlm TlRMTVNTUAABAAAA", true},
        {"Negotiate", true},
        {"NEGOTIATE\toYH", true},
        {"Basic realm=\"x\", Negotiate, NTLM", true},
        {"Digest realm=\"x\", nonce=\"y\",Negotiate", true},
        {"Kerberos x", true},
        {"Nego2", true},
        {"PKU2U", true},
        {"Basic dTpw", false},
        {"Bearer NTLM", false},
        {"Digest username=\"NTLM\", realm=\"Negotiate\"", false},
        {"NTLMv2", false},
        {"", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        struct passage *p;
        snprintf(text, sizeof text, "GET http://a/ HTTP/1.1\r\nX: NTLM\r\nAuthorization: %s\r\n\r\n", cases[i].value);
        p = passage_begin(text);
        assert_int_equal(judge(p), 0);
        if (p->request.binds != cases[i].binds) fail_msg("judged wrongly: %s", cases[i].value);
        snprintf(text, sizeof text,
                 "HTTP/1.1 401 x\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: %s\r\nContent-Length: 0\r\n\r\n",
                 cases[i].value);
        assert_int_equal(judge_answer(text, plain, &p), 0);
        if (p->response.binds != cases[i].binds) fail_msg("judged wrongly: %s", cases[i].value);
    }
}

/* Interim responses go on with their fields, but what they say about framing must not leak into the final one. */
static void interim_responses(void **state)
{
    (void)state;
    struct passage *p = answer("HTTP/1.1 100 go\r\n\r\n", plain, "HTTP/1.1 100 Continue\r\nVia: 1.1 neosocksd\r\n\r\n");
    assert_true(p->response.interim);
    assert_int_equal(p->response.framing, HTTP_BODY_NONE);
    p = answer(
        "HTTP/1.1 103 x\r\nLink: </a>\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n",
        upgrade, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.1 neosocksd\r\n\r\n");
    assert_true(p->response.interim);
    assert_false(p->response.switched);
}

static void switching_protocols(void **state)
{
    (void)state;
    static const char text[] =
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\n"
        "Content-Length: 5\r\n\r\n";
    struct passage *p = answer(text, upgrade,
                               "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\nVia: 1.1 neosocksd\r\n"
                               "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_true(p->response.switched);
    assert_false(p->response.interim);
    assert_int_equal(p->response.framing, HTTP_BODY_NONE);
    assert_int_equal(judge_answer(text, plain, &p), 502);
    answer("HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n", upgrade,
           "HTTP/1.1 200 OK\r\nVia: 1.1 neosocksd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

static void responses_that_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    struct passage *p;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (judge_answer(bad[i], plain, &p) != 502) fail_msg("accepted: %s", bad[i]);
        assert_int_equal(judge_answer(bad[i], head_request, &p), 502);
    }
}

/* The biggest head that is accepted, with as many fields as can be: nothing is lost but what must be. */
static void full_heads_go_on(void **state)
{
    (void)state;
    char text[HTTP_HEAD_SIZE_MAX + 1] = "GET http://a/ HTTP/1.1\r\n", expected[HTTP_HEAD_SIZE_MAX + 100];
    for (unsigned i = 0; i < HTTP_FIELDS_MAX; i++) sprintf(text + strlen(text), "N%u: %0110u\r\n", i, i);
    snprintf(expected, sizeof expected,
             "GET / HTTP/1.1\r\nHost: a\r\n%sVia: 1.1 neosocksd\r\nConnection: close\r\n\r\n",
             strstr(text, "\r\n") + 2);
    strcat(text, "\r\n");
    struct passage *p = passage_begin(text);
    assert_int_equal(judge(p), 0);
    size_t size = http_forward_write_request(p->data, &p->head, &p->request, p->out, OUT_SIZE - 1);
    p->out[size] = '\0';
    assert_string_equal((char *)p->out, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_rewritten),
        cmocka_unit_test(host_comes_from_the_target),
        cmocka_unit_test(paths),
        cmocka_unit_test(hop_by_hop_fields_end_here),
        cmocka_unit_test(connection_cannot_drop_framing),
        cmocka_unit_test(bodies_are_framed_anew),
        cmocka_unit_test(upgrades),
        cmocka_unit_test(requests_that_are_refused),
        cmocka_unit_test(connection_options_are_bounded),
        cmocka_unit_test(response_is_rewritten),
        cmocka_unit_test(response_framing),
        cmocka_unit_test(responses_without_body),
        cmocka_unit_test(persistence_of_requests),
        cmocka_unit_test(persistence_of_responses),
        cmocka_unit_test(repeatable_requests),
        cmocka_unit_test(upstreams_that_are_asked_to_keep),
        cmocka_unit_test(upstreams_that_keep),
        cmocka_unit_test(authentication_of_connections),
        cmocka_unit_test(interim_responses),
        cmocka_unit_test(switching_protocols),
        cmocka_unit_test(responses_that_are_refused),
        cmocka_unit_test(full_heads_go_on),
    };
    return cmocka_run_group_tests_name("http_forward", tests, NULL, NULL);
}
