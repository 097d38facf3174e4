/* The workers, their threads, and the queues between them and the coordinator.
 *
 *   worker --outbox--> coordinator --inbox--> worker        two queues per worker, one producer and one consumer each
 */
#ifndef SLUICE_CORE_CONTROL_WORKERS_H
#define SLUICE_CORE_CONTROL_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/ring.h"
#include "core/session/route_request.h"
#include "core/session/stats.h"

struct coordinator;

/* Makes the workers' pipes now, before privileges are dropped: the kernel bounds what the pipes of one ordinary user
 * hold. 0 or -ENOMEM. Otherwise workers make them as they need them. */
int coordinator_make_pipes(struct coordinator *c);

uint32_t coordinator_worker_count(const struct coordinator *c); /* 0 before coordinator_start() */
const struct stats *coordinator_worker_stats(const struct coordinator *c, uint32_t worker);
const struct ring_stats *coordinator_ring_stats(const struct coordinator *c, uint32_t worker);
/* Messages that wait now: to the coordinator, to the worker. */
void coordinator_queue_depths(const struct coordinator *c, uint32_t worker, uint32_t *to_us, uint32_t *to_worker);
/* Sessions that had to be reset because the drain was over. */
uint64_t coordinator_drain_resets(const struct coordinator *c);
/* The verdict stands in the request. result < 0: as if it were ROUTE_REJECT. */
void coordinator_answer(struct coordinator *c, struct route_request *request, int32_t result);

#endif
