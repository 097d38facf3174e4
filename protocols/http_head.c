/* Heads of HTTP/1.x messages.
 *
 * Two steps, so that a head which comes one octet at a time costs no more than one that comes whole:
 *
 *   find_end      looks at every octet once, however often it is called: refuses controls and bare CR, in requests bare
 *                 LF and folded lines as well, and finds the empty line. What it cannot decide yet (a CR at the end) it
 *                 leaves for next time.
 *   parse_*       runs once, when the head is complete, and may rely on what find_end saw: lines end with LF, in
 * requests with CRLF, and hold no controls but tabs. It makes one line of folded ones and cuts lines into spans. */
#include "protocols/http_head.h"

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

/* How a head is read. Requests are held to the letter, as whoever is behind us may read on where we stop. In responses
 * what RFC 9112 lets a recipient repair is repaired: what follows them unasked is passed on to nobody. */
enum rigour { STRICT, LENIENT };

/* Judges the end of a line, whose CR or LF should be at `p`. PARSE_OK: *skip octets on begins the next line, or, behind
 * an empty line (*last), the rest of the connection. A line that begins with a blank is a fold. */
static enum parse_result judge_line_end(const uint8_t *p, size_t size, enum rigour rigour, size_t *skip, bool *last)
{
    size_t end = rigour == LENIENT && p[0] == '\n' ? 1 : 2;
    assert(size > 0);
    if (end == 2 && p[0] != '\r') return PARSE_BAD;
    if (size < end) return PARSE_MORE;
    if (p[end - 1] != '\n') return PARSE_BAD;
    if (size == end) return PARSE_MORE;
    *skip = end;
    if (is_token_octet(p[end]) || (rigour == LENIENT && is_blank(p[end]))) return PARSE_OK;
    *last = true;
    *skip = end + 1;
    if (rigour == LENIENT && p[end] == '\n') return PARSE_OK;
    if (p[end] != '\r') return PARSE_BAD;
    if (size < end + 2) return PARSE_MORE;
    *skip = end + 2;
    return p[end + 1] == '\n' ? PARSE_OK : PARSE_BAD;
}

/* PARSE_OK: the head ends at *scanned. PARSE_MORE: the search goes on there. */
static enum parse_result find_end(const uint8_t *data, size_t size, enum rigour rigour, size_t *scanned)
{
    for (bool last = false; !last;) {
        *scanned = skip_text(data, *scanned, size);
        if (*scanned == size) return PARSE_MORE;
        size_t skip = 0;
        enum parse_result result = judge_line_end(data + *scanned, size - *scanned, rigour, &skip, &last);
        if (result != PARSE_OK) return result;
        *scanned += skip;
    }
    return PARSE_OK;
}

/* Folded lines become one: what separates them becomes blanks (RFC 9112 section 5.2). False: the first of these lines
 * is folded, but there is nothing in front that it could belong to (section 2.2). */
static bool unfold(uint8_t *data, size_t at, size_t end)
{
    assert(at < end); /* the empty line at least */
    if (is_blank(data[at])) return false;
    for (;;) {
        uint8_t *lf = memchr(data + at, '\n', end - at);
        at = (size_t)(lf - data) + 1;
        if (at == end) return true;
        if (!is_blank(data[at])) continue;
        lf[0] = ' ';
        if (lf[-1] == '\r') lf[-1] = ' ';
    }
}

static struct http_span span_of(size_t from, size_t to)
{
    assert(from <= to && to <= UINT16_MAX);
    return (struct http_span){(uint16_t)from, (uint16_t)(to - from)};
}

/* The line at *at, which is moved behind its end. find_end() has seen that there is one before `end`. */
static struct http_span take_line(const uint8_t *data, size_t *at, size_t end)
{
    const uint8_t *lf = memchr(data + *at, '\n', end - *at);
    assert(lf != NULL);
    size_t line_end = (size_t)(lf - data), from = *at;
    *at = line_end + 1;
    return span_of(from, line_end > from && data[line_end - 1] == '\r' ? line_end - 1 : line_end);
}

static struct http_span trim(const uint8_t *data, struct http_span span)
{
    while (span.size > 0 && is_blank(data[span.at])) span.at++, span.size--;
    while (span.size > 0 && is_blank(data[span.at + span.size - 1])) span.size--;
    return span;
}

/* field-line = field-name ":" OWS field-value OWS. Blanks between the name and its colon refuse a request; a proxy must
 * remove them from a response (RFC 9112 section 5.1). */
static bool parse_field(const uint8_t *data, struct http_span line, enum rigour rigour, struct http_field *field)
{
    size_t size = 0;
    while (size < line.size && is_token_octet(data[line.at + size])) size++;
    size_t colon = size;
    while (rigour == LENIENT && colon < line.size && is_blank(data[line.at + colon])) colon++;
    if (size == 0 || colon == line.size || data[line.at + colon] != ':') return false;
    field->name = span_of(line.at, line.at + size);
    field->value = trim(data, span_of(line.at + colon + 1, (size_t)line.at + line.size));
    return true;
}

static enum parse_result parse_fields(const uint8_t *data, size_t at, size_t end, enum rigour rigour,
                                      struct http_head *head)
{
    head->field_count = 0;
    for (;;) {
        struct http_span line = take_line(data, &at, end);
        if (line.size == 0) return PARSE_OK;
        if (head->field_count == HTTP_FIELDS_MAX) return PARSE_TOO_LARGE;
        if (!parse_field(data, line, rigour, &head->fields[head->field_count])) return PARSE_BAD;
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

enum parse_result http_parse_request(const uint8_t *data, size_t size, size_t *scanned, struct http_head *head,
                                     size_t *used)
{
    size_t start, whole = size;
    *used = 0;
    if (size > HTTP_HEAD_SIZE_MAX) size = HTTP_HEAD_SIZE_MAX;
    if (!request_may_begin(data, size, &start)) return PARSE_BAD;
    if (*scanned < start) *scanned = start;
    if (start > size) return PARSE_MORE;
    enum parse_result result = find_end(data, size, STRICT, scanned);
    if (result == PARSE_MORE && whole >= HTTP_HEAD_SIZE_MAX) return PARSE_TOO_LARGE;
    if (result != PARSE_OK) return result;
    size_t end = *scanned, at = start;
    if (!parse_request_line(data, take_line(data, &at, end), head)) return PARSE_BAD;
    result = parse_fields(data, at, end, STRICT, head);
    if (result == PARSE_OK) *used = end;
    return result;
}

unsigned http_status_too_large(const uint8_t *data, size_t size)
{
    size_t start = size > 0 && data[0] == '\r' ? 2 : 0;
    if (size > HTTP_HEAD_SIZE_MAX) size = HTTP_HEAD_SIZE_MAX;
    return size > start && memchr(data + start, '\n', size - start) != NULL ? 431 : 414;
}

enum parse_result http_parse_response(uint8_t *data, size_t size, size_t *scanned, struct http_head *head, size_t *used)
{
    size_t whole = size;
    *used = 0;
    if (size > HTTP_RESPONSE_HEAD_SIZE_MAX) size = HTTP_RESPONSE_HEAD_SIZE_MAX;
    if (!response_may_begin(data, size)) return PARSE_BAD;
    enum parse_result result = find_end(data, size, LENIENT, scanned);
    if (result == PARSE_MORE && whole >= HTTP_RESPONSE_HEAD_SIZE_MAX) return PARSE_TOO_LARGE;
    if (result != PARSE_OK) return result;
    size_t end = *scanned, at = 0;
    if (!parse_status_line(data, take_line(data, &at, end), head) || !unfold(data, at, end)) return PARSE_BAD;
    result = parse_fields(data, at, end, LENIENT, head);
    if (result == PARSE_OK) *used = end;
    return result;
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
