#include "core/session/reply.h"

#include <time.h>

#include "core/io/net.h"
#include "core/session/session.h"
#include "core/session/worker.h"
#include "protocols/http_connect.h"
#include "protocols/socks4.h"

static uint8_t *out_at(struct setup *setup)
{
    return setup->out + setup->out_used;
}

static size_t out_room(const struct setup *setup)
{
    return SETUP_OUT_SIZE - setup->out_used;
}

static void reply_append(struct setup *setup, size_t size)
{
    assert(setup->out_used + size <= SETUP_OUT_SIZE);
    setup->out_used += (uint32_t)size;
}

/* --- success --- */

void reply_append_method(struct worker *w, struct session *s, uint8_t method)
{
    struct setup *setup = setup_of(w, s);
    reply_append(setup, socks5_write_method(out_at(setup), out_room(setup), method));
}

void reply_append_admission(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    reply_append(setup, socks5_write_auth_status(out_at(setup), out_room(setup), true));
}

void reply_append_address(struct worker *w, struct session *s, const struct address *bound)
{
    struct setup *setup = setup_of(w, s);
    reply_append(setup, socks5_write_reply(out_at(setup), out_room(setup), SOCKS5_SUCCEEDED, bound));
}

static size_t success_socks5(const struct setup *setup, const struct session *s, uint8_t *out, size_t size)
{
    struct net_address local;
    struct address bound = setup->bound;
    if (bound.kind == ADDRESS_NONE && net_local_address(s->fd[UPSTREAM], &local) >= 0) net_address_to(&local, &bound);
    return socks5_write_reply(out, size, SOCKS5_SUCCEEDED, &bound);
}

/* See struct dial_errand. */
static size_t internal_write(uint8_t *out, enum failure failure)
{
    *out = (uint8_t)failure;
    return 1;
}

void reply_append_success(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    size_t size = 0;
    switch ((enum session_protocol)s->protocol) {
    case PROTOCOL_SOCKS4: size = socks4_write_reply(out_at(setup), out_room(setup), SOCKS4_GRANTED); break;
    case PROTOCOL_SOCKS5: size = success_socks5(setup, s, out_at(setup), out_room(setup)); break;
    case PROTOCOL_HTTP_CONNECT: size = http_write_established(out_at(setup), out_room(setup)); break;
    case PROTOCOL_INTERNAL: size = internal_write(out_at(setup), FAIL_NONE); break;
    default: break;
    }
    reply_append(setup, size);
}

static const struct address *advertised(const struct advertise *advertise, uint8_t kind)
{
    const struct address *address = kind == ADDRESS_IPV4 ? &advertise->ipv4 : &advertise->ipv6;
    return address->kind == kind ? address : NULL;
}

void reply_advertise(const struct worker *w, const struct session *s, struct address *bound)
{
    uint16_t port = bound->port;
    const struct address *instead = advertised(&w->config->listeners[s->listener].advertise, bound->kind);
    if (!instead) instead = advertised(&w->config->advertise, bound->kind);
    if (!instead) return;
    *bound = *instead;
    bound->port = port;
}

bool reply_find_listener(const struct worker *w, const struct session *s, struct address *out)
{
    struct net_address local;
    if (s->fd[UPSTREAM] < 0 || net_local_address(s->fd[UPSTREAM], &local) < 0 || !net_address_to(&local, out))
        return false;
    uint16_t port = out->port;
    if (address_is_any_host(out) && (net_local_address(s->fd[CLIENT], &local) < 0 || !net_address_to(&local, out)))
        return false;
    out->port = port;
    reply_advertise(w, s, out);
    return true;
}

/* --- refusal --- */

/* When nobody has connected, the client is told once more where that would have been. */
static size_t refusal_bind(const struct worker *w, const struct session *s, uint8_t *out, size_t size, uint8_t code)
{
    struct address listening;
    bool listens = code == SOCKS5_TTL_EXPIRED && reply_find_listener(w, s, &listening);
    return socks5_write_reply(out, size, code, listens ? &listening : NULL);
}

static size_t refusal_socks5(const struct worker *w, const struct session *s, uint8_t *out, size_t size,
                             enum failure failure)
{
    uint8_t code = failure_row(failure)->socks5;
    switch ((enum session_state)s->state) {
    case SESSION_HELLO:
        return failure == FAIL_AUTH_METHOD ? socks5_write_method(out, size, SOCKS5_METHOD_UNACCEPTABLE) : 0;
    case SESSION_AUTH: return failure == FAIL_AUTH ? socks5_write_auth_status(out, size, false) : 0;
    case SESSION_VERIFY:
    case SESSION_LOGIN: return code == 0 ? 0 : socks5_write_auth_status(out, size, false);
    case SESSION_BIND: return refusal_bind(w, s, out, size, code);
    default: return code == 0 ? 0 : socks5_write_reply(out, size, code, NULL);
    }
}

static size_t refusal_http(const struct setup *setup, uint8_t *out, size_t size, enum failure failure)
{
    unsigned status = failure_row(failure)->http;
    if (status == 0) return 0;
    const struct failure_page *page = failure_page(failure);
    struct http_error error = {status, page->error, page->sentence, 0};
    if (failure == FAIL_LIMIT_RATE) error.retry_after_s = setup->retry_after_s;
    return http_write_error(out, size, &error, time(NULL));
}

bool reply_append_refusal(struct worker *w, struct session *s, enum failure failure)
{
    struct setup *setup = setup_of(w, s);
    const struct failure_row *row = failure_row(failure);
    size_t size = 0;
    switch ((enum session_protocol)s->protocol) {
    case PROTOCOL_SOCKS4:
        if (row->socks4) size = socks4_write_reply(out_at(setup), out_room(setup), row->socks4);
        break;
    case PROTOCOL_SOCKS5: size = refusal_socks5(w, s, out_at(setup), out_room(setup), failure); break;
    case PROTOCOL_HTTP_CONNECT:
    case PROTOCOL_HTTP_PLAIN: size = refusal_http(setup, out_at(setup), out_room(setup), failure); break;
    case PROTOCOL_INTERNAL: size = internal_write(out_at(setup), failure); break;
    default: break;
    }
    reply_append(setup, size);
    return size > 0;
}
