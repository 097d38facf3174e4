#include "codec.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

/* Where guessing at the size of an output begins. */
#define CODEC_GUESS_MIN ((size_t)4096)
#define CODEC_LEVEL     6

/* A member's header and trailer at least (RFC 1952 section 2.3); header and checksum of zlib. */
#define GZIP_SIZE_MIN 18u
#define ZLIB_SIZE_MIN 6u

struct output {
    char *data;
    size_t size, room, limit;
};

/* Room for one octet more than the limit allows is never asked for, so that a bomb costs no more than the limit. */
static enum codec_result output_grow(struct output *out, size_t room)
{
    if (room > out->limit) room = out->limit;
    if (room <= out->room && out->data) return CODEC_TOO_LARGE;
    char *bigger = realloc(out->data, room + 1);
    if (!bigger) return CODEC_NO_MEMORY;
    out->data = bigger;
    out->room = room;
    return CODEC_OK;
}

static enum libdeflate_result decode_into(enum codec codec, struct libdeflate_decompressor *d, const char *data,
                                          size_t size, struct output *out, size_t *used, size_t *got)
{
    char *to = out->data + out->size;
    size_t room = out->room - out->size;
    if (codec == CODEC_GZIP) return libdeflate_gzip_decompress_ex(d, data, size, to, room, used, got);
    return libdeflate_zlib_decompress_ex(d, data, size, to, room, used, got);
}

/* libdeflate does not tell a short input from a wrong one: what could be the beginning of a longer one is called
 * truncated if its header is right. */
static enum codec_result decode_fault(enum codec codec, const unsigned char *data, size_t size)
{
    if (codec == CODEC_GZIP) {
        static const unsigned char magic[] = {0x1f, 0x8b, 8};
        size_t known = size < sizeof magic ? size : sizeof magic;
        if (memcmp(data, magic, known) != 0) return CODEC_CORRUPT;
        return size < GZIP_SIZE_MIN ? CODEC_TRUNCATED : CODEC_CORRUPT;
    }
    bool header = size < 2 || ((data[0] & 0x0f) == 8 && (data[0] * 256u + data[1]) % 31u == 0);
    return header && size < ZLIB_SIZE_MIN ? CODEC_TRUNCATED : CODEC_CORRUPT;
}

/* One zlib stream or gzip member, appended; the output grows as long as it does not suffice. */
static enum codec_result decode_member(enum codec codec, struct libdeflate_decompressor *d, const char *data,
                                       size_t size, struct output *out, size_t *used)
{
    size_t got;
    for (;;) {
        switch (decode_into(codec, d, data, size, out, used, &got)) {
        case LIBDEFLATE_SUCCESS: out->size += got; return CODEC_OK;
        case LIBDEFLATE_INSUFFICIENT_SPACE: {
            enum codec_result grown = output_grow(out, out->room * 2);
            if (grown != CODEC_OK) return grown;
            break;
        }
        default: return decode_fault(codec, (const unsigned char *)data, size);
        }
    }
}

/* All members of a gzip file (section 2.2). Zeroes behind the last one are padding, as of tapes. */
static enum codec_result decode_all(enum codec codec, struct libdeflate_decompressor *d, const char *data, size_t size,
                                    struct output *out)
{
    size_t at = 0;
    do {
        size_t used = 0;
        enum codec_result result = decode_member(codec, d, data + at, size - at, out, &used);
        if (result != CODEC_OK) return result;
        at += used;
        if (at < size && data[at] == 0) {
            while (at < size && data[at] == 0) at++;
            return at == size ? CODEC_OK : CODEC_CORRUPT;
        }
    } while (codec == CODEC_GZIP && at < size);
    return at == size ? CODEC_OK : CODEC_CORRUPT;
}

static enum codec_result copy(const void *data, size_t size, size_t limit, struct output *out)
{
    if (size > limit) return CODEC_TOO_LARGE;
    out->data = malloc(size + 1);
    if (!out->data) return CODEC_NO_MEMORY;
    if (size > 0) memcpy(out->data, data, size);
    out->size = size;
    return CODEC_OK;
}

static enum codec_result finish(enum codec_result result, struct output *out, char **to, size_t *to_size)
{
    if (result != CODEC_OK) {
        free(out->data);
        return result;
    }
    out->data[out->size] = '\0';
    *to = out->data;
    *to_size = out->size;
    return CODEC_OK;
}

enum codec_result codec_decode(enum codec codec, const void *data, size_t size, size_t limit, char **out,
                               size_t *out_size)
{
    struct output output = {.limit = limit};
    if (codec == CODEC_NONE) return finish(copy(data, size, limit, &output), &output, out, out_size);
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    if (!d) return CODEC_NO_MEMORY;
    size_t guess = size < limit / 4 ? size * 4 : limit;
    enum codec_result result = output_grow(&output, guess > CODEC_GUESS_MIN ? guess : CODEC_GUESS_MIN);
    if (result == CODEC_OK) result = decode_all(codec, d, data, size, &output);
    libdeflate_free_decompressor(d);
    return finish(result, &output, out, out_size);
}

enum codec_result codec_encode(enum codec codec, const void *data, size_t size, char **out, size_t *out_size)
{
    struct output output = {.limit = SIZE_MAX - 1};
    if (codec == CODEC_NONE) return finish(copy(data, size, SIZE_MAX - 1, &output), &output, out, out_size);
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(CODEC_LEVEL);
    if (!c) return CODEC_NO_MEMORY;
    bool gzip = codec == CODEC_GZIP;
    size_t room = gzip ? libdeflate_gzip_compress_bound(c, size) : libdeflate_zlib_compress_bound(c, size);
    enum codec_result result = output_grow(&output, room);
    if (result == CODEC_OK)
        output.size = gzip ? libdeflate_gzip_compress(c, data, size, output.data, room)
                           : libdeflate_zlib_compress(c, data, size, output.data, room);
    libdeflate_free_compressor(c);
    return finish(result, &output, out, out_size);
}

bool codec_is_gzip(const void *data, size_t size)
{
    const unsigned char *octets = data;
    return size >= 3 && octets[0] == 0x1f && octets[1] == 0x8b && octets[2] == 8;
}

const char *codec_result_text(enum codec_result result)
{
    switch (result) {
    case CODEC_OK: return "ok";
    case CODEC_CORRUPT: return "corrupt data";
    case CODEC_TRUNCATED: return "truncated data";
    case CODEC_TOO_LARGE: return "output too large";
    case CODEC_NO_MEMORY: break;
    }
    return "not enough memory";
}
