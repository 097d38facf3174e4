#include "lua/engine/codec.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

#include "lua/engine/deflate.h"
#include "lua/engine/octets.h"

#define CODEC_LEVEL 6
/* What is larger is compressed less, and three times as fast: 64 MiB, the largest request of a call, take a core 0.15 s
 * (text that repeats itself) to 0.6 s (nothing repeats), and 1.5 s have been seen on a machine that was busy. */
#define CODEC_LARGE      ((size_t)4 << 20)
#define CODEC_LEVEL_FAST 1

/* What stands before and behind the DEFLATE stream at least. */
#define GZIP_HEADER_SIZE  10u
#define GZIP_TRAILER_SIZE 8u
#define ZLIB_TRAILER_SIZE 4u

struct output {
    bool exact; /* tell an input that ends too early from a wrong one */
    struct octets octets;
    size_t limit; /* of it: so that a bomb costs no more */
};

static enum codec_result output_reserve(struct output *out, size_t more)
{
    int error = octets_reserve(&out->octets, more, out->limit);
    return error == 0 ? CODEC_OK : error == -EFBIG ? CODEC_TOO_LARGE : CODEC_NO_MEMORY;
}

static enum libdeflate_result decode_into(enum codec codec, struct libdeflate_decompressor *d, const char *data,
                                          size_t size, struct output *out, size_t *used, size_t *got)
{
    char *to = out->octets.data + out->octets.size;
    size_t room = out->octets.room - out->octets.size;
    if (codec == CODEC_GZIP) return libdeflate_gzip_decompress_ex(d, data, size, to, room, used, got);
    return libdeflate_zlib_decompress_ex(d, data, size, to, room, used, got);
}

/* The octets of a gzip member's header (RFC 1952 section 2.3), CODEC_OK; or what is wrong with it. */
static enum codec_result gzip_header(const unsigned char *data, size_t size, size_t *header)
{
    enum { FLAG_CRC = 2, FLAG_EXTRA = 4, FLAG_NAME = 8, FLAG_COMMENT = 16, FLAGS_RESERVED = 0xe0 };
    static const unsigned char magic[] = {0x1f, 0x8b, 8};
    size_t at = GZIP_HEADER_SIZE;
    if (memcmp(data, magic, size < sizeof magic ? size : sizeof magic) != 0) return CODEC_CORRUPT;
    if (size > 3 && data[3] & FLAGS_RESERVED) return CODEC_CORRUPT;
    if (size < at) return CODEC_TRUNCATED;
    if (data[3] & FLAG_EXTRA) {
        if (size - at < 2) return CODEC_TRUNCATED;
        at += 2 + (size_t)(data[at] | data[at + 1] << 8);
    }
    for (int flag = FLAG_NAME; flag <= FLAG_COMMENT; flag *= 2) {
        if (!(data[3] & flag)) continue;
        const unsigned char *end = at < size ? memchr(data + at, 0, size - at) : NULL;
        if (!end) return CODEC_TRUNCATED;
        at = (size_t)(end - data) + 1;
    }
    if (data[3] & FLAG_CRC) at += 2;
    if (at > size) return CODEC_TRUNCATED;
    *header = at;
    return CODEC_OK;
}

/* The same for zlib's two octets (RFC 1950 section 2.2); preset dictionaries are for those who have agreed on one. */
static enum codec_result zlib_header(const unsigned char *data, size_t size, size_t *header)
{
    if (size > 0 && (data[0] & 0x0f) != 8) return CODEC_CORRUPT;
    if (size > 0 && data[0] >> 4 > 7) return CODEC_CORRUPT;
    if (size > 1 && ((data[0] * 256u + data[1]) % 31u != 0 || data[1] & 0x20)) return CODEC_CORRUPT;
    *header = 2;
    return size < 2 ? CODEC_TRUNCATED : CODEC_OK;
}

/* libdeflate does not tell an input that ends too early from a wrong one. */
static enum codec_result decode_fault(enum codec codec, const unsigned char *data, size_t size)
{
    size_t header = 0, used = 0, trailer = codec == CODEC_GZIP ? GZIP_TRAILER_SIZE : ZLIB_TRAILER_SIZE;
    if (size == 0) return CODEC_TRUNCATED;
    enum codec_result result =
        codec == CODEC_GZIP ? gzip_header(data, size, &header) : zlib_header(data, size, &header);
    if (result != CODEC_OK) return result;
    if (deflate_is_truncated(data + header, size - header, &used)) return CODEC_TRUNCATED;
    return used > 0 && size - header - used < trailer ? CODEC_TRUNCATED : CODEC_CORRUPT;
}

/* One zlib stream or gzip member, appended; the output grows as long as it does not suffice. */
static enum codec_result decode_member(enum codec codec, struct libdeflate_decompressor *d, const char *data,
                                       size_t size, struct output *out, size_t *used)
{
    size_t got;
    for (;;) {
        switch (decode_into(codec, d, data, size, out, used, &got)) {
        case LIBDEFLATE_SUCCESS: out->octets.size += got; return CODEC_OK;
        case LIBDEFLATE_INSUFFICIENT_SPACE: {
            enum codec_result grown = output_reserve(out, out->octets.room - out->octets.size + 1);
            if (grown != CODEC_OK) return grown;
            break;
        }
        default: return out->exact ? decode_fault(codec, (const unsigned char *)data, size) : CODEC_CORRUPT;
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

static enum codec_result copy(const void *data, size_t size, struct output *out)
{
    enum codec_result result = output_reserve(out, size);
    if (result != CODEC_OK) return result;
    if (size > 0) memcpy(out->octets.data, data, size);
    out->octets.size = size;
    return CODEC_OK;
}

static enum codec_result finish(enum codec_result result, struct output *out, char **to, size_t *to_size)
{
    struct octets *octets = &out->octets;
    if (result != CODEC_OK) {
        free(octets->data);
        return result;
    }
    octets->data[octets->size] = '\0';
    *to = octets->data;
    *to_size = octets->size;
    return CODEC_OK;
}

static enum codec_result decode(enum codec codec, const void *data, size_t size, struct output *output, char **out,
                                size_t *out_size)
{
    if (codec == CODEC_NONE) return finish(copy(data, size, output), output, out, out_size);
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    if (!d) return CODEC_NO_MEMORY;
    size_t guess = size < output->limit / 4 ? size * 4 : output->limit;
    enum codec_result result = output_reserve(output, guess);
    if (result == CODEC_OK) result = decode_all(codec, d, data, size, output);
    libdeflate_free_decompressor(d);
    return finish(result, output, out, out_size);
}

enum codec_result codec_decode(enum codec codec, const void *data, size_t size, size_t limit, char **out,
                               size_t *out_size)
{
    struct output output = {.limit = limit};
    return decode(codec, data, size, &output, out, out_size);
}

enum codec_result codec_decode_exactly(enum codec codec, const void *data, size_t size, size_t limit, char **out,
                                       size_t *out_size)
{
    struct output output = {.limit = limit, .exact = true};
    return decode(codec, data, size, &output, out, out_size);
}

enum codec_result codec_encode(enum codec codec, const void *data, size_t size, char **out, size_t *out_size)
{
    struct output output = {.limit = SIZE_MAX - 1};
    if (codec == CODEC_NONE) return finish(copy(data, size, &output), &output, out, out_size);
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(size > CODEC_LARGE ? CODEC_LEVEL_FAST : CODEC_LEVEL);
    if (!c) return CODEC_NO_MEMORY;
    bool gzip = codec == CODEC_GZIP;
    size_t room = gzip ? libdeflate_gzip_compress_bound(c, size) : libdeflate_zlib_compress_bound(c, size);
    enum codec_result result = output_reserve(&output, room);
    if (result == CODEC_OK)
        output.octets.size = gzip ? libdeflate_gzip_compress(c, data, size, output.octets.data, room)
                                  : libdeflate_zlib_compress(c, data, size, output.octets.data, room);
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
