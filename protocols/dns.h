/* What our resolver has to see of DNS messages itself (RFC 1035 section 4): the question, and the addresses among the
 * answers. Messages come from anybody: every length is checked, every chain and loop is bounded. */
#ifndef SLUICE_PROTOCOLS_DNS_H
#define SLUICE_PROTOCOLS_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_HEADER_SIZE   12u
#define DNS_TYPE_A        1u
#define DNS_TYPE_CNAME    5u
#define DNS_TYPE_AAAA     28u
#define DNS_ADDRESSES_MAX 16u

/* Gives each letter of the question's name a case by one bit of `bits` (64 of them, used again and again): an answer
 * must repeat it octet for octet, which somebody who has not seen the question has to guess
 * (draft-vixie-dnsext-dns0x20). False if it is no message with one question. */
bool dns_mix_case(uint8_t *query, size_t size, uint64_t bits);

enum dns_match {
    DNS_DIFFERS, /* another id, another question, or no answer at all */
    DNS_CASE,    /* the same question, but for the case of letters */
    DNS_SAME,    /* octet for octet */
};
/* Whether `answer` answers `query`: id, QR, one question, and that the same. */
enum dns_match dns_match(const uint8_t *query, size_t query_size, const uint8_t *answer, size_t answer_size);

/* Makes of a query the truncated answer to itself, which tells a resolver to ask again over TCP. The octets behind the
 * question are dropped; returns the new size, 0 if it is no query. */
size_t dns_truncate(uint8_t *query, size_t size);

/* Whether an answer says that it does not hold all: TC. */
bool dns_is_truncated(const uint8_t *answer, size_t size);

struct dns_addresses {
    uint32_t count;
    uint32_t ttl;                          /* seconds: the least of those on the way, CNAMEs included */
    uint8_t octets[DNS_ADDRESSES_MAX][16]; /* the first 4 of each for type A */
};
/* The addresses of type A or AAAA that the question's name has in this answer, in its order, by way of CNAMEs that may
 * stand in any order. More than DNS_ADDRESSES_MAX are left out. False if the message is malformed; count 0 if there are
 * none. */
bool dns_read_addresses(const uint8_t *answer, size_t size, uint16_t type, struct dns_addresses *out);

#endif
