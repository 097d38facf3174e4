#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/control/coordinator.h"
#include "lua/engine/coroutine.h"
#include "lua/socket/socket.h"
#include "lua/socket/socket_private.h"

/* Where the kernel has no event for what is waited for. */
#define PAUSE_MS 10u

enum wait_op { WAIT_OP_POLL };

/* A coroutine that waits. A block of its own: the kernel may still poll when coroutine and socket are gone. */
struct wait {
    struct waiter waiter;
    struct park park;
    struct link link; /* in its handle's waits */
    struct handle *handle;
    struct coordinator *c;
    short events; /* of poll(2); 0: a pause */
    bool polling; /* the ring holds it */
    int result;   /* 0, or why it ended early */
};

static unsigned waiting; /* all that there are */
static struct link opened = {&opened, &opened};

bool socket_is_idle(void)
{
    return waiting == 0;
}

/* --- descriptors --- */

void handle_open(lua_State *L, struct handle **place)
{
    struct handle *h = malloc(sizeof *h);
    if (!h) {
        luaL_error(L, "not enough memory");
        return;
    }
    *h = (struct handle){.fd = -1, .door = -1, .references = 1, .owner = engine_of(L)};
    link_init(&h->waits);
    link_init(&h->members);
    link_append(&opened, &h->opened);
    *place = h;
}

static void handle_release(struct handle *h)
{
    if (--h->references == 0) free(h);
}

static void wait_cancel(struct wait *w, int error)
{
    if (w->result != 0) return; /* it is being cancelled */
    w->result = error;
    if (w->polling)
        ring_cancel(coordinator_ring(w->c), coordinator_tag(w->c, &w->waiter, WAIT_OP_POLL));
    else
        coordinator_set_deadline(w->c, &w->waiter, coordinator_now_ms(w->c));
}

void handle_cancel(struct handle *h, int error)
{
    for (struct link *link = h->waits.next; link != &h->waits; link = link->next)
        wait_cancel(link_owner(link, struct wait, link), error);
}

/* A poll keeps the socket, and so its port, open beyond close(): the kernel ends it first. And it must have seen the
 * poll, or it would look at whatever has the descriptor's number next. */
static void handle_shut(struct handle *h)
{
    bool polled = false;
    if (h->door >= 0) own_remove(coordinator_own(engine_coordinator(h->owner)), h->door);
    h->door = -1;
    if (h->fd < 0) return;
    for (const struct link *link = h->waits.next; link != &h->waits; link = link->next)
        polled = polled || link_owner(link, struct wait, link)->polling;
    if (polled) ring_flush(coordinator_ring(engine_coordinator(h->owner)));
    close(h->fd);
    h->fd = -1;
}

void handle_close(struct handle **place)
{
    struct handle *h = *place;
    if (!h) return;
    *place = NULL;
    link_remove(&h->opened);
    socket_leave_sets(h);
    handle_cancel(h, ECANCELED);
    handle_shut(h);
    handle_release(h);
}

int handle_note_door(struct handle *h)
{
    if (h->door >= 0 || !h->owner) return 0; /* the fuzzer's states belong to no engine */
    int door = own_add(coordinator_own(engine_coordinator(h->owner)), h->fd, OWN_NO_LISTENER, false);
    h->door = door < 0 ? -1 : door;
    return door == -ENOBUFS ? door : 0;
}

unsigned socket_count(const struct engine *owner)
{
    unsigned count = 0;
    for (const struct link *link = opened.next; link != &opened; link = link->next) {
        const struct handle *h = link_owner(link, struct handle, opened);
        count += h->owner == owner && !h->set && h->fd >= 0;
    }
    return count;
}

static void handle_drop(struct handle *h)
{
    if (h->set)
        socket_free_set(h->set);
    else
        handle_close(&h);
}

void socket_close_all(const struct engine *owner)
{
    for (struct link *link = opened.next, *next; link != &opened; link = next) {
        struct handle *h = link_owner(link, struct handle, opened);
        next = link->next;
        if (h->owner == owner) handle_drop(h);
    }
}

/* --- waiting --- */

deadline deadline_after(uint64_t timeout_ms)
{
    if (timeout_ms == TIMEOUT_NONE) return DEADLINE_NONE;
    return (deadline)coordinator_after_ms(timeout_ms);
}

bool handle_is_spent(lua_State *L, struct handle *h)
{
    if (!lua_isyieldable(L)) return false;
    uint64_t turn = ring_now_us(coordinator_ring(engine_coordinator(engine_of(L))));
    if (h->turn != turn) {
        h->turn = turn;
        h->moved = 0;
    }
    return h->moved >= SOCKET_BURST;
}

/* It is over: the coroutine goes on, unless it is gone. */
static void wait_end(struct wait *w)
{
    coordinator_detach(w->c, &w->waiter);
    link_remove(&w->link);
    waiting--;
    if (w->park.L) coroutine_resume(&w->park, &w->result);
    handle_release(w->handle);
    free(w);
}

/* What came while we were busy with something else has come in time. */
static bool wait_is_over(const struct wait *w)
{
    struct pollfd poll_fd = {.fd = w->handle->fd, .events = w->events};
    return w->handle->fd >= 0 && poll(&poll_fd, 1, 0) == 1;
}

static void wait_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    struct wait *w = link_owner(waiter, struct wait, waiter);
    (void)op;
    /* Whatever the poll itself had to say, the call that is made again says it better. */
    (void)completion;
    if (w->result == ETIMEDOUT && wait_is_over(w)) w->result = 0;
    wait_end(w);
}

static void wait_on_time(struct waiter *waiter)
{
    struct wait *w = link_owner(waiter, struct wait, waiter);
    if (w->polling)
        wait_cancel(w, ETIMEDOUT);
    else
        wait_end(w);
}

static void wait_abandon(struct park *park)
{
    wait_cancel(link_owner(park, struct wait, park), ECANCELED);
}

/* NULL: no memory, or too many wait already. */
static struct wait *wait_new(struct coordinator *c)
{
    struct wait *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->c = c;
    w->waiter = (struct waiter){.on_completion = wait_on_completion, .on_time = wait_on_time};
    if (coordinator_attach(c, &w->waiter)) return w;
    free(w);
    return NULL;
}

static void wait_arm(struct wait *w, short events, deadline until)
{
    uint64_t now = coordinator_now_ms(w->c), end = until == DEADLINE_NONE ? UINT64_MAX : (uint64_t)until;
    w->events = events;
    w->polling = events != 0;
    if (w->polling)
        ring_poll(coordinator_ring(w->c), w->handle->fd, events, coordinator_tag(w->c, &w->waiter, WAIT_OP_POLL));
    else if (end > now + PAUSE_MS)
        end = now + PAUSE_MS;
    if (end != UINT64_MAX) coordinator_set_deadline(w->c, &w->waiter, end);
}

int wait_begin(lua_State *L, struct handle *h, const char *call, short events, deadline until)
{
    if (!h) return EBADF;
    if (until != DEADLINE_NONE && deadline_after(0) >= until) return ETIMEDOUT;
    if (!lua_isyieldable(L)) return luaL_error(L, "%s would block: not in asynchronous routine", call);
    coroutine_check(L); /* raises; parking does not any more */
    struct wait *w = wait_new(engine_coordinator(engine_of(L)));
    if (!w) return luaL_error(L, "too many operations wait already");
    w->handle = h;
    h->references++;
    link_append(&h->waits, &w->link);
    waiting++;
    coroutine_park(L, &w->park, wait_abandon);
    wait_arm(w, events, until);
    return 0;
}

int wait_result(lua_State *L, int status, int own)
{
    if (status != LUA_YIELD) return 0;
    const int *result = coroutine_result(L);
    lua_settop(L, own);
    return result ? *result : EINTR;
}
