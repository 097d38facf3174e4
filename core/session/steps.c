#include "core/session/steps.h"

#include <errno.h>
#include <poll.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/access.h"
#include "core/session/announce.h"
#include "core/session/bind.h"
#include "core/session/conn_cache.h"
#include "core/session/crowd.h"
#include "core/session/dial.h"
#include "core/session/end.h"
#include "core/session/errand_kinds.h"
#include "core/session/exchange.h"
#include "core/session/flow.h"
#include "core/session/handshake.h"
#include "core/session/hooks.h"
#include "core/session/hop.h"
#include "core/session/idle.h"
#include "core/session/limited.h"
#include "core/session/linger.h"
#include "core/session/message.h"
#include "core/session/newcomer.h"
#include "core/session/origin.h"
#include "core/session/parting.h"
#include "core/session/relay.h"
#include "core/session/route.h"
#include "core/session/udp.h"
#include "core/session/udp_chain.h"
#include "core/session/upstream.h"

typedef enum session_state session_step(struct worker *w, struct session *s);

/* What runs when a completion arrives in a state. RELAY, EXCHANGE and ASSOCIATE have handlers of their own. */
static session_step *const session_steps[SESSION_STATE_COUNT] = {
    [SESSION_ORIGIN] = origin_step,
    [SESSION_HELLO] = handshake_hello_step,
    [SESSION_AUTH] = handshake_auth_step,
    [SESSION_VERIFY] = handshake_verify_step,
    [SESSION_REQUEST] = handshake_request_step,
    [SESSION_LOGIN] = route_login_step,
    [SESSION_ROUTE] = route_step,
    [SESSION_RESOLVE] = dial_resolve_step,
    [SESSION_DIAL] = dial_step,
    [SESSION_HOP] = hop_step,
    [SESSION_ANNOUNCE] = announce_step,
    [SESSION_BIND] = bind_step,
    [SESSION_REPLY] = linger_reply_step,
    [SESSION_LINGER] = linger_step,
};

/* --- running steps --- */

static bool session_reads(enum session_state state)
{
    return state == SESSION_ORIGIN || state == SESSION_HELLO || state == SESSION_AUTH || state == SESSION_REQUEST;
}

static void session_arm_recv(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    assert(setup->received < setup->head.size);
    ring_recv(w->ring, s->fd[CLIENT], setup->head.data + setup->received, setup->head.size - setup->received,
              session_arm(w, s, SESSION_RECV + CLIENT));
}

/* Enters `next` and goes on: a client may have sent its next message already, then its step runs at once. */
void session_proceed(struct worker *w, struct session *s, enum session_state next)
{
    for (;;) {
        enum session_state from = s->state;
        if (next == SESSION_CLOSING) return; /* session_close() has entered it; the slot may be free by now */
        session_enter(w, s, next);
        if (next == SESSION_ROUTE && setup_of(w, s)->upstream.again) {
            if (route_must_wait(s)) return;
            next = route_again(w, s);
            continue;
        }
        if (!session_reads(next)) break;
        struct setup *setup = setup_of(w, s);
        if (next == from || setup->consumed == setup->received) {
            session_arm_recv(w, s);
            break;
        }
        s->op = SESSION_RECV + CLIENT;
        s->result = (int32_t)(setup->received - setup->consumed);
        next = session_steps[next](w, s);
    }
    if (s->state == SESSION_RELAY)
        relay_begin(w, s);
    else if (s->state == SESSION_EXCHANGE)
        exchange_begin(w, s);
    else if (s->state == SESSION_ASSOCIATE && s->protocol == PROTOCOL_CHAIN)
        udp_chain_begin(w, s);
    else if (session_asks_ruleset(s) && setup_of(w, s)->asking)
        route_ask(w, s);
}

static void session_advance(struct worker *w, struct session *s)
{
    assert(s->state != SESSION_FREE && session_steps[s->state] != NULL);
    session_proceed(w, s, session_steps[s->state](w, s));
}

/* --- opening --- */

/* accept_judge() has looked for room. */
static struct session *session_begin(struct worker *w, unsigned listener, int fd, const struct host_port *client)
{
    struct session *s = session_take(w, listener, fd, w->config->timeout_ms);
    s->client = *client;
    access_begin(w, s);
    counter_add(&w->stats.accepted, 1);
    return s;
}

void session_open(struct worker *w, unsigned listener, int fd, const struct host_port *client, uint32_t source)
{
    struct session *s = session_begin(w, listener, fd, client);
    crowd_take(w, s->setup);
    s->source = source;
    session_enter(w, s, SESSION_HELLO);
    session_proceed(w, s, handshake_begin(w, s));
}

void session_open_behind(struct worker *w, unsigned listener, int fd, const struct host_port *proxy)
{
    struct session *s = session_begin(w, listener, fd, proxy);
    session_proceed(w, s, SESSION_ORIGIN);
}

/* --- what the end asks for, see hooks.h --- */

void session_hook_drop(struct worker *w, struct session *s)
{
    if (s->state == SESSION_RELAY || s->state == SESSION_EXCHANGE) {
        flow_drop(w, s, CLIENT);
        flow_drop(w, s, UPSTREAM);
    }
    if (s->protocol == PROTOCOL_CHAIN)
        udp_chain_on_close(w, s);
    else if (s->state == SESSION_ASSOCIATE)
        udp_drop(w, s);
}

void session_hook_drop_attempts(struct worker *w, struct session *s)
{
    if (s->setup != POOL_NONE) dial_abandon(w, s);
    if (s->state == SESSION_BIND) bind_stop_listening(s);
    if (s->state == SESSION_HOP) udp_abandon(w, s);
}

void session_hook_due(struct worker *w, struct session *s, enum session_side from)
{
    if (s->state == SESSION_EXCHANGE) exchange_on_due(w, s, from);
}

void session_hook_redial(struct worker *w, struct session *s)
{
    session_proceed(w, s, dial_begin(w, s));
}

void session_hook_chain(struct worker *w, struct session *s, uint32_t chain)
{
    udp_on_chain(w, s, chain);
}

void session_hook_release_exchange(struct worker *w, struct session *s)
{
    exchange_release(w, s);
}

void session_hook_release(struct worker *w, struct session *s)
{
    errand_return_relay(w, s);
    flow_release(w, s);
    udp_release(w, s);
    exchange_release(w, s);
    conn_cache_forget_client(w, s);
}

/* --- completions --- */

/* A piece of `out` is sent. True if that is what the state waits for. */
static bool session_on_sent(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->result <= 0) {
        s->result = s->result < 0 ? s->result : -EPIPE;
        if (session_is_half_open(s->state)) session_blame(w, s, FAIL_PEER);
        session_close(w, s, SESSION_ORDERLY);
        return false;
    }
    setup->out_sent += (uint32_t)s->result;
    session_count_reply(w, s, (uint64_t)s->result);
    session_flush(w, s);
    return s->state == SESSION_REPLY && setup->out_sent == setup->out_used;
}

static bool session_on_received(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->result <= 0 && session_reads(s->state)) {
        session_blame(w, s, FAIL_PEER);
        session_log(w, s, LOG_LEVEL_DEBUG, "client went away during its handshake");
        session_close(w, s, SESSION_ORDERLY);
        return false;
    }
    if (session_reads(s->state)) {
        setup->received += (uint32_t)s->result;
        counter_add(&w->stats.handshake_in, (uint64_t)s->result);
    }
    return true;
}

/* The watch has ended though nothing was wrong: the kernel had no room for its completion. The timer arms another one;
 * not at once, for an orderly end that is there already would end it again and again. */
static void session_watch_again(struct worker *w, const struct session *s)
{
    bool waits = s->state == SESSION_VERIFY || s->state == SESSION_ROUTE || s->state == SESSION_RESOLVE ||
                 s->state == SESSION_DIAL || s->state == SESSION_HOP || s->state == SESSION_ANNOUNCE ||
                 s->state == SESSION_BIND;
    uint64_t soon = ring_now_ms(w->ring) + DIAL_STAGGER_MS, deadline = session_deadline_ms(w, s);
    if (!waits || s->inflight & SESSION_BIT(SESSION_WATCH + CLIENT)) return;
    timer_set(w->timers, s->slot, soon < deadline ? soon : deadline);
}

/* The watch of a client whose session waits for others has completed. */
static void session_on_client_lost(struct worker *w, struct session *s)
{
    /* An orderly end is no reason to stop. A client of BIND or UDP ASSOCIATE, however, has nothing to
     * send: it has left. */
    bool answered = s->state == SESSION_REPLY || s->state == SESSION_LINGER;
    int gone = s->command != SOCKS5_CONNECT && !answered ? POLLERR | POLLHUP | POLLRDHUP : POLLERR;
    if (s->result < 0 || !(s->result & gone)) {
        session_watch_again(w, s);
        return;
    }
    if (answered) { /* it has read our answer and closed */
        session_close(w, s, SESSION_ORDERLY);
        return;
    }
    session_blame(w, s, FAIL_PEER);
    session_log(w, s, LOG_LEVEL_DEBUG, "client reset the connection");
    session_close(w, s, SESSION_RESET);
}

static bool session_is_stray(const struct session *s, unsigned op)
{
    bool connect = op >= SESSION_CONNECT && op < SESSION_CONNECT + DIAL_ATTEMPTS_MAX;
    /* The loser of a race, closed when the winner was found. In ROUTE the next question waits for the last of them. */
    return connect && s->state != SESSION_DIAL && s->state != SESSION_ROUTE;
}

static void session_handshake_on_completion(struct worker *w, struct session *s)
{
    switch (s->op) {
    case SESSION_SEND + CLIENT:
        if (session_on_sent(w, s)) session_advance(w, s);
        return;
    case SESSION_RECV + CLIENT:
        if (session_on_received(w, s)) session_advance(w, s);
        return;
    case SESSION_WATCH + CLIENT: session_on_client_lost(w, s); return;
    default: session_advance(w, s);
    }
}

/* A send is back, in whatever state: what the kernel has taken of it counts, for its receiver may get it. A refused
 * client leaves its limits with the last of its request. */
static void session_on_send(struct worker *w, struct session *s, enum session_side side)
{
    bool traffic = flow_count_send(w, s, side, s->result);
    if (traffic && (s->state == SESSION_REPLY || s->state == SESSION_LINGER) && !flow_sends(s)) limited_leave(w, s);
    if (traffic || s->result <= 0) return;
    if (side == CLIENT && s->state == SESSION_CLOSING) session_count_reply(w, s, (uint64_t)s->result);
    if (side == UPSTREAM && s->state != SESSION_HOP) counter_add(&w->stats.hop_out, (uint64_t)s->result);
}

void session_on_completion(struct worker *w, const struct ring_completion *c)
{
    struct session *s = session_at(w, c->tag.slot);
    unsigned op = c->tag.op - WORKER_OP_SESSION;
    assert(pool_generation(&w->sessions, c->tag.slot) == c->tag.generation); /* an operation in flight pins its slot */
    assert(s->inflight & SESSION_BIT(op));
    if (!c->more) s->inflight &= ~SESSION_BIT(op);
    s->op = (uint8_t)op;
    s->result = c->result;
    if (op == SESSION_SEND + CLIENT || op == SESSION_SEND + UPSTREAM) session_on_send(w, s, op - SESSION_SEND);
    if (s->state == SESSION_RELAY) {
        relay_on_completion(w, s, op, c);
        return;
    }
    if (s->state == SESSION_EXCHANGE) {
        exchange_on_completion(w, s, op, c);
        return;
    }
    if (s->state == SESSION_IDLE) {
        idle_on_completion(w, s, op, c);
        return;
    }
    if (op >= SESSION_UDP_RECV && op < SESSION_UDP_RECV + UDP_SOCKETS) {
        udp_on_received(w, s, c);
        return;
    }
    if (c->has_buffer) buffers_return(&w->buffers, c->buffer);
    if (s->state == SESSION_CLOSING)
        session_join(w, s);
    else if (s->state == SESSION_ASSOCIATE && s->protocol == PROTOCOL_CHAIN)
        udp_chain_on_completion(w, s);
    else if (s->state == SESSION_ASSOCIATE)
        udp_on_completion(w, s);
    else if (s->state == SESSION_PARTING)
        parting_on_completion(w, s);
    else if (!session_is_stray(s, op))
        session_handshake_on_completion(w, s);
}

/* The verdict on a datagram's target. */
static void session_on_verdict(struct worker *w, struct session *s)
{
    s->inflight &= ~SESSION_BIT(SESSION_VERDICT);
    if (s->state == SESSION_CLOSING)
        session_join(w, s);
    else if (s->state == SESSION_ASSOCIATE)
        udp_on_verdict(w, s);
}

void session_on_answer(struct worker *w, const struct message *answer)
{
    struct session *s = session_at(w, answer->slot);
    assert(pool_generation(&w->sessions, answer->slot) == answer->generation);
    if (answer->kind == MESSAGE_ROUTE && s->inflight & SESSION_BIT(SESSION_VERDICT)) {
        s->result = answer->result;
        session_on_verdict(w, s);
        return;
    }
    assert(s->inflight & SESSION_BIT(SESSION_ANSWER));
    s->inflight &= ~SESSION_BIT(SESSION_ANSWER);
    if (s->asks_name) newcomer_answered(w->keys, s->source);
    s->asks_name = false;
    s->op = SESSION_ANSWER;
    s->result = answer->result;
    if (s->state == SESSION_CLOSING)
        session_join(w, s);
    else if (s->state == SESSION_ASSOCIATE)
        udp_on_answer(w, s);
    else if (session_asks_ruleset(s) || s->state == SESSION_RESOLVE || s->state == SESSION_BIND ||
             s->state == SESSION_VERIFY)
        session_advance(w, s);
}

void session_hook_verified(struct letter *letter)
{
    struct verify_request *request = link_owner(letter, struct verify_request, letter);
    struct message answer = {.slot = request->slot, .generation = request->generation};
    session_on_answer(request->worker, &answer);
}

/* --- time --- */

static enum failure session_timeout(const struct worker *w, const struct session *s)
{
    return setup_of(w, s)->request_complete ? FAIL_CONNECT_TIMEOUT : FAIL_HANDSHAKE_TIMEOUT;
}

/* Waiting for others takes longer than usual: now it is worth an operation to notice that the client gives up. Errors
 * and resets only; an orderly end of its sending direction is no reason to stop. */
static void session_watch_client(struct worker *w, struct session *s)
{
    if (s->fd[CLIENT] < 0 || s->inflight & SESSION_BIT(SESSION_WATCH + CLIENT)) return;
    ring_watch(w->ring, s->fd[CLIENT], session_arm(w, s, SESSION_WATCH + CLIENT));
}

static void session_on_wait(struct worker *w, struct session *s)
{
    uint64_t now = ring_now_ms(w->ring);
    session_watch_client(w, s);
    uint64_t next = session_deadline_ms(w, s), member = upstream_deadline_ms(w, s);
    if (member < next) next = member;
    if (s->state == SESSION_DIAL) {
        session_proceed(w, s, dial_on_time(w, s));
        if (s->state != SESSION_DIAL) return;
        if (now + DIAL_STAGGER_MS < next) next = now + DIAL_STAGGER_MS;
    } else if (session_asks_ruleset(s) && setup_of(w, s)->asking) {
        route_ask(w, s);
        if (now + TIMER_TICK_MS < next) next = now + TIMER_TICK_MS;
    }
    timer_set(w->timers, s->slot, next);
}

void session_on_timer(struct worker *w, uint32_t slot)
{
    struct session *s = session_at(w, slot);
    assert(s->state != SESSION_FREE && s->state != SESSION_CLOSING);
    switch ((enum session_state)s->state) {
    case SESSION_RELAY: relay_on_timer(w, s); return;
    case SESSION_ASSOCIATE: s->protocol == PROTOCOL_CHAIN ? udp_chain_on_timer(w, s) : udp_on_timer(w, s); return;
    case SESSION_EXCHANGE: exchange_on_timer(w, s); return;
    case SESSION_IDLE: idle_on_timer(w, s); return;
    case SESSION_PARTING: parting_on_timer(w, s); return;
    case SESSION_LINGER: linger_on_timer(w, s); return;
    case SESSION_REPLY: session_close(w, s, SESSION_ORDERLY); return;
    default: break;
    }
    uint64_t now = ring_now_ms(w->ring);
    if (now < session_deadline_ms(w, s) && now < upstream_deadline_ms(w, s)) {
        session_on_wait(w, s);
        return;
    }
    /* A member's time is shorter, and says nothing of the address that we connect from. */
    if (s->state == SESSION_DIAL && now >= session_deadline_ms(w, s)) dial_note_timeout(w, s);
    session_proceed(w, s, session_fail(w, s, session_timeout(w, s)));
}
