/* CONNECT, Basic proxy credentials and the replies that the proxy makes itself. */
#include "protocols/http_connect.h"

#include <assert.h>
#include <string.h>

#include "protocols/base64.h"
#include "protocols/http_body.h"
#include "protocols/http_writer.h"

/* What may stand in a host without changing what the authority around it means. RFC 3986 allows less; names with
 * octets from 0x80 on do occur and do no harm. */
static bool is_host(const uint8_t *host, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (host[i] <= ' ' || host[i] == 0x7f || strchr("\"#/<>?@\\^`{|}", host[i]) != NULL) return false;
    }
    return size > 0;
}

bool http_parse_host_port(const uint8_t *data, struct http_span span, uint16_t default_port, struct address *target)
{
    const uint8_t *text = data + span.at;
    struct address parsed;
    if (!is_host(text, span.size)) return false;
    enum address_port_rule rule = default_port != 0 ? ADDRESS_PORT_DEFAULT : ADDRESS_PORT_REQUIRED;
    if (!address_parse((const char *)text, span.size, rule, default_port, &parsed)) return false;
    if (parsed.port == 0) return false;
    *target = parsed;
    return true;
}

bool http_parse_authority(const uint8_t *data, struct http_span span, struct address *target)
{
    return http_parse_host_port(data, span, 0, target);
}

unsigned http_connect_judge(const uint8_t *data, const struct http_head *head, struct address *target)
{
    enum http_framing framing;
    uint64_t length;
    if (!http_parse_authority(data, head->target, target)) return 400;
    if (http_count_fields(data, head, "Host") > 1) return 400;
    return http_body_judge(data, head, HTTP_BODY_NONE, &framing, &length);
}

/* Copies one half of the credentials. Controls are refused (RFC 7617 section 2); NUL among them, so that what is
 * compared later is what was sent. */
static bool copy_part(char *out, const uint8_t *part, size_t size)
{
    if (size > CREDENTIALS_PART_MAX) return false;
    for (size_t i = 0; i < size; i++) {
        if (part[i] < 0x20 || part[i] == 0x7f) return false;
    }
    memcpy(out, part, size);
    out[size] = '\0';
    return true;
}

static bool split_credentials(const uint8_t *text, size_t size, struct credentials *credentials)
{
    const uint8_t *colon = memchr(text, ':', size);
    if (colon == NULL) return false;
    size_t user = (size_t)(colon - text);
    struct credentials parsed = {.present = true};
    if (!copy_part(parsed.user, text, user)) return false;
    if (!copy_part(parsed.password, colon + 1, size - user - 1)) return false;
    *credentials = parsed;
    return true;
}

/* Cuts auth-scheme 1*SP token68 (RFC 9110 section 11.4) in two; the token may be missing. */
static struct http_span take_scheme(const uint8_t *data, struct http_span value, struct http_span *token)
{
    const uint8_t *space = memchr(data + value.at, ' ', value.size);
    uint16_t size = space != NULL ? (uint16_t)(space - data - value.at) : value.size, skip = size;
    while (skip < value.size && data[value.at + skip] == ' ') skip++;
    *token = (struct http_span){(uint16_t)(value.at + skip), (uint16_t)(value.size - skip)};
    return (struct http_span){value.at, size};
}

enum http_auth_result http_parse_proxy_authorization(const uint8_t *data, const struct http_head *head,
                                                     struct credentials *credentials)
{
    const struct http_field *field = http_find_field(data, head, "Proxy-Authorization");
    if (field == NULL) return HTTP_AUTH_ABSENT;
    if (http_count_fields(data, head, "Proxy-Authorization") > 1) return HTTP_AUTH_BAD;
    struct http_span token, scheme = take_scheme(data, field->value, &token);
    if (!http_span_is(data, scheme, "Basic")) return HTTP_AUTH_OTHER;
    uint8_t decoded[2 * CREDENTIALS_PART_MAX + 1];
    size_t size = 0;
    if (!base64_decode((const char *)data + token.at, token.size, decoded, sizeof decoded, &size)) return HTTP_AUTH_BAD;
    return split_credentials(decoded, size, credentials) ? HTTP_AUTH_OK : HTTP_AUTH_BAD;
}

void http_hide_proxy_authorization(uint8_t *data, const struct http_head *head)
{
    for (size_t i = 0; i < head->field_count; i++) {
        struct http_span token;
        if (!http_span_is(data, head->fields[i].name, "Proxy-Authorization")) continue;
        take_scheme(data, head->fields[i].value, &token);
        memset(data + token.at, '*', token.size);
    }
}

size_t http_write_established(uint8_t *out, size_t size)
{
    struct http_writer w = {.out = out, .size = size};
    http_put_text(&w, "HTTP/1.1 200 Connection established\r\n\r\n");
    return http_writer_finish(&w);
}

/* The registry of RFC 9110 section 16.2.1, by class. */
const char *http_reason(unsigned status)
{
    static const struct {
        uint16_t status;
        const char *reason;
    } reasons[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {102, "Processing"},
        {103, "Early Hints"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {203, "Non-Authoritative Information"},
        {204, "No Content"},
        {205, "Reset Content"},
        {206, "Partial Content"},
        {207, "Multi-Status"},
        {208, "Already Reported"},
        {226, "IM Used"},
        {300, "Multiple Choices"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {305, "Use Proxy"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {407, "Proxy Authentication Required"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {423, "Locked"},
        {424, "Failed Dependency"},
        {425, "Too Early"},
        {426, "Upgrade Required"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {451, "Unavailable For Legal Reasons"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {506, "Variant Also Negotiates"},
        {507, "Insufficient Storage"},
        {508, "Loop Detected"},
        {511, "Network Authentication Required"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == status) return reasons[i].reason;
    }
    return "";
}

static bool is_leap_year(unsigned year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static void put_two_digits(struct http_writer *w, unsigned number)
{
    assert(number < 100);
    char digits[2] = {(char)('0' + number / 10), (char)('0' + number % 10)};
    http_put(w, digits, sizeof digits);
}

/* Day, month and year of a number of days since 1970. Year by year is a few dozen steps; error replies are rare. */
static void put_day(struct http_writer *w, unsigned days)
{
    static const uint8_t lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned year = 1970, month = 0;
    while (days >= 365u + is_leap_year(year)) days -= 365u + is_leap_year(year++);
    for (;; month++) {
        unsigned length = month == 1 && is_leap_year(year) ? 29 : lengths[month];
        if (days < length) break;
        days -= length;
    }
    put_two_digits(w, days + 1);
    http_put(w, &" Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec "[month * 4], 5);
    http_put_number(w, year);
}

/* IMF-fixdate, RFC 9110 section 5.6.7: Sun, 06 Nov 1994 08:49:37 GMT. Written by hand because strftime() speaks the
 * language of the locale. */
static void put_date(struct http_writer *w, int64_t unix_time)
{
    const int64_t last = 253402300799; /* of the year 9999 */
    uint64_t now = (uint64_t)(unix_time < 0 ? 0 : unix_time > last ? last : unix_time);
    unsigned days = (unsigned)(now / 86400), seconds = (unsigned)(now % 86400);
    http_put(w, &"ThuFriSatSunMonTueWed"[days % 7 * 3], 3); /* 1970 began on a Thursday */
    http_put_text(w, ", ");
    put_day(w, days);
    http_put_text(w, " ");
    put_two_digits(w, seconds / 3600);
    http_put_text(w, ":");
    put_two_digits(w, seconds / 60 % 60);
    http_put_text(w, ":");
    put_two_digits(w, seconds % 60);
    http_put_text(w, " GMT");
}

static void put_status(struct http_writer *w, unsigned status)
{
    http_put_number(w, status);
    http_put_text(w, " ");
    http_put_text(w, http_reason(status));
}

static void put_page(struct http_writer *w, unsigned status, const char *sentence)
{
    http_put_text(w, "<!DOCTYPE html>\n<html><head><title>");
    put_status(w, status);
    http_put_text(w, "</title></head>\n<body><h1>");
    put_status(w, status);
    http_put_text(w, "</h1>\n<p>");
    http_put_text(w, sentence);
    http_put_text(w, "</p></body></html>\n");
}

size_t http_write_error(uint8_t *out, size_t size, const struct http_error *error, int64_t unix_time)
{
    assert(size >= HTTP_REPLY_SIZE_MAX);
    assert(error->status >= 400 && error->status <= 599);
    uint8_t text[HTTP_REPLY_SIZE_MAX / 2];
    struct http_writer page = {.out = text, .size = sizeof text};
    put_page(&page, error->status, error->sentence);
    assert(!page.full);

    struct http_writer w = {.out = out, .size = size};
    http_put_text(&w, "HTTP/1.1 ");
    put_status(&w, error->status);
    http_put_text(&w, "\r\nDate: ");
    put_date(&w, unix_time);
    http_put_text(&w, "\r\nConnection: close\r\nProxy-Status: sluice; error=");
    http_put_text(&w, error->type);
    if (error->status == 407) http_put_text(&w, "\r\nProxy-Authenticate: Basic realm=\"proxy\"");
    if (error->retry_after_s > 0) {
        http_put_text(&w, "\r\nRetry-After: ");
        http_put_number(&w, error->retry_after_s);
    }
    http_put_text(&w, "\r\nContent-Type: text/html\r\nContent-Length: ");
    http_put_number(&w, page.used);
    http_put_text(&w, "\r\n\r\n");
    http_put(&w, text, page.used);
    assert(!w.full);
    return w.used;
}

static void put_basic(struct http_writer *w, const struct credentials *credentials)
{
    uint8_t plain[2 * CREDENTIALS_PART_MAX + 1];
    char encoded[BASE64_SIZE(sizeof plain)];
    struct http_writer pair = {.out = plain, .size = sizeof plain};
    http_put_text(&pair, credentials->user);
    http_put_text(&pair, ":");
    http_put_text(&pair, credentials->password);
    assert(!pair.full);
    http_put_text(w, "Proxy-Authorization: Basic ");
    http_put(w, encoded, base64_encode(plain, pair.used, encoded, sizeof encoded));
    http_put_text(w, "\r\n");
}

/* Whether the upstream proxy will read from the authority what we mean by it. Names come from clients, who may have
 * asked for them in a protocol that lets every octet through. */
static bool can_be_asked_for(const struct address *target)
{
    if (target->kind == ADDRESS_IPV4 || target->kind == ADDRESS_IPV6) return true;
    return target->kind == ADDRESS_NAME && is_host((const uint8_t *)target->name, target->name_size) &&
           strpbrk(target->name, "[]:") == NULL;
}

size_t http_write_connect(uint8_t *out, size_t size, const struct address *target,
                          const struct credentials *credentials)
{
    if (!can_be_asked_for(target)) return 0;
    char authority[ADDRESS_TEXT_SIZE];
    size_t length = address_format(target, authority, sizeof authority);
    struct http_writer w = {.out = out, .size = size};
    http_put_text(&w, "CONNECT ");
    http_put(&w, authority, length);
    http_put_text(&w, " HTTP/1.1\r\nHost: ");
    http_put(&w, authority, length);
    http_put_text(&w, "\r\n");
    if (credentials != NULL && credentials->present) put_basic(&w, credentials);
    http_put_text(&w, "\r\n");
    return http_writer_finish(&w);
}
