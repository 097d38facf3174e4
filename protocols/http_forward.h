/* What a forwarding proxy does to plain HTTP messages (RFC 9110 section 7.6, RFC 9112 section 6): takes a parsed head,
 * decides target and framing, writes the head that goes on. Pure: no I/O, no clock. */
#ifndef SLUICE_PROTOCOLS_HTTP_FORWARD_H
#define SLUICE_PROTOCOLS_HTTP_FORWARD_H

#include "protocols/address.h"
#include "protocols/http_body.h"
#include "protocols/http_head.h"

#define HTTP_OPTIONS_MAX 100u /* commas in all Connection fields of a head; nobody needs more than a few */

struct http_forward_request {
    struct address target;     /* from the absolute-form target; default port 80 */
    enum http_framing framing; /* of the request body: NONE, LENGTH or CHUNKED */
    uint64_t length;           /* octets, for LENGTH */
    bool head_method;          /* HEAD: the response has no body whatever it says */
    bool upgrade;              /* a bodiless request with Connection: upgrade and an Upgrade field, to other than h2c */
    bool client_is_http10;     /* a chunked response must be delivered until close instead */
    bool persistent;           /* the client expects its connection to go on (RFC 9112 section 9.3) */
    bool repeatable;           /* may be sent again when its connection ends without an answer: the method is idempotent
                                * (RFC 9110 section 9.2.2), and there is neither a body nor an upgrade */
    bool binds;                /* authenticates the connection rather than itself, see http_forward_response.binds */
    bool keep_upstream; /* the upstream is asked for a connection that goes on. The caller's to set; judged false,
                         * and without effect where the message cannot ask for it: HTTP/1.0 and an upgrade */
};

/* Judges a request head that is not CONNECT. Returns 0, or the HTTP status to refuse it with: 400 (origin-form, other
 * scheme than http, no host, duplicate Host, over HTTP_OPTIONS_MAX commas in Connection, and what http_body_judge()
 * refuses), 413. `request` is only valid after 0.
 */
unsigned http_forward_judge(const uint8_t *data, const struct http_head *head, struct http_forward_request *request);

/* Of a request that was judged good: where its path and query stand; empty: it has neither. */
struct http_span http_forward_path(const uint8_t *data, const struct http_head *head);

/* Writes the upstream request head (contract section 2.5): METHOD /path?query HTTP/1.x, Host as given in the target's
 * authority, end-to-end fields in order, Via appended ("1.1 sluice", 1.0 for such a client), framing, `Connection:
 * close` unless keep_upstream has its way (or Connection: upgrade + Upgrade). Dropped: Connection, Keep-Alive,
 * Proxy-Connection, Proxy-Authorization, Proxy-Authenticate, Proxy-Authentication-Info, TE, Trailer, Upgrade,
 * Transfer-Encoding, and what Connection names. OPTIONS without a path is sent as `OPTIONS *`. Returns octets, 0 if
 * `size` is too small (-> 413). */
size_t http_forward_write_request(const uint8_t *data, const struct http_head *head,
                                  const struct http_forward_request *request, uint8_t *out, size_t size);

struct http_forward_response {
    enum http_framing framing; /* how the upstream frames it */
    uint64_t length;
    bool interim;  /* 1xx except 101: another head follows. Not for HTTP/1.0 clients: skip it (RFC 9110 section 15.2) */
    bool switched; /* 101 in answer to our upgrade: raw relay from here */
    bool rechunk;  /* deliver chunked to the client; else by length or until close */
    bool keep;     /* the client's connection goes on behind it: it wants to, and the body's end will be known without
                    * an end of the connection. Whoever writes the head may clear it */
    bool keep_upstream; /* the upstream's connection goes on behind it: it was asked to and says so, and the end of this
                         * response will be known (RFC 9112 section 9.3) */
    bool binds;         /* asks for an authentication that belongs to the connection (NTLM, Negotiate; RFC 4559 section
                         * 6): from here on it must carry requests of this client alone */
};

/* Judges a response head. Returns 0 or 502. Rules of RFC 9112 section 6.3 (HEAD, 1xx, 204, 304 have no body); a 101
 * that was not asked for is 502. */
unsigned http_forward_judge_response(const uint8_t *data, const struct http_head *head,
                                     const struct http_forward_request *request,
                                     struct http_forward_response *response);

/* Writes the head that goes to the client: HTTP/1.1, canonical reason (contract 2.5), hop-by-hop fields dropped,
 * Via added, `Connection: close` unless it is kept (`keep-alive` for HTTP/1.0; nothing for 1xx; `upgrade` and Upgrade
 * for 101), framing. HEAD and 304 keep their Content-Length, 1xx and 204 lose it. Returns octets, 0 if `size` is too
 * small (-> 502). */
size_t http_forward_write_response(const uint8_t *data, const struct http_head *head,
                                   const struct http_forward_request *request,
                                   const struct http_forward_response *response, uint8_t *out, size_t size);

#endif
