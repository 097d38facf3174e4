#include "core/session/egress_way.h"

#include <errno.h>
#include <string.h>

#include "core/io/net.h"
#include "core/session/machine.h"

/* --- choosing --- */

static uint8_t kind_of(enum egress_family family)
{
    return family == EGRESS_IPV4 ? ADDRESS_IPV4 : ADDRESS_IPV6;
}

void egress_take_place(struct egress *e, enum egress_family f)
{
    struct address source = egress_address(&e->pool, &e->places[f]);
    e->way.sources[f] = host_port_of(&source);
    e->pooled[f] = true;
}

void egress_choose_sources(struct egress *out, uint64_t number)
{
    bool spread = out->pool.by != EGRESS_BY_ROUND;
    for (enum egress_family f = EGRESS_IPV4; f < EGRESS_FAMILIES; f++) {
        if (!egress_first(&out->pool, kind_of(f), number, spread, &out->places[f])) continue;
        egress_take_place(out, f);
    }
}

void egress_take_terms(struct egress *out, const struct egress_terms *terms)
{
    if (!terms) return;
    if (terms->sources.given) out->pool = terms->sources;
    if (terms->marked) {
        out->way.marked = true;
        out->way.mark = terms->mark;
    }
    if (terms->device[0]) memcpy(out->way.device, terms->device, sizeof out->way.device);
}

bool egress_is_fresh(const struct egress *e)
{
    return e->way.bound && e->pool.by == EGRESS_BY_RANDOM;
}

static bool same_source(const struct host_port *a, const struct host_port *b)
{
    struct address one = host_port_address(a), other = host_port_address(b);
    return address_equal(&one, &other);
}

bool egress_way_equal(const struct egress_way *a, const struct egress_way *b)
{
    if (a->bound != b->bound || a->marked != b->marked || a->mark != b->mark) return false;
    if (strcmp(a->device, b->device) != 0) return false;
    return same_source(&a->sources[EGRESS_IPV4], &b->sources[EGRESS_IPV4]) &&
           same_source(&a->sources[EGRESS_IPV6], &b->sources[EGRESS_IPV6]);
}

/* --- sockets --- */

/* An IPv6 address may be bound to without being ours: then connections would leave, and nobody would answer. */
static int bind_source(const struct address *source, int machine, int fd, bool connects)
{
    struct net_address raw;
    if (source->kind == ADDRESS_IPV6 && !machine_has(machine, source)) return -EADDRNOTAVAIL;
    net_address_from(source, &raw);
    return net_bind_source(fd, &raw, connects);
}

int egress_apply(const struct egress_way *way, int machine, int fd, const struct address *to, bool connects)
{
    if (to->kind == ADDRESS_UNIX) return 0;
    struct address source = host_port_address(&way->sources[egress_family_of(to->kind)]);
    if (way->bound && source.kind == ADDRESS_NONE) return -EAFNOSUPPORT;
    int error = way->marked ? net_set_mark(fd, way->mark) : 0;
    if (error == 0 && way->device[0]) error = net_set_device(fd, way->device);
    if (error == 0 && way->bound) error = bind_source(&source, machine, fd, connects);
    return error;
}
