#include "core/session/announce.h"

#include <errno.h>
#include <stdio.h>

#include "core/io/net.h"
#include "core/session/end.h"
#include "core/session/established.h"
#include "core/session/worker.h"
#include "protocols/proxy_header.h"

unsigned announce_version(const struct worker *w, const struct session *s)
{
    const struct route_verdict *verdict = &setup_of(w, s)->route.verdict;
    if (route_has_header(verdict)) return verdict->proxy_protocol;
    bool listener = s->protocol == PROTOCOL_FORWARD && verdict->proxy_protocol == ROUTE_HEADER_UNSAID;
    return listener ? w->config->listeners[s->listener].send_proxy : 0;
}

/* Where the client believes to be: what a header told us, or our own end of its connection. */
static struct host_port announce_local(const struct session *s)
{
    struct net_address raw;
    struct address local = {.kind = ADDRESS_NONE};
    if (s->reached.kind != ADDRESS_NONE) return s->reached;
    if (net_local_address(s->fd[CLIENT], &raw) < 0 || !net_address_to(&raw, &local)) local.kind = ADDRESS_NONE;
    return host_port_of(&local);
}

static size_t announce_write(const struct worker *w, const struct session *s, uint8_t *out, size_t size)
{
    const struct setup *setup = setup_of(w, s);
    const struct proxy_header header = {.client = s->client, .local = announce_local(s)};
    char id[SESSION_ID_SIZE];
    session_format_id(w, s, id);
    const struct proxy_header_facts facts = {
        .authority = setup->target.kind == ADDRESS_NAME ? setup->target.name : NULL,
        .unique_id = id,
        .user = setup->credentials.present ? setup->credentials.user : NULL,
    };
    return proxy_header_write(out, size, announce_version(w, s), &header, &facts);
}

enum session_state announce_begin(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (announce_version(w, s) == 0) return established_begin(w, s);
    static_assert(sizeof setup->hop_out >= PROXY_HEADER_WRITTEN_SIZE_MAX, "a header fits");
    size_t size = announce_write(w, s, setup->hop_out, sizeof setup->hop_out);
    setup->hop_sending = (uint16_t)size;
    ring_send(w->ring, s->fd[UPSTREAM], setup->hop_out, size, session_arm(w, s, SESSION_SEND + UPSTREAM));
    return SESSION_ANNOUNCE;
}

enum session_state announce_step(struct worker *w, struct session *s)
{
    if (s->op != SESSION_SEND + UPSTREAM) return SESSION_ANNOUNCE;
    if (s->result < 0) return session_fail(w, s, failure_from_errno(s->result));
    /* An error has cut it, and that was the only notice: the relay would find what looks like an orderly end. */
    if (s->result < (int32_t)setup_of(w, s)->hop_sending) return session_fail(w, s, failure_from_errno(-ECONNRESET));
    return established_begin(w, s);
}
