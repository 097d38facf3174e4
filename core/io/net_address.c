#include "core/io/net_address.h"

#include <assert.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

static void from_ipv4(const struct address *address, struct net_address *out)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(address->port)};
    memcpy(&in.sin_addr, address->ipv4, sizeof address->ipv4);
    memcpy(&out->storage, &in, sizeof in);
    out->size = sizeof in;
}

static void from_ipv6(const struct address *address, struct net_address *out)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(address->port)};
    memcpy(&in6.sin6_addr, address->ipv6, sizeof address->ipv6);
    memcpy(&out->storage, &in6, sizeof in6);
    out->size = sizeof in6;
}

static void from_unix(const struct address *address, struct net_address *out)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    assert(address->name_size < sizeof un.sun_path);
    memcpy(un.sun_path, address->name, address->name_size);
    memcpy(&out->storage, &un, sizeof un);
    out->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + address->name_size + 1);
}

bool net_address_from(const struct address *address, struct net_address *out)
{
    switch (address->kind) {
    case ADDRESS_IPV4: from_ipv4(address, out); return true;
    case ADDRESS_IPV6: from_ipv6(address, out); return true;
    case ADDRESS_UNIX: from_unix(address, out); return true;
    default: return false;
    }
}

static void to_ipv6(const struct net_address *address, struct address *out)
{
    struct sockaddr_in6 in6;
    memcpy(&in6, &address->storage, sizeof in6);
    out->port = ntohs(in6.sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
        out->kind = ADDRESS_IPV4;
        memcpy(out->ipv4, &in6.sin6_addr.s6_addr[12], sizeof out->ipv4);
    } else {
        out->kind = ADDRESS_IPV6;
        memcpy(out->ipv6, &in6.sin6_addr, sizeof out->ipv6);
    }
}

bool net_address_to(const struct net_address *address, struct address *out)
{
    memset(out, 0, sizeof *out);
    if (address->any.sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &address->storage, sizeof in);
        out->kind = ADDRESS_IPV4;
        out->port = ntohs(in.sin_port);
        memcpy(out->ipv4, &in.sin_addr, sizeof out->ipv4);
    } else if (address->any.sa_family == AF_INET6) {
        to_ipv6(address, out);
    }
    return out->kind != ADDRESS_NONE;
}

bool net_address_set_port(struct net_address *address, uint16_t port)
{
    struct address plain;
    if (!net_address_to(address, &plain)) return false;
    plain.port = port;
    if (plain.kind == ADDRESS_IPV4) return net_address_from(&plain, address);
    struct sockaddr_in6 in6; /* not by way of `plain`, which knows no scope */
    memcpy(&in6, &address->storage, sizeof in6);
    in6.sin6_port = htons(port);
    memcpy(&address->storage, &in6, sizeof in6);
    return true;
}
