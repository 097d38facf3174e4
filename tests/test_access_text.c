/* Lines of the access log: each format, and that nothing that a peer has chosen breaks out of its field. */
#include <stdio.h>
#include <string.h>

#include "protocols/access_fields.h"
#include "protocols/access_text.h"
#include "tests/support.h"

#define TEXT(t) ((struct access_text){(t), sizeof(t) - 1})

static char line[65536];

static struct host_port end_of(const char *text)
{
    struct address address;
    assert_true(address_parse(text, strlen(text), ADDRESS_PORT_REQUIRED, 0, &address));
    return host_port_of(&address);
}

static struct access_record some_record(void)
{
    return (struct access_record){.time_us = UINT64_C(1796016005354793),
                                  .event = "end",
                                  .listener = "127.0.0.1:1080",
                                  .protocol = "socks5",
                                  .command = "connect",
                                  .result = "ok",
                                  .relay = "copy",
                                  .worker = 1,
                                  .slot = 0x2f,
                                  .generation = 3,
                                  .client = end_of("192.0.2.7:40000"),
                                  .dialed = end_of("[2001:db8::1]:443"),
                                  .user = TEXT("alice"),
                                  .target = TEXT("host.example:443"),
                                  .up = 12,
                                  .down = UINT64_MAX,
                                  .handshake_us = 0,
                                  .decision_us = ACCESS_NONE,
                                  .resolve_us = 5,
                                  .connect_us = 7,
                                  .first_byte_us = ACCESS_NONE,
                                  .total_us = INT64_C(3600000000),
                                  .client_rtt_us = 31,
                                  .target_rtt_us = ACCESS_NONE,
                                  .client_retrans = 0,
                                  .target_retrans = ACCESS_NONE};
}

static const char *written(enum access_format format, const char *template, const struct access_record *record)
{
    struct access_template parsed;
    const char *bad;
    size_t bad_size;
    if (template) assert_null(access_template_parse(template, &parsed, &bad, &bad_size));
    size_t size = access_write(format, template ? &parsed : NULL, record, line, sizeof line - 1);
    line[size] = '\0';
    assert_int_equal(strlen(line), size);
    return line;
}

static void test_json(void **state)
{
    struct access_record record = some_record();
    (void)state;
    assert_string_equal(
        written(ACCESS_JSON, NULL, &record),
        "{\"time\":\"2026-11-30T05:20:05.354793Z\",\"event\":\"end\",\"id\":\"1-2f-3\",\"listener\":\"127.0.0.1:1080\","
        "\"protocol\":\"socks5\",\"command\":\"connect\",\"client\":\"192.0.2.7:40000\",\"user\":\"alice\","
        "\"target\":\"host.example:443\",\"dialed\":\"[2001:db8::1]:443\",\"egress\":null,\"chain\":null,\"rule\":null,"
        "\"revision\":0,\"result\":\"ok\",\"method\":null,\"host\":null,\"path\":null,\"status\":null,\"up\":12,"
        "\"down\":18446744073709551615,\"handshake_us\":0,\"decision_us\":null,\"resolve_us\":5,\"connect_us\":7,"
        "\"first_byte_us\":null,\"total_us\":3600000000,\"relay\":\"copy\",\"client_rtt_us\":31,\"target_rtt_us\":null,"
        "\"client_retrans\":0,\"target_retrans\":null,\"truncated\":false,\"suppressed\":null}");
}

/* It came to no session; or it is about many that did not. */
static void test_no_session(void **state)
{
    struct access_record record = access_record_of_nothing(0, "end");
    (void)state;
    record.result = "max_sessions";
    record.client = end_of("192.0.2.7:40000");
    assert_string_equal(written(ACCESS_LOGFMT, NULL, &record),
                        "time=1970-01-01T00:00:00.000000Z event=end client=192.0.2.7:40000 revision=0 "
                        "result=max_sessions up=0 down=0");
    record = access_record_of_nothing(0, "suppressed");
    record.suppressed = 1234;
    assert_string_equal(written(ACCESS_LOGFMT, NULL, &record),
                        "time=1970-01-01T00:00:00.000000Z event=suppressed revision=0 up=0 down=0 suppressed=1234");
    assert_string_equal(written(ACCESS_CLF, NULL, &record),
                        "- - - [01/Jan/1970:00:00:00 +0000] \"suppressed 1234 -\" - 0");
    assert_non_null(strstr(written(ACCESS_JSON, NULL, &record), "\"id\":null,"));
    assert_non_null(strstr(written(ACCESS_JSON, NULL, &record), ",\"suppressed\":1234}"));
}

static void test_logfmt(void **state)
{
    struct access_record record = some_record();
    (void)state;
    record.user = TEXT("a b=\"c\"\n\xff");
    assert_string_equal(written(ACCESS_LOGFMT, NULL, &record),
                        "time=2026-11-30T05:20:05.354793Z event=end id=1-2f-3 listener=127.0.0.1:1080 protocol=socks5 "
                        "command=connect client=192.0.2.7:40000 user=\"a b=\\\"c\\\"\\u000a\xef\xbf\xbd\" "
                        "target=host.example:443 dialed=[2001:db8::1]:443 revision=0 result=ok up=12 "
                        "down=18446744073709551615 handshake_us=0 resolve_us=5 connect_us=7 total_us=3600000000 "
                        "relay=copy client_rtt_us=31 client_retrans=0");
}

static void test_clf(void **state)
{
    struct access_record record = some_record();
    (void)state;
    record.down = 516;
    assert_string_equal(written(ACCESS_CLF, NULL, &record),
                        "192.0.2.7 - alice [30/Nov/2026:05:20:05 +0000] \"connect host.example:443 socks5\" - 516");
    record.method = TEXT("GET");
    record.path = TEXT("/a\" \\ \x7f");
    record.protocol = "http";
    record.status = 200;
    record.user = (struct access_text){0};
    record.client = end_of("[2001:db8::7]:1");
    assert_string_equal(written(ACCESS_CLF, NULL, &record),
                        "2001:db8::7 - - [30/Nov/2026:05:20:05 +0000] \"GET "
                        "http://host.example:443/a\\x22\\x20\\x5c\\x20\\x7f http\" 200 516");
    record = (struct access_record){.result = "version"};
    assert_string_equal(written(ACCESS_CLF, NULL, &record), "- - - [01/Jan/1970:00:00:00 +0000] \"- - -\" - 0");
}

static void test_templates(void **state)
{
    struct access_record record = some_record();
    (void)state;
    record.user = TEXT("x} {up");
    assert_string_equal(written(ACCESS_TEMPLATE, "{{{client}}} {user}|{up}|{egress}|{truncated}", &record),
                        "{192.0.2.7:40000} x}\\x20{up|12|-|-");
}

static void test_wrong_templates(void **state)
{
    static const struct {
        const char *text, *wrong, *name;
    } cases[] = {
        {"", "empty", NULL},
        {"{", "brace", NULL},
        {"}", "brace", NULL},
        {"a}b", "brace", NULL},
        {"{up", "brace", NULL},
        {"{up{down}}", "brace", NULL},
        {"{}", "unknown field", ""},
        {"x {Up}", "unknown field", "Up"},
        {"{password}", "unknown field", "password"},
        {"a\nb", "control", NULL},
        {"\x7f", "control", NULL},
    };
    struct access_template template;
    const char *bad;
    size_t bad_size;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *wrong = access_template_parse(cases[i].text, &template, &bad, &bad_size);
        assert_non_null(wrong);
        assert_non_null(strstr(wrong, cases[i].wrong));
        size_t size = cases[i].name ? strlen(cases[i].name) : 0;
        assert_int_equal(bad_size, size);
        if (size > 0) assert_memory_equal(bad, cases[i].name, size);
    }
    char many[ACCESS_TEMPLATE_MAX + 2];
    memset(many, 'x', sizeof many);
    many[sizeof many - 1] = '\0';
    assert_non_null(access_template_parse(many, &template, &bad, &bad_size));
    many[sizeof many - 2] = '\0';
    assert_null(access_template_parse(many, &template, &bad, &bad_size));
    many[0] = '\0';
    for (unsigned i = 0; i <= ACCESS_TEMPLATE_PARTS; i++) strcat(many, "{up}");
    assert_non_null(access_template_parse(many, &template, &bad, &bad_size));
    many[strlen(many) - 4] = '\0';
    assert_null(access_template_parse(many, &template, &bad, &bad_size));
}

/* What a text becomes in JSON, RFC 8259 section 7, and whether bad UTF-8 is seen as such (RFC 3629 section 3). */
static void test_escapes(void **state)
{
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"\x01\x1f\x7f\"\\", "\\u0001\\u001f\\u007f\\\"\\\\"},
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xc2\x85\xe2\x80\xa8\xe2\x80\xae", "\\u0085\\u2028\\u202e"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
        {"\xf4\x90\x80\x80!", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd!"},
        {"\xf8\x88\x80\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"}, /* its end is missing */
        {"\x80x", "\xef\xbf\xbdx"},
    };
    struct access_record record = some_record();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char wanted[128];
        record.user = (struct access_text){cases[i].from, (uint32_t)strlen(cases[i].from)};
        snprintf(wanted, sizeof wanted, "\"user\":\"%s\",", cases[i].to);
        assert_non_null(strstr(written(ACCESS_JSON, NULL, &record), wanted));
    }
}

/* Texts that all become six times as long: still whole, still valid, and it says so. */
static void test_long_lines_are_cut(void **state)
{
    static char huge[20000];
    struct access_record record = some_record();
    char small[ACCESS_LINE_MIN];
    (void)state;
    memset(huge, 1, sizeof huge);
    record.user = record.target = record.chain = record.rule = record.method = record.host = record.path =
        (struct access_text){huge, sizeof huge};
    size_t size = access_write(ACCESS_JSON, NULL, &record, small, sizeof small);
    assert_true(size > 500 && size <= sizeof small);
    static const char said[] = "\"truncated\":true,\"suppressed\":null}";
    assert_memory_equal(small + size - (sizeof said - 1), said, sizeof said - 1);
    size = access_write(ACCESS_LOGFMT, NULL, &record, small, sizeof small);
    assert_memory_equal(small + size - 15, " truncated=true", 15);
    assert_true(access_write(ACCESS_CLF, NULL, &record, small, sizeof small) <= sizeof small);
    record.user = record.chain = record.rule = record.method = record.host = (struct access_text){0};
    record.path = TEXT("/");
    record.target = (struct access_text){huge, 900};
    size = access_write(ACCESS_JSON, NULL, &record, small, sizeof small); /* 5,400 octets and the rest: just too long */
    assert_non_null(memmem(small, size, "\"path\":\"/\"", 10));
}

static void test_longest_template_fits(void **state)
{
    static char huge[4000];
    char text[ACCESS_TEMPLATE_MAX + 1] = "", small[ACCESS_LINE_MIN];
    struct access_template template;
    struct access_record record = some_record();
    const char *bad;
    size_t bad_size;
    (void)state;
    memset(huge, 1, sizeof huge);
    record.user = (struct access_text){huge, sizeof huge};
    for (unsigned i = 0; i < ACCESS_TEMPLATE_PARTS - 1; i++) strcat(text, "{user}");
    size_t size = strlen(text);
    memset(text + size, '\\', ACCESS_TEMPLATE_MAX - size);
    text[ACCESS_TEMPLATE_MAX] = '\0';
    assert_null(access_template_parse(text, &template, &bad, &bad_size));
    assert_true(access_write(ACCESS_TEMPLATE, &template, &record, small, sizeof small) <= sizeof small);
}

static void test_times(void **state)
{
    static const struct {
        uint64_t us;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000000Z"},
        {UINT64_C(951782400000001), "2000-02-29T00:00:00.000001Z"},
        {UINT64_C(951868799999999), "2000-02-29T23:59:59.999999Z"},
        {UINT64_C(1709251199000000), "2024-02-29T23:59:59.000000Z"},
        {UINT64_C(4107542400000000), "2100-03-01T00:00:00.000000Z"},
        {UINT64_C(253402300799999999), "9999-12-31T23:59:59.999999Z"},
    };
    char out[32];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size = access_format_time(cases[i].us, out);
        assert_int_equal(size, strlen(cases[i].text));
        assert_memory_equal(out, cases[i].text, size);
    }
}

static void test_fields_by_number(void **state)
{
    struct access_record record = some_record();
    char value[32];
    unsigned seen = 0;
    (void)state;
    for (unsigned i = 0; i < access_field_count(); i++) {
        size_t size = access_field_value(i, &record, value, sizeof value);
        if (strcmp(access_field_name(i), "user") == 0) {
            assert_int_equal(size, 5);
            assert_memory_equal(value, "alice", 5);
            assert_int_equal(access_field_value(i, &record, value, 2), 2);
            seen++;
        }
        if (strcmp(access_field_name(i), "egress") == 0) {
            assert_int_equal(size, 0);
            seen++;
        }
    }
    assert_int_equal(seen, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_no_session),
        cmocka_unit_test(test_logfmt),
        cmocka_unit_test(test_clf),
        cmocka_unit_test(test_templates),
        cmocka_unit_test(test_wrong_templates),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_long_lines_are_cut),
        cmocka_unit_test(test_longest_template_fits),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_fields_by_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
