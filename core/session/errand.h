/* What the coordinator has a worker do: a call that runs on the worker's thread and is done on the coordinator's.
 *
 *   coordinator: coordinator_send() --> worker: run() ... errand_return() --> coordinator: done()
 *
 * The errand is lent: from coordinator_send() until done() its memory belongs to the worker. errand_kinds.h has what
 * workers can do. */
#ifndef SLUICE_CORE_SESSION_ERRAND_H
#define SLUICE_CORE_SESSION_ERRAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct worker;

struct errand {
    /* On the worker's thread. It calls errand_return() before it returns, or sees to it that somebody does later. */
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

/* Sends back an errand that is done. Errands fill a quarter of the queue to the coordinator at most, whose rest is for
 * what may not wait (config_size()); those beyond it wait on the worker. So the coordinator may lend as many errands as
 * it likes while it does not read, and any number of relays may end at once. */
void errand_return(struct worker *w, struct errand *errand, int32_t result);
void errand_return_more(struct worker *w); /* in each turn: those that wait and now have room */
static inline bool errand_returns_wait(const struct errand_returns *returns)
{
    return returns->first != NULL;
}
/* The first errand that a worker which is gone has left behind; NULL: there is none. */
struct errand *errand_take_return(struct errand_returns *returns);

#endif
