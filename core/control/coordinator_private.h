/* What the parts of the coordinator have in common: coordinator.c, waiters.c, names.c, workers.c, errands.c,
 * settings.c, limiting.c, tallying.c, accounts.c, upstreams.c, upstream_check.c. */
#ifndef SLUICE_CORE_CONTROL_COORDINATOR_PRIVATE_H
#define SLUICE_CORE_CONTROL_COORDINATOR_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/control/checkers.h"
#include "core/control/heartbeat.h"
#include "core/control/hooks.h"
#include "core/io/letter.h"
#include "core/io/list.h"
#include "core/io/mailbox.h"
#include "core/io/pool.h"
#include "core/io/timer.h"
#include "core/resolver/resolver_thread.h"
#include "core/session/config.h"
#include "core/session/errand_kinds.h"
#include "core/session/own.h"
#include "core/session/tally.h"
#include "core/session/worker.h"
#include "core/usage/usage.h"

enum coordinator_op {
    COORDINATOR_OP_WAKE = 1,
    COORDINATOR_OP_WAITER, /* + the waiter's own; slot and generation: waiter */
};

/* A worker and its thread. */
struct worker_thread {
    struct worker worker;
    struct coordinator *coordinator;
    struct queue *outbox, *inbox;
    struct mailbox to_inbox;
    pthread_t thread;
    bool started, stopped;
    bool closed;                  /* its last message has been read: nothing more is sent to it */
    int cpu;                      /* -1: not pinned */
    struct heed_errand heed;      /* see limiting.c */
    bool heeding, heed_due;       /* it is under way; the worker is to look at all sessions, once more if it does */
    int result;                   /* of worker_open(), behind the lock */
    struct ring_stats ring_stats; /* what the ring had counted when it was closed */
};

struct coordinator {
    struct ring *ring;
    struct sleeper sleeper; /* of letters, outboxes, and answers of the resolver */
    struct letter_box letters;
    struct heartbeat heartbeat;
    struct own *own;
    struct coordinator_hooks hooks;
    struct access_log *access_log;
    void (*reload)(void *context);
    void *reload_context;
    _Atomic uint32_t revision; /* workers ask for routes while it is not zero */

    /* settings.c */
    const struct config *config;
    struct config *owned;                  /* the same, if it came by coordinator_configure(): then ours to free */
    _Atomic uint32_t drain_ms, timeout_ms; /* of `config`, for other threads */

    /* limiting.c */
    struct keys *keys;     /* workers use it, too */
    uint64_t clock_due_us; /* when it is to be told the time */

    /* tallying.c */
    struct keys *tally_users; /* workers use it, too */
    struct tally *tallies;    /* by worker */
    uint32_t tally_count;

    struct usage *usage; /* NULL: nobody keeps accounts */

    /* upstreams.c, upstream_check.c */
    struct upstream_groups *groups; /* workers use them, too; NULL: there are none */
    uint32_t member_ids;            /* that were given */
    struct link checks;

    /* accounts.c */
    struct checkers *checkers; /* NULL: no listener has users */
    uint32_t user_stores;
    uint32_t user_limits_left_out; /* since that was said last */

    /* waiters.c */
    struct pool waiters;        /* of struct waiter * */
    struct timer_wheel *timers; /* by waiter slot, in microseconds */
    bool expiring;              /* deadlines are being handed out */

    /* names.c */
    struct resolver_thread *resolver;
    struct mailbox names;        /* questions of our own */
    struct queue *names_answers; /* and what becomes of them */
    uint32_t names_open;
    bool names_stopped; /* no name is resolved any more */

    /* workers.c, errands.c */
    struct worker_thread *threads;
    struct worker **workers;
    uint32_t worker_count; /* written once, before the workers start: the configuration may be replaced meanwhile */
    struct pipe *pipes_ahead;
    uint32_t pipes_ahead_count;
    uint32_t next_worker; /* for what any worker may do */
    uint32_t running;     /* workers that have not said MESSAGE_STOPPED */
    bool broken;          /* a worker's ring broke */
    bool wakes_armed;     /* wake-ups of workers that no system call has submitted yet */
    pthread_mutex_t lock; /* start-up and end only, and who wakes workers from another thread */
    pthread_cond_t changed;
    uint32_t ready; /* workers that have finished worker_open() */
    bool go;        /* all are open: accept */
    bool abandon;   /* one is not: end */
    bool over;      /* nothing is posted to workers any more: their rings may go */

    /* the end */
    _Atomic uint32_t stops; /* how often we were asked to stop; workers read it too */
    uint32_t stops_seen;
    uint64_t drained_ms;     /* when the drain is over, and names with it; UINT64_MAX while nobody asks to stop */
    _Atomic bool finished;   /* the workers are gone */
    _Atomic int exit_status; /* that a script has asked for; -1: none has */
};

/* --- waiters.c --- */

int waiters_open(struct coordinator *c); /* 0 or -ENOMEM */
void waiters_close(struct coordinator *c);
void waiters_on_completion(struct coordinator *c, const struct ring_completion *completion);
void waiters_expire(struct coordinator *c);            /* calls those whose deadline has come */
uint64_t waiters_wait_us(const struct coordinator *c); /* until the next deadline; UINT64_MAX: there is none */

/* --- names.c --- */

int names_open(struct coordinator *c);  /* starts the resolver's thread: 0, or -errno after one log line */
void names_read(struct coordinator *c); /* delivers the answers that are there now */
void names_stop(struct coordinator *c); /* every question, of workers too, is answered with -ECANCELED from now on */
void names_end(struct coordinator *c);  /* nobody is answered any more, and what was lent is back */

/* --- workers.c --- */

/* Takes over the listening sockets, fds[worker * listener_count + listener], starts the threads and waits until each is
 * ready to accept, or one has failed: then all are stopped. 0 or -errno. */
int workers_start(struct coordinator *c, const int *fds);
void workers_join(struct coordinator *c);
void workers_close(struct coordinator *c);
void workers_read(struct coordinator *c);            /* what they have sent */
bool workers_have_sent(const struct coordinator *c); /* the last look before sleep */
/* False: the worker's queue is full. */
bool workers_try_push(struct coordinator *c, uint32_t worker, const struct message *message);
/* In front of whatever may run Lua: an answer that is ready must not wait for the end of a script that computes. At
 * most one system call for each sleep of a worker. */
void coordinator_wake_workers(struct coordinator *c);

/* --- errands.c --- */

/* Takes back what was lent to, or by, workers that have ended. */
void errands_take_back(struct coordinator *c);

/* --- limiting.c --- */

int limiting_open(struct coordinator *c); /* 0 or -ENOMEM; with the limits of the settings */
void limiting_close(struct coordinator *c);
void limiting_turn(struct coordinator *c);
/* The settings `fresh` are to take the place of `now`. */
void limiting_configure(struct coordinator *c, const struct config *now, const struct config *fresh);

/* --- upstreams.c --- */

int upstreams_start(struct coordinator *c); /* with the groups of the settings, before the workers: 0 or -ENOMEM */
/* The settings `fresh` have taken the place of `now`. */
void upstreams_configure(struct coordinator *c, const struct config *now, const struct config *fresh);
void upstreams_close(struct coordinator *c); /* the ring and the workers are gone */

/* --- tallying.c --- */

int tallying_open(struct coordinator *c); /* 0 or -ENOMEM; before the workers */
void tallying_close(struct coordinator *c);

/* --- accounts.c --- */

int accounts_start(struct coordinator *c); /* limits, threads: 0, or -errno after one log line */
void accounts_reload(struct coordinator *c);
void accounts_stop(struct coordinator *c); /* every password that waits is answered with VERIFY_STOPPED from now on */
void accounts_end(struct coordinator *c);  /* nobody is answered any more */
void accounts_close(struct coordinator *c);

/* --- settings.c --- */

/* Copies what threads need that must not follow the pointer to the settings. */
void settings_show(struct coordinator *c, const struct config *config);

#endif
