/* The pipes that bulk flows borrow. A budget, not a promise: no pipe to be had means that the flow goes on copying.
 *
 * Pipes are made on first need and kept. One that is given back is empty; a flow that ends with octets in its pipe has
 * it destroyed. Those that were made before privileges fell cannot be had again, and are emptied instead. */
#ifndef SLUICE_CORE_IO_PIPES_H
#define SLUICE_CORE_IO_PIPES_H

#include <stddef.h>
#include <stdint.h>

#define PIPES_MAX  256u
#define PIPES_NONE UINT16_MAX

struct pipe {
    int read_fd, write_fd; /* -1: not made */
    uint32_t size;         /* octets that the kernel granted */
};

struct pipes {
    struct pipe all[PIPES_MAX];
    uint16_t free[PIPES_MAX]; /* stack of indices */
    uint16_t free_count;
    uint16_t count; /* the budget */
    uint16_t ahead; /* the first of them were made ahead */
    size_t size_wanted;
};

void pipes_open(struct pipes *pipes, uint32_t count, size_t size);
/* Makes pipes of about `size` octets for pipes_open_with(), as many of `count` as the kernel grants: how many. */
uint32_t pipes_make_ahead(struct pipe *made, uint32_t count, size_t size);
/* The same as pipes_open() with `made` as its first pipes, which become the pool's. */
void pipes_open_with(struct pipes *pipes, uint32_t count, size_t size, const struct pipe *made, uint32_t made_count);
void pipes_close(struct pipes *pipes);
uint16_t pipes_borrow(struct pipes *pipes);              /* PIPES_NONE: budget spent, or the kernel refuses */
void pipes_give(struct pipes *pipes, uint16_t index);    /* it is empty */
void pipes_destroy(struct pipes *pipes, uint16_t index); /* it may hold octets that nobody wants */
static inline uint16_t pipes_lent(const struct pipes *pipes)
{
    return (uint16_t)(pipes->count - pipes->free_count);
}

#endif
