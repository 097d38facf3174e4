/* Content codings: whatever arrives stays within the limit; what is encoded comes back, and of that every beginning is
 * found to be truncated. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lua/engine/codec.h"

#define LIMIT 65536u

/* In a block of its own, so that the sanitizer sees who reads on. */
static enum codec_result decode_copy(enum codec codec, const void *data, size_t size, size_t limit, size_t *out_size)
{
    char *out, *copy = malloc(size > 0 ? size : 1);
    if (!copy) abort();
    if (size > 0) memcpy(copy, data, size);
    enum codec_result result = codec_decode_exactly(codec, copy, size, limit, &out, out_size);
    free(copy);
    if (result != CODEC_OK) return result;
    if (*out_size > limit || out[*out_size] != '\0') abort();
    free(out);
    return result;
}

/* The limit may be what comes out, and not an octet less. What is truncated was right so far: so is what it begins
 * with. For gzip a beginning may be whole. */
static void decode(enum codec codec, const uint8_t *data, size_t size)
{
    size_t out_size, again;
    enum codec_result result = decode_copy(codec, data, size, LIMIT, &out_size);
    if (result == CODEC_OK && decode_copy(codec, data, size, out_size, &again) != CODEC_OK) abort();
    if (result == CODEC_OK && out_size > 0 && decode_copy(codec, data, size, out_size - 1, &again) != CODEC_TOO_LARGE)
        abort();
    if ((result == CODEC_OK || result == CODEC_TRUNCATED) && size > 0) {
        enum codec_result shorter = decode_copy(codec, data, size - 1 - data[0] % size, LIMIT, &again);
        if (shorter == CODEC_CORRUPT || (codec == CODEC_DEFLATE && shorter == CODEC_OK)) abort();
    }
}

static void there_and_back(enum codec codec, const uint8_t *data, size_t size)
{
    char *packed, *out;
    size_t packed_size, out_size;
    if (codec_encode(codec, data, size, &packed, &packed_size) != CODEC_OK) return;
    if (codec_decode(codec, packed, packed_size, size, &out, &out_size) != CODEC_OK) abort();
    if (out_size != size || (size > 0 && memcmp(out, data, size) != 0)) abort();
    free(out);
    if (decode_copy(codec, packed, size > 0 ? data[0] % packed_size : 0, LIMIT, &out_size) != CODEC_TRUNCATED) abort();
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (enum codec codec = CODEC_DEFLATE; codec <= CODEC_GZIP; codec++) {
        decode(codec, data, size);
        if (size == 0 || data[0] % 2 == (codec == CODEC_GZIP))
            there_and_back(codec, data, size); /* a slow allocation */
    }
    return 0;
}
