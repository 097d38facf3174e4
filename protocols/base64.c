#include "protocols/base64.h"

#include <assert.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Three octets, or what is left of them, as four characters. */
static void encode_group(const uint8_t *data, size_t size, char *out)
{
    uint32_t bits = (uint32_t)data[0] << 16;
    if (size > 1) bits |= (uint32_t)data[1] << 8;
    if (size > 2) bits |= data[2];
    out[0] = alphabet[bits >> 18];
    out[1] = alphabet[bits >> 12 & 63u];
    out[2] = size > 1 ? alphabet[bits >> 6 & 63u] : '=';
    out[3] = size > 2 ? alphabet[bits & 63u] : '=';
}

size_t base64_encode(const uint8_t *data, size_t size, char *out, size_t out_size)
{
    /* Written as a division, so that a huge size cannot wrap the sum. */
    if (size > out_size / 4u * 3u) return 0;
    for (size_t at = 0; at < size; at += 3) encode_group(data + at, size - at < 3 ? size - at : 3, out + at / 3 * 4);
    return BASE64_SIZE(size);
}

/* The six bits of a character, or -1. */
static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+') return 62;
    return c == '/' ? 63 : -1;
}

/* Four characters, the last `padding` of which are '=', as 24 bits. False when a character is none of the alphabet or
 * bits beyond the octets are set: with those, several texts would mean the same password. */
static bool decode_group(const char *text, unsigned padding, uint32_t *bits)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < 4 - padding; i++) {
        int value = value_of(text[i]);
        if (value < 0) return false;
        sum |= (uint32_t)value << (18 - 6 * i);
    }
    *bits = sum;
    return (sum & ((UINT32_C(1) << 8 * padding) - 1)) == 0;
}

static unsigned count_padding(const char *text, size_t size)
{
    assert(size >= 4);
    if (text[size - 1] != '=') return 0;
    return text[size - 2] == '=' ? 2 : 1;
}

bool base64_decode(const char *text, size_t size, uint8_t *out, size_t out_size, size_t *used)
{
    if (size % 4 != 0) return false;
    unsigned padding_at_end = size > 0 ? count_padding(text, size) : 0;
    size_t octets = size / 4 * 3 - padding_at_end;
    if (octets > out_size) return false;
    for (size_t at = 0; at < size; at += 4) {
        uint32_t bits;
        unsigned padding = at + 4 == size ? padding_at_end : 0;
        if (!decode_group(text + at, padding, &bits)) return false;
        for (unsigned i = 0; i < 3 - padding; i++) out[at / 4 * 3 + i] = (uint8_t)(bits >> (16 - 8 * i));
    }
    *used = octets;
    return true;
}
