/* A change of a user that takes time: a password is hashed, the user's line in the file is written. For a thread that
 * may sleep; one at a time, so that no line of another change is lost. */
#ifndef SLUICE_CORE_CONTROL_USERS_JOB_H
#define SLUICE_CORE_CONTROL_USERS_JOB_H

#include "core/control/users.h"

#define USERS_WHY_SIZE 512u

struct users_job {
    char password[CREDENTIALS_PART_MAX + 2]; /* to be hashed, and wiped then; one that is too long is told so */
    bool hashes;                             /* there is one; else `hash` is what it is to be */
    bool removes;                            /* the user goes */
    const char *path;                        /* of the file that is written, longer there than the job; NULL: none is */
    char name[USERS_NAME_MAX + 1];
    struct users_texts texts; /* of the line; in and out: its hash */
    bool refused;             /* why: for the one who asked; else something has failed */
    char why[USERS_WHY_SIZE]; /* "": it is done */
};

void users_job_run(struct users_job *job);

#endif
