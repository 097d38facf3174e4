#include "protocols/access_fields.h"

#include <string.h>

#define FIELD(n, k, member)                                                                                            \
    {                                                                                                                  \
        .name = (n), .kind = ACCESS_KIND_##k, .place = offsetof(struct access_record, member)                          \
    }

const struct access_field access_fields[] = {
    FIELD("time", TIME, time_us),
    FIELD("event", WORD, event),
    FIELD("id", ID, worker),
    FIELD("listener", WORD, listener),
    FIELD("protocol", WORD, protocol),
    FIELD("command", WORD, command),
    FIELD("client", HOST_PORT, client),
    FIELD("user", TEXT, user),
    FIELD("target", TEXT, target),
    FIELD("dialed", HOST_PORT, dialed),
    FIELD("egress", HOST_PORT, egress),
    FIELD("chain", TEXT, chain),
    FIELD("rule", TEXT, rule),
    FIELD("revision", REVISION, revision),
    FIELD("result", WORD, result),
    FIELD("method", TEXT, method),
    FIELD("host", TEXT, host),
    FIELD("path", TEXT, path),
    FIELD("status", STATUS, status),
    FIELD("up", COUNT, up),
    FIELD("down", COUNT, down),
    FIELD("handshake_us", OPTIONAL, handshake_us),
    FIELD("decision_us", OPTIONAL, decision_us),
    FIELD("resolve_us", OPTIONAL, resolve_us),
    FIELD("connect_us", OPTIONAL, connect_us),
    FIELD("first_byte_us", OPTIONAL, first_byte_us),
    FIELD("total_us", OPTIONAL, total_us),
    FIELD("relay", WORD, relay),
    FIELD("client_rtt_us", OPTIONAL, client_rtt_us),
    FIELD("target_rtt_us", OPTIONAL, target_rtt_us),
    FIELD("client_retrans", OPTIONAL, client_retrans),
    FIELD("target_retrans", OPTIONAL, target_retrans),
    FIELD("truncated", FLAG, truncated),
    FIELD("suppressed", OTHERS, suppressed),
};
const unsigned access_fields_count = sizeof access_fields / sizeof *access_fields;

/* --- numbers and times --- */

size_t access_format_number(uint64_t value, char *out)
{
    char digits[24];
    size_t at = sizeof digits;
    do digits[--at] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    memcpy(out, digits + at, sizeof digits - at);
    return sizeof digits - at;
}

struct moment {
    unsigned year, month, day, hour, minute, second, microsecond; /* month and day from 1 */
};

/* Days since 1970 to a date: eras of 400 years that begin on the first of March, so that leap days stand at their end
 * (Howard Hinnant, "chrono-compatible low-level date algorithms"). */
static void moment_of(uint64_t time_us, struct moment *m)
{
    uint64_t seconds = time_us / 1000000u;
    unsigned day = (unsigned)(seconds / 86400u % 3652059u) + 719468u; /* to the year 9999 or so */
    unsigned era = day / 146097u, of_era = day % 146097u;
    unsigned year = (of_era - of_era / 1460u + of_era / 36524u - of_era / 146096u) / 365u;
    unsigned of_year = of_era - (365u * year + year / 4u - year / 100u), month = (5u * of_year + 2u) / 153u;
    m->day = of_year - (153u * month + 2u) / 5u + 1u;
    m->month = month < 10u ? month + 3u : month - 9u;
    m->year = era * 400u + year + (m->month <= 2u);
    m->hour = (unsigned)(seconds / 3600u % 24u);
    m->minute = (unsigned)(seconds / 60u % 60u);
    m->second = (unsigned)(seconds % 60u);
    m->microsecond = (unsigned)(time_us % 1000000u);
}

static size_t put_padded(char *out, size_t at, unsigned value, unsigned width)
{
    for (unsigned i = width; i > 0; i--, value /= 10u) out[at + i - 1] = (char)('0' + value % 10u);
    return at + width;
}

static size_t put_pair(char *out, size_t at, unsigned value, char behind)
{
    at = put_padded(out, at, value, 2);
    out[at] = behind;
    return at + 1;
}

size_t access_format_time(uint64_t time_us, char *out)
{
    struct moment m;
    moment_of(time_us, &m);
    size_t at = put_padded(out, 0, m.year, 4);
    out[at++] = '-';
    at = put_pair(out, at, m.month, '-');
    at = put_pair(out, at, m.day, 'T');
    at = put_pair(out, at, m.hour, ':');
    at = put_pair(out, at, m.minute, ':');
    at = put_pair(out, at, m.second, '.');
    at = put_padded(out, at, m.microsecond, 6);
    out[at++] = 'Z';
    return at;
}

size_t access_format_clf_time(uint64_t time_us, char *out)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct moment m;
    moment_of(time_us, &m);
    size_t at = put_pair(out, 0, m.day, '/');
    memcpy(out + at, months + (size_t)(m.month - 1u) * 3u, 3);
    at += 3;
    out[at++] = '/';
    at = put_padded(out, at, m.year, 4);
    out[at++] = ':';
    at = put_pair(out, at, m.hour, ':');
    at = put_pair(out, at, m.minute, ':');
    at = put_pair(out, at, m.second, ' ');
    memcpy(out + at, "+0000", 5);
    return at + 5;
}

/* --- values --- */

static size_t put_hex(uint32_t value, char *out)
{
    size_t digits = 1;
    while (digits < 8 && value >> 4u * digits) digits++;
    for (size_t i = 0; i < digits; i++) out[i] = "0123456789abcdef"[value >> 4u * (digits - 1u - i) & 15u];
    return digits;
}

static size_t put_id(const struct access_record *record, char *out)
{
    if (record->worker == ACCESS_NO_ID) return 0;
    size_t at = put_hex(record->worker, out);
    out[at++] = '-';
    at += put_hex(record->slot, out + at);
    out[at++] = '-';
    return at + put_hex(record->generation, out + at);
}

static size_t put_host_port(const struct host_port *end, char *out)
{
    struct address address = host_port_address(end);
    return address.kind == ADDRESS_NONE ? 0 : address_format(&address, out, ADDRESS_TEXT_SIZE);
}

struct access_text access_value(const struct access_field *field, const struct access_record *record, char *room)
{
    const void *place = (const char *)record + field->place;
    struct access_text value = {.data = room};
    switch ((enum access_kind)field->kind) {
    case ACCESS_KIND_TIME: value.size = (uint32_t)access_format_time(*(const uint64_t *)place, room); break;
    case ACCESS_KIND_ID: value.size = (uint32_t)put_id(record, room); break;
    case ACCESS_KIND_WORD:
        value.data = *(const char *const *)place;
        value.size = value.data ? (uint32_t)strlen(value.data) : 0;
        break;
    case ACCESS_KIND_HOST_PORT: value.size = (uint32_t)put_host_port(place, room); break;
    case ACCESS_KIND_TEXT: value = *(const struct access_text *)place; break;
    case ACCESS_KIND_COUNT: value.size = (uint32_t)access_format_number(*(const uint64_t *)place, room); break;
    case ACCESS_KIND_OTHERS:
        if (*(const uint64_t *)place) value.size = (uint32_t)access_format_number(*(const uint64_t *)place, room);
        break;
    case ACCESS_KIND_REVISION: value.size = (uint32_t)access_format_number(*(const uint32_t *)place, room); break;
    case ACCESS_KIND_STATUS:
        if (*(const uint16_t *)place) value.size = (uint32_t)access_format_number(*(const uint16_t *)place, room);
        break;
    case ACCESS_KIND_OPTIONAL:
        if (*(const int64_t *)place >= 0)
            value.size = (uint32_t)access_format_number((uint64_t) * (const int64_t *)place, room);
        break;
    case ACCESS_KIND_FLAG:
        if (*(const bool *)place) value = (struct access_text){"true", 4};
        break;
    }
    return value;
}
