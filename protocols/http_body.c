/* Framing of HTTP/1.1 message bodies.
 *
 * The chunk machine (RFC 9112 section 7.1), one state for each place where input may end:
 *
 *   SIZE_FIRST -> SIZE -> [BLANK] -> [EXTENSION] -> SIZE_LF, and then
 *     size > 0:   DATA -> DATA_CR -> DATA_LF -> SIZE_FIRST
 *     size is 0:  TRAILER_START -> TRAILER -> TRAILER_LF -> TRAILER_START
 *                 TRAILER_START -> END_LF -> DONE
 *
 * Line ends are CRLF only: a bare LF or CR that one recipient takes for the end of a line and the next one does not is
 * how requests are smuggled. */
#include "protocols/http_body.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum chunk_state {
    CHUNK_SIZE_FIRST, /* at least one digit must come */
    CHUNK_SIZE,
    CHUNK_BLANK,     /* some servers pad the size with blanks, and they may stand before a semicolon */
    CHUNK_EXTENSION, /* anything up to CR, skipped */
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER_START, /* a field line or the empty one */
    CHUNK_TRAILER,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF,
    CHUNK_DONE,
    CHUNK_BROKEN,
};

#define CHUNK_DIGITS_MAX 16u /* of a chunk's size; zeros in front count, so that they cannot go on for ever */

void http_body_begin(struct http_body *body, enum http_framing framing, uint64_t length)
{
    *body = (struct http_body){.framing = (uint8_t)framing, .state = CHUNK_SIZE_FIRST};
    if (framing == HTTP_BODY_LENGTH) body->remaining = length;
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static bool is_text_octet(uint8_t c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7f);
}

/* Each of these takes one octet and returns the next state. */

static enum chunk_state step_blank(struct http_body *body, uint8_t c)
{
    if (c == '\r') return CHUNK_SIZE_LF;
    if (++body->extra > HTTP_CHUNK_EXTENSION_MAX) return CHUNK_BROKEN;
    if (c == ';') return CHUNK_EXTENSION;
    return c == ' ' || c == '\t' ? CHUNK_BLANK : CHUNK_BROKEN;
}

static enum chunk_state step_size(struct http_body *body, uint8_t c)
{
    int digit = hex_value(c);
    if (digit < 0) {
        if (body->state == CHUNK_SIZE_FIRST) return CHUNK_BROKEN;
        body->extra = 0;
        return step_blank(body, c);
    }
    if (++body->extra > CHUNK_DIGITS_MAX) return CHUNK_BROKEN;
    body->remaining = body->remaining << 4 | (unsigned)digit;
    return body->remaining > INT64_MAX ? CHUNK_BROKEN : CHUNK_SIZE;
}

/* Trailers are counted together, extensions line by line; step_size() and step_line_feed() start the count anew. */
static enum chunk_state step_skipped(struct http_body *body, uint8_t c, unsigned limit, enum chunk_state line_feed)
{
    if (c == '\r') return line_feed;
    if (!is_text_octet(c) || ++body->extra > limit) return CHUNK_BROKEN;
    return body->state == CHUNK_EXTENSION ? CHUNK_EXTENSION : CHUNK_TRAILER;
}

static enum chunk_state step_line_feed(struct http_body *body, uint8_t c)
{
    if (c != '\n') return CHUNK_BROKEN;
    switch ((enum chunk_state)body->state) {
    case CHUNK_SIZE_LF: body->extra = 0; return body->remaining > 0 ? CHUNK_DATA : CHUNK_TRAILER_START;
    case CHUNK_DATA_LF: return CHUNK_SIZE_FIRST;
    case CHUNK_TRAILER_LF: return CHUNK_TRAILER_START;
    default: return CHUNK_DONE;
    }
}

static enum chunk_state step_octet(struct http_body *body, uint8_t c)
{
    switch ((enum chunk_state)body->state) {
    case CHUNK_SIZE_FIRST:
    case CHUNK_SIZE: return step_size(body, c);
    case CHUNK_BLANK: return step_blank(body, c);
    case CHUNK_EXTENSION: return step_skipped(body, c, HTTP_CHUNK_EXTENSION_MAX, CHUNK_SIZE_LF);
    case CHUNK_TRAILER_START: return step_skipped(body, c, HTTP_TRAILERS_MAX, CHUNK_END_LF);
    case CHUNK_TRAILER: return step_skipped(body, c, HTTP_TRAILERS_MAX, CHUNK_TRAILER_LF);
    case CHUNK_DATA_CR: return c == '\r' ? CHUNK_DATA_LF : CHUNK_BROKEN;
    case CHUNK_SIZE_LF:
    case CHUNK_DATA_LF:
    case CHUNK_TRAILER_LF:
    case CHUNK_END_LF: return step_line_feed(body, c);
    case CHUNK_DATA:
    case CHUNK_DONE:
    case CHUNK_BROKEN: break;
    }
    abort(); /* read_chunked() takes care of these */
}

/* Takes up to `size` octets of payload; what is known to be missing afterwards is `remaining`. */
static size_t take_payload(struct http_body *body, size_t size)
{
    size_t taken = body->remaining < size ? (size_t)body->remaining : size;
    body->remaining -= taken;
    return taken;
}

static enum parse_result chunk_result(const struct http_body *body)
{
    if (body->state == CHUNK_BROKEN) return PARSE_BAD;
    return body->state == CHUNK_DONE ? PARSE_OK : PARSE_MORE;
}

static enum parse_result read_chunked(struct http_body *body, const uint8_t *data, size_t size, size_t *used,
                                      size_t *payload_at, size_t *payload_size)
{
    while (*used < size && body->state < CHUNK_DONE) {
        if (body->state == CHUNK_DATA) {
            if (*payload_size > 0) return PARSE_MORE; /* a second run: the next call's */
            *payload_at = *used;
            *payload_size = take_payload(body, size - *used);
            *used += *payload_size;
            if (body->remaining == 0) body->state = CHUNK_DATA_CR;
            continue;
        }
        body->state = (uint8_t)step_octet(body, data[*used]);
        if (body->state != CHUNK_BROKEN) ++*used;
    }
    return chunk_result(body);
}

enum parse_result http_body_read(struct http_body *body, const uint8_t *data, size_t size, size_t *used,
                                 size_t *payload_at, size_t *payload_size)
{
    *used = *payload_at = *payload_size = 0;
    switch ((enum http_framing)body->framing) {
    case HTTP_BODY_NONE: return PARSE_OK;
    case HTTP_BODY_LENGTH:
        *used = *payload_size = take_payload(body, size);
        return body->remaining == 0 ? PARSE_OK : PARSE_MORE;
    case HTTP_BODY_CHUNKED: return read_chunked(body, data, size, used, payload_at, payload_size);
    case HTTP_BODY_UNTIL_CLOSE: *used = *payload_size = size; return PARSE_MORE;
    }
    return PARSE_BAD;
}

uint64_t http_body_run(const struct http_body *body)
{
    switch ((enum http_framing)body->framing) {
    case HTTP_BODY_LENGTH: return body->remaining;
    case HTTP_BODY_CHUNKED: return body->state == CHUNK_DATA ? body->remaining : 0;
    case HTTP_BODY_UNTIL_CLOSE: return UINT64_MAX;
    case HTTP_BODY_NONE: break;
    }
    return 0;
}

void http_body_skip_run(struct http_body *body)
{
    assert(http_body_run(body) > 0 && body->framing != HTTP_BODY_UNTIL_CLOSE);
    if (body->framing == HTTP_BODY_CHUNKED) body->state = CHUNK_DATA_CR;
    body->remaining = 0;
}

bool http_body_complete_at_close(const struct http_body *body)
{
    if (body->framing == HTTP_BODY_CHUNKED) return body->state == CHUNK_DONE;
    return body->framing == HTTP_BODY_UNTIL_CLOSE || body->remaining == 0;
}

enum length_verdict { LENGTH_OK, LENGTH_BAD, LENGTH_TOO_LARGE };

/* 1*DIGIT, up to what a signed counter holds: whoever is behind us may count with one */
static enum length_verdict parse_length(const uint8_t *data, struct http_span span, uint64_t *length)
{
    bool fits = true;
    *length = 0;
    for (size_t i = 0; i < span.size; i++) {
        uint8_t c = data[span.at + i];
        if (c < '0' || c > '9') return LENGTH_BAD;
        unsigned digit = (unsigned)(c - '0');
        fits = fits && *length <= ((uint64_t)INT64_MAX - digit) / 10;
        if (fits) *length = *length * 10 + digit;
    }
    if (span.size == 0) return LENGTH_BAD;
    return fits ? LENGTH_OK : LENGTH_TOO_LARGE;
}

static unsigned count_octets(const uint8_t *data, struct http_span span, uint8_t octet)
{
    unsigned count = 0;
    for (size_t i = 0; i < span.size; i++) count += data[span.at + i] == octet;
    return count;
}

/* RFC 9110 section 8.6: of several equal lengths, as fields or as a list in one, a recipient may make one. Nothing else
 * will do: no empty item, no other number. */
static enum length_verdict parse_equal_lengths(const uint8_t *data, const struct http_head *head, uint64_t *length)
{
    bool first = true;
    for (size_t i = 0; i < head->field_count; i++) {
        if (!http_span_is(data, head->fields[i].name, "Content-Length")) continue;
        struct http_span rest = head->fields[i].value, item;
        unsigned items = 0, expected = count_octets(data, rest, ',') + 1;
        for (uint64_t one; http_list_next(data, &rest, &item); items++, first = false, *length = one) {
            enum length_verdict verdict = parse_length(data, item, &one);
            if (verdict != LENGTH_OK) return verdict;
            if (!first && one != *length) return LENGTH_BAD;
        }
        if (items != expected) return LENGTH_BAD;
    }
    return LENGTH_OK;
}

static unsigned judge_coding(const uint8_t *data, const struct http_head *head)
{
    bool bare = http_span_is(data, http_find_field(data, head, "Transfer-Encoding")->value, "chunked");
    return bare && head->minor > 0 ? 0 : 400;
}

unsigned http_body_judge(const uint8_t *data, const struct http_head *head, enum http_framing otherwise,
                         enum http_framing *framing, uint64_t *length)
{
    unsigned lengths = http_count_fields(data, head, "Content-Length");
    unsigned codings = http_count_fields(data, head, "Transfer-Encoding");
    bool is_response = head->status != 0;
    *framing = otherwise;
    *length = 0;
    if (lengths + codings == 0) return 0;
    if (codings > 1 || (codings == 1 && lengths > 0) || (lengths > 1 && !is_response)) return 400;
    if (codings == 1) {
        *framing = HTTP_BODY_CHUNKED;
        return judge_coding(data, head);
    }
    *framing = HTTP_BODY_LENGTH;
    switch (is_response ? parse_equal_lengths(data, head, length)
                        : parse_length(data, http_find_field(data, head, "Content-Length")->value, length)) {
    case LENGTH_OK: return 0;
    case LENGTH_BAD: return 400;
    case LENGTH_TOO_LARGE: return 413;
    }
    return 400;
}

size_t http_write_chunk_head(uint8_t *out, size_t size, uint64_t payload)
{
    assert(payload > 0); /* a chunk of nothing would end the body */
    size_t digits = 0;
    for (uint64_t rest = payload; rest != 0; rest >>= 4) digits++;
    assert(size >= digits + 2);
    for (size_t at = digits; at > 0; payload >>= 4) out[--at] = (uint8_t) "0123456789abcdef"[payload & 15];
    memcpy(out + digits, "\r\n", 2);
    return digits + 2;
}

size_t http_write_last_chunk(uint8_t *out, size_t size)
{
    static const char last[] = "0\r\n\r\n";
    assert(size >= sizeof last - 1);
    memcpy(out, last, sizeof last - 1);
    return sizeof last - 1;
}
