/* core/session/failure: every row is there, its codes are those of the protocols, its label is usable and unique. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "core/session/failure.h"
#include "protocols/http_connect.h"
#include "protocols/socks4.h"
#include "protocols/socks5.h"
#include "tests/support.h"

static void test_rows(void **state)
{
    (void)state;
    for (enum failure f = FAIL_PEER; f < FAIL_COUNT; f++) {
        const struct failure_row *row = failure_row(f);
        assert_true(row->socks4 == 0 || row->socks4 == SOCKS4_REJECTED);
        assert_true(row->socks5 <= SOCKS5_ADDRESS_TYPE_NOT_SUPPORTED);
        assert_true(row->http == 0 || (row->http >= 400 && row->http < 600));
        if (row->http) assert_true(*http_reason(row->http));
        assert_true(*row->word);
        for (const char *c = row->label; *c; c++) assert_true(islower((unsigned char)*c) || *c == '_');
        for (enum failure other = FAIL_NONE; other < f; other++) {
            assert_string_not_equal(row->label, failure_row(other)->label);
            assert_string_not_equal(row->word, failure_row(other)->word);
        }
    }
    assert_int_equal(failure_row(FAIL_NONE)->socks4, SOCKS4_GRANTED);
}

/* Section 2.3 of RFC 9209. */
static bool is_error_type(const char *type)
{
    static const char *const types[] = {"dns_timeout",
                                        "dns_error",
                                        "destination_not_found",
                                        "destination_unavailable",
                                        "destination_ip_prohibited",
                                        "destination_ip_unroutable",
                                        "connection_refused",
                                        "connection_terminated",
                                        "connection_timeout",
                                        "connection_read_timeout",
                                        "connection_write_timeout",
                                        "connection_limit_reached",
                                        "tls_protocol_error",
                                        "tls_certificate_error",
                                        "tls_alert_received",
                                        "http_request_error",
                                        "http_request_denied",
                                        "http_response_incomplete",
                                        "http_response_header_section_size",
                                        "http_response_header_size",
                                        "http_response_body_size",
                                        "http_response_trailer_section_size",
                                        "http_response_trailer_size",
                                        "http_response_transfer_coding",
                                        "http_response_content_coding",
                                        "http_response_timeout",
                                        "http_upgrade_failed",
                                        "http_protocol_error",
                                        "proxy_internal_response",
                                        "proxy_internal_error",
                                        "proxy_configuration_error",
                                        "proxy_loop_detected"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i]) == 0) return true;
    return false;
}

static void test_pages(void **state)
{
    (void)state;
    for (enum failure f = FAIL_PEER; f < FAIL_COUNT; f++) {
        if (failure_row(f)->http == 0) continue;
        const struct failure_page *page = failure_page(f);
        if (!is_error_type(page->error)) fail_msg("%s is no error type of RFC 9209", page->error);
        assert_in_range(strlen(page->sentence), 10, 99);
        assert_int_equal(page->sentence[strlen(page->sentence) - 1], '.');
        assert_int_equal(strcspn(page->sentence, "<>&"), strlen(page->sentence));
        bool upstream = failure_is_upstream(f) || failure_is_timeout(f) || f == FAIL_COMMAND || f == FAIL_RESOURCE ||
                        f == FAIL_RESOLVE_SHARE || f == FAIL_LIMIT_KEYS;
        assert_true(upstream || failure_row(f)->http < 500);
        assert_true(failure_is_upstream(f) + failure_is_timeout(f) + failure_is_rejection(f) <= 1);
    }
}

/* The tables of sections 2.3 to 2.5 of the contract, with the corrections of section 9.2. */
static void test_codes(void **state)
{
    static const struct {
        enum failure failure;
        uint8_t socks4, socks5;
        uint16_t http;
    } cases[] = {
        {FAIL_PEER, 0, 0, 0},
        {FAIL_VERSION, 0, 0, 400},
        {FAIL_HANDSHAKE_TIMEOUT, 0, 0, 408},
        {FAIL_CONNECT_TIMEOUT, 0, 6, 504},
        {FAIL_SYNTAX, 0x5b, 1, 400},
        {FAIL_TOO_LARGE, 0x5b, 1, 413},
        {FAIL_LINE_TOO_LONG, 0x5b, 1, 414},
        {FAIL_HEAD_TOO_LARGE, 0x5b, 1, 431},
        {FAIL_AUTH, 0x5b, 2, 407},
        {FAIL_AUTH_METHOD, 0x5b, 2, 407},
        {FAIL_AUTH_BUSY, 0x5b, 2, 429},
        {FAIL_COMMAND, 0x5b, 7, 501},
        {FAIL_ADDRESS_TYPE, 0x5b, 8, 400},
        {FAIL_REJECTED, 0x5b, 1, 403},
        {FAIL_BLOCKED, 0x5b, 2, 403},
        {FAIL_CLIENT_DENIED, 0x5b, 2, 403},
        {FAIL_NO_PROXY, 0, 0, 0},
        {FAIL_HEADER, 0, 0, 0},
        {FAIL_SHARE, 0, 0, 0},
        {FAIL_HALF_OPEN, 0, 0, 0},
        {FAIL_TARGET_DENIED, 0x5b, 2, 403},
        {FAIL_SELF, 0x5b, 2, 403},
        {FAIL_LOOP, 0x5b, 2, 502},
        {FAIL_RESOLVE, 0x5b, 4, 502},
        {FAIL_RESOLVE_TIMEOUT, 0x5b, 4, 504},
        {FAIL_NETWORK_UNREACHABLE, 0x5b, 3, 502},
        {FAIL_HOST_UNREACHABLE, 0x5b, 4, 502},
        {FAIL_DENIED, 0x5b, 2, 403},
        {FAIL_EGRESS, 0x5b, 1, 503},
        {FAIL_EGRESS_FAMILY, 0x5b, 3, 502},
        {FAIL_REFUSED, 0x5b, 5, 502},
        {FAIL_CONNECT, 0x5b, 1, 502},
        {FAIL_NO_UPSTREAM, 0x5b, 1, 503},
        {FAIL_PROXY_AUTH, 0x5b, 2, 502},
        {FAIL_PROXY_REJECTED, 0x5b, 2, 502},
        {FAIL_PROXY_REFUSED, 0x5b, 5, 502},
        {FAIL_PROXY_NETWORK, 0x5b, 3, 502},
        {FAIL_PROXY_HOST, 0x5b, 4, 502},
        {FAIL_PROXY_TTL, 0x5b, 6, 504},
        {FAIL_PROXY_COMMAND, 0x5b, 7, 502},
        {FAIL_PROXY_PROTOCOL, 0x5b, 1, 502},
        {FAIL_PROXY_CLOSED, 0x5b, 1, 502},
        {FAIL_RESOURCE, 0x5b, 1, 503},
        {FAIL_RESOLVE_SHARE, 0x5b, 1, 503},
        {FAIL_LIMIT_CONNECTIONS, 0x5b, 2, 429},
        {FAIL_LIMIT_RATE, 0x5b, 2, 429},
        {FAIL_LIMIT_RESOLVING, 0x5b, 2, 429},
        {FAIL_LIMIT_KEYS, 0x5b, 1, 503},
        {FAIL_QUOTA, 0x5b, 2, 403},
        {FAIL_UPSTREAM_RESPONSE, 0x5b, 1, 502},
        {FAIL_RESPONSE_TOO_LARGE, 0x5b, 1, 502},
        {FAIL_RESPONSE_INCOMPLETE, 0x5b, 1, 502},
        {FAIL_RESPONSE_TIMEOUT, 0x5b, 6, 504},
        {FAIL_CLIENT_RESET, 0, 0, 0}, /* it has had its answer, as those below */
        {FAIL_TARGET_RESET, 0, 0, 0},
        {FAIL_IDLE_TIMEOUT, 0, 0, 0},
        {FAIL_HALF_CLOSE_TIMEOUT, 0, 0, 0},
        {FAIL_KILLED, 0, 0, 0},
        {FAIL_DRAIN, 0, 0, 0},
    };
    (void)state;
    assert_int_equal(sizeof(cases) / sizeof(cases[0]), FAIL_COUNT - 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct failure_row *row = failure_row(cases[i].failure);
        assert_int_equal(row->socks4, cases[i].socks4);
        assert_int_equal(row->socks5, cases[i].socks5);
        assert_int_equal(row->http, cases[i].http);
    }
}

static void test_errno(void **state)
{
    static const struct {
        int error;
        enum failure failure;
    } cases[] = {
        {ENETUNREACH, FAIL_NETWORK_UNREACHABLE},
        {EHOSTUNREACH, FAIL_HOST_UNREACHABLE},
        {ECONNREFUSED, FAIL_REFUSED},
        {ETIMEDOUT, FAIL_CONNECT_TIMEOUT},
        {EMFILE, FAIL_RESOURCE},
        {ENFILE, FAIL_RESOURCE},
        {ENOBUFS, FAIL_RESOURCE},
        {ENOMEM, FAIL_RESOURCE},
        {EADDRNOTAVAIL, FAIL_RESOURCE},
        {EACCES, FAIL_DENIED},
        {EPERM, FAIL_DENIED},
        {ECONNRESET, FAIL_CONNECT},
        {ENOENT, FAIL_CONNECT},
        {EPROTO, FAIL_CONNECT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(failure_from_errno(cases[i].error), cases[i].failure);
        assert_int_equal(failure_from_errno(-cases[i].error), cases[i].failure);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_errno),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
