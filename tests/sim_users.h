/* Users in the simulated world (--users): who has which password at what time, and somebody in the checkers' place, who
 * answers late, and in another order than that in which he was asked. */
#ifndef SLUICE_TESTS_SIM_USERS_H
#define SLUICE_TESTS_SIM_USERS_H

#include "core/session/session.h"
#include "core/session/worker.h"
#include "tests/sim.h"

#define SIM_USERS             4u /* names; the last one is nobody's */
#define SIM_PASSWORDS         3u
#define SIM_USERS_CHANGES_MAX 16u
#define SIM_USERS_ASKED_MAX   64u

struct sim_users_change {
    uint64_t at_us;
    uint8_t passwords[SIM_USERS]; /* SIM_PASSWORDS: nobody has that name */
};

struct sim_users_question {
    struct verify_request *request;
    uint64_t due_us;
};

struct sim_users {
    struct verifier verifier; /* first: workers have a pointer to it */
    bool on, calm, stopping;
    struct sim_users_change changes[SIM_USERS_CHANGES_MAX]; /* the first one is how it began */
    uint32_t change_count, changes_max;
    struct sim_users_question questions[SIM_USERS_ASKED_MAX];
    uint32_t question_count;
    uint32_t heard[VERIFY_STOPPED + 1]; /* answers that a session has waited for to its end, by result */
    uint32_t left;                      /* and those for sessions that had ended */
};

/* Of one user and one password. */
void sim_users_name(uint8_t user, uint8_t password, struct credentials *out);

/* In some worlds, by their seed; config: the first listener's clients must be users. */
void sim_users_plan(struct sim_users *users, struct config *config, uint64_t seed, bool calm);
void sim_users_open(struct sim_users *users, struct worker *w);
/* Answers what is due; now and then somebody gets another password. True if anything moved. */
bool sim_users_act(struct sim_users *users, struct worker *w, bool stopping, uint64_t *wake_us);
/* Whether that was the user's password, from since_us on until now. */
enum sim_while sim_users_right(const struct sim_users *users, uint8_t user, uint8_t password, uint64_t since_us);
/* No password stands where nobody needs it any more. */
void sim_users_look(const struct sim_users *users, const struct worker *w);
/* A ruleset is asked about a client that has shown who it is. */
void sim_users_check_request(const struct sim_users *users, const struct route_request *request);
/* All sessions are gone. exact: nobody else has said no to user and password. */
void sim_users_check(const struct sim_users *users, const struct worker *w, bool exact);

#endif
