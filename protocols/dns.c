/* Names are compared as they stand in the message, label by label through their pointers, without being copied. A
 * pointer must lead backwards (RFC 1035 section 4.1.4: to a prior occurrence), so that no walk goes round. */
#include "protocols/dns.h"

#include <string.h>

#define DNS_NAME_MAX    255u
#define DNS_LABELS_MAX  128u
#define DNS_RECORDS_MAX 512u /* of an answer, that are looked at */
#define DNS_CHAIN_MAX   16u  /* CNAMEs in a row */
#define DNS_CLASS_IN    1u

struct dns_record {
    size_t owner; /* where its name begins */
    uint16_t type, class;
    uint32_t ttl;
    size_t data, data_size;
};

static uint16_t read_16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t read_32(const uint8_t *at)
{
    return (uint32_t)read_16(at) << 16 | read_16(at + 2);
}

static uint8_t lower(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? (uint8_t)(octet | 0x20) : octet;
}

static bool is_letter(uint8_t octet)
{
    return lower(octet) >= 'a' && lower(octet) <= 'z';
}

/* The place behind a name; 0: malformed. */
static size_t name_end(const uint8_t *message, size_t size, size_t at)
{
    for (unsigned labels = 0; at < size && labels <= DNS_LABELS_MAX; labels++) {
        uint8_t length = message[at];
        if (length == 0) return at + 1;
        if ((length & 0xc0) == 0xc0) return at + 2 <= size ? at + 2 : 0;
        if (length > 63) return 0;
        at += 1u + length;
    }
    return 0;
}

/* The place of the next label's length, pointers followed; `floor`: they must lead below it, which sinks. False:
 * malformed. */
static bool name_follow(const uint8_t *message, size_t size, size_t *at, size_t *floor)
{
    while (*at < size && (message[*at] & 0xc0) == 0xc0) {
        if (*at + 2 > size) return false;
        size_t to = read_16(message + *at) & 0x3fffu;
        if (to >= *floor || to < DNS_HEADER_SIZE) return false;
        *floor = *at = to;
    }
    return *at < size && message[*at] <= 63 && *at + 1u + message[*at] <= size;
}

static bool label_equal(const uint8_t *a, const uint8_t *b, uint8_t length)
{
    for (uint8_t i = 0; i < length; i++)
        if (lower(a[i]) != lower(b[i])) return false;
    return true;
}

/* Malformed names equal none. */
static bool name_equal(const uint8_t *message, size_t size, size_t a, size_t b)
{
    size_t floor_a = a, floor_b = b;
    if (a == b) return true;
    for (unsigned labels = 0; labels <= DNS_LABELS_MAX; labels++) {
        if (!name_follow(message, size, &a, &floor_a) || !name_follow(message, size, &b, &floor_b)) return false;
        uint8_t length = message[a];
        if (length != message[b] || !label_equal(message + a + 1, message + b + 1, length)) return false;
        if (length == 0 || a == b) return true;
        a += 1u + length;
        b += 1u + length;
    }
    return false;
}

/* The place behind the one question; 0: there is none, or more. Questions are not compressed. */
static size_t question_end(const uint8_t *message, size_t size)
{
    if (size < DNS_HEADER_SIZE || read_16(message + 4) != 1) return 0;
    size_t at = DNS_HEADER_SIZE;
    while (at < size && message[at] != 0) {
        if (message[at] > 63) return 0;
        at += 1u + message[at];
    }
    if (at + 5 > size || at + 1 - DNS_HEADER_SIZE > DNS_NAME_MAX) return 0;
    return at + 5;
}

bool dns_mix_case(uint8_t *query, size_t size, uint64_t bits)
{
    size_t end = question_end(query, size);
    unsigned used = 0;
    if (end == 0) return false;
    for (size_t at = DNS_HEADER_SIZE; query[at] != 0;) {
        uint8_t length = query[at++];
        for (uint8_t i = 0; i < length; i++, at++) {
            if (!is_letter(query[at])) continue;
            query[at] = (uint8_t)(lower(query[at]) ^ (bits >> used++ % 64 & 1) << 5);
        }
    }
    return true;
}

enum dns_match dns_match(const uint8_t *query, size_t query_size, const uint8_t *answer, size_t answer_size)
{
    size_t end = question_end(query, query_size);
    if (end == 0 || question_end(answer, answer_size) != end) return DNS_DIFFERS;
    if (read_16(query) != read_16(answer) || !(answer[2] & 0x80)) return DNS_DIFFERS;
    if (memcmp(query + DNS_HEADER_SIZE, answer + DNS_HEADER_SIZE, end - DNS_HEADER_SIZE) == 0) return DNS_SAME;
    if (memcmp(query + end - 4, answer + end - 4, 4) != 0) return DNS_DIFFERS;
    for (size_t at = DNS_HEADER_SIZE; at < end - 4; at++) /* lengths are below 'A' */
        if (lower(query[at]) != lower(answer[at])) return DNS_DIFFERS;
    return DNS_CASE;
}

size_t dns_truncate(uint8_t *query, size_t size)
{
    size_t end = question_end(query, size);
    if (end == 0) return 0;
    query[2] |= 0x82; /* QR, TC */
    memset(query + 6, 0, 6);
    return end;
}

bool dns_is_truncated(const uint8_t *answer, size_t size)
{
    return size >= DNS_HEADER_SIZE && (answer[2] & 0x02);
}

/* The record at *at, which is moved behind it. False: malformed. */
static bool record_read(const uint8_t *message, size_t size, size_t *at, struct dns_record *out)
{
    size_t end = name_end(message, size, *at);
    if (end == 0 || size - end < 10) return false;
    *out = (struct dns_record){.owner = *at,
                               .type = read_16(message + end),
                               .class = read_16(message + end + 2),
                               .ttl = read_32(message + end + 4),
                               .data = end + 10,
                               .data_size = read_16(message + end + 8)};
    if (out->ttl > INT32_MAX) out->ttl = 0; /* RFC 2181 section 8 */
    if (size - out->data < out->data_size) return false;
    *at = out->data + out->data_size;
    return true;
}

static void addresses_add(struct dns_addresses *out, const uint8_t *data, size_t size, uint32_t ttl)
{
    if (ttl < out->ttl) out->ttl = ttl;
    if (out->count == DNS_ADDRESSES_MAX) return;
    memcpy(out->octets[out->count++], data, size);
}

/* One pass: the addresses of the name at `owner`, and where its CNAME leads. 0: nowhere. */
static size_t collect(const uint8_t *message, size_t size, size_t begin, size_t owner, uint16_t type,
                      struct dns_addresses *out)
{
    size_t at = begin, alias = 0, wanted = type == DNS_TYPE_A ? 4 : 16;
    uint32_t alias_ttl = 0;
    struct dns_record record;
    for (unsigned left = read_16(message + 6); left > 0 && record_read(message, size, &at, &record); left--) {
        bool address = record.type == type && record.data_size == wanted;
        if ((!address && record.type != DNS_TYPE_CNAME) || record.class != DNS_CLASS_IN) continue;
        if (!name_equal(message, size, record.owner, owner)) continue;
        if (address) {
            addresses_add(out, message + record.data, wanted, record.ttl);
        } else if (alias == 0) {
            alias = record.data;
            alias_ttl = record.ttl;
        }
    }
    if (out->count > 0 || alias == 0) return 0;
    if (alias_ttl < out->ttl) out->ttl = alias_ttl;
    return alias;
}

/* What is cut off must not look like an answer without addresses. */
static bool records_are_whole(const uint8_t *message, size_t size, size_t at)
{
    struct dns_record record;
    unsigned count = read_16(message + 6);
    if (count > DNS_RECORDS_MAX) return false;
    while (count-- > 0)
        if (!record_read(message, size, &at, &record)) return false;
    return true;
}

bool dns_read_addresses(const uint8_t *answer, size_t size, uint16_t type, struct dns_addresses *out)
{
    size_t begin = question_end(answer, size), owner = DNS_HEADER_SIZE;
    out->count = 0;
    out->ttl = UINT32_MAX;
    if (begin == 0 || !records_are_whole(answer, size, begin)) return false;
    for (unsigned hops = 0; hops <= DNS_CHAIN_MAX && owner != 0; hops++)
        owner = collect(answer, size, begin, owner, type, out);
    if (out->count == 0) out->ttl = 0;
    return true;
}
