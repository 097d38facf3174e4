#include "protocols/proxy_header.h"

#include <stdio.h>
#include <string.h>

#include "protocols/bytes.h"

/* Version 2, section 2.2: signature, version and command, family and transport, the length of what follows. */
#define SIGNATURE          "\r\n\r\n\0\r\nQUIT\n"
#define SIGNATURE_SIZE     12u
#define PREFIX_SIZE        16u
#define VERSION_2          0x20u
#define COMMAND_LOCAL      0u
#define COMMAND_PROXY      1u
#define FAMILY_UNSPEC      0x0u
#define FAMILY_INET        0x1u
#define FAMILY_INET6       0x2u
#define FAMILY_UNIX        0x3u
#define TRANSPORT_STREAM   0x1u
#define TRANSPORT_MAX      0x2u
#define INET_SIZE          12u
#define INET6_SIZE         36u
#define UNIX_SIZE          216u
#define CRC_SIZE           4u
#define NO_CRC             SIZE_MAX
#define MAPPED_PREFIX      "\0\0\0\0\0\0\0\0\0\0\xff\xff"
#define MAPPED_PREFIX_SIZE 12u

static struct host_port end_of_ipv4(const uint8_t *octets, uint16_t port)
{
    struct host_port end = {.kind = ADDRESS_IPV4, .port = port};
    memcpy(end.octets, octets, 4);
    return end;
}

static struct host_port end_of_ipv6(const uint8_t *octets, uint16_t port)
{
    struct host_port end = {.kind = ADDRESS_IPV6, .port = port};
    if (memcmp(octets, MAPPED_PREFIX, MAPPED_PREFIX_SIZE) == 0) return end_of_ipv4(octets + MAPPED_PREFIX_SIZE, port);
    memcpy(end.octets, octets, 16);
    return end;
}

/* --- version 1: "PROXY TCP4 192.0.2.1 192.0.2.2 1024 443\r\n" --- */

/* The word up to the next blank, or to the end; *at goes behind the blank. */
static size_t take_word(const char **at, const char *end, const char **word)
{
    const char *blank = memchr(*at, ' ', (size_t)(end - *at));
    *word = *at;
    *at = blank ? blank + 1 : end;
    return (size_t)((blank ? blank : end) - *word);
}

static bool take_host(const char **at, const char *end, enum address_kind kind, struct address *host)
{
    const char *word;
    size_t size = take_word(at, end, &word);
    return address_from_host(word, size, 0, host) && host->kind == kind;
}

/* Decimal, without zeros in front. */
static bool take_port(const char **at, const char *end, uint16_t *port)
{
    const char *word;
    uint32_t value = 0;
    size_t size = take_word(at, end, &word);
    if (size == 0 || size > 5 || (size > 1 && word[0] == '0')) return false;
    for (size_t i = 0; i < size; i++) {
        if (word[i] < '0' || word[i] > '9') return false;
        value = value * 10 + (uint32_t)(word[i] - '0');
    }
    *port = (uint16_t)value;
    return value <= UINT16_MAX;
}

static struct host_port end_of_address(const struct address *address)
{
    return address->kind == ADDRESS_IPV4 ? end_of_ipv4(address->ipv4, address->port)
                                         : end_of_ipv6(address->ipv6, address->port);
}

/* What stands between "PROXY " and CR LF. */
static bool read_line(const char *at, const char *end, struct proxy_header *header)
{
    static const char unknown[] = "UNKNOWN";
    struct address client, local;
    const char *word;
    size_t size = take_word(&at, end, &word);
    *header = (struct proxy_header){.client = {.kind = ADDRESS_NONE}, .local = {.kind = ADDRESS_NONE}};
    if (size == sizeof unknown - 1 && memcmp(word, unknown, size) == 0) return true; /* whatever stands behind it */
    if (size != 4 || memcmp(word, "TCP", 3) != 0 || (word[3] != '4' && word[3] != '6')) return false;
    enum address_kind kind = word[3] == '4' ? ADDRESS_IPV4 : ADDRESS_IPV6;
    if (!take_host(&at, end, kind, &client) || !take_host(&at, end, kind, &local)) return false;
    if (!take_port(&at, end, &client.port) || at == end || !take_port(&at, end, &local.port)) return false;
    if (at != end || end[-1] == ' ') return false;
    header->client = end_of_address(&client);
    header->local = end_of_address(&local);
    return true;
}

static enum parse_result parse_line(const uint8_t *data, size_t size, struct proxy_header *header, size_t *used)
{
    static const char begin[] = "PROXY ";
    const size_t begin_size = sizeof begin - 1;
    size_t seen = size < PROXY_HEADER_V1_SIZE_MAX ? size : PROXY_HEADER_V1_SIZE_MAX;
    const char *text = (const char *)data;
    struct proxy_header found;
    if (memcmp(text, begin, seen < begin_size ? seen : begin_size) != 0) return PARSE_BAD;
    const char *feed = memchr(text, '\n', seen);
    if (!feed) return size < PROXY_HEADER_V1_SIZE_MAX ? PARSE_MORE : PARSE_BAD;
    if (feed[-1] != '\r' || !read_line(text + begin_size, feed - 1, &found)) return PARSE_BAD;
    *header = found;
    *used = (size_t)(feed - text) + 1;
    return PARSE_OK;
}

/* --- version 2 --- */

/* CRC32C (Castagnoli; RFC 3720 appendix B.4), half an octet at a time. */
static uint32_t crc_add(uint32_t crc, uint8_t octet)
{
    static const uint32_t halves[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    crc ^= octet;
    crc = crc >> 4 ^ halves[crc & 15u];
    return crc >> 4 ^ halves[crc & 15u];
}

/* place: of the sum itself, which counts as zeros. */
static bool crc_is_right(const uint8_t *data, size_t size, size_t place)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) crc = crc_add(crc, i >= place && i < place + CRC_SIZE ? 0 : data[i]);
    crc ^= UINT32_MAX;
    for (unsigned i = 0; i < CRC_SIZE; i++)
        if (data[place + i] != (uint8_t)(crc >> (24 - 8 * i))) return false;
    return true;
}

/* Each must end within the header. */
static bool tlvs_are_right(const uint8_t *data, size_t size, size_t at)
{
    struct bytes_reader reader = bytes_reader_over(data, size);
    size_t crc = NO_CRC;
    reader.at = at;
    while (reader.at < size) {
        uint8_t type = bytes_take_u8(&reader);
        uint16_t length = bytes_take_u16(&reader);
        size_t place = reader.at;
        if (!bytes_take(&reader, length)) return false;
        if (type != PROXY_TLV_CRC32C) continue;
        if (length != CRC_SIZE || crc != NO_CRC) return false;
        crc = place;
    }
    return crc == NO_CRC || crc_is_right(data, size, crc);
}

static uint16_t port_at(const uint8_t *octets)
{
    return (uint16_t)(octets[0] << 8 | octets[1]);
}

/* PROXY: addresses and TLVs. `size` octets: the whole header. */
static bool read_block(const uint8_t *data, size_t size, struct proxy_header *header)
{
    const uint8_t *ends = data + PREFIX_SIZE;
    size_t room = size - PREFIX_SIZE;
    unsigned family = data[13] >> 4;
    static const size_t sizes[] = {0, INET_SIZE, INET6_SIZE, UNIX_SIZE};
    if (family > FAMILY_UNIX || (data[13] & 0xfu) > TRANSPORT_MAX) return false;
    if (family == FAMILY_UNSPEC) return true; /* then nobody has said what the block holds */
    if (room < sizes[family] || !tlvs_are_right(data, size, PREFIX_SIZE + sizes[family])) return false;
    if (family == FAMILY_INET) {
        header->client = end_of_ipv4(ends, port_at(ends + 8));
        header->local = end_of_ipv4(ends + 4, port_at(ends + 10));
    } else if (family == FAMILY_INET6) {
        header->client = end_of_ipv6(ends, port_at(ends + 32));
        header->local = end_of_ipv6(ends + 16, port_at(ends + 34));
    }
    return true;
}

/* Refused as soon as an octet is wrong: whoever speaks something else may wait for an answer. */
static bool prefix_is_right(const uint8_t *data, size_t size)
{
    if (memcmp(data, SIGNATURE, size < SIGNATURE_SIZE ? size : SIGNATURE_SIZE) != 0) return false;
    if (size <= SIGNATURE_SIZE) return true;
    return data[12] == (VERSION_2 | COMMAND_LOCAL) || data[12] == (VERSION_2 | COMMAND_PROXY);
}

static enum parse_result parse_binary(const uint8_t *data, size_t size, struct proxy_header *header, size_t *used)
{
    struct proxy_header found = {.client = {.kind = ADDRESS_NONE}, .local = {.kind = ADDRESS_NONE}};
    if (!prefix_is_right(data, size)) return PARSE_BAD;
    if (size < PREFIX_SIZE) return PARSE_MORE;
    size_t whole = PREFIX_SIZE + port_at(data + 14);
    if (whole > PROXY_HEADER_SIZE_MAX) return PARSE_TOO_LARGE;
    if (size < whole) return PARSE_MORE;
    /* What stands behind LOCAL is to be skipped, whatever it is. */
    if (data[12] == (VERSION_2 | COMMAND_PROXY) && !read_block(data, whole, &found)) return PARSE_BAD;
    *header = found;
    *used = whole;
    return PARSE_OK;
}

enum parse_result proxy_header_parse(const uint8_t *data, size_t size, struct proxy_header *header, size_t *used)
{
    *used = 0;
    if (size == 0) return PARSE_MORE;
    return data[0] == 'P' ? parse_line(data, size, header, used) : parse_binary(data, size, header, used);
}

/* --- writing --- */

static size_t write_line(uint8_t *out, size_t size, const struct proxy_header *header)
{
    char client[ADDRESS_TEXT_SIZE], local[ADDRESS_TEXT_SIZE];
    struct address from = host_port_address(&header->client), to = host_port_address(&header->local);
    bool known = from.kind != ADDRESS_NONE && from.kind == to.kind;
    address_format_host(&from, client, sizeof client);
    address_format_host(&to, local, sizeof local);
    int length = known ? snprintf((char *)out, size, "PROXY TCP%c %s %s %u %u\r\n",
                                  from.kind == ADDRESS_IPV4 ? '4' : '6', client, local, from.port, to.port)
                       : snprintf((char *)out, size, "PROXY UNKNOWN\r\n");
    assert(length > 0 && (unsigned)length <= PROXY_HEADER_V1_SIZE_MAX && (size_t)length < size);
    return (size_t)length;
}

static void put_host(struct bytes_writer *writer, const struct host_port *end, bool wide)
{
    if (wide && end->kind == ADDRESS_IPV4) bytes_put(writer, MAPPED_PREFIX, MAPPED_PREFIX_SIZE);
    bytes_put(writer, end->octets, end->kind == ADDRESS_IPV4 ? 4 : 16);
}

static void put_tlv(struct bytes_writer *writer, uint8_t type, const char *text, size_t most)
{
    size_t size = text ? strnlen(text, most) : 0;
    if (size == 0) return;
    bytes_put_u8(writer, type);
    bytes_put_u16(writer, (uint16_t)size);
    bytes_put(writer, text, size);
}

/* The prefix with a length that is not known yet. */
static struct bytes_writer begin_binary(uint8_t *out, size_t size, unsigned family)
{
    struct bytes_writer writer = bytes_writer_over(out, size);
    bytes_put(&writer, SIGNATURE, SIGNATURE_SIZE);
    bytes_put_u8(&writer, VERSION_2 | COMMAND_PROXY);
    bytes_put_u8(&writer, family == FAMILY_UNSPEC ? 0 : (uint8_t)(family << 4 | TRANSPORT_STREAM));
    bytes_put_u16(&writer, 0);
    return writer;
}

static size_t end_binary(struct bytes_writer *writer)
{
    size_t whole = bytes_writer_finish(writer);
    assert(whole >= PREFIX_SIZE);
    writer->out[14] = (uint8_t)((whole - PREFIX_SIZE) >> 8);
    writer->out[15] = (uint8_t)((whole - PREFIX_SIZE) & 0xffu);
    return whole;
}

static size_t write_binary(uint8_t *out, size_t size, const struct proxy_header *header,
                           const struct proxy_header_facts *facts)
{
    const struct host_port *client = &header->client, *local = &header->local;
    bool known = client->kind != ADDRESS_NONE && local->kind != ADDRESS_NONE;
    bool wide = client->kind == ADDRESS_IPV6 || local->kind == ADDRESS_IPV6;
    unsigned family = !known ? FAMILY_UNSPEC : wide ? FAMILY_INET6 : FAMILY_INET;
    struct bytes_writer writer = begin_binary(out, size, family);
    if (known) {
        put_host(&writer, client, wide);
        put_host(&writer, local, wide);
        bytes_put_u16(&writer, client->port);
        bytes_put_u16(&writer, local->port);
    }
    put_tlv(&writer, PROXY_TLV_AUTHORITY, facts->authority, PROXY_HEADER_TLV_MAX);
    put_tlv(&writer, PROXY_TLV_UNIQUE_ID, facts->unique_id, PROXY_HEADER_UNIQUE_ID_MAX);
    put_tlv(&writer, PROXY_TLV_USER, facts->user, PROXY_HEADER_TLV_MAX);
    return end_binary(&writer);
}

size_t proxy_header_write(uint8_t *out, size_t size, unsigned version, const struct proxy_header *header,
                          const struct proxy_header_facts *facts)
{
    assert(size >= PROXY_HEADER_WRITTEN_SIZE_MAX);
    assert(version == 1 || version == 2);
    return version == 1 ? write_line(out, size, header) : write_binary(out, size, header, facts);
}
