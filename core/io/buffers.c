#include "core/io/buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/io/memory.h"

/* Buffers that are given back to the system at a time: a system call each. */
#define BUFFERS_TRIM_MAX 128u

int buffers_open(struct buffers *buffers, struct ring *ring, uint16_t group, uint32_t count, uint32_t lent,
                 uint32_t size)
{
    assert(count < BUFFERS_NONE && lent <= count);
    *buffers = (struct buffers){.ring = ring, .group = group, .count = count, .size = size};
    buffers->lent_max = lent;
    void *base = memory_map((size_t)count * size);
    if (!base) return -ENOMEM;
    buffers->base = base;
    buffers->next = malloc(count * sizeof *buffers->next);
    buffers->filled = malloc(count * sizeof *buffers->filled);
    buffers->spare = malloc(count * sizeof *buffers->spare);
    bool whole = buffers->next && buffers->filled && buffers->spare;
    int error = whole ? ring_group_open(ring, group, base, size, buffers->lent_max) : -ENOMEM;
    if (error < 0) {
        buffers_close(buffers);
        return error;
    }
    buffers->lent = buffers->lent_max;
    for (uint32_t i = count; i > buffers->lent; i--) buffers->spare[buffers->spare_count++] = (uint16_t)(i - 1);
    buffers->clean = buffers->spare_low = buffers->spare_count;
    return 0;
}

void buffers_close(struct buffers *buffers)
{
    if (!buffers->base) return;
    ring_group_close(buffers->ring, buffers->group);
    munmap(buffers->base, (size_t)buffers->count * buffers->size);
    free(buffers->next);
    free(buffers->filled);
    free(buffers->spare);
    *buffers = (struct buffers){0};
}

static void buffers_lend(struct buffers *buffers, uint16_t buffer)
{
    ring_group_give(buffers->ring, buffers->group, buffer);
    buffers->lent++;
}

static uint16_t buffers_take_spare(struct buffers *buffers)
{
    uint16_t buffer = buffers->spare[--buffers->spare_count];
    if (buffers->spare_low > buffers->spare_count) buffers->spare_low = buffers->spare_count;
    if (buffers->clean > buffers->spare_count) buffers->clean = buffers->spare_count;
    return buffer;
}

/* The kernel has used one of its buffers. */
static void buffers_replace(struct buffers *buffers)
{
    assert(buffers->lent > 0);
    buffers->lent--;
    if (buffers->spare_count > 0) buffers_lend(buffers, buffers_take_spare(buffers));
}

static void buffers_take_back(struct buffers *buffers, uint16_t buffer)
{
    if (buffers->lent < buffers->lent_max)
        buffers_lend(buffers, buffer);
    else
        buffers->spare[buffers->spare_count++] = buffer;
}

void buffers_trim(struct buffers *buffers)
{
    for (unsigned i = 0; i < BUFFERS_TRIM_MAX && buffers->clean < buffers->spare_low; i++)
        memory_give_back(buffers_at(buffers, buffers->spare[buffers->clean++]), buffers->size);
    buffers->spare_low = buffers->spare_count;
}

static void buffers_lease(struct buffers *buffers, struct buffer_list *list, uint16_t buffer, uint32_t filled)
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

void buffers_append(struct buffers *buffers, struct buffer_list *list, uint16_t buffer, uint32_t filled)
{
    buffers_lease(buffers, list, buffer, filled);
    buffers_replace(buffers);
}

uint32_t buffers_copy(struct buffers *buffers, struct buffer_list *list, const uint8_t *data, uint32_t size)
{
    assert(size > 0);
    if (buffers->spare_count == 0) return 0;
    uint16_t buffer = buffers_take_spare(buffers);
    uint32_t filled = size < buffers->size ? size : buffers->size;
    memcpy(buffers_at(buffers, buffer), data, filled);
    buffers_lease(buffers, list, buffer, filled);
    return filled;
}

void buffers_drop_first(struct buffers *buffers, struct buffer_list *list)
{
    assert(list->count > 0 && buffers->leased > 0);
    uint16_t buffer = list->first;
    list->first = buffers->next[buffer];
    if (--list->count == 0) list->last = BUFFERS_NONE;
    buffers->leased--;
    buffers_take_back(buffers, buffer);
}

void buffers_drop_all(struct buffers *buffers, struct buffer_list *list)
{
    while (list->count > 0) buffers_drop_first(buffers, list);
}

void buffers_return(struct buffers *buffers, uint16_t buffer)
{
    ring_group_give(buffers->ring, buffers->group, buffer); /* into the place that it has just left */
}
