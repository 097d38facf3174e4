#include "core/session/origin.h"

#include <string.h>

#include "core/io/log.h"
#include "core/session/access.h"
#include "core/session/crowd.h"
#include "core/session/end.h"
#include "core/session/handshake.h"
#include "core/session/lists.h"
#include "core/session/newcomer.h"
#include "core/session/self.h"
#include "protocols/proxy_header.h"
#include "protocols/subnet.h"

static_assert(PROXY_HEADER_SIZE_MAX <= SETUP_HEAD_SIZE, "a header fits into the head of a setup slot");

/* --- whose connection it may be --- */

static bool is_proxy(const struct config_proxies *proxies, const struct host_port *peer)
{
    bool is_ipv6 = peer->kind == ADDRESS_IPV6;
    struct number number = number_of_octets(peer->octets, is_ipv6 ? 16 : 4);
    for (unsigned i = 0; i < proxies->count; i++) {
        struct number first = proxies->networks[i].first, mask = number_mask(proxies->networks[i].bits);
        if (proxies->networks[i].is_ipv6 != is_ipv6) continue;
        if ((number.high & mask.high) == first.high && (number.low & mask.low) == first.low) return true;
    }
    return false;
}

enum origin_kind origin_judge(const struct config_proxies *proxies, const struct host_port *peer)
{
    if (!config_has_proxies(proxies)) return ORIGIN_ITSELF;
    if (peer->kind == ADDRESS_NONE ? proxies->unix_sockets : is_proxy(proxies, peer)) return ORIGIN_BEHIND;
    return proxies->optional ? ORIGIN_ITSELF : ORIGIN_NOBODY;
}

/* --- the header --- */

/* It has not said yet which protocol's refusal it would understand, and may have sent more than we have read. */
static enum session_state origin_refuse(struct worker *w, struct session *s, enum failure failure)
{
    session_blame(w, s, failure);
    session_log(w, s, failure == FAIL_CLIENT_DENIED ? LOG_LEVEL_NOTICE : LOG_LEVEL_INFO, failure_row(failure)->word);
    session_close(w, s, SESSION_RESET);
    return SESSION_CLOSING;
}

/* What accept_judge() asks about other clients. */
static enum failure origin_admit(struct worker *w, struct session *s)
{
    struct address client = host_port_address(&s->client);
    uint32_t source;
    if (client.kind != ADDRESS_NONE && !lists_admit_client(w->config->lists, s->listener, &client))
        return FAIL_CLIENT_DENIED;
    if (!crowd_admits(w, &s->client, UINT64_MAX)) return FAIL_SHARE;
    if (!newcomer_admits(w->keys, &s->client, ring_now_us(w->ring), &source)) return FAIL_HALF_OPEN;
    s->source = source;
    crowd_take(w, s->setup);
    return FAIL_NONE;
}

enum session_state origin_step(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct proxy_header header;
    size_t used;
    switch (proxy_header_parse(setup->head.data, setup->received, &header, &used)) {
    case PARSE_MORE: return SESSION_ORIGIN;
    case PARSE_OK: break;
    default: return origin_refuse(w, s, FAIL_HEADER);
    }
    setup->received -= (uint32_t)used; /* what follows is the head, as it would be without the header */
    memmove(setup->head.data, setup->head.data + used, setup->received);
    if (self_came_back(w, s)) return origin_refuse(w, s, FAIL_LOOP); /* by its own address, which nobody knows later */
    if (header.client.kind != ADDRESS_NONE) {
        s->client = header.client;
        s->reached = header.local;
    }
    enum failure refused = origin_admit(w, s);
    return refused == FAIL_NONE ? handshake_begin(w, s) : origin_refuse(w, s, refused);
}
