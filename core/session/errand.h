/* What the coordinator has a worker do: a call that runs on the worker's thread and is done on the coordinator's.
 *
 *   coordinator: coordinator_send() --> worker: run() ... worker_return() --> coordinator: done()
 *
 * The errand is lent: from coordinator_send() until done() its memory belongs to the worker. errand_kinds.h has what
 * workers can do. */
#ifndef SLUICE_CORE_SESSION_ERRAND_H
#define SLUICE_CORE_SESSION_ERRAND_H

#include <stddef.h>
#include <stdint.h>

struct worker;

struct errand {
    /* On the worker's thread. It calls worker_return() before it returns, or sees to it that somebody does later. */
    void (*run)(struct errand *self, struct worker *w);
    void (*done)(struct errand *self, int32_t result); /* on the coordinator's thread, exactly once */
    /* The worker's notes while it holds one that is done. */
    struct errand *next;
    int32_t result;
};

/* Errands that are done, in that order, each linked to the next. */
struct errand_returns {
    struct errand *first, *last;
};

/* On the coordinator's thread: it is back. */
static inline void errand_finish(struct errand *errand, int32_t result)
{
    errand->done(errand, result);
}

/* The first errand that an ended worker has left behind; NULL: there is none. */
static inline struct errand *errand_take_return(struct errand_returns *returns)
{
    struct errand *errand = returns->first;
    if (errand) returns->first = errand->next;
    return errand;
}

#endif
