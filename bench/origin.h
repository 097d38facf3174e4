/* The far end of a measurement: echo on port P, sink on P+1, source on P+2, idle on P+3, HTTP on P+4, verify on P+5,
 * fill (FILL_SIZE octets, and then nothing) on P+6, echo of datagrams on UDP port P+7, and on P+8 a source
 * that first hears how fast it is to be: eight octets, a uint64_t of this machine, octets a second or PACE_NONE. */
#ifndef SLUICE_BENCH_ORIGIN_H
#define SLUICE_BENCH_ORIGIN_H

#include <stdint.h>

#define PACE_NONE UINT64_MAX

/* Takes what arrives on `device` ("": on any), whatever address of it is meant. Says "ready" on stdout once all ports
 * are open, and serves until it is killed. */
__attribute__((noreturn)) void origin_run(uint16_t port, const char *device);

#endif
