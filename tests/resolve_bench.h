/* A coordinator in small: a ring with a resolver on it, and questions that are counted. */
#ifndef SLUICE_TESTS_RESOLVE_BENCH_H
#define SLUICE_TESTS_RESOLVE_BENCH_H

#include "core/resolver/resolve.h"

#define OP_DNS 7

struct ask {
    struct resolve_request request;
    int answers; /* times that it was answered */
    int status;
    int again; /* asks to be repeated from within the answer */
};

struct bench {
    struct ring *ring;
    struct resolver *resolver;
    int answers, depth, depth_peak;
};
extern struct bench bench;
extern const char *bench_resolv_conf; /* for bench_open(); NULL: the machine's */

void bench_on_answered(void *context, struct resolve_request *request, void *cookie, int status);
void bench_open(const char *nameservers, uint32_t timeout_ms);
void bench_turn(uint64_t wait_ms);
uint64_t bench_run(int answers); /* turns until so many are there; the milliseconds that it took */
void bench_sleep(uint64_t ms);
void bench_close(void);
void ask_start(struct ask *ask, const char *name, int family);
/* Asks and waits for the answer. */
int ask_now(struct ask *ask, const char *name, int family);
void is_address(const struct ask *ask, uint32_t index, const char *text);

#endif
