/* SHA-256, by which the log and the metrics name scripts. */
#ifndef SLUICE_LUA_ENGINE_DIGEST_H
#define SLUICE_LUA_ENGINE_DIGEST_H

#include <stddef.h>

#define DIGEST_TEXT_SIZE 65u

/* 64 hexadecimal digits, terminated. */
void digest_sha256(const void *data, size_t size, char out[DIGEST_TEXT_SIZE]);

#endif
