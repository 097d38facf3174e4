/* Networks in text, `address/bits`, and as numbers of 128 bits: IPv4 stands in the low 32. */
#ifndef SLUICE_PROTOCOLS_SUBNET_H
#define SLUICE_PROTOCOLS_SUBNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct number {
    uint64_t high, low;
};

struct subnet {
    struct number first, last;
    int bits; /* of the prefix: 0...32 or 0...128 */
};

/* 4 octets of an IPv4 address, or 16 of an IPv6 one. */
struct number number_of_octets(const uint8_t *octets, size_t size);
/* The first bits of 128, 0...128, are set. */
struct number number_mask(unsigned bits);
/* family: AF_INET or AF_INET6. text: terminated, an address and nothing else. */
bool number_parse(int family, const char *text, struct number *out);
/* NULL, or what of the entry is wrong, in the contract's words: "subnet" or "prefix size". Bits of a host are wrong. */
const char *subnet_parse(int family, const char *entry, size_t size, struct subnet *out);

#endif
