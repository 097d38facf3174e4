/* One end of a connection, small: a host's address and its port, without names and paths. What is kept by the thousand
 * keeps this; everybody else speaks of struct address. */
#ifndef SLUICE_PROTOCOLS_HOST_PORT_H
#define SLUICE_PROTOCOLS_HOST_PORT_H

#include "protocols/address.h"

struct host_port {
    uint8_t kind;  /* ADDRESS_IPV4, ADDRESS_IPV6; ADDRESS_NONE: unknown, or a Unix socket, which has no such thing */
    uint16_t port; /* host byte order */
    uint8_t octets[16]; /* network order, of IPv4 the first four; the rest is zero */
};

/* NONE for a name, a path, and for no address. */
struct host_port host_port_of(const struct address *address);
struct address host_port_address(const struct host_port *host_port);

#endif
