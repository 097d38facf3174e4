/* CONNECT, Basic credentials and the proxy's own replies, compared octet by octet. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocols/base64.h"
#include "protocols/http_connect.h"
#include "tests/support.h"

#define NOVEMBER_1994 784111777 /* the date that RFC 9110 uses, Sun, 06 Nov 1994 08:49:37 GMT */

static void parse(const char *text, struct http_head *head)
{
    size_t scanned = 0, used;
    assert_int_equal(http_parse_request((const uint8_t *)text, strlen(text), &scanned, head, &used), PARSE_OK);
}

/* The authority ends at an unmapped page, so that whoever looks for a terminator dies. */
static bool parse_authority(const char *text, uint16_t default_port, struct address *target)
{
    size_t size = strlen(text);
    uint8_t *copy = support_guard(text, size);
    bool parsed = http_parse_host_port(copy, (struct http_span){0, (uint16_t)size}, default_port, target);
    support_unguard(copy, size);
    return parsed;
}

static void assert_authority(const char *text, uint16_t default_port, const char *expected)
{
    struct address target;
    char formatted[ADDRESS_TEXT_SIZE];
    if (!parse_authority(text, default_port, &target)) fail_msg("refused: %s", text);
    address_format(&target, formatted, sizeof formatted);
    assert_string_equal(formatted, expected);
}

static void authorities(void **state)
{
    (void)state;
    assert_authority("example.com:443", 0, "example.com:443");
    assert_authority("10.0.0.1:1", 0, "10.0.0.1:1");
    assert_authority("[2001:DB8::1]:65535", 0, "[2001:db8::1]:65535");
    assert_authority("a_b.c-d.:80", 0, "a_b.c-d.:80");
    assert_authority("example.com", 80, "example.com:80");
    assert_authority("example.com:", 80, "example.com:80");
    assert_authority("[::1]", 80, "[::1]:80");
    assert_authority("example.com:8080", 80, "example.com:8080");
    struct http_span span = {0, 6};
    struct address target;
    assert_true(http_parse_authority((const uint8_t *)"host:1", span, &target));
    assert_int_equal(target.port, 1);
}

static void authorities_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",         ":80",         "a:",      "a",          "[::1]",         "[::1]:",
        "a:0",      "a:65536",     "a:-1",    "a:+1",       "a:1x",          "a: 1",
        "a:b:1",    "::1:80",      "[::1:80", "::1]:80",    "[::1]x:80",     "[1.2.3.4]:80",
        "[a]:80",   "[]:80",       "u@a:80",  "a/b:80",     "a?b:80",        "a#b:80",
        "a\\b:80",  "a\tb:80",     "a\rb:80", "a\"b:80",    "<a>:80",        "a b:80",
        "a\x7f:80", "http://a:80", "/a:80",   "*:80x",      "[::1%25lo]:80", "{a}:80",
        "a|b:80",   "a^b:80",      "a`b:80",  "[[::1]]:80", "[::1]:80:80",
    };
    struct address target;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse_authority(bad[i], 0, &target)) fail_msg("accepted: %s", bad[i]);
    }
    assert_false(parse_authority(":", 80, &target));
    assert_false(parse_authority("a:0", 80, &target));
    assert_false(parse_authority("::1", 80, &target));
    assert_false(parse_authority("[::1]80", 80, &target));
    assert_false(parse_authority("a::", 80, &target));
}

static void longest_name(void **state)
{
    (void)state;
    char text[ADDRESS_NAME_MAX + 8];
    memset(text, 'a', sizeof text);
    strcpy(text + ADDRESS_NAME_MAX, ":443");
    struct address target;
    assert_true(parse_authority(text, 0, &target));
    strcpy(text + ADDRESS_NAME_MAX, "a:443");
    assert_false(parse_authority(text, 0, &target));
}

static unsigned judge(const char *text)
{
    struct http_head head;
    struct address target;
    parse(text, &head);
    return http_connect_judge((const uint8_t *)text, &head, &target);
}

static void connect_heads(void **state)
{
    (void)state;
    assert_int_equal(judge("CONNECT a:443 HTTP/1.1\r\n\r\n"), 0);
    assert_int_equal(judge("CONNECT a:443 HTTP/1.0\r\nHost: b\r\nContent-Length: 0\r\n\r\n"), 0);
    assert_int_equal(judge("CONNECT a HTTP/1.1\r\nHost: a:443\r\n\r\n"), 400);
    assert_int_equal(judge("CONNECT http://a:443/ HTTP/1.1\r\n\r\n"), 400);
    assert_int_equal(judge("CONNECT a:443 HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"), 400);
    assert_int_equal(judge("CONNECT a:443 HTTP/1.1\r\nContent-Length: x\r\n\r\n"), 400);
    assert_int_equal(judge("CONNECT a:443 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    assert_int_equal(judge("CONNECT a:443 HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"), 413);
}

static enum http_auth_result authorize(const char *fields, struct credentials *credentials)
{
    char text[2048];
    struct http_head head;
    snprintf(text, sizeof text, "CONNECT a:1 HTTP/1.1\r\n%s\r\n", fields);
    parse(text, &head);
    memset(credentials, 'x', sizeof *credentials);
    return http_parse_proxy_authorization((const uint8_t *)text, &head, credentials);
}

static void assert_credentials(const char *fields, const char *user, const char *password)
{
    struct credentials credentials;
    assert_int_equal(authorize(fields, &credentials), HTTP_AUTH_OK);
    assert_true(credentials.present);
    assert_string_equal(credentials.user, user);
    assert_string_equal(credentials.password, password);
}

static void credentials_are_read(void **state)
{
    (void)state;
    struct credentials credentials;
    assert_int_equal(authorize("Authorization: Basic YTpi\r\n", &credentials), HTTP_AUTH_ABSENT);
    assert_credentials("Proxy-Authorization: Basic YTpi\r\n", "a", "b");
    assert_credentials("proxy-authorization: bASIC   YTpi\r\n", "a", "b");
    assert_credentials("Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n", "Aladdin", "open sesame");
    assert_credentials("Proxy-Authorization: Basic YTpiOmM=\r\n", "a", "b:c");
    assert_credentials("Proxy-Authorization: Basic Og==\r\n", "", "");
    assert_credentials("Proxy-Authorization: Basic w6Q6w7Y=\r\n", "\xc3\xa4", "\xc3\xb6");
}

static void credentials_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "Proxy-Authorization: Basic\r\n",
        "Proxy-Authorization: Basic \r\n",
        "Proxy-Authorization: Basic YTp\r\n",       /* no padding */
        "Proxy-Authorization: Basic YTpi=\r\n",     /* too much */
        "Proxy-Authorization: Basic YTpi YTpi\r\n", /* two tokens */
        "Proxy-Authorization: Basic YTpi, x\r\n",   /* parameters */
        "Proxy-Authorization: Basic YWI=\r\n",      /* no colon */
        "Proxy-Authorization: Basic YQA6Yg==\r\n",  /* NUL in the user */
        "Proxy-Authorization: Basic YTpiAA==\r\n",  /* NUL in the password */
        "Proxy-Authorization: Basic YQo6Yg==\r\n",  /* LF in the user */
        "Proxy-Authorization: Basic YTp/\r\n",      /* DEL in the password */
        "Proxy-Authorization: Basic YTpi\r\nProxy-Authorization: Basic YTpi\r\n",
        "Proxy-Authorization: Basic YTpi\r\nProxy-Authorization: Negotiate YTpi\r\n",
    };
    struct credentials credentials;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (authorize(bad[i], &credentials) != HTTP_AUTH_BAD) fail_msg("accepted: %s", bad[i]);
        assert_int_equal(credentials.user[0], 'x'); /* untouched */
    }
}

/* Nothing is wrong with them; they are not for us. */
static void credentials_of_another_scheme(void **state)
{
    (void)state;
    static const char *const others[] = {
        "Proxy-Authorization: \r\n",
        "Proxy-Authorization: YTpi\r\n",
        "Proxy-Authorization: Bearer YTpi\r\n",
        "Proxy-Authorization: Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+gMDAuBgkqhkiC9xIBAgI=\r\n",
        "Proxy-Authorization: NTLM TlRMTVNTUAABAAAAB4IIAA==\r\n",
        "Proxy-Authorization: Digest username=\"a\", realm=\"b\", nonce=\"c\"\r\n",
        "Proxy-Authorization: Basicx YTpi\r\n",
        "Proxy-Authorization: Basic\tYTpi\r\n",
    };
    struct credentials credentials;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_int_equal(authorize(others[i], &credentials), HTTP_AUTH_OTHER);
        assert_int_equal(credentials.user[0], 'x'); /* untouched */
    }
}

static enum http_auth_result authorize_sizes(size_t user, size_t password)
{
    uint8_t plain[1024];
    char fields[2048] = "Proxy-Authorization: Basic ";
    memset(plain, 'p', sizeof plain);
    plain[user] = ':';
    size_t at = strlen(fields);
    at += base64_encode(plain, user + 1 + password, fields + at, sizeof fields - at);
    strcpy(fields + at, "\r\n");
    struct credentials credentials;
    return authorize(fields, &credentials);
}

static void credentials_at_their_limit(void **state)
{
    (void)state;
    const size_t most = CREDENTIALS_PART_MAX;
    assert_int_equal(authorize_sizes(most, most), HTTP_AUTH_OK);
    assert_int_equal(authorize_sizes(most + 1, most - 1), HTTP_AUTH_BAD);
    assert_int_equal(authorize_sizes(most - 1, most + 1), HTTP_AUTH_BAD);
    assert_int_equal(authorize_sizes(most, most + 1), HTTP_AUTH_BAD);
    assert_int_equal(authorize_sizes(0, most), HTTP_AUTH_OK);
    assert_int_equal(authorize_sizes(most, 0), HTTP_AUTH_OK);
}

static void established_reply(void **state)
{
    (void)state;
    uint8_t out[64];
    static const char expected[] = "HTTP/1.1 200 Connection established\r\n\r\n";
    assert_int_equal(http_write_established(out, sizeof out), sizeof expected - 1);
    assert_memory_equal(out, expected, sizeof expected - 1);
    assert_int_equal(http_write_established(out, sizeof expected - 1), sizeof expected - 1);
    assert_int_equal(http_write_established(out, sizeof expected - 2), 0);
}

static size_t write_error(uint8_t *out, unsigned status, int64_t time)
{
    struct http_error error = {status, "dns_error", "It is not there.", 0};
    return http_write_error(out, HTTP_REPLY_SIZE_MAX, &error, time);
}

static void assert_error(unsigned status, int64_t time, const char *expected)
{
    uint8_t out[HTTP_REPLY_SIZE_MAX];
    size_t size = write_error(out, status, time);
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(out, expected, size);
}

static void error_replies(void **state)
{
    (void)state;
    assert_error(407, NOVEMBER_1994,
                 "HTTP/1.1 407 Proxy Authentication Required\r\n"
                 "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                 "Connection: close\r\n"
                 "Proxy-Status: sluice; error=dns_error\r\n"
                 "Proxy-Authenticate: Basic realm=\"proxy\"\r\n"
                 "Content-Type: text/html\r\n"
                 "Content-Length: 171\r\n"
                 "\r\n"
                 "<!DOCTYPE html>\n<html><head><title>407 Proxy Authentication Required</title></head>\n"
                 "<body><h1>407 Proxy Authentication Required</h1>\n"
                 "<p>It is not there.</p></body></html>\n");
    assert_error(413, 0,
                 "HTTP/1.1 413 Content Too Large\r\n"
                 "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
                 "Connection: close\r\n"
                 "Proxy-Status: sluice; error=dns_error\r\n"
                 "Content-Type: text/html\r\n"
                 "Content-Length: 147\r\n"
                 "\r\n"
                 "<!DOCTYPE html>\n<html><head><title>413 Content Too Large</title></head>\n"
                 "<body><h1>413 Content Too Large</h1>\n"
                 "<p>It is not there.</p></body></html>\n");
}

/* Every status: it fits, reads as a response, and has the length that it says. */
static void error_replies_have_their_length(void **state)
{
    (void)state;
    for (unsigned status = 400; status <= 599; status++) {
        uint8_t out[HTTP_REPLY_SIZE_MAX];
        size_t size = write_error(out, status, NOVEMBER_1994), scanned = 0, used;
        struct http_head head;
        assert_int_equal(http_parse_response(out, size, &scanned, &head, &used), PARSE_OK);
        assert_int_equal(head.status, status);
        assert_true(http_span_equals(out, head.reason, http_reason(status)));
        char length[16];
        snprintf(length, sizeof length, "%zu", size - used);
        assert_true(http_span_equals(out, http_find_field(out, &head, "Content-Length")->value, length));
        assert_int_equal(http_count_fields(out, &head, "Proxy-Authenticate"), status == 407);
    }
}

static void assert_date(int64_t time, const char *expected)
{
    uint8_t out[HTTP_REPLY_SIZE_MAX];
    struct http_head head;
    size_t scanned = 0, used, size = write_error(out, 400, time);
    assert_int_equal(http_parse_response(out, size, &scanned, &head, &used), PARSE_OK);
    assert_true(http_span_equals(out, http_find_field(out, &head, "Date")->value, expected));
}

static void dates(void **state)
{
    (void)state;
    assert_date(951782399, "Mon, 28 Feb 2000 23:59:59 GMT");
    assert_date(951782400, "Tue, 29 Feb 2000 00:00:00 GMT");
    assert_date(951868800, "Wed, 01 Mar 2000 00:00:00 GMT");
    assert_date(1735689599, "Tue, 31 Dec 2024 23:59:59 GMT");
    assert_date(4107542400, "Mon, 01 Mar 2100 00:00:00 GMT"); /* no leap year */
    assert_date(253402300799, "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_date(INT64_MAX, "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_date(-1, "Thu, 01 Jan 1970 00:00:00 GMT");
}

/* The registry of IANA, and with it the whole space of status codes: what is not registered has no reason. */
static void reasons(void **state)
{
    static const char registered[] = "100 Continue\n101 Switching Protocols\n102 Processing\n103 Early Hints\n"
                                     "200 OK\n201 Created\n202 Accepted\n203 Non-Authoritative Information\n"
                                     "204 No Content\n205 Reset Content\n206 Partial Content\n207 Multi-Status\n"
                                     "208 Already Reported\n226 IM Used\n"
                                     "300 Multiple Choices\n301 Moved Permanently\n302 Found\n303 See Other\n"
                                     "304 Not Modified\n305 Use Proxy\n307 Temporary Redirect\n"
                                     "308 Permanent Redirect\n"
                                     "400 Bad Request\n401 Unauthorized\n402 Payment Required\n403 Forbidden\n"
                                     "404 Not Found\n405 Method Not Allowed\n406 Not Acceptable\n"
                                     "407 Proxy Authentication Required\n408 Request Timeout\n409 Conflict\n"
                                     "410 Gone\n411 Length Required\n412 Precondition Failed\n"
                                     "413 Content Too Large\n414 URI Too Long\n415 Unsupported Media Type\n"
                                     "416 Range Not Satisfiable\n417 Expectation Failed\n"
                                     "421 Misdirected Request\n422 Unprocessable Content\n423 Locked\n"
                                     "424 Failed Dependency\n425 Too Early\n426 Upgrade Required\n"
                                     "428 Precondition Required\n429 Too Many Requests\n"
                                     "431 Request Header Fields Too Large\n451 Unavailable For Legal Reasons\n"
                                     "500 Internal Server Error\n501 Not Implemented\n502 Bad Gateway\n"
                                     "503 Service Unavailable\n504 Gateway Timeout\n"
                                     "505 HTTP Version Not Supported\n506 Variant Also Negotiates\n"
                                     "507 Insufficient Storage\n508 Loop Detected\n"
                                     "511 Network Authentication Required\n";
    (void)state;
    const char *line = registered;
    for (unsigned status = 0; status < 1000; status++) {
        char expected[64] = "";
        if (*line != '\0' && strtoul(line, NULL, 10) == status) {
            size_t size = strcspn(line, "\n");
            snprintf(expected, sizeof expected, "%.*s", (int)size - 4, line + 4);
            line += size + 1;
        }
        assert_string_equal(http_reason(status), expected);
    }
    assert_int_equal(*line, '\0');
}

static void assert_connect(const char *target, const struct credentials *credentials, const char *expected)
{
    uint8_t out[HTTP_CONNECT_SIZE_MAX];
    struct address address;
    assert_true(address_parse(target, strlen(target), ADDRESS_PORT_REQUIRED, 0, &address));
    size_t size = http_write_connect(out, sizeof out, &address, credentials);
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(out, expected, size);
}

static void connect_is_written(void **state)
{
    (void)state;
    struct credentials credentials = {.present = true, .user = "Aladdin", .password = "open sesame"};
    assert_connect("a.b:443", NULL, "CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n");
    assert_connect("[::1]:80", &(struct credentials){0}, "CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    assert_connect("1.2.3.4:5", &credentials,
                   "CONNECT 1.2.3.4:5 HTTP/1.1\r\nHost: 1.2.3.4:5\r\n"
                   "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n");
}

/* The longest of everything fits, and our own parsers read from it what went in. */
static void longest_connect_is_read_again(void **state)
{
    (void)state;
    uint8_t out[HTTP_CONNECT_SIZE_MAX];
    struct address target = {.kind = ADDRESS_NAME, .name_size = ADDRESS_NAME_MAX, .port = 65535}, read;
    struct credentials credentials = {.present = true}, read_credentials;
    memset(target.name, 'n', ADDRESS_NAME_MAX);
    memset(credentials.user, 'u', CREDENTIALS_PART_MAX);
    memset(credentials.password, ':', CREDENTIALS_PART_MAX);
    size_t size = http_write_connect(out, sizeof out, &target, &credentials), scanned = 0, used;
    struct http_head head;
    assert_int_equal(http_parse_request(out, size, &scanned, &head, &used), PARSE_OK);
    assert_int_equal(used, size);
    assert_int_equal(http_connect_judge(out, &head, &read), 0);
    assert_true(address_equal(&target, &read));
    assert_int_equal(http_parse_proxy_authorization(out, &head, &read_credentials), HTTP_AUTH_OK);
    assert_string_equal(read_credentials.user, credentials.user);
    assert_string_equal(read_credentials.password, credentials.password);
}

/* A name from a protocol that lets every octet through must not become a second line, or another authority. */
static void names_that_cannot_be_asked_for(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        uint8_t out[HTTP_CONNECT_SIZE_MAX];
        struct address target = {.kind = ADDRESS_NAME, .name_size = 3, .port = 80}, read;
        memcpy(target.name, (char[]){'a', (char)c, 'b'}, 3);
        size_t size = http_write_connect(out, sizeof out, &target, NULL), scanned = 0, used;
        bool special = c <= ' ' || c == 0x7f || strchr("\"#/:<>?@[\\]^`{|}", (int)c) != NULL;
        assert_int_equal(size == 0, special);
        if (size == 0) continue;
        struct http_head head;
        assert_int_equal(http_parse_request(out, size, &scanned, &head, &used), PARSE_OK);
        assert_int_equal(http_connect_judge(out, &head, &read), 0);
        assert_true(address_equal(&target, &read));
    }
    uint8_t out[HTTP_CONNECT_SIZE_MAX];
    struct address path = {.kind = ADDRESS_UNIX, .name_size = 2, .name = "/a"};
    assert_int_equal(http_write_connect(out, sizeof out, &path, NULL), 0);
    assert_int_equal(http_write_connect(out, sizeof out, &(struct address){0}, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(authorities),
        cmocka_unit_test(authorities_that_are_none),
        cmocka_unit_test(longest_name),
        cmocka_unit_test(connect_heads),
        cmocka_unit_test(credentials_are_read),
        cmocka_unit_test(credentials_that_are_none),
        cmocka_unit_test(credentials_of_another_scheme),
        cmocka_unit_test(credentials_at_their_limit),
        cmocka_unit_test(established_reply),
        cmocka_unit_test(error_replies),
        cmocka_unit_test(error_replies_have_their_length),
        cmocka_unit_test(dates),
        cmocka_unit_test(reasons),
        cmocka_unit_test(connect_is_written),
        cmocka_unit_test(longest_connect_is_read_again),
        cmocka_unit_test(names_that_cannot_be_asked_for),
    };
    return cmocka_run_group_tests_name("http_connect", tests, NULL, NULL);
}
