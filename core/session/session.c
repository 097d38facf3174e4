#include "core/session/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/message.h"
#include "core/session/newcomer.h"
#include "core/session/own.h"

/* A relay that has lived so long gets its keepalive: most connections never need those system calls. */
#define SESSION_FIRST_LOOK_MS 5000u

#define STATE(name)     (1u << SESSION_##name)
#define STATES_UPSTREAM (STATE(ROUTE) | STATE(RESOLVE) | STATE(DIAL) | STATE(BIND) | STATE(ASSOCIATE))
#define STATES_END      (STATE(REPLY) | STATE(CLOSING))

/* Which states may follow. */
static const uint32_t session_exits[SESSION_STATE_COUNT] = {
    [SESSION_FREE] = STATE(ORIGIN) | STATE(HELLO),
    [SESSION_ORIGIN] = STATE(ORIGIN) | STATE(HELLO) | STATES_UPSTREAM | STATES_END,
    [SESSION_HELLO] = STATE(HELLO) | STATE(AUTH) | STATE(VERIFY) | STATE(REQUEST) | STATE(EXCHANGE) | STATE(RELAY) |
                      STATES_UPSTREAM | STATES_END,
    [SESSION_VERIFY] = STATE(VERIFY) | STATE(REQUEST) | STATE(EXCHANGE) | STATES_UPSTREAM | STATES_END,
    [SESSION_AUTH] = STATE(AUTH) | STATE(VERIFY) | STATE(LOGIN) | STATE(REQUEST) | STATES_END,
    [SESSION_LOGIN] = STATE(LOGIN) | STATE(REQUEST) | STATES_END,
    [SESSION_REQUEST] = STATE(REQUEST) | STATE(HOP) | STATES_UPSTREAM | STATES_END,
    [SESSION_ROUTE] = STATES_UPSTREAM | STATE(EXCHANGE) | STATES_END,
    [SESSION_RESOLVE] = STATE(RESOLVE) | STATE(DIAL) | STATE(ROUTE) | STATES_END,
    [SESSION_DIAL] =
        STATE(DIAL) | STATE(HOP) | STATE(ANNOUNCE) | STATE(RELAY) | STATE(EXCHANGE) | STATE(ROUTE) | STATES_END,
    [SESSION_HOP] =
        STATE(HOP) | STATE(ANNOUNCE) | STATE(RELAY) | STATE(EXCHANGE) | STATE(ASSOCIATE) | STATE(ROUTE) | STATES_END,
    [SESSION_ANNOUNCE] = STATE(ANNOUNCE) | STATE(RELAY) | STATE(EXCHANGE) | STATE(ROUTE) | STATES_END,
    [SESSION_BIND] = STATE(BIND) | STATE(RELAY) | STATE(ROUTE) | STATES_END,
    [SESSION_REPLY] = STATE(REPLY) | STATE(LINGER) | STATE(CLOSING),
    [SESSION_LINGER] = STATE(LINGER) | STATE(CLOSING),
    [SESSION_RELAY] = STATE(RELAY) | STATE(PARTING) | STATE(CLOSING),
    [SESSION_EXCHANGE] = STATE(EXCHANGE) | STATE(HELLO) | STATE(IDLE) | STATE(RESOLVE) | STATE(DIAL) | STATE(RELAY) |
                         STATE(PARTING) | STATES_END,
    [SESSION_IDLE] = STATE(HELLO) | STATE(CLOSING),
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
        [SESSION_PARTING] = "parting",   [SESSION_IDLE] = "idle",
        [SESSION_VERIFY] = "verify",     [SESSION_ORIGIN] = "origin",
        [SESSION_ANNOUNCE] = "announce",
    };
    assert(state < SESSION_STATE_COUNT);
    return names[state];
}

static bool session_is_established(enum session_state state)
{
    return state == SESSION_RELAY || state == SESSION_EXCHANGE || state == SESSION_ASSOCIATE ||
           state == SESSION_PARTING || state == SESSION_IDLE;
}

/* From accept until the relay begins, or until there is nothing left but to wait for the kernel. */
bool session_is_half_open(enum session_state state)
{
    return state != SESSION_FREE && state != SESSION_CLOSING && !session_is_established(state);
}

/* --- the state and what moves with it --- */

/* Of the whole set-up; without a setup slot it is over. */
uint64_t session_deadline_ms(const struct worker *w, const struct session *s)
{
    return s->setup == POOL_NONE ? 0 : setup_of(w, s)->deadline_ms;
}

static void session_count(struct worker *w, const struct session *s, enum session_state from, enum session_state to)
{
    if (protocol_is_own(s->protocol)) {
        if (from == SESSION_FREE) counter_add(&w->stats.internal, 1);
        if (to == SESSION_FREE) counter_subtract(&w->stats.internal, 1);
        return;
    }
    if (session_is_half_open(from)) counter_subtract(&w->stats.half_open, 1);
    if (session_is_half_open(to)) counter_add(&w->stats.half_open, 1);
    if (from != SESSION_FREE && session_is_half_open(from) != session_is_half_open(to))
        newcomer_change(w->keys, s->source, session_is_half_open(to));
    if (session_is_established(from)) counter_subtract(&w->stats.established, 1);
    if (session_is_established(to)) {
        counter_add(&w->stats.established, 1);
        /* Each request of a client by itself, but once. */
        if (!session_is_established(from) && !s->repeated) counter_add(&w->stats.successes, 1);
    }
}

/* When an established session is first looked at: an idle limit may be shorter than the time after which keepalive is
 * worth its calls. */
uint32_t session_first_look_ms(const struct config *config)
{
    bool sooner = config->idle_timeout_ms > 0 && config->idle_timeout_ms < SESSION_FIRST_LOOK_MS;
    return sooner ? config->idle_timeout_ms : SESSION_FIRST_LOOK_MS;
}

/* A client's socket has it from its listener; those of a script have not. */
void session_set_keepalive(struct worker *w, struct session *s)
{
    if (s->keepalive_set) return;
    s->keepalive_set = true;
    if (!w->config->tcp_keepalive) return;
    net_set_keepalive(s->fd[UPSTREAM]);
    if (s->protocol == PROTOCOL_SCRIPT) net_set_keepalive(s->fd[CLIENT]);
}

static void session_set_deadline(struct worker *w, struct session *s, enum session_state next)
{
    uint64_t now = ring_now_ms(w->ring);
    uint64_t deadline = session_deadline_ms(w, s);
    switch (next) {
    case SESSION_VERIFY:
    case SESSION_LOGIN:
    case SESSION_ROUTE:
    case SESSION_RESOLVE:
    case SESSION_DIAL:
    case SESSION_HOP:
    case SESSION_ANNOUNCE: /* soon, to look after the client and to start another attempt */
        if (deadline > now + DIAL_STAGGER_MS) deadline = now + DIAL_STAGGER_MS;
        break;
    case SESSION_REPLY:
    case SESSION_LINGER: deadline = now + SESSION_LINGER_MS; break;
    case SESSION_ASSOCIATE:
        deadline = now + session_first_look_ms(w->config);
        if (w->config->udp_timeout_ms > 0 && deadline > now + w->config->udp_timeout_ms)
            deadline = now + w->config->udp_timeout_ms;
        break;
    case SESSION_RELAY: deadline = now + session_first_look_ms(w->config); break;
    case SESSION_IDLE:
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

void session_format_client(const struct session *s, char *out, size_t size)
{
    struct address address = host_port_address(&s->client);
    if (address.kind == ADDRESS_NONE)
        snprintf(out, size, "local");
    else
        address_format(&address, out, size);
}

void session_format_id(const struct worker *w, const struct session *s, char out[SESSION_ID_SIZE])
{
    snprintf(out, SESSION_ID_SIZE, "%x-%x-%x", w->index, s->slot, pool_generation(&w->sessions, s->slot));
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
void session_log_intruder(struct worker *w, struct session *s)
{
    static const char *const reasons[] = {[VERIFY_RIGHT] = "",
                                          [VERIFY_WRONG] = ": wrong password",
                                          [VERIFY_UNKNOWN] = ": unknown user",
                                          [VERIFY_BUSY] = "",
                                          [VERIFY_STOPPED] = ""};
    char client[ADDRESS_TEXT_SIZE], user[LOG_USER_SIZE];
    if (!LOG_ON(LOG_LEVEL_NOTICE)) return;
    session_format_client(s, client, sizeof client);
    log_quote(s->setup == POOL_NONE ? "" : setup_of(w, s)->credentials.user, user, sizeof user);
    LOG(LOG_LEVEL_NOTICE, "[%u:%u] %s: authentication failed for user \"%s\"%s", w->index, s->slot, client, user,
        s->setup == POOL_NONE ? "" : reasons[setup_of(w, s)->verdict_on_user]);
}

/* --- taking slots --- */

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
        .conn = POOL_NONE,
        .source = KEYS_NONE,
        .tally_user = KEYS_NONE,
        .record = POOL_NONE,
        .opened_ms = ring_now_ms(w->ring),
    };
}

/* All but the buffers and what `head` holds. */
static void setup_renew(struct setup *setup, uint64_t deadline_ms)
{
    setup->deadline_ms = deadline_ms;
    setup->consumed = 0;
    setup->out_used = setup->out_sent = 0;
    setup->hop_received = 0;
    setup->scanned = setup->hop_scanned = 0;
    setup->hop = setup->hop_stage = 0;
    setup->request_complete = setup->repeatable = setup->head_shut = false;
    setup->by_name = setup->asking = setup->trial = false;
    setup->retry_after_s = 0;
    setup->upstream.at = UPSTREAM_NO_GROUP;
    setup->upstream.again = false;
    setup->revision = 0;
    setup->verdict_on_user = VERIFY_RIGHT;
    setup->target.kind = setup->bound.kind = ADDRESS_NONE;
    setup->credentials.present = setup->credentials.user_only = setup->route.admitted = false;
    setup->dial.next = setup->dial.live = setup->dial.polled = 0;
    for (unsigned i = 0; i < DIAL_ATTEMPTS_MAX; i++) setup->dial.fds[i] = -1;
}

static void setup_init(struct setup *setup, uint64_t deadline_ms)
{
    head_buffer_init(&setup->head, setup->head_small, sizeof setup->head_small);
    head_buffer_init(&setup->hop_in, setup->hop_small, sizeof setup->hop_small);
    setup->received = 0;
    setup_renew(setup, deadline_ms);
}

bool session_has_room(const struct worker *w)
{
    return w->sessions.used < w->sessions.count && w->setups.used < w->setups.count;
}

struct session *session_take(struct worker *w, unsigned listener, int fd, uint32_t timeout_ms)
{
    uint32_t slot = pool_take(&w->sessions);
    assert(slot != POOL_NONE);
    struct session *s = session_at(w, slot);
    session_init(w, s, slot, listener, fd);
    s->setup = pool_take(&w->setups);
    assert(s->setup != POOL_NONE);
    setup_init(setup_of(w, s), s->opened_ms + timeout_ms);
    return s;
}

static void session_forget_upstream(struct session *s)
{
    assert(s->fd[UPSTREAM] < 0 && s->note == OWN_NO_NOTE && !s->choice.member);
    s->keepalive_set = s->reused = s->repeated = s->exclusive = false;
    s->hops = 0;
    s->rule = 0;
    assert(s->limit_count == 0); /* its request is over: it has left them */
    s->spent = s->settled = false;
}

void session_take_setup(struct worker *w, struct session *s)
{
    session_forget_upstream(s);
    s->setup = pool_take(&w->setups);
    assert(s->setup != POOL_NONE);
    setup_init(setup_of(w, s), ring_now_ms(w->ring) + w->config->timeout_ms);
}

void session_renew(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    session_forget_upstream(s);
    head_buffer_shrink(w, &setup->hop_in, setup->hop_small, sizeof setup->hop_small);
    setup_renew(setup, ring_now_ms(w->ring) + w->config->timeout_ms);
}

void session_flush(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    assert(setup->out_sent <= setup->out_used && setup->out_used <= SETUP_OUT_SIZE);
    if (setup->out_sent == setup->out_used || s->inflight & SESSION_BIT(SESSION_SEND + CLIENT)) return;
    ring_send(w->ring, s->fd[CLIENT], setup->out + setup->out_sent, setup->out_used - setup->out_sent,
              session_arm(w, s, SESSION_SEND + CLIENT));
}

void session_count_reply(struct worker *w, const struct session *s, uint64_t octets)
{
    if (!protocol_is_own(s->protocol)) counter_add(&w->stats.handshake_out, octets);
}

enum failure session_ask_address(struct worker *w, struct session *s, struct resolve_request *request)
{
    assert(!(s->inflight & SESSION_BIT(SESSION_ANSWER)));
    assert(request->name.kind == ADDRESS_NAME);
    request->family = w->config->family;
    request->source = share_source_of(&s->client);
    request->count = 0;
    atomic_store_explicit(&request->cancelled, 0, memory_order_relaxed);
    struct message question = {.kind = RESOLVE_MESSAGE,
                               .slot = s->slot,
                               .generation = pool_generation(&w->sessions, s->slot),
                               .body = request};
    if (!newcomer_asks(w->keys, s->source)) return FAIL_LIMIT_RESOLVING;
    s->asks_name = worker_ask(w, &question);
    if (!s->asks_name) {
        newcomer_answered(w->keys, s->source);
        return FAIL_RESOURCE;
    }
    s->inflight |= SESSION_BIT(SESSION_ANSWER);
    return FAIL_NONE;
}

bool session_ask_route(struct worker *w, struct session *s)
{
    struct route_request *request = &setup_of(w, s)->route;
    assert(!(s->inflight & SESSION_BIT(SESSION_ANSWER)));
    atomic_store_explicit(&request->cancelled, 0, memory_order_relaxed);
    struct message question = {
        .kind = MESSAGE_ROUTE, .slot = s->slot, .generation = pool_generation(&w->sessions, s->slot), .body = request};
    if (!worker_post(w, &question)) return false;
    counter_add(&w->stats.routes_asked, 1);
    s->inflight |= SESSION_BIT(SESSION_ANSWER);
    return true;
}

/* A word that needs no answer. */
void session_tell(struct worker *w, struct session *s, enum message_kind kind, int32_t result)
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

void session_format_chain(const struct worker *w, const struct session *s, char *out, size_t size)
{
    const struct route_verdict *verdict = &setup_of(w, s)->route.verdict;
    char text[PROXY_URI_TEXT_SIZE];
    size_t used = 0;
    out[0] = '\0';
    if (s->inflight & SESSION_BIT(SESSION_ANSWER)) return;             /* the coordinator may be writing the next one */
    for (unsigned i = 0; i < s->hops && i < verdict->hop_count; i++) { /* a refusal behind a try has none */
        size_t length = proxy_uri_format(&verdict->hops[i], text, sizeof text);
        if (used + (i > 0) + length >= size) return;
        if (i > 0) out[used++] = ' ';
        memcpy(out + used, text, length + 1);
        used += length;
    }
}
