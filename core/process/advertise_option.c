#include "core/process/advertise_option.h"

#include "core/session/policy.h"

/* An address that a client may send to: no wildcard, no group. */
static bool is_host(const struct address *address)
{
    return !(policy_classify(address) & (POLICY_NOWHERE | POLICY_MULTICAST));
}

int advertise_option_add(struct option_parse *p, struct advertise *advertise, const char *text, size_t size)
{
    struct address address;

    if (!address_from_host(text, size, 0, &address) || address.kind == ADDRESS_NAME)
        return option_complain(p, "\"%.*s\" is no address, give an IPv4 or IPv6 address without a port", (int)size,
                               text);
    if (!is_host(&address))
        return option_complain(p, "\"%.*s\" is no address of a host, give the one that clients reach", (int)size, text);
    struct address *place = address.kind == ADDRESS_IPV4 ? &advertise->ipv4 : &advertise->ipv6;
    if (place->kind != ADDRESS_NONE)
        return option_complain(p,
                               "\"%.*s\" is the second address of its family, give one IPv4 and one IPv6 address at "
                               "most",
                               (int)size, text);
    *place = address;
    return 0;
}
