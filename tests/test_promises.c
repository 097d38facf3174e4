/* What a reply or the end of a connection promises has happened before the client can see it: a worker on a real ring,
 * stepped turn by turn. What a turn armed is submitted by the next one, so that between two turns nothing of it has
 * happened yet, and whatever the client could learn from it must already be true. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "core/io/net.h"
#include "core/process/config_size.h"
#include "core/process/listen.h"
#include "core/process/options.h"
#include "core/session/session.h"
#include "core/session/worker.h"
#include "core/session/worker_loop.h"
#include "tests/support.h"

#define TURNS_MAX 2000u /* of a millisecond at most */

struct world {
    struct config config;
    struct worker worker;
    struct worker *peers[1];
    struct sleeper far_sleeper; /* of the coordinator and of the resolver, who never sleep */
    struct queue *mail, *questions;
    _Atomic uint32_t revision, stops;
    struct sockaddr_in listener;
};

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = port,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}; /* port: as in the socket */
}

static struct sockaddr_in local_of(int fd)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    return address;
}

static int open_listener(void)
{
    int fd = net_socket(AF_INET, SOCK_STREAM);
    struct sockaddr_in address = loopback(0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static int set_up(void **state)
{
    static struct world world;
    memset(&world, 0, sizeof world);
    struct worker *w = &world.worker;
    config_defaults(&world.config);
    world.config.workers = 1;
    world.config.socks5_bind = world.config.socks5_udp = true;
    world.config.listener_count = 1;
    world.config.listeners[0].kind = LISTENER_AUTO;
    config_size(&world.config);
    w->config = &world.config;
    w->listeners[0].fd = open_listener();
    world.listener = local_of(w->listeners[0].fd);
    world.peers[0] = w;
    w->peers = world.peers;
    w->peer_count = 1;
    w->revision = &world.revision;
    w->stops = &world.stops;
    assert_int_equal(queue_open(&w->inbox, world.config.queue_capacity), 0);
    assert_int_equal(queue_open(&w->names, world.config.queue_capacity), 0);
    assert_int_equal(queue_open(&world.mail, world.config.queue_capacity), 0);
    assert_int_equal(queue_open(&world.questions, world.config.queue_capacity), 0);
    w->coordinator = (struct mailbox){.queue = world.mail, .sleeper = &world.far_sleeper};
    w->resolver = (struct mailbox){.queue = world.questions, .sleeper = &world.far_sleeper};
    assert_int_equal(own_open(&w->own), 0);
    assert_int_equal(worker_open(w), 0);
    worker_arm_listeners(w);
    *state = &world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    struct worker *w = &world->worker;
    atomic_store(&world->stops, 1);
    for (unsigned i = 0; i < TURNS_MAX && !w->stopped; i++) worker_turn(w, 1);
    assert_true(w->stopped);
    worker_close(w);
    own_close(w->own);
    queue_close(w->inbox);
    queue_close(w->names);
    queue_close(world->mail);
    queue_close(world->questions);
    return 0;
}

/* A connection, or -errno: to loopback the kernel has decided when the call returns, only it does not say so. */
static int try_connect(const struct sockaddr_in *to)
{
    int fd = net_socket(AF_INET, SOCK_STREAM), error = 0;
    socklen_t size = sizeof error;
    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)to, sizeof *to) < 0) error = errno;
    if (error == EINPROGRESS) assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
    if (error == 0) return fd;
    close(fd);
    return -error;
}

/* Turns until the client has something to read: the octets, 0 at its end. */
static ssize_t hear(struct world *world, int fd, uint8_t *out, size_t size)
{
    for (unsigned i = 0; i < TURNS_MAX; i++) {
        ssize_t heard = recv(fd, out, size, MSG_DONTWAIT);
        if (heard >= 0) return heard;
        assert_int_equal(worker_turn(&world->worker, 1), 0);
    }
    fail_msg("nothing came");
    return -1;
}

static struct session *the_session(struct world *world)
{
    for (uint32_t slot = 0; slot < world->worker.sessions.untouched; slot++)
        if (pool_is_taken(&world->worker.sessions, slot)) return session_at(&world->worker, slot);
    return NULL;
}

/* Turns until the session has left the state; what its last step armed is not submitted yet. */
static void leave_state(struct world *world, enum session_state state)
{
    for (unsigned i = 0; i < TURNS_MAX; i++) {
        const struct session *s = the_session(world);
        if (!s || s->state != state) return;
        assert_int_equal(worker_turn(&world->worker, 1), 0);
    }
    fail_msg("it stays in %s", session_state_name(state));
}

/* A client that has asked for BIND or UDP ASSOCIATE; *bound is what the reply says. */
static int ask(struct world *world, uint8_t command, struct sockaddr_in *bound)
{
    uint8_t reply[10], request[] = {5, 1, 0, 5, command, 0, 1, 127, 0, 0, 1, 0, 0};
    int client = try_connect(&world->listener);
    if (command == SOCKS5_UDP_ASSOCIATE) memset(request + 7, 0, 4);
    assert_int_equal(send(client, request, sizeof request, 0), sizeof request);
    assert_int_equal(hear(world, client, reply, 2), 2);
    assert_int_equal(hear(world, client, reply, sizeof reply), sizeof reply);
    assert_int_equal(reply[1], 0);
    uint16_t port;
    memcpy(&port, reply + 8, sizeof port);
    *bound = loopback(port);
    return client;
}

static void assert_silent(int client)
{
    uint8_t octet;
    assert_int_equal(recv(client, &octet, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}

/* The second reply says that the peer has come: then nobody else gets in. */
static void test_bind_takes_one_peer(void **state)
{
    struct sockaddr_in bound;
    uint8_t reply[10];
    int client = ask(*state, SOCKS5_BIND, &bound);
    int peer = try_connect(&bound);
    assert_true(peer >= 0);
    leave_state(*state, SESSION_BIND);
    assert_silent(client);
    assert_int_equal(try_connect(&bound), -ECONNREFUSED);
    assert_int_equal(hear(*state, client, reply, sizeof reply), sizeof reply);
    assert_int_equal(reply[1], 0);
    close(peer);
    close(client);
}

/* Who has connected meanwhile, but was not taken, is gone as well. */
static void test_bind_resets_who_waits(void **state)
{
    struct sockaddr_in bound;
    uint8_t octet;
    int client = ask(*state, SOCKS5_BIND, &bound);
    int peers[3];
    for (unsigned i = 0; i < 3; i++) peers[i] = try_connect(&bound);
    leave_state(*state, SESSION_BIND);
    assert_silent(client);
    assert_silent(peers[0]);
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(recv(peers[i], &octet, 1, MSG_DONTWAIT), -1);
        assert_int_equal(errno, ECONNRESET);
    }
    for (unsigned i = 0; i < 3; i++) close(peers[i]);
    close(client);
}

/* "Nobody has come", while a poll is still in flight on the listener. */
static void test_bind_that_times_out(void **state)
{
    struct world *world = *state;
    struct sockaddr_in bound;
    uint8_t reply[10];
    world->config.timeout_ms = 100;
    int client = ask(world, SOCKS5_BIND, &bound);
    leave_state(world, SESSION_BIND);
    assert_silent(client);
    assert_int_equal(try_connect(&bound), -ECONNREFUSED);
    assert_int_equal(hear(world, client, reply, sizeof reply), sizeof reply);
    assert_int_equal(reply[1], SOCKS5_TTL_EXPIRED);
    close(client);
}

static int udp_to(const struct sockaddr_in *to)
{
    int fd = net_socket(AF_INET, SOCK_DGRAM);
    assert_int_equal(connect(fd, (const struct sockaddr *)to, sizeof *to), 0);
    return fd;
}

/* Whether nobody is bound there: the kernel says so to the next call on a connected socket. */
static bool is_unbound(int udp)
{
    if (send(udp, "x", 1, MSG_DONTWAIT) < 0) return errno == ECONNREFUSED;
    return send(udp, "x", 1, MSG_DONTWAIT) < 0 && errno == ECONNREFUSED;
}

/* The end of the connection is the end of the association (RFC 1928 section 7). */
static void test_association_ends(void **state)
{
    struct world *world = *state;
    struct sockaddr_in bound;
    uint8_t octet;
    world->config.idle_timeout_ms = 100;
    int client = ask(world, SOCKS5_UDP_ASSOCIATE, &bound);
    int udp = udp_to(&bound);
    assert_false(is_unbound(udp));
    leave_state(world, SESSION_ASSOCIATE);
    assert_silent(client);
    assert_true(is_unbound(udp));
    assert_int_equal(hear(world, client, &octet, 1), 0);
    close(udp);
    close(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bind_takes_one_peer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bind_resets_who_waits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bind_that_times_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_association_ends, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
