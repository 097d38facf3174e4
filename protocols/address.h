/* Where a connection is to go: a host (IPv4, IPv6 or a name still to be resolved) and a port, or a Unix socket's path.
 *
 * One value type for everything that is asked for, routed and dialled. It is plain: copied by assignment, compared with
 * address_equal(), valid without any cleanup. All ports are in host byte order. */
#ifndef SLUICE_PROTOCOLS_ADDRESS_H
#define SLUICE_PROTOCOLS_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADDRESS_NAME_MAX  255u /* octets of a host name: the longest that SOCKS can carry (RFC 1928 section 5) */
#define ADDRESS_PATH_MAX  107u /* octets of a Unix socket's path: sun_path without its terminator */
#define ADDRESS_TEXT_SIZE 270u /* a buffer for address_format(): longest name, colon, port, terminator, brackets */

enum address_kind {
    ADDRESS_NONE, /* nothing; also what {0} means */
    ADDRESS_IPV4,
    ADDRESS_IPV6,
    ADDRESS_NAME,  /* host name, to be resolved */
    ADDRESS_UNIX,  /* path of a stream socket; has no port. Comes from the command line only, never from a client */
    ADDRESS_GROUP, /* name of a group of upstreams, a member of which takes its place before anything is dialled; has
                      no port. Comes from settings and rulesets only */
};

struct address {
    uint8_t kind;      /* enum address_kind */
    uint8_t name_size; /* octets in `name` without the terminator; 0 unless NAME, UNIX or GROUP */
    uint16_t port;     /* host byte order */
    union {
        uint8_t ipv4[4];                 /* network order */
        uint8_t ipv6[16];                /* network order */
        char name[ADDRESS_NAME_MAX + 1]; /* always terminated */
    };
};

/* Makes an address from a host without port: an IPv4 or IPv6 literal (no brackets) becomes that kind, all else a name.
 * host, size  borrowed for the call. Refuses (false, `out` untouched) an empty host, one over ADDRESS_NAME_MAX, and
 * octets that no host name holds: controls, blanks, 0x7f, NUL, and the delimiters `:/?#[]@`, with which a client could
 * make up a name whose text reads as another address. */
bool address_from_host(const char *host, size_t size, uint16_t port, struct address *out);

enum address_port_rule {
    ADDRESS_PORT_REQUIRED, /* `host:port`; a missing or empty port is refused */
    ADDRESS_PORT_DEFAULT,  /* `host` alone, or with an empty port, is fine and gets `default_port` */
};

/* Parses `host:port`, `[v6]:port` (contract section 1.3): split at the last colon; an unbracketed host that still holds
 * a colon is refused, as are ports over 65535 and anything but digits in them. An empty host is refused, and so is
 * anything but an IPv6 literal in brackets.
 * True and `out` written, or false and `out` untouched. */
bool address_parse(const char *text, size_t size, enum address_port_rule rule, uint16_t default_port,
                   struct address *out);

/* Writes the canonical text (`a.b.c.d:p`, `[v6]:p`, `name:p`, `unix:/path`, `group:name`, nothing for NONE),
 * terminated. size  of `out`, at least ADDRESS_TEXT_SIZE. Returns the length without terminator. */
size_t address_format(const struct address *address, char *out, size_t size);

/* Writes the host alone, without brackets or port, terminated; same rules as address_format(). */
size_t address_format_host(const struct address *address, char *out, size_t size);

/* Same kind, same host octet for octet (names without regard to ASCII case), same port. */
bool address_equal(const struct address *a, const struct address *b);
/* Whether it is 0.0.0.0 or ::, whatever its port; false for names and paths. */
bool address_is_any_host(const struct address *address);

#endif
