/* `tail` counts what was pushed, `head` what was popped; both run free and wrap at 2^32, a power of two larger than any
 * capacity. Each side reads the other's counter only when its own copy says full or empty, so that in a busy queue the
 * two cache lines do not travel for every message.
 *
 * Sleeping is Dekker's problem: the consumer writes `asleep` and reads `tail`, the producer writes `tail` and reads
 * `asleep`; one of them must see the other. All four are sequentially consistent for that reason: in the one order of
 * them all, whoever comes second sees the first. (Fences would do as well, but ThreadSanitizer does not know them.) */
#include "core/io/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define CACHE_LINE 64

struct queue {
    /* read by both, written by none */
    _Alignas(CACHE_LINE) uint32_t capacity;
    /* the producer's line */
    _Alignas(CACHE_LINE) _Atomic uint32_t tail;
    uint32_t head_seen;
    /* the consumer's line */
    _Alignas(CACHE_LINE) _Atomic uint32_t head;
    uint32_t tail_seen;
    _Alignas(CACHE_LINE) struct message messages[];
};

int queue_open(struct queue **out, uint32_t capacity)
{
    assert(capacity > 0 && (capacity & (capacity - 1)) == 0);
    assert(capacity <= UINT32_C(1) << 30);
    size_t size = sizeof(struct queue) + (size_t)capacity * sizeof(struct message);
    size = (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    struct queue *queue = aligned_alloc(CACHE_LINE, size);
    if (queue == NULL) return -ENOMEM;
    queue->capacity = capacity;
    queue->head_seen = 0;
    queue->tail_seen = 0;
    atomic_init(&queue->tail, 0);
    atomic_init(&queue->head, 0);
    *out = queue;
    return 0;
}

void queue_close(struct queue *queue)
{
    free(queue);
}

bool queue_push(struct queue *queue, const struct message *message)
{
    uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    if (tail - queue->head_seen == queue->capacity) {
        queue->head_seen = atomic_load_explicit(&queue->head, memory_order_acquire);
        if (tail - queue->head_seen == queue->capacity) return false;
    }
    assert(tail - queue->head_seen < queue->capacity);
    queue->messages[tail & (queue->capacity - 1)] = *message;
    atomic_store_explicit(&queue->tail, tail + 1, memory_order_seq_cst);
    return true;
}

bool queue_pop(struct queue *queue, struct message *message)
{
    uint32_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    if (head == queue->tail_seen) {
        queue->tail_seen = atomic_load_explicit(&queue->tail, memory_order_seq_cst);
        if (head == queue->tail_seen) return false;
    }
    assert(queue->tail_seen - head <= queue->capacity);
    *message = queue->messages[head & (queue->capacity - 1)];
    atomic_store_explicit(&queue->head, head + 1, memory_order_release);
    return true;
}

/* `head` first: it cannot overtake a `tail` that is read later. The difference may have grown past the capacity. */
uint32_t queue_depth(const struct queue *queue)
{
    uint32_t head = atomic_load_explicit(&queue->head, memory_order_acquire);
    uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_acquire);
    return tail - head < queue->capacity ? tail - head : queue->capacity;
}

/* An acquire load may be taken before the store of `asleep` in front of it (ARM's LDAPR): queue_depth() will not do. */
bool queue_is_empty(const struct queue *queue)
{
    return atomic_load_explicit(&queue->head, memory_order_relaxed) ==
           atomic_load_explicit(&queue->tail, memory_order_seq_cst);
}

void sleeper_announce(struct sleeper *sleeper)
{
    atomic_store_explicit(&sleeper->asleep, 1, memory_order_seq_cst);
}

void sleeper_awake(struct sleeper *sleeper)
{
    atomic_store_explicit(&sleeper->asleep, 0, memory_order_seq_cst);
}

/* The plain load keeps the line shared while nobody sleeps, which is nearly always; the exchange elects one waker. */
bool sleeper_must_wake(struct sleeper *sleeper)
{
    if (atomic_load_explicit(&sleeper->asleep, memory_order_seq_cst) == 0) return false;
    return atomic_exchange_explicit(&sleeper->asleep, 0, memory_order_seq_cst) != 0;
}
