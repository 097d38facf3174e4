/* The thread that no script can hold. It reads the signals, has the API's connections (struct guest), writes the
 * workers' log lines, and ends the process when it was asked to stop and somebody does not return:
 *
 *     SIGTERM --> workers drain (a word of theirs, and a wake-up), coordinator ends its work, main closes everything
 *         \
 *          --drain + 0.8 s later, if Lua runs or nothing has happened: the process ends here, and a line says what was
 *          cut; 5 s later in any case
 *
 * It owns a ring, to wait on and to wake others with. Nothing that it calls waits for the coordinator. */
#ifndef SLUICE_CORE_CONTROL_SUPERVISOR_H
#define SLUICE_CORE_CONTROL_SUPERVISOR_H

#include "core/control/coordinator.h"

struct supervisor;

/* Starts the thread. The signals SIGINT, SIGTERM and SIGHUP are blocked for all threads from here on: call it first.
 * One log line and -errno on failure. */
int supervisor_open(struct supervisor **out);
/* From here on signals go to that coordinator, which outlives the supervisor. */
void supervisor_attach(struct supervisor *s, struct coordinator *c);
/* Ends the thread and waits for it: nobody may post to it any more, or wait in supervisor_do(). NULL is fine. */
void supervisor_close(struct supervisor *s);

/* --- from any thread --- */

/* Hands the letter over. */
void supervisor_post(struct supervisor *s, struct letter *letter);
/* Runs function(context) on the supervisor's thread, behind what was posted before, and waits for its end. */
void supervisor_do(struct supervisor *s, void (*function)(void *context), void *context);
/* Where the process is in its life. */
enum supervisor_phase {
    SUPERVISOR_STARTING, /* not all ports accept */
    SUPERVISOR_SERVING,
    SUPERVISOR_STOPPING, /* it was asked to stop */
};
enum supervisor_phase supervisor_phase(const struct supervisor *s);
void supervisor_set_serving(struct supervisor *s); /* unless it was asked to stop meanwhile */
/* A function that runs before the supervisor ends the process by force. It may run at any moment. One at most. */
void supervisor_set_last(struct supervisor *s, void (*last)(void));

/* For how long the coordinator's turn has lasted, or the run of Lua that it is in: 0, it waits or has not been at it
 * for SUPERVISOR_STUCK_MS; else milliseconds, and `who` says what it does, `script x` for example. Any thread. */
#define SUPERVISOR_STUCK_MS 1000u
uint64_t supervisor_stuck_ms(const struct supervisor *s, char *who, size_t size);

/* --- on the supervisor's thread --- */

/* A module of a higher room that runs on this thread: a descriptor that is polled, and a function for each turn. */
struct guest {
    int fd;
    bool paused; /* fd is not polled */
    /* Every turn. `ready`: fd had something to read. Returns for how many milliseconds nothing needs to be done. */
    uint64_t (*turn)(struct guest *self, uint64_t now_ms, bool ready);
};
void supervisor_set_guest(struct supervisor *s, struct guest *guest); /* NULL: none */
struct ring *supervisor_ring(struct supervisor *s);
uint64_t supervisor_now_ms(const struct supervisor *s);

#endif
