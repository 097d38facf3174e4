/* Connections that the coordinator has a worker make (DIAL), and sockets of scripts that it has relayed (RELAY), beside
 * the sessions of a simulated world: one of each at a time. */
#ifndef SLUICE_TESTS_SIM_ERRANDS_H
#define SLUICE_TESTS_SIM_ERRANDS_H

#include "core/io/queue.h"
#include "core/session/errand_kinds.h"
#include "tests/sim.h"

/* An end that the worker was lent, and what its far end does. */
struct lent {
    struct sim_conn *conn;
    bool open;          /* the far end is there */
    uint64_t leaves_us; /* when it closes */
};

struct errands {
    bool on;      /* this world has some */
    bool reaches; /* a connection may succeed */
    bool dialling, relaying;
    uint32_t dials, relays; /* that a session has taken */
    struct dial_errand dial;
    struct relay_errand relay;
    struct lent dialled, relayed[2];
};

/* What to send now, if anything; `post` sends it to the worker. True if anything moved. */
bool errands_act(struct errands *errands, bool stopping, void (*post)(const struct message *message),
                 uint64_t *wake_us);
/* One of them is back. False: the message is none of theirs. */
bool errands_hear(struct errands *errands, const struct message *message);
void errands_check_ends(const struct errands *errands);

#endif
