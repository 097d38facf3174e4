/* The order in which the addresses of a name are tried (RFC 6724 section 6, as far as this machine can tell), families
 * taking turns (RFC 8305 section 4). */
#ifndef SLUICE_CORE_RESOLVER_ADDRESS_ORDER_H
#define SLUICE_CORE_RESOLVER_ADDRESS_ORDER_H

#include "core/resolver/resolve_request.h"

/* Sorts in place, stable. Asks the kernel for the source address of each: a few system calls. */
void address_order_sort(struct resolve_result *results, uint32_t count);
/* Merges both families' addresses, each sorted, into `out`: they take turns, beginning with the better first one. At
 * most `room`; returns how many. */
uint32_t address_order_interlace(const struct resolve_result *ipv4, uint32_t ipv4_count,
                                 const struct resolve_result *ipv6, uint32_t ipv6_count, struct resolve_result *out,
                                 uint32_t room);

#endif
