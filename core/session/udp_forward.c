#include "core/session/udp_forward.h"

#include <stdio.h>
#include <string.h>

#include "core/io/log.h"
#include "core/session/access.h"
#include "core/session/limited.h"
#include "core/session/lists.h"
#include "core/session/message.h"
#include "core/session/policy.h"
#include "core/session/udp_peers.h"
#include "core/session/udp_send.h"

/* --- names --- */

static struct udp_name *name_find(const struct worker *w, struct association *a, const struct address *target)
{
    struct address wanted = *target;
    wanted.port = 0;
    for (unsigned i = 0; i < UDP_NAMES; i++)
        if (a->names[i].name.kind != ADDRESS_NONE && a->names[i].until_ms > ring_now_ms(w->ring) &&
            address_equal(&a->names[i].name, &wanted))
            return &a->names[i];
    return NULL;
}

/* Whether lists let datagrams go to that name, as long as its address may. */
static bool name_is_listed(const struct worker *w, const struct session *s, const struct address *target,
                           uint8_t *allowed)
{
    return lists_admit_target(w->config->lists, s->listener, target, allowed, false);
}

/* The first address that the policy and lists allow: they are in the order in which they should be tried, and a
 * datagram has one try only. The port is that of the first datagram; each is judged with its own when it is sent. */
static void name_choose(const struct worker *w, const struct session *s, const struct resolve_request *resolve,
                        struct address *out)
{
    uint8_t by_name = 0, allowed;
    bool listed = name_is_listed(w, s, &resolve->name, &by_name);
    for (uint32_t i = 0; i < resolve->count; i++) {
        *out = (struct address){.kind = resolve->results[i].kind, .port = resolve->name.port};
        memcpy(out->ipv6, resolve->results[i].octets, sizeof out->ipv6);
        allowed = by_name;
        if (!policy_allows(w->config->blocked, out)) continue;
        if (listed && lists_admit_target(w->config->lists, s->listener, out, &allowed, true)) return;
    }
    *out = (struct address){.kind = ADDRESS_NONE};
}

void udp_forward_on_name(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    struct udp_name *entry = &a->names[a->names_next];
    a->names_next = (uint8_t)((a->names_next + 1) % UDP_NAMES);
    entry->name = a->resolve.name;
    entry->name.port = 0;
    entry->address = (struct address){.kind = ADDRESS_NONE};
    if (s->result == 0) name_choose(w, s, &a->resolve, &entry->address);
    entry->until_ms = ring_now_ms(w->ring) + (entry->address.kind == ADDRESS_NONE ? UDP_FAILED_MS : UDP_NAME_MS);
}

static enum udp_fate name_ask(struct worker *w, struct session *s, const struct address *name, bool may_wait)
{
    struct association *a = association_of(w, s);
    if (!may_wait) return UDP_DROPPED;
    if (s->inflight & SESSION_BIT(SESSION_ANSWER)) return UDP_WAITS;
    a->resolve.name = *name;
    return session_ask_address(w, s, &a->resolve) == FAIL_NONE ? UDP_WAITS : UDP_DROPPED;
}

/* --- directly --- */

/* to: where; decided: the verdict that says so, NULL without a ruleset. */
static enum udp_fate forward_directly(struct worker *w, struct session *s, const struct udp_datagram *d,
                                      const struct address *to, struct udp_target *decided, uint8_t allowed)
{
    struct association *a = association_of(w, s);
    struct address address = *to;
    if (to->kind == ADDRESS_NAME) {
        if (!name_is_listed(w, s, to, &allowed)) return UDP_DROPPED;
        const struct udp_name *name = name_find(w, a, to);
        if (!name) return name_ask(w, s, to, d->may_wait);
        address = name->address;
        address.port = to->port;
    }
    if (!udp_send_direct(w, s, d->buffer, &address, allowed, d->payload)) return UDP_DROPPED;
    if (decided) udp_targets_note(&a->targets, decided, &address);
    return UDP_SENT;
}

/* --- chains --- */

static void chain_give_up(struct worker *w, struct association *a, unsigned i, uint64_t until_ms)
{
    udp_chain_close(w, a->chains[i]);
    a->chains[i] = POOL_NONE;
    udp_targets_lose_chain(&a->targets, (uint8_t)i, until_ms);
}

/* A free place, or that of the chain that was used longest ago. */
static unsigned chain_place(struct worker *w, struct association *a)
{
    unsigned oldest = 0;
    for (unsigned i = 0; i < UDP_CHAINS; i++) {
        if (a->chains[i] == POOL_NONE) return i;
        if (a->chain_used_ms[i] < a->chain_used_ms[oldest]) oldest = i;
    }
    chain_give_up(w, a, oldest, 0);
    return oldest;
}

/* The association's chain of these proxies, opened if there is none. UDP_NO_CHAIN: *failure says why. */
static uint8_t chain_find(struct worker *w, struct session *s, const struct proxy_uri *hops, uint8_t hop_count,
                          enum failure *failure)
{
    struct association *a = association_of(w, s);
    for (unsigned i = 0; i < UDP_CHAINS; i++)
        if (a->chains[i] != POOL_NONE && udp_chain_leads(w, a->chains[i], hops, hop_count)) return (uint8_t)i;
    uint32_t chain = udp_chain_open(w, s, &a->egress, hops, hop_count, failure);
    if (chain == POOL_NONE) return UDP_NO_CHAIN;
    unsigned place = chain_place(w, a);
    a->chains[place] = chain;
    a->chain_used_ms[place] = ring_now_ms(w->ring);
    return (uint8_t)place;
}

static enum udp_fate forward_through(struct worker *w, struct session *s, const struct udp_datagram *d,
                                     struct udp_target *decided, uint8_t allowed)
{
    struct association *a = association_of(w, s);
    uint32_t chain = a->chains[decided->chain];
    assert(chain != POOL_NONE);
    a->chain_used_ms[decided->chain] = ring_now_ms(w->ring);
    /* The last to look at it: nobody here will see the address of a name. */
    if (!lists_admit_target(w->config->lists, s->listener, &decided->to, &allowed, true)) return UDP_DROPPED;
    if (!udp_chain_stands(w, chain)) return d->may_wait ? UDP_WAITS : UDP_DROPPED;
    if (!udp_send_through(w, s, d->buffer, chain, &decided->to, d->payload)) return UDP_DROPPED;
    if (decided->to.kind != ADDRESS_NAME) udp_targets_note(&a->targets, decided, &decided->to);
    return UDP_SENT;
}

enum failure udp_forward_open_chain(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    enum failure failure = FAIL_NONE;
    a->chained = true;
    chain_find(w, s, w->config->hops, (uint8_t)w->config->hop_count, &failure);
    return failure;
}

enum failure udp_forward_on_chain(struct worker *w, struct session *s, uint32_t chain)
{
    struct association *a = association_of(w, s);
    enum failure failure = udp_chain_failure(w, chain);
    if (failure == FAIL_NONE) return failure;
    for (unsigned i = 0; i < UDP_CHAINS; i++)
        if (a->chains[i] == chain) chain_give_up(w, a, i, ring_now_ms(w->ring) + UDP_FAILED_MS);
    return failure;
}

/* --- decisions --- */

static void log_decision(struct worker *w, struct session *s, const struct address *target, enum failure failure)
{
    char text[ADDRESS_TEXT_SIZE + 96], address[ADDRESS_TEXT_SIZE];
    if (!LOG_ON(LOG_LEVEL_INFO)) return;
    address_format(target, address, sizeof address);
    snprintf(text, sizeof text, "udp: datagrams to `%s' are dropped: %s", address, failure_row(failure)->word);
    session_log(w, s, LOG_LEVEL_INFO, text);
}

/* What a verdict means for its target. FAIL_NONE: datagrams may go there. */
static enum failure decision_obey(struct worker *w, struct session *s, const struct route_verdict *verdict,
                                  struct udp_target *target)
{
    enum failure failure = FAIL_NONE;
    if (verdict->order == ROUTE_REJECT || verdict->order == ROUTE_UNAUTHORIZED) return FAIL_REJECTED;
    if (verdict->target.kind == ADDRESS_NONE || verdict->target.kind == ADDRESS_UNIX) return FAIL_RESOLVE;
    if (verdict->target.kind == ADDRESS_GROUP) return FAIL_NO_UPSTREAM; /* groups are of connections */
    /* All targets of an association share its sockets: a way of its own is not to be had. */
    if (verdict->egress.sources.given || verdict->egress.marked || verdict->egress.device[0]) return FAIL_EGRESS;
    target->to = verdict->target;
    failure = limited_admit_more(w, s, verdict->limits, verdict->limit_count);
    if (failure == FAIL_NONE && verdict->hop_count > 0) {
        uint8_t chain = chain_find(w, s, verdict->hops, verdict->hop_count, &failure);
        target->chain = chain;
    }
    if (failure != FAIL_NONE) return failure;
    if (verdict->rule > 0) s->rule = verdict->rule;
    target->drops = false;
    return FAIL_NONE;
}

/* The verdict on association.route.target is there. What has failed is asked again before long. */
static struct udp_target *decision_take(struct worker *w, struct session *s, int32_t result)
{
    struct association *a = association_of(w, s);
    struct udp_target *target = udp_targets_put(&a->targets, &a->route.target);
    enum failure failure = result < 0 ? FAIL_REJECTED : decision_obey(w, s, &a->route.verdict, target);
    if (failure == FAIL_NONE) return target;
    if (failure != FAIL_REJECTED || result < 0) target->until_ms = ring_now_ms(w->ring) + UDP_FAILED_MS;
    target->drops = true;
    log_decision(w, s, &a->route.target, failure);
    return target;
}

static enum route_callback callback_for(const struct address *target)
{
    return target->kind == ADDRESS_IPV4 ? ROUTE_BY_IPV4 : target->kind == ADDRESS_IPV6 ? ROUTE_BY_IPV6 : ROUTE_BY_NAME;
}

static bool decision_post(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    struct message question = {.kind = MESSAGE_ROUTE,
                               .slot = s->slot,
                               .generation = pool_generation(&w->sessions, s->slot),
                               .body = &a->route};
    a->asked_us = ring_now_us(w->ring);
    a->asked_revision = a->revision;
    if (!worker_post(w, &question)) return false;
    counter_add(&w->stats.routes_asked, 1);
    s->inflight |= SESSION_BIT(SESSION_VERDICT);
    return true;
}

/* Whoever knows: a verdict that holds still, the ruleset, or without one the settings. NULL: *fate says what becomes of
 * the datagram. */
static struct udp_target *decision_ask(struct worker *w, struct session *s, const struct udp_datagram *d,
                                       enum udp_fate *fate)
{
    struct association *a = association_of(w, s);
    struct route_request *route = &a->route;
    *fate = d->may_wait ? UDP_WAITS : UDP_DROPPED;
    if (s->inflight & SESSION_BIT(SESSION_VERDICT)) return NULL;
    route->target = d->target;
    route->credentials = &a->credentials;
    route->callback = (uint8_t)callback_for(&d->target);
    route->command = ROUTE_ASSOCIATE;
    route->failure = FAIL_NONE;
    route->admitted = a->admitted;
    atomic_store_explicit(&route->cancelled, 0, memory_order_relaxed);
    if (a->revision == 0) {
        route_decide_builtin(route, w->config->hops, (uint8_t)w->config->hop_count);
        return decision_take(w, s, 0);
    }
    if (verdicts_find(&w->verdicts, route, a->revision, ring_now_ms(w->ring)) &&
        limited_knows(w, route->verdict.limits, route->verdict.limit_count)) {
        counter_add(&w->stats.routes_remembered, 1);
        return decision_take(w, s, 0);
    }
    if (d->may_wait && !decision_post(w, s)) *fate = UDP_DROPPED;
    return NULL;
}

void udp_forward_on_verdict(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    uint64_t took_us = ring_now_us(w->ring) - a->asked_us;
    histogram_add(&w->stats.decision, took_us);
    access_on_decision(w, s, took_us);
    if (s->result >= 0) verdicts_keep(&w->verdicts, &a->route, a->asked_revision, ring_now_ms(w->ring));
    if (a->asked_revision == a->revision) decision_take(w, s, s->result); /* else it is asked again */
}

/* A ruleset that has come, gone or changed decides anew. */
static void decisions_renew(struct association *a, uint32_t revision)
{
    if (a->revision == revision) return;
    udp_targets_clear(&a->targets);
    a->revision = revision;
}

enum udp_fate udp_forward(struct worker *w, struct session *s, const struct udp_datagram *d)
{
    struct association *a = association_of(w, s);
    uint32_t revision = atomic_load_explicit(w->revision, memory_order_acquire);
    uint8_t allowed = 0;
    enum udp_fate fate;
    if (revision == 0 && w->config->hop_count == 0) return forward_directly(w, s, d, &d->target, NULL, 0);
    if (!lists_admit_target(w->config->lists, s->listener, &d->target, &allowed, d->target.kind != ADDRESS_NAME))
        return UDP_DROPPED;
    decisions_renew(a, revision);
    struct udp_target *decided = udp_targets_find(&a->targets, &d->target, ring_now_ms(w->ring));
    if (!decided) decided = decision_ask(w, s, d, &fate);
    if (!decided) return fate;
    if (decided->drops) return UDP_DROPPED;
    if (decided->chain != UDP_NO_CHAIN) return forward_through(w, s, d, decided, allowed);
    return forward_directly(w, s, d, &decided->to, decided, allowed);
}

/* --- answers --- */

static uint32_t chain_of(struct worker *w, const struct association *a, const struct address *from)
{
    for (unsigned i = 0; i < UDP_CHAINS; i++)
        if (a->chains[i] != POOL_NONE && udp_chain_stands(w, a->chains[i]) &&
            address_equal(udp_chain_relay(w, a->chains[i]), from))
            return a->chains[i];
    return POOL_NONE;
}

bool udp_forward_source(struct worker *w, struct session *s, struct address *source, struct iovec *payload)
{
    struct association *a = association_of(w, s);
    size_t used;
    uint32_t chain = chain_of(w, a, source);
    if (chain == POOL_NONE) {
        if (!udp_peers_know(w->udp->peers, s->extra, source, ring_now_ms(w->ring))) return false;
    } else {
        const uint8_t *data = payload->iov_base;
        if (!udp_chain_read_header(w, chain, data, payload->iov_len, source, &used)) return false;
        *payload = udp_part(data + used, payload->iov_len - used);
    }
    const struct address *asked = udp_targets_asked(&a->targets, source);
    if (asked) *source = *asked;
    return true;
}

void udp_forward_drop(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    atomic_store_explicit(&a->resolve.cancelled, 1, memory_order_relaxed);
    if (s->inflight & SESSION_BIT(SESSION_VERDICT) && !atomic_exchange(&a->route.cancelled, 1))
        session_tell(w, s, MESSAGE_CANCEL, 0);
    for (unsigned i = 0; i < UDP_CHAINS; i++)
        if (a->chains[i] != POOL_NONE) chain_give_up(w, a, i, 0);
}
