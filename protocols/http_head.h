/* Request and status lines and field sections of HTTP/1.x messages (RFC 9112 sections 2-5, RFC 9110 section 5).
 *
 * Requests are read strictly, as leniency enables request smuggling: CRLF line ends only, no blank before a field's
 * colon, no obs-fold, no controls in values, token characters only in names. In responses that is repaired which RFC
 * 9112 tells or allows a proxy to repair: bare LF (section 2.2), obs-fold (5.2), blanks before the colon (5.1). All
 * positions are offsets into the caller's buffer, nothing is copied. */
#ifndef SLUICE_PROTOCOLS_HTTP_HEAD_H
#define SLUICE_PROTOCOLS_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/parse.h"

#define HTTP_HEAD_SIZE_MAX          32767u /* octets of a request head; the contract's 8 KiB refuse real cookies */
#define HTTP_RESPONSE_HEAD_SIZE_MAX 65535u /* octets of a response head */
#define HTTP_FIELDS_MAX             256u

struct http_span {
    uint16_t at;   /* octets from the front of the head */
    uint16_t size; /* octets */
};

struct http_field {
    struct http_span name;  /* at least one tchar */
    struct http_span value; /* without surrounding blanks, may be empty */
};

struct http_head {
    struct http_span method; /* requests */
    struct http_span target; /* requests: as received, no blanks inside */
    uint16_t status;         /* responses: 100...999; those from 600 on have no meaning but do occur */
    struct http_span reason; /* responses: may be empty */
    uint8_t minor;           /* of HTTP/1.minor */
    uint16_t field_count;
    struct http_field fields[HTTP_FIELDS_MAX];
};

/* Both: data, size: octets received so far, at most the respective maximum of which is looked at; *scanned is where the
 * search for the end of the head resumes: 0 at first, kept by the caller between calls, so that N one-octet reads cost
 * O(N). head, used: head is only valid after PARSE_OK; used is then the octets of the head with its empty line, else 0.
 * PARSE_TOO_LARGE: no end within the maximum, or over HTTP_FIELDS_MAX fields. PARSE_BAD comes at once for controls,
 * bare CR, in requests bare LF and folded lines, and for first octets that are no method or version, so that garbage is
 * never waited for; all else is judged when the head is complete. One empty line before a request is accepted (RFC 9112
 * section 2.2), as is a status line without reason. A response's folded lines are made one in place: blanks are written
 * over what separates them. */
enum parse_result http_parse_request(const uint8_t *data, size_t size, size_t *scanned, struct http_head *head,
                                     size_t *used);
enum parse_result http_parse_response(uint8_t *data, size_t size, size_t *scanned, struct http_head *head,
                                      size_t *used);
/* What to refuse a request with after PARSE_TOO_LARGE: 414 if its first line has no end within the maximum, else 431.
 */
unsigned http_status_too_large(const uint8_t *data, size_t size);

/* The value of the first field of that name (no regard to case), or NULL. */
const struct http_field *http_find_field(const uint8_t *data, const struct http_head *head, const char *name);
/* How many fields bear that name. */
unsigned http_count_fields(const uint8_t *data, const struct http_head *head, const char *name);
/* Whether the span reads as `text`, without regard to ASCII case (http_span_is) or exactly (http_span_equals). */
bool http_span_is(const uint8_t *data, struct http_span span, const char *text);
bool http_span_equals(const uint8_t *data, struct http_span span, const char *text);
/* Whether two spans read the same, without regard to ASCII case. */
bool http_spans_match(const uint8_t *data, struct http_span a, struct http_span b);
/* Takes the next item, without blanks around it, off the front of a comma separated list; empty ones are passed over
 * (RFC 9110 section 5.6.1). False when there is none left. */
bool http_list_next(const uint8_t *data, struct http_span *rest, struct http_span *item);
/* Whether a comma separated list in any field of that name holds `token`, without regard to case. */
bool http_list_has(const uint8_t *data, const struct http_head *head, const char *name, const char *token);

#endif
