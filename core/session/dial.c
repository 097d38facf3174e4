#include "core/session/dial.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/access.h"
#include "core/session/announce.h"
#include "core/session/conn_cache.h"
#include "core/session/egress.h"
#include "core/session/end.h"
#include "core/session/hop.h"
#include "core/session/lists.h"
#include "core/session/policy.h"
#include "core/session/self.h"
#include "core/session/session.h"
#include "core/session/worker.h"

static struct ring_tag dial_tag(struct worker *w, struct session *s, unsigned attempt)
{
    return session_tag(w, s, SESSION_CONNECT + attempt);
}

/* The candidate's address: an answer of the resolver, the literal, or the Unix socket. */
static void dial_candidate(const struct setup *setup, unsigned index, struct address *out)
{
    const struct resolve_result *result = &setup->resolve.results[index];
    *out = setup->resolve.name;
    if (out->kind == ADDRESS_UNIX) return;
    out->kind = result->kind;
    memcpy(out->ipv6, result->octets, sizeof out->ipv6);
}

/* Whether octets for the upstream are there now. With TCP Fast Open the kernel keeps its SYN back until there are some:
 * to wait for a server that speaks first would be to wait for ever. */
static bool dial_has_octets(const struct worker *w, const struct session *s)
{
    const struct setup *setup = setup_of(w, s);
    return setup->route.verdict.hop_count > 0 || s->protocol == PROTOCOL_HTTP_PLAIN ||
           setup->received > setup->consumed || announce_version(w, s) > 0;
}

static enum failure dial_prepare_socket(struct worker *w, const struct session *s, int fd, const struct address *to)
{
    const struct config *config = w->config;
    if (to->kind == ADDRESS_UNIX) return FAIL_NONE;
    if (config->tcp_nodelay) net_set_nodelay(fd);
    net_set_buffers(fd, config->tcp_sndbuf, config->tcp_rcvbuf);
    if (config->fastopen_connect && dial_has_octets(w, s)) net_set_fastopen_connect(fd);
    return egress_prepare(w, &setup_of(w, s)->egress, fd, to, true);
}

static int dial_family(const struct address *to)
{
    return to->kind == ADDRESS_UNIX ? AF_UNIX : to->kind == ADDRESS_IPV4 ? AF_INET : AF_INET6;
}

/* -EADDRNOTAVAIL: no port is left of the source, or it has gone. */
static enum failure dial_failure(const struct setup *setup, int error)
{
    return error == -EADDRNOTAVAIL && setup->egress.way.bound ? FAIL_EGRESS : failure_from_errno(error);
}

/* One that might come back to us: begun at once, and noted before its other end can be accepted. 0 or -errno. */
static int dial_connect_noted(struct worker *w, struct session *s, unsigned attempt, const struct address *to)
{
    struct dial *dial = &setup_of(w, s)->dial;
    int fd = dial->fds[attempt], error = net_connect(fd, &dial->addresses[attempt]);
    if (error == -EOPNOTSUPP) {
        ring_connect(w->ring, fd, &dial->addresses[attempt].any, dial->addresses[attempt].size,
                     session_arm(w, s, SESSION_CONNECT + attempt));
        return 0;
    }
    if (error < 0 && error != -EINPROGRESS) {
        net_close(fd);
        dial->fds[attempt] = -1;
        dial->live--;
        return error;
    }
    self_note(w, s, fd, to);
    dial->polled |= (uint8_t)(1u << attempt);
    ring_poll(w->ring, fd, POLLOUT, session_arm(w, s, SESSION_CONNECT + attempt));
    return 0;
}

/* What the kernel says of an attempt whose operation has completed. */
static int dial_result(struct dial *dial, unsigned attempt, int result)
{
    bool polled = dial->polled & 1u << attempt;
    dial->polled &= (uint8_t) ~(1u << attempt);
    return polled && result >= 0 ? net_take_error(dial->fds[attempt]) : result;
}

/* A descriptor, or -errno. Connections that only wait for another request make room. */
static int dial_open_socket(struct worker *w, const struct address *to)
{
    int fd = net_socket(dial_family(to), SOCK_STREAM);
    if ((fd != -EMFILE && fd != -ENFILE) || !conn_cache_clear(w)) return fd;
    ring_flush(w->ring);
    return net_socket(dial_family(to), SOCK_STREAM);
}

/* One attempt. FAIL_NONE, or why it could not even begin. */
static enum failure dial_connect(struct worker *w, struct session *s, unsigned attempt, const struct address *to)
{
    struct setup *setup = setup_of(w, s);
    struct dial *dial = &setup->dial;
    int fd = dial_open_socket(w, to);
    access_on_dial(w, s, to);
    if (fd < 0) return failure_from_errno(fd);
    enum failure failure = dial_prepare_socket(w, s, fd, to);
    if (failure != FAIL_NONE) {
        net_close(fd);
        return failure;
    }
    net_address_from(to, &dial->addresses[attempt]);
    dial->fds[attempt] = fd;
    dial->polled &= (uint8_t) ~(1u << attempt);
    dial->order[attempt] = dial->next;
    dial->live++;
    if (self_may_return(w, s, to)) {
        int error = dial_connect_noted(w, s, attempt, to);
        if (error == -EADDRNOTAVAIL && egress_try_another(w, &setup->egress, to))
            return dial_connect(w, s, attempt, to);
        return error == 0 ? FAIL_NONE : dial_failure(setup, error);
    }
    ring_connect(w->ring, fd, &dial->addresses[attempt].any, dial->addresses[attempt].size,
                 session_arm(w, s, SESSION_CONNECT + attempt));
    return FAIL_NONE;
}

/* An attempt whose slot is free and whose last completion is back. */
static int dial_free_attempt(const struct session *s, const struct dial *dial)
{
    for (unsigned i = 0; i < DIAL_ATTEMPTS_MAX; i++)
        if (dial->fds[i] < 0 && !(s->inflight & SESSION_BIT(SESSION_CONNECT + i))) return (int)i;
    return -1;
}

static bool dial_met_self(enum failure failure)
{
    return failure == FAIL_SELF || failure == FAIL_LOOP;
}

/* The last one is told; but that a client wanted what this process listens on stays, whatever becomes of the name's
 * other addresses: the operator is to see it. */
static void dial_fail_attempt(struct dial *dial, enum failure failure)
{
    if (!dial_met_self(dial->failure)) dial->failure = (uint8_t)failure;
}

/* Whether lists let the client be connected to this address of its target. A hop of the chain is none, and our own
 * connections are no client's. */
static bool dial_is_listed(const struct worker *w, const struct session *s, const struct address *to)
{
    const struct setup *setup = setup_of(w, s);
    uint8_t allowed = setup->dial.allowed;
    if (protocol_is_own(s->protocol) || setup->route.verdict.hop_count > 0) return true;
    if (to->kind != ADDRESS_IPV4 && to->kind != ADDRESS_IPV6) return true;
    return lists_admit_target(w->config->lists, s->listener, to, &allowed, true);
}

/* The target that the verdict names, which may be another than the one that was asked for. Behind a chain nobody here
 * will see the address of its name. */
static bool dial_target_is_listed(const struct worker *w, const struct session *s)
{
    struct setup *setup = setup_of(w, s);
    const struct route_verdict *verdict = &setup->route.verdict;
    bool named = verdict->target.kind == ADDRESS_NAME, chain = verdict->hop_count > 0;
    setup->dial.allowed = protocol_is_own(s->protocol) ? 0 : setup->allowed;
    if (protocol_is_own(s->protocol) || (!named && !chain)) return true; /* addresses come to dial_is_listed() */
    if (!named && verdict->target.kind != ADDRESS_IPV4 && verdict->target.kind != ADDRESS_IPV6) return true;
    return lists_admit_target(w->config->lists, s->listener, &verdict->target, &setup->dial.allowed, chain);
}

/* Whether this address may be connected to, as settings are now. */
static enum failure dial_judge(struct worker *w, struct session *s, const struct address *to)
{
    enum failure refused = self_forbids(w, s, to);
    if (refused != FAIL_NONE) return refused;
    /* Its client's note may have been written while the name was looked up: before the next round, look again. */
    bool again = setup_of(w, s)->resolve.name.kind == ADDRESS_NAME && self_may_return(w, s, to);
    if (again && self_came_back(w, s)) return FAIL_LOOP;
    if (!policy_allows(w->config->blocked, to)) return FAIL_BLOCKED;
    return dial_is_listed(w, s, to) ? FAIL_NONE : FAIL_TARGET_DENIED;
}

/* Starts the next candidate that may be dialled. False: none is left, or no attempt is free. */
static bool dial_start(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct dial *dial = &setup->dial;
    int attempt = dial_free_attempt(s, dial);
    while (attempt >= 0 && dial->next < setup->resolve.count) {
        struct address to;
        dial_candidate(setup, dial->next++, &to);
        enum failure refused = dial_judge(w, s, &to);
        if (refused != FAIL_NONE) {
            if (dial->failure == FAIL_NONE || dial_met_self(refused)) dial_fail_attempt(dial, refused);
            continue;
        }
        refused = dial_connect(w, s, (unsigned)attempt, &to);
        if (refused == FAIL_NONE) return true;
        dial_fail_attempt(dial, refused);
    }
    return false;
}

/* Goes on with what is left: another attempt, the wait for those in flight, or the failure of the last one. */
static enum session_state dial_go_on(struct worker *w, struct session *s)
{
    struct dial *dial = &setup_of(w, s)->dial;
    if (dial_start(w, s) || dial->live > 0) return SESSION_DIAL;
    assert(dial->failure != FAIL_NONE); /* there was a candidate, and each one that ends leaves its failure */
    return session_fail(w, s, dial->failure);
}

static enum session_state dial_resolve(struct worker *w, struct session *s)
{
    struct resolve_request *request = &setup_of(w, s)->resolve;
    request->family = w->config->family;
    access_on_question(w, s);
    if (name_cache_find(&w->name_cache, request, counter_read(&w->resolver_stats->revision), ring_now_ms(w->ring))) {
        counter_add(&w->stats.names_remembered, 1);
        access_on_address(w, s);
        return dial_go_on(w, s);
    }
    enum failure failure = session_ask_address(w, s, request);
    return failure == FAIL_NONE ? SESSION_RESOLVE : session_fail(w, s, failure);
}

enum session_state dial_begin(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    const struct route_verdict *verdict = &setup->route.verdict;
    const struct address *to = verdict->hop_count > 0 ? &verdict->hops[0].address : &verdict->target;
    setup->dial.failure = FAIL_NONE;
    setup->dial.next = 0;
    setup->hop_received = 0; /* of an earlier try */
    setup->hop_scanned = 0;
    setup->resolve.name = *to;
    setup->resolve.count = 1;
    enum failure refused = verdict->hop_count > 0 ? self_forbids_behind_chain(w, s) : FAIL_NONE;
    if (refused == FAIL_NONE && !dial_target_is_listed(w, s)) refused = FAIL_TARGET_DENIED;
    if (refused != FAIL_NONE) return session_fail(w, s, refused);
    if (to->kind == ADDRESS_NAME) return dial_resolve(w, s);
    if (to->kind == ADDRESS_NONE) return session_fail(w, s, FAIL_RESOLVE);
    if (to->kind == ADDRESS_GROUP) return session_fail(w, s, FAIL_NO_UPSTREAM); /* nobody has chosen a member */
    setup->resolve.results[0].kind = to->kind;
    memcpy(setup->resolve.results[0].octets, to->ipv6, sizeof to->ipv6);
    return dial_go_on(w, s);
}

enum session_state dial_resolve_step(struct worker *w, struct session *s)
{
    if (s->op != SESSION_ANSWER) return SESSION_RESOLVE;
    access_on_address(w, s);
    if (s->result < 0 || setup_of(w, s)->resolve.count == 0)
        return session_fail(w, s, failure_from_resolver(s->result));
    name_cache_keep(&w->name_cache, &setup_of(w, s)->resolve, ring_now_ms(w->ring));
    return dial_go_on(w, s);
}

/* Ends an attempt. Its operation, if still in flight, comes back as a stray. */
static void dial_end_attempt(struct worker *w, struct session *s, unsigned attempt)
{
    struct dial *dial = &setup_of(w, s)->dial;
    if (dial->fds[attempt] < 0) return;
    if (s->inflight & SESSION_BIT(SESSION_CONNECT + attempt)) ring_cancel(w->ring, dial_tag(w, s, attempt));
    ring_close(w->ring, dial->fds[attempt]);
    dial->fds[attempt] = -1;
    assert(dial->live > 0);
    dial->live--;
}

void dial_abandon(struct worker *w, struct session *s)
{
    for (unsigned i = 0; i < DIAL_ATTEMPTS_MAX; i++) dial_end_attempt(w, s, i);
}

/* The attempt that has waited longest; all slots are taken. */
static unsigned dial_oldest(const struct dial *dial)
{
    unsigned oldest = 0;
    for (unsigned i = 1; i < DIAL_ATTEMPTS_MAX; i++)
        if (dial->order[i] < dial->order[oldest]) oldest = i;
    return oldest;
}

/* Where attempts went, for who keeps an eye on source addresses. */
static bool dial_went_to(const struct dial *dial, unsigned attempt, struct address *to)
{
    return net_address_to(&dial->addresses[attempt], to);
}

static void dial_note_answer(struct worker *w, const struct session *s, unsigned attempt)
{
    const struct setup *setup = setup_of(w, s);
    struct address to;
    if (setup->egress.way.bound && dial_went_to(&setup->dial, attempt, &to)) egress_note_answer(w, &setup->egress, &to);
}

void dial_note_timeout(struct worker *w, const struct session *s)
{
    const struct setup *setup = setup_of(w, s);
    struct address to;
    for (unsigned i = 0; i < DIAL_ATTEMPTS_MAX && setup->egress.way.bound; i++)
        if (setup->dial.fds[i] >= 0 && dial_went_to(&setup->dial, i, &to)) egress_note_timeout(w, &setup->egress, &to);
}

static enum session_state dial_won(struct worker *w, struct session *s, unsigned attempt)
{
    struct dial *dial = &setup_of(w, s)->dial;
    s->fd[UPSTREAM] = dial->fds[attempt];
    dial->fds[attempt] = -1;
    dial->live--;
    dial_note_answer(w, s, attempt);
    if (dial->live > 0) {
        dial_abandon(w, s);
        /* A loser that was armed in this turn points to its address, and a relay gives the setup slot away before its
         * connect is back: somebody else's address could stand there when it is submitted. */
        ring_flush(w->ring);
    }
    return setup_of(w, s)->route.verdict.hop_count > 0 ? hop_begin(w, s) : announce_begin(w, s);
}

/* The same candidate once more, if there is another source for it. Settings may have changed since it was judged. */
static enum session_state dial_from_another(struct worker *w, struct session *s, unsigned attempt)
{
    struct setup *setup = setup_of(w, s);
    struct address to;
    dial_candidate(setup, setup->dial.order[attempt] - 1u, &to);
    if (!egress_try_another(w, &setup->egress, &to)) return dial_go_on(w, s);
    uint8_t order = setup->dial.order[attempt];
    enum failure failure = dial_judge(w, s, &to);
    if (failure == FAIL_NONE) failure = dial_connect(w, s, attempt, &to);
    setup->dial.order[attempt] = order;
    if (failure == FAIL_NONE) return SESSION_DIAL;
    dial_fail_attempt(&setup->dial, failure);
    return dial_go_on(w, s);
}

enum session_state dial_step(struct worker *w, struct session *s)
{
    struct dial *dial = &setup_of(w, s)->dial;
    if (s->op < SESSION_CONNECT || s->op >= SESSION_CONNECT + DIAL_ATTEMPTS_MAX) return SESSION_DIAL;
    unsigned attempt = s->op - SESSION_CONNECT;
    if (dial->fds[attempt] < 0) return dial_go_on(w, s); /* given up to make room for another */
    int result = dial_result(dial, attempt, s->result);
    if (result == 0) return dial_won(w, s, attempt);
    dial_fail_attempt(dial, dial_failure(setup_of(w, s), result));
    dial_end_attempt(w, s, attempt);
    return result == -EADDRNOTAVAIL ? dial_from_another(w, s, attempt) : dial_go_on(w, s);
}

/* RFC 8305 section 5: another address gets its chance beside those that have not answered. When all attempts are taken
 * the oldest one is given up; the next candidate starts when its completion is back. */
enum session_state dial_on_time(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct dial *dial = &setup->dial;
    if (dial->next >= setup->resolve.count || dial_start(w, s)) return SESSION_DIAL;
    if (dial->live == DIAL_ATTEMPTS_MAX) dial_end_attempt(w, s, dial_oldest(dial));
    return SESSION_DIAL;
}
