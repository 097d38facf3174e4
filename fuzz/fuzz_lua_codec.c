/* Content codings: whatever arrives stays within the limit; what is encoded comes back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lua/codec.h"

#define LIMIT 65536u

static void decode(enum codec codec, const uint8_t *data, size_t size)
{
    char *out;
    size_t out_size;
    if (codec_decode(codec, data, size, LIMIT, &out, &out_size) != CODEC_OK) return;
    if (out_size > LIMIT || out[out_size] != '\0') abort();
    free(out);
}

static void there_and_back(enum codec codec, const uint8_t *data, size_t size)
{
    char *packed, *out;
    size_t packed_size, out_size;
    if (codec_encode(codec, data, size, &packed, &packed_size) != CODEC_OK) return;
    if (codec_decode(codec, packed, packed_size, size, &out, &out_size) != CODEC_OK) abort();
    if (out_size != size || (size > 0 && memcmp(out, data, size) != 0)) abort();
    free(out);
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (enum codec codec = CODEC_DEFLATE; codec <= CODEC_GZIP; codec++) {
        decode(codec, data, size);
        there_and_back(codec, data, size);
    }
    return 0;
}
