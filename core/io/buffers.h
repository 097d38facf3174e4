/* The receive buffers of a worker: lent to the kernel as a group, leased by it with each receive, given back when they
 * are sent.
 *
 * The kernel takes buffers in the order in which they were given, and would touch all of them in turn. So it is given
 * only as many as one turn of the loop may need (`lent_max`); the others wait on a stack, the warmest on top, and
 * replace those that are leased.
 *
 * Leased buffers are chained into first-in first-out lists by index, so that a flow can hold any number without memory
 * of its own. */
#ifndef SLUICE_CORE_IO_BUFFERS_H
#define SLUICE_CORE_IO_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/io/ring.h"

#define BUFFERS_NONE UINT16_MAX

struct buffers {
    struct ring *ring;
    uint8_t *base;
    uint16_t *next;   /* per buffer: successor in the list it is on */
    uint32_t *filled; /* per buffer: octets received */
    uint32_t size;    /* octets of each buffer */
    uint32_t count;
    uint32_t leased; /* held by flows */
    uint32_t lent;   /* with the kernel */
    uint32_t lent_max;
    uint16_t *spare; /* stack of those that are neither */
    uint32_t spare_count;
    uint32_t clean;     /* of the stack, from the bottom: not resident */
    uint32_t spare_low; /* fewest spare ones since they were trimmed last */
    uint16_t group;
};

struct buffer_list {
    uint16_t first, last; /* BUFFERS_NONE when empty */
    uint16_t count;
};
#define BUFFER_LIST_EMPTY ((struct buffer_list){.first = BUFFERS_NONE, .last = BUFFERS_NONE})

/* lent: how many buffers the kernel has at a time, a power of two; one wait leases no more than that. 0 or -errno. */
int buffers_open(struct buffers *buffers, struct ring *ring, uint16_t group, uint32_t count, uint32_t lent,
                 uint32_t size);
void buffers_close(struct buffers *buffers);
/* A completion brought `buffer` with `filled` octets: it joins the end of the list. */
void buffers_append(struct buffers *buffers, struct buffer_list *list, uint16_t buffer, uint32_t filled);
/* Leases a spare buffer, copies as much of `data` into it as fits, and appends it to the list. Returns how many octets
 * that were: 0 when no buffer is spare. */
uint32_t buffers_copy(struct buffers *buffers, struct buffer_list *list, const uint8_t *data, uint32_t size);
/* Takes the first buffer off the list and gives it back to the kernel. */
void buffers_drop_first(struct buffers *buffers, struct buffer_list *list);
void buffers_drop_all(struct buffers *buffers, struct buffer_list *list);
/* Gives back a buffer that came with a completion which nobody wants any more. */
void buffers_return(struct buffers *buffers, uint16_t buffer);

static inline uint8_t *buffers_at(const struct buffers *buffers, uint16_t buffer)
{
    return buffers->base + (size_t)buffer * buffers->size;
}

/* Called now and then: gives spare buffers that nobody has needed since the last call back to the system, a few at a
 * time. */
void buffers_trim(struct buffers *buffers);
static inline bool buffers_are_trimmed(const struct buffers *buffers)
{
    return buffers->clean == buffers->spare_count;
}

/* Enough buffers are back with the kernel to let starved flows receive again. */
static inline bool buffers_are_plenty(const struct buffers *buffers)
{
    return buffers->lent > buffers->lent_max / 2;
}

#endif
