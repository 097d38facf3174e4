/* Work of C that takes long and cannot be interrupted, on a thread of its own: whoever waits for it waits no longer
 * than the time budget.
 *
 *   RUNNING --the work is done--> DONE: the caller's again
 *           --the budget is over--> ABANDONED: the thread discards the job when the work is done
 *
 * The work touches its job alone: no Lua, and no memory of Lua's, which may be gone before it ends. */
#ifndef SLUICE_LUA_ENGINE_OFFLOAD_H
#define SLUICE_LUA_ENGINE_OFFLOAD_H

#include <lua.h>
#include <semaphore.h>
#include <stdbool.h>

struct offload_job { /* part of its owner's block, which was malloc'ed */
    void (*work)(struct offload_job *self);
    void (*discard)(struct offload_job *self); /* on the thread */
    _Atomic int state;
    sem_t done;
};

/* Runs job->work. True: it is done, and the job is the caller's. False: it is the thread's, and the budget is over; or
 * no thread could be started: then it has been discarded. Does not raise. */
bool offload_run(lua_State *L, struct offload_job *job);

#endif
