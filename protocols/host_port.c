#include "protocols/host_port.h"

#include <string.h>

struct host_port host_port_of(const struct address *address)
{
    struct host_port host_port = {.kind = ADDRESS_NONE};
    if (address->kind != ADDRESS_IPV4 && address->kind != ADDRESS_IPV6) return host_port;
    host_port.kind = address->kind;
    host_port.port = address->port;
    memcpy(host_port.octets, address->ipv6,
           address->kind == ADDRESS_IPV4 ? sizeof address->ipv4 : sizeof address->ipv6);
    return host_port;
}

struct address host_port_address(const struct host_port *host_port)
{
    struct address address = {.kind = host_port->kind, .port = host_port->port};
    memcpy(address.ipv6, host_port->octets, sizeof address.ipv6);
    return address;
}
