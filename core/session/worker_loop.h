/* The loop of a worker's thread: submit, wait, dispatch. Nothing here waits for anybody but the kernel. */
#ifndef SLUICE_CORE_SESSION_WORKER_LOOP_H
#define SLUICE_CORE_SESSION_WORKER_LOOP_H

#include "core/session/worker.h"

/* Opens ring and pools, on the thread that will run the worker. The caller has filled config, index, listeners, peers,
 * queues and mailboxes. 0 or -errno after one log line. */
int worker_open(struct worker *w);
void worker_arm_listeners(struct worker *w);
/* One turn: submit, wait (at most timeout_ms), dispatch, timers, messages. 0, or -errno if the ring is broken. */
int worker_turn(struct worker *w, uint64_t timeout_ms);
/* Turns until the worker has stopped. */
int worker_run(struct worker *w);
void worker_close(struct worker *w);

#endif
