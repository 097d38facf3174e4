#include "core/session/udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/access.h"
#include "core/session/egress.h"
#include "core/session/end.h"
#include "core/session/hooks.h"
#include "core/session/reply.h"
#include "core/session/udp_forward.h"
#include "core/session/udp_peers.h"
#include "core/session/udp_private.h"
#include "core/session/udp_send.h"

/* --- what all associations share --- */

static int udp_open_buffers(struct worker *w, struct udp *u)
{
    size_t size = (size_t)UDP_BUFFERS * UDP_BUFFER_SIZE;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return -ENOMEM;
    int error = ring_group_open(w->ring, UDP_GROUP, base, UDP_BUFFER_SIZE, UDP_BUFFERS);
    if (error < 0)
        munmap(base, size);
    else
        u->base = base;
    return error;
}

static int udp_open(struct worker *w)
{
    if (w->udp) return 0;
    if (w->config->associations == 0) return -EMFILE;
    struct udp *u = calloc(1, sizeof *u);
    if (!u) return -ENOMEM;
    u->shape.msg_namelen = sizeof(struct sockaddr_in6);
    int error = pool_open(&u->associations, w->config->associations, sizeof(struct association));
    if (error == 0) error = share_open(&u->held, w->config->associations);
    if (error == 0) error = udp_peers_open(&u->peers, w->config->udp_peers, w->config->associations);
    if (error == 0) error = udp_open_buffers(w, u);
    if (error == 0) {
        w->udp = u;
        return 0;
    }
    udp_peers_close(u->peers);
    share_close(&u->held);
    pool_close(&u->associations);
    free(u);
    return error;
}

void udp_close(struct worker *w)
{
    if (!w->udp) return;
    ring_group_close(w->ring, UDP_GROUP);
    munmap(w->udp->base, (size_t)UDP_BUFFERS * UDP_BUFFER_SIZE);
    udp_peers_close(w->udp->peers);
    share_close(&w->udp->held);
    pool_close(&w->udp->associations);
    free(w->udp);
    w->udp = NULL;
}

static void udp_give(struct worker *w, uint16_t buffer)
{
    assert(w->udp->taken > 0);
    w->udp->taken--;
    ring_group_give(w->ring, UDP_GROUP, buffer);
}

static void udp_discard(struct worker *w, uint16_t buffer)
{
    counter_add(&w->stats.datagrams_dropped, 1);
    udp_give(w, buffer);
}

/* --- the socket towards the client --- */

/* The socket towards the client: 0 or -errno; -EAFNOSUPPORT if the client came by a Unix socket. */
static int udp_open_client(struct worker *w, struct session *s, struct association *a)
{
    struct net_address local;
    int error = net_local_address(s->fd[CLIENT], &local);
    if (error < 0) return error;
    if (!net_address_set_port(&local, 0) || s->client.kind == ADDRESS_NONE) return -EAFNOSUPPORT;
    a->client = host_port_address(&s->client);
    int fd = a->fds[UDP_CLIENT] = net_socket(local.any.sa_family, SOCK_DGRAM);
    if (fd < 0) return fd;
    error = net_bind(fd, &local);
    if (error == 0) error = net_local_address(fd, &local);
    if (error == 0 && !net_address_to(&local, &a->bound)) error = -EAFNOSUPPORT;
    if (error < 0) return error;
    a->port_bound = a->bound.port;
    own_add_datagrams(w->own, a->port_bound);
    return 0;
}

/* --- sending --- */

void udp_on_sent(struct worker *w, const struct ring_completion *c)
{
    const struct udp_send *send = &w->udp->sends[c->tag.slot];
    struct session *s = session_at(w, send->session);
    udp_send_done(w, s, send, c->result);
    udp_give(w, (uint16_t)c->tag.slot);
    if (s->state == SESSION_CLOSING) session_join(w, s);
}

/* --- receiving --- */

static const uint8_t *buffer_at(const struct worker *w, uint16_t buffer)
{
    assert(buffer < UDP_BUFFERS);
    return w->udp->base + (size_t)buffer * UDP_BUFFER_SIZE;
}

/* True if the datagram comes from the client. The IP address of its connection is what counts. The port is that of its
 * last datagram: a NAT on the way may give it another one at any time, and answers have to follow. */
static bool udp_is_from_client(struct association *a, const struct ring_datagram *datagram)
{
    struct net_address from = {.size = datagram->source_size};
    struct address source;
    if (from.size > sizeof from.storage) return false;
    memcpy(&from.storage, datagram->source, from.size);
    if (!net_address_to(&from, &source)) return false;
    uint16_t port = source.port;
    source.port = a->client.port;
    if (!address_equal(&source, &a->client)) return false;
    if (a->port_fixed && port != a->port_named) return false;
    a->port_fixed = a->port_named != 0 && port == a->port_named;
    a->client_at = from;
    return true;
}

static bool udp_parse(const struct ring_datagram *datagram, struct socks5_udp_header *header, struct iovec *payload)
{
    size_t used;
    if (datagram->truncated) return false;
    if (socks5_parse_udp_header(datagram->payload, datagram->size, header, &used) != PARSE_OK) return false;
    *payload = udp_part(datagram->payload + used, datagram->size - used);
    return header->fragment == 0 && header->target.kind != ADDRESS_NONE; /* section 7: fragments may be dropped */
}

/* True if its buffer is somebody else's now. */
static bool udp_settle(struct worker *w, enum udp_fate fate, struct association *a, const struct udp_waiting *waiting)
{
    if (fate == UDP_WAITS) {
        assert(a->waiting_count < UDP_WAITING_MAX);
        a->waiting[a->waiting_count++] = *waiting;
        w->udp->waiting++;
    }
    return fate != UDP_DROPPED;
}

static bool udp_take_from_client(struct worker *w, struct session *s, const struct udp_waiting *received,
                                 const struct ring_datagram *datagram)
{
    struct association *a = association_of(w, s);
    struct udp_datagram d = {.buffer = received->buffer};
    struct socks5_udp_header header;
    if (!udp_parse(datagram, &header, &d.payload) || !udp_is_from_client(a, datagram)) return false;
    d.target = header.target;
    d.may_wait = a->waiting_count < UDP_WAITING_MAX && w->udp->waiting < UDP_WAITING_MAX_ALL;
    return udp_settle(w, udp_forward(w, s, &d), a, received);
}

static bool udp_take_from_outside(struct worker *w, struct session *s, uint16_t buffer,
                                  const struct ring_datagram *datagram)
{
    struct net_address from = {.size = datagram->source_size};
    struct iovec payload = udp_part(datagram->payload, datagram->size);
    struct address source;
    if (from.size > sizeof from.storage) return false;
    memcpy(&from.storage, datagram->source, from.size);
    if (!net_address_to(&from, &source) || !udp_forward_source(w, s, &source, &payload)) return false;
    return udp_send_down(w, s, buffer, &source, payload);
}

static void udp_take(struct worker *w, struct session *s, enum udp_socket from, uint16_t buffer, int32_t filled)
{
    struct udp_waiting received = {.buffer = buffer, .filled = filled};
    struct ring_datagram datagram;
    bool taken = ring_datagram(buffer_at(w, buffer), filled, &w->udp->shape, &datagram) && !datagram.truncated;
    if (taken && from == UDP_CLIENT)
        taken = udp_take_from_client(w, s, &received, &datagram);
    else if (taken)
        taken = udp_take_from_outside(w, s, buffer, &datagram);
    if (!taken) udp_discard(w, buffer);
}

static void udp_starve(struct worker *w, struct session *s, enum udp_socket from)
{
    counter_add(&w->stats.starved, 1);
    association_of(w, s)->starved |= (uint8_t)(1u << from);
    w->udp->starved++;
}

/* The receive has ended: why, and what now? */
static void udp_receive_again(struct worker *w, struct session *s, enum udp_socket from, int32_t result)
{
    if (result >= 0) {
        udp_receive(w, s, from);
    } else if (result == -ENOBUFS) {
        udp_starve(w, s, from);
    } else {
        session_blame(w, s, failure_from_errno(result));
        session_log(w, s, LOG_LEVEL_WARNING, "udp: a receive failed, the association ends");
        session_close(w, s, SESSION_ORDERLY);
    }
}

/* A quota is spent. True: the association has ended. */
static bool udp_is_over(struct worker *w, struct session *s)
{
    if (!s->spent) return false;
    session_blame(w, s, FAIL_QUOTA);
    session_log(w, s, LOG_LEVEL_INFO, failure_row(FAIL_QUOTA)->word);
    session_close(w, s, SESSION_RESET);
    return true;
}

void udp_on_received(struct worker *w, struct session *s, const struct ring_completion *c)
{
    enum udp_socket from = (enum udp_socket)(c->tag.op - WORKER_OP_SESSION - SESSION_UDP_RECV);
    assert(from < UDP_SOCKETS);
    if (c->has_buffer) w->udp->taken++;
    if (s->state == SESSION_CLOSING) {
        if (c->has_buffer) udp_give(w, c->buffer);
        session_join(w, s);
        return;
    }
    if (c->has_buffer) udp_take(w, s, from, c->buffer, c->result);
    if (udp_is_over(w, s)) return;
    if (!c->more) udp_receive_again(w, s, from, c->result);
}

static void udp_feed(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    for (unsigned from = 0; from < UDP_SOCKETS; from++) {
        if (!(a->starved & 1u << from)) continue;
        a->starved &= (uint8_t) ~(1u << from);
        w->udp->starved--;
        udp_receive(w, s, (enum udp_socket)from);
    }
}

/* Rare, as with relays: all find their buffers again within a turn or two, because sends do not hold them for long. */
void udp_feed_starved(struct worker *w)
{
    if (!w->udp || w->udp->starved == 0 || w->udp->taken > UDP_BUFFERS / 2) return;
    for (uint32_t slot = 0; slot < w->sessions.untouched && w->udp->starved > 0; slot++) {
        struct session *s = session_at(w, slot);
        if (pool_is_taken(&w->sessions, slot) && s->state == SESSION_ASSOCIATE && association_is(s)) udp_feed(w, s);
    }
}

/* --- beginning --- */

static void association_init(struct association *a)
{
    memset(a, 0, offsetof(struct association, route));
    for (unsigned i = 0; i < UDP_SOCKETS; i++) a->fds[i] = -1;
    for (unsigned i = 0; i < UDP_CHAINS; i++) a->chains[i] = POOL_NONE;
    udp_targets_clear(&a->targets);
}

static void udp_receive_control(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    ring_recv(w->ring, s->fd[CLIENT], a->discarded, sizeof a->discarded, session_arm(w, s, SESSION_RECV + CLIENT));
}

static enum session_state udp_refuse(struct worker *w, struct session *s, enum failure failure)
{
    if (s->extra != POOL_NONE) {
        udp_drop(w, s);
        udp_release(w, s);
    }
    return session_fail(w, s, failure);
}

/* RFC 1928 section 7 lets a server hold the client to the address and port that its request names. Clients name all
 * sorts of things there: their target, a name, their private address behind a NAT. So it only counts where it can be
 * true: with the address that the connection comes from; else it is as if they had sent zeroes. */
static uint16_t udp_port_named(const struct association *a, const struct address *named)
{
    struct net_address there;
    struct address plain; /* there and back: an IPv4 address mapped into IPv6 is treated as what it is */
    if (!net_address_from(named, &there) || !net_address_to(&there, &plain)) return 0;
    plain.port = a->client.port;
    return address_equal(&plain, &a->client) ? named->port : 0;
}

/* Datagrams pass from here on. */
static enum session_state udp_establish(struct worker *w, struct session *s)
{
    struct address bound = association_of(w, s)->bound;
    s->moved_ms = ring_now_ms(w->ring);
    if (s->inflight & SESSION_BIT(SESSION_WATCH + CLIENT))
        ring_cancel(w->ring, session_tag(w, s, SESSION_WATCH + CLIENT));
    udp_receive(w, s, UDP_CLIENT);
    udp_receive_control(w, s);
    reply_advertise(w, s, &bound);
    reply_append_address(w, s, &bound);
    session_flush(w, s);
    access_on_connected(w, s);
    return SESSION_ASSOCIATE;
}

/* Without a ruleset all goes through the chain of -x: the client is told what comes of it. */
static enum session_state udp_begin_chain(struct worker *w, struct session *s)
{
    route_decide_builtin(&setup_of(w, s)->route, w->config->hops, (uint8_t)w->config->hop_count); /* to be shown */
    s->hops = (uint8_t)w->config->hop_count;
    enum failure failure = udp_forward_open_chain(w, s);
    return failure == FAIL_NONE ? SESSION_HOP : udp_refuse(w, s, failure);
}

enum session_state udp_begin(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    counter_add(&w->stats.requests, 1);
    setup->request_complete = true;
    int error = udp_open(w);
    if (error < 0) return udp_refuse(w, s, failure_from_errno(error));
    struct share_source source = share_source_of(&s->client);
    s->extra = share_take(&w->udp->held, &w->udp->associations, &source);
    if (s->extra == POOL_NONE) return udp_refuse(w, s, FAIL_RESOURCE);
    struct association *a = association_of(w, s);
    association_init(a);
    error = udp_open_client(w, s, a);
    if (error < 0) return udp_refuse(w, s, error == -EAFNOSUPPORT ? FAIL_COMMAND : failure_from_errno(error));
    a->port_named = udp_port_named(a, &setup->target);
    a->credentials = setup->credentials;
    a->admitted = setup->route.admitted;
    egress_choose(w, s, NULL, &a->egress);
    bool ruled = atomic_load_explicit(w->revision, memory_order_acquire) > 0;
    return ruled || w->config->hop_count == 0 ? udp_establish(w, s) : udp_begin_chain(w, s);
}

/* --- what datagrams wait for --- */

static void udp_retry(struct worker *w, struct session *s, const struct udp_waiting *waiting)
{
    struct udp_datagram d = {.buffer = waiting->buffer, .may_wait = true};
    struct ring_datagram datagram;
    struct socks5_udp_header header;
    bool valid = ring_datagram(buffer_at(w, waiting->buffer), waiting->filled, &w->udp->shape, &datagram) &&
                 udp_parse(&datagram, &header, &d.payload);
    assert(valid); /* as it was when it came */
    (void)valid;
    d.target = header.target;
    if (!udp_settle(w, udp_forward(w, s, &d), association_of(w, s), waiting)) udp_discard(w, waiting->buffer);
}

/* Each in its turn; those that must wait on keep their order. */
static void udp_retry_waiting(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    struct udp_waiting waiting[UDP_WAITING_MAX];
    unsigned count = a->waiting_count;
    memcpy(waiting, a->waiting, sizeof waiting);
    w->udp->waiting -= count;
    a->waiting_count = 0;
    for (unsigned i = 0; i < count; i++) udp_retry(w, s, &waiting[i]);
    udp_is_over(w, s);
}

void udp_on_answer(struct worker *w, struct session *s)
{
    udp_forward_on_name(w, s);
    udp_retry_waiting(w, s);
}

void udp_on_verdict(struct worker *w, struct session *s)
{
    udp_forward_on_verdict(w, s);
    udp_retry_waiting(w, s);
}

/* The chain of -x is all that there is: with it the association ends. */
static void udp_lose_chain(struct worker *w, struct session *s, enum failure failure)
{
    session_log(w, s, LOG_LEVEL_INFO, failure_row(failure)->word);
    session_blame(w, s, FAIL_TARGET_RESET);
    session_close(w, s, SESSION_ORDERLY);
}

void udp_on_chain(struct worker *w, struct session *s, uint32_t chain)
{
    const struct association *a = association_of(w, s);
    enum failure failure = udp_forward_on_chain(w, s, chain);
    if (s->state == SESSION_HOP)
        session_proceed(w, s, failure == FAIL_NONE ? udp_establish(w, s) : session_fail(w, s, failure));
    else if (failure != FAIL_NONE && a->chained)
        udp_lose_chain(w, s, failure);
    else
        udp_retry_waiting(w, s);
}

/* --- the TCP connection --- */

static void udp_on_reply_sent(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->result <= 0) {
        session_blame(w, s, FAIL_CLIENT_RESET);
        session_close(w, s, SESSION_ORDERLY);
        return;
    }
    setup->out_sent += (uint32_t)s->result;
    session_count_reply(w, s, (uint64_t)s->result);
    session_flush(w, s);
    if (setup->out_sent == setup->out_used) session_release_setup(w, s);
}

void udp_on_completion(struct worker *w, struct session *s)
{
    assert(s->state == SESSION_ASSOCIATE);
    if (s->op == SESSION_SEND + CLIENT) {
        udp_on_reply_sent(w, s);
    } else if (s->op == SESSION_RECV + CLIENT) {
        if (s->result < 0) session_blame(w, s, FAIL_CLIENT_RESET);
        if (s->result > 0)
            udp_receive_control(w, s);
        else
            session_close(w, s, SESSION_ORDERLY);
    }
}

/* The shorter one of --udp-timeout and --idle-timeout, as far as they are given; 0: an association may rest for ever.
 */
static uint64_t udp_idle_ms(const struct config *config)
{
    uint64_t udp = config->udp_timeout_ms, idle = config->idle_timeout_ms;
    return udp == 0 || (idle > 0 && idle < udp) ? idle : udp;
}

void udp_on_timer(struct worker *w, struct session *s)
{
    uint64_t idle = udp_idle_ms(w->config);
    if (idle == 0) return;
    uint64_t now = ring_now_ms(w->ring);
    if (now - s->moved_ms < idle) {
        timer_set(w->timers, s->slot, s->moved_ms + idle);
        return;
    }
    session_blame(w, s, FAIL_IDLE_TIMEOUT);
    session_log(w, s, LOG_LEVEL_DEBUG,
                idle == w->config->udp_timeout_ms ? "closed: no datagram moved for --udp-timeout seconds"
                                                  : "closed: nothing moved for --idle-timeout seconds");
    session_close(w, s, SESSION_ORDERLY);
}

/* --- the end --- */

static void udp_drop_waiting(struct worker *w, struct association *a)
{
    for (unsigned i = 0; i < a->waiting_count; i++) udp_discard(w, a->waiting[i].buffer);
    w->udp->waiting -= a->waiting_count;
    a->waiting_count = 0;
}

/* The end of the TCP connection tells the client that the association is over (RFC 1928 section 7): its sockets are
 * gone before that, not by operations that are submitted together with it. What was cancelled holds them until the
 * flush. */
static void udp_close_sockets(struct worker *w, struct association *a)
{
    ring_flush(w->ring);
    for (unsigned i = 0; i < UDP_SOCKETS; i++) {
        if (a->fds[i] >= 0) net_close(a->fds[i]);
        a->fds[i] = -1;
    }
}

void udp_drop(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    udp_forward_drop(w, s);
    if (a->port_bound > 0) own_remove_datagrams(w->own, a->port_bound);
    a->port_bound = 0;
    udp_drop_waiting(w, a);
    for (unsigned i = 0; i < UDP_SOCKETS; i++) {
        if (a->starved & 1u << i) w->udp->starved--;
        if (a->fds[i] < 0) continue;
        if (s->inflight & SESSION_BIT(SESSION_UDP_RECV + i))
            ring_cancel(w->ring, session_tag(w, s, SESSION_UDP_RECV + i));
        if (a->sends > 0) ring_cancel_fd(w->ring, a->fds[i]); /* rare: most sends are done at once */
    }
    a->starved = 0;
    udp_close_sockets(w, a);
}

void udp_abandon(struct worker *w, struct session *s)
{
    if (association_is(s)) udp_drop(w, s);
}

void udp_release(struct worker *w, struct session *s)
{
    if (!association_is(s)) return;
    struct association *a = association_of(w, s);
    assert(a->sends == 0 && a->waiting_count == 0);
    explicit_bzero(&a->credentials, sizeof a->credentials);
    udp_peers_forget(w->udp->peers, s->extra);
    share_give(&w->udp->held, &w->udp->associations, s->extra);
    pool_trim(&w->udp->associations);
    s->extra = POOL_NONE;
}