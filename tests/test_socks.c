/* SOCKS4, 4A and 5 as octets on the wire: whole, every prefix, every split, every wrong octet, both sides. */
#include <stdio.h>
#include <string.h>

#include "protocols/bytes.h"
#include "protocols/socks4.h"
#include "protocols/socks5.h"
#include "tests/support.h"

/* A message under test: `parse` reads it, `text` is what its meaning must look like in print. */
struct wire {
    const char *octets;
    size_t size;
    const char *text;
};
#define WIRE(octets, text)                                                                                             \
    {                                                                                                                  \
        octets, sizeof(octets) - 1, text                                                                               \
    }
#define TEXT_SIZE 1200u /* two credentials or a name and a user, with labels */

/* What a callback gets: the expectation, or NULL when any output will do. */
struct expectation {
    const char *text;
};

static void expect_text(const void *context, const char *text)
{
    const struct expectation *expectation = context;
    if (expectation->text != NULL) assert_string_equal(text, expectation->text);
}

static const char *address_text(const struct address *address)
{
    static char text[ADDRESS_TEXT_SIZE];
    assert_in_range(address_format(address, text, sizeof(text)), 0, sizeof(text) - 1);
    return address->kind == ADDRESS_NONE ? "none" : text;
}

/* --- the parsers behind one face --- */

static enum parse_result parse_request4(const uint8_t *data, size_t size, void *context, size_t *used)
{
    char text[TEXT_SIZE];
    struct socks4_request request;
    enum parse_result result = socks4_parse_request(data, size, &request, used);
    if (result != PARSE_OK) return result;
    snprintf(text, sizeof(text), "%u %s '%s'", request.command, address_text(&request.target), request.user);
    expect_text(context, text);
    return result;
}

static enum parse_result parse_reply4(const uint8_t *data, size_t size, void *context, size_t *used)
{
    char text[TEXT_SIZE];
    uint8_t code;
    enum parse_result result = socks4_parse_reply(data, size, &code, used);
    if (result != PARSE_OK) return result;
    snprintf(text, sizeof(text), "%02x", code);
    expect_text(context, text);
    return result;
}

static enum parse_result parse_greeting(const uint8_t *data, size_t size, void *context, size_t *used)
{
    char text[TEXT_SIZE];
    uint8_t open = 0, closed = 0;
    size_t used_closed;
    enum parse_result result = socks5_parse_greeting(data, size, false, &open, used);
    assert_int_equal(socks5_parse_greeting(data, size, true, &closed, &used_closed), result);
    assert_int_equal(used_closed, *used);
    if (result != PARSE_OK) return result;
    snprintf(text, sizeof(text), "%02x, with password %02x", open, closed);
    expect_text(context, text);
    return result;
}

static enum parse_result parse_auth(const uint8_t *data, size_t size, void *context, size_t *used)
{
    char text[TEXT_SIZE];
    struct credentials credentials;
    enum parse_result result = socks5_parse_auth(data, size, &credentials, used);
    if (result != PARSE_OK) return result;
    assert_true(credentials.present);
    snprintf(text, sizeof(text), "'%s' '%s'", credentials.user, credentials.password);
    expect_text(context, text);
    return result;
}

static enum parse_result parse_request5(const uint8_t *data, size_t size, void *context, size_t *used)
{
    char text[TEXT_SIZE];
    struct socks5_request request;
    enum parse_result result = socks5_parse_request(data, size, &request, used);
    if (result != PARSE_OK) return result;
    snprintf(text, sizeof(text), "%u %s", request.command, address_text(&request.target));
    expect_text(context, text);
    return result;
}

static enum parse_result parse_reply5(const uint8_t *data, size_t size, void *context, size_t *used)
{
    char text[TEXT_SIZE];
    uint8_t code = 0, code_alone = 0;
    struct address bound;
    size_t used_alone;
    enum parse_result result = socks5_parse_reply(data, size, &code, &bound, used);
    assert_int_equal(socks5_parse_reply(data, size, &code_alone, NULL, &used_alone), result);
    assert_int_equal(used_alone, *used);
    if (result != PARSE_OK) return result;
    assert_int_equal(code, code_alone);
    snprintf(text, sizeof(text), "%u %s", code, address_text(&bound));
    expect_text(context, text);
    return result;
}

static enum parse_result parse_method(const uint8_t *data, size_t size, void *context, size_t *used)
{
    char text[TEXT_SIZE];
    uint8_t method;
    enum parse_result result = socks5_parse_method(data, size, &method, used);
    if (result != PARSE_OK) return result;
    snprintf(text, sizeof(text), "%02x", method);
    expect_text(context, text);
    return result;
}

static enum parse_result parse_auth_status(const uint8_t *data, size_t size, void *context, size_t *used)
{
    bool granted;
    enum parse_result result = socks5_parse_auth_status(data, size, &granted, used);
    if (result == PARSE_OK) expect_text(context, granted ? "granted" : "refused");
    return result;
}

static enum parse_result parse_udp(const uint8_t *data, size_t size, void *context, size_t *used)
{
    char text[TEXT_SIZE];
    struct socks5_udp_header header;
    enum parse_result result = socks5_parse_udp_header(data, size, &header, used);
    if (result != PARSE_OK) return result;
    snprintf(text, sizeof(text), "%u %s", header.fragment, address_text(&header.target));
    expect_text(context, text);
    return result;
}

/* --- the whole treatment of a table of messages --- */

static void check_message(support_parse *parse, const void *octets, size_t size, const char *text)
{
    struct expectation expectation = {text};
    support_check_prefixes(parse, octets, size, &expectation, 0);
    support_check_splits(parse, octets, size, &expectation, 0);
    expectation.text = NULL;
    support_check_wrong_octets(parse, octets, size, &expectation, 0);
}

static void check_wires(support_parse *parse, const struct wire *wires, size_t count)
{
    for (size_t i = 0; i < count; i++) check_message(parse, wires[i].octets, wires[i].size, wires[i].text);
}
#define CHECK_WIRES(parse, wires) check_wires(parse, wires, sizeof(wires) / sizeof((wires)[0]))

/* Each of these is refused, or found unsupported, but not before `size` octets are there. */
static void check_refusal(support_parse *parse, const void *octets, size_t size, enum parse_result wanted)
{
    struct expectation expectation = {NULL};
    for (size_t prefix = 0; prefix < size; prefix++)
        assert_int_equal(support_run(parse, octets, prefix, &expectation, NULL), PARSE_MORE);
    assert_int_equal(support_run(parse, octets, size, &expectation, NULL), wanted);
}
#define CHECK_REFUSAL(parse, octets, wanted) check_refusal(parse, octets, sizeof(octets) - 1, wanted)

/* The first octet tells the version: every other value is refused at once. */
static void check_version(support_parse *parse, uint8_t version)
{
    struct expectation expectation = {NULL};
    for (unsigned value = 0; value <= UINT8_MAX; value++) {
        uint8_t octet = (uint8_t)value;
        enum parse_result wanted = octet == version ? PARSE_MORE : PARSE_BAD;
        assert_int_equal(support_run(parse, &octet, 1, &expectation, NULL), wanted);
    }
}

static struct address address_of(const char *text)
{
    struct address address;
    assert_true(address_parse(text, strlen(text), ADDRESS_PORT_REQUIRED, 0, &address));
    return address;
}

/* `count` times the same character, terminated. */
static const char *repeat(char c, size_t count)
{
    static char text[600];
    assert_in_range(count, 0, sizeof(text) - 1);
    memset(text, c, count);
    text[count] = '\0';
    return text;
}

/* --- SOCKS4 --- */

static void socks4_requests(void **state)
{
    (void)state;
    static const struct wire wires[] = {
        WIRE("\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "1 127.0.0.1:80 ''"),
        WIRE("\x04\x02\xff\xff\xff\xff\xff\xff\x66red\x00", "2 255.255.255.255:65535 'fred'"),
        WIRE("\x04\x01\x01\xbb\x00\x00\x00\x01me\x00sluice.example\x00", "1 sluice.example:443 'me'"),
        WIRE("\x04\x01\x01\xbb\x00\x00\x00\xff\x00x\x00", "1 x:443 ''"),
        WIRE("\x04\x01\x00\x16\x00\x00\x00\x07\x00"
             "192.0.2.1\x00",
             "1 192.0.2.1:22 ''"),
        WIRE("\x04\x01\x00\x16\x00\x00\x00\x07u\x00"
             "2001:db8::1\x00",
             "1 [2001:db8::1]:22 'u'"),
        /* The next three are no marks of 4A: a name behind them is payload. */
        WIRE("\x04\x01\x00\x50\x00\x00\x00\x00\x00", "1 0.0.0.0:80 ''"),
        WIRE("\x04\x01\x00\x50\x00\x00\x01\x01\x00", "1 0.0.1.1:80 ''"),
        WIRE("\x04\x63\x00\x00\x01\x00\x00\x01\x00", "99 1.0.0.1:0 ''"),
        /* Names that no host can have. */
        WIRE("\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", "1 none ''"),
        WIRE("\x04\x01\x00\x50\x00\x00\x00\x01\x00 \x00", "1 none ''"),
        WIRE("\x04\x01\x00\x50\x00\x00\x00\x01\x00line\nfeed\x00", "1 none ''"),
        WIRE("\x04\x01\x00\x50\x00\x00\x00\x01\x00unix:/run/x\x00", "1 none ''"),
    };
    CHECK_WIRES(parse_request4, wires);
}

static void socks4_refusals(void **state)
{
    (void)state;
    check_version(parse_request4, 4);
}

/* Writes a 4A request with a user and a name of those sizes; without the last NUL if `open`. */
static size_t build_request4a(uint8_t *out, size_t size, size_t user_size, size_t name_size, bool open)
{
    struct bytes_writer writer = bytes_writer_over(out, size);
    bytes_put(&writer, "\x04\x01\x00\x50\x00\x00\x00\x01", 8);
    bytes_put(&writer, repeat('u', user_size), user_size + 1);
    bytes_put(&writer, repeat('n', name_size), name_size + (open ? 0 : 1));
    return writer.at;
}

static void socks4_longest(void **state)
{
    (void)state;
    char text[TEXT_SIZE], name[256];
    uint8_t octets[SOCKS4_REQUEST_SIZE_MAX + 2];
    strcpy(name, repeat('n', 255));
    snprintf(text, sizeof(text), "1 %s:80 '%s'", name, repeat('u', 255));
    size_t size = build_request4a(octets, sizeof(octets), 255, 255, false);
    assert_int_equal(size, SOCKS4_REQUEST_SIZE_MAX);
    struct expectation expectation = {text};
    support_check_prefixes(parse_request4, octets, size, &expectation, 0);
    support_check_splits(parse_request4, octets, size, &expectation, 0);

    /* Longer ones are refused as soon as the octet that should have been the NUL is there. */
    size = build_request4a(octets, sizeof(octets), 255, 256, true);
    check_refusal(parse_request4, octets, size, PARSE_BAD);
    build_request4a(octets, sizeof(octets), 256, 1, true);
    check_refusal(parse_request4, octets, 8 + 256, PARSE_BAD);
}

static void socks4_replies(void **state)
{
    (void)state;
    static const struct wire wires[] = {
        WIRE("\x00\x5a\x00\x00\x00\x00\x00\x00", "5a"),
        WIRE("\x00\x5b\xff\xff\xff\xff\xff\xff", "5b"),
        WIRE("\x00\x00\x00\x50\x7f\x00\x00\x01", "00"),
    };
    CHECK_WIRES(parse_reply4, wires);
    check_version(parse_reply4, 0);
}

static void socks4_written_reply(void **state)
{
    (void)state;
    uint8_t out[SOCKS4_REPLY_SIZE];
    assert_int_equal(socks4_write_reply(out, sizeof(out), SOCKS4_GRANTED), 8);
    assert_memory_equal(out, "\x00\x5a\x00\x00\x00\x00\x00\x00", 8);
    check_message(parse_reply4, out, sizeof(out), "5a");
}

static void expect_request4(const char *target, const char *user, const char *octets, size_t size)
{
    char text[TEXT_SIZE];
    uint8_t out[SOCKS4_REQUEST_SIZE_MAX];
    struct address address = address_of(target);
    assert_int_equal(socks4_write_request(out, sizeof(out), &address, user), size);
    assert_memory_equal(out, octets, size);
    snprintf(text, sizeof(text), "1 %s '%s'", target, user);
    check_message(parse_request4, out, size, text);
}
#define EXPECT_REQUEST4(target, user, octets) expect_request4(target, user, octets, sizeof(octets) - 1)

static void socks4_written_requests(void **state)
{
    (void)state;
    EXPECT_REQUEST4("192.0.2.1:80", "", "\x04\x01\x00\x50\xc0\x00\x02\x01\x00");
    EXPECT_REQUEST4("0.0.0.0:1", "me", "\x04\x01\x00\x01\x00\x00\x00\x00me\x00");
    EXPECT_REQUEST4("sluice.example:443", "me", "\x04\x01\x01\xbb\x00\x00\x00\xffme\x00sluice.example\x00");
    EXPECT_REQUEST4("[2001:db8::1]:22", "", "\x04\x01\x00\x16\x00\x00\x00\xff\x00\x32\x30\x30\x31:db8::1\x00");
    EXPECT_REQUEST4("0.0.0.9:7", "", "\x04\x01\x00\x07\x00\x00\x00\xff\x00\x30.0.0.9\x00");
}

/* --- SOCKS5, server side --- */

static void socks5_greetings(void **state)
{
    (void)state;
    static const struct wire wires[] = {
        WIRE("\x05\x01\x00", "00, with password ff"),
        WIRE("\x05\x01\x02", "02, with password 02"),
        WIRE("\x05\x02\x00\x02", "00, with password 02"),
        WIRE("\x05\x02\x02\x00", "02, with password 02"),
        WIRE("\x05\x04\x01\x80\x02\x00", "02, with password 02"),
        WIRE("\x05\x02\x01\xff", "ff, with password ff"),
        WIRE("\x05\x00", "ff, with password ff"),
    };
    CHECK_WIRES(parse_greeting, wires);
    check_version(parse_greeting, 5);
}

static void socks5_longest_greeting(void **state)
{
    (void)state;
    uint8_t octets[SOCKS5_GREETING_SIZE_MAX];
    memset(octets, 0x80, sizeof(octets));
    octets[0] = 5;
    octets[1] = 255;
    octets[sizeof(octets) - 1] = 2; /* the last one of the list is heard, too */
    check_message(parse_greeting, octets, sizeof(octets), "02, with password 02");
}

static void socks5_auths(void **state)
{
    (void)state;
    static const struct wire wires[] = {
        WIRE("\x01\x04user\x08password", "'user' 'password'"),
        WIRE("\x01\x00\x00", "'' ''"),
        WIRE("\x01\x01u\x00", "'u' ''"),
        WIRE("\x01\x00\x02pw", "'' 'pw'"),
        WIRE("\x01\x02\xc3\xa9\x01\x01", "'\xc3\xa9' '\x01'"),
    };
    CHECK_WIRES(parse_auth, wires);
    check_version(parse_auth, 1);
    CHECK_REFUSAL(parse_auth, "\x01\x03u\x00v", PARSE_BAD);
    CHECK_REFUSAL(parse_auth, "\x01\x01u\x03pw\x00", PARSE_BAD);
}

static void socks5_longest_auth(void **state)
{
    (void)state;
    char text[TEXT_SIZE];
    uint8_t out[SOCKS5_AUTH_SIZE_MAX];
    struct credentials credentials = {.present = true};
    strcpy(credentials.user, repeat('u', 255));
    strcpy(credentials.password, repeat('p', 255));
    snprintf(text, sizeof(text), "'%s' '%s'", credentials.user, credentials.password);
    assert_int_equal(socks5_write_auth(out, sizeof(out), &credentials), SOCKS5_AUTH_SIZE_MAX);
    struct expectation expectation = {text};
    support_check_prefixes(parse_auth, out, sizeof(out), &expectation, 0);
    support_check_splits(parse_auth, out, sizeof(out), &expectation, 0);
}

static void socks5_requests(void **state)
{
    (void)state;
    static const struct wire wires[] = {
        WIRE("\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", "1 127.0.0.1:80"),
        WIRE("\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", "3 0.0.0.0:0"),
        WIRE("\x05\x02\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb", "2 [2001:db8::1]:443"),
        WIRE("\x05\x01\x00\x03\x0esluice.example\x01\xbb", "1 sluice.example:443"),
        WIRE("\x05\x01\x00\x03\x01x\xff\xff", "1 x:65535"),
        WIRE("\x05\x01\x00\x03\x09\x31\x39\x32.0.2.1\x00\x50", "1 192.0.2.1:80"),
        WIRE("\x05\x01\x00\x03\x03::1\x00\x50", "1 [::1]:80"),
        WIRE("\x05\x63\xff\x01\x01\x02\x03\x04\x00\x50", "99 1.2.3.4:80"),
        /* Names that are none are told from broken messages: the client gets an answer. */
        WIRE("\x05\x01\x00\x03\x00\x00\x50", "1 none"),
        WIRE("\x05\x01\x00\x03\x03x\x00y\x00\x50", "1 none"),
        WIRE("\x05\x01\x00\x03\x04x:22\x00\x50", "1 none"),
    };
    CHECK_WIRES(parse_request5, wires);
    check_version(parse_request5, 5);
}

static void socks5_unknown_address_type(void **state)
{
    (void)state;
    uint8_t octets[] = {5, 0x42, 0, 0};
    for (unsigned type = 0; type <= UINT8_MAX; type++) {
        struct socks5_request request = {0};
        size_t used = 1;
        octets[3] = (uint8_t)type;
        bool known = type == 1 || type == 3 || type == 4;
        enum parse_result result = socks5_parse_request(octets, sizeof(octets), &request, &used);
        assert_int_equal(result, known ? PARSE_MORE : PARSE_UNSUPPORTED);
        assert_int_equal(request.command, known ? 0 : 0x42);
        assert_int_equal(request.target.kind, ADDRESS_NONE);
        assert_int_equal(used, 0);
    }
    CHECK_REFUSAL(parse_request5, "\x05\x01\x00\x02", PARSE_UNSUPPORTED);
}

static void socks5_longest_request(void **state)
{
    (void)state;
    char text[TEXT_SIZE];
    uint8_t out[SOCKS5_REQUEST_SIZE_MAX];
    struct address target;
    assert_true(address_from_host(repeat('n', 255), 255, 443, &target));
    assert_int_equal(socks5_write_request(out, sizeof(out), SOCKS5_CONNECT, &target), SOCKS5_REQUEST_SIZE_MAX);
    snprintf(text, sizeof(text), "1 %s:443", repeat('n', 255));
    struct expectation expectation = {text};
    support_check_prefixes(parse_request5, out, sizeof(out), &expectation, 0);
    support_check_splits(parse_request5, out, sizeof(out), &expectation, 0);
}

static void expect_reply(uint8_t code, const struct address *bound, const char *text, const char *octets, size_t size)
{
    uint8_t out[SOCKS5_REPLY_SIZE_MAX];
    assert_int_equal(socks5_write_reply(out, sizeof(out), code, bound), size);
    assert_memory_equal(out, octets, size);
    check_message(parse_reply5, out, size, text);
}

static void socks5_written_replies(void **state)
{
    (void)state;
    struct address none = {0}, ipv4 = address_of("192.0.2.1:80"), ipv6 = address_of("[::1]:81");
    struct address name = address_of("x:82"), path = {.kind = ADDRESS_UNIX, .name_size = 2, .name = "/x"};
    expect_reply(5, NULL, "5 0.0.0.0:0", "\x05\x05\x00\x01\0\0\0\0\0\0", 10);
    expect_reply(0, &none, "0 0.0.0.0:0", "\x05\x00\x00\x01\0\0\0\0\0\0", 10);
    expect_reply(0, &path, "0 0.0.0.0:0", "\x05\x00\x00\x01\0\0\0\0\0\0", 10);
    expect_reply(0, &ipv4, "0 192.0.2.1:80", "\x05\x00\x00\x01\xc0\x00\x02\x01\x00\x50", 10);
    expect_reply(0, &ipv6, "0 [::1]:81", "\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x51", 22);
    expect_reply(0, &name, "0 x:82", "\x05\x00\x00\x03\x01x\x00\x52", 8);
}

static void socks5_written_pairs(void **state)
{
    (void)state;
    uint8_t out[2];
    assert_int_equal(socks5_write_method(out, sizeof(out), SOCKS5_METHOD_UNACCEPTABLE), 2);
    assert_memory_equal(out, "\x05\xff", 2);
    check_message(parse_method, out, 2, "ff");
    assert_int_equal(socks5_write_auth_status(out, sizeof(out), true), 2);
    assert_memory_equal(out, "\x01\x00", 2);
    check_message(parse_auth_status, out, 2, "granted");
    assert_int_equal(socks5_write_auth_status(out, sizeof(out), false), 2);
    assert_memory_equal(out, "\x01\x01", 2);
    check_message(parse_auth_status, out, 2, "refused");
}

/* --- SOCKS5, client side --- */

static void socks5_written_greetings(void **state)
{
    (void)state;
    uint8_t out[4];
    assert_int_equal(socks5_write_greeting(out, sizeof(out), false), 3);
    assert_memory_equal(out, "\x05\x01\x00", 3);
    assert_int_equal(socks5_write_greeting(out, sizeof(out), true), 4);
    assert_memory_equal(out, "\x05\x02\x00\x02", 4);
    check_message(parse_greeting, out, 4, "00, with password 02");
}

static void socks5_written_auth(void **state)
{
    (void)state;
    uint8_t out[SOCKS5_AUTH_SIZE_MAX];
    struct credentials credentials = {.present = true, .user = "user", .password = ""};
    assert_int_equal(socks5_write_auth(out, sizeof(out), &credentials), 7);
    assert_memory_equal(out, "\x01\x04user\x00", 7);
    check_message(parse_auth, out, 7, "'user' ''");
}

static void expect_request5(uint8_t command, const char *target, const char *octets, size_t size)
{
    char text[TEXT_SIZE];
    uint8_t out[SOCKS5_REQUEST_SIZE_MAX];
    struct address address = address_of(target);
    assert_int_equal(socks5_write_request(out, sizeof(out), command, &address), size);
    assert_memory_equal(out, octets, size);
    snprintf(text, sizeof(text), "%u %s", command, target);
    check_message(parse_request5, out, size, text);
}

static void socks5_written_requests(void **state)
{
    (void)state;
    expect_request5(SOCKS5_CONNECT, "0.0.0.9:80", "\x05\x01\x00\x01\x00\x00\x00\x09\x00\x50", 10);
    expect_request5(SOCKS5_BIND, "x.example:443", "\x05\x02\x00\x03\x09x.example\x01\xbb", 16);
    expect_request5(SOCKS5_UDP_ASSOCIATE, "[::]:0", "\x05\x03\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22);
}

/* --- no room, no form --- */

static size_t write_anything(unsigned which, uint8_t *out, size_t size)
{
    struct address name = {.kind = ADDRESS_NAME, .port = 80, .name_size = 7, .name = "x.test."};
    struct credentials credentials = {.present = true, .user = "user", .password = "password"};
    switch (which) {
    case 0: return socks4_write_reply(out, size, SOCKS4_GRANTED);
    case 1: return socks4_write_request(out, size, &name, "user");
    case 2: return socks5_write_method(out, size, SOCKS5_METHOD_NONE);
    case 3: return socks5_write_auth_status(out, size, true);
    case 4: return socks5_write_reply(out, size, SOCKS5_SUCCEEDED, &name);
    case 5: return socks5_write_greeting(out, size, true);
    case 6: return socks5_write_auth(out, size, &credentials);
    case 7: return socks5_write_request(out, size, SOCKS5_CONNECT, &name);
    default: return socks5_write_udp_header(out, size, &name);
    }
}

/* Whatever room there is, a writer says that it was not enough, and never writes behind it. */
static void writers_without_room(void **state)
{
    (void)state;
    uint8_t out[512];
    for (unsigned which = 0; which <= 8; which++) {
        size_t whole = write_anything(which, out, sizeof out);
        assert_in_range(whole, 2, sizeof out - 1);
        for (size_t size = 0; size < whole; size++) {
            memset(out, 0xa5, sizeof out);
            assert_int_equal(write_anything(which, out, size), 0);
            for (size_t i = size; i < sizeof out; i++) assert_int_equal(out[i], 0xa5);
        }
        assert_int_equal(write_anything(which, out, whole), whole);
    }
}

/* An operator's -f unix: behind an operator's -x: no protocol can ask for it. */
static void targets_without_form(void **state)
{
    (void)state;
    uint8_t out[SOCKS4_REQUEST_SIZE_MAX];
    struct address path = {.kind = ADDRESS_UNIX, .name_size = 2, .name = "/x"}, none = {.kind = ADDRESS_NONE};
    assert_int_equal(socks4_write_request(out, sizeof out, &path, ""), 0);
    assert_int_equal(socks4_write_request(out, sizeof out, &none, ""), 0);
    assert_int_equal(socks5_write_request(out, sizeof out, SOCKS5_CONNECT, &path), 0);
    assert_int_equal(socks5_write_request(out, sizeof out, SOCKS5_CONNECT, &none), 0);
}

static void socks5_pairs(void **state)
{
    (void)state;
    check_version(parse_method, 5);
    check_version(parse_auth_status, 1);
    check_message(parse_method, "\x05\x02", 2, "02");
    check_message(parse_auth_status, "\x01\xff", 2, "refused");
}

static void socks5_replies(void **state)
{
    (void)state;
    static const struct wire wires[] = {
        WIRE("\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50", "0 127.0.0.1:80"),
        WIRE("\x05\xff\x07\x01\x00\x00\x00\x00\x00\x00", "255 0.0.0.0:0"),
        WIRE("\x05\x00\x00\x03\x04name\x00\x50", "0 name:80"),
        WIRE("\x05\x01\x00\x03\x00\x00\x00", "1 none"),
        WIRE("\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x51", "0 [::1]:81"),
    };
    CHECK_WIRES(parse_reply5, wires);
    check_version(parse_reply5, 5);

    uint8_t code = 0;
    struct address bound = address_of("192.0.2.1:1");
    size_t used = 1;
    assert_int_equal(socks5_parse_reply((const uint8_t *)"\x05\x07\x00\x00", 4, &code, &bound, &used),
                     PARSE_UNSUPPORTED);
    assert_int_equal(code, SOCKS5_COMMAND_NOT_SUPPORTED);
    assert_int_equal(bound.kind, ADDRESS_NONE);
    assert_int_equal(used, 0);
}

/* --- datagrams --- */

/* A datagram has no rest to wait for, so that a prefix is refused instead of waited on. */
static void check_datagram(const char *octets, size_t size, const char *text)
{
    size_t used;
    struct expectation expectation = {text};
    for (size_t prefix = 0; prefix < size; prefix++)
        assert_int_equal(support_run(parse_udp, octets, prefix, &expectation, NULL), PARSE_BAD);
    assert_int_equal(support_run(parse_udp, octets, size, &expectation, &used), PARSE_OK);
    assert_int_equal(used, size);
}

/* Every wrong octet, on guarded input; support_run() looks at the sanity of the answers. */
static void check_wrong_datagrams(const char *octets, size_t size)
{
    uint8_t wrong[SOCKS5_UDP_HEADER_SIZE_MAX];
    struct expectation expectation = {NULL};
    for (size_t at = 0; at < size; at++) {
        memcpy(wrong, octets, size);
        for (unsigned value = 0; value <= UINT8_MAX; value++) {
            wrong[at] = (uint8_t)value;
            assert_int_not_equal(support_run(parse_udp, wrong, size, &expectation, NULL), PARSE_MORE);
        }
    }
}

static void socks5_datagrams(void **state)
{
    (void)state;
    static const struct wire wires[] = {
        WIRE("\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x35", "0 127.0.0.1:53"),
        WIRE("\xff\xff\x81\x01\x7f\x00\x00\x01\x00\x35", "129 127.0.0.1:53"),
        WIRE("\x00\x00\x00\x03\x03\x64ns\x00\x35", "0 dns:53"),
        WIRE("\x00\x00\x00\x03\x00\x00\x35", "0 none"),
        WIRE("\x00\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x35", "0 [::1]:53"),
    };
    for (size_t i = 0; i < sizeof(wires) / sizeof(wires[0]); i++) {
        check_datagram(wires[i].octets, wires[i].size, wires[i].text);
        check_wrong_datagrams(wires[i].octets, wires[i].size);
    }
    struct expectation expectation = {NULL};
    assert_int_equal(support_run(parse_udp, "\x00\x00\x00\x02rest", 8, &expectation, NULL), PARSE_UNSUPPORTED);
}

static void socks5_datagram_payload(void **state)
{
    (void)state;
    size_t used;
    struct expectation expectation = {"0 1.2.3.4:53"};
    const char octets[] = "\x00\x00\x00\x01\x01\x02\x03\x04\x00\x35payload";
    assert_int_equal(support_run(parse_udp, octets, sizeof(octets) - 1, &expectation, &used), PARSE_OK);
    assert_string_equal(octets + used, "payload");
}

static void expect_udp_header(const char *source, const char *octets, size_t size)
{
    char text[TEXT_SIZE];
    uint8_t out[SOCKS5_UDP_HEADER_SIZE_MAX];
    struct address address = address_of(source);
    assert_int_equal(socks5_write_udp_header(out, sizeof(out), &address), size);
    assert_memory_equal(out, octets, size);
    snprintf(text, sizeof(text), "0 %s", source);
    check_datagram((const char *)out, size, text);
}

static void socks5_written_udp_headers(void **state)
{
    (void)state;
    expect_udp_header("192.0.2.1:53", "\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35", 10);
    expect_udp_header("[::1]:53", "\x00\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x35", 22);
    expect_udp_header("x:53", "\x00\x00\x00\x03\x01x\x00\x35", 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(socks4_requests),
        cmocka_unit_test(socks4_refusals),
        cmocka_unit_test(socks4_longest),
        cmocka_unit_test(socks4_replies),
        cmocka_unit_test(socks4_written_reply),
        cmocka_unit_test(socks4_written_requests),
        cmocka_unit_test(socks5_greetings),
        cmocka_unit_test(socks5_longest_greeting),
        cmocka_unit_test(socks5_auths),
        cmocka_unit_test(socks5_longest_auth),
        cmocka_unit_test(socks5_requests),
        cmocka_unit_test(socks5_unknown_address_type),
        cmocka_unit_test(socks5_longest_request),
        cmocka_unit_test(socks5_written_replies),
        cmocka_unit_test(socks5_written_pairs),
        cmocka_unit_test(socks5_written_greetings),
        cmocka_unit_test(socks5_written_auth),
        cmocka_unit_test(socks5_written_requests),
        cmocka_unit_test(writers_without_room),
        cmocka_unit_test(targets_without_form),
        cmocka_unit_test(socks5_pairs),
        cmocka_unit_test(socks5_replies),
        cmocka_unit_test(socks5_datagrams),
        cmocka_unit_test(socks5_datagram_payload),
        cmocka_unit_test(socks5_written_udp_headers),
    };
    return cmocka_run_group_tests_name("socks", tests, NULL, NULL);
}
