/* Hashes of octets. */
#ifndef SLUICE_CORE_IO_HASH_H
#define SLUICE_CORE_IO_HASH_H

#include <stddef.h>
#include <stdint.h>

/* SipHash-2-4 (Aumasson and Bernstein 2012): who does not know the key cannot choose octets that collide. */
uint64_t hash_keyed(const uint64_t key[2], const void *octets, size_t size);

/* FNV-1a of 64 bits (draft-eastlake-fnv), for tables in which octets that collide on purpose do no harm: they displace
 * each other's entries, or share a chain that is bounded. Goes on from `hash`, at first HASH_START. */
#define HASH_START UINT64_C(0xcbf29ce484222325)
uint64_t hash_plain(uint64_t hash, const void *octets, size_t size);

/* The same of the octets in lower case (ASCII): equal for host names that are equal. */
uint64_t hash_plain_lower(uint64_t hash, const void *octets, size_t size);

/* Both halves of a hash in one, for a table of a power of two of places. */
static inline uint32_t hash_fold(uint64_t hash)
{
    return (uint32_t)(hash ^ hash >> 32);
}

#endif
