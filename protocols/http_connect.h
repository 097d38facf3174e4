/* CONNECT (RFC 9110 section 9.3.6), Basic proxy credentials (RFC 7617) and the proxy's own replies, both sides. */
#ifndef SLUICE_PROTOCOLS_HTTP_CONNECT_H
#define SLUICE_PROTOCOLS_HTTP_CONNECT_H

#include "protocols/address.h"
#include "protocols/credentials.h"
#include "protocols/http_head.h"

/* The target of a CONNECT: authority-form with a port (a missing one is the client's error: 400). IPv6 in brackets. */
bool http_parse_authority(const uint8_t *data, struct http_span span, struct address *target);

/* The same for any authority without user: a missing or empty port is `default_port`, or refused if that is 0. Port 0
 * and hosts with octets that would end the authority elsewhere are refused. */
bool http_parse_host_port(const uint8_t *data, struct http_span span, uint16_t default_port, struct address *target);

/* Judges the whole head of a CONNECT. Returns 0 and the target, or the status to refuse it with: 400 or 413, also for
 * the framing faults and the second Host that would refuse any other request, though CONNECT has no use for either. */
unsigned http_connect_judge(const uint8_t *data, const struct http_head *head, struct address *target);

enum http_auth_result { HTTP_AUTH_ABSENT, HTTP_AUTH_OK, HTTP_AUTH_OTHER, HTTP_AUTH_BAD };
/* Basic credentials of the Proxy-Authorization field; the scheme without regard to case, split at the first colon.
 * HTTP_AUTH_OTHER: another scheme, which is no fault of the request; clients send what they have. HTTP_AUTH_BAD: a
 * second such field, what is no base64 of a user, a colon and a password, parts over CREDENTIALS_PART_MAX or with
 * controls. credentials  written on HTTP_AUTH_OK only. */
enum http_auth_result http_parse_proxy_authorization(const uint8_t *data, const struct http_head *head,
                                                     struct credentials *credentials);

/* Overwrites the credentials of each such field, behind the scheme, with asterisks: the head stays one of the same
 * length, without the secret. */
void http_hide_proxy_authorization(uint8_t *data, const struct http_head *head);

#define HTTP_REPLY_SIZE_MAX 1024u
/* The success line of a tunnel: "HTTP/1.1 200 Connection established\r\n\r\n". Returns octets. */
size_t http_write_established(uint8_t *out, size_t size);
struct http_error {
    unsigned status;        /* 400...599 */
    const char *type;       /* of Proxy-Status, RFC 9209 section 2.3 */
    const char *sentence;   /* less than 100 octets of ASCII without markup */
    uint32_t retry_after_s; /* 0: nothing is said of it */
};
/* A whole error reply: status line with the standard reason (413 "Content Too Large"), Date, Connection: close,
 * `Proxy-Status: sluice; error=TYPE`, Content-Type, Content-Length, a short HTML page with the sentence; for 407 also
 * `Proxy-Authenticate: Basic realm="proxy"`; with retry_after_s Retry-After (RFC 9110 section 10.2.3). unix_time
 * seconds, for Date (IMF-fixdate). size >= HTTP_REPLY_SIZE_MAX.
 */
size_t http_write_error(uint8_t *out, size_t size, const struct http_error *error, int64_t unix_time);
/* The canonical reason phrase of a status code, "" if unknown. */
const char *http_reason(unsigned status);

#define HTTP_CONNECT_SIZE_MAX 2048u
/* Client side: CONNECT host:port HTTP/1.1 with Host and, if present, Proxy-Authorization (credentials may be NULL).
 * size >= HTTP_CONNECT_SIZE_MAX. Returns octets, 0 for a target that cannot be asked for: a path, or a name with octets
 * that no authority holds. */
size_t http_write_connect(uint8_t *out, size_t size, const struct address *target,
                          const struct credentials *credentials);

#endif
