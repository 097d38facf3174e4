/* Lists of clients and targets in the simulated world, which are replaced while sessions run: what each of them denies
 * is known here without the tables that the worker looks into. */
#ifndef SLUICE_TESTS_SIM_LISTS_H
#define SLUICE_TESTS_SIM_LISTS_H

#include "core/session/errand_kinds.h"
#include "core/session/lists.h"
#include "core/session/worker.h"
#include "tests/sim_peers.h"

#define SIM_LISTS_MAX 12u /* generations */

/* What a generation denies; bits by tunnel. */
struct sim_lists_generation {
    uint64_t begins_us, ends_us; /* when a worker may obey it; UINT64_MAX: until now */
    uint16_t clients, names, networks;
    uint16_t addresses[ADDRESSES_MAX];
    bool allows; /* what is not listed is denied: all that anybody asks for is listed */
};

struct sim_lists {
    bool on, reloading;
    uint32_t count, most, tunnels;
    uint64_t turn, settled_turn; /* of the worker: when it came to obey the latest generation */
    struct sim_lists_generation generations[SIM_LISTS_MAX];
    struct lists *current, *old;
    struct config configs[2]; /* the worker obeys one of them in turn */
    struct config_errand errand;
    struct judge_errand judge;
    bool judging;
    uint32_t judged_count; /* of generations when that was sent; 0: one was not in force yet */
};

/* In some worlds, by their seed. config: its lists are the first ones. */
void sim_lists_plan(struct sim_lists *lists, struct config *config, uint64_t seed, uint32_t tunnels);
/* Now and then other lists, or a look at all clients. The errand that the worker is to get, or NULL. */
struct errand *sim_lists_act(struct sim_lists *lists, const struct config *config);
/* An errand that is back. True: it was ours. */
bool sim_lists_hear(struct sim_lists *lists, const struct worker *w, const void *body);
void sim_lists_turn(struct sim_lists *lists); /* the worker's next one begins */
/* A tunnel as its client asks for it: from since_us on until now, has it been denied? In part counts as SOMETIMES. */
enum sim_while sim_lists_denied(const struct sim_lists *lists, const struct tunnel *t, uint64_t since_us);
enum sim_while sim_lists_client_denied(const struct sim_lists *lists, const struct tunnel *t, uint64_t since_us);
/* The worker connects to an address of a tunnel. */
void sim_lists_check_connect(const struct sim_lists *lists, const struct tunnel *t, unsigned address);
/* It uses a connection to that address, for a request of after since_us. */
void sim_lists_check_reuse(const struct sim_lists *lists, const struct tunnel *t, unsigned address, uint64_t since_us);
void sim_lists_close(struct sim_lists *lists);

#endif
