#include "core/session/hop.h"

#include <string.h>

#include "core/io/net.h"
#include "core/session/announce.h"
#include "core/session/end.h"
#include "core/session/reply.h"
#include "core/session/self.h"
#include "core/session/session.h"
#include "core/session/udp_chain.h"
#include "core/session/worker.h"
#include "protocols/http_connect.h"
#include "protocols/socks4.h"

static enum session_state hop_parse(struct worker *w, struct session *s);

static const struct proxy_uri *hop_now(const struct setup *setup)
{
    return &setup->route.verdict.hops[setup->hop];
}

/* Where the proxy that is talked to now shall connect to: the next proxy, or the target. */
static const struct address *hop_target(const struct setup *setup)
{
    const struct route_verdict *verdict = &setup->route.verdict;
    unsigned next = setup->hop + 1u;
    return next < verdict->hop_count ? &verdict->hops[next].address : &verdict->target;
}

static bool hop_is_last(const struct setup *setup)
{
    return setup->hop + 1u == setup->route.verdict.hop_count;
}

/* What the proxy that is talked to now is asked for. */
static uint8_t hop_command(const struct session *s, const struct setup *setup)
{
    return hop_is_last(setup) ? s->command : SOCKS5_CONNECT;
}

static bool hop_has_user(const struct proxy_uri *proxy)
{
    return proxy->credentials.present && proxy->credentials.user[0] != '\0';
}

static size_t hop_write(const struct session *s, const struct setup *setup, uint8_t *out, size_t size)
{
    const struct proxy_uri *proxy = hop_now(setup);
    const struct credentials *credentials = &proxy->credentials;
    switch (proxy->scheme) {
    case PROXY_HTTP: return http_write_connect(out, size, hop_target(setup), credentials);
    case PROXY_SOCKS4A:
        return socks4_write_request(out, size, hop_target(setup), credentials->present ? credentials->user : "");
    case PROXY_SOCKS5: break;
    }
    switch ((enum hop_stage)setup->hop_stage) {
    case HOP_METHOD: return socks5_write_greeting(out, size, hop_has_user(proxy));
    case HOP_AUTH: return socks5_write_auth(out, size, credentials);
    case HOP_REPLY:
    case HOP_PEER: break;
    }
    return socks5_write_request(out, size, hop_command(s, setup), hop_target(setup));
}

static void hop_receive(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    uint32_t room = setup->hop_in.size - setup->hop_received;
    assert(room > 0);
    ring_recv(w->ring, s->fd[UPSTREAM], setup->hop_in.data + setup->hop_received,
              room < SETUP_HOP_SIZE ? room : SETUP_HOP_SIZE, session_arm(w, s, SESSION_RECV + UPSTREAM));
}

static enum session_state hop_send(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    size_t size = hop_write(s, setup, setup->hop_out, sizeof setup->hop_out);
    if (size == 0) return session_fail(w, s, FAIL_RESOLVE); /* a target that this proxy's protocol has no form for */
    setup->hop_sending = (uint16_t)size;
    ring_send(w->ring, s->fd[UPSTREAM], setup->hop_out, size, session_arm(w, s, SESSION_SEND + UPSTREAM));
    if (setup->hop_received == 0) hop_receive(w, s);
    return SESSION_HOP;
}

static enum session_state hop_greet(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    setup->refused = false;
    setup->hop_stage = hop_now(setup)->scheme == PROXY_SOCKS5 ? HOP_METHOD : HOP_REPLY;
    return hop_send(w, s);
}

enum session_state hop_begin(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    assert(setup->route.verdict.hop_count > 0);
    enum failure refused = self_forbids_behind_chain(w, s);
    if (refused != FAIL_NONE) return session_fail(w, s, refused);
    setup->hop = 0;
    return hop_greet(w, s);
}

/* --- what a proxy answered --- */

static enum failure hop_failure_socks5(uint8_t code, uint8_t command)
{
    if (code == SOCKS5_COMMAND_NOT_SUPPORTED && command != SOCKS5_CONNECT) return FAIL_PROXY_COMMAND;
    switch (code) {
    case SOCKS5_NOT_ALLOWED: return FAIL_PROXY_REJECTED;
    case SOCKS5_NETWORK_UNREACHABLE: return FAIL_PROXY_NETWORK;
    case SOCKS5_HOST_UNREACHABLE: return FAIL_PROXY_HOST;
    case SOCKS5_CONNECTION_REFUSED: return FAIL_PROXY_REFUSED;
    case SOCKS5_TTL_EXPIRED: return FAIL_PROXY_TTL;
    default: return FAIL_PROXY_PROTOCOL;
    }
}

static enum failure hop_failure_http(unsigned status)
{
    switch (status) {
    case 403: return FAIL_PROXY_REJECTED;
    case 407: return FAIL_PROXY_AUTH;
    case 502:
    case 503: return FAIL_PROXY_REFUSED;
    case 504: return FAIL_PROXY_HOST;
    default: return FAIL_PROXY_PROTOCOL;
    }
}

/* What one look at the received octets gave. */
struct hop_progress {
    enum parse_result parsed;
    size_t used;
    enum failure failure;
    bool finished;        /* this proxy has done what it was asked for; else its next stage follows */
    struct address bound; /* SOCKS5: what its reply names */
};

static void hop_read_socks4(struct setup *setup, struct hop_progress *p)
{
    uint8_t code = 0;
    p->parsed = socks4_parse_reply(setup->hop_in.data, setup->hop_received, &code, &p->used);
    if (p->parsed != PARSE_OK) return;
    p->finished = true;
    if (code == SOCKS4_REJECTED)
        p->failure = FAIL_PROXY_REFUSED;
    else if (code != SOCKS4_GRANTED)
        p->failure = FAIL_PROXY_PROTOCOL;
}

static void hop_read_http(struct setup *setup, struct hop_progress *p)
{
    struct http_head head;
    p->parsed = http_parse_response(setup->hop_in.data, setup->hop_received, &setup->hop_scanned, &head, &p->used);
    if (p->parsed != PARSE_OK) return;
    p->finished = head.status >= 200; /* interim answers are skipped */
    if (p->finished && head.status > 299) p->failure = hop_failure_http(head.status);
}

static void hop_read_method(struct setup *setup, struct hop_progress *p)
{
    uint8_t method = 0;
    p->parsed = socks5_parse_method(setup->hop_in.data, setup->hop_received, &method, &p->used);
    if (p->parsed != PARSE_OK) return;
    if (method == SOCKS5_METHOD_NONE)
        setup->hop_stage = HOP_REPLY;
    else if (method == SOCKS5_METHOD_PASSWORD && hop_has_user(hop_now(setup)))
        setup->hop_stage = HOP_AUTH;
    else
        p->failure = method == SOCKS5_METHOD_UNACCEPTABLE ? FAIL_PROXY_AUTH : FAIL_PROXY_PROTOCOL;
}

static void hop_read_auth(struct setup *setup, struct hop_progress *p)
{
    bool granted = false;
    p->parsed = socks5_parse_auth_status(setup->hop_in.data, setup->hop_received, &granted, &p->used);
    if (p->parsed != PARSE_OK) return;
    setup->hop_stage = HOP_REPLY;
    if (!granted) p->failure = FAIL_PROXY_AUTH;
}

static void hop_read_reply(const struct session *s, struct setup *setup, struct hop_progress *p)
{
    uint8_t code = 0;
    p->parsed = socks5_parse_reply(setup->hop_in.data, setup->hop_received, &code, &p->bound, &p->used);
    if (p->parsed != PARSE_OK) return;
    p->finished = true;
    if (code != SOCKS5_SUCCEEDED) p->failure = hop_failure_socks5(code, hop_command(s, setup));
}

static void hop_read(const struct session *s, struct setup *setup, struct hop_progress *p)
{
    switch (hop_now(setup)->scheme) {
    case PROXY_SOCKS4A: hop_read_socks4(setup, p); return;
    case PROXY_HTTP: hop_read_http(setup, p); return;
    case PROXY_SOCKS5: break;
    }
    switch ((enum hop_stage)setup->hop_stage) {
    case HOP_METHOD: hop_read_method(setup, p); return;
    case HOP_AUTH: hop_read_auth(setup, p); return;
    case HOP_REPLY:
    case HOP_PEER: hop_read_reply(s, setup, p); return;
    }
}

static void hop_consume(struct setup *setup, size_t used)
{
    assert(used <= setup->hop_received);
    setup->hop_scanned = 0;
    setup->hop_received -= (uint32_t)used;
    memmove(setup->hop_in.data, setup->hop_in.data + used, setup->hop_received);
}

/* --- BIND at the last proxy --- */

/* A proxy that names no address listens on the one by which it is reached. That of the first one is known; others are
 * called what the chain calls them, which may be a name. */
static void hop_complete_address(const struct session *s, const struct setup *setup, struct address *bound)
{
    struct net_address raw;
    struct address peer = hop_now(setup)->address;
    uint16_t port = bound->port;
    if (bound->kind != ADDRESS_NONE && (bound->kind == ADDRESS_NAME || !address_is_any_host(bound))) return;
    if (setup->hop == 0 && net_peer_address(s->fd[UPSTREAM], &raw) >= 0) net_address_to(&raw, &peer);
    *bound = peer;
    bound->port = port;
}

/* The last proxy listens: from here on the client waits for its peer, and may leave. */
static enum session_state hop_tell_bound(struct worker *w, struct session *s, struct address *bound)
{
    struct setup *setup = setup_of(w, s);
    hop_complete_address(s, setup, bound);
    session_report_trial(w, s, 0);
    reply_append_address(w, s, bound);
    session_flush(w, s);
    setup->hop_stage = HOP_PEER;
    if (setup->hop_received > 0) return hop_parse(w, s);
    hop_receive(w, s);
    return SESSION_HOP;
}

/* The last proxy of a control has an association for us. */
static enum session_state hop_agree(struct worker *w, struct session *s, struct address *bound)
{
    hop_complete_address(s, setup_of(w, s), bound);
    return udp_chain_agree(w, s, bound);
}

/* Only an HTTP head may be longer than the small buffer; its parser says when it is too long. */
static enum session_state hop_go_on(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    bool full = setup->hop_received == setup->hop_in.size;
    if (full && !head_buffer_grow(w, &setup->hop_in, setup->hop_received, false))
        return session_fail(w, s, FAIL_RESOURCE);
    hop_receive(w, s);
    return SESSION_HOP;
}

static enum session_state hop_parse(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    uint8_t stage = setup->hop_stage;
    struct hop_progress p = {.parsed = PARSE_MORE, .failure = FAIL_NONE};
    hop_read(s, setup, &p);
    if (p.parsed == PARSE_MORE) return hop_go_on(w, s);
    if (p.parsed != PARSE_OK) return session_fail(w, s, FAIL_PROXY_PROTOCOL);
    hop_consume(setup, p.used);
    setup->refused = p.finished && p.failure != FAIL_NONE;
    if (p.failure != FAIL_NONE) return session_fail(w, s, p.failure);
    if (!p.finished) return stage == setup->hop_stage ? hop_parse(w, s) : hop_send(w, s);
    if (hop_command(s, setup) == SOCKS5_BIND && stage == HOP_REPLY) return hop_tell_bound(w, s, &p.bound);
    if (hop_is_last(setup) && s->protocol == PROTOCOL_CHAIN) return hop_agree(w, s, &p.bound);
    if (stage == HOP_PEER) setup->bound = p.bound;
    if (++setup->hop < setup->route.verdict.hop_count) return hop_greet(w, s);
    return announce_begin(w, s);
}

/* A receive and a send may be in flight together; an answer is looked at when what it answers is sent. */
enum session_state hop_step(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->op == SESSION_RECV + UPSTREAM) {
        if (s->result <= 0) return session_fail(w, s, FAIL_PROXY_CLOSED);
        setup->hop_received += (uint32_t)s->result;
        counter_add(&w->stats.hop_in, (uint64_t)s->result);
    } else if (s->op != SESSION_SEND + UPSTREAM) {
        return SESSION_HOP;
    } else {
        if (s->result > 0) counter_add(&w->stats.hop_out, (uint64_t)s->result);
        if (s->result < (int32_t)setup->hop_sending) return session_fail(w, s, FAIL_PROXY_CLOSED);
    }
    if (s->inflight & SESSION_BIT(SESSION_SEND + UPSTREAM) || setup->hop_received == 0) return SESSION_HOP;
    if (s->inflight & SESSION_BIT(SESSION_RECV + UPSTREAM)) return SESSION_HOP;
    return hop_parse(w, s);
}
