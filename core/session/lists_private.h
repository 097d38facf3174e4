/* What a side is made of, for those who build it and those who look up in it.
 *
 * What an entry says is a number: nothing, allow, deny; or, where ports matter, the index of a row: ranges of ports in
 * ascending order, with what holds around them. For a network that is what the network around it says. */
#ifndef SLUICE_CORE_SESSION_LISTS_PRIVATE_H
#define SLUICE_CORE_SESSION_LISTS_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/io/name_table.h"
#include "core/io/prefix_table.h"

enum { SAYS_NOTHING, SAYS_ALLOW, SAYS_DENY, SAYS_BY_PORT }; /* from the last on: rows */

struct list_range {
    uint16_t from, to;
    uint32_t says; /* SAYS_ALLOW or SAYS_DENY */
};

struct list_row {
    uint32_t first, count; /* of `ranges` */
    uint32_t around;
};

/* Behind each name: what is said of it and all below it, and of it alone. */
struct list_payload {
    uint32_t suffix, exact;
};

struct list_side {
    unsigned holders;
    bool selects;  /* what no entry matches is denied */
    bool by_place; /* an address may be what allows it */
    size_t entries;
    uint32_t all; /* what entries for everything say */
    struct prefix_table ipv4, ipv6;
    struct name_table names; /* mask 0: there is none */
    struct list_row *rows;
    struct list_range *ranges;
    size_t row_count, range_count;
    void *memory[4]; /* of the tables */
};

#endif
