/* The threads that check passwords: a slow hash runs on none of the others.
 *
 *   workers --letters--> desk --one password at a time--> hasher (2 to 8)
 *          <--letters--      <--------- letter ---------
 *
 * The desk is never slow. It answers at once whatever was verified before, refuses what is too much, and keeps one line
 * for each source; lines are served in turn, and one source never has all of the hashers. So whoever tries passwords
 * waits behind himself, however many he tries at once. Hashers run at a lower priority than what carries traffic.
 *
 * A hash cannot be broken off. At the end its question is answered without it, its thread is left to itself, and the
 * last one that goes frees what they share: nobody waits for a hash. */
#ifndef SLUICE_CORE_CONTROL_CHECKERS_H
#define SLUICE_CORE_CONTROL_CHECKERS_H

#include "core/control/users.h"
#include "core/control/users_job.h"
#include "core/session/config.h"
#include "core/session/verified.h"

/* Of one source (share.h), and of all, that wait for a hasher. Each takes a hash: at 50 ms these are 3 s. */
#define CHECKERS_SOURCE_MAX  64u
#define CHECKERS_WAITING_MAX 16384u

struct checkers; /* opaque */
struct ring;

/* A change of a user, made by a hasher: one of all at a time, between two passwords. */
struct checkers_order {
    struct letter letter;
    struct link line;
    struct checkers *checkers;
    struct users_job job;
    bool stopped; /* the server stops: it was not done, or nobody knows */
    /* On the desk's thread, whose ring that is; the order is not the desk's any more. */
    void (*done)(struct checkers_order *order, struct ring *ring);
};

/* The stores of `config`, still empty; no thread yet. 0 or -errno, after one log line. */
int checkers_open(struct checkers **out, const struct config *config);
/* store: 1 to config.user_file_count */
struct users *checkers_users(struct checkers *checkers, uint32_t store);
struct verifier *checkers_verifier(struct checkers *checkers);
/* Starts the threads. Signals are blocked before. 0, or -errno after one log line. */
int checkers_start(struct checkers *checkers);
/* The desk's until done() is called. By the thread that calls checkers_stop(), and not behind checkers_end(). */
void checkers_take_order(struct checkers *checkers, struct checkers_order *order);
/* From now on every question is answered with VERIFY_STOPPED, at once. */
void checkers_stop(struct checkers *checkers);
/* Nobody is answered any more, and no worker is woken. Waits for the desk, not for hashers. May be repeated. */
void checkers_end(struct checkers *checkers);
/* Nobody asks any more. NULL is fine. */
void checkers_close(struct checkers *checkers);

#endif
