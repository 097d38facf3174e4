/* Host names for measurements: each says the address that it has, so that the name server needs no table.
 *
 *   t127-1-2-3.bench.test        has the address 127.1.2.3, for an hour
 *   n17.t127-1-2-3.bench.test    the same; each connection can have a name that nobody has seen before
 *
 * There are no addresses of IPv6, which the answer lets be remembered as well. */
#ifndef SLUICE_BENCH_NAMES_H
#define SLUICE_BENCH_NAMES_H

#include <netinet/in.h>
#include <stdint.h>

enum { NAMES_SIZE = 64 };

/* The name of `address`; serial 0: the one that stays. */
void names_write(const struct sockaddr_in *address, uint64_t serial, char to[NAMES_SIZE]);
/* Answers questions over UDP on that address until it is killed; says "ready" on stdout first. */
__attribute__((noreturn)) void names_run(const struct sockaddr_in *listen);

#endif
