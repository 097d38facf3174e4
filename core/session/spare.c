#include "core/session/spare.h"

#include "core/io/net.h"

/* In the place of a descriptor; 0: the worker has not been opened. */
#define SPARE_MISSING (-1)
#define SPARE_CLOSED  (-2)

/* Workers that have none at the moment: looked at for each connection, while their spares are not. */
static _Atomic uint32_t missing;

bool spare_is_missing(void)
{
    return atomic_load_explicit(&missing, memory_order_acquire) > 0;
}

/* Of this worker, else of another one; SPARE_MISSING: of none. */
static int spare_take(struct worker *w)
{
    int fd = atomic_exchange(&w->spare_fd, SPARE_MISSING);
    for (uint32_t i = 0; i < w->peer_count && fd < 0; i++) {
        int there = atomic_load(&w->peers[i]->spare_fd);
        if (there > 0 && atomic_compare_exchange_strong(&w->peers[i]->spare_fd, &there, SPARE_MISSING)) fd = there;
    }
    if (fd >= 0) atomic_fetch_add(&missing, 1);
    return fd;
}

static bool spare_put(struct worker *w, int fd)
{
    int expected = SPARE_MISSING;
    if (!atomic_compare_exchange_strong(&w->spare_fd, &expected, fd)) return false;
    atomic_fetch_sub(&missing, 1);
    return true;
}

/* To whoever misses one, this worker first. */
static void spare_give(struct worker *w, int fd)
{
    bool given = spare_put(w, fd);
    for (uint32_t i = 0; i < w->peer_count && !given; i++) given = spare_put(w->peers[i], fd);
    if (!given) net_close(fd);
}

bool spare_refill(struct worker *w)
{
    int fd = net_open_spare();
    if (fd >= 0) spare_give(w, fd);
    return fd >= 0;
}

void spare_open(struct worker *w)
{
    int fd = net_open_spare();
    atomic_store(&w->spare_fd, fd >= 0 ? fd : SPARE_MISSING);
    if (fd < 0) atomic_fetch_add(&missing, 1);
}

void spare_close(struct worker *w)
{
    int fd = atomic_exchange(&w->spare_fd, SPARE_CLOSED);
    if (fd > 0) net_close(fd);
    if (fd == SPARE_MISSING) atomic_fetch_sub(&missing, 1);
}

void spare_make_of(struct worker *w, int fd)
{
    net_reset_on_close(fd);
    net_make_spare(fd);
    spare_give(w, fd);
}

bool spare_refuse(struct worker *w, int listener_fd, struct host_port *client)
{
    if (!net_is_readable(listener_fd)) return false; /* nobody waits: the spare is not given up for nothing */
    int spare = spare_take(w);
    if (spare < 0) return false;
    net_close(spare);
    int fd = net_accept(listener_fd);
    if (fd < 0) {
        (void)spare_refill(w); /* else it is missing */
        return false;
    }
    *client = net_peer_host_port(fd);
    spare_make_of(w, fd);
    return true;
}
