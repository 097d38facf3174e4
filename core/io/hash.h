/* A keyed hash of octets, SipHash-2-4 (Aumasson and Bernstein 2012): who does not know the key cannot choose octets
 * that collide. */
#ifndef SLUICE_CORE_IO_HASH_H
#define SLUICE_CORE_IO_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash_keyed(const uint64_t key[2], const void *octets, size_t size);

#endif
