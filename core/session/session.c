/* See session.h for the picture. Completions come in at session_on_completion() and run steps until one waits again. */
#include "core/session/session.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/io/log.h"
#include "core/session/bind.h"
#include "core/session/crowd.h"
#include "core/session/dial.h"
#include "core/session/errand_kinds.h"
#include "core/session/exchange.h"
#include "core/session/handshake.h"
#include "core/session/hop.h"
#include "core/session/message.h"
#include "core/session/own.h"
#include "core/session/parting.h"
#include "core/session/relay.h"
#include "core/session/reply.h"
#include "core/session/route.h"
#include "core/session/self.h"
#include "core/session/udp.h"
#include "core/session/worker.h"

/* How long a client may take to read a refusal and close, before we do. */
#define SESSION_LINGER_MS 2000u
/* A relay that has lived so long gets its keepalive: most connections never need those system calls. */
#define SESSION_SETTLE_MS 5000u

static enum session_state session_reply_step(struct worker *w, struct session *s);
static enum session_state session_linger_step(struct worker *w, struct session *s);

typedef enum session_state session_step(struct worker *w, struct session *s);

/* What runs when a completion arrives in a state. RELAY, EXCHANGE and ASSOCIATE have handlers of their own. */
static session_step *const session_steps[SESSION_STATE_COUNT] = {
    [SESSION_HELLO] = handshake_hello_step,
    [SESSION_AUTH] = handshake_auth_step,
    [SESSION_REQUEST] = handshake_request_step,
    [SESSION_LOGIN] = route_login_step,
    [SESSION_ROUTE] = route_step,
    [SESSION_RESOLVE] = dial_resolve_step,
    [SESSION_DIAL] = dial_step,
    [SESSION_HOP] = hop_step,
    [SESSION_BIND] = bind_step,
    [SESSION_REPLY] = session_reply_step,
    [SESSION_LINGER] = session_linger_step,
};

#define STATE(name)     (1u << SESSION_##name)
#define STATES_UPSTREAM (STATE(ROUTE) | STATE(RESOLVE) | STATE(DIAL) | STATE(BIND) | STATE(ASSOCIATE))
#define STATES_END      (STATE(REPLY) | STATE(CLOSING))

/* Which states may follow. */
static const uint32_t session_exits[SESSION_STATE_COUNT] = {
    [SESSION_FREE] = STATE(HELLO),
    [SESSION_HELLO] = STATE(HELLO) | STATE(AUTH) | STATE(REQUEST) | STATE(RELAY) | STATES_UPSTREAM | STATES_END,
    [SESSION_AUTH] = STATE(AUTH) | STATE(LOGIN) | STATE(REQUEST) | STATES_END,
    [SESSION_LOGIN] = STATE(LOGIN) | STATE(REQUEST) | STATES_END,
    [SESSION_REQUEST] = STATE(REQUEST) | STATES_UPSTREAM | STATES_END,
    [SESSION_ROUTE] = STATES_UPSTREAM | STATES_END,
    [SESSION_RESOLVE] = STATE(RESOLVE) | STATE(DIAL) | STATE(ROUTE) | STATES_END,
    [SESSION_DIAL] = STATE(DIAL) | STATE(HOP) | STATE(RELAY) | STATE(EXCHANGE) | STATE(ROUTE) | STATES_END,
    [SESSION_HOP] = STATE(HOP) | STATE(RELAY) | STATE(EXCHANGE) | STATE(ROUTE) | STATES_END,
    [SESSION_BIND] = STATE(BIND) | STATE(RELAY) | STATES_END,
    [SESSION_REPLY] = STATE(REPLY) | STATE(LINGER) | STATE(CLOSING),
    [SESSION_LINGER] = STATE(LINGER) | STATE(CLOSING),
    [SESSION_RELAY] = STATE(RELAY) | STATE(PARTING) | STATE(CLOSING),
    [SESSION_EXCHANGE] = STATE(EXCHANGE) | STATE(RELAY) | STATE(PARTING) | STATES_END,
    [SESSION_ASSOCIATE] = STATE(ASSOCIATE) | STATES_END,
    [SESSION_PARTING] = STATE(CLOSING),
    [SESSION_CLOSING] = STATE(FREE),
};

const char *session_state_name(enum session_state state)
{
    static const char *const names[SESSION_STATE_COUNT] = {
        [SESSION_FREE] = "free",         [SESSION_HELLO] = "hello",
        [SESSION_AUTH] = "auth",         [SESSION_REQUEST] = "request",
        [SESSION_ROUTE] = "route",       [SESSION_RESOLVE] = "resolve",
        [SESSION_DIAL] = "dial",         [SESSION_HOP] = "hop",
        [SESSION_BIND] = "bind",         [SESSION_REPLY] = "reply",
        [SESSION_LINGER] = "linger",     [SESSION_RELAY] = "relay",
        [SESSION_EXCHANGE] = "exchange", [SESSION_ASSOCIATE] = "associate",
        [SESSION_CLOSING] = "closing",   [SESSION_LOGIN] = "login",
        [SESSION_PARTING] = "parting",
    };
    assert(state < SESSION_STATE_COUNT);
    return names[state];
}

static bool session_is_established(enum session_state state)
{
    return state == SESSION_RELAY || state == SESSION_EXCHANGE || state == SESSION_ASSOCIATE ||
           state == SESSION_PARTING;
}

/* From accept until the relay begins, or until there is nothing left but to wait for the kernel. */
static bool session_is_half_open(enum session_state state)
{
    return state != SESSION_FREE && state != SESSION_CLOSING && !session_is_established(state);
}

static bool session_asks_ruleset(const struct session *s)
{
    return s->state == SESSION_LOGIN || s->state == SESSION_ROUTE;
}

/* --- the state and what moves with it --- */

/* Of the whole set-up; without a setup slot it is over. */
static uint64_t session_deadline_ms(const struct worker *w, const struct session *s)
{
    return s->setup == POOL_NONE ? 0 : setup_of(w, s)->deadline_ms;
}

static void session_count(struct worker *w, const struct session *s, enum session_state from, enum session_state to)
{
    if (s->protocol == PROTOCOL_INTERNAL) {
        if (from == SESSION_FREE) counter_add(&w->stats.internal, 1);
        if (to == SESSION_FREE) counter_subtract(&w->stats.internal, 1);
        return;
    }
    if (session_is_half_open(from)) counter_subtract(&w->stats.half_open, 1);
    if (session_is_half_open(to)) counter_add(&w->stats.half_open, 1);
    if (session_is_established(from)) counter_subtract(&w->stats.established, 1);
    if (session_is_established(to)) {
        counter_add(&w->stats.established, 1);
        if (!session_is_established(from)) counter_add(&w->stats.successes, 1);
    }
}

/* When an established session is first looked at: an idle limit may be shorter than the time after which keepalive is
 * worth its calls. */
uint32_t session_settle_ms(const struct config *config)
{
    bool sooner = config->idle_timeout_ms > 0 && config->idle_timeout_ms < SESSION_SETTLE_MS;
    return sooner ? config->idle_timeout_ms : SESSION_SETTLE_MS;
}

/* A client's socket has it from its listener; those of a script have not. */
void session_settle(struct worker *w, struct session *s)
{
    if (s->settled) return;
    s->settled = true;
    if (!w->config->tcp_keepalive) return;
    net_set_keepalive(s->fd[UPSTREAM]);
    if (s->protocol == PROTOCOL_SCRIPT) net_set_keepalive(s->fd[CLIENT]);
}

static void session_set_deadline(struct worker *w, struct session *s, enum session_state next)
{
    uint64_t now = ring_now_ms(w->ring);
    uint64_t deadline = session_deadline_ms(w, s);
    switch (next) {
    case SESSION_LOGIN:
    case SESSION_ROUTE:
    case SESSION_RESOLVE:
    case SESSION_DIAL:
    case SESSION_HOP: /* soon, to look after the client and to start another attempt */
        if (deadline > now + DIAL_STAGGER_MS) deadline = now + DIAL_STAGGER_MS;
        break;
    case SESSION_REPLY:
    case SESSION_LINGER: deadline = now + SESSION_LINGER_MS; break;
    case SESSION_ASSOCIATE:
    case SESSION_RELAY: deadline = now + session_settle_ms(w->config); break;
    case SESSION_PARTING: return;
    case SESSION_FREE:
    case SESSION_CLOSING: timer_clear(w->timers, s->slot); return;
    default: break;
    }
    timer_set(w->timers, s->slot, deadline);
}

void session_enter(struct worker *w, struct session *s, enum session_state next)
{
    enum session_state from = s->state;
    assert(session_exits[from] & (1u << next));
    if (next == from) return;
    s->state = (uint8_t)next;
    session_count(w, s, from, next);
    session_set_deadline(w, s, next);
    if (LOG_ON(LOG_LEVEL_VERY_VERBOSE)) session_log(w, s, LOG_LEVEL_VERY_VERBOSE, session_state_name(next));
}

/* --- log lines --- */

static void session_format_client(const struct session *s, char *out, size_t size)
{
    struct net_address peer;
    struct address address;
    if (s->fd[CLIENT] >= 0 && net_peer_address(s->fd[CLIENT], &peer) >= 0 && net_address_to(&peer, &address))
        address_format(&address, out, size);
    else
        snprintf(out, size, "local");
}

void session_log(struct worker *w, struct session *s, int level, const char *text)
{
    char client[ADDRESS_TEXT_SIZE], target[ADDRESS_TEXT_SIZE] = "";
    if (!LOG_ON(level)) return;
    session_format_client(s, client, sizeof client);
    if (s->setup != POOL_NONE && setup_of(w, s)->target.kind != ADDRESS_NONE)
        address_format(&setup_of(w, s)->target, target, sizeof target);
    LOG(level, "[%u:%u] %s%s%s%s: %s", w->index, s->slot, client, *target ? " -> `" : "", target, *target ? "'" : "",
        text);
}

/* Who tries passwords: at the level that is the default, for programs that lock sources out (docs/fail2ban/). What
 * clients name stands behind the source, escaped, so that nobody can name another source in its place. */
static void session_log_intruder(struct worker *w, struct session *s)
{
    char client[ADDRESS_TEXT_SIZE], user[LOG_USER_SIZE];
    if (!LOG_ON(LOG_LEVEL_NOTICE)) return;
    session_format_client(s, client, sizeof client);
    log_quote(s->setup == POOL_NONE ? "" : setup_of(w, s)->credentials.user, user, sizeof user);
    LOG(LOG_LEVEL_NOTICE, "[%u:%u] %s: authentication failed for user \"%s\"", w->index, s->slot, client, user);
}

/* --- opening --- */

static void session_init(struct worker *w, struct session *s, uint32_t slot, unsigned listener, int fd)
{
    *s = (struct session){
        .state = SESSION_FREE,
        .command = SOCKS5_CONNECT,
        .listener = (uint8_t)listener,
        .slot = slot,
        .setup = POOL_NONE,
        .extra = POOL_NONE,
        .fd = {fd, -1},
        .note = OWN_NO_NOTE,
        .opened_ms = ring_now_ms(w->ring),
    };
}

static void setup_init(struct setup *setup, uint64_t deadline_ms)
{
    setup->deadline_ms = deadline_ms;
    head_buffer_init(&setup->head, setup->head_small, sizeof setup->head_small);
    head_buffer_init(&setup->hop_in, setup->hop_small, sizeof setup->hop_small);
    setup->received = setup->consumed = 0;
    setup->out_used = setup->out_sent = 0;
    setup->hop_received = 0;
    setup->scanned = setup->hop_scanned = 0;
    setup->hop = setup->hop_stage = 0;
    setup->request_complete = setup->head_shut = false;
    setup->by_name = setup->asking = setup->trial = false;
    setup->target.kind = ADDRESS_NONE;
    setup->credentials.present = setup->credentials.user_only = setup->route.admitted = false;
    setup->dial.next = setup->dial.live = setup->dial.polled = 0;
    for (unsigned i = 0; i < DIAL_ATTEMPTS_MAX; i++) setup->dial.fds[i] = -1;
}

void session_open(struct worker *w, unsigned listener, int fd)
{
    uint32_t slot = pool_take(&w->sessions);
    assert(slot != POOL_NONE); /* accept_admit() has looked */
    struct session *s = session_at(w, slot);
    session_init(w, s, slot, listener, fd);
    s->setup = pool_take(&w->setups);
    assert(s->setup != POOL_NONE);
    crowd_take(w, s->setup);
    setup_init(setup_of(w, s), s->opened_ms + w->config->timeout_ms);
    counter_add(&w->stats.accepted, 1);
    session_enter(w, s, SESSION_HELLO);
    session_proceed(w, s, handshake_begin(w, s));
}

int session_open_internal(struct worker *w, struct dial_errand *dial)
{
    bool full = w->sessions.used == w->sessions.count || w->setups.used == w->setups.count;
    if (full || w->draining) return -ENOBUFS;
    uint32_t slot = pool_take(&w->sessions);
    struct session *s = session_at(w, slot);
    session_init(w, s, slot, 0, dial->fd);
    dial->fd = -1;
    s->protocol = PROTOCOL_INTERNAL;
    s->setup = pool_take(&w->setups);
    struct setup *setup = setup_of(w, s);
    setup_init(setup, s->opened_ms + dial->timeout_ms);
    setup->target = setup->route.target = dial->target;
    setup->request_complete = true;
    route_decide_builtin(&setup->route, dial->hops, dial->hop_count);
    session_enter(w, s, SESSION_HELLO);
    session_proceed(w, s, route_obey(w, s));
    return 0;
}

int session_open_relay(struct worker *w, struct relay_errand *relay)
{
    bool full = w->sessions.used == w->sessions.count || w->setups.used == w->setups.count;
    struct net_address peer;
    if (full || w->draining) return -ENOBUFS;
    uint32_t slot = pool_take(&w->sessions);
    struct session *s = session_at(w, slot);
    session_init(w, s, slot, 0, relay->fds[CLIENT]);
    s->protocol = PROTOCOL_SCRIPT;
    s->fd[UPSTREAM] = relay->fds[UPSTREAM];
    relay->fds[CLIENT] = relay->fds[UPSTREAM] = -1;
    s->errand = relay;
    s->setup = pool_take(&w->setups);
    setup_init(setup_of(w, s), s->opened_ms + w->config->timeout_ms);
    if (net_peer_address(s->fd[UPSTREAM], &peer) >= 0) net_address_to(&peer, &setup_of(w, s)->target);
    counter_add(&w->stats.accepted, 1);
    session_enter(w, s, SESSION_HELLO);
    session_proceed(w, s, SESSION_RELAY);
    return 0;
}

/* --- running steps --- */

static bool session_reads(enum session_state state)
{
    return state == SESSION_HELLO || state == SESSION_AUTH || state == SESSION_REQUEST;
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
}

static void session_advance(struct worker *w, struct session *s)
{
    assert(s->state != SESSION_FREE && session_steps[s->state] != NULL);
    session_proceed(w, s, session_steps[s->state](w, s));
}

void session_flush(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    assert(setup->out_sent <= setup->out_used && setup->out_used <= SETUP_OUT_SIZE);
    if (setup->out_sent == setup->out_used || s->inflight & SESSION_BIT(SESSION_SEND + CLIENT)) return;
    ring_send(w->ring, s->fd[CLIENT], setup->out + setup->out_sent, setup->out_used - setup->out_sent,
              session_arm(w, s, SESSION_SEND + CLIENT));
}

/* The client has gone before there was a relay. */
static void session_count_lost(struct worker *w, struct session *s)
{
    s->failure = FAIL_PEER;
    if (s->protocol != PROTOCOL_INTERNAL) counter_add(&w->stats.failures[FAIL_PEER], 1);
}

void session_count_reply(struct worker *w, const struct session *s, uint64_t octets)
{
    if (s->protocol != PROTOCOL_INTERNAL) counter_add(&w->stats.handshake_out, octets);
}

/* A piece of `out` is sent. True if that is what the state waits for. */
static bool session_on_sent(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->result <= 0) {
        s->result = s->result < 0 ? s->result : -EPIPE;
        if (s->state != SESSION_REPLY && s->state != SESSION_LINGER && session_is_half_open(s->state)) {
            session_count_lost(w, s);
        }
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
        session_count_lost(w, s);
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
    bool waits = s->state == SESSION_ROUTE || s->state == SESSION_RESOLVE || s->state == SESSION_DIAL ||
                 s->state == SESSION_HOP || s->state == SESSION_BIND;
    uint64_t soon = ring_now_ms(w->ring) + DIAL_STAGGER_MS, deadline = session_deadline_ms(w, s);
    if (!waits || s->inflight & SESSION_BIT(SESSION_WATCH + CLIENT)) return;
    timer_set(w->timers, s->slot, soon < deadline ? soon : deadline);
}

/* The client of a session that waits for somebody else is gone. */
static void session_on_client_lost(struct worker *w, struct session *s)
{
    /* An orderly end is no reason to stop; but who waits for a peer to connect has nothing to send, and is gone. */
    int gone = s->state == SESSION_BIND ? POLLERR | POLLHUP | POLLRDHUP : POLLERR;
    if (s->result < 0 || !(s->result & gone)) {
        session_watch_again(w, s);
        return;
    }
    if (s->state == SESSION_REPLY || s->state == SESSION_LINGER) { /* it has read our answer and closed */
        session_close(w, s, SESSION_ORDERLY);
        return;
    }
    session_count_lost(w, s);
    session_log(w, s, LOG_LEVEL_DEBUG, "client reset the connection");
    session_close(w, s, SESSION_RESET);
}

/* Before the slot is free: whoever lent us the sockets hears how it went. */
static void session_return_errand(struct worker *w, struct session *s)
{
    struct relay_errand *relay = s->errand;
    if (!relay) return;
    bool orderly = s->flows[CLIENT].phase == FLOW_DONE && s->flows[UPSTREAM].phase == FLOW_DONE;
    relay->bytes[0] = s->flows[CLIENT].bytes;
    relay->bytes[1] = s->flows[UPSTREAM].bytes;
    errand_return(w, &relay->errand, orderly ? 0 : -ECONNRESET);
}

static void session_release(struct worker *w, struct session *s)
{
    session_return_errand(w, s);
    relay_release(w, s);
    udp_release(w, s);
    exchange_release(w, s);
    session_release_setup(w, s);
    session_enter(w, s, SESSION_FREE);
    pool_give(&w->sessions, s->slot);
    pool_trim(&w->sessions);
}

void session_join(struct worker *w, struct session *s)
{
    assert(s->state == SESSION_CLOSING);
    if (s->inflight == 0) session_release(w, s);
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

void session_on_completion(struct worker *w, const struct ring_completion *c)
{
    struct session *s = session_at(w, c->tag.slot);
    unsigned op = c->tag.op - WORKER_OP_SESSION;
    assert(pool_generation(&w->sessions, c->tag.slot) == c->tag.generation); /* an operation in flight pins its slot */
    assert(s->inflight & SESSION_BIT(op));
    if (!c->more) s->inflight &= ~SESSION_BIT(op);
    s->op = (uint8_t)op;
    s->result = c->result;
    if (s->state == SESSION_RELAY) {
        relay_on_completion(w, s, op, c);
        return;
    }
    if (op >= SESSION_UDP_RECV && op < SESSION_UDP_RECV + UDP_SOCKETS) {
        udp_on_received(w, s, c);
        return;
    }
    if (c->has_buffer) buffers_return(&w->buffers, c->buffer);
    if (s->state == SESSION_CLOSING)
        session_join(w, s);
    else if (s->state == SESSION_ASSOCIATE)
        udp_on_completion(w, s);
    else if (s->state == SESSION_EXCHANGE)
        exchange_on_completion(w, s, op, c->result);
    else if (s->state == SESSION_PARTING)
        parting_on_completion(w, s);
    else if (!session_is_stray(s, op))
        session_handshake_on_completion(w, s);
}

bool session_ask_address(struct worker *w, struct session *s, struct resolve_request *request)
{
    assert(!(s->inflight & SESSION_BIT(SESSION_LENT)));
    assert(request->name.kind == ADDRESS_NAME);
    request->family = w->config->family;
    request->source = share_source_of(s->fd[CLIENT]);
    request->count = 0;
    atomic_store_explicit(&request->cancelled, 0, memory_order_relaxed);
    struct message question = {.kind = RESOLVE_MESSAGE,
                               .slot = s->slot,
                               .generation = pool_generation(&w->sessions, s->slot),
                               .body = request};
    if (!worker_ask(w, &question)) return false;
    s->inflight |= SESSION_BIT(SESSION_LENT);
    return true;
}

bool session_ask_route(struct worker *w, struct session *s)
{
    struct route_request *request = &setup_of(w, s)->route;
    assert(!(s->inflight & SESSION_BIT(SESSION_LENT)));
    atomic_store_explicit(&request->cancelled, 0, memory_order_relaxed);
    struct message question = {
        .kind = MESSAGE_ROUTE, .slot = s->slot, .generation = pool_generation(&w->sessions, s->slot), .body = request};
    if (!worker_post(w, &question)) return false;
    counter_add(&w->stats.routes_asked, 1);
    s->inflight |= SESSION_BIT(SESSION_LENT);
    return true;
}

/* A word that needs no answer. */
static void session_tell(struct worker *w, struct session *s, enum message_kind kind, int32_t result)
{
    struct message word = {
        .kind = kind, .slot = s->slot, .generation = pool_generation(&w->sessions, s->slot), .result = result};
    bool posted = worker_post(w, &word);
    assert(posted); /* the queue has room for each setup slot's question and these, see config_size() */
    (void)posted;
}

void session_report_trial(struct worker *w, struct session *s, int32_t result)
{
    struct setup *setup = setup_of(w, s);
    if (!setup->trial) return;
    setup->trial = false;
    session_tell(w, s, MESSAGE_ROUTED, result);
}

bool session_upstream_is_busy(const struct session *s)
{
    uint32_t busy = SESSION_BIT(SESSION_RECV + UPSTREAM) | SESSION_BIT(SESSION_SEND + UPSTREAM);
    for (unsigned i = 0; i < DIAL_ATTEMPTS_MAX; i++) busy |= SESSION_BIT(SESSION_CONNECT + i);
    return (s->inflight & busy) != 0;
}

void session_on_answer(struct worker *w, const struct message *answer)
{
    struct session *s = session_at(w, answer->slot);
    assert(pool_generation(&w->sessions, answer->slot) == answer->generation);
    assert(s->inflight & SESSION_BIT(SESSION_LENT));
    s->inflight &= ~SESSION_BIT(SESSION_LENT);
    s->op = SESSION_LENT;
    s->result = answer->result;
    if (s->state == SESSION_CLOSING)
        session_join(w, s);
    else if (s->state == SESSION_ASSOCIATE)
        udp_on_answer(w, s);
    else if (session_asks_ruleset(s) || s->state == SESSION_RESOLVE || s->state == SESSION_BIND)
        session_advance(w, s);
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
    if (s->inflight & SESSION_BIT(SESSION_WATCH + CLIENT)) return;
    ring_watch(w->ring, s->fd[CLIENT], session_arm(w, s, SESSION_WATCH + CLIENT));
}

static void session_on_wait(struct worker *w, struct session *s)
{
    uint64_t now = ring_now_ms(w->ring);
    session_watch_client(w, s);
    uint64_t next = session_deadline_ms(w, s);
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

/* A refusal is short, but its way may be long or lossy. */
static void session_on_lingered(struct worker *w, struct session *s)
{
    uint64_t now = ring_now_ms(w->ring);
    if (now < session_deadline_ms(w, s) && net_unacknowledged(s->fd[CLIENT]) > 1)
        timer_set(w->timers, s->slot, now + SESSION_LINGER_MS);
    else
        session_close(w, s, SESSION_ORDERLY);
}

void session_on_timer(struct worker *w, uint32_t slot)
{
    struct session *s = session_at(w, slot);
    assert(s->state != SESSION_FREE && s->state != SESSION_CLOSING);
    switch ((enum session_state)s->state) {
    case SESSION_RELAY: relay_on_timer(w, s); return;
    case SESSION_ASSOCIATE: udp_on_timer(w, s); return;
    case SESSION_EXCHANGE: exchange_on_timer(w, s); return;
    case SESSION_PARTING: parting_on_timer(w, s); return;
    case SESSION_LINGER: session_on_lingered(w, s); return;
    case SESSION_REPLY: session_close(w, s, SESSION_ORDERLY); return;
    default: break;
    }
    if (ring_now_ms(w->ring) < session_deadline_ms(w, s))
        session_on_wait(w, s);
    else
        session_proceed(w, s, session_fail(w, s, session_timeout(w, s)));
}

/* --- the end --- */

/* By tag, one by one: the kernel finds those by their hash, but would search all that is in flight for a descriptor. */
static void session_cancel_side(struct worker *w, struct session *s, enum session_side side)
{
    for (unsigned op = SESSION_RECV + side; op <= SESSION_WATCH + side; op += 2)
        if (s->inflight & SESSION_BIT(op)) ring_cancel(w->ring, session_tag(w, s, op));
}

void session_drop_side(struct worker *w, struct session *s, enum session_side side, enum session_end end)
{
    int fd = s->fd[side];
    if (side == UPSTREAM) self_forget(w, s);
    if (fd < 0) return;
    if (end == SESSION_RESET) net_reset_on_close(fd);
    session_cancel_side(w, s, side);
    ring_close(w->ring, fd);
    s->fd[side] = -1;
}

void session_format_chain(const struct worker *w, const struct session *s, char *out, size_t size)
{
    const struct route_verdict *verdict = &setup_of(w, s)->route.verdict;
    char text[PROXY_URI_TEXT_SIZE];
    size_t used = 0;
    out[0] = '\0';
    if (s->inflight & SESSION_BIT(SESSION_LENT)) return;               /* the coordinator may be writing the next one */
    for (unsigned i = 0; i < s->hops && i < verdict->hop_count; i++) { /* a refusal behind a try has none */
        size_t length = proxy_uri_format(&verdict->hops[i], text, sizeof text);
        if (used + (i > 0) + length >= size) return;
        if (i > 0) out[used++] = ' ';
        memcpy(out + used, text, length + 1);
        used += length;
    }
}

/* Appends at most `room` octets and a zero. Returns the place behind it. */
static char *session_add_label(char *at, const char *text, size_t room)
{
    size_t size = strnlen(text, room);
    memcpy(at, text, size);
    at[size] = '\0';
    return at + size + 1;
}

/* What GET /sessions still shows of it. */
static void session_label(const struct worker *w, struct session *s)
{
    const struct setup *setup = setup_of(w, s);
    char target[ADDRESS_TEXT_SIZE] = "", *end = s->label + SESSION_LABEL_SIZE;
    if (setup->target.kind != ADDRESS_NONE) address_format(&setup->target, target, sizeof target);
    char *at =
        session_add_label(s->label, setup->credentials.present ? setup->credentials.user : "", SESSION_LABEL_SIZE / 6);
    at = session_add_label(at, target, (size_t)(end - at) - 2);
    session_format_chain(w, s, at, (size_t)(end - at));
}

void session_release_setup(struct worker *w, struct session *s)
{
    if (s->setup == POOL_NONE) return;
    struct setup *setup = setup_of(w, s);
    session_label(w, s);
    head_buffer_shrink(w, &setup->head, setup->head_small, sizeof setup->head_small);
    head_buffer_shrink(w, &setup->hop_in, setup->hop_small, sizeof setup->hop_small);
    crowd_give(w, s->setup);
    pool_give(&w->setups, s->setup);
    pool_trim(&w->setups); /* a burst of handshakes must not be paid for by all the idle sessions that it leaves */
    s->setup = POOL_NONE;
}

/* Nobody wants to know any more. */
static void session_withdraw_request(struct worker *w, struct session *s)
{
    if (s->setup == POOL_NONE) return;
    struct setup *setup = setup_of(w, s);
    setup->asking = false;
    session_report_trial(w, s, s->failure == FAIL_CONNECT_TIMEOUT ? -ETIMEDOUT : -ECANCELED);
    if (!(s->inflight & SESSION_BIT(SESSION_LENT))) return;
    if (session_asks_ruleset(s)) session_tell(w, s, MESSAGE_CANCEL, 0);
    atomic_store_explicit(&setup->route.cancelled, 1, memory_order_relaxed);
    atomic_store_explicit(&setup->resolve.cancelled, 1, memory_order_relaxed);
}

static void session_drop_upstream(struct worker *w, struct session *s, enum session_end end)
{
    session_withdraw_request(w, s);
    if (s->setup != POOL_NONE) dial_abandon(w, s);
    if (s->state == SESSION_BIND) bind_stop_listening(s);
    session_drop_side(w, s, UPSTREAM, end);
}

void session_close(struct worker *w, struct session *s, enum session_end end)
{
    assert(s->state != SESSION_FREE && s->state != SESSION_CLOSING);
    if (s->state == SESSION_RELAY) relay_drop(w, s);
    if (s->state == SESSION_ASSOCIATE) udp_drop(w, s);
    session_drop_upstream(w, s, end);
    session_drop_side(w, s, CLIENT, end);
    session_enter(w, s, SESSION_CLOSING);
    session_join(w, s);
}

/* Whether the ruleset is to hear of it (await.forward) and not the client. */
static bool session_is_trial(const struct worker *w, const struct session *s, enum failure failure)
{
    bool over = failure == FAIL_PEER || failure == FAIL_CONNECT_TIMEOUT || failure == FAIL_HANDSHAKE_TIMEOUT;
    return s->setup != POOL_NONE && setup_of(w, s)->trial && !over;
}

static enum session_state session_end_trial(struct worker *w, struct session *s, enum failure failure)
{
    struct setup *setup = setup_of(w, s);
    setup->trial = false;
    session_log(w, s, LOG_LEVEL_DEBUG, failure_row(failure)->word);
    session_drop_upstream(w, s, SESSION_RESET);
    setup->route.failure = (uint8_t)failure;
    setup->asking = true;
    route_ask(w, s);
    return SESSION_ROUTE;
}

enum session_state session_fail(struct worker *w, struct session *s, enum failure failure)
{
    if (session_is_trial(w, s, failure)) return session_end_trial(w, s, failure);
    s->failure = (uint8_t)failure;
    if (s->protocol != PROTOCOL_INTERNAL) counter_add(&w->stats.failures[failure], 1);
    if (failure == FAIL_AUTH)
        session_log_intruder(w, s);
    else
        session_log(w, s, LOG_LEVEL_INFO, failure_row(failure)->word);
    if (!reply_append_refusal(w, s, failure)) {
        session_close(w, s, SESSION_ORDERLY);
        return SESSION_CLOSING;
    }
    session_drop_upstream(w, s, SESSION_RESET);
    session_flush(w, s);
    return SESSION_REPLY;
}

/* What comes now is of no interest. */
static void session_discard(struct worker *w, struct session *s)
{
    const struct head_buffer *head = &setup_of(w, s)->head;
    ring_recv(w->ring, s->fd[CLIENT], head->data, head->size, session_arm(w, s, SESSION_RECV + CLIENT));
}

/* Closing now could turn into a reset that overtakes what the client has not read yet, if it has sent something that we
 * did not read: so our side is shut down first, and what comes is discarded for a while. */
static void session_begin_linger(struct worker *w, struct session *s)
{
    net_shutdown_write(s->fd[CLIENT]);
    if (s->inflight & SESSION_BIT(SESSION_RECV + CLIENT)) return;
    session_discard(w, s);
}

/* The refusal is sent. */
static enum session_state session_reply_step(struct worker *w, struct session *s)
{
    if (s->op != SESSION_SEND + CLIENT) return SESSION_REPLY;
    session_begin_linger(w, s);
    return SESSION_LINGER;
}

static enum session_state session_linger_step(struct worker *w, struct session *s)
{
    if (s->op != SESSION_RECV + CLIENT) return SESSION_LINGER;
    if (s->result <= 0) {
        session_close(w, s, SESSION_ORDERLY);
        return SESSION_CLOSING;
    }
    session_discard(w, s);
    return SESSION_LINGER;
}
