/* What waits on the coordinator's thread for the ring or for time: a script's sleep, a peer's answer, the API's epoll.
 */
#ifndef SLUICE_CORE_CONTROL_WAITERS_H
#define SLUICE_CORE_CONTROL_WAITERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/ring.h"

struct coordinator;

/* Part of its owner's struct. It stays attached while an operation of it is in flight. */
struct waiter {
    void (*on_completion)(struct waiter *self, unsigned op, const struct ring_completion *completion);
    void (*on_time)(struct waiter *self); /* its deadline has come and is cleared */
    uint32_t slot;
};
#define COORDINATOR_WAITERS_MAX 65536u
#define COORDINATOR_WAITER_OPS  8u
/* False: too many wait already. */
bool coordinator_attach(struct coordinator *c, struct waiter *waiter);
void coordinator_detach(struct coordinator *c, struct waiter *waiter); /* nothing is in flight; clears the deadline */
/* op < COORDINATOR_WAITER_OPS, the waiter's own names for its operations. */
struct ring_tag coordinator_tag(const struct coordinator *c, const struct waiter *waiter, unsigned op);
void coordinator_set_deadline(struct coordinator *c, struct waiter *waiter, uint64_t deadline_ms); /* ring_now_ms() */
/* The same to the microsecond, ring_now_us(). It comes some tens of microseconds late, never early. */
void coordinator_set_deadline_us(struct coordinator *c, struct waiter *waiter, uint64_t deadline_us);
void coordinator_clear_deadline(struct coordinator *c, struct waiter *waiter);
/* The deadline that lies wait_ms ahead. Scripts may have been running since that clock was read, for seconds even: what
 * they wait for counts from here, and is never shorter than they asked. */
uint64_t coordinator_after_ms(uint64_t wait_ms);
uint64_t coordinator_after_us(uint64_t wait_us);

#endif
