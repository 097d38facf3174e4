#include "core/io/pipes.h"

#include <assert.h>
#include <string.h>

#include "core/io/net.h"

/* Below this a pipe is worse than a copy: the kernel shrinks new pipes of a user who is over his limit to a page or
 * two. */
#define PIPES_SIZE_MIN 65536u

void pipes_open(struct pipes *pipes, uint32_t count, size_t size)
{
    pipes->count = (uint16_t)(count < PIPES_MAX ? count : PIPES_MAX);
    pipes->size_wanted = size;
    pipes->free_count = pipes->count;
    pipes->ahead = 0;
    for (uint16_t i = 0; i < pipes->count; i++) {
        pipes->all[i] = (struct pipe){.read_fd = -1, .write_fd = -1};
        pipes->free[i] = (uint16_t)(pipes->count - 1 - i); /* low indices first */
    }
}

static void pipe_unmake(struct pipe *pipe)
{
    if (pipe->read_fd < 0) return;
    net_close(pipe->read_fd);
    net_close(pipe->write_fd);
    *pipe = (struct pipe){.read_fd = -1, .write_fd = -1};
}

void pipes_close(struct pipes *pipes)
{
    for (uint16_t i = 0; i < pipes->count; i++) pipe_unmake(&pipes->all[i]);
}

static int pipe_make(struct pipe *pipe, size_t size)
{
    int fds[2];
    int error = net_pipe(fds, &size);
    if (error < 0) return error;
    *pipe = (struct pipe){.read_fd = fds[0], .write_fd = fds[1], .size = (uint32_t)size};
    if (size >= PIPES_SIZE_MIN) return 0;
    pipe_unmake(pipe);
    return -1;
}

uint32_t pipes_make_ahead(struct pipe *made, uint32_t count, size_t size)
{
    uint32_t done = 0;
    while (done < count && pipe_make(&made[done], size) == 0) done++;
    return done;
}

void pipes_open_with(struct pipes *pipes, uint32_t count, size_t size, const struct pipe *made, uint32_t made_count)
{
    assert(made_count <= count && made_count <= PIPES_MAX);
    pipes_open(pipes, count, size);
    pipes->ahead = (uint16_t)made_count;
    if (made_count > 0) memcpy(pipes->all, made, made_count * sizeof *made);
}

uint16_t pipes_borrow(struct pipes *pipes)
{
    if (pipes->free_count == 0) return PIPES_NONE;
    uint16_t index = pipes->free[pipes->free_count - 1];
    if (pipes->all[index].read_fd < 0 && pipe_make(&pipes->all[index], pipes->size_wanted) < 0) return PIPES_NONE;
    pipes->free_count--;
    return index;
}

void pipes_give(struct pipes *pipes, uint16_t index)
{
    assert(index < pipes->count && pipes->free_count < pipes->count);
    pipes->free[pipes->free_count++] = index;
}

void pipes_destroy(struct pipes *pipes, uint16_t index)
{
    assert(index < pipes->count);
    if (index < pipes->ahead)
        net_empty_pipe(pipes->all[index].read_fd);
    else
        pipe_unmake(&pipes->all[index]);
    pipes_give(pipes, index);
}
