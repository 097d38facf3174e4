/* Where a DEFLATE stream that libdeflate refused is wrong: whether it only ends too early. libdeflate does not say. */
#ifndef SLUICE_LUA_ENGINE_DEFLATE_H
#define SLUICE_LUA_ENGINE_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>

/* Walks the blocks of a raw stream (RFC 1951) from `data` without producing output, until it ends or makes no sense.
 * True: all octets make sense, and the final block is not over yet. *used, on false: the octets of a complete stream,
 * or 0 if there is something wrong. Takes time linear in `size`. */
bool deflate_is_truncated(const void *data, size_t size, size_t *used);

#endif
