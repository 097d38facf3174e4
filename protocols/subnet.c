#include "protocols/subnet.h"

#include <arpa/inet.h>
#include <string.h>

static uint64_t read_half(const uint8_t *octets)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | octets[i];
    return value;
}

bool number_parse(int family, const char *text, struct number *out)
{
    uint8_t octets[16] = {0};
    if (inet_pton(family, text, family == AF_INET ? octets + 12 : octets) != 1) return false;
    *out = (struct number){read_half(octets), read_half(octets + 8)};
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

static uint64_t mask_of(int bits)
{
    return bits <= 0 ? 0 : bits >= 64 ? UINT64_MAX : ~(UINT64_MAX >> bits);
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
    int network = 128 - width + bits;
    struct number mask = {mask_of(network), mask_of(network - 64)};
    if ((address.high & ~mask.high) != 0 || (address.low & ~mask.low) != 0) return "subnet";
    *out = (struct subnet){address, {address.high | ~mask.high, address.low | ~mask.low}, bits};
    return NULL;
}
