#include "protocols/subnet.h"

#include <arpa/inet.h>
#include <string.h>

struct number number_of_octets(const uint8_t *octets, size_t size)
{
    struct number number = {0, 0};
    for (size_t i = 0; i < size; i++) {
        number.high = number.high << 8 | number.low >> 56;
        number.low = number.low << 8 | octets[i];
    }
    return number;
}

static uint64_t mask_of_half(unsigned bits)
{
    return bits == 0 ? 0 : bits >= 64 ? UINT64_MAX : ~(UINT64_MAX >> bits);
}

struct number number_mask(unsigned bits)
{
    return (struct number){mask_of_half(bits), mask_of_half(bits > 64 ? bits - 64 : 0)};
}

bool number_parse(int family, const char *text, struct number *out)
{
    uint8_t octets[16] = {0};
    if (inet_pton(family, text, family == AF_INET ? octets + 12 : octets) != 1) return false;
    *out = number_of_octets(octets, sizeof octets);
    return true;
}

/* Digits at text...end, at most three. -1: something else. */
static int parse_bits(const char *text, const char *end)
{
    int bits = 0;
    if (text == end || end - text > 3) return -1;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9') return -1;
        bits = bits * 10 + (*text - '0');
    }
    return bits;
}

const char *subnet_parse(int family, const char *entry, size_t size, struct subnet *out)
{
    char text[64];
    struct number address = {0, 0};
    int width = family == AF_INET ? 32 : 128;
    const char *slash = memchr(entry, '/', size);
    size_t head = slash ? (size_t)(slash - entry) : 0;
    if (!slash || head >= sizeof text || memchr(entry, '\0', head)) return "subnet";
    int bits = parse_bits(slash + 1, entry + size);
    if (bits < 0 || bits > width) return "prefix size";
    memcpy(text, entry, head);
    text[head] = '\0';
    if (!number_parse(family, text, &address)) return "subnet";
    struct number mask = number_mask((unsigned)(128 - width + bits));
    if ((address.high & ~mask.high) != 0 || (address.low & ~mask.low) != 0) return "subnet";
    *out = (struct subnet){address, {address.high | ~mask.high, address.low | ~mask.low}, bits};
    return NULL;
}
