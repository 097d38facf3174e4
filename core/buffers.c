#include "buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

int buffers_open(struct buffers *buffers, struct ring *ring, uint16_t group, uint32_t count, uint32_t size)
{
    assert(count < BUFFERS_NONE);
    *buffers = (struct buffers){.ring = ring, .group = group, .count = count, .size = size};
    void *base =
        mmap(NULL, (size_t)count * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return -ENOMEM;
    buffers->base = base;
    buffers->next = malloc(count * sizeof *buffers->next);
    buffers->filled = malloc(count * sizeof *buffers->filled);
    int error = buffers->next && buffers->filled ? ring_group_open(ring, group, base, size, count) : -ENOMEM;
    if (error < 0) buffers_close(buffers);
    return error;
}

void buffers_close(struct buffers *buffers)
{
    if (!buffers->base) return;
    ring_group_close(buffers->ring, buffers->group);
    munmap(buffers->base, (size_t)buffers->count * buffers->size);
    free(buffers->next);
    free(buffers->filled);
    *buffers = (struct buffers){0};
}

void buffers_append(struct buffers *buffers, struct buffer_list *list, uint16_t buffer, uint32_t filled)
{
    assert(buffer < buffers->count);
    assert(filled > 0 && filled <= buffers->size);
    buffers->next[buffer] = BUFFERS_NONE;
    buffers->filled[buffer] = filled;
    buffers->leased++;
    if (list->count++ == 0)
        list->first = buffer;
    else
        buffers->next[list->last] = buffer;
    list->last = buffer;
}

void buffers_drop_first(struct buffers *buffers, struct buffer_list *list)
{
    assert(list->count > 0 && buffers->leased > 0);
    uint16_t buffer = list->first;
    list->first = buffers->next[buffer];
    if (--list->count == 0) list->last = BUFFERS_NONE;
    buffers->leased--;
    ring_group_give(buffers->ring, buffers->group, buffer);
}

void buffers_drop_all(struct buffers *buffers, struct buffer_list *list)
{
    while (list->count > 0) buffers_drop_first(buffers, list);
}

void buffers_return(struct buffers *buffers, uint16_t buffer)
{
    ring_group_give(buffers->ring, buffers->group, buffer);
}
