#include "core/session/handshake.h"

#include <string.h>

#include "core/io/net.h"
#include "core/session/access.h"
#include "core/session/end.h"
#include "core/session/limited.h"
#include "core/session/reply.h"
#include "core/session/route.h"
#include "core/session/self.h"
#include "core/session/session.h"
#include "core/session/udp.h"
#include "core/session/verify.h"
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

static enum session_state handshake_transparent(struct worker *w, struct session *s)
{
    struct net_address local;
    int error = net_local_address(s->fd[CLIENT], &local);
    if (error < 0) return session_fail(w, s, failure_from_errno(error));
    bool is_ip = net_address_to(&local, &setup_of(w, s)->target);
    assert(is_ip); /* config_check() lets --tproxy listen on nothing else */
    (void)is_ip;
    return route_begin(w, s);
}

enum session_state handshake_begin(struct worker *w, struct session *s)
{
    const struct listener_config *listener = &w->config->listeners[s->listener];
    switch (listener->kind) {
    case LISTENER_FORWARD:
        s->protocol = PROTOCOL_FORWARD;
        setup_of(w, s)->target = listener->forward;
        return route_begin(w, s);
    case LISTENER_TPROXY: s->protocol = PROTOCOL_TPROXY; return handshake_transparent(w, s);
    default: return SESSION_HELLO;
    }
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
    bool named = request.user[0] && !verify_is_due(w, s); /* its name comes without a proof */
    if (!named && route_knows_client(w, s)) return session_fail(w, s, FAIL_AUTH_METHOD);
    if (request.command != SOCKS4_CONNECT) return session_fail(w, s, FAIL_COMMAND);
    return route_begin(w, s);
}

/* --- SOCKS5 --- */

static enum session_state hello_socks5(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    uint8_t method;
    size_t used;
    switch (socks5_parse_greeting(head_at(setup), head_left(setup), route_knows_client(w, s), &method, &used)) {
    case PARSE_MORE: return SESSION_HELLO;
    case PARSE_OK: break;
    default: return session_fail(w, s, FAIL_SYNTAX);
    }
    setup->consumed += (uint32_t)used;
    if (method == SOCKS5_METHOD_UNACCEPTABLE) return session_fail(w, s, FAIL_AUTH_METHOD);
    reply_append_method(w, s, method);
    session_flush(w, s);
    return method == SOCKS5_METHOD_PASSWORD ? SESSION_AUTH : SESSION_REQUEST;
}

/* Whether the pair is right is for the listener's users, or the ruleset, to say; here it only has to be whole. */
enum session_state handshake_auth_step(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    size_t used;
    switch (socks5_parse_auth(head_at(setup), head_left(setup), &setup->credentials, &used)) {
    case PARSE_MORE: return SESSION_AUTH;
    case PARSE_OK: break;
    default: return session_fail(w, s, FAIL_SYNTAX);
    }
    explicit_bzero(setup->head.data + setup->consumed, used); /* as soon as the password has been judged it is gone */
    setup->consumed += (uint32_t)used;
    if (!setup->credentials.user[0] || !setup->credentials.password[0]) return session_fail(w, s, FAIL_AUTH);
    if (!verify_is_due(w, s)) return route_login(w, s);
    return verify_knows(w, s) ? route_admit(w, s) : verify_begin(w, s);
}

/* Not the request of an association but each of its datagrams is routed: it comes under its limits here. */
static enum session_state request_association(struct worker *w, struct session *s)
{
    access_on_request(w, s);
    enum failure failure = self_came_back(w, s) ? FAIL_LOOP : limited_admit_client(w, s);
    if (failure == FAIL_NONE) failure = limited_admit_request(w, s, route_knows_client(w, s), NULL, 0);
    if (failure == FAIL_NONE) return udp_begin(w, s);
    counter_add(&w->stats.requests, 1);
    return session_fail(w, s, failure);
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
    if (request.command == SOCKS5_CONNECT) return route_begin(w, s);
    if (request.command == SOCKS5_BIND && w->config->socks5_bind) return route_begin(w, s);
    if (request.command == SOCKS5_UDP_ASSOCIATE && w->config->socks5_udp) return request_association(w, s);
    return session_fail(w, s, FAIL_COMMAND);
}

/* --- HTTP --- */

static enum session_state hello_http_connect(struct worker *w, struct session *s, const struct http_head *head)
{
    struct setup *setup = setup_of(w, s);
    unsigned status = http_connect_judge(setup->head.data, head, &setup->target);
    s->protocol = PROTOCOL_HTTP_CONNECT;
    if (status != 0) return session_fail(w, s, status == 413 ? FAIL_TOO_LARGE : FAIL_SYNTAX);
    return route_begin(w, s);
}

static struct access_text text_of(const struct setup *setup, struct http_span span)
{
    return (struct access_text){(const char *)setup->head.data + span.at, span.size};
}

/* The target must be known now; everything else of the head is read again when the upstream is there (exchange.c). */
static enum session_state hello_http_plain(struct worker *w, struct session *s, const struct http_head *head)
{
    struct setup *setup = setup_of(w, s);
    struct http_forward_request request;
    unsigned status = http_forward_judge(setup->head.data, head, &request);
    if (status != 0) return session_fail(w, s, status == 413 ? FAIL_TOO_LARGE : FAIL_SYNTAX);
    setup->target = request.target;
    setup->repeatable = request.repeatable;
    access_on_http(w, s, text_of(setup, head->method), text_of(setup, http_forward_path(setup->head.data, head)));
    return route_begin(w, s);
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

static enum session_state hello_http_request(struct worker *w, struct session *s, const struct http_head *head)
{
    bool connect = http_span_equals(setup_of(w, s)->head.data, head->method, "CONNECT");
    return connect ? hello_http_connect(w, s, head) : hello_http_plain(w, s, head);
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
    if (auth != HTTP_AUTH_OK && route_knows_client(w, s)) /* most clients give them when they are asked to */
        return session_fail(w, s, auth == HTTP_AUTH_BAD ? FAIL_AUTH : FAIL_AUTH_METHOD);
    if (auth == HTTP_AUTH_BAD) return session_fail(w, s, FAIL_SYNTAX);
    if (!verify_is_due(w, s)) return hello_http_request(w, s, &head);
    http_hide_proxy_authorization(setup->head.data, &head);
    return verify_knows(w, s) ? hello_http_request(w, s, &head) : verify_begin(w, s);
}

/* Behind VERIFY: the head is read again, as it is when the upstream is there. */
static enum session_state hello_http_again(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct http_head head;
    size_t used, scanned = 0;
    enum parse_result parsed = http_parse_request(setup->head.data, setup->consumed, &scanned, &head, &used);
    assert(parsed == PARSE_OK && used == setup->consumed); /* hello_http() has seen it whole */
    (void)parsed;
    return hello_http_request(w, s, &head);
}

/* --- the word of the checkers (--users) --- */

enum session_state handshake_verify_step(struct worker *w, struct session *s)
{
    if (s->op != SESSION_ANSWER) return SESSION_VERIFY;
    enum failure failure = verify_finish(w, s);
    if (failure != FAIL_NONE) return session_fail(w, s, failure);
    return s->protocol == PROTOCOL_SOCKS5 ? route_admit(w, s) : hello_http_again(w, s);
}

/* --- the first octet tells --- */

static enum session_protocol handshake_detect(const struct worker *w, const struct session *s, uint8_t first)
{
    enum listener_kind kind = w->config->listeners[s->listener].kind;
    if (kind != LISTENER_HTTP && first == SOCKS4_VERSION) return PROTOCOL_SOCKS4;
    if (kind != LISTENER_HTTP && first == SOCKS5_VERSION) return PROTOCOL_SOCKS5;
    if (kind == LISTENER_SOCKS) return PROTOCOL_UNKNOWN;
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
