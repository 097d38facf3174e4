/* The access log in the simulated world: its records say of octets what the counters say, and no session is without
 * one. */
#ifndef SLUICE_TESTS_SIM_ACCESS_H
#define SLUICE_TESTS_SIM_ACCESS_H

#include "core/session/access.h"

struct sim_access {
    bool on;
    struct access_feed feed;
    struct sleeper sleeper;
    uint64_t up, down, ends, starts;
    uint64_t results[FAIL_COUNT]; /* of sessions */
    uint64_t refusals;            /* connections that became none */
};

void sim_access_open(struct sim_access *access, struct worker *w, uint64_t seed);
void sim_access_read(struct sim_access *access); /* in each turn */
void sim_access_check(const struct sim_access *access, const struct worker *w);
void sim_access_close(struct sim_access *access);

#endif
