#include "lua/engine/offload.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "lua/engine/limits.h"

/* Jobs that have outlasted their callers, at a time. */
#define ABANDONED_MAX 8
/* Between two looks at the clock. */
#define OFFLOAD_LOOK_NS 5000000

enum { OFFLOAD_RUNNING, OFFLOAD_DONE, OFFLOAD_ABANDONED };

static atomic_int abandoned;

static void *offload_main(void *argument)
{
    struct offload_job *job = argument;
    job->work(job);
    int state = OFFLOAD_RUNNING;
    if (atomic_compare_exchange_strong(&job->state, &state, OFFLOAD_DONE)) {
        sem_post(&job->done); /* the last touch: but for the semaphore's memory, which offload_await() keeps */
        return NULL;
    }
    sem_destroy(&job->done);
    job->discard(job);
    atomic_fetch_sub(&abandoned, 1);
    return NULL;
}

/* 0 or an errno. */
static int offload_start(struct offload_job *job, pthread_t *thread)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the others */
    int error = pthread_create(thread, NULL, offload_main, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static bool offload_is_done(struct offload_job *job)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += OFFLOAD_LOOK_NS;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return sem_clockwait(&job->done, CLOCK_MONOTONIC, &at) == 0;
}

/* Whether it was done in time. */
static bool offload_await(struct limits *limits, struct offload_job *job)
{
    while (!offload_is_done(job)) {
        if (!limits_look(limits)) continue;
        int state = OFFLOAD_RUNNING;
        atomic_fetch_add(&abandoned, 1);
        if (atomic_compare_exchange_strong(&job->state, &state, OFFLOAD_ABANDONED)) return false;
        atomic_fetch_sub(&abandoned, 1);
    }
    return true;
}

bool offload_run(lua_State *L, struct offload_job *job)
{
    pthread_t thread;
    atomic_init(&job->state, OFFLOAD_RUNNING);
    int error = atomic_load(&abandoned) >= ABANDONED_MAX ? EAGAIN : sem_init(&job->done, 0, 0) < 0 ? errno : 0;
    if (error == 0) {
        error = offload_start(job, &thread);
        if (error != 0) sem_destroy(&job->done);
    }
    if (error != 0) {
        job->discard(job);
        return false;
    }
    if (!offload_await(limits_of(L), job)) {
        pthread_detach(thread);
        return false;
    }
    pthread_join(thread, NULL); /* it has nothing left to do */
    sem_destroy(&job->done);
    return true;
}
