#include "lua/engine/digest.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdint.h>
#include <stdio.h>

void digest_sha256(const void *data, size_t size, char out[DIGEST_TEXT_SIZE])
{
    uint8_t digest[32] = {0};
    gnutls_hash_fast(GNUTLS_DIG_SHA256, data, size, digest);
    for (size_t i = 0; i < sizeof digest; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}
