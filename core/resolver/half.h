/* Half of a lookup: what is known of a name's addresses of one family, and what both halves say together. No
 * descriptor, no clock, no memory of its own. */
#ifndef SLUICE_CORE_RESOLVER_HALF_H
#define SLUICE_CORE_RESOLVER_HALF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/resolver/resolve_request.h"

enum { HALF_IPV4, HALF_IPV6, HALVES };

struct half {
    bool wanted, back;
    bool gone;  /* the server said that there is no such name, of whatever type */
    int status; /* back: 0 and at least one address, or -errno */
    uint64_t ttl_ms;
    uint32_t count;
    struct resolve_result results[RESOLVE_ADDRESSES_MAX];
};

/* What both halves say. */
struct halves_state {
    bool all;  /* that are wanted are back */
    bool good; /* one has an address */
    bool gone; /* one says that there is no such name */
};

/* Both are forgotten; `family` says which are wanted: AF_UNSPEC, AF_INET or AF_INET6. */
void halves_init(struct half halves[HALVES], int family);
/* Takes what came back. status: 0 and a DNS message in answer[size], or -errno. */
void half_take(struct half *half, unsigned which, int status, bool gone, const uint8_t *answer, size_t size);
bool half_is_good(const struct half *half); /* it is back, with an address */

struct halves_state halves_look(const struct half halves[HALVES]);
/* The addresses that are there, families interlaced. How many were written to out[RESOLVE_ADDRESSES_MAX]. */
uint32_t halves_merge(const struct half halves[HALVES], struct resolve_result *out);
/* How long what they say together holds. Shorter while one family is missing: it gets another chance soon. */
uint64_t halves_ttl_ms(const struct half halves[HALVES]);
/* Neither has an address: what to say. An error that may be gone next time is not "no such name". -errno. */
int halves_failure(const struct half halves[HALVES]);

#endif
