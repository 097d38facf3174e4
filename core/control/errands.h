/* What the coordinator has workers do (core/session/errand.h), connections for itself among it. */
#ifndef SLUICE_CORE_CONTROL_ERRANDS_H
#define SLUICE_CORE_CONTROL_ERRANDS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/session/errand_kinds.h"

struct coordinator;

/* Lends an errand to a worker; done() is called when it comes back, with -ECANCELED when the process stops first.
 * False: the queue is full, or the worker has stopped; done() is not called then. */
bool coordinator_may_send(const struct coordinator *c, uint32_t worker); /* the next coordinator_send() will do it */
bool coordinator_send(struct coordinator *c, uint32_t worker, struct errand *errand);
/* A connection to `target` by way of -x and `hops`, made by a worker: our end of a socket pair, non-blocking, on which
 * the first octet is 0 or an enum failure (struct dial_errand); or -errno. */
int coordinator_dial(struct coordinator *c, const struct address *target, const struct proxy_uri *hops,
                     uint8_t hop_count, uint32_t timeout_ms);
/* The same without -x. */
int coordinator_dial_directly(struct coordinator *c, const struct address *target, uint32_t timeout_ms);

#endif
