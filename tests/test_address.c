/* Addresses, proxy URIs and base64: texts that are accepted, refused, and written back. */
#include <stdio.h>
#include <string.h>

#include "protocols/address.h"
#include "protocols/base64.h"
#include "protocols/url.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* `count` times the same character, terminated. */
static const char *repeat(char c, size_t count)
{
    static char text[600];
    assert_in_range(count, 0, sizeof(text) - 1);
    memset(text, c, count);
    text[count] = '\0';
    return text;
}

/* --- addresses; input always ends at an unmapped page --- */

static bool from_host(const char *host, size_t size, struct address *out)
{
    char *copy = (char *)support_guard(host, size);
    bool accepted = address_from_host(copy, size, 80, out);
    support_unguard((uint8_t *)copy, size);
    return accepted;
}

static bool parse(const char *text, size_t size, enum address_port_rule rule, struct address *out)
{
    char *copy = (char *)support_guard(text, size);
    bool accepted = address_parse(copy, size, rule, 1080, out);
    support_unguard((uint8_t *)copy, size);
    return accepted;
}

static void expect_formatted(const struct address *address, const char *text)
{
    char out[ADDRESS_TEXT_SIZE];
    assert_int_equal(address_format(address, out, sizeof(out)), strlen(text));
    assert_string_equal(out, text);
}

static void expect_formatted_host(const struct address *address, const char *text)
{
    char out[ADDRESS_TEXT_SIZE];
    assert_int_equal(address_format_host(address, out, sizeof(out)), strlen(text));
    assert_string_equal(out, text);
}

static void hosts(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        enum address_kind kind;
        const char *text;
    } rows[] = {
        {"127.0.0.1", ADDRESS_IPV4, "127.0.0.1"},
        {"255.255.255.255", ADDRESS_IPV4, "255.255.255.255"},
        {"::", ADDRESS_IPV6, "::"},
        {"2001:DB8:0:0:0:0:0:1", ADDRESS_IPV6, "2001:db8::1"},
        {"::ffff:1.2.3.4", ADDRESS_IPV6, "::ffff:1.2.3.4"},
        {"example.com", ADDRESS_NAME, "example.com"},
        {"EXAMPLE.com.", ADDRESS_NAME, "EXAMPLE.com."},
        {"a", ADDRESS_NAME, "a"},
        {"_srv-x.example", ADDRESS_NAME, "_srv-x.example"},
        {"b\xc3\xbc"
         "cher.example",
         ADDRESS_NAME,
         "b\xc3\xbc"
         "cher.example"},
        /* No literals by the strict reading, so that nobody reads an octal number where we read a decimal one. */
        {"127.1", ADDRESS_NAME, "127.1"},
        {"010.0.0.1", ADDRESS_NAME, "010.0.0.1"},
        {"256.0.0.1", ADDRESS_NAME, "256.0.0.1"},
        {"0x7f000001", ADDRESS_NAME, "0x7f000001"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct address address = {0};
        assert_true(from_host(rows[i].host, strlen(rows[i].host), &address));
        assert_int_equal(address.kind, rows[i].kind);
        assert_int_equal(address.port, 80);
        assert_int_equal(address.name_size, rows[i].kind == ADDRESS_NAME ? strlen(rows[i].host) : 0);
        expect_formatted_host(&address, rows[i].text);
    }
}

static void host_octets(void **state)
{
    (void)state;
    for (unsigned value = 0; value <= UINT8_MAX; value++) {
        const char host[] = {'a', (char)value, 'b'};
        struct address address = {.kind = ADDRESS_UNIX};
        bool refused = value <= ' ' || value == 0x7f || (value != 0 && strchr(":/?#[]@", (int)value) != NULL);
        assert_int_equal(from_host(host, sizeof(host), &address), !refused);
        assert_int_equal(address.kind, refused ? ADDRESS_UNIX : ADDRESS_NAME);
    }
}

static void host_sizes(void **state)
{
    (void)state;
    struct address address = {.kind = ADDRESS_UNIX};
    assert_false(from_host("", 0, &address));
    assert_false(from_host(repeat('n', 256), 256, &address));
    assert_false(from_host("1.2.3.4\0.example", 16, &address)); /* the literal must not hide what follows */
    assert_false(from_host("1.2.3.4\0", 8, &address));
    assert_false(from_host("[::1]", 5, &address));
    assert_false(from_host("fe80::1%eth0", 12, &address));
    assert_int_equal(address.kind, ADDRESS_UNIX);
    assert_true(from_host(repeat('n', 255), 255, &address));
    assert_int_equal(address.name_size, 255);
    assert_string_equal(address.name, repeat('n', 255));
}

static void texts_with_port(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "127.0.0.1:80", "0.0.0.0:0", "[::1]:65535", "[2001:db8::1]:1", "example.com:443", "x:9", "[::ffff:1.2.3.4]:5",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct address address;
        assert_true(parse(texts[i], strlen(texts[i]), ADDRESS_PORT_REQUIRED, &address));
        expect_formatted(&address, texts[i]);
        assert_true(parse(texts[i], strlen(texts[i]), ADDRESS_PORT_DEFAULT, &address));
        expect_formatted(&address, texts[i]);
    }
}

static void texts_without_port(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *formatted;
    } rows[] = {
        {"127.0.0.1", "127.0.0.1:1080"},  {"[::1]", "[::1]:1080"},  {"x.example", "x.example:1080"},
        {"127.0.0.1:", "127.0.0.1:1080"}, {"[::1]:", "[::1]:1080"}, {"x.example:", "x.example:1080"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct address address = {.kind = ADDRESS_NONE};
        assert_false(parse(rows[i].text, strlen(rows[i].text), ADDRESS_PORT_REQUIRED, &address));
        assert_int_equal(address.kind, ADDRESS_NONE);
        assert_true(parse(rows[i].text, strlen(rows[i].text), ADDRESS_PORT_DEFAULT, &address));
        expect_formatted(&address, rows[i].formatted);
    }
}

static void refused_texts(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        ":",
        ":80",
        "[]:80",
        "[:80",
        "]:80",
        "[::1:80",
        "::1",
        "::1:80",
        "a:b:80",
        "x:65536",
        "x:99999999999",
        "x:-1",
        "x:+1",
        "x: 1",
        "x:1 ",
        "x:0x50",
        "x:http",
        "[::1]80",
        "[::1]x:80",
        "[x]:80",
        "[1.2.3.4]:80",
        "[::1]]:80",
        "[[::1]]:80",
        "[::1%lo]:80",
        "x y:80",
        "x\n:80",
        "unix:/run/x",
        "user@x:80",
        "x/y:80",
        "[::g]:80",
        "[",
        "[]",
        "x:\x38\x30\n",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct address address = {.kind = ADDRESS_NONE};
        assert_false(parse(texts[i], strlen(texts[i]), ADDRESS_PORT_REQUIRED, &address));
        assert_false(parse(texts[i], strlen(texts[i]), ADDRESS_PORT_DEFAULT, &address));
        assert_int_equal(address.kind, ADDRESS_NONE);
    }
    struct address address = {0};
    assert_false(parse("x\0y:80", 6, ADDRESS_PORT_REQUIRED, &address));
    assert_false(parse("x:8\0", 4, ADDRESS_PORT_REQUIRED, &address));
}

static void longest_text(void **state)
{
    (void)state;
    char text[400];
    struct address address;
    int size = snprintf(text, sizeof(text), "%s:65535", repeat('n', 255));
    assert_true(parse(text, (size_t)size, ADDRESS_PORT_REQUIRED, &address));
    expect_formatted(&address, text);
    size = snprintf(text, sizeof(text), "x:%s80", repeat('0', 300));
    assert_true(parse(text, (size_t)size, ADDRESS_PORT_REQUIRED, &address));
    expect_formatted(&address, "x:80");
    size = snprintf(text, sizeof(text), "%s:1", repeat('n', 256));
    assert_false(parse(text, (size_t)size, ADDRESS_PORT_REQUIRED, &address));
}

static void nothing_and_paths(void **state)
{
    (void)state;
    struct address none = {0}, path = {.kind = ADDRESS_UNIX, .name_size = ADDRESS_PATH_MAX};
    expect_formatted(&none, "");
    expect_formatted_host(&none, "");
    memset(path.name, '/', ADDRESS_PATH_MAX);
    char text[ADDRESS_TEXT_SIZE];
    snprintf(text, sizeof(text), "unix:%s", path.name);
    expect_formatted(&path, text);
    expect_formatted_host(&path, text);
}

static struct address address_of(const char *text)
{
    struct address address;
    assert_true(parse(text, strlen(text), ADDRESS_PORT_REQUIRED, &address));
    return address;
}

static bool equal(const char *left, const char *right)
{
    struct address a = address_of(left), b = address_of(right);
    assert_int_equal(address_equal(&a, &b), address_equal(&b, &a));
    assert_true(address_equal(&a, &a));
    return address_equal(&a, &b);
}

static void equality(void **state)
{
    (void)state;
    assert_true(equal("EXAMPLE.com:80", "example.COM:80"));
    assert_true(equal("[2001:DB8::1]:80", "[2001:db8:0::1]:80"));
    assert_false(equal("example.com:80", "example.com:81"));
    assert_false(equal("example.com:80", "example.co:80"));
    assert_false(equal("example.com:80", "example.con:80"));
    assert_false(equal("^x:1", "~x:1")); /* neighbours of the letters have no case, */
    assert_false(equal("`x:1", "\\x:1"));
    assert_false(equal("\xc3\x84:1", "\xc3\xa4:1")); /* nor has what is not ASCII */
    assert_false(equal("1.2.3.4:80", "1.2.3.5:80"));
    assert_false(equal("[::1]:80", "[::2]:80"));
    assert_false(equal("1.2.3.4:80", "[::ffff:1.2.3.4]:80"));
    assert_false(equal("1.2.3.4:80", "x:80"));
}

static void equality_of_paths(void **state)
{
    (void)state;
    struct address none = {0}, lower = {.kind = ADDRESS_UNIX, .name_size = 2, .name = "/x"}, upper = lower;
    assert_true(address_equal(&none, &none));
    assert_true(address_equal(&lower, &upper));
    upper.name[1] = 'X';
    assert_false(address_equal(&lower, &upper));
    assert_false(address_equal(&lower, &none));
}

static bool is_any_host(const char *text)
{
    struct address address;
    assert_true(address_parse(text, strlen(text), ADDRESS_PORT_REQUIRED, 0, &address));
    return address_is_any_host(&address);
}

static void any_host(void **state)
{
    (void)state;
    assert_true(is_any_host("0.0.0.0:80"));
    assert_true(is_any_host("[::]:80"));
    assert_false(is_any_host("0.0.0.1:80"));
    assert_false(is_any_host("[::1]:80"));
    assert_false(is_any_host("[100::]:80"));
    assert_false(is_any_host("x:80"));
    struct address ipv4 = {.kind = ADDRESS_IPV4}, none = {0};
    ipv4.ipv6[15] = 1; /* whatever stands behind its four octets */
    assert_true(address_is_any_host(&ipv4));
    assert_false(address_is_any_host(&none));
}

/* --- proxy URIs --- */

static void uri_texts(void **state)
{
    static const char *const rows[][2] = {{"HTTP://u:p@proxy#x", "http://proxy:80"},
                                          {"socks4a://proxy:1", "socks4a://proxy:1"},
                                          {"socks5://[::1]", "socks5://[::1]:1080"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct proxy_uri uri;
        char text[PROXY_URI_TEXT_SIZE];
        assert_null(proxy_uri_parse(rows[i][0], strlen(rows[i][0]), &uri));
        assert_int_equal(proxy_uri_format(&uri, text, sizeof text), strlen(rows[i][1]));
        assert_string_equal(text, rows[i][1]);
    }
    char long_uri[270] = "socks4a://", text[PROXY_URI_TEXT_SIZE]; /* the longest there is */
    struct proxy_uri uri;
    memset(long_uri + 10, 'x', 255);
    assert_null(proxy_uri_parse(long_uri, 265, &uri));
    assert_int_equal(proxy_uri_format(&uri, text, sizeof text), 270);
}

static const char *parse_uri(const char *text, size_t size, struct proxy_uri *uri)
{
    char *copy = (char *)support_guard(text, size);
    const char *wrong = proxy_uri_parse(copy, size, uri);
    support_unguard((uint8_t *)copy, size);
    return wrong;
}

static void uris(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum proxy_scheme scheme;
        const char *address;
        const char *user; /* NULL: no credentials */
        const char *password;
    } rows[] = {
        {"http://proxy", PROXY_HTTP, "proxy:80", NULL, NULL},
        {"socks4a://proxy", PROXY_SOCKS4A, "proxy:1080", NULL, NULL},
        {"socks5://proxy", PROXY_SOCKS5, "proxy:1080", NULL, NULL},
        {"HTTP://proxy:8080/", PROXY_HTTP, "proxy:8080", NULL, NULL},
        {"SocKs5://[::1]:1081", PROXY_SOCKS5, "[::1]:1081", NULL, NULL},
        {"socks5://[::1]", PROXY_SOCKS5, "[::1]:1080", NULL, NULL},
        {"socks5://10.0.0.1:1#a/b?c@d", PROXY_SOCKS5, "10.0.0.1:1", NULL, NULL},
        {"http://proxy/#", PROXY_HTTP, "proxy:80", NULL, NULL},
        {"http://proxy:", PROXY_HTTP, "proxy:80", NULL, NULL},
        {"socks5://u:p@proxy", PROXY_SOCKS5, "proxy:1080", "u", "p"},
        {"socks5://u@proxy:1", PROXY_SOCKS5, "proxy:1", "u", ""},
        {"socks5://u:@proxy", PROXY_SOCKS5, "proxy:1080", "u", ""},
        {"socks5://:p@proxy", PROXY_SOCKS5, "proxy:1080", "", "p"},
        {"socks5://@proxy", PROXY_SOCKS5, "proxy:1080", "", ""},
        {"http://u:p:q@proxy", PROXY_HTTP, "proxy:80", "u", "p:q"},
        {"http://%41%3a%2F:%40%23%25%fF@proxy", PROXY_HTTP, "proxy:80", "A:/", "@#%\xff"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct proxy_uri uri;
        assert_ptr_equal(parse_uri(rows[i].text, strlen(rows[i].text), &uri), NULL);
        assert_int_equal(uri.scheme, rows[i].scheme);
        expect_formatted(&uri.address, rows[i].address);
        assert_int_equal(uri.credentials.present, rows[i].user != NULL);
        assert_string_equal(uri.credentials.user, rows[i].user != NULL ? rows[i].user : "");
        assert_string_equal(uri.credentials.password, rows[i].user != NULL ? rows[i].password : "");
    }
}

static void refused_uris(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *about; /* a word of the message, so that it is the right one */
    } rows[] = {
        {"", "scheme"},
        {"proxy", "scheme"},
        {"proxy:1080", "scheme"},
        {"http:", "scheme"},
        {"http:/", "scheme"},
        {"http:/proxy", "scheme"},
        {"://proxy", "unknown scheme"},
        {"https://proxy", "unknown scheme"},
        {"socks4://proxy", "unknown scheme"},
        {"socks://proxy", "unknown scheme"},
        {"http://", "host is missing"},
        {"http:///", "host is missing"},
        {"http://#x", "host is missing"},
        {"http://u:p@", "host is missing"},
        {"http://:80", "malformed"},
        {"http://proxy:65536", "malformed"},
        {"http://proxy:x", "malformed"},
        {"http://proxy:0", "port 0"},
        {"socks5://u:p@[::1]:0", "port 0"},
        {"http://::1", "malformed"},
        {"http://[::1", "malformed"},
        {"http://pro xy", "malformed"},
        {"http://proxy/path", "path"},
        {"http://proxy//", "path"},
        {"http://proxy?q", "query"},
        {"http://proxy/?q", "query"},
        {"http://u:p@ss@proxy", "%40"},
        {"http://u%:p@proxy", "hex digits"},
        {"http://u%4:p@proxy", "hex digits"},
        {"http://u:%4g@proxy", "hex digits"},
        {"http://u:%g4@proxy", "hex digits"},
        {"http://u%00:p@proxy", "control"},
        {"http://u:p%0d%0a@proxy", "control"},
        {"http://u:p%7F@proxy", "control"},
        {"http://u\t:p@proxy", "control"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct proxy_uri uri = {.scheme = PROXY_SOCKS4A};
        const char *wrong = parse_uri(rows[i].text, strlen(rows[i].text), &uri);
        assert_ptr_not_equal(wrong, NULL);
        assert_ptr_not_equal(strstr(wrong, rows[i].about), NULL);
        assert_int_equal(uri.scheme, PROXY_SOCKS4A);
        assert_int_equal(uri.address.kind, ADDRESS_NONE);
    }
}

/* Every octet in every place of a URI: whatever the answer, nothing is read behind the end and no control gets in. */
static void wrong_octets_in_uris(void **state)
{
    (void)state;
    char text[] = "socks5://us%41r:pass@[::1]:1080/#f";
    size_t size = sizeof(text) - 1;
    for (size_t at = 0; at < size; at++) {
        char right = text[at];
        for (unsigned value = 0; value <= UINT8_MAX; value++) {
            struct proxy_uri uri;
            text[at] = (char)value;
            if (parse_uri(text, size, &uri) != NULL) continue;
            assert_in_range(uri.address.kind, ADDRESS_IPV4, ADDRESS_NAME); /* a # may leave `us` as the host */
            for (const char *c = uri.credentials.user; *c != '\0'; c++) assert_in_range((uint8_t)*c, ' ', 0xff);
            for (const char *c = uri.credentials.password; *c != '\0'; c++) assert_in_range((uint8_t)*c, ' ', 0xff);
        }
        text[at] = right;
    }
}

static void uri_prefixes(void **state)
{
    (void)state;
    static const char text[] = "socks5://u%41:p%42@proxy:1080";
    for (size_t size = 0; size < sizeof(text) - 1; size++) {
        struct proxy_uri uri;
        /* The user reads as a host as long as no @ has come, and its colon still lacks a port that is none. */
        bool valid = (size > 9 && size <= 14) || size > 19;
        assert_int_equal(parse_uri(text, size, &uri) == NULL, valid);
    }
}

static void longest_credentials(void **state)
{
    (void)state;
    char text[2 * 3 * 256 + 64], escapes[3 * 256 + 1] = "";
    struct proxy_uri uri;
    for (size_t i = 0; i < 255; i++) memcpy(escapes + 3 * i, "%70", 4);
    int size = snprintf(text, sizeof(text), "socks5://%s:%s@x", repeat('u', 255), escapes);
    assert_ptr_equal(parse_uri(text, (size_t)size, &uri), NULL);
    assert_string_equal(uri.credentials.user, repeat('u', 255));
    assert_string_equal(uri.credentials.password, repeat('p', 255));
    size = snprintf(text, sizeof(text), "socks5://u:%s%%70@x", escapes);
    assert_ptr_not_equal(strstr(parse_uri(text, (size_t)size, &uri), "255"), NULL);
    size = snprintf(text, sizeof(text), "socks5://%s@x", repeat('u', 256));
    assert_ptr_not_equal(strstr(parse_uri(text, (size_t)size, &uri), "255"), NULL);
}

/* --- base64 --- */

static bool decode(const char *text, size_t size, uint8_t *out, size_t out_size, size_t *used)
{
    char *copy = (char *)support_guard(text, size);
    bool accepted = base64_decode(copy, size, out, out_size, used);
    support_unguard((uint8_t *)copy, size);
    return accepted;
}

/* The test vectors of RFC 4648 section 10, and some with the last two characters of the alphabet. */
static void vectors(void **state)
{
    (void)state;
    static const struct {
        const char *octets;
        const char *text;
    } rows[] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
        {"\xff\xff\xff", "////"},
        {"\xfb\xef\xbe", "++++"},
        {"\xff", "/w=="},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[64];
        uint8_t octets[64];
        size_t size = strlen(rows[i].octets), used = 99;
        uint8_t *copy = support_guard(rows[i].octets, size);
        assert_int_equal(base64_encode(copy, size, text, strlen(rows[i].text)), strlen(rows[i].text));
        support_unguard(copy, size);
        assert_memory_equal(text, rows[i].text, strlen(rows[i].text));
        assert_true(decode(rows[i].text, strlen(rows[i].text), octets, size, &used));
        assert_int_equal(used, size);
        assert_memory_equal(octets, rows[i].octets, size);
    }
}

static void too_little_room(void **state)
{
    (void)state;
    char text[8] = "untouch";
    uint8_t octets[8];
    size_t used = 99;
    assert_int_equal(base64_encode((const uint8_t *)"foo", 3, text, 3), 0);
    assert_int_equal(base64_encode((const uint8_t *)"foob", 4, text, 7), 0);
    assert_int_equal(base64_encode((const uint8_t *)"f", 1, text, 0), 0);
    assert_int_equal(base64_encode((const uint8_t *)"f", SIZE_MAX, text, 8), 0);
    assert_string_equal(text, "untouch");
    assert_false(decode("Zm9v", 4, octets, 2, &used));
    assert_false(decode("Zg==", 4, octets, 0, &used));
    assert_int_equal(used, 99);
}

static void refused_base64(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "Z",    "Zg",       "Zg=",   "=",        "==",   "===",   "====", "Z===",   "=Zg=",  "Z=g=",  "Zm=v", "Zh==",
        "Zm9=", "Zg==Zg==", "Zm9v=", "Zm9v====", "Zm 9", "Zm9\n", "Zm-_", "Zm9v\n", " Zm9v", "Zm9vZ", "Zm9.", "\xffm9v",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        uint8_t octets[16];
        size_t used = 99;
        assert_false(decode(texts[i], strlen(texts[i]), octets, sizeof(octets), &used));
        assert_int_equal(used, 99);
    }
}

/* All octets at all offsets within a group, and sizes around it. */
static void round_trips(void **state)
{
    (void)state;
    uint8_t octets[259], back[259];
    char text[BASE64_SIZE(259)];
    for (size_t i = 0; i < sizeof(octets); i++) octets[i] = (uint8_t)(i * 7 + 3);
    for (size_t size = 0; size <= sizeof(octets); size++) {
        size_t used = 0;
        size_t written = base64_encode(octets, size, text, BASE64_SIZE(size));
        assert_int_equal(written, BASE64_SIZE(size));
        assert_true(decode(text, written, back, size, &used));
        assert_int_equal(used, size);
        assert_memory_equal(back, octets, size);
    }
}

/* A text that is accepted is the only one for its octets: encoded again, it is the same. */
static void one_text_per_value(void **state)
{
    (void)state;
    unsigned accepted = 0;
    for (unsigned first = 0; first <= UINT8_MAX; first++) {
        for (unsigned second = 0; second <= UINT8_MAX; second++) {
            const char text[4] = {'A', (char)first, (char)second, '='};
            char again[4];
            uint8_t octets[3];
            size_t used;
            if (!base64_decode(text, sizeof(text), octets, sizeof(octets), &used)) continue;
            accepted++;
            assert_int_equal(base64_encode(octets, used, again, sizeof(again)), 4);
            assert_memory_equal(again, text, 4);
        }
    }
    assert_int_equal(accepted, 64 * 16 + 4); /* two octets, and one with a second '=' */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts),
        cmocka_unit_test(host_octets),
        cmocka_unit_test(host_sizes),
        cmocka_unit_test(texts_with_port),
        cmocka_unit_test(texts_without_port),
        cmocka_unit_test(refused_texts),
        cmocka_unit_test(longest_text),
        cmocka_unit_test(nothing_and_paths),
        cmocka_unit_test(equality),
        cmocka_unit_test(equality_of_paths),
        cmocka_unit_test(any_host),
        cmocka_unit_test(uri_texts),
        cmocka_unit_test(uris),
        cmocka_unit_test(refused_uris),
        cmocka_unit_test(wrong_octets_in_uris),
        cmocka_unit_test(uri_prefixes),
        cmocka_unit_test(longest_credentials),
        cmocka_unit_test(vectors),
        cmocka_unit_test(too_little_room),
        cmocka_unit_test(refused_base64),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(one_text_per_value),
    };
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
