/* The PROXY protocol's header: both versions whole, every prefix, every split, every wrong octet; what is refused, and
 * when; what is written, and read again. */
#include <stdio.h>
#include <string.h>

#include "protocols/proxy_header.h"
#include "tests/support.h"

#define V2            "\r\n\r\n\0\r\nQUIT\n"
#define ENDS_4        "\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\x00\x01\xbb"
#define HOST_6        "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0"
#define MAPPED        "\0\0\0\0\0\0\0\0\0\0\xff\xff"
#define TEXT_4        "192.0.2.1:1024 192.0.2.2:443"
#define NOBODY        "- -"
#define SIZE_MAX_TEXT 128u

struct wire {
    const char *octets;
    size_t size;
    const char *text;
};
#define WIRE(octets, text)                                                                                             \
    {                                                                                                                  \
        octets, sizeof(octets) - 1, text                                                                               \
    }

static size_t print_end(const struct host_port *end, char *out, size_t size)
{
    struct address address = host_port_address(end);
    if (address.kind == ADDRESS_NONE) return (size_t)snprintf(out, size, "-");
    return address_format(&address, out, size);
}

static void print_header(const struct proxy_header *header, char *out, size_t size)
{
    char client[ADDRESS_TEXT_SIZE], local[ADDRESS_TEXT_SIZE];
    print_end(&header->client, client, sizeof client);
    print_end(&header->local, local, sizeof local);
    snprintf(out, size, "%.60s %.60s", client, local);
}

/* context: what the header must say, a const char *; NULL: anything. */
static enum parse_result parse(const uint8_t *data, size_t size, void *context, size_t *used)
{
    char text[SIZE_MAX_TEXT];
    struct proxy_header header;
    enum parse_result result = proxy_header_parse(data, size, &header, used);
    if (result != PARSE_OK) return result;
    print_header(&header, text, sizeof text);
    const char *wanted = *(const char **)context;
    if (wanted) assert_string_equal(text, wanted);
    return result;
}

static void check_wire(const char *octets, size_t size, const char *text)
{
    support_check_prefixes(parse, octets, size, &text, 0);
    support_check_splits(parse, octets, size, &text, 0);
    text = NULL;
    support_check_wrong_octets(parse, octets, size, &text, 0);
}

static void check_wires(const struct wire *wires, size_t count)
{
    for (size_t i = 0; i < count; i++) check_wire(wires[i].octets, wires[i].size, wires[i].text);
}
#define CHECK_WIRES(wires) check_wires(wires, sizeof(wires) / sizeof *(wires))

/* Refused, and not before the last of these octets is there. */
static void check_refusal(const char *octets, size_t size, enum parse_result wanted)
{
    const char *text = NULL;
    for (size_t prefix = 0; prefix < size; prefix++)
        assert_int_equal(support_run(parse, octets, prefix, &text, NULL), PARSE_MORE);
    assert_int_equal(support_run(parse, octets, size, &text, NULL), wanted);
}
#define CHECK_REFUSAL(octets) check_refusal(octets, sizeof(octets) - 1, PARSE_BAD)

/* --- version 1 --- */

static void lines(void **state)
{
    (void)state;
    static const struct wire wires[] = {
        WIRE("PROXY TCP4 192.0.2.1 192.0.2.2 1024 443\r\n", TEXT_4),
        WIRE("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
             "255.255.255.255:65535 255.255.255.255:65535"),
        WIRE("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0 0.0.0.0:0"),
        WIRE("PROXY TCP6 2001:db8::1 ::1 1024 443\r\n", "[2001:db8::1]:1024 [::1]:443"),
        WIRE("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1024 443\r\n", TEXT_4),
        WIRE("PROXY UNKNOWN\r\n", NOBODY),
        WIRE("PROXY UNKNOWN whatever stands here\r\n", NOBODY),
        /* The longest one that the specification knows, section 2.1. */
        WIRE("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
             "65535\r\n",
             NOBODY),
        WIRE("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
             "65535\r\n",
             "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535 [ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    };
    CHECK_WIRES(wires);
}

static void wrong_lines(void **state)
{
    (void)state;
    CHECK_REFUSAL("Q");
    CHECK_REFUSAL("PROXy");
    CHECK_REFUSAL("PROXY\r");
    CHECK_REFUSAL("PROXY \n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.1 192.0.2.2 1024 443\n");
    CHECK_REFUSAL("PROXY \r\n");
    CHECK_REFUSAL("PROXY TCP4\r\n");
    CHECK_REFUSAL("PROXY TCP5 192.0.2.1 192.0.2.2 1024 443\r\n");
    CHECK_REFUSAL("PROXY UNKNOWNS\r\n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.1 192.0.2.2 1024\r\n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.1 192.0.2.2 1024 \r\n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.1 192.0.2.2 1024 443 \r\n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.1 192.0.2.2 1024 443 1\r\n");
    CHECK_REFUSAL("PROXY TCP4  192.0.2.1 192.0.2.2 1024 443\r\n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.1 192.0.2.2 01024 443\r\n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.1 192.0.2.2 1024 65536\r\n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.1 192.0.2.2 -1 443\r\n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.256 192.0.2.2 1024 443\r\n");
    CHECK_REFUSAL("PROXY TCP4 ::1 ::1 1024 443\r\n");
    CHECK_REFUSAL("PROXY TCP6 192.0.2.1 192.0.2.2 1024 443\r\n");
    CHECK_REFUSAL("PROXY TCP4 localhost localhost 1024 443\r\n");
    CHECK_REFUSAL("PROXY TCP4 192.0.2.1\0 192.0.2.2 1024 443\r\n");
}

/* The 107th octet decides: an end of line is there, or never will be. */
static void endless_line(void **state)
{
    (void)state;
    char octets[PROXY_HEADER_V1_SIZE_MAX + 1];
    const char *text = NULL;
    memset(octets, 'x', sizeof octets);
    memcpy(octets, "PROXY UNKNOWN ", 14);
    check_refusal(octets, PROXY_HEADER_V1_SIZE_MAX, PARSE_BAD);
    memcpy(octets + PROXY_HEADER_V1_SIZE_MAX - 1, "\r\n", 2);
    assert_int_equal(support_run(parse, octets, sizeof octets, &text, NULL), PARSE_BAD);
}

/* --- version 2 --- */

static void blocks(void **state)
{
    (void)state;
    static const struct wire wires[] = {
        WIRE(V2 "\x21\x11\0\x0c" ENDS_4, TEXT_4),
        WIRE(V2 "\x21\x12\0\x0c" ENDS_4, TEXT_4),
        WIRE(V2 "\x21\x21\0\x24" HOST_6 "\x01" HOST_6 "\x02\x04\0\x01\xbb", "[2001:db8::1]:1024 [2001:db8::2]:443"),
        WIRE(V2 "\x21\x21\0\x24" MAPPED "\xc0\0\x02\x01" MAPPED "\xc0\0\x02\x02\x04\0\x01\xbb", TEXT_4),
        /* Behind addresses: an unknown TLV, padding, an empty one. */
        WIRE(V2 "\x21\x11\0\x1a" ENDS_4 "\xe0\0\x02hi\x04\0\x03\0\0\0\x02\0\0", TEXT_4),
        WIRE(V2 "\x21\0\0\0", NOBODY),
        WIRE(V2 "\x21\0\0\x05"
                "\x01\xff\xff\0\0",
             NOBODY),
        WIRE(V2 "\x20\0\0\0", NOBODY),
        WIRE(V2 "\x20\x11\0\x0c" ENDS_4, NOBODY),
        WIRE(V2 "\x20\x11\0\x11" ENDS_4 "\x01\0\x02hi", NOBODY),
        WIRE(V2 "\x20\xff\0\x03"
                "abc",
             NOBODY),
    };
    CHECK_WIRES(wires);
}

/* AF_UNIX: two paths of 108 octets. */
static void unix_block(void **state)
{
    (void)state;
    char octets[16 + 216] = V2 "\x21\x31\0\xd8/run/client.sock";
    check_wire(octets, sizeof octets, NOBODY);
    octets[15] = (char)0xd7;
    const char *text = NULL;
    assert_int_equal(support_run(parse, octets, sizeof octets - 1, &text, NULL), PARSE_BAD);
}

static void wrong_blocks(void **state)
{
    (void)state;
    CHECK_REFUSAL("\r\n\r\n\r");
    CHECK_REFUSAL(V2 "\x11");
    CHECK_REFUSAL(V2 "\x22");
    CHECK_REFUSAL(V2 "\x21\x11\0\0");
    CHECK_REFUSAL(V2 "\x21\x11\0\x0b\xc0\0\x02\x01\xc0\0\x02\x02\x04\0\x01");
    CHECK_REFUSAL(V2 "\x21\x21\0\x0c" ENDS_4);
    CHECK_REFUSAL(V2 "\x21\x41\0\x0c" ENDS_4);
    CHECK_REFUSAL(V2 "\x21\x13\0\x0c" ENDS_4);
    /* TLVs that are cut, or go past the end. */
    CHECK_REFUSAL(V2 "\x21\x11\0\x0d" ENDS_4 "\x04");
    CHECK_REFUSAL(V2 "\x21\x11\0\x0e" ENDS_4 "\x04\0");
    CHECK_REFUSAL(V2 "\x21\x11\0\x10" ENDS_4 "\x04\0\x02x");
    CHECK_REFUSAL(V2 "\x21\x11\0\x0f" ENDS_4 "\x04\xff\xff");
    check_refusal(V2 "\x21\x11\x0f\xf1", 16, PARSE_TOO_LARGE);
    check_refusal(V2 "\x20\0\xff\xff", 16, PARSE_TOO_LARGE);
}

/* Every length with the octets that it announces, of a family that needs 12: nothing outside is read. */
static void every_length(void **state)
{
    (void)state;
    char octets[PROXY_HEADER_SIZE_MAX] = V2 "\x21\x11\0\0" ENDS_4;
    const char *text = NULL;
    for (unsigned length = 0; length <= UINT16_MAX; length += length < 64 ? 1 : 97) {
        octets[14] = (char)(length >> 8);
        octets[15] = (char)(length & 0xff);
        size_t whole = 16 + length, size = whole < sizeof octets ? whole : sizeof octets;
        if (length > 15) octets[29] = (char)((length - 15) >> 8), octets[30] = (char)((length - 15) & 0xff);
        enum parse_result wanted = whole > sizeof octets          ? PARSE_TOO_LARGE
                                   : length == 12 || length >= 15 ? PARSE_OK
                                                                  : PARSE_BAD;
        assert_int_equal(support_run(parse, octets, size, &text, NULL), wanted);
    }
}

/* The sum of the example in RFC 3720 (32 zeros: aa36918a in memory) says that it is CRC32C; here it is that of a whole
 * header, computed by another implementation. */
static void checksum(void **state)
{
    (void)state;
    char octets[] = V2 "\x21\x11\0\x13" ENDS_4 "\x03\0\x04\x90\xf8\xef\x82";
    const char *text = TEXT_4;
    support_check_prefixes(parse, octets, sizeof octets - 1, &text, 0);
    for (size_t i = 16; i < sizeof octets - 1; i++) {
        if (i >= 28 && i < 31) continue; /* type and length of the sum itself */
        octets[i] ^= 1;
        assert_int_equal(support_run(parse, octets, sizeof octets - 1, &text, NULL), PARSE_BAD);
        octets[i] ^= 1;
    }
    CHECK_REFUSAL(V2 "\x21\x11\0\x12" ENDS_4 "\x03\0\x03\0\0\0");
    CHECK_REFUSAL(V2 "\x21\x11\0\x1a" ENDS_4 "\x03\0\x04\x90\xf8\xef\x82\x03\0\x04\x90\xf8\xef\x82");
}

/* --- writing --- */

static struct host_port end_of(const char *text)
{
    struct address address;
    if (!*text) return (struct host_port){.kind = ADDRESS_NONE};
    assert_true(address_parse(text, strlen(text), ADDRESS_PORT_REQUIRED, 0, &address));
    return host_port_of(&address);
}

static const struct proxy_header_facts no_facts;

static void check_written(unsigned version, const char *client, const char *local, const char *octets, size_t size,
                          const char *again)
{
    uint8_t out[PROXY_HEADER_WRITTEN_SIZE_MAX];
    struct proxy_header header = {.client = end_of(client), .local = end_of(local)};
    assert_int_equal(proxy_header_write(out, sizeof out, version, &header, &no_facts), size);
    assert_memory_equal(out, octets, size);
    check_wire((const char *)out, size, again);
}
#define CHECK_WRITTEN(version, client, local, octets, again)                                                           \
    check_written(version, client, local, octets, sizeof(octets) - 1, again)

static void written(void **state)
{
    (void)state;
    CHECK_WRITTEN(1, "192.0.2.1:1024", "192.0.2.2:443", "PROXY TCP4 192.0.2.1 192.0.2.2 1024 443\r\n", TEXT_4);
    CHECK_WRITTEN(1, "[2001:db8::1]:1024", "[2001:db8::2]:443", "PROXY TCP6 2001:db8::1 2001:db8::2 1024 443\r\n",
                  "[2001:db8::1]:1024 [2001:db8::2]:443");
    CHECK_WRITTEN(1, "[2001:db8::1]:1024", "192.0.2.2:443", "PROXY UNKNOWN\r\n", NOBODY);
    CHECK_WRITTEN(1, "", "", "PROXY UNKNOWN\r\n", NOBODY);
    CHECK_WRITTEN(2, "192.0.2.1:1024", "192.0.2.2:443", V2 "\x21\x11\0\x0c" ENDS_4, TEXT_4);
    CHECK_WRITTEN(2, "[2001:db8::1]:1024", "[2001:db8::2]:443",
                  V2 "\x21\x21\0\x24" HOST_6 "\x01" HOST_6 "\x02\x04\0\x01\xbb",
                  "[2001:db8::1]:1024 [2001:db8::2]:443");
    CHECK_WRITTEN(2, "[2001:db8::1]:1024", "192.0.2.2:443",
                  V2 "\x21\x21\0\x24" HOST_6 "\x01" MAPPED "\xc0\0\x02\x02\x04\0\x01\xbb",
                  "[2001:db8::1]:1024 192.0.2.2:443");
    CHECK_WRITTEN(2, "192.0.2.1:1024", "[2001:db8::2]:443",
                  V2 "\x21\x21\0\x24" MAPPED "\xc0\0\x02\x01" HOST_6 "\x02\x04\0\x01\xbb",
                  "192.0.2.1:1024 [2001:db8::2]:443");
    CHECK_WRITTEN(2, "", "", V2 "\x21\0\0\0", NOBODY);
    CHECK_WRITTEN(2, "", "192.0.2.2:443", V2 "\x21\0\0\0", NOBODY);
}

static void written_facts(void **state)
{
    (void)state;
    static const char wanted[] = V2 "\x21\x11\0\x23" ENDS_4 "\x02\0\x07"
                                    "a.test:"
                                    "\x05\0\x03"
                                    "1:2"
                                    "\xe2\0\x04"
                                    "user";
    static const struct proxy_header_facts facts = {.authority = "a.test:", .unique_id = "1:2", .user = "user"};
    struct proxy_header header = {.client = end_of("192.0.2.1:1024"), .local = end_of("192.0.2.2:443")};
    uint8_t out[PROXY_HEADER_WRITTEN_SIZE_MAX];
    assert_int_equal(proxy_header_write(out, sizeof out, 2, &header, &facts), sizeof wanted - 1);
    assert_memory_equal(out, wanted, sizeof wanted - 1);
    check_wire((const char *)out, sizeof wanted - 1, TEXT_4);
    assert_int_equal(proxy_header_write(out, sizeof out, 1, &header, &facts), 41);
}

/* Texts that are longer than what may be sent are cut, and the room that is named suffices. */
static void longest_facts(void **state)
{
    (void)state;
    char text[400];
    uint8_t out[PROXY_HEADER_WRITTEN_SIZE_MAX];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    const struct proxy_header_facts facts = {.authority = text, .unique_id = text, .user = text};
    struct proxy_header header = {.client = end_of("[2001:db8::1]:1024"), .local = end_of("[2001:db8::2]:443")};
    size_t size = proxy_header_write(out, sizeof out, 2, &header, &facts);
    assert_int_equal(size, 16 + 36 + 3 + 255 + 3 + 128 + 3 + 255);
    const char *again = "[2001:db8::1]:1024 [2001:db8::2]:443";
    support_check_prefixes(parse, out, size, &again, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),         cmocka_unit_test(wrong_lines),   cmocka_unit_test(endless_line),
        cmocka_unit_test(blocks),        cmocka_unit_test(unix_block),    cmocka_unit_test(wrong_blocks),
        cmocka_unit_test(every_length),  cmocka_unit_test(checksum),      cmocka_unit_test(written),
        cmocka_unit_test(written_facts), cmocka_unit_test(longest_facts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
