/* Which addresses may be dialled (--block-outbound): judged on the address really connected to, after resolution.
 *
 * Classes: loopback 127/8, ::1; multicast 224/4, ff00::/8; local = what IANA's special-purpose registries list as not
 * globally reachable (policy.c has the table and its dates); global = the rest. 0/8 and :: are always refused. Forms
 * that carry an IPv4 address inside (v4-mapped, v4-compatible, NAT64 64:ff9b::/96, 6to4 2002::/16, Teredo) are judged
 * as what they carry. */
#ifndef SLUICE_CORE_SESSION_POLICY_H
#define SLUICE_CORE_SESSION_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/address.h"

enum policy_class {
    POLICY_LOOPBACK = 1u << 0,
    POLICY_MULTICAST = 1u << 1,
    POLICY_LOCAL = 1u << 2,
    POLICY_GLOBAL = 1u << 3,
    POLICY_NOWHERE = 1u << 4, /* 0/8, :: and 255.255.255.255: never dialled */
};

/* The class of an IPv4 or IPv6 address; Unix sockets come from the operator and are LOOPBACK; a NAME asserts. */
enum policy_class policy_classify(const struct address *address);
/* Whether an IPv6 address is of a form that carries an IPv4 address inside, which is written then. */
bool policy_carried(const struct address *address, uint8_t ipv4[4]);
/* blocked: a set of enum policy_class. */
bool policy_allows(uint32_t blocked, const struct address *address);
/* Parses "loopback,multicast,local,global", blanks and empty list allowed; replaces the whole set. False: `bad` points
 * at the unknown word within text, of *bad_size octets; 0: a member is empty. */
bool policy_parse(const char *text, uint32_t *blocked, const char **bad, size_t *bad_size);

#endif
