/* URIs of upstream proxies, as -x takes them: scheme://[user[:password]@]host[:port][#ignored] (RFC 3986). */
#ifndef SLUICE_PROTOCOLS_URL_H
#define SLUICE_PROTOCOLS_URL_H

#include "protocols/address.h"
#include "protocols/credentials.h"

enum proxy_scheme { PROXY_HTTP, PROXY_SOCKS4A, PROXY_SOCKS5 };

struct proxy_uri {
    enum proxy_scheme scheme;
    struct address address; /* default ports: http 80, socks4a and socks5 1080 */
    struct credentials credentials;
};

/* Parses one URI (contract section 1.3). Scheme without regard to case; user and password percent-decoded, decoded
 * controls and bad escapes refused, each at most CREDENTIALS_PART_MAX; an @ in them must be escaped; a path of "/"
 * alone is tolerated; a fragment is dropped. Returns NULL on success, or a static text that says what is wrong (`out`
 * is then untouched). */
const char *proxy_uri_parse(const char *text, size_t size, struct proxy_uri *out);

/* The part behind a scheme alone, [user[:password]@]host[:port], by the same rules: writes address and credentials. */
const char *url_authority_parse(const char *text, size_t size, uint16_t default_port, struct proxy_uri *out);

/* Whether both name the same proxy, and the same user and password. */
bool proxy_uri_equal(const struct proxy_uri *a, const struct proxy_uri *b);

/* Writes `scheme://host:port`, or `group:NAME`, terminated, without user and password: for people.
 * size  of `out`, at least PROXY_URI_TEXT_SIZE. Returns the length without terminator. */
#define PROXY_URI_TEXT_SIZE (ADDRESS_TEXT_SIZE + 10u)
size_t proxy_uri_format(const struct proxy_uri *uri, char *out, size_t size);

#endif
