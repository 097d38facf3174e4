/* Positions grow without end and are masked on use. A record that would not fit in one piece before the end of the ring
 * begins at its start; a gap says so. */
#include "core/io/record_ring.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ALIGN 16u

struct piece {
    uint32_t size; /* with this head, a multiple of ALIGN */
    bool gap;
    uint8_t pad[ALIGN - sizeof(uint32_t) - sizeof(bool)];
};
static_assert(sizeof(struct piece) == ALIGN, "what follows a head is aligned as it is");

struct record_ring {
    uint8_t *base;
    uint32_t size;
    _Alignas(64) _Atomic uint64_t written; /* the writer's */
    uint64_t reserved;                     /* where the record ends that is being written */
    uint64_t read_seen;
    _Alignas(64) _Atomic uint64_t read; /* the reader's */
};

int record_ring_open(struct record_ring **out, uint32_t size)
{
    assert(size >= 4096 && (size & (size - 1)) == 0);
    struct record_ring *ring = aligned_alloc(64, sizeof *ring);
    if (!ring) return -ENOMEM;
    *ring = (struct record_ring){.size = size};
    ring->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ring->base == MAP_FAILED) {
        free(ring);
        return -ENOMEM;
    }
    *out = ring;
    return 0;
}

void record_ring_close(struct record_ring *ring)
{
    if (!ring) return;
    munmap(ring->base, ring->size);
    free(ring);
}

static struct piece *piece_at(const struct record_ring *ring, uint64_t position)
{
    return (struct piece *)(void *)(ring->base + (position & (ring->size - 1)));
}

static bool has_room(struct record_ring *ring, uint64_t end)
{
    if (end - ring->read_seen <= ring->size) return true;
    ring->read_seen = atomic_load_explicit(&ring->read, memory_order_acquire);
    return end - ring->read_seen <= ring->size;
}

void *record_ring_reserve(struct record_ring *ring, uint32_t size)
{
    assert(size > 0 && size <= ring->size / 4);
    uint64_t at = atomic_load_explicit(&ring->written, memory_order_relaxed);
    uint32_t whole = (uint32_t)sizeof(struct piece) + ((size + ALIGN - 1) & ~(ALIGN - 1));
    uint32_t left = ring->size - (uint32_t)(at & (ring->size - 1)); /* more than 0, a multiple of ALIGN */
    uint32_t gap = left < whole ? left : 0;
    if (!has_room(ring, at + gap + whole)) return NULL;
    if (gap > 0) *piece_at(ring, at) = (struct piece){.size = gap, .gap = true};
    struct piece *piece = piece_at(ring, at + gap);
    *piece = (struct piece){.size = whole};
    ring->reserved = at + gap + whole;
    return piece + 1;
}

void record_ring_commit(struct record_ring *ring)
{
    atomic_store_explicit(&ring->written, ring->reserved, memory_order_release);
}

void *record_ring_peek(struct record_ring *ring)
{
    uint64_t at = atomic_load_explicit(&ring->read, memory_order_relaxed);
    if (at == atomic_load_explicit(&ring->written, memory_order_acquire)) return NULL;
    struct piece *piece = piece_at(ring, at);
    if (!piece->gap) return piece + 1;
    at += piece->size; /* a record follows: both were committed together */
    atomic_store_explicit(&ring->read, at, memory_order_release);
    return piece_at(ring, at) + 1; /* the gap is the writer's again */
}

void record_ring_pop(struct record_ring *ring)
{
    uint64_t at = atomic_load_explicit(&ring->read, memory_order_relaxed);
    atomic_store_explicit(&ring->read, at + piece_at(ring, at)->size, memory_order_release);
}
