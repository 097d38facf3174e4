/* A request, in octets:
 *
 *     version 1 | command 1 | port 2 | address 4 | user id, NUL | 4A only: name, NUL
 *
 * and a reply: zero 1 | code 1 | port 2 | address 4. */
#include "protocols/socks4.h"

#include <assert.h>
#include <string.h>

#include "protocols/bytes.h"

/* 0.0.0.x with x != 0 says that a name follows. */
static bool is_name_marker(const uint8_t ipv4[4])
{
    return ipv4[0] == 0 && ipv4[1] == 0 && ipv4[2] == 0 && ipv4[3] != 0;
}

/* Takes a string and its NUL; `text` points into the reader's data. At most `size_max` octets without the NUL. */
static enum parse_result take_string(struct bytes_reader *reader, size_t size_max, const char **text, size_t *size)
{
    size_t there = reader->size - reader->at;
    size_t window = there <= size_max ? there : size_max + 1;
    if (window == 0) return PARSE_MORE;
    const uint8_t *start = reader->data + reader->at;
    const uint8_t *end = memchr(start, 0, window);
    if (end == NULL) return window > size_max ? PARSE_BAD : PARSE_MORE;
    *text = (const char *)start;
    *size = (size_t)(end - start);
    bytes_take(reader, *size + 1);
    return PARSE_OK;
}

static enum parse_result take_user(struct bytes_reader *reader, char user[CREDENTIALS_PART_MAX + 1])
{
    const char *text;
    size_t size;
    enum parse_result result = take_string(reader, CREDENTIALS_PART_MAX, &text, &size);
    if (result == PARSE_OK) memcpy(user, text, size + 1);
    return result;
}

static enum parse_result take_name(struct bytes_reader *reader, uint16_t port, struct address *target)
{
    const char *text;
    size_t size;
    enum parse_result result = take_string(reader, ADDRESS_NAME_MAX, &text, &size);
    if (result != PARSE_OK) return result;
    /* A name that cannot be one is well formed all the same: the client is told that its host was not found. */
    if (!address_from_host(text, size, port, target)) *target = (struct address){0};
    return PARSE_OK;
}

static struct address ipv4_target(const uint8_t ipv4[4], uint16_t port)
{
    struct address target = {.kind = ADDRESS_IPV4, .port = port};
    memcpy(target.ipv4, ipv4, sizeof(target.ipv4));
    return target;
}

enum parse_result socks4_parse_request(const uint8_t *data, size_t size, struct socks4_request *request, size_t *used)
{
    struct socks4_request parsed = {0};
    struct bytes_reader reader = bytes_reader_over(data, size);
    *used = 0;
    if (bytes_take_u8(&reader) != SOCKS4_VERSION) return size > 0 ? PARSE_BAD : PARSE_MORE;
    parsed.command = bytes_take_u8(&reader);
    uint16_t port = bytes_take_u16(&reader);
    const uint8_t *ipv4 = bytes_take(&reader, 4);
    if (ipv4 == NULL) return PARSE_MORE;
    parsed.target = ipv4_target(ipv4, port);
    enum parse_result result = take_user(&reader, parsed.user);
    parsed.by_name = is_name_marker(ipv4);
    if (result == PARSE_OK && parsed.by_name) result = take_name(&reader, port, &parsed.target);
    if (result != PARSE_OK) return result;
    assert(reader.at <= SOCKS4_REQUEST_SIZE_MAX);
    *request = parsed;
    *used = reader.at;
    return PARSE_OK;
}

size_t socks4_write_reply(uint8_t *out, size_t size, uint8_t code)
{
    static const uint8_t no_address[6] = {0};
    struct bytes_writer writer = bytes_writer_over(out, size);
    bytes_put_u8(&writer, 0);
    bytes_put_u8(&writer, code);
    bytes_put(&writer, no_address, sizeof(no_address));
    return bytes_writer_finish(&writer);
}

size_t socks4_write_request(uint8_t *out, size_t size, const struct address *target, const char *user)
{
    static const uint8_t marker[4] = {0, 0, 0, 255};
    char host[ADDRESS_TEXT_SIZE];
    struct bytes_writer writer = bytes_writer_over(out, size);
    if (target->kind == ADDRESS_NONE || target->kind >= ADDRESS_UNIX) return 0;
    /* An IPv4 target that looks like the marker would make the server wait for a name: it goes as text. */
    bool plain = target->kind == ADDRESS_IPV4 && !is_name_marker(target->ipv4);
    bytes_put_u8(&writer, SOCKS4_VERSION);
    bytes_put_u8(&writer, SOCKS4_CONNECT);
    bytes_put_u16(&writer, target->port);
    bytes_put(&writer, plain ? target->ipv4 : marker, sizeof(marker));
    bytes_put(&writer, user, strlen(user) + 1);
    if (!plain) bytes_put(&writer, host, address_format_host(target, host, sizeof(host)) + 1);
    return bytes_writer_finish(&writer);
}

enum parse_result socks4_parse_reply(const uint8_t *data, size_t size, uint8_t *code, size_t *used)
{
    struct bytes_reader reader = bytes_reader_over(data, size);
    *used = 0;
    if (bytes_take_u8(&reader) != 0) return PARSE_BAD;
    uint8_t parsed = bytes_take_u8(&reader);
    bytes_take(&reader, 6); /* port and address mean nothing in the answer to a CONNECT */
    if (reader.ended) return PARSE_MORE;
    assert(reader.at == SOCKS4_REPLY_SIZE);
    *code = parsed;
    *used = reader.at;
    return PARSE_OK;
}
