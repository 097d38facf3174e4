/* Framing of HTTP/1.1 message bodies (RFC 9112 sections 6 and 7): by length, chunked, until close. A machine of a few
 * octets that is fed what was received and points at the payload in it; nothing is copied. */
#ifndef SLUICE_PROTOCOLS_HTTP_BODY_H
#define SLUICE_PROTOCOLS_HTTP_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/http_head.h"
#include "protocols/parse.h"

enum http_framing { HTTP_BODY_NONE, HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED, HTTP_BODY_UNTIL_CLOSE };

struct http_body {
    uint8_t framing;    /* enum http_framing */
    uint8_t state;      /* of the chunk machine; private */
    uint16_t extra;     /* digits, octets of extensions or trailers seen; private, bounded */
    uint64_t remaining; /* octets of the body (LENGTH) or of the chunk (CHUNKED) still to come */
};

/* The framing that a head's fields declare (RFC 9112 section 6.3, before method and status have their say);
 * `otherwise` if they declare none. Returns 0, or the status to refuse the message with: 400 for a Content-Length that
 * is no number, for more than one of Content-Length and Transfer-Encoding (even if equal; only a response may say the
 * same length twice, RFC 9110 section 8.6), for any transfer coding but a bare `chunked` and for one in HTTP/1.0; 413
 * for a length beyond INT64_MAX. A response gets 502 for either. */
unsigned http_body_judge(const uint8_t *data, const struct http_head *head, enum http_framing otherwise,
                         enum http_framing *framing, uint64_t *length);

/* length: octets, for LENGTH; not looked at otherwise. */
void http_body_begin(struct http_body *body, enum http_framing framing, uint64_t length);

#define HTTP_CHUNK_EXTENSION_MAX 1024u /* octets between a chunk's size and its CRLF */
#define HTTP_TRAILERS_MAX        8191u /* octets of all trailer lines, without their CRLF */

/* Consumes a piece of what was received. PARSE_OK: the body is complete, `used` octets belonged to it; that is also the
 * answer, with size 0, when nothing is to come. PARSE_MORE: `used` octets were consumed (0 only if size is 0). In every
 * case *payload_at and *payload_size (may be 0) tell the body's octets within data; at most one run of payload per
 * call, so the caller calls again with the rest while `used` < size and it says MORE. PARSE_BAD: broken chunk syntax or
 * an overflowing size, and so for ever after; `used` is where. Extensions and trailers are skipped, bounded. */
enum parse_result http_body_read(struct http_body *body, const uint8_t *data, size_t size, size_t *used,
                                 size_t *payload_at, size_t *payload_size);

/* Octets of payload that are known to come next, without framing between them: of the whole body (LENGTH), of the chunk
 * (CHUNKED, once its size line is read), UINT64_MAX (UNTIL_CLOSE); else 0. */
uint64_t http_body_run(const struct http_body *body);
/* All of that run has been passed on without http_body_read(). Not for UINT64_MAX. */
void http_body_skip_run(struct http_body *body);

/* Whether the message is complete if the connection ends now (UNTIL_CLOSE, or nothing left). */
bool http_body_complete_at_close(const struct http_body *body);

#define HTTP_CHUNK_OVERHEAD 20u /* octets: longest size line and the CRLF behind the data */
size_t http_write_chunk_head(uint8_t *out, size_t size, uint64_t payload); /* hex CRLF; payload > 0 */
size_t http_write_last_chunk(uint8_t *out, size_t size);                   /* "0\r\n\r\n" */

#endif
