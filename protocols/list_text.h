/* Lists of clients and targets, as text: one entry a line, blanks around it and comments (# to the end) left out. Pure.
 *
 *     192.0.2.7   10.0.0.0/8   2001:db8::/32   [2001:db8::1]      addresses and networks
 *     example.com       that name;      .example.com    that name and all below it
 *     *                 everything
 *
 * Behind targets a port may stand, or a range: example.com:443, 10.0.0.0/8:8000-8999, [2001:db8::/32]:443, *:25. */
#ifndef SLUICE_PROTOCOLS_LIST_TEXT_H
#define SLUICE_PROTOCOLS_LIST_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/subnet.h"

#define LIST_ENTRY_SIZE_MAX 512u /* octets */
#define LIST_PORT_MAX       65535u

enum list_entry_kind { LIST_ENTRY_IPV4, LIST_ENTRY_IPV6, LIST_ENTRY_NAME, LIST_ENTRY_SUFFIX, LIST_ENTRY_ALL };

struct list_entry {
    uint8_t kind;        /* enum list_entry_kind */
    uint8_t bits;        /* IPV4, IPV6: of the 128, so that an IPv4 network's are 96 more than its own */
    bool foreign;        /* NAME, SUFFIX: it has octets beyond ASCII, and is not judged further */
    uint16_t from, to;   /* ports; 0 to LIST_PORT_MAX: all */
    struct number first; /* IPV4, IPV6; a network within ::ffff:0:0/96 is one of IPv4 */
    const char *name;    /* NAME, SUFFIX: within the text, without dots around it */
    size_t name_size;
};

static inline bool list_entry_has_ports(const struct list_entry *entry)
{
    return entry->from > 0 || entry->to < LIST_PORT_MAX;
}

/* NULL, or what is wrong with the entry: static text that says what to give. targets: names and ports are allowed.
 * *out is written when the result is NULL. */
const char *list_parse_entry(const char *text, size_t size, bool targets, struct list_entry *out);

/* The next line of a text that ends at `end`, without blanks and comment; *at moves behind it. It may be empty. NULL:
 * no line is left. */
const char *list_next_line(const char **at, const char *end, size_t *size);

#endif
