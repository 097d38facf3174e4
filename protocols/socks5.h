/* SOCKS5 (RFC 1928) with user name and password (RFC 1929), both sides, and the header of its UDP datagrams. */
#ifndef SLUICE_PROTOCOLS_SOCKS5_H
#define SLUICE_PROTOCOLS_SOCKS5_H

#include "protocols/address.h"
#include "protocols/credentials.h"
#include "protocols/parse.h"

#define SOCKS5_VERSION             5u
#define SOCKS5_GREETING_SIZE_MAX   (2u + 255u)
#define SOCKS5_AUTH_SIZE_MAX       (3u + 2u * CREDENTIALS_PART_MAX)
#define SOCKS5_REQUEST_SIZE_MAX    (4u + 1u + ADDRESS_NAME_MAX + 2u)
#define SOCKS5_REPLY_SIZE_MAX      SOCKS5_REQUEST_SIZE_MAX
#define SOCKS5_UDP_HEADER_SIZE_MAX (4u + 1u + ADDRESS_NAME_MAX + 2u)

enum socks5_method { SOCKS5_METHOD_NONE = 0x00, SOCKS5_METHOD_PASSWORD = 0x02, SOCKS5_METHOD_UNACCEPTABLE = 0xff };
enum socks5_command { SOCKS5_CONNECT = 1, SOCKS5_BIND = 2, SOCKS5_UDP_ASSOCIATE = 3 };
enum socks5_reply_code { /* RFC 1928 section 6 */
                         SOCKS5_SUCCEEDED = 0,
                         SOCKS5_GENERAL_FAILURE = 1,
                         SOCKS5_NOT_ALLOWED = 2,
                         SOCKS5_NETWORK_UNREACHABLE = 3,
                         SOCKS5_HOST_UNREACHABLE = 4,
                         SOCKS5_CONNECTION_REFUSED = 5,
                         SOCKS5_TTL_EXPIRED = 6,
                         SOCKS5_COMMAND_NOT_SUPPORTED = 7,
                         SOCKS5_ADDRESS_TYPE_NOT_SUPPORTED = 8,
};

/* --- server side --- */

/* Greeting (section 3). `method` on PARSE_OK: the FIRST entry of the client's list that is NONE (unless
 * `password_required`) or PASSWORD; SOCKS5_METHOD_UNACCEPTABLE if there is none, also for an empty list. */
enum parse_result socks5_parse_greeting(const uint8_t *data, size_t size, bool password_required, uint8_t *method,
                                        size_t *used);
size_t socks5_write_method(uint8_t *out, size_t size, uint8_t method); /* 2 octets */

/* RFC 1929 section 2. PARSE_OK also for empty parts: the caller refuses them (reply status 1). An embedded NUL is
 * PARSE_BAD, and so is a version other than 1 (closed without a reply). */
enum parse_result socks5_parse_auth(const uint8_t *data, size_t size, struct credentials *credentials, size_t *used);
size_t socks5_write_auth_status(uint8_t *out, size_t size, bool granted); /* 2 octets */

struct socks5_request {
    uint8_t command;       /* as received */
    struct address target; /* a name that is an IP literal becomes that kind; host may be all zero for UDP ASSOCIATE */
    bool by_name;          /* it came as a name, even if it is an IP literal */
};
/* Section 4. PARSE_UNSUPPORTED: unknown ATYP (reply 08); `command` is written then too, `used` is 0.
 * PARSE_BAD: wrong version. An empty or invalid name gives PARSE_OK with target.kind ADDRESS_NONE (reply 04). */
enum parse_result socks5_parse_request(const uint8_t *data, size_t size, struct socks5_request *request, size_t *used);

/* Section 6. `bound` may be NULL or of kind NONE: 0.0.0.0:0 is written. Returns octets; size >= SOCKS5_REPLY_SIZE_MAX.
 */
size_t socks5_write_reply(uint8_t *out, size_t size, uint8_t code, const struct address *bound);

/* --- client side --- */

/* Offers method 00, or 00 and 02 when `with_password`. */
size_t socks5_write_greeting(uint8_t *out, size_t size, bool with_password);
enum parse_result socks5_parse_method(const uint8_t *data, size_t size, uint8_t *method, size_t *used);
size_t socks5_write_auth(uint8_t *out, size_t size,
                         const struct credentials *credentials); /* <= SOCKS5_AUTH_SIZE_MAX */
enum parse_result socks5_parse_auth_status(const uint8_t *data, size_t size, bool *granted, size_t *used);
/* 0: no room, or a target that has no form here (none, a Unix socket). */
size_t socks5_write_request(uint8_t *out, size_t size, uint8_t command, const struct address *target);
/* `bound` may be NULL. Every ATYP of section 5 is accepted. PARSE_UNSUPPORTED: unknown ATYP; `code` is written then
 * too, `bound` is of kind NONE, `used` is 0. */
enum parse_result socks5_parse_reply(const uint8_t *data, size_t size, uint8_t *code, struct address *bound,
                                     size_t *used);

/* --- UDP datagrams, section 7 --- */

struct socks5_udp_header {
    uint8_t fragment;      /* 0: whole datagram. Others are to be dropped by the caller */
    struct address target; /* from the client: where to; to the client: where from */
};
/* A datagram is all there is: never PARSE_MORE. `used`: where the payload begins. RSV is not checked (section 7 says
 * X'0000', peers exist that send garbage).
 * A header that is cut short is PARSE_BAD, an unknown ATYP PARSE_UNSUPPORTED, an invalid name as in a request. */
enum parse_result socks5_parse_udp_header(const uint8_t *data, size_t size, struct socks5_udp_header *header,
                                          size_t *used);
size_t socks5_write_udp_header(uint8_t *out, size_t size, const struct address *source);

#endif
