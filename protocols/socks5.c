/* The exchange, client left, server right, lengths in octets:
 *
 *     version 1, count 1, methods       >   <  version 1, method 1                          RFC 1928 section 3
 *     1, length 1, user, length 1, pass >   <  1, status 1 (0: granted)                     RFC 1929 section 2
 *     version 1, command 1, 0, address  >   <  version 1, code 1, 0, address                RFC 1928 sections 4 and 6
 *
 * An address is type 1, host (4, 16, or length 1 and a name), port 2; a UDP datagram begins with 0, 0, fragment 1,
 * address. */
#include "protocols/socks5.h"

#include <assert.h>
#include <string.h>

#include "protocols/bytes.h"

#define AUTH_VERSION 1u

enum address_type { TYPE_IPV4 = 1, TYPE_NAME = 3, TYPE_IPV6 = 4 };

/* --- addresses, in requests, replies and datagrams --- */

static enum parse_result take_ipv4(struct bytes_reader *reader, struct address *address)
{
    const uint8_t *host = bytes_take(reader, sizeof(address->ipv4));
    uint16_t port = bytes_take_u16(reader);
    if (reader->ended) return PARSE_MORE;
    *address = (struct address){.kind = ADDRESS_IPV4, .port = port};
    memcpy(address->ipv4, host, sizeof(address->ipv4));
    return PARSE_OK;
}

static enum parse_result take_ipv6(struct bytes_reader *reader, struct address *address)
{
    const uint8_t *host = bytes_take(reader, sizeof(address->ipv6));
    uint16_t port = bytes_take_u16(reader);
    if (reader->ended) return PARSE_MORE;
    *address = (struct address){.kind = ADDRESS_IPV6, .port = port};
    memcpy(address->ipv6, host, sizeof(address->ipv6));
    return PARSE_OK;
}

static enum parse_result take_name(struct bytes_reader *reader, struct address *address)
{
    uint8_t size = bytes_take_u8(reader);
    const uint8_t *name = bytes_take(reader, size);
    uint16_t port = bytes_take_u16(reader);
    if (reader->ended) return PARSE_MORE;
    /* A name that cannot be one is well formed all the same: the client is told that its host was not found. */
    if (!address_from_host((const char *)name, size, port, address)) *address = (struct address){0};
    return PARSE_OK;
}

/* `address` is written on PARSE_OK only. */
static enum parse_result take_address(struct bytes_reader *reader, struct address *address)
{
    uint8_t type = bytes_take_u8(reader);
    if (reader->ended) return PARSE_MORE;
    switch (type) {
    case TYPE_IPV4: return take_ipv4(reader, address);
    case TYPE_IPV6: return take_ipv6(reader, address);
    case TYPE_NAME: return take_name(reader, address);
    default: return PARSE_UNSUPPORTED;
    }
}

static void put_name(struct bytes_writer *writer, const struct address *address)
{
    bytes_put_u8(writer, TYPE_NAME);
    bytes_put_u8(writer, address->name_size);
    bytes_put(writer, address->name, address->name_size);
    bytes_put_u16(writer, address->port);
}

static void put_ip(struct bytes_writer *writer, enum address_type type, const uint8_t *host, size_t size, uint16_t port)
{
    bytes_put_u8(writer, (uint8_t)type);
    bytes_put(writer, host, size);
    bytes_put_u16(writer, port);
}

/* What has no form in this protocol, nothing and a Unix socket, goes as 0.0.0.0:0. */
static void put_address(struct bytes_writer *writer, const struct address *address)
{
    static const uint8_t zero[4] = {0};
    switch (address != NULL ? (enum address_kind)address->kind : ADDRESS_NONE) {
    case ADDRESS_IPV4: put_ip(writer, TYPE_IPV4, address->ipv4, sizeof(address->ipv4), address->port); return;
    case ADDRESS_IPV6: put_ip(writer, TYPE_IPV6, address->ipv6, sizeof(address->ipv6), address->port); return;
    case ADDRESS_NAME: put_name(writer, address); return;
    case ADDRESS_NONE:
    case ADDRESS_UNIX:
    case ADDRESS_GROUP: put_ip(writer, TYPE_IPV4, zero, sizeof(zero), 0); return;
    }
}

/* --- what requests and replies share: version, one octet of meaning, a reserved one, an address --- */

static enum parse_result parse_message(const uint8_t *data, size_t size, uint8_t *meaning, struct address *address,
                                       size_t *used)
{
    struct bytes_reader reader = bytes_reader_over(data, size);
    *used = 0;
    if (bytes_take_u8(&reader) != SOCKS5_VERSION) return size > 0 ? PARSE_BAD : PARSE_MORE;
    *meaning = bytes_take_u8(&reader);
    bytes_take_u8(&reader); /* reserved; peers exist that leave garbage there, and nothing hangs on it */
    enum parse_result result = take_address(&reader, address);
    assert(reader.at <= SOCKS5_REQUEST_SIZE_MAX);
    if (result == PARSE_OK) *used = reader.at;
    return result;
}

static size_t write_message(uint8_t *out, size_t size, uint8_t meaning, const struct address *address)
{
    struct bytes_writer writer = bytes_writer_over(out, size);
    bytes_put_u8(&writer, SOCKS5_VERSION);
    bytes_put_u8(&writer, meaning);
    bytes_put_u8(&writer, 0);
    put_address(&writer, address);
    return bytes_writer_finish(&writer);
}

/* Two octets: a version that must match, and a value. */
static enum parse_result parse_pair(const uint8_t *data, size_t size, uint8_t version, uint8_t *value, size_t *used)
{
    *used = 0;
    if (size > 0 && data[0] != version) return PARSE_BAD;
    if (size < 2) return PARSE_MORE;
    *value = data[1];
    *used = 2;
    return PARSE_OK;
}

static size_t write_pair(uint8_t *out, size_t size, uint8_t version, uint8_t value)
{
    struct bytes_writer writer = bytes_writer_over(out, size);
    bytes_put_u8(&writer, version);
    bytes_put_u8(&writer, value);
    return bytes_writer_finish(&writer);
}

/* --- server side --- */

/* The client's order is its preference. A password that nobody demands is still taken, for what decides on it later. */
static uint8_t choose_method(const uint8_t *offers, size_t count, bool password_required)
{
    for (size_t i = 0; i < count; i++) {
        if (offers[i] == SOCKS5_METHOD_NONE && !password_required) return SOCKS5_METHOD_NONE;
        if (offers[i] == SOCKS5_METHOD_PASSWORD) return SOCKS5_METHOD_PASSWORD;
    }
    return SOCKS5_METHOD_UNACCEPTABLE;
}

enum parse_result socks5_parse_greeting(const uint8_t *data, size_t size, bool password_required, uint8_t *method,
                                        size_t *used)
{
    struct bytes_reader reader = bytes_reader_over(data, size);
    *used = 0;
    if (bytes_take_u8(&reader) != SOCKS5_VERSION) return size > 0 ? PARSE_BAD : PARSE_MORE;
    uint8_t count = bytes_take_u8(&reader);
    const uint8_t *offers = bytes_take(&reader, count);
    if (reader.ended) return PARSE_MORE;
    assert(reader.at <= SOCKS5_GREETING_SIZE_MAX);
    *method = choose_method(offers, count, password_required);
    *used = reader.at;
    return PARSE_OK;
}

size_t socks5_write_method(uint8_t *out, size_t size, uint8_t method)
{
    return write_pair(out, size, SOCKS5_VERSION, method);
}

static enum parse_result take_part(struct bytes_reader *reader, char part[CREDENTIALS_PART_MAX + 1])
{
    uint8_t size = bytes_take_u8(reader);
    const uint8_t *octets = bytes_take(reader, size);
    if (reader->ended) return PARSE_MORE;
    if (memchr(octets, 0, size) != NULL) return PARSE_BAD;
    memcpy(part, octets, size);
    part[size] = '\0';
    return PARSE_OK;
}

enum parse_result socks5_parse_auth(const uint8_t *data, size_t size, struct credentials *credentials, size_t *used)
{
    struct credentials parsed = {.present = true};
    struct bytes_reader reader = bytes_reader_over(data, size);
    *used = 0;
    if (bytes_take_u8(&reader) != AUTH_VERSION) return size > 0 ? PARSE_BAD : PARSE_MORE;
    enum parse_result result = take_part(&reader, parsed.user);
    if (result == PARSE_OK) result = take_part(&reader, parsed.password);
    if (result != PARSE_OK) return result;
    assert(reader.at <= SOCKS5_AUTH_SIZE_MAX);
    *credentials = parsed;
    *used = reader.at;
    return PARSE_OK;
}

size_t socks5_write_auth_status(uint8_t *out, size_t size, bool granted)
{
    return write_pair(out, size, AUTH_VERSION, granted ? 0 : 1);
}

enum parse_result socks5_parse_request(const uint8_t *data, size_t size, struct socks5_request *request, size_t *used)
{
    struct socks5_request parsed = {0};
    enum parse_result result = parse_message(data, size, &parsed.command, &parsed.target, used);
    if (result == PARSE_OK) parsed.by_name = data[3] == TYPE_NAME;
    if (result == PARSE_OK || result == PARSE_UNSUPPORTED) *request = parsed;
    return result;
}

size_t socks5_write_reply(uint8_t *out, size_t size, uint8_t code, const struct address *bound)
{
    return write_message(out, size, code, bound);
}

/* --- client side --- */

size_t socks5_write_greeting(uint8_t *out, size_t size, bool with_password)
{
    struct bytes_writer writer = bytes_writer_over(out, size);
    bytes_put_u8(&writer, SOCKS5_VERSION);
    bytes_put_u8(&writer, with_password ? 2 : 1);
    bytes_put_u8(&writer, SOCKS5_METHOD_NONE);
    if (with_password) bytes_put_u8(&writer, SOCKS5_METHOD_PASSWORD);
    return bytes_writer_finish(&writer);
}

enum parse_result socks5_parse_method(const uint8_t *data, size_t size, uint8_t *method, size_t *used)
{
    return parse_pair(data, size, SOCKS5_VERSION, method, used);
}

static void put_part(struct bytes_writer *writer, const char *part)
{
    size_t size = strlen(part);
    if (size > CREDENTIALS_PART_MAX) writer->full = true; /* its length would not fit into an octet */
    bytes_put_u8(writer, (uint8_t)size);
    bytes_put(writer, part, size);
}

size_t socks5_write_auth(uint8_t *out, size_t size, const struct credentials *credentials)
{
    struct bytes_writer writer = bytes_writer_over(out, size);
    bytes_put_u8(&writer, AUTH_VERSION);
    put_part(&writer, credentials->user);
    put_part(&writer, credentials->password);
    return bytes_writer_finish(&writer);
}

enum parse_result socks5_parse_auth_status(const uint8_t *data, size_t size, bool *granted, size_t *used)
{
    uint8_t status;
    enum parse_result result = parse_pair(data, size, AUTH_VERSION, &status, used);
    if (result == PARSE_OK) *granted = status == 0;
    return result;
}

size_t socks5_write_request(uint8_t *out, size_t size, uint8_t command, const struct address *target)
{
    /* What has no form in this protocol would go as 0.0.0.0:0, and mean something else. */
    if (target->kind == ADDRESS_NONE || target->kind >= ADDRESS_UNIX) return 0;
    return write_message(out, size, command, target);
}

enum parse_result socks5_parse_reply(const uint8_t *data, size_t size, uint8_t *code, struct address *bound,
                                     size_t *used)
{
    uint8_t parsed;
    struct address address = {0};
    enum parse_result result = parse_message(data, size, &parsed, &address, used);
    if (result != PARSE_OK && result != PARSE_UNSUPPORTED) return result;
    *code = parsed;
    if (bound != NULL) *bound = address;
    return result;
}

/* --- UDP datagrams --- */

enum parse_result socks5_parse_udp_header(const uint8_t *data, size_t size, struct socks5_udp_header *header,
                                          size_t *used)
{
    struct socks5_udp_header parsed = {0};
    struct bytes_reader reader = bytes_reader_over(data, size);
    *used = 0;
    bytes_take_u16(&reader); /* reserved */
    parsed.fragment = bytes_take_u8(&reader);
    enum parse_result result = take_address(&reader, &parsed.target);
    if (result == PARSE_MORE) return PARSE_BAD; /* nothing follows a datagram */
    if (result != PARSE_OK) return result;
    assert(reader.at <= SOCKS5_UDP_HEADER_SIZE_MAX);
    *header = parsed;
    *used = reader.at;
    return PARSE_OK;
}

size_t socks5_write_udp_header(uint8_t *out, size_t size, const struct address *source)
{
    struct bytes_writer writer = bytes_writer_over(out, size);
    bytes_put_u16(&writer, 0);
    bytes_put_u8(&writer, 0); /* a whole datagram */
    put_address(&writer, source);
    return bytes_writer_finish(&writer);
}
