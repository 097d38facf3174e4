/* How connections leave this machine, as operators and scripts write it, and which address of a pool is whose. Pure.
 *
 *     192.0.2.7            one address
 *     192.0.2.0/28         the hosts of a network: without its first and last address, unless it is a /31
 *     2001:db8:1::/64      the same; without its first address (RFC 4291 section 2.6.1), unless it is a /127
 *     same                 the address at which the client came in, where the target is of that family
 *     any                  what the kernel chooses; alone
 *     by=user|source|round|random    whose address it is: the user's (default), the client's address's, each in turn,
 *                                    another one for each connection
 *
 * All values are plain, copied by assignment. */
#ifndef SLUICE_PROTOCOLS_EGRESS_TEXT_H
#define SLUICE_PROTOCOLS_EGRESS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/address.h"
#include "protocols/subnet.h"

#define EGRESS_RANGES_MAX  16u
#define EGRESS_DEVICE_SIZE 16u /* of an interface's name with its terminator: the kernel's IFNAMSIZ */

enum egress_by {
    EGRESS_BY_DEFAULT, /* USER */
    EGRESS_BY_USER,    /* by its name; without one as SOURCE */
    EGRESS_BY_SOURCE,  /* by the client's address, its network of 64 bits for IPv6 */
    EGRESS_BY_ROUND,   /* the next one for each connection */
    EGRESS_BY_RANDOM,
};

struct egress_range {
    uint8_t kind; /* ADDRESS_IPV4, ADDRESS_IPV6 */
    uint8_t bits; /* of 32 or 128 */
    struct number first;
};

struct egress_sources {
    bool given; /* else the other members say nothing */
    bool same, any;
    uint8_t by; /* enum egress_by */
    uint8_t count;
    struct egress_range ranges[EGRESS_RANGES_MAX];
};

/* What a setting, a listener or a verdict says; what it leaves out is another's to say. */
struct egress_terms {
    struct egress_sources sources;
    bool marked;
    uint32_t mark;
    char device[EGRESS_DEVICE_SIZE]; /* "": not given */
};

/* Adds what stands between commas. NULL, or what is wrong: static text that says what to give; then *sources is as it
 * was. */
const char *egress_parse_sources(const char *text, size_t size, struct egress_sources *sources);
/* NULL, or what is missing in all that was added: static text. */
const char *egress_check_sources(const struct egress_sources *sources);
/* Decimal, or hexadecimal behind 0x. False: no number of 32 bits. */
bool egress_parse_mark(const char *text, size_t size, uint32_t *mark);
/* False: no interface can have that name. */
bool egress_parse_device(const char *text, size_t size, char device[EGRESS_DEVICE_SIZE]);

/* --- choosing --- */

/* Whether connections have a source address of ours: a family that has none is refused then. */
static inline bool egress_binds(const struct egress_sources *sources)
{
    return sources->given && (sources->same || sources->count > 0);
}

/* One address of the pool. */
struct egress_place {
    uint8_t range;
    struct number host; /* number of the address among those of the range */
};

/* The place of `number` among the addresses of that kind (IPV4, IPV6). spread: the number is a hash, or random, and
 * hosts of large networks are taken from all of it; else it counts, and numbers that follow each other have addresses
 * that do. False: the pool has none of the kind. */
bool egress_first(const struct egress_sources *sources, uint8_t kind, uint64_t number, bool spread,
                  struct egress_place *place);
/* Another one of that kind, of another range if there is one: what is wrong with an address is often wrong with its
 * network. False: there is no other. */
bool egress_next(const struct egress_sources *sources, struct egress_place *place);
/* The address at that place, port 0. */
struct address egress_address(const struct egress_sources *sources, const struct egress_place *place);
/* All bits of the result depend on all of `number`. */
uint64_t egress_mix(uint64_t number);

#endif
