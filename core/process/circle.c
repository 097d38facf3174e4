#include "core/process/circle.h"

#include <string.h>
#include <strings.h>

#include "core/io/net_address.h"
#include "core/session/machine.h"

static bool is_ip(const struct address *a)
{
    return a->kind == ADDRESS_IPV4 || a->kind == ADDRESS_IPV6;
}

/* IPV6_V6ONLY is off: a listener on all IPv6 addresses takes IPv4 as well. */
static bool listener_takes(const struct listener_config *l, const struct address *to, int machine)
{
    const struct address *at = &l->address;
    if (at->kind == ADDRESS_UNIX || to->kind == ADDRESS_UNIX) return address_equal(at, to);
    if (!is_ip(at) || at->port != to->port) return false;
    if (!address_is_any_host(at)) return address_equal(at, to);
    return (at->kind == ADDRESS_IPV6 || to->kind == ADDRESS_IPV4) && machine_has(machine, to);
}

static uint32_t arrives(const struct config *c, const struct address *to)
{
    uint32_t found = CIRCLE_NONE;
    int machine = machine_open();
    for (uint32_t i = 0; i < c->listener_count && found == CIRCLE_NONE; i++)
        if (listener_takes(&c->listeners[i], to, machine)) found = i;
    machine_close(machine);
    return found;
}

uint32_t circle_arrives(const struct config *config, const struct address *to)
{
    struct net_address raw;
    struct address plain;
    if (to->kind == ADDRESS_UNIX) return arrives(config, to);
    if (is_ip(to)) {
        net_address_from(to, &raw); /* there and back: a mapped address is an IPv4 one */
        return net_address_to(&raw, &plain) ? arrives(config, &plain) : CIRCLE_NONE;
    }
    if (to->kind != ADDRESS_NAME || strcasecmp(to->name, "localhost") != 0) return CIRCLE_NONE;
    plain = (struct address){.kind = ADDRESS_IPV4, .port = to->port, .ipv4 = {127, 0, 0, 1}};
    uint32_t found = arrives(config, &plain);
    plain = (struct address){.kind = ADDRESS_IPV6, .port = to->port, .ipv6 = {[15] = 1}};
    return found == CIRCLE_NONE ? arrives(config, &plain) : found;
}

bool circle_returns(const struct config *config, uint32_t listener)
{
    uint32_t at = listener;
    for (uint32_t steps = 0; steps < config->listener_count; steps++) {
        const struct listener_config *l = &config->listeners[at];
        if (l->kind != LISTENER_FORWARD) return false;
        at = circle_arrives(config, &l->forward);
        if (at == CIRCLE_NONE) return false;
        if (at == listener) return true;
    }
    return false;
}
