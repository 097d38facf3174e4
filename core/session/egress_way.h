/* Ways by which connections leave, as values: source addresses, mark, interface; and how a socket takes one. Knows no
 * sessions: egress.h is for these. */
#ifndef SLUICE_CORE_SESSION_EGRESS_WAY_H
#define SLUICE_CORE_SESSION_EGRESS_WAY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/session/config.h"
#include "protocols/egress_text.h"
#include "protocols/host_port.h"

enum egress_family { EGRESS_IPV4, EGRESS_IPV6, EGRESS_FAMILIES };

/* What decides where a connection comes from: two that are the same in this are the same to their target. */
struct egress_way {
    bool bound;                                /* a family without an address below is refused */
    struct host_port sources[EGRESS_FAMILIES]; /* port 0; NONE: there is none */
    bool marked;
    uint32_t mark;
    char device[EGRESS_DEVICE_SIZE]; /* "": any */
};

struct egress {
    struct egress_way way;
    struct egress_sources pool; /* that the sources are of */
    struct egress_place places[EGRESS_FAMILIES];
    bool pooled[EGRESS_FAMILIES]; /* the place says something: it is not that of `same` */
    bool moved[EGRESS_FAMILIES];  /* another address has been tried already */
};

/* What the terms say, on top of what is there; NULL: nothing. */
void egress_take_terms(struct egress *e, const struct egress_terms *terms);
/* The source of each family that the pool has one for, see egress_first(). */
void egress_choose_sources(struct egress *e, uint64_t number);
/* The way has the source at the family's place. */
void egress_take_place(struct egress *e, enum egress_family family);
/* Whether every connection is to have an address of its own, so that none may carry another's request. */
bool egress_is_fresh(const struct egress *e);
bool egress_way_equal(const struct egress_way *a, const struct egress_way *b);

/* For who has no worker: the same of a socket of its own. machine  see machine.h. 0, -EAFNOSUPPORT: there is no source
 * for that family; or what the kernel says. */
int egress_apply(const struct egress_way *way, int machine, int fd, const struct address *to, bool connects);

static inline enum egress_family egress_family_of(uint8_t kind)
{
    return kind == ADDRESS_IPV4 ? EGRESS_IPV4 : EGRESS_IPV6;
}

#endif
