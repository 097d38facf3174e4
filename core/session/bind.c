#include "core/session/bind.h"
#include "core/session/access.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/egress.h"
#include "core/session/end.h"
#include "core/session/lists.h"
#include "core/session/policy.h"
#include "core/session/reply.h"
#include "core/session/session.h"
#include "core/session/worker.h"

/* Connections that may wait to be judged: strangers must not be able to keep the right peer out for long. */
#define BIND_BACKLOG 16
/* Connections that are judged in one turn. */
#define BIND_ACCEPTS_MAX 16u

/* --- whom we wait for: setup.resolve.results, none means anybody --- */

static bool bind_takes_anybody(const struct address *target)
{
    return target->kind != ADDRESS_NAME && address_is_any_host(target);
}

/* As the verdict has it, which may be somebody else than the one that was asked for. */
static const struct address *bind_target(const struct setup *setup)
{
    return &setup->route.verdict.target;
}

static void bind_address_at(const struct setup *setup, uint32_t index, struct address *out)
{
    const struct resolve_result *result = &setup->resolve.results[index];
    *out = (struct address){.kind = result->kind, .port = bind_target(setup)->port};
    memcpy(out->ipv6, result->octets, sizeof out->ipv6);
}

static bool bind_expects(const struct setup *setup, const struct address *peer)
{
    struct address expected;
    for (uint32_t i = 0; i < setup->resolve.count; i++) {
        bind_address_at(setup, i, &expected);
        expected.port = peer->port;
        if (address_equal(&expected, peer)) return true;
    }
    return setup->resolve.count == 0;
}

/* Whom we would not talk to, by his address. His own port is any; what counts is the one that the request names. */
static enum failure bind_judge_address(const struct worker *w, const struct session *s, const struct address *peer)
{
    const struct setup *setup = setup_of(w, s);
    struct address address = *peer;
    uint8_t allowed = setup->dial.allowed;
    address.port = bind_target(setup)->port;
    if (!policy_allows(w->config->blocked, &address)) return FAIL_BLOCKED;
    if (!lists_admit_target(w->config->lists, s->listener, &address, &allowed, true)) return FAIL_TARGET_DENIED;
    return FAIL_NONE;
}

/* Takes out the addresses that we would not talk to. FAIL_NONE: one is left. */
static enum failure bind_apply_policy(const struct worker *w, struct session *s)
{
    struct resolve_request *resolve = &setup_of(w, s)->resolve;
    enum failure last = FAIL_NONE;
    struct address address;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < resolve->count; i++) {
        bind_address_at(setup_of(w, s), i, &address);
        enum failure refused = bind_judge_address(w, s, &address);
        if (refused == FAIL_NONE)
            resolve->results[kept++] = resolve->results[i];
        else
            last = refused;
    }
    resolve->count = kept;
    return kept > 0 ? FAIL_NONE : last;
}

/* --- listening --- */

/* Host zero, port zero, of the same family. */
static void bind_set_any(struct net_address *address)
{
    struct address any = {.kind = address->any.sa_family == AF_INET ? ADDRESS_IPV4 : ADDRESS_IPV6};
    net_address_from(&any, address);
}

/* The family of the address to listen on: the peer's, or that by which the client has come. ADDRESS_NONE: by neither.
 */
static uint8_t bind_family(const struct session *s, const struct setup *setup)
{
    struct net_address raw;
    struct address local = {.kind = ADDRESS_NONE};
    if (setup->resolve.count > 0) return setup->resolve.results[0].kind;
    if (net_local_address(s->fd[CLIENT], &raw) < 0 || !net_address_to(&raw, &local)) return ADDRESS_NONE;
    return local.kind;
}

/* The address to listen on, without a port, where no source is given. For a peer that is named, the one that leads
 * there. Without one, all: what the client tells its peer is likely to be the local address of its primary connection,
 * wherever that goes. 0 or -errno; -EAFNOSUPPORT if there is none that a peer could use. */
static int bind_find_address(const struct worker *w, const struct session *s, struct net_address *out)
{
    const struct setup *setup = setup_of(w, s);
    const struct egress_way *way = &setup->egress.way;
    struct net_address to;
    struct address first;
    int error;
    if (setup->resolve.count > 0) {
        bind_address_at(setup, 0, &first);
        net_address_from(&first, &to);
        error = net_route_source(&to, way->device[0] ? way->device : NULL, way->mark, out);
    } else {
        error = net_local_address(s->fd[CLIENT], out);
    }
    if (error < 0) return error;
    if (!net_address_set_port(out, 0)) return -EAFNOSUPPORT;
    if (setup->resolve.count == 0) bind_set_any(out);
    return 0;
}

/* On the source that is given, or on what bind_find_address() says. */
static enum failure bind_open(struct worker *w, struct session *s, int fd, uint8_t kind)
{
    struct egress *egress = &setup_of(w, s)->egress;
    struct net_address local;
    enum failure failure = egress_prepare(w, egress, fd, &(struct address){.kind = kind}, false);
    if (failure != FAIL_NONE) return failure;
    int error = egress->way.bound ? 0 : bind_find_address(w, s, &local);
    if (error == -EAFNOSUPPORT) return FAIL_COMMAND;
    if (error == 0 && !egress->way.bound) error = net_bind(fd, &local);
    if (error == 0) error = net_listen(fd, BIND_BACKLOG);
    return error == 0 ? FAIL_NONE : failure_from_errno(error);
}

static void bind_wait(struct worker *w, struct session *s)
{
    ring_poll(w->ring, s->fd[UPSTREAM], POLLIN, session_arm(w, s, SESSION_POLL_IN + UPSTREAM));
}

static enum session_state bind_listen(struct worker *w, struct session *s)
{
    struct address bound;
    uint8_t kind = bind_family(s, setup_of(w, s));
    if (kind == ADDRESS_NONE) return session_fail(w, s, FAIL_COMMAND);
    int fd = net_socket(kind == ADDRESS_IPV4 ? AF_INET : AF_INET6, SOCK_STREAM);
    if (fd < 0) return session_fail(w, s, failure_from_errno(fd));
    enum failure failure = bind_open(w, s, fd, kind);
    if (failure != FAIL_NONE) {
        net_close(fd);
        return session_fail(w, s, failure);
    }
    s->fd[UPSTREAM] = fd;
    if (!reply_find_listener(w, s, &bound)) return session_fail(w, s, FAIL_RESOURCE); /* getsockname(2): ENOBUFS */
    session_report_trial(w, s, 0);
    reply_append_address(w, s, &bound);
    session_flush(w, s);
    bind_wait(w, s);
    return SESSION_BIND;
}

/* --- the name --- */

static enum session_state bind_on_resolved(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->result < 0 || setup->resolve.count == 0) return session_fail(w, s, failure_from_resolver(s->result));
    enum failure refused = bind_apply_policy(w, s);
    return refused == FAIL_NONE ? bind_listen(w, s) : session_fail(w, s, refused);
}

static enum session_state bind_resolve(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    setup->resolve.name = *bind_target(setup);
    if (!lists_admit_target(w->config->lists, s->listener, &setup->resolve.name, &setup->dial.allowed, false))
        return session_fail(w, s, FAIL_TARGET_DENIED);
    enum failure failure = session_ask_address(w, s, &setup->resolve);
    return failure == FAIL_NONE ? SESSION_BIND : session_fail(w, s, failure);
}

static void bind_expect_literal(struct setup *setup)
{
    struct net_address plain; /* there and back: an IPv4 address mapped into IPv6 becomes what a peer will show */
    struct address target;
    net_address_from(bind_target(setup), &plain);
    net_address_to(&plain, &target);
    setup->resolve.results[0].kind = target.kind;
    memcpy(setup->resolve.results[0].octets, target.ipv6, sizeof target.ipv6);
    setup->resolve.count = 1;
}

/* The poll is for the end of what the client sends, too: nobody else notices that it has given up. */
static void bind_watch_client(struct worker *w, struct session *s)
{
    if (s->inflight & SESSION_BIT(SESSION_WATCH + CLIENT)) return; /* since a try before */
    ring_poll(w->ring, s->fd[CLIENT], POLLRDHUP, session_arm(w, s, SESSION_WATCH + CLIENT));
}

enum session_state bind_begin(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    const struct address *target = bind_target(setup);
    setup->resolve.count = 0;
    setup->dial.allowed = setup->allowed;
    if (target->kind != ADDRESS_NAME && target->kind != ADDRESS_IPV4 && target->kind != ADDRESS_IPV6)
        return session_fail(w, s, FAIL_RESOLVE);
    bind_watch_client(w, s);
    if (target->kind == ADDRESS_NAME) return bind_resolve(w, s);
    if (bind_takes_anybody(target)) return bind_listen(w, s);
    bind_expect_literal(setup);
    enum failure refused = bind_apply_policy(w, s);
    return refused == FAIL_NONE ? bind_listen(w, s) : session_fail(w, s, refused);
}

/* --- the peer --- */

/* False: not the one that we wait for. */
static bool bind_is_welcome(struct worker *w, struct session *s, int fd, struct address *peer)
{
    struct net_address address;
    if (net_peer_address(fd, &address) < 0 || !net_address_to(&address, peer)) return false;
    if (bind_expects(setup_of(w, s), peer) && bind_judge_address(w, s, peer) == FAIL_NONE) return true;
    session_log(w, s, LOG_LEVEL_INFO, "bind: a connection from somebody else was refused");
    return false;
}

void bind_stop_listening(const struct session *s)
{
    if (s->fd[UPSTREAM] >= 0) net_stop_listening(s->fd[UPSTREAM]);
}

/* The second reply says that the one peer has come: nobody else may get in once it is on its way, so the listener is
 * closed here and now, not by an operation that is submitted together with the reply. */
static enum session_state bind_take_peer(struct worker *w, struct session *s, int fd, const struct address *peer)
{
    bind_stop_listening(s);
    net_close(s->fd[UPSTREAM]); /* its poll has completed */
    s->fd[UPSTREAM] = fd;
    net_set_nodelay(fd);
    access_on_connected(w, s);
    if (s->inflight & SESSION_BIT(SESSION_WATCH + CLIENT))
        ring_cancel(w->ring, session_tag(w, s, SESSION_WATCH + CLIENT));
    reply_append_address(w, s, peer);
    return SESSION_RELAY;
}

static enum session_state bind_accept(struct worker *w, struct session *s)
{
    struct address peer;
    for (unsigned i = 0; i < BIND_ACCEPTS_MAX; i++) {
        int fd = net_accept(s->fd[UPSTREAM]);
        if (fd == -EAGAIN) break;
        if (fd < 0 && failure_from_errno(fd) == FAIL_RESOURCE) return session_fail(w, s, FAIL_RESOURCE);
        if (fd < 0) continue; /* that connection's own trouble */
        if (bind_is_welcome(w, s, fd, &peer)) return bind_take_peer(w, s, fd, &peer);
        net_reset_on_close(fd);
        net_close(fd); /* now: the log has said so */
    }
    bind_wait(w, s);
    return SESSION_BIND;
}

enum session_state bind_step(struct worker *w, struct session *s)
{
    switch (s->op) {
    case SESSION_ANSWER: return bind_on_resolved(w, s);
    case SESSION_POLL_IN + UPSTREAM: return bind_accept(w, s);
    default: return SESSION_BIND;
    }
}
