/* Changes of users that take time: a password is hashed, the file is written (users_job.h). */
#ifndef SLUICE_CORE_CONTROL_ACCOUNT_CHANGE_H
#define SLUICE_CORE_CONTROL_ACCOUNT_CHANGE_H

#include "core/control/checkers.h"

struct coordinator;

struct account_change {
    struct checkers_order order; /* first; its job is filled in by the caller */
    struct coordinator *coordinator;
    struct users *users;
    bool has_groups, has_limit; /* what it says of them; else they stay, whatever they are by then */
    /* On the coordinator's thread. wrong: NULL, it is in force (and written); or why it is not. */
    void (*done)(struct account_change *change, const char *wrong);
};
/* The coordinator's until done() is called. */
void coordinator_change_user(struct coordinator *c, struct account_change *change);

#endif
