#include "core/session/udp_chain.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "core/session/end.h"
#include "core/session/hooks.h"
#include "core/session/policy.h"
#include "core/session/worker.h"

struct chain {
    uint32_t owner; /* the association's session */
    uint8_t hop_count;
    uint8_t agreed;                        /* proxies that have */
    uint8_t failure;                       /* enum failure of the first that has failed */
    bool opening;                          /* its owner is about to be told by udp_chain_open() */
    uint32_t controls[ROUTE_HOPS_MAX];     /* sessions, by hop; POOL_NONE: it has ended, or is not begun */
    struct address relays[ROUTE_HOPS_MAX]; /* of those that have agreed */
    struct proxy_uri hops[ROUTE_HOPS_MAX];
};

struct udp_chains {
    struct pool all;
    struct share held;
};

static struct chain *chain_at(const struct worker *w, uint32_t chain)
{
    assert(w->chains && pool_is_taken(&w->chains->all, chain));
    return pool_at(&w->chains->all, chain);
}

static unsigned hop_of(const struct session *s)
{
    assert(s->protocol == PROTOCOL_CHAIN && s->hops > 0);
    return s->hops - 1u;
}

/* --- what all chains share --- */

/* Two for each association: most have none, or that of -x. */
static bool chains_open(struct worker *w)
{
    if (w->chains) return true;
    struct udp_chains *chains = calloc(1, sizeof *chains);
    if (!chains) return false;
    uint32_t count = 2 * w->config->associations;
    int error = pool_open(&chains->all, count, sizeof(struct chain));
    if (error == 0) error = share_open(&chains->held, count);
    if (error == 0) {
        w->chains = chains;
        return true;
    }
    share_close(&chains->held);
    pool_close(&chains->all);
    free(chains);
    return false;
}

void udp_chains_close(struct worker *w)
{
    if (!w->chains) return;
    share_close(&w->chains->held);
    pool_close(&w->chains->all);
    free(w->chains);
    w->chains = NULL;
}

/* --- opening and closing --- */

/* RFC 1928 section 4: who does not know yet where its datagrams will come from asks with zeroes. */
static void control_open(struct worker *w, const struct session *owner, const struct egress *egress, uint32_t chain,
                         unsigned hop)
{
    struct chain *c = chain_at(w, chain);
    struct session *s = session_take(w, owner->listener, -1, w->config->timeout_ms);
    struct setup *setup = setup_of(w, s);
    c->controls[hop] = s->slot;
    s->protocol = PROTOCOL_CHAIN;
    s->command = SOCKS5_UDP_ASSOCIATE;
    s->client = owner->client;
    s->passed = owner->passed;
    s->depth = owner->depth;
    s->extra = chain;
    s->hops = (uint8_t)(hop + 1);
    setup->request_complete = true;
    setup->egress = *egress;
    setup->route.target = (struct address){.kind = ADDRESS_IPV4};
    route_decide_builtin(&setup->route, c->hops, s->hops);
    session_enter(w, s, SESSION_HELLO);
    session_hook_redial(w, s);
}

uint32_t udp_chain_open(struct worker *w, struct session *s, const struct egress *egress, const struct proxy_uri *hops,
                        uint8_t hop_count, enum failure *failure)
{
    struct share_source source = share_source_of(&s->client);
    *failure = FAIL_COMMAND; /* datagrams have no other way than SOCKS5 */
    for (unsigned i = 0; i < hop_count; i++)
        if (hops[i].scheme != PROXY_SOCKS5) return POOL_NONE;
    *failure = FAIL_RESOURCE;
    if (!chains_open(w) || w->draining) return POOL_NONE;
    uint32_t chain = share_take(&w->chains->held, &w->chains->all, &source);
    if (chain == POOL_NONE) return POOL_NONE;
    struct chain *c = chain_at(w, chain);
    c->owner = s->slot;
    c->hop_count = hop_count;
    c->agreed = 0;
    c->failure = FAIL_NONE;
    c->opening = true;
    memcpy(c->hops, hops, hop_count * sizeof *hops);
    for (unsigned i = 0; i < hop_count; i++) c->controls[i] = POOL_NONE;
    for (unsigned i = 0; i < hop_count && c->failure == FAIL_NONE; i++) {
        if (session_has_room(w))
            control_open(w, s, egress, chain, i);
        else
            c->failure = FAIL_RESOURCE;
    }
    c->opening = false;
    *failure = (enum failure)c->failure;
    if (*failure == FAIL_NONE) return chain;
    udp_chain_close(w, chain);
    return POOL_NONE;
}

void udp_chain_close(struct worker *w, uint32_t chain)
{
    struct chain *c = chain_at(w, chain);
    for (unsigned i = 0; i < c->hop_count; i++) {
        if (c->controls[i] == POOL_NONE) continue;
        struct session *control = session_at(w, c->controls[i]);
        control->extra = POOL_NONE;
        c->controls[i] = POOL_NONE;
        session_close(w, control, SESSION_ORDERLY);
    }
    explicit_bzero(c->hops, c->hop_count * sizeof *c->hops); /* passwords */
    share_give(&w->chains->held, &w->chains->all, chain);
}

bool udp_chain_leads(const struct worker *w, uint32_t chain, const struct proxy_uri *hops, uint8_t hop_count)
{
    const struct chain *c = chain_at(w, chain);
    if (c->hop_count != hop_count) return false;
    for (unsigned i = 0; i < hop_count; i++)
        if (!proxy_uri_equal(&c->hops[i], &hops[i])) return false;
    return true;
}

bool udp_chain_stands(const struct worker *w, uint32_t chain)
{
    const struct chain *c = chain_at(w, chain);
    return c->failure == FAIL_NONE && c->agreed == c->hop_count;
}

enum failure udp_chain_failure(const struct worker *w, uint32_t chain)
{
    return (enum failure)chain_at(w, chain)->failure;
}

/* --- headers --- */

const struct address *udp_chain_relay(const struct worker *w, uint32_t chain)
{
    return &chain_at(w, chain)->relays[0];
}

size_t udp_chain_write_header(const struct worker *w, uint32_t chain, uint8_t *out, size_t size,
                              const struct address *target)
{
    const struct chain *c = chain_at(w, chain);
    size_t used = 0;
    for (unsigned i = 1; i <= c->hop_count; i++) {
        const struct address *to = i < c->hop_count ? &c->relays[i] : target;
        size_t written = socks5_write_udp_header(out + used, size - used, to);
        if (written == 0) return 0;
        used += written;
    }
    return used;
}

/* A relay that is known by a name alone may have any address. */
static bool is_relay(const struct address *relay, const struct address *source)
{
    return relay->kind == ADDRESS_NAME ? relay->port == source->port : address_equal(relay, source);
}

bool udp_chain_read_header(const struct worker *w, uint32_t chain, const uint8_t *data, size_t size,
                           struct address *source, size_t *used)
{
    const struct chain *c = chain_at(w, chain);
    struct socks5_udp_header header = {0};
    size_t taken;
    *used = 0;
    for (unsigned i = 1; i <= c->hop_count; i++) {
        if (socks5_parse_udp_header(data + *used, size - *used, &header, &taken) != PARSE_OK) return false;
        if (header.fragment != 0 || header.target.kind == ADDRESS_NONE) return false;
        if (i < c->hop_count && !is_relay(&c->relays[i], &header.target)) return false;
        *used += taken;
    }
    *source = header.target;
    return true;
}

/* --- controls --- */

/* The first relay is one that we send to: in the form in which its answers come, and only if we may. */
static enum failure relay_judge(const struct worker *w, const struct session *s, struct address *relay)
{
    struct net_address raw;
    if (relay->port == 0) return FAIL_PROXY_PROTOCOL;
    if (hop_of(s) > 0) return FAIL_NONE;
    if (!net_address_from(relay, &raw) || !net_address_to(&raw, relay)) return FAIL_PROXY_PROTOCOL;
    return policy_allows(w->config->blocked, relay) ? FAIL_NONE : FAIL_BLOCKED;
}

enum session_state udp_chain_agree(struct worker *w, struct session *s, const struct address *bound)
{
    struct address *relay = &chain_at(w, s->extra)->relays[hop_of(s)];
    *relay = *bound;
    enum failure failure = relay_judge(w, s, relay);
    return failure == FAIL_NONE ? SESSION_ASSOCIATE : session_fail(w, s, failure);
}

static void control_watch(struct worker *w, struct session *s)
{
    if (s->inflight & SESSION_BIT(SESSION_WATCH + UPSTREAM)) return;
    ring_watch(w->ring, s->fd[UPSTREAM], session_arm(w, s, SESSION_WATCH + UPSTREAM));
}

void udp_chain_begin(struct worker *w, struct session *s)
{
    struct chain *c = chain_at(w, s->extra);
    session_release_setup(w, s);
    control_watch(w, s);
    if (++c->agreed == c->hop_count) session_hook_chain(w, session_at(w, c->owner), s->extra);
}

void udp_chain_on_completion(struct worker *w, struct session *s)
{
    if (s->op != SESSION_WATCH + UPSTREAM) return;
    if (s->result >= 0 && s->result & (POLLERR | POLLHUP | POLLRDHUP))
        session_close(w, s, SESSION_ORDERLY);
    else if (!(s->inflight & SESSION_BIT(SESSION_WATCH + UPSTREAM))) /* the kernel had no room for it */
        timer_set(w->timers, s->slot, ring_now_ms(w->ring) + DIAL_STAGGER_MS);
}

void udp_chain_on_timer(struct worker *w, struct session *s)
{
    session_set_keepalive(w, s);
    control_watch(w, s);
}

void udp_chain_on_close(struct worker *w, struct session *s)
{
    uint32_t chain = s->extra;
    if (chain == POOL_NONE) return; /* it is its owner that has given it up */
    struct chain *c = chain_at(w, chain);
    s->extra = POOL_NONE;
    c->controls[hop_of(s)] = POOL_NONE;
    if (c->failure != FAIL_NONE) return;
    c->failure = s->failure != FAIL_NONE ? s->failure : FAIL_PROXY_CLOSED;
    if (!c->opening) session_hook_chain(w, session_at(w, c->owner), chain);
}
