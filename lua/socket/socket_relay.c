/* sock:relay(other): both sockets go to a worker, which relays between them as for any session. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/control/coordinator.h"
#include "lua/engine/coroutine.h"
#include "lua/socket/socket_private.h"

struct relay {
    struct relay_errand errand; /* first: comes back by its address */
    struct park park;
    int32_t result;
    int client; /* a descriptor of our own for the client's socket, with which the relay can be ended; -1: none */
};

/* The coroutine is gone: so is what it waited for. */
static void relay_abandon(struct park *park)
{
    const struct relay *r = link_owner(park, struct relay, park);
    if (r->client >= 0) shutdown(r->client, SHUT_RDWR);
}

static void relay_done(struct errand *errand, int32_t result)
{
    struct relay *r = (struct relay *)errand;
    for (unsigned i = 0; i < 2; i++)
        if (r->errand.fds[i] >= 0) close(r->errand.fds[i]); /* no worker has taken it */
    if (r->client >= 0) close(r->client);
    r->result = result;
    if (r->park.L) coroutine_resume(&r->park, r);
    free(r);
}

/* On the stack: both sockets. A reset is how connections end, too: it is told, not raised. */
static int relay_end(lua_State *L, int status, lua_KContext context)
{
    const struct relay *r = coroutine_result(L);
    int result = r ? r->result : -EINTR;
    (void)status, (void)context;
    lua_settop(L, 2);
    lua_pushinteger(L, r ? (lua_Integer)r->errand.bytes[0] : 0);
    lua_pushinteger(L, r ? (lua_Integer)r->errand.bytes[1] : 0);
    if (result == 0) return 2;
    if (result != -ECONNRESET) return socket_raise(L, "relay", result);
    socket_push_error(L, "relay", result);
    return 3;
}

/* A worker with room for an errand, beginning behind the one that was found last. False: all are busy. */
static bool relay_find_worker(const struct coordinator *c, uint32_t *worker)
{
    static uint32_t next;
    uint32_t count = coordinator_worker_count(c);
    for (uint32_t i = 0; i < count; i++) {
        *worker = next++ % count;
        if (coordinator_may_send(c, *worker)) return true;
    }
    return false;
}

/* The stream socket at `index`, connected, which nobody waits for. */
static struct sock *check_end(lua_State *L, int index)
{
    struct sock *s = socket_check(L, index, "relay");
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    luaL_argcheck(L, s->type == SOCK_STREAM, index, "stream socket expected");
    if (!link_is_empty(&s->handle->waits)) socket_raise(L, "relay", EBUSY);
    if (getpeername(socket_fd(s), (struct sockaddr *)&peer, &size) < 0) socket_raise(L, "relay", errno);
    return s;
}

/* The descriptor is somebody else's now. */
static void give_away(struct sock *s)
{
    s->handle->fd = -1;
    handle_close(&s->handle);
}

/* sock:relay(other) -> bytes up, bytes down[, error]                                         [-0, +3, e; yields] */
int socket_relay(lua_State *L)
{
    class_check(L, 2, &socket_class);
    lua_settop(L, 2);
    struct sock *client = check_end(L, 1), *upstream = check_end(L, 2);
    luaL_argcheck(L, client != upstream, 2, "another socket expected");
    if (!lua_isyieldable(L)) return luaL_error(L, "relay would block: not in asynchronous routine");
    coroutine_check(L);
    uint32_t worker;
    if (!relay_find_worker(engine_coordinator(engine_of(L)), &worker)) return socket_raise(L, "relay", EAGAIN);
    struct relay *r = calloc(1, sizeof *r);
    if (!r) return luaL_error(L, "not enough memory");
    r->errand.errand = (struct errand){.run = errand_relay, .done = relay_done};
    r->errand.fds[0] = client->handle->fd;
    r->errand.fds[1] = upstream->handle->fd;
    r->client = fcntl(client->handle->fd, F_DUPFD_CLOEXEC, 0);
    coroutine_park(L, &r->park, relay_abandon);
    socket_leave_sets(client->handle); /* once they are sent a worker may close them at any moment */
    socket_leave_sets(upstream->handle);
    if (coordinator_send(engine_coordinator(engine_of(L)), worker, &r->errand.errand)) {
        give_away(client);
        give_away(upstream);
        return lua_yieldk(L, 0, 0, relay_end);
    }
    coroutine_unpark(&r->park);
    if (r->client >= 0) close(r->client);
    free(r);
    return socket_raise(L, "relay", EAGAIN);
}
