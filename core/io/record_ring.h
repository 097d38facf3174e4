/* Records of any size from one thread to one other (C11 atomics, no locks), each in one piece, where it stays until the
 * reader is done with it. Full is an answer, not a wait. */
#ifndef SLUICE_CORE_IO_RECORD_RING_H
#define SLUICE_CORE_IO_RECORD_RING_H

#include <stddef.h>
#include <stdint.h>

struct record_ring; /* opaque */

/* size  octets, a power of two of at least a page; resident only as far as they were used. 0 or -ENOMEM. */
int record_ring_open(struct record_ring **out, uint32_t size);
void record_ring_close(struct record_ring *ring);

/* Writer only. Room for a record of `size` octets, aligned as malloc() does, the writer's until record_ring_commit();
 * NULL: the reader is behind. size  more than 0, at most a quarter of the ring. */
void *record_ring_reserve(struct record_ring *ring, uint32_t size);
void record_ring_commit(struct record_ring *ring); /* the one reserved last */

/* Reader only. The oldest record, the reader's until record_ring_pop(), which gives back that one; NULL: none. */
void *record_ring_peek(struct record_ring *ring);
void record_ring_pop(struct record_ring *ring);

#endif
