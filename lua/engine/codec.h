/* Content codings on libdeflate: deflate in zlib format (RFC 1950) and gzip (RFC 1952, several members, checksums
 * verified). Knows no Lua; the API and the RPC client use it too.
 *
 * Results are malloc'd and the caller's to free, with a terminating zero that the size does not count. */
#ifndef SLUICE_LUA_ENGINE_CODEC_H
#define SLUICE_LUA_ENGINE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum codec { CODEC_NONE, CODEC_DEFLATE, CODEC_GZIP };
enum codec_result { CODEC_OK, CODEC_CORRUPT, CODEC_TRUNCATED, CODEC_TOO_LARGE, CODEC_NO_MEMORY };

#define CODEC_OUTPUT_MAX ((size_t)64 << 20)

/* `limit` bounds the output, and with it the memory: an input that holds more is CODEC_TOO_LARGE. NONE copies.
 * CORRUPT: it is not of that format, or ends too early. Octets behind the end are CORRUPT too, but for zeroes behind
 * gzip, which are padding. *out and *out_size are written on CODEC_OK only. */
enum codec_result codec_decode(enum codec codec, const void *data, size_t size, size_t limit, char **out,
                               size_t *out_size);
/* The same, but tells TRUNCATED, a beginning of something valid, from CORRUPT, where nothing that follows could help:
 * for that a refused input is walked once more, code by code. Seven megabytes took 0.2 s to a second, and the time
 * grows with the size: whoever has more than a little of it does not do this on a thread that others wait for. */
enum codec_result codec_decode_exactly(enum codec codec, const void *data, size_t size, size_t limit, char **out,
                                       size_t *out_size);
enum codec_result codec_encode(enum codec codec, const void *data, size_t size, char **out, size_t *out_size);
bool codec_is_gzip(const void *data, size_t size); /* by its first octets */
const char *codec_result_text(enum codec_result result);

#endif
