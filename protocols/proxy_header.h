/* The header with which a proxy says whose connection it passes on ("The PROXY protocol, versions 1 & 2", HAProxy),
 * both sides.
 *
 * It stands in front of the first octet of a connection, once: a line of text in version 1, a binary block in version
 * 2, behind whose addresses further facts may stand as type, length and value (TLV). */
#ifndef SLUICE_PROTOCOLS_PROXY_HEADER_H
#define SLUICE_PROTOCOLS_PROXY_HEADER_H

#include "protocols/host_port.h"
#include "protocols/parse.h"

#define PROXY_HEADER_V1_SIZE_MAX 107u  /* the line with its CR LF, section 2.1 */
#define PROXY_HEADER_SIZE_MAX    4096u /* of a header that is read; the specification asks for 536 at least */

enum proxy_header_tlv {
    PROXY_TLV_AUTHORITY = 0x02, /* the host name that the client asked for */
    PROXY_TLV_CRC32C = 0x03,    /* of the whole header, with zeros in its own place */
    PROXY_TLV_UNIQUE_ID = 0x05, /* of the connection, up to 128 octets */
    PROXY_TLV_USER = 0xe2,      /* ours, of those for applications: who the client has said it is */
};

/* Both ends as the client sees them; either both are there or none is. NONE: the sender says nothing of them that has
 * an address (LOCAL, UNKNOWN, a Unix socket), so that the connection itself tells who is there. */
struct proxy_header {
    struct host_port client, local; /* v4-mapped IPv6 is IPv4 */
};

/* Parses a header of either version from the front of `data`; TLVs are skipped, but for a CRC32C, which must be right.
 * data, size  octets received so far, borrowed for the call.   header  written on PARSE_OK only.   used  0 unless
 * PARSE_OK. PARSE_BAD: no header, or one that breaks the rules. PARSE_TOO_LARGE: over PROXY_HEADER_SIZE_MAX. Neither
 * has an answer: the connection is to be closed. */
enum parse_result proxy_header_parse(const uint8_t *data, size_t size, struct proxy_header *header, size_t *used);

#define PROXY_HEADER_TLV_MAX          255u /* octets of each of these texts that are sent; the rest is cut off */
#define PROXY_HEADER_UNIQUE_ID_MAX    128u
#define PROXY_HEADER_WRITTEN_SIZE_MAX (16u + 36u + 3u * (3u + PROXY_HEADER_TLV_MAX))

/* What goes with version 2; NULL: not known. Terminated, borrowed for the call. */
struct proxy_header_facts {
    const char *authority, *unique_id, *user;
};

/* Writes a header. version  1 or 2. Ends of different families are told as IPv6, v4 mapped, in version 2, and as
 * UNKNOWN in version 1, which has no form for them; unknown ends as UNKNOWN or AF_UNSPEC.
 * size  of `out`, at least PROXY_HEADER_WRITTEN_SIZE_MAX. Returns the octets written. */
size_t proxy_header_write(uint8_t *out, size_t size, unsigned version, const struct proxy_header *header,
                          const struct proxy_header_facts *facts);

#endif
