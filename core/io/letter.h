/* Letters from any thread to one, without locks: between the coordinator and the supervisor, for example.
 *
 * A letter is part of its sender's struct and belongs to the box from letter_put() until it is delivered; then it
 * is its receiver's, who may send it back. Nothing is allocated, so nothing can be full. */
#ifndef SLUICE_CORE_IO_LETTER_H
#define SLUICE_CORE_IO_LETTER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct letter {
    struct letter *next;                  /* the box's */
    void (*deliver)(struct letter *self); /* on the receiver's thread; the letter may be sent on, or freed, from here */
};

/* All zero is an empty one. */
struct letter_box {
    _Atomic(struct letter *) newest;
};

/* The caller then asks sleeper_must_wake() of the receiver's sleeper whether to wake it (queue.h). */
static inline void letter_put(struct letter_box *box, struct letter *letter)
{
    struct letter *newest = atomic_load_explicit(&box->newest, memory_order_relaxed);
    do letter->next = newest;
    while (!atomic_compare_exchange_weak_explicit(&box->newest, &newest, letter, memory_order_seq_cst,
                                                  memory_order_relaxed));
}

static inline bool letter_box_is_empty(const struct letter_box *box)
{
    return atomic_load_explicit(&box->newest, memory_order_seq_cst) == NULL;
}

/* Delivers what was there when it began, those of each sender in their order. Receiver only. */
static inline void letter_box_deliver(struct letter_box *box)
{
    struct letter *newest = atomic_exchange_explicit(&box->newest, NULL, memory_order_acquire), *oldest = NULL;
    while (newest) {
        struct letter *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct letter *next = oldest->next; /* the letter may be gone afterwards */
        oldest->deliver(oldest);
        oldest = next;
    }
}

#endif
