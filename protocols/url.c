#include "protocols/url.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

/* A piece of the caller's text. */
struct piece {
    const char *text;
    size_t size;
};

static const struct {
    const char *name;
    enum proxy_scheme scheme;
    uint16_t port;
} schemes[] = {
    {"http", PROXY_HTTP, 80},
    {"socks4a", PROXY_SOCKS4A, 1080},
    {"socks5", PROXY_SOCKS5, 1080},
};
#define SCHEME_COUNT (sizeof(schemes) / sizeof(schemes[0]))

static const char *find(struct piece piece, char wanted)
{
    return piece.size > 0 ? memchr(piece.text, wanted, piece.size) : NULL;
}

/* The piece up to `end`, a place within it. */
static struct piece before(struct piece piece, const char *end)
{
    assert(end >= piece.text);
    assert(end <= piece.text + piece.size);
    return (struct piece){piece.text, (size_t)(end - piece.text)};
}

/* The piece from `start` on, a place within it or its end. */
static struct piece from(struct piece piece, const char *start)
{
    assert(start >= piece.text);
    assert(start <= piece.text + piece.size);
    return (struct piece){start, piece.size - (size_t)(start - piece.text)};
}

static size_t find_scheme(struct piece name)
{
    size_t i = 0;
    for (; i < SCHEME_COUNT; i++)
        if (strlen(schemes[i].name) == name.size && strncasecmp(schemes[i].name, name.text, name.size) == 0) break;
    return i;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The first octet of a piece that is not empty, decoded (RFC 3986 section 2.1), and how many characters it took;
 * 0 when an escape is broken. */
static size_t decode_octet(struct piece piece, char *out)
{
    assert(piece.size > 0);
    *out = piece.text[0];
    if (piece.text[0] != '%') return 1;
    if (piece.size < 3) return 0;
    int high = hex_value(piece.text[1]), low = hex_value(piece.text[2]);
    *out = (char)(high * 16 + low);
    return high >= 0 && low >= 0 ? 3 : 0;
}

static bool is_control(char c)
{
    unsigned char octet = (unsigned char)c;
    return octet < ' ' || octet == 0x7f;
}

/* Decodes a user or a password into `out`, terminated. */
static const char *decode_part(struct piece part, char out[CREDENTIALS_PART_MAX + 1])
{
    size_t size = 0;
    while (part.size > 0) {
        if (size == CREDENTIALS_PART_MAX) return "user or password is longer than 255 octets";
        size_t taken = decode_octet(part, &out[size]);
        if (taken == 0) return "user or password holds a % that is not followed by two hex digits";
        if (is_control(out[size++])) return "user or password holds a control character";
        part = from(part, part.text + taken);
    }
    out[size] = '\0';
    return NULL;
}

static const char *read_credentials(struct piece info, struct credentials *credentials)
{
    const char *colon = find(info, ':');
    const char *wrong = decode_part(colon != NULL ? before(info, colon) : info, credentials->user);
    if (wrong == NULL && colon != NULL) wrong = decode_part(from(info, colon + 1), credentials->password);
    credentials->present = true;
    return wrong;
}

/* [user[:password]@]host[:port] */
static const char *read_authority(struct piece authority, uint16_t default_port, struct proxy_uri *uri)
{
    const char *at = find(authority, '@');
    if (at != NULL) {
        const char *wrong = read_credentials(before(authority, at), &uri->credentials);
        if (wrong != NULL) return wrong;
        authority = from(authority, at + 1);
    }
    if (find(authority, '@') != NULL) return "an @ in user or password must be written as %40";
    if (authority.size == 0) return "host is missing";
    if (!address_parse(authority.text, authority.size, ADDRESS_PORT_DEFAULT, default_port, &uri->address))
        return "host or port is malformed";
    if (uri->address.port == 0) return "port 0 is none that a server could have";
    return NULL;
}

const char *url_authority_parse(const char *text, size_t size, uint16_t default_port, struct proxy_uri *out)
{
    struct proxy_uri uri = {0};
    const char *wrong = read_authority((struct piece){text, size}, default_port, &uri);
    if (wrong == NULL) *out = uri;
    return wrong;
}

/* Cuts off what may follow the authority: a fragment, and before it a lone slash. False for a real path or a query. */
static bool trim_tail(struct piece *rest)
{
    const char *hash = find(*rest, '#');
    if (hash != NULL) *rest = before(*rest, hash);
    if (find(*rest, '?') != NULL) return false;
    const char *slash = find(*rest, '/');
    if (slash == NULL) return true;
    bool alone = from(*rest, slash).size == 1;
    *rest = before(*rest, slash);
    return alone;
}

const char *proxy_uri_parse(const char *text, size_t size, struct proxy_uri *out)
{
    struct proxy_uri uri = {0};
    struct piece rest = {text, size};
    const char *colon = find(rest, ':');
    if (colon == NULL || from(rest, colon).size < 3 || memcmp(colon, "://", 3) != 0)
        return "scheme is missing: write http://, socks4a:// or socks5://";
    size_t row = find_scheme(before(rest, colon));
    if (row == SCHEME_COUNT) return "unknown scheme: only http, socks4a and socks5 are known";
    rest = from(rest, colon + 3);
    if (!trim_tail(&rest)) return "a proxy's URI has no path and no query";
    const char *wrong = read_authority(rest, schemes[row].port, &uri);
    if (wrong != NULL) return wrong;
    uri.scheme = schemes[row].scheme;
    *out = uri;
    return NULL;
}

bool proxy_uri_equal(const struct proxy_uri *a, const struct proxy_uri *b)
{
    return a->scheme == b->scheme && address_equal(&a->address, &b->address) &&
           credentials_equal(&a->credentials, &b->credentials);
}

size_t proxy_uri_format(const struct proxy_uri *uri, char *out, size_t size)
{
    const char *name = "";
    assert(size >= PROXY_URI_TEXT_SIZE);
    if (uri->address.kind == ADDRESS_GROUP) return address_format(&uri->address, out, size);
    for (size_t i = 0; i < SCHEME_COUNT; i++)
        if (schemes[i].scheme == uri->scheme) name = schemes[i].name;
    size_t used = strlen(name);
    memcpy(out, name, used);
    memcpy(out + used, "://", 3);
    return used + 3 + address_format(&uri->address, out + used + 3, size - used - 3);
}
