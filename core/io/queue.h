/* A bounded queue of small values from one thread to one other (C11 atomics, no locks), and the protocol of sleeping.
 *
 * Full is an answer, not a wait. The producer's and the consumer's indices live on cache lines of their own, each with
 * a copy of the other's that is refreshed only when it seems full or empty. */
#ifndef SLUICE_CORE_IO_QUEUE_H
#define SLUICE_CORE_IO_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* The value that travels. The memory behind `body` belongs to the thread that holds the message. */
struct message {
    uint32_t kind;       /* what the two threads have agreed on */
    uint32_t slot;       /* of the sender's session pool */
    uint32_t generation; /* of that slot */
    int32_t result;      /* 0 or -errno, in answers */
    void *body;
};

struct queue; /* opaque */

int queue_open(struct queue **out, uint32_t capacity); /* a power of two; 0 or -ENOMEM */
void queue_close(struct queue *queue);
bool queue_push(struct queue *queue, const struct message *message); /* producer only; false: full */
bool queue_pop(struct queue *queue, struct message *message);        /* consumer only; false: empty */
uint32_t queue_depth(const struct queue *queue);                     /* any thread; approximate */
/* Consumer only: its last look before it sleeps, behind sleeper_announce() (sequentially consistent). */
bool queue_is_empty(const struct queue *queue);

/* A consumer that is about to sleep says so, looks once more, and only then sleeps; a producer that has pushed asks
 * whether it must wake. One sleeper serves all queues of its thread. */
struct sleeper {
    _Atomic uint32_t asleep;
};
void sleeper_announce(struct sleeper *sleeper); /* before the last look at the queues (sequentially consistent) */
void sleeper_awake(struct sleeper *sleeper);    /* after ring_wait(), or when the last look found something */
/* After queue_push(): true for exactly one caller per sleep, which then calls ring_wake(). */
bool sleeper_must_wake(struct sleeper *sleeper);

#endif
