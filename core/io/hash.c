#include "core/io/hash.h"

#include <stdbool.h>

struct sip {
    uint64_t a, b, c, d;
};

static uint64_t rotate(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static void sip_round(struct sip *s)
{
    s->a += s->b;
    s->c += s->d;
    s->b = rotate(s->b, 13) ^ s->a;
    s->d = rotate(s->d, 16) ^ s->c;
    s->a = rotate(s->a, 32);
    s->c += s->b;
    s->a += s->d;
    s->b = rotate(s->b, 17) ^ s->c;
    s->d = rotate(s->d, 21) ^ s->a;
    s->c = rotate(s->c, 32);
}

static void sip_take(struct sip *s, uint64_t word)
{
    s->d ^= word;
    sip_round(s);
    sip_round(s);
    s->a ^= word;
}

/* Little endian, as the definition has it. */
static uint64_t word_at(const uint8_t *octets, size_t size)
{
    uint64_t word = 0;
    for (size_t i = 0; i < size; i++) word |= (uint64_t)octets[i] << 8 * i;
    return word;
}

uint64_t hash_keyed(const uint64_t key[2], const void *octets, size_t size)
{
    struct sip s = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                    key[1] ^ 0x7465646279746573u};
    const uint8_t *at = octets;
    size_t left = size;
    for (; left >= 8; left -= 8, at += 8) sip_take(&s, word_at(at, 8));
    sip_take(&s, word_at(at, left) | (uint64_t)size << 56);
    s.c ^= 0xff;
    for (unsigned i = 0; i < 4; i++) sip_round(&s);
    return s.a ^ s.b ^ s.c ^ s.d;
}

#define FNV_PRIME UINT64_C(0x100000001b3)

uint64_t hash_plain(uint64_t hash, const void *octets, size_t size)
{
    const uint8_t *at = octets;
    for (size_t i = 0; i < size; i++) hash = (hash ^ at[i]) * FNV_PRIME;
    return hash;
}

uint64_t hash_plain_lower(uint64_t hash, const void *octets, size_t size)
{
    const uint8_t *at = octets;
    for (size_t i = 0; i < size; i++) {
        bool upper = at[i] >= 'A' && at[i] <= 'Z';
        hash = (hash ^ (upper ? at[i] | 0x20u : at[i])) * FNV_PRIME;
    }
    return hash;
}
