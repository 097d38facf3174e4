/* Base64 with padding (RFC 4648 section 4), for Basic credentials. */
#ifndef SLUICE_PROTOCOLS_BASE64_H
#define SLUICE_PROTOCOLS_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BASE64_SIZE(octets) (((octets) + 2u) / 3u * 4u)

/* Encodes; `out` gets BASE64_SIZE(size) characters and no terminator. Returns the characters written, or 0 if
 * `out_size` is too small (also for size 0). */
size_t base64_encode(const uint8_t *data, size_t size, char *out, size_t out_size);

/* Decodes strictly: length a multiple of four, padding where it belongs, unused bits zero, no blanks.
 * False when malformed or larger than `out_size`; `*used` octets written otherwise. */
bool base64_decode(const char *text, size_t size, uint8_t *out, size_t out_size, size_t *used);

#endif
