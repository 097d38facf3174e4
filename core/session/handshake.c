#include "core/session/handshake.h"

#include <ctype.h>
#include <string.h>
#include <time.h>

#include "core/io/log.h"
#include "core/session/bind.h"
#include "core/session/dial.h"
#include "core/session/exchange.h"
#include "core/session/self.h"
#include "core/session/udp.h"
#include "core/session/worker.h"
#include "protocols/http_connect.h"
#include "protocols/http_forward.h"
#include "protocols/socks4.h"

static const uint8_t *head_at(const struct setup *setup)
{
    return setup->head.data + setup->consumed;
}

static size_t head_left(const struct setup *setup)
{
    return setup->received - setup->consumed;
}

static void handshake_append(struct setup *setup, size_t size)
{
    assert(setup->out_used + size <= SETUP_OUT_SIZE);
    setup->out_used += (uint32_t)size;
}

static uint8_t *out_at(struct setup *setup)
{
    return setup->out + setup->out_used;
}

static size_t out_room(const struct setup *setup)
{
    return SETUP_OUT_SIZE - setup->out_used;
}

/* --- the request is known --- */

/* Contract sections 2.4, 2.5 and 2.7: HTTP always asks by name, the others by what the client, or the option, gave. */
static enum route_callback handshake_callback(const struct session *s, const struct setup *setup)
{
    bool http = s->protocol == PROTOCOL_HTTP_CONNECT || s->protocol == PROTOCOL_HTTP_PLAIN;
    if (http || setup->by_name) return ROUTE_BY_NAME;
    switch ((enum address_kind)setup->target.kind) {
    case ADDRESS_IPV4: return ROUTE_BY_IPV4;
    case ADDRESS_IPV6: return ROUTE_BY_IPV6;
    default: return ROUTE_BY_NAME;
    }
}

static enum session_state handshake_route(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct route_request *route = &setup->route;
    uint32_t revision = atomic_load_explicit(w->revision, memory_order_acquire);
    counter_add(&w->stats.requests, 1);
    setup->request_complete = true;
    setup->revision = revision; /* also of the questions behind tries: it is the same run of the same callback */
    route->target = setup->target;
    route->credentials = &setup->credentials;
    route->callback = (uint8_t)handshake_callback(s, setup);
    route->failure = FAIL_NONE;
    /* A name that no host can have: a ruleset is not asked what it means. Forwarders may leave the target to one. */
    bool open = s->protocol == PROTOCOL_FORWARD && revision > 0;
    if (setup->target.kind == ADDRESS_NONE && !open) return session_fail(w, s, FAIL_RESOLVE);
    if (self_came_back(w, s)) return session_fail(w, s, FAIL_LOOP);
    if (revision == 0) {
        route_decide_builtin(route, w->config->hops, (uint8_t)w->config->hop_count);
        return handshake_obey(w, s);
    }
    if (verdicts_find(&w->verdicts, route, revision, ring_now_ms(w->ring))) {
        counter_add(&w->stats.routes_remembered, 1);
        return handshake_obey(w, s);
    }
    setup->asking = true;
    handshake_ask(w, s);
    return SESSION_ROUTE;
}

/* With nothing left of an earlier attempt, and room in the queue. Else the next completion, or the timer, tries again.
 */
void handshake_ask(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    assert(setup->asking);
    if (session_upstream_is_busy(s)) return;
    setup->asked_us = ring_now_us(w->ring);
    setup->asking = !session_ask_route(w, s);
}

/* The ruleset said no. If it has tried before and given up, the client learns what went wrong, and the contract's
 * counters call it a rejection all the same. Readers subtract: a failure is counted before it is called one of the
 * ruleset's. */
static enum session_state handshake_reject(struct worker *w, struct session *s, enum failure tried)
{
    enum session_state next = session_fail(w, s, tried == FAIL_NONE ? FAIL_REJECTED : tried);
    if (failure_is_upstream(tried)) counter_add(&w->stats.gave_up, 1);
    return next;
}

/* The verdict is there. Without a ruleset it never left the worker. */
enum session_state handshake_obey(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    const struct route_verdict *verdict = &setup->route.verdict;
    if (verdict->order == ROUTE_UNAUTHORIZED) return session_fail(w, s, FAIL_AUTH);
    if (verdict->order == ROUTE_REJECT) return handshake_reject(w, s, (enum failure)setup->route.failure);
    s->rule = verdict->rule;
    s->hops = verdict->hop_count;
    setup->trial = verdict->order == ROUTE_TRY;
    setup->dialled_us = ring_now_us(w->ring);
    return dial_begin(w, s);
}

/* In ROUTE: the last of what an earlier attempt had in flight is back, or the answer is. */
enum session_state handshake_route_step(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->op != SESSION_LENT) {
        if (setup->asking) handshake_ask(w, s);
        return SESSION_ROUTE;
    }
    histogram_add(&w->stats.decision, ring_now_us(w->ring) - setup->asked_us);
    if (s->result < 0) return session_fail(w, s, FAIL_REJECTED);
    verdicts_keep(&w->verdicts, &setup->route, setup->revision, ring_now_ms(w->ring));
    return handshake_obey(w, s);
}

static enum session_state handshake_transparent(struct worker *w, struct session *s)
{
    struct net_address local;
    if (net_local_address(s->fd[CLIENT], &local) < 0 || !net_address_to(&local, &setup_of(w, s)->target))
        return session_fail(w, s, FAIL_INTERNAL);
    return handshake_route(w, s);
}

enum session_state handshake_begin(struct worker *w, struct session *s)
{
    const struct listener_config *listener = &w->config->listeners[s->listener];
    switch (listener->kind) {
    case LISTENER_FORWARD:
        s->protocol = PROTOCOL_FORWARD;
        setup_of(w, s)->target = listener->forward;
        return handshake_route(w, s);
    case LISTENER_TPROXY: s->protocol = PROTOCOL_TPROXY; return handshake_transparent(w, s);
    default: return SESSION_HELLO;
    }
}

/* --- who may come in --- */

/* By the settings, or by the word of the ruleset that is in force. */
static bool wants_credentials(const struct worker *w)
{
    uint32_t revision = atomic_load_explicit(w->revision, memory_order_acquire);
    return w->config->auth_required || (revision & ROUTE_REVISION_AUTH) != 0;
}

static enum session_state handshake_admit(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    handshake_append(setup, socks5_write_auth_status(out_at(setup), out_room(setup), true));
    session_flush(w, s);
    return SESSION_REQUEST;
}

static enum session_state handshake_judge_login(struct worker *w, struct session *s)
{
    struct route_request *route = &setup_of(w, s)->route;
    if (route->verdict.order == ROUTE_UNAUTHORIZED) return session_fail(w, s, FAIL_AUTH);
    if (route->verdict.order != ROUTE_ACCEPT) return session_fail(w, s, FAIL_REJECTED);
    route->admitted = true;
    return handshake_admit(w, s);
}

/* RFC 1929 answers before the client says where to: so the ruleset is asked about user and password alone. One that
 * has no word on them lets everybody pass, and judges with the request. */
static enum session_state handshake_login(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct route_request *route = &setup->route;
    uint32_t revision = atomic_load_explicit(w->revision, memory_order_acquire);
    if (revision == 0 || !wants_credentials(w)) return handshake_admit(w, s);
    setup->revision = revision;
    route->target = (struct address){.kind = ADDRESS_NONE};
    route->credentials = &setup->credentials;
    route->callback = ROUTE_BY_LOGIN;
    route->failure = FAIL_NONE;
    if (verdicts_find(&w->verdicts, route, revision, ring_now_ms(w->ring))) {
        counter_add(&w->stats.routes_remembered, 1);
        return handshake_judge_login(w, s);
    }
    setup->asking = true;
    handshake_ask(w, s);
    return SESSION_LOGIN;
}

enum session_state handshake_login_step(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->op != SESSION_LENT) {
        if (setup->asking) handshake_ask(w, s);
        return SESSION_LOGIN;
    }
    histogram_add(&w->stats.decision, ring_now_us(w->ring) - setup->asked_us);
    if (s->result < 0) return session_fail(w, s, FAIL_REJECTED);
    verdicts_keep(&w->verdicts, &setup->route, setup->revision, ring_now_ms(w->ring));
    return handshake_judge_login(w, s);
}

/* --- SOCKS4 --- */

static enum session_state hello_socks4(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct socks4_request request;
    size_t used;
    switch (socks4_parse_request(head_at(setup), head_left(setup), &request, &used)) {
    case PARSE_MORE: return SESSION_HELLO;
    case PARSE_OK: break;
    default: return session_fail(w, s, FAIL_SYNTAX);
    }
    setup->consumed += (uint32_t)used;
    setup->target = request.target;
    memcpy(setup->credentials.user, request.user, sizeof request.user);
    setup->credentials.password[0] = '\0';
    setup->credentials.present = setup->credentials.user_only = true;
    setup->by_name = request.by_name;
    if (!request.user[0] && wants_credentials(w)) return session_fail(w, s, FAIL_AUTH_METHOD);
    if (request.command != SOCKS4_CONNECT) return session_fail(w, s, FAIL_COMMAND);
    return handshake_route(w, s);
}

/* --- SOCKS5 --- */

static enum session_state hello_socks5(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    uint8_t method;
    size_t used;
    switch (socks5_parse_greeting(head_at(setup), head_left(setup), wants_credentials(w), &method, &used)) {
    case PARSE_MORE: return SESSION_HELLO;
    case PARSE_OK: break;
    default: return session_fail(w, s, FAIL_SYNTAX);
    }
    setup->consumed += (uint32_t)used;
    if (method == SOCKS5_METHOD_UNACCEPTABLE) return session_fail(w, s, FAIL_AUTH_METHOD);
    handshake_append(setup, socks5_write_method(out_at(setup), out_room(setup), method));
    session_flush(w, s);
    return method == SOCKS5_METHOD_PASSWORD ? SESSION_AUTH : SESSION_REQUEST;
}

/* Whether the pair is right is for the ruleset to say; here it only has to be whole. */
enum session_state handshake_auth_step(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    size_t used;
    switch (socks5_parse_auth(head_at(setup), head_left(setup), &setup->credentials, &used)) {
    case PARSE_MORE: return SESSION_AUTH;
    case PARSE_OK: break;
    default: return session_fail(w, s, FAIL_SYNTAX);
    }
    setup->consumed += (uint32_t)used;
    if (!setup->credentials.user[0] || !setup->credentials.password[0]) return session_fail(w, s, FAIL_AUTH);
    return handshake_login(w, s);
}

enum session_state handshake_request_step(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct socks5_request request;
    size_t used;
    switch (socks5_parse_request(head_at(setup), head_left(setup), &request, &used)) {
    case PARSE_MORE: return SESSION_REQUEST;
    case PARSE_OK: break;
    case PARSE_UNSUPPORTED: return session_fail(w, s, FAIL_ADDRESS_TYPE);
    default: return session_fail(w, s, FAIL_VERSION); /* the only way to be malformed */
    }
    setup->consumed += (uint32_t)used;
    setup->target = request.target;
    setup->by_name = request.by_name;
    s->command = request.command;
    if (request.command == SOCKS5_CONNECT) return handshake_route(w, s);
    if (w->config->hop_count > 0) return session_fail(w, s, FAIL_COMMAND); /* no chain can carry the others */
    if (request.command == SOCKS5_BIND && w->config->socks5_bind) return bind_begin(w, s);
    if (request.command == SOCKS5_UDP_ASSOCIATE && w->config->socks5_udp) return udp_begin(w, s);
    return session_fail(w, s, FAIL_COMMAND);
}

/* --- HTTP --- */

static enum session_state hello_http_connect(struct worker *w, struct session *s, const struct http_head *head)
{
    struct setup *setup = setup_of(w, s);
    unsigned status = http_connect_judge(setup->head.data, head, &setup->target);
    s->protocol = PROTOCOL_HTTP_CONNECT;
    if (status != 0) return session_fail(w, s, status == 413 ? FAIL_TOO_LARGE : FAIL_SYNTAX);
    return handshake_route(w, s);
}

/* The target must be known now; everything else of the head is read again when the upstream is there (exchange.c). */
static enum session_state hello_http_plain(struct worker *w, struct session *s, const struct http_head *head)
{
    struct setup *setup = setup_of(w, s);
    struct http_forward_request request;
    unsigned status = http_forward_judge(setup->head.data, head, &request);
    if (status != 0) return session_fail(w, s, status == 413 ? FAIL_TOO_LARGE : FAIL_SYNTAX);
    setup->target = request.target;
    return handshake_route(w, s);
}

/* The head goes on, in a larger buffer if it has to. */
static enum session_state hello_http_more(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    bool full = setup->received == setup->head.size;
    if (full && !head_buffer_grow(w, &setup->head, setup->received, true)) return session_fail(w, s, FAIL_RESOURCE);
    return SESSION_HELLO;
}

static enum session_state hello_http_too_large(struct worker *w, struct session *s)
{
    const struct setup *setup = setup_of(w, s);
    bool line = http_status_too_large(setup->head.data, setup->received) == 414;
    return session_fail(w, s, line ? FAIL_LINE_TOO_LONG : FAIL_HEAD_TOO_LARGE);
}

static enum session_state hello_http(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    const uint8_t *data = setup->head.data;
    struct http_head head;
    size_t used;
    switch (http_parse_request(data, setup->received, &setup->scanned, &head, &used)) {
    case PARSE_MORE: return hello_http_more(w, s);
    case PARSE_OK: break;
    case PARSE_TOO_LARGE: return hello_http_too_large(w, s);
    default: return session_fail(w, s, FAIL_SYNTAX);
    }
    setup->consumed = (uint32_t)used;
    enum http_auth_result auth = http_parse_proxy_authorization(data, &head, &setup->credentials);
    if (auth != HTTP_AUTH_OK && wants_credentials(w)) /* most clients give them when they are asked to */
        return session_fail(w, s, auth == HTTP_AUTH_BAD ? FAIL_AUTH : FAIL_AUTH_METHOD);
    if (auth == HTTP_AUTH_BAD) return session_fail(w, s, FAIL_SYNTAX);
    if (http_span_equals(data, head.method, "CONNECT")) return hello_http_connect(w, s, &head);
    return hello_http_plain(w, s, &head);
}

/* --- the first octet tells --- */

static enum session_protocol handshake_detect(const struct worker *w, const struct session *s, uint8_t first)
{
    bool any = w->config->listeners[s->listener].kind == LISTENER_AUTO;
    if (any && first == SOCKS4_VERSION) return PROTOCOL_SOCKS4;
    if (any && first == SOCKS5_VERSION) return PROTOCOL_SOCKS5;
    /* A method is a token; one empty line before it is tolerated (RFC 9112 section 2.2). */
    if (first > 0x20 && first < 0x7f) return PROTOCOL_HTTP_PLAIN;
    return first == '\r' || first == '\n' ? PROTOCOL_HTTP_PLAIN : PROTOCOL_UNKNOWN;
}

enum session_state handshake_hello_step(struct worker *w, struct session *s)
{
    if (s->protocol == PROTOCOL_UNKNOWN) s->protocol = (uint8_t)handshake_detect(w, s, setup_of(w, s)->head.data[0]);
    switch ((enum session_protocol)s->protocol) {
    case PROTOCOL_SOCKS4: return hello_socks4(w, s);
    case PROTOCOL_SOCKS5: return hello_socks5(w, s);
    case PROTOCOL_HTTP_CONNECT:
    case PROTOCOL_HTTP_PLAIN: return hello_http(w, s);
    default: return session_fail(w, s, FAIL_VERSION);
    }
}

/* --- replies --- */

void handshake_append_reply(struct worker *w, struct session *s, const struct address *bound)
{
    struct setup *setup = setup_of(w, s);
    handshake_append(setup, socks5_write_reply(out_at(setup), out_room(setup), SOCKS5_SUCCEEDED, bound));
}

static size_t established_socks5(struct session *s, uint8_t *out, size_t size)
{
    struct net_address local;
    struct address bound = {.kind = ADDRESS_NONE};
    if (net_local_address(s->fd[UPSTREAM], &local) >= 0) net_address_to(&local, &bound);
    return socks5_write_reply(out, size, SOCKS5_SUCCEEDED, &bound);
}

/* See struct dial_errand. */
static size_t internal_write(uint8_t *out, enum failure failure)
{
    *out = (uint8_t)failure;
    return 1;
}

enum session_state handshake_established(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    size_t size = 0;
    switch ((enum session_protocol)s->protocol) {
    case PROTOCOL_SOCKS4: size = socks4_write_reply(out_at(setup), out_room(setup), SOCKS4_GRANTED); break;
    case PROTOCOL_SOCKS5: size = established_socks5(s, out_at(setup), out_room(setup)); break;
    case PROTOCOL_HTTP_CONNECT: size = http_write_established(out_at(setup), out_room(setup)); break;
    case PROTOCOL_INTERNAL: size = internal_write(out_at(setup), FAIL_NONE); break;
    default: break;
    }
    if (s->protocol == PROTOCOL_HTTP_PLAIN) {
        if (!exchange_take(w, s)) return session_fail(w, s, FAIL_RESOURCE);
    }
    handshake_append(setup, size);
    if (s->protocol != PROTOCOL_INTERNAL) histogram_add(&w->stats.connect, ring_now_us(w->ring) - setup->dialled_us);
    session_report_trial(w, s, 0);
    session_log(w, s, LOG_LEVEL_DEBUG, "connected");
    return s->protocol == PROTOCOL_HTTP_PLAIN ? SESSION_EXCHANGE : SESSION_RELAY;
}

/* When nobody has connected, the client is told once more where that would have been. */
static size_t refusal_bind(const struct session *s, uint8_t *out, size_t size, uint8_t code)
{
    struct address listening;
    bool listens = code == SOCKS5_TTL_EXPIRED && bind_listener_address(s, &listening);
    return socks5_write_reply(out, size, code, listens ? &listening : NULL);
}

static size_t refusal_socks5(const struct session *s, uint8_t *out, size_t size, enum failure failure)
{
    uint8_t code = failure_row(failure)->socks5;
    switch ((enum session_state)s->state) {
    case SESSION_HELLO:
        return failure == FAIL_AUTH_METHOD ? socks5_write_method(out, size, SOCKS5_METHOD_UNACCEPTABLE) : 0;
    case SESSION_AUTH: return failure == FAIL_AUTH ? socks5_write_auth_status(out, size, false) : 0;
    case SESSION_LOGIN: return code == 0 ? 0 : socks5_write_auth_status(out, size, false);
    case SESSION_BIND: return refusal_bind(s, out, size, code);
    default: return code == 0 ? 0 : socks5_write_reply(out, size, code, NULL);
    }
}

static size_t refusal_http(uint8_t *out, size_t size, enum failure failure)
{
    unsigned status = failure_row(failure)->http;
    if (status == 0) return 0;
    const struct failure_page *page = failure_page(failure);
    return http_write_error(out, size, &(struct http_error){status, page->error, page->sentence}, time(NULL));
}

bool handshake_write_refusal(struct worker *w, struct session *s, enum failure failure)
{
    struct setup *setup = setup_of(w, s);
    const struct failure_row *row = failure_row(failure);
    size_t size = 0;
    switch ((enum session_protocol)s->protocol) {
    case PROTOCOL_SOCKS4:
        if (row->socks4) size = socks4_write_reply(out_at(setup), out_room(setup), row->socks4);
        break;
    case PROTOCOL_SOCKS5: size = refusal_socks5(s, out_at(setup), out_room(setup), failure); break;
    case PROTOCOL_HTTP_CONNECT:
    case PROTOCOL_HTTP_PLAIN: size = refusal_http(out_at(setup), out_room(setup), failure); break;
    case PROTOCOL_INTERNAL: size = internal_write(out_at(setup), failure); break;
    default: break;
    }
    handshake_append(setup, size);
    return size > 0;
}
