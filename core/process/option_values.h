/* Values that operands consist of: text to value, without a word about what is wrong. */
#ifndef SLUICE_CORE_PROCESS_OPTION_VALUES_H
#define SLUICE_CORE_PROCESS_OPTION_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/address.h"

#define VALUE_UNIX "unix:" /* what the path of a Unix socket follows */

/* One to fifteen digits and nothing else: strtoul() alone would take blanks, signs and what fits after wrapping. */
bool value_number(const char *text, size_t size, uint64_t *out);
/* Seconds: digits, which may have a fraction behind a point and a sign before them, so that a negative number is out of
 * range rather than none. strtod() alone would take blanks, hexadecimal and exponents, too. */
bool value_seconds(const char *text, double *out);
/* Octets, or KiB with K, or MiB with M behind the digits. */
bool value_size(const char *text, uint64_t *out);
/* a:b:c, three numbers up to INT32_MAX. */
bool value_triple(const char *text, uint32_t out[3]);
/* v4, v4:port, [v6], [v6]:port; a bare IPv6 address cannot have a port. */
bool value_is_nameserver(const char *text, size_t size);
/* Whether `name=` stands at text, as in front of an option of a listener: small letters and dashes. */
bool value_is_assignment(const char *text);
/* The size of the address that a listener's operand begins with: up to the first comma with `name=` behind it. */
size_t value_listen_size(const char *text);
bool value_is_unix(const char *text);
/* ":" and ":0": a ruleset is to say where. With a host and port 0, or none, it is asked for that host. */
bool value_is_left_open(const char *text);
/* host:port, or host: with port 0. */
bool value_target(const char *text, struct address *out);

#endif
