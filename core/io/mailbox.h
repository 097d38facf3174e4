/* A way for messages from one thread to another: the queue, and the tag that wakes the receiver when it sleeps. One
 * sender. */
#ifndef SLUICE_CORE_IO_MAILBOX_H
#define SLUICE_CORE_IO_MAILBOX_H

#include "core/io/queue.h"
#include "core/io/ring.h"

struct mailbox {
    struct queue *queue;
    struct sleeper *sleeper;  /* the receiver's */
    struct ring *const *ring; /* where the receiver's ring stands, which it opens on its own thread */
    struct ring_tag wake;     /* what wakes it */
};

/* `own`: the sender's ring, with whose next ring_wait() the wake-up goes out. True in *woken (may be NULL): one was
 * armed. False: the queue is full. */
static inline bool mailbox_post(const struct mailbox *to, struct ring *own, const struct message *message, bool *woken)
{
    if (!queue_push(to->queue, message)) return false;
    if (!sleeper_must_wake(to->sleeper)) return true;
    ring_wake(own, *to->ring, to->wake);
    if (woken) *woken = true;
    return true;
}

#endif
