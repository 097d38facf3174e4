/* Limits in the simulated world: some keys, terms that change while sessions run, and what must hold when all is over.
 */
#ifndef SLUICE_TESTS_SIM_LIMITS_H
#define SLUICE_TESTS_SIM_LIMITS_H

#include "core/session/errand_kinds.h"
#include "core/session/tally.h"
#include "core/session/worker.h"

struct sim_limits {
    bool on, calm;
    struct limit_terms quotas; /* of the total, which stay */
    struct keys *keys;         /* NULL unless on */
    struct heed_errand heed;
    bool heeding, heed_goes_on;
    struct tally tally; /* of who moves how much, whether on or not */
};

/* calm: nothing is refused or cut, all of it only takes its time. */
void sim_limits_plan(struct sim_limits *limits, bool calm);
void sim_limits_open(struct sim_limits *limits, struct worker *w);
/* Now and then a limit changes. The errand that the worker is to get, or NULL. */
struct errand *sim_limits_act(struct sim_limits *limits);
/* An errand that is back. True: it was ours. */
bool sim_limits_hear(struct sim_limits *limits, const void *body);
/* All sessions are gone. alone: everything that was counted was under the limits. */
void sim_limits_check(const struct sim_limits *limits, const struct worker *w, bool alone);
void sim_limits_close(struct sim_limits *limits);

#endif
