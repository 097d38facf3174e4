/* SOCKS4 and SOCKS4A (Ying-Da Lee's documents of 1992 and its 4A extension), both sides. */
#ifndef SLUICE_PROTOCOLS_SOCKS4_H
#define SLUICE_PROTOCOLS_SOCKS4_H

#include "protocols/address.h"
#include "protocols/credentials.h"
#include "protocols/parse.h"

#define SOCKS4_VERSION          4u
#define SOCKS4_REPLY_SIZE       8u
#define SOCKS4_REQUEST_SIZE_MAX (8u + CREDENTIALS_PART_MAX + 1u + ADDRESS_NAME_MAX + 1u)

enum socks4_command { SOCKS4_CONNECT = 1, SOCKS4_BIND = 2 };
enum socks4_code { SOCKS4_GRANTED = 0x5a, SOCKS4_REJECTED = 0x5b };

struct socks4_request {
    uint8_t command;                     /* as received; the caller refuses what it does not know */
    struct address target;               /* NAME for 4A (unless the text is an IP literal), else IPV4 */
    bool by_name;                        /* 4A: the target came as a name, even if it is an IP literal */
    char user[CREDENTIALS_PART_MAX + 1]; /* the user id, may be empty */
};

/* Parses a request, version octet included, from the front of `data`.
 * 4A is meant when the address is 0.0.0.x with x != 0; 0.0.0.0 is an ordinary address.
 * PARSE_BAD: wrong version, user id or name over 255 octets. An empty or invalid name gives PARSE_OK with target.kind
 * ADDRESS_NONE. `used` 0 unless PARSE_OK. */
enum parse_result socks4_parse_request(const uint8_t *data, size_t size, struct socks4_request *request, size_t *used);

/* Writes the eight octets of a reply: code, port and address zero. Returns SOCKS4_REPLY_SIZE. size >= that. */
size_t socks4_write_reply(uint8_t *out, size_t size, uint8_t code);

/* Client side. Writes a CONNECT: an IPv4 target as plain SOCKS4, a name or IPv6 target (as text) as 4A, and so
 * an IPv4 target of the form 0.0.0.x that would read as the mark of a 4A request.
 * user  terminated, may be empty. Returns the octets written, SOCKS4_REQUEST_SIZE_MAX at most; 0: no room, or a target
 * that has no form here (none, a Unix socket). */
size_t socks4_write_request(uint8_t *out, size_t size, const struct address *target, const char *user);

/* Client side. Parses a reply; its version octet must be 0. `code` written on PARSE_OK only. */
enum parse_result socks4_parse_reply(const uint8_t *data, size_t size, uint8_t *code, size_t *used);

#endif
