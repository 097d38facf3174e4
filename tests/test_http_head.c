/* Heads of HTTP messages: request and status lines, fields, limits, and all that must not pass for a line's end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocols/http_head.h"
#include "tests/support.h"

/* What a parser remembers between calls, and its output. */
struct run {
    size_t scanned;
    struct http_head head;
};

static enum parse_result parse_request(const uint8_t *data, size_t size, void *context, size_t *used)
{
    struct run *run = context;
    return http_parse_request(data, size, &run->scanned, &run->head, used);
}

static enum parse_result parse_response(const uint8_t *data, size_t size, void *context, size_t *used)
{
    struct run *run = context; /* the octets are a copy of the test's own, to be written to */
    return http_parse_response((uint8_t *)(uintptr_t)data, size, &run->scanned, &run->head, used);
}

static enum parse_result request(const char *text, struct run *run)
{
    *run = (struct run){0};
    return support_run(parse_request, text, strlen(text), run, NULL);
}

static enum parse_result response(const char *text, struct run *run)
{
    *run = (struct run){0};
    return support_run(parse_response, text, strlen(text), run, NULL);
}

static void assert_span(const char *data, struct http_span span, const char *expected)
{
    assert_int_equal(span.size, strlen(expected));
    assert_memory_equal(data + span.at, expected, span.size);
}

static const char sample[] = "POST http://example.com:8080/a?b HTTP/1.1\r\n"
                             "Host: example.com:8080\r\n"
                             "X-Empty:\r\n"
                             "x-tabs: \t a\tb \t\r\n"
                             "Connection: keep-alive, , X-Secret ,close\r\n"
                             "Set: \x80\xff\"\r\n"
                             "\r\n";

static const char answer[] = "HTTP/1.1 404 Not  here\r\nServer: x\r\nContent-Length: 0\r\n\r\n";

static void request_is_cut_into_spans(void **state)
{
    (void)state;
    struct run run;
    assert_int_equal(request(sample, &run), PARSE_OK);
    assert_span(sample, run.head.method, "POST");
    assert_span(sample, run.head.target, "http://example.com:8080/a?b");
    assert_int_equal(run.head.minor, 1);
    assert_int_equal(run.head.field_count, 5);
    assert_span(sample, run.head.fields[0].name, "Host");
    assert_span(sample, run.head.fields[0].value, "example.com:8080");
    assert_span(sample, run.head.fields[1].value, "");
    assert_span(sample, run.head.fields[2].value, "a\tb");
    assert_span(sample, run.head.fields[4].value, "\x80\xff\"");
}

static void response_is_cut_into_spans(void **state)
{
    (void)state;
    struct run run;
    assert_int_equal(response(answer, &run), PARSE_OK);
    assert_int_equal(run.head.status, 404);
    assert_int_equal(run.head.minor, 1);
    assert_span(answer, run.head.reason, "Not  here");
    assert_int_equal(run.head.field_count, 2);
    assert_span(answer, run.head.fields[1].name, "Content-Length");
}

static void prefixes_and_splits(void **state)
{
    (void)state;
    static const char *const requests[] = {sample, "G / HTTP/1.0\r\n\r\n", "\r\nGET http://a/ HTTP/1.1\r\na:b\r\n\r\n"};
    static const char *const responses[] = {answer, "HTTP/1.0 200\r\n\r\n", "HTTP/1.1 200 \r\na:\r\n\r\n",
                                            "HTTP/1.1 200 OK\na : b\r\n c\n\td\ne: f\n\n", "HTTP/1.0 200\n\n"};
    struct run run = {0};
    for (size_t i = 0; i < 3; i++) {
        support_check_prefixes(parse_request, requests[i], strlen(requests[i]), &run, sizeof run);
        support_check_splits(parse_request, requests[i], strlen(requests[i]), &run, sizeof run);
        support_check_wrong_octets(parse_request, requests[i], strlen(requests[i]), &run, sizeof run);
    }
    for (size_t i = 0; i < sizeof responses / sizeof responses[0]; i++) {
        support_check_prefixes(parse_response, responses[i], strlen(responses[i]), &run, sizeof run);
        support_check_splits(parse_response, responses[i], strlen(responses[i]), &run, sizeof run);
        support_check_wrong_octets(parse_response, responses[i], strlen(responses[i]), &run, sizeof run);
    }
}

/* Every form in which one recipient sees the end of a line or a name where another does not. */
static void smuggling_forms_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "GET / HTTP/1.1\nHost: a\r\n\r\n",              /* bare LF behind the request line */
        "GET / HTTP/1.1\r\nHost: a\n\r\n",              /* behind a field */
        "GET / HTTP/1.1\r\nHost: a\r\n\n",              /* as the empty line */
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",      /* bare CR */
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",          /* CR CR LF */
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",           /* blank before the first field */
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",      /* fold with a space */
        "GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",     /* fold with a tab */
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",           /* blank before the colon */
        "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",          /* tab before the colon */
        "GET / HTTP/1.1\r\n: a\r\n\r\n",                /* no name */
        "GET / HTTP/1.1\r\nHost\r\n\r\n",               /* no colon */
        "GET / HTTP/1.1\r\nHo(st: a\r\n\r\n",           /* no token */
        "GET / HTTP/1.1\r\nHost: a\x0b\r\n\r\n",        /* controls that some take for blanks */
        "GET / HTTP/1.1\r\nHost: a\x7f\r\n\r\n",        /* DEL */
        "GET / HTTP/1.1\r\nHost: aaaaaaaa\x01\r\n\r\n", /* found by the word-wise search as well */
        "GET / HTTP/1.1\r\nH\xc3\xb6st: a\r\n\r\n",     /* name beyond ASCII */
        "GET  / HTTP/1.1\r\n\r\n",                      /* two spaces */
        "GET /  HTTP/1.1\r\n\r\n",                      /* two spaces */
        "GET / HTTP/1.1 \r\n\r\n",                      /* space at the end */
        "GET\t/ HTTP/1.1\r\n\r\n",                      /* tab instead of a space */
        "GET /\ta HTTP/1.1\r\n\r\n",                    /* tab inside the target */
        " GET / HTTP/1.1\r\n\r\n",                      /* space in front */
        "GET /\r\n\r\n",                                /* HTTP/0.9 */
        "GET / HTTP/2.0\r\n\r\n",                       /* not for us */
        "GET / HTTP/1.\r\n\r\n",                        /* no minor version */
        "GET / HTTP/1.10\r\n\r\n",                      /* too much of it */
        "GET / HTTP/1.x\r\n\r\n",                       /* no digit */
        "GET / http/1.1\r\n\r\n",                       /* lower case */
        "GET HTTP/1.1\r\n\r\n",                         /* no target */
        " / HTTP/1.1\r\n\r\n",                          /* no method */
        "G@T / HTTP/1.1\r\n\r\n",                       /* method that is no token */
        "\r\n\r\nGET / HTTP/1.1\r\n\r\n",               /* one empty line in front is enough */
        "\nGET / HTTP/1.1\r\n\r\n",                     /* and it is CRLF */
        "\r\n\r\n",
    };
    struct run run;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (request(bad[i], &run) != PARSE_BAD) fail_msg("accepted: %s", bad[i]);
    }
}

static void nul_is_refused_everywhere(void **state)
{
    (void)state;
    for (size_t at = 0; at < sizeof sample - 1; at++) {
        char copy[sizeof sample];
        memcpy(copy, sample, sizeof sample);
        copy[at] = '\0';
        struct run run = {0};
        assert_int_equal(support_run(parse_request, copy, sizeof sample - 1, &run, NULL), PARSE_BAD);
    }
}

static void garbage_is_refused_at_its_first_octet(void **state)
{
    (void)state;
    static const char *const beginnings[] = {"\x16", " ", "\n", "\rG", "\r\n ", "GET / \x01", "GET / HTTP/1.1\r\n "};
    struct run run;
    for (size_t i = 0; i < sizeof beginnings / sizeof beginnings[0]; i++) {
        assert_int_equal(request(beginnings[i], &run), PARSE_BAD);
    }
    assert_int_equal(response("S", &run), PARSE_BAD);
    assert_int_equal(response("HTTP/2", &run), PARSE_BAD);
    assert_int_equal(response("HTTP/1.1 200 \b", &run), PARSE_BAD);
}

static void every_octet_in_a_name_is_judged(void **state)
{
    (void)state;
    for (unsigned c = 1; c < 256; c++) {
        bool token = c < 128 && (strchr("!#$%&'*+-.^_`|~", (int)c) != NULL || (c >= '0' && c <= '9') ||
                                 (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
        char text[64];
        snprintf(text, sizeof text, "GET / HTTP/1.1\r\n%ca: b\r\n\r\n", (int)c);
        struct run run;
        bool accepted = request(text, &run) == PARSE_OK;
        assert_int_equal(accepted, token);
    }
}

static void every_octet_in_a_value_is_judged(void **state)
{
    (void)state;
    for (unsigned c = 1; c < 256; c++) {
        for (unsigned shift = 0; shift < 8; shift++) { /* each lane of the word-wise search */
            char text[64];
            snprintf(text, sizeof text, "GET / HTTP/1.1\r\nab: %.*s%cxxxxxxxxxxxx\r\n\r\n", (int)shift, "yyyyyyyy",
                     (int)c);
            struct run run;
            bool fine = c == '\t' || (c >= 0x20 && c != 0x7f);
            assert_int_equal(request(text, &run), fine ? PARSE_OK : PARSE_BAD);
        }
    }
}

static void status_lines(void **state)
{
    (void)state;
    struct run run;
    static const char *const good[] = {"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200\r\n\r\n", "HTTP/1.1 100 \r\n\r\n",
                                       "HTTP/1.1 999 \t\x80\r\n\r\n"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_int_equal(response(good[i], &run), PARSE_OK);
    assert_int_equal(run.head.status, 999);
    static const char *const bad[] = {
        "HTTP/1.1 20 OK\r\n\r\n",  "HTTP/1.1 2000 OK\r\n\r\n",          "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n",          "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 \r\n\r\n",       "HTTP/1.12 200 OK\r\n\r\n",          "HTTP/1. 200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1\t200 OK\r\n\r\n",          "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 -20 OK\r\n\r\n", "HTTP/1.1 200 OK\r\na b: c\r\n\r\n", "HTTP/1.1 200 OK\r\n a: b\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (response(bad[i], &run) != PARSE_BAD) fail_msg("accepted: %s", bad[i]);
    }
}

/* A message of exactly `size` octets with its end, filled up in one long value. */
static char *make_head(const char *first_line, size_t size)
{
    char *text = malloc(size + 1);
    assert_non_null(text);
    int length = snprintf(text, size + 1, "%s\r\na: ", first_line);
    assert_true(length > 0 && (size_t)length + 4 < size);
    memset(text + length, 'x', size - (size_t)length);
    memcpy(text + size - 4, "\r\n\r\n", 5);
    return text;
}

static void check_size_limit(support_parse *parse, const char *first_line, size_t limit)
{
    struct run run = {0};
    size_t used = 0;
    char *text = make_head(first_line, limit);
    assert_int_equal(support_run(parse, text, limit, &run, &used), PARSE_OK);
    assert_int_equal(used, limit);
    run = (struct run){0};
    assert_int_equal(support_run(parse, text, limit - 1, &run, NULL), PARSE_MORE);
    free(text);

    text = make_head(first_line, limit + 1);
    for (size_t size = limit; size <= limit + 1; size++) {
        run = (struct run){0};
        assert_int_equal(support_run(parse, text, size, &run, NULL), PARSE_TOO_LARGE);
    }
    run = (struct run){0};
    assert_int_equal(support_run(parse, text, limit - 1, &run, NULL), PARSE_MORE);
    free(text);
}

static void size_limits_are_exact(void **state)
{
    (void)state;
    check_size_limit(parse_request, "GET / HTTP/1.1", HTTP_HEAD_SIZE_MAX);
    check_size_limit(parse_response, "HTTP/1.1 200 OK", HTTP_RESPONSE_HEAD_SIZE_MAX);
}

/* What comes behind the head may be as long as it likes. */
static void what_follows_is_left_alone(void **state)
{
    (void)state;
    size_t head = strlen(sample), size = HTTP_HEAD_SIZE_MAX + 100;
    char *text = calloc(1, size);
    assert_non_null(text);
    memcpy(text, sample, head);
    struct run run = {0};
    size_t used = 0;
    assert_int_equal(support_run(parse_request, text, size, &run, &used), PARSE_OK);
    assert_int_equal(used, head);
    free(text);
}

static void field_count_limit_is_exact(void **state)
{
    (void)state;
    for (unsigned count = HTTP_FIELDS_MAX; count <= HTTP_FIELDS_MAX + 1; count++) {
        char text[4096] = "GET / HTTP/1.1\r\n";
        for (unsigned i = 0; i < count; i++) strcat(text, "a: b\r\n");
        strcat(text, "\r\n");
        struct run run;
        assert_int_equal(request(text, &run), count > HTTP_FIELDS_MAX ? PARSE_TOO_LARGE : PARSE_OK);
        assert_int_equal(http_status_too_large((const uint8_t *)text, strlen(text)), 431);
    }
}

/* Which part of a request is too large. */
static void status_of_what_is_too_large(void **state)
{
    (void)state;
    char *text = malloc(2 * HTTP_HEAD_SIZE_MAX);
    assert_non_null(text);
    memset(text, 'x', 2 * HTTP_HEAD_SIZE_MAX);
    memcpy(text, "GET /", 5);
    const uint8_t *data = (const uint8_t *)text;
    assert_int_equal(http_status_too_large(data, HTTP_HEAD_SIZE_MAX), 414);
    memcpy(text + HTTP_HEAD_SIZE_MAX, "\r\n", 2);
    assert_int_equal(http_status_too_large(data, 2 * HTTP_HEAD_SIZE_MAX), 414); /* the line ends beyond the maximum */
    memcpy(text + 8000, "\r\n", 2);
    assert_int_equal(http_status_too_large(data, HTTP_HEAD_SIZE_MAX), 431);
    memcpy(text, "\r\nGET /", 7);
    assert_int_equal(http_status_too_large(data, 8000), 414);
    assert_int_equal(http_status_too_large(data, HTTP_HEAD_SIZE_MAX), 431);
    free(text);
}

/* What RFC 9112 has a recipient repair in a response: the spans show no trace of it. */
static void responses_are_repaired(void **state)
{
    (void)state;
    char text[] = "HTTP/1.1 200 OK\nA: b\n c\r\n \t d\r\nE\t : f\nG:\r\n h\n\nrest";
    struct run run = {0};
    size_t used = 0;
    assert_int_equal(parse_response((uint8_t *)text, sizeof text - 1, &run, &used), PARSE_OK);
    assert_int_equal(used, sizeof text - 1 - 4);
    assert_span(text, run.head.reason, "OK");
    assert_int_equal(run.head.field_count, 3);
    assert_span(text, run.head.fields[0].name, "A");
    assert_span(text, run.head.fields[0].value, "b  c   \t d");
    assert_span(text, run.head.fields[1].name, "E");
    assert_span(text, run.head.fields[1].value, "f");
    assert_span(text, run.head.fields[2].value, "h");
}

/* A whole long head octet by octet: the search must resume and not begin anew. */
static void one_octet_reads_look_at_each_octet_once(void **state)
{
    (void)state;
    char *text = make_head("GET / HTTP/1.1", HTTP_HEAD_SIZE_MAX);
    struct run run = {0};
    for (size_t size = 1; size < HTTP_HEAD_SIZE_MAX; size++) {
        size_t used = 0;
        assert_int_equal(parse_request((const uint8_t *)text, size, &run, &used), PARSE_MORE);
        assert_true(run.scanned + 3 >= size); /* at most CR LF CR are looked at again */
    }
    free(text);
}

static void fields_are_found_without_regard_to_case(void **state)
{
    (void)state;
    struct run run;
    const uint8_t *data = (const uint8_t *)sample;
    assert_int_equal(request(sample, &run), PARSE_OK);
    assert_ptr_equal(http_find_field(data, &run.head, "hOST"), &run.head.fields[0]);
    assert_null(http_find_field(data, &run.head, "Hos"));
    assert_null(http_find_field(data, &run.head, "Hosts"));
    assert_int_equal(http_count_fields(data, &run.head, "X-EMPTY"), 1);
    assert_int_equal(http_count_fields(data, &run.head, "nothing"), 0);
    assert_true(http_span_is(data, run.head.method, "post"));
    assert_false(http_span_equals(data, run.head.method, "post"));
    assert_true(http_span_equals(data, run.head.method, "POST"));
    assert_false(http_span_equals(data, run.head.method, "POSTS"));
    assert_false(http_spans_match(data, run.head.method, run.head.target));
    assert_true(http_spans_match(data, run.head.method, run.head.method));
}

static void lists_are_cut_at_commas(void **state)
{
    (void)state;
    struct run run;
    const uint8_t *data = (const uint8_t *)sample;
    assert_int_equal(request(sample, &run), PARSE_OK);
    assert_true(http_list_has(data, &run.head, "connection", "x-secret"));
    assert_true(http_list_has(data, &run.head, "connection", "Close"));
    assert_false(http_list_has(data, &run.head, "connection", "keep"));
    assert_false(http_list_has(data, &run.head, "connection", ""));
    struct http_span rest = run.head.fields[3].value, item;
    unsigned items = 0;
    while (http_list_next(data, &rest, &item)) items++;
    assert_int_equal(items, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_cut_into_spans),
        cmocka_unit_test(response_is_cut_into_spans),
        cmocka_unit_test(prefixes_and_splits),
        cmocka_unit_test(smuggling_forms_are_refused),
        cmocka_unit_test(nul_is_refused_everywhere),
        cmocka_unit_test(garbage_is_refused_at_its_first_octet),
        cmocka_unit_test(every_octet_in_a_name_is_judged),
        cmocka_unit_test(every_octet_in_a_value_is_judged),
        cmocka_unit_test(status_lines),
        cmocka_unit_test(size_limits_are_exact),
        cmocka_unit_test(what_follows_is_left_alone),
        cmocka_unit_test(field_count_limit_is_exact),
        cmocka_unit_test(status_of_what_is_too_large),
        cmocka_unit_test(responses_are_repaired),
        cmocka_unit_test(one_octet_reads_look_at_each_octet_once),
        cmocka_unit_test(fields_are_found_without_regard_to_case),
        cmocka_unit_test(lists_are_cut_at_commas),
    };
    return cmocka_run_group_tests_name("http_head", tests, NULL, NULL);
}
