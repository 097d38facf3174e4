/* What the boxes of a fleet have used together, in Redis.
 *
 * For each key with a quota and each period there is a hash, sluice:quota:PERIOD:BEGIN:KEY, with a field for each node:
 * what that node has used in the period, "UP DOWN", octets. A node writes its own field alone, and never a smaller
 * number: so it does not matter how often, or how late, a write is carried out, and a sum that Redis has lost is
 * written again. A script does the writing and the adding up in one step.
 *
 * A thread talks to the server, for it may not answer; the thread of accounts fills its batch and reads what came of
 * it. One batch is under way at a time. */
#ifndef SLUICE_CORE_USAGE_FLEET_H
#define SLUICE_CORE_USAGE_FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "core/usage/redis.h"
#include "protocols/limit_text.h"

#define FLEET_BATCH_MAX 4096u /* items */
#define FLEET_NODE_SIZE 33u   /* of a node's name: hex digits */

/* One key and period. */
struct fleet_item {
    struct limit_key key;
    uint8_t period;     /* enum limit_period */
    int64_t begin, end; /* seconds since 1970; EVER: 0 */
    uint64_t told[2];   /* up and down, that this node has used; 0: nothing is written */
    /* The asker's. */
    uint64_t own[2], counted[2]; /* the same, and what of it was since the process began */
    uint64_t handle;
    uint32_t index, generation;
    /* The answer. */
    uint64_t mine[2];   /* that Redis had of this node, before */
    uint64_t others[2]; /* of all others */
};

struct fleet_batch {
    uint32_t count;
    struct fleet_item items[FLEET_BATCH_MAX];
    int result;                       /* 0; or -1, and nothing is known of it: the message says why */
    char message[REDIS_MESSAGE_SIZE]; /* or a warning, where the result is 0; "" */
};

struct fleet;

/* Starts the thread, which connects when it has something to do. 0 or -errno. */
int fleet_open(struct fleet **out, const struct usage_text *where, const char *node);
/* Waits for the batch that is under way, so long at most. False: it still is. */
bool fleet_wait(struct fleet *fleet, uint32_t wait_ms);
/* Waits at most so long for the thread to end; then the thread is left to itself. */
void fleet_close(struct fleet *fleet, uint32_t wait_ms);
int fleet_event_fd(const struct fleet *fleet); /* an eventfd: a batch has come back */

/* The batch, to be filled, or read; NULL while the thread has it. */
struct fleet_batch *fleet_batch(struct fleet *fleet);
void fleet_send(struct fleet *fleet);

#endif
