/* A group of upstreams in the simulated world: the first proxy of the chain is one of its members, beside others that
 * nobody can reach. */
#ifndef SLUICE_TESTS_SIM_GROUPS_H
#define SLUICE_TESTS_SIM_GROUPS_H

#include "core/session/config.h"
#include "core/session/group.h"
#include "core/session/worker.h"

struct sim_groups {
    bool on;
    struct config real; /* as the world's, with the first proxy itself in the place of the group */
    struct upstream_groups set;
};

/* When all else is planned. What the peers are to go by. */
const struct config *sim_groups_plan(struct sim_groups *groups, struct config *config, bool calm);
void sim_groups_open(struct sim_groups *groups, struct worker *w);
/* All sessions are gone: nobody has a member any more. */
void sim_groups_check(const struct sim_groups *groups);
void sim_groups_close(struct sim_groups *groups);

#endif
