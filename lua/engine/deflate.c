/* Codes are decoded bit by bit from the counts of each length (RFC 1951 section 3.2.2: codes of a length are
 * consecutive, and follow those of shorter ones): slow beside libdeflate, but this runs once for a stream that was
 * refused. */
#include "lua/engine/deflate.h"

#include <stdint.h>
#include <string.h>

#define LENGTH_MAX      15u
#define LITERALS_MAX    288u
#define DISTANCES_MAX   32u
#define CODE_LENGTHS    19u
#define END_OF_BLOCK    256u
#define LENGTH_CODE_END 286u
#define DISTANCE_END    30u

enum walk { WALK_OK, WALK_SHORT, WALK_WRONG };

struct bits {
    const uint8_t *data;
    size_t size, at; /* octets, and the next bit */
};

/* How many codes there are of each length, and the symbols in the order of their codes. */
struct code {
    uint16_t counts[LENGTH_MAX + 1];
    uint16_t symbols[LITERALS_MAX];
};

struct stream {
    struct bits bits;
    struct code literals, distances;
    size_t written; /* octets that a distance may reach back */
};

static enum walk read_bits(struct bits *b, unsigned count, unsigned *value)
{
    *value = 0;
    if (b->size * 8 - b->at < count) return WALK_SHORT;
    for (unsigned i = 0; i < count; i++, b->at++) *value |= (unsigned)(b->data[b->at / 8] >> (b->at % 8) & 1) << i;
    return WALK_OK;
}

/* The code whose symbols have these lengths, 0: no code. One that claims more codes than there are is wrong; one that
 * leaves some unused is let pass, as libdeflate has its own opinion of which of those may be. */
static enum walk make_code(struct code *code, const uint8_t *lengths, unsigned count)
{
    uint16_t offsets[LENGTH_MAX + 2] = {0};
    int left = 1;
    memset(code->counts, 0, sizeof code->counts);
    for (unsigned i = 0; i < count; i++) code->counts[lengths[i]]++;
    for (unsigned i = 1; i <= LENGTH_MAX; i++) {
        left = left * 2 - code->counts[i];
        if (left < 0) return WALK_WRONG;
        offsets[i + 1] = (uint16_t)(offsets[i] + code->counts[i]);
    }
    for (unsigned i = 0; i < count; i++)
        if (lengths[i] > 0) code->symbols[offsets[lengths[i]]++] = (uint16_t)i;
    return WALK_OK;
}

static enum walk read_symbol(struct bits *b, const struct code *code, unsigned *symbol)
{
    unsigned value = 0, first = 0, index = 0, bit;
    for (unsigned length = 1; length <= LENGTH_MAX; length++) {
        if (read_bits(b, 1, &bit) != WALK_OK) return WALK_SHORT;
        value |= bit;
        if (value - first < code->counts[length]) {
            *symbol = code->symbols[index + value - first];
            return WALK_OK;
        }
        index += code->counts[length];
        first = (first + code->counts[length]) * 2;
        value *= 2;
    }
    return WALK_WRONG;
}

static enum walk walk_stored(struct stream *s)
{
    unsigned length, complement;
    s->bits.at = (s->bits.at + 7) / 8 * 8;
    if (read_bits(&s->bits, 16, &length) != WALK_OK || read_bits(&s->bits, 16, &complement) != WALK_OK)
        return WALK_SHORT;
    if (length != (complement ^ 0xffffu)) return WALK_WRONG;
    if (s->bits.size - s->bits.at / 8 < length) return WALK_SHORT;
    s->bits.at += (size_t)length * 8;
    s->written += length;
    return WALK_OK;
}

/* Section 3.2.6. */
static void make_fixed(struct stream *s)
{
    uint8_t lengths[LITERALS_MAX];
    for (unsigned i = 0; i < LITERALS_MAX; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    make_code(&s->literals, lengths, LITERALS_MAX);
    memset(lengths, 5, DISTANCES_MAX);
    make_code(&s->distances, lengths, DISTANCES_MAX);
}

/* The lengths of the code that the lengths of the other two are written in. */
static enum walk read_length_code(struct bits *b, unsigned count, struct code *code)
{
    static const uint8_t order[CODE_LENGTHS] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[CODE_LENGTHS] = {0};
    for (unsigned i = 0; i < count; i++) {
        unsigned length;
        if (read_bits(b, 3, &length) != WALK_OK) return WALK_SHORT;
        lengths[order[i]] = (uint8_t)length;
    }
    return make_code(code, lengths, CODE_LENGTHS);
}

/* One length, or a run of them: 16 repeats the last one, 17 and 18 are zeroes. */
static enum walk read_run(struct bits *b, const struct code *code, uint8_t *lengths, unsigned *at, unsigned end)
{
    static const uint8_t extra[] = {2, 3, 7}, least[] = {3, 3, 11};
    unsigned symbol, run = 1;
    uint8_t value = 0;
    enum walk walk = read_symbol(b, code, &symbol);
    if (walk != WALK_OK) return walk;
    if (symbol < 16) {
        value = (uint8_t)symbol;
    } else {
        if (symbol == 16 && *at == 0) return WALK_WRONG;
        if (symbol == 16) value = lengths[*at - 1];
        if (read_bits(b, extra[symbol - 16], &run) != WALK_OK) return WALK_SHORT;
        run += least[symbol - 16];
    }
    if (run > end - *at) return WALK_WRONG;
    memset(lengths + *at, value, run);
    *at += run;
    return WALK_OK;
}

/* Section 3.2.7. */
static enum walk read_dynamic(struct stream *s)
{
    unsigned literals, distances, codes, at = 0;
    struct code code;
    uint8_t lengths[LITERALS_MAX + DISTANCES_MAX] = {0};
    struct bits *b = &s->bits;
    if (read_bits(b, 5, &literals) != WALK_OK || read_bits(b, 5, &distances) != WALK_OK ||
        read_bits(b, 4, &codes) != WALK_OK)
        return WALK_SHORT;
    literals += 257;
    distances += 1;
    enum walk walk = read_length_code(b, codes + 4, &code);
    while (walk == WALK_OK && at < literals + distances) walk = read_run(b, &code, lengths, &at, literals + distances);
    if (walk == WALK_OK) walk = make_code(&s->literals, lengths, literals);
    if (walk == WALK_OK) walk = make_code(&s->distances, lengths + literals, distances);
    return walk;
}

/* The extra bits of lengths and distances grow by one for every `each` symbols (section 3.2.5). */
static unsigned extra_bits(unsigned symbol, unsigned each)
{
    return symbol < 2 * each ? 0 : symbol / each - 1;
}

/* What a symbol stands for, less its extra bits, counted from 0. */
static unsigned base_of(unsigned symbol, unsigned each)
{
    unsigned extra = extra_bits(symbol, each);
    return extra == 0 ? symbol : ((each + symbol % each) << extra);
}

/* Length and distance; `symbol` is the length's, counted from 0. The last one has no extra bits and stands for 258. */
static enum walk walk_copy(struct stream *s, unsigned symbol)
{
    unsigned extra = 0, distance, more;
    bool longest = symbol == LENGTH_CODE_END - END_OF_BLOCK - 2;
    if (!longest && read_bits(&s->bits, extra_bits(symbol, 4), &extra) != WALK_OK) return WALK_SHORT;
    enum walk walk = read_symbol(&s->bits, &s->distances, &distance);
    if (walk != WALK_OK) return walk;
    if (distance >= DISTANCE_END) return WALK_WRONG;
    if (read_bits(&s->bits, extra_bits(distance, 2), &more) != WALK_OK) return WALK_SHORT;
    if ((size_t)base_of(distance, 2) + more + 1 > s->written) return WALK_WRONG;
    s->written += longest ? 258 : 3 + base_of(symbol, 4) + extra;
    return WALK_OK;
}

static enum walk walk_symbols(struct stream *s)
{
    for (;;) {
        unsigned symbol;
        enum walk walk = read_symbol(&s->bits, &s->literals, &symbol);
        if (walk != WALK_OK) return walk;
        if (symbol == END_OF_BLOCK) return WALK_OK;
        if (symbol >= LENGTH_CODE_END) return WALK_WRONG;
        if (symbol < END_OF_BLOCK)
            s->written++;
        else if ((walk = walk_copy(s, symbol - END_OF_BLOCK - 1)) != WALK_OK)
            return walk;
    }
}

static enum walk walk_block(struct stream *s, unsigned *final)
{
    unsigned kind;
    if (read_bits(&s->bits, 1, final) != WALK_OK || read_bits(&s->bits, 2, &kind) != WALK_OK) return WALK_SHORT;
    if (kind == 0) return walk_stored(s);
    if (kind == 3) return WALK_WRONG;
    if (kind == 1) make_fixed(s);
    enum walk walk = kind == 2 ? read_dynamic(s) : WALK_OK;
    return walk == WALK_OK ? walk_symbols(s) : walk;
}

bool deflate_is_truncated(const void *data, size_t size, size_t *used)
{
    struct stream s = {.bits = {.data = data, .size = size}};
    unsigned final = 0;
    enum walk walk = WALK_OK;
    while (walk == WALK_OK && !final) walk = walk_block(&s, &final);
    *used = walk == WALK_OK ? (s.bits.at + 7) / 8 : 0;
    return walk == WALK_SHORT;
}
