/* Between the parsers' addresses and the kernel's: conversions that ask nobody, so that the simulator has the same. */
#ifndef SLUICE_CORE_IO_NET_ADDRESS_H
#define SLUICE_CORE_IO_NET_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "protocols/address.h"

/* A socket address of any family that we use, with its length. */
struct net_address {
    socklen_t size;
    union {
        struct sockaddr_storage storage;
        struct sockaddr any;
    };
};

/* NAME and NONE have no socket form: false. */
bool net_address_from(const struct address *address, struct net_address *out);
/* v4-mapped IPv6 becomes IPv4. False for families that we do not know; then `out` is of kind NONE. */
bool net_address_to(const struct net_address *address, struct address *out);
/* The same host with this port, to be bound to. v4-mapped IPv6 becomes IPv4, an IPv6 scope is kept. False for families
 * without ports. */
bool net_address_set_port(struct net_address *address, uint16_t port);

#endif
