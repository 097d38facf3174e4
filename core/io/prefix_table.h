/* Networks with a value each, in which the longest one that holds an address is found, however many there are.
 *
 * Networks are either apart or one within the other. So they are laid out once as a line of steps: at each step a
 * number from which another value holds, that of the innermost network there. A look-up is a binary search for the last
 * step that is not above the address. Never written once it is built: any thread may look up. */
#ifndef SLUICE_CORE_IO_PREFIX_TABLE_H
#define SLUICE_CORE_IO_PREFIX_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "protocols/subnet.h"

/* A network to build from: `first` has no bits behind the first `bits` of 128. */
struct prefix {
    struct number first;
    uint32_t tag; /* the builder's own */
    uint8_t bits; /* 0...128; an IPv4 network's are 96 more than its own */
};

/* What holds in a network. same  its entries, `count` of the same network, at least one, by their tags; around: what
 * holds around it, 0 where nothing does. */
typedef uint32_t prefix_value(void *context, const struct prefix *same, size_t count, uint32_t around);

struct prefix_table {
    struct number *steps; /* ascending */
    uint32_t *values;     /* from that step on; 0: nothing */
    size_t count;
};

/* Octets that a table of so many networks may need; SIZE_MAX: too many. */
size_t prefix_table_size(size_t networks);
/* Builds the table into memory[prefix_table_size(count)], which is the caller's, is aligned as malloc() does, and lives
 * as long as the table. Sorts `networks` in place. value  NULL: the tag of a network's first entry. */
void prefix_table_build(struct prefix_table *table, void *memory, struct prefix *networks, size_t count,
                        prefix_value *value, void *context);
/* The value of the longest network that holds the number; 0: none does. */
uint32_t prefix_table_find(const struct prefix_table *table, struct number number);

#endif
