/* Heads of HTTP/1.x messages.
 *
 * Two steps, so that a head which comes one octet at a time costs no more than one that comes whole:
 *
 *   find_end      looks at every octet once, however often it is called: refuses controls, bare CR and LF, folded
 *                 lines, and finds the empty line. What it cannot decide yet (a CR at the end) it leaves for next time.
 *   parse_*       runs once, when the head is complete, and may rely on what find_end saw: lines end with CRLF and hold
 *                 no controls but tabs. It cuts lines into spans. */
#include "http_head.h"

#include <assert.h>
#include <string.h>

#define METHOD_LOOKAHEAD 32u /* octets in which garbage instead of a method is noticed before the head is complete */

static_assert(HTTP_RESPONSE_HEAD_SIZE_MAX <= UINT16_MAX, "spans hold 16 bits");

/* tchar of RFC 9110 section 5.6.2, one bit an octet */
static bool is_token_octet(uint8_t c)
{
    static const uint64_t tokens[2] = {0x03ff6cfa00000000u, 0x57ffffffc7fffffeu};
    return c < 128 && (tokens[c / 64] >> (c % 64) & 1) != 0;
}

static bool is_token(const uint8_t *data, struct http_span span)
{
    for (size_t i = 0; i < span.size; i++) {
        if (!is_token_octet(data[span.at + i])) return false;
    }
    return span.size > 0;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static bool is_text_octet(uint8_t c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7f);
}

/* Whether one of eight octets is below 0x20 or is 0x7f; a tab counts too and is sorted out by the caller. */
static bool word_has_control(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t del = word ^ ones * 0x7f;
    uint64_t low = (word - ones * 0x20) & ~word;
    return ((low | ((del - ones) & ~del)) & ones * 0x80) != 0;
}

static size_t skip_text(const uint8_t *data, size_t at, size_t end)
{
    for (uint64_t word; end - at >= sizeof word; at += sizeof word) {
        memcpy(&word, data + at, sizeof word);
        if (word_has_control(word)) break;
    }
    while (at < end && is_text_octet(data[at])) at++;
    return at;
}

/* Judges the end of a line, whose CR should be at `p`. PARSE_OK: *skip octets on begins the next line, or, behind an
 * empty line, the rest of the connection (then skip is 4). A line that begins with a blank would be a fold. */
static enum parse_result judge_line_end(const uint8_t *p, size_t size, size_t *skip)
{
    assert(size > 0);
    if (p[0] != '\r') return PARSE_BAD;
    if (size < 2) return PARSE_MORE;
    if (p[1] != '\n') return PARSE_BAD;
    if (size < 3) return PARSE_MORE;
    *skip = 2;
    if (is_token_octet(p[2])) return PARSE_OK;
    if (p[2] != '\r') return PARSE_BAD;
    if (size < 4) return PARSE_MORE;
    *skip = 4;
    return p[3] == '\n' ? PARSE_OK : PARSE_BAD;
}

/* PARSE_OK: the head ends at *scanned. PARSE_MORE: the search goes on there. */
static enum parse_result find_end(const uint8_t *data, size_t size, size_t *scanned)
{
    for (;;) {
        *scanned = skip_text(data, *scanned, size);
        if (*scanned == size) return PARSE_MORE;
        size_t skip = 0;
        enum parse_result result = judge_line_end(data + *scanned, size - *scanned, &skip);
        if (result != PARSE_OK) return result;
        *scanned += skip;
        if (skip == 4) return PARSE_OK;
    }
}

static struct http_span span_of(size_t from, size_t to)
{
    assert(from <= to && to <= UINT16_MAX);
    return (struct http_span){(uint16_t)from, (uint16_t)(to - from)};
}

/* The line at *at, which is moved behind its CRLF. find_end() has seen that there is one before `end`. */
static struct http_span take_line(const uint8_t *data, size_t *at, size_t end)
{
    const uint8_t *cr = memchr(data + *at, '\r', end - *at);
    assert(cr != NULL);
    struct http_span line = span_of(*at, (size_t)(cr - data));
    *at += line.size + 2u;
    return line;
}

static struct http_span trim(const uint8_t *data, struct http_span span)
{
    while (span.size > 0 && is_blank(data[span.at])) span.at++, span.size--;
    while (span.size > 0 && is_blank(data[span.at + span.size - 1])) span.size--;
    return span;
}

/* field-line = field-name ":" OWS field-value OWS; nothing may stand between the name and its colon */
static bool parse_field(const uint8_t *data, struct http_span line, struct http_field *field)
{
    size_t size = 0;
    while (size < line.size && is_token_octet(data[line.at + size])) size++;
    if (size == 0 || size == line.size || data[line.at + size] != ':') return false;
    field->name = span_of(line.at, line.at + size);
    field->value = trim(data, span_of(line.at + size + 1, (size_t)line.at + line.size));
    return true;
}

static enum parse_result parse_fields(const uint8_t *data, size_t at, size_t end, struct http_head *head)
{
    head->field_count = 0;
    for (;;) {
        struct http_span line = take_line(data, &at, end);
        if (line.size == 0) return PARSE_OK;
        if (head->field_count == HTTP_FIELDS_MAX) return PARSE_TOO_LARGE;
        if (!parse_field(data, line, &head->fields[head->field_count])) return PARSE_BAD;
        head->field_count++;
    }
}

/* "HTTP/1." and a digit; upper case only (RFC 9112 section 2.3) */
static bool parse_version(const uint8_t *data, struct http_span span, uint8_t *minor)
{
    if (span.size != 8 || memcmp(data + span.at, "HTTP/1.", 7) != 0) return false;
    uint8_t digit = data[span.at + 7];
    *minor = (uint8_t)(digit - '0');
    return digit >= '0' && digit <= '9';
}

/* Cuts what stands before the first space of *rest; without a space that is everything. */
static struct http_span take_word(const uint8_t *data, struct http_span *rest)
{
    size_t end = (size_t)rest->at + rest->size;
    const uint8_t *space = memchr(data + rest->at, ' ', rest->size);
    size_t at = space != NULL ? (size_t)(space - data) : end;
    struct http_span word = span_of(rest->at, at);
    *rest = span_of(space != NULL ? at + 1 : end, end);
    return word;
}

/* method SP request-target SP HTTP-version, each space exactly one */
static bool parse_request_line(const uint8_t *data, struct http_span line, struct http_head *head)
{
    head->method = take_word(data, &line);
    head->target = take_word(data, &line);
    head->status = 0;
    head->reason = (struct http_span){0};
    if (head->target.size == 0 || memchr(data + head->target.at, '\t', head->target.size) != NULL) return false;
    return is_token(data, head->method) && parse_version(data, line, &head->minor);
}

/* HTTP-version SP status-code [SP [reason]]; servers that leave out the last space are common enough */
static bool parse_status_line(const uint8_t *data, struct http_span line, struct http_head *head)
{
    struct http_span version = take_word(data, &line);
    struct http_span code = take_word(data, &line);
    unsigned status = 0;
    for (size_t i = 0; i < code.size; i++) {
        uint8_t c = data[code.at + i];
        if (i == 3 || c < '0' || c > '9') return false;
        status = status * 10 + (unsigned)(c - '0');
    }
    head->status = (uint16_t)status;
    head->reason = line;
    head->method = head->target = (struct http_span){0};
    return code.size == 3 && status >= 100 && parse_version(data, version, &head->minor);
}

/* Whether these may be the first octets of a request; *start is where its line begins, which may be beyond `size`. */
static bool request_may_begin(const uint8_t *data, size_t size, size_t *start)
{
    *start = 0;
    if (size > 0 && data[0] == '\r') {
        if (size > 1 && data[1] != '\n') return false;
        *start = 2;
    }
    for (size_t at = *start; at < size && at - *start < METHOD_LOOKAHEAD; at++) {
        if (data[at] == ' ') return at > *start;
        if (!is_token_octet(data[at])) return false;
    }
    return true;
}

static bool response_may_begin(const uint8_t *data, size_t size)
{
    static const char version[] = "HTTP/1.";
    size_t known = sizeof version - 1;
    return size == 0 || memcmp(data, version, size < known ? size : known) == 0;
}

/* The part that requests and responses share: everything but the first line. `size` is already cut to `size_max`. */
static enum parse_result parse_rest(const uint8_t *data, size_t size, size_t size_max, size_t start, size_t *scanned,
                                    struct http_head *head, size_t *used,
                                    bool (*parse_line)(const uint8_t *, struct http_span, struct http_head *))
{
    if (*scanned < start) *scanned = start;
    if (start > size) return PARSE_MORE;
    enum parse_result result = find_end(data, size, scanned);
    if (result == PARSE_MORE && size == size_max) return PARSE_TOO_LARGE;
    if (result != PARSE_OK) return result;

    size_t end = *scanned, at = start;
    if (!parse_line(data, take_line(data, &at, end), head)) return PARSE_BAD;
    result = parse_fields(data, at, end, head);
    if (result == PARSE_OK) *used = end;
    return result;
}

enum parse_result http_parse_request(const uint8_t *data, size_t size, size_t *scanned, struct http_head *head,
                                     size_t *used)
{
    *used = 0;
    size_t start;
    if (size > HTTP_HEAD_SIZE_MAX) size = HTTP_HEAD_SIZE_MAX;
    if (!request_may_begin(data, size, &start)) return PARSE_BAD;
    return parse_rest(data, size, HTTP_HEAD_SIZE_MAX, start, scanned, head, used, parse_request_line);
}

enum parse_result http_parse_response(const uint8_t *data, size_t size, size_t *scanned, struct http_head *head,
                                      size_t *used)
{
    *used = 0;
    if (size > HTTP_RESPONSE_HEAD_SIZE_MAX) size = HTTP_RESPONSE_HEAD_SIZE_MAX;
    if (!response_may_begin(data, size)) return PARSE_BAD;
    return parse_rest(data, size, HTTP_RESPONSE_HEAD_SIZE_MAX, 0, scanned, head, used, parse_status_line);
}

static uint8_t to_lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

bool http_span_is(const uint8_t *data, struct http_span span, const char *text)
{
    for (size_t i = 0; i < span.size; i++) {
        if (text[i] == '\0' || to_lower(data[span.at + i]) != to_lower((uint8_t)text[i])) return false;
    }
    return text[span.size] == '\0';
}

bool http_span_equals(const uint8_t *data, struct http_span span, const char *text)
{
    return strlen(text) == span.size && memcmp(data + span.at, text, span.size) == 0;
}

bool http_spans_match(const uint8_t *data, struct http_span a, struct http_span b)
{
    if (a.size != b.size) return false;
    for (size_t i = 0; i < a.size; i++) {
        if (to_lower(data[a.at + i]) != to_lower(data[b.at + i])) return false;
    }
    return true;
}

const struct http_field *http_find_field(const uint8_t *data, const struct http_head *head, const char *name)
{
    for (size_t i = 0; i < head->field_count; i++) {
        if (http_span_is(data, head->fields[i].name, name)) return &head->fields[i];
    }
    return NULL;
}

unsigned http_count_fields(const uint8_t *data, const struct http_head *head, const char *name)
{
    unsigned count = 0;
    for (size_t i = 0; i < head->field_count; i++) count += http_span_is(data, head->fields[i].name, name);
    return count;
}

bool http_list_next(const uint8_t *data, struct http_span *rest, struct http_span *item)
{
    while (rest->size > 0) {
        size_t end = (size_t)rest->at + rest->size;
        const uint8_t *comma = memchr(data + rest->at, ',', rest->size);
        size_t at = comma != NULL ? (size_t)(comma - data) : end;
        *item = trim(data, span_of(rest->at, at));
        *rest = span_of(comma != NULL ? at + 1 : end, end);
        if (item->size > 0) return true;
    }
    return false;
}

bool http_list_has(const uint8_t *data, const struct http_head *head, const char *name, const char *token)
{
    for (size_t i = 0; i < head->field_count; i++) {
        if (!http_span_is(data, head->fields[i].name, name)) continue;
        struct http_span rest = head->fields[i].value, item;
        while (http_list_next(data, &rest, &item)) {
            if (http_span_is(data, item, token)) return true;
        }
    }
    return false;
}
