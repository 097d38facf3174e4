/* Every known way to make two recipients of an HTTP message see its end, or its fields, in different places: what a
 * request and what a response of that form comes to, from the octets that come in to those that go on.
 *
 * Requests are refused. Of responses that is repaired which RFC 9112 lets a proxy repair, as nothing follows them on
 * their connection; what says two things about where the body ends is refused there as well. */
#include <stdlib.h>
#include <string.h>

#include "protocols/http_connect.h"
#include "protocols/http_forward.h"
#include "tests/support.h"

#define OUT_SIZE 4096u

enum outcome {
    PASSES,
    BAD_HEAD, /* refused before anything goes on */
    BAD_BODY, /* its body turns out to be broken: what has gone on is never ended in order */
};

struct form {
    const char *what;
    const char *fields; /* behind the first line and its CRLF, with the empty line and the body; {0} is a NUL */
    enum outcome request, response;
};

static const struct form forms[] = {
    /* --- what must pass --- */
    {"nothing special", "Content-Length: 3\r\n\r\nabc", PASSES, PASSES},
    {"chunks", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", PASSES, PASSES},
    {"coding in capitals", "Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n", PASSES, PASSES},
    {"zeros in front of a length", "Content-Length: 003\r\n\r\nabc", PASSES, PASSES},
    {"chunk extension", "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0;c\r\n\r\n", PASSES, PASSES},
    {"chunk size with zeros in front", "Transfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n0\r\n\r\n", PASSES, PASSES},
    {"field that looks like one", "X-Content-Length: 9\r\nContent-Length: 3\r\n\r\nabc", PASSES, PASSES},

    /* --- both framings --- */
    {"length, then chunks", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"chunks, then length", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"length and unknown coding", "Content-Length: 3\r\nTransfer-Encoding: x\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"length and folded coding", "Content-Length: 3\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", BAD_HEAD,
     BAD_HEAD},
    {"length and coding with a blank before its colon",
     "Content-Length: 3\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"coding behind a bare LF", "X: a\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", BAD_HEAD,
     BAD_HEAD},

    /* --- several lengths --- */
    {"two lengths that differ", "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", BAD_HEAD, BAD_HEAD},
    {"two lengths that agree", "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"three lengths, the last one differs", "Content-Length: 3\r\nContent-Length: 3\r\ncontent-length: 33\r\n\r\nabc",
     BAD_HEAD, BAD_HEAD},
    {"a list of lengths that agree", "Content-Length: 3, 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"a list of lengths that differ", "Content-Length: 3, 4\r\n\r\nabcd", BAD_HEAD, BAD_HEAD},
    {"a list with an empty item", "Content-Length: 3,\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"a list with a coding", "Content-Length: 3, chunked\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"a length and an empty one", "Content-Length: 3\r\nContent-Length:\r\n\r\nabc", BAD_HEAD, BAD_HEAD},

    /* --- numbers that some read and others do not --- */
    {"plus sign", "Content-Length: +3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"minus sign", "Content-Length: -3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"hexadecimal length", "Content-Length: 0x3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"fraction", "Content-Length: 3.0\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"blank inside a length", "Content-Length: 1 0\r\n\r\nabcdefghij", BAD_HEAD, BAD_HEAD},
    {"length in quotes", "Content-Length: \"3\"\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"empty length", "Content-Length: \r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"length beyond 63 bits", "Content-Length: 9223372036854775808\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"length that wraps to 3", "Content-Length: 18446744073709551619\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"length folded in the middle", "Content-Length: 1\r\n 0\r\n\r\nabcdefghij", BAD_HEAD, BAD_HEAD},
    {"NUL in a length", "Content-Length: 3{0}\r\n\r\nabc", BAD_HEAD, BAD_HEAD},

    /* --- codings that some read and others do not --- */
    {"chunks twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"chunks twice in a list", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"chunks and identity", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"chunked, gzip", "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"unknown coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"coding in quotes", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"coding with a parameter", "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"coding behind a vertical tab",
     "Transfer-Encoding: \x0b"
     "chunked\r\n\r\n0\r\n\r\n",
     BAD_HEAD, BAD_HEAD},
    {"NUL behind a coding", "Transfer-Encoding: chunked{0}\r\n\r\n0\r\n\r\n", BAD_HEAD, BAD_HEAD},

    /* --- ends of lines --- */
    {"bare LF behind a field", "X: a\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"bare LF throughout", "X: a\nContent-Length: 3\n\nabc", BAD_HEAD, PASSES},
    {"LF as the empty line", "Content-Length: 3\r\n\nabc", BAD_HEAD, PASSES},
    {"bare CR behind a field", "X: a\rContent-Length: 3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"CR CR LF", "Content-Length: 3\r\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"bare CR as the empty line", "Content-Length: 3\r\n\rabc\r\n\r\n", BAD_HEAD, BAD_HEAD},
    {"LF CR", "X: a\n\rContent-Length: 3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},

    /* --- folds --- */
    {"fold", "X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"fold with a tab", "X: a\r\n\tb\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"fold behind a bare LF", "X: a\n b\nContent-Length: 3\n\nabc", BAD_HEAD, PASSES},
    {"fold that hides a length", "X: a\r\n Content-Length: 9\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"fold of nothing", "X: a\r\n \r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"fold in front of a length", "Content-Length:\r\n 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"fold in front of a coding", "Transfer-Encoding:\r\n chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", BAD_HEAD, PASSES},
    {"blank in front of the first field", " X: a\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"blank line in front of the first field", " \r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},

    /* --- names --- */
    {"blank before the colon", "Content-Length : 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"tab before the colon", "Content-Length\t: 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"blank inside a name", "Content Length: 3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"fold before the colon", "X\r\n : a\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, PASSES},
    {"no name", ": a\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"no colon", "X\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"NUL in a name", "X{0}: a\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"NUL in a value", "X: a{0}b\r\nContent-Length: 3\r\n\r\nabc", BAD_HEAD, BAD_HEAD},
    {"underscore for a hyphen", "Content_Length: 9\r\nContent-Length: 3\r\n\r\nabc", PASSES, PASSES},

    /* --- chunks --- */
    {"chunk: bare LF behind the size", "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: bare LF behind the data", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: bare LF in an extension", "Transfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: bare CR in an extension", "Transfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n", BAD_BODY,
     BAD_BODY},
    {"chunk: bare LF at the end", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\n", BAD_BODY, BAD_BODY},
    {"chunk: NUL in an extension", "Transfer-Encoding: chunked\r\n\r\n3;{0}\r\nabc\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: plus sign", "Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: minus sign", "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: 0x", "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: underscore", "Transfer-Encoding: chunked\r\n\r\n0_3\r\nabc\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: blank before the size", "Transfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: no size", "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: size that wraps to 3", "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", BAD_BODY,
     BAD_BODY},
    {"chunk: more data than the size", "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", BAD_BODY, BAD_BODY},
    {"chunk: bare LF behind a trailer", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: a\n\r\n", BAD_BODY,
     BAD_BODY},
};

/* A message in memory of its exact size, with {0} made a NUL. */
static uint8_t *compose(const char *first_line, const char *fields, size_t *size)
{
    char text[2048];
    size_t used = strlen(first_line);
    memcpy(text, first_line, used);
    while (*fields) {
        bool nul = strncmp(fields, "{0}", 3) == 0;
        text[used++] = nul ? '\0' : *fields;
        fields += nul ? 3 : 1;
    }
    *size = used;
    return support_guard(text, used);
}

/* Whether the body's framing holds until its end, and how many octets of payload it has. */
static enum outcome read_body(enum http_framing framing, uint64_t length, const uint8_t *data, size_t size)
{
    struct http_body body;
    size_t at = 0, sum = 0, used, payload_at, payload_size;
    enum parse_result result;
    http_body_begin(&body, framing, length);
    do {
        result = http_body_read(&body, data + at, size - at, &used, &payload_at, &payload_size);
        at += used;
        sum += payload_size;
    } while (result == PARSE_MORE && at < size);
    if (result == PARSE_OK) assert_int_equal(sum, 3); /* "abc" whichever way it was said */
    return result == PARSE_OK ? PASSES : BAD_BODY;
}

/* What goes on says everything once and in the one form that nobody reads differently. */
static void assert_unambiguous(const uint8_t *out, size_t size)
{
    static struct http_head head;
    size_t scanned = 0, used;
    for (size_t i = 0; i < size; i++) {
        assert_true(out[i] != '\0');
        if (out[i] == '\n') assert_true(i > 0 && out[i - 1] == '\r');
        if (out[i] == '\n' && i + 1 < size) assert_true(out[i + 1] != ' ' && out[i + 1] != '\t');
        if (out[i] == '\r') assert_true(i + 1 < size && out[i + 1] == '\n');
    }
    uint8_t *copy = malloc(size);
    assert_non_null(copy);
    memcpy(copy, out, size);
    enum parse_result result = out[0] == 'H' ? http_parse_response(copy, size, &scanned, &head, &used)
                                             : http_parse_request(copy, size, &scanned, &head, &used);
    assert_int_equal(result, PARSE_OK);
    assert_int_equal(used, size);
    assert_int_equal(
        http_count_fields(copy, &head, "Content-Length") + http_count_fields(copy, &head, "Transfer-Encoding"), 1);
    free(copy);
}

static enum outcome send_request(const struct form *form)
{
    static struct http_head head;
    static uint8_t out[OUT_SIZE];
    struct http_forward_request request;
    size_t size, scanned = 0, used;
    uint8_t *data = compose("POST http://a/ HTTP/1.1\r\n", form->fields, &size);
    enum outcome outcome = BAD_HEAD;
    if (http_parse_request(data, size, &scanned, &head, &used) == PARSE_OK &&
        http_forward_judge(data, &head, &request) == 0) {
        size_t written = http_forward_write_request(data, &head, &request, out, sizeof out);
        assert_true(written > 0);
        assert_unambiguous(out, written);
        outcome = read_body(request.framing, request.length, data + used, size - used);
    }
    support_unguard(data, size);
    return outcome;
}

static enum outcome send_response(const struct form *form)
{
    static struct http_head head;
    static uint8_t out[OUT_SIZE];
    static const struct http_forward_request request = {0};
    struct http_forward_response response;
    size_t size, scanned = 0, used;
    uint8_t *data = compose("HTTP/1.1 200 OK\r\n", form->fields, &size);
    enum outcome outcome = BAD_HEAD;
    if (http_parse_response(data, size, &scanned, &head, &used) == PARSE_OK &&
        http_forward_judge_response(data, &head, &request, &response) == 0) {
        size_t written = http_forward_write_response(data, &head, &request, &response, out, sizeof out);
        assert_true(written > 0);
        assert_unambiguous(out, written);
        outcome = read_body(response.framing, response.length, data + used, size - used);
    }
    support_unguard(data, size);
    return outcome;
}

static void requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (send_request(&forms[i]) != forms[i].request) fail_msg("request: %s", forms[i].what);
}

static void responses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (send_response(&forms[i]) != forms[i].response) fail_msg("response: %s", forms[i].what);
}

/* CONNECT has no use for a body, but whoever is confused about one is not trusted with a tunnel either. */
static void connects(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        static struct http_head head;
        struct address target;
        size_t size, scanned = 0, used;
        uint8_t *data = compose("CONNECT a:1 HTTP/1.1\r\n", forms[i].fields, &size);
        bool passes = http_parse_request(data, size, &scanned, &head, &used) == PARSE_OK &&
                      http_connect_judge(data, &head, &target) == 0;
        if (passes != (forms[i].request != BAD_HEAD)) fail_msg("CONNECT: %s", forms[i].what);
        support_unguard(data, size);
    }
}

/* What is no field: the first line, and what stands in front of it. */
static void first_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        bool passes;
    } lines[] = {
        {"HTTP/1.1 200 OK\r\n", true},       {"HTTP/1.1 200 OK\n", true},      {"HTTP/1.1 200\n", true},
        {"\r\nHTTP/1.1 200 OK\r\n", false},  {"\nHTTP/1.1 200 OK\r\n", false}, {" HTTP/1.1 200 OK\r\n", false},
        {"HTTP/1.1 200 OK\r", false},        {"HTTP/1.1 200 \rOK\r\n", false}, {"HTTP/1.1 200 OK\r\n x\r\n", false},
        {"HTTP/1.1 200 OK\n\tx\r\n", false}, {"HTTP/1.1 200\t OK\r\n", false}, {"HTTP/1.1  200 OK\r\n", false},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        static struct http_head head;
        size_t size, scanned = 0, used;
        uint8_t *data = compose(lines[i].line, "Content-Length: 0\r\n\r\n", &size);
        bool passes = http_parse_response(data, size, &scanned, &head, &used) == PARSE_OK;
        if (passes != lines[i].passes) fail_msg("%s", lines[i].line);
        support_unguard(data, size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests),
        cmocka_unit_test(responses),
        cmocka_unit_test(connects),
        cmocka_unit_test(first_lines),
    };
    return cmocka_run_group_tests_name("http_smuggling", tests, NULL, NULL);
}
