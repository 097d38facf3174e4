/* What the fuzz targets share: input whose every over-read AddressSanitizer sees, and what holds for every address that
 * a parser let in. */
#ifndef SLUICE_FUZZ_CHECK_H
#define SLUICE_FUZZ_CHECK_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "protocols/address.h"

/* A copy in a heap block of exactly `size` octets; the caller frees it. */
static inline uint8_t *check_copy(const void *data, size_t size)
{
    uint8_t *copy = calloc(size, 1);
    assert(copy != NULL || size == 0);
    if (size > 0) memcpy(copy, data, size);
    return copy;
}

/* Valid as a value, and its text means the same again: logs, rulesets and the next proxy see the text alone. */
static inline void check_address(const struct address *address)
{
    char text[ADDRESS_TEXT_SIZE];
    struct address again;
    assert(address->kind == ADDRESS_IPV4 || address->kind == ADDRESS_IPV6 || address->kind == ADDRESS_NAME);
    assert(address->name_size == (address->kind == ADDRESS_NAME ? strlen(address->name) : 0));
    assert(address_equal(address, address));
    size_t size = address_format(address, text, sizeof(text));
    assert(size == strlen(text));
    for (size_t i = 0; i < size; i++) assert((uint8_t)text[i] > ' ' && text[i] != 0x7f);
    assert(address_parse(text, size, ADDRESS_PORT_REQUIRED, 0, &again));
    assert(address_equal(address, &again));
    size = address_format_host(address, text, sizeof(text));
    assert(address_from_host(text, size, address->port, &again));
    assert(address_equal(address, &again));
}

#endif
