#include "core/session/self.h"

#include <string.h>
#include <strings.h>

#include "core/io/net.h"
#include "core/session/machine.h"
#include "core/session/own.h"
#include "core/session/policy.h"
#include "core/session/session.h"
#include "core/session/worker.h"

/* Under --allow-self clients may go round on purpose, by naming us again and again: this often. */
#define SELF_DEPTH_MAX 16u

static bool same_host(const struct address *a, const struct address *b)
{
    struct address one = *a, other = *b;
    one.port = other.port = 0;
    return address_equal(&one, &other);
}

/* Whether the target is the client's choice. A verdict that keeps the client's host or port is not: "x:9080" may be a
 * name of the client's for 127.0.0.1, resolved by the ruleset, and a table of hosts keeps the port that was asked for.
 */
static bool self_is_chosen(const struct worker *w, const struct session *s)
{
    if (protocol_is_own(s->protocol) || s->protocol == PROTOCOL_FORWARD) return false;
    const struct address *asked = &setup_of(w, s)->target, *told = &setup_of(w, s)->route.verdict.target;
    return asked->port == told->port || same_host(asked, told);
}

/* Where the client names its target anew each time a circle ends when it stops; elsewhere it would never end. */
static bool self_may_repeat(const struct worker *w, unsigned listener, unsigned depth)
{
    enum listener_kind kind = w->config->listeners[listener].kind;
    return w->config->allow_self && listener_asks_target(kind) && depth < SELF_DEPTH_MAX;
}

enum failure self_forbids(const struct worker *w, const struct session *s, const struct address *to)
{
    uint8_t listener = OWN_NO_LISTENER;
    if (s->protocol == PROTOCOL_INTERNAL || !own_is(w->own, w->machine, to, &listener)) return FAIL_NONE;
    bool chain = setup_of(w, s)->route.verdict.hop_count > 0; /* then this is the operator's word */
    if (!chain && self_is_chosen(w, s) && !w->config->allow_self) return FAIL_SELF;
    if (listener >= CONFIG_LISTENERS_MAX) return FAIL_NONE;
    bool passed = (s->passed | UINT32_C(1) << s->listener) >> listener & 1u;
    return passed && !self_may_repeat(w, listener, s->depth) ? FAIL_LOOP : FAIL_NONE;
}

/* --- behind a chain --- */

/* RFC 6761 section 6.3. */
static bool is_localhost(const struct address *name)
{
    static const char word[] = "localhost";
    size_t size = name->name_size, length = sizeof word - 1;
    if (size > 0 && name->name[size - 1] == '.') size--;
    if (size < length || (size > length && name->name[size - length - 1] != '.')) return false;
    return strncasecmp(name->name + size - length, word, length) == 0;
}

/* Once the first proxy of a chain is reached, its address is known. */
static bool self_runs_here(const struct worker *w, const struct session *s, unsigned hop)
{
    const struct address *host = &setup_of(w, s)->route.verdict.hops[hop].address;
    struct net_address raw;
    struct address peer;
    if (hop == 0 && s->fd[UPSTREAM] >= 0 && net_peer_address(s->fd[UPSTREAM], &raw) >= 0 && net_address_to(&raw, &peer))
        return machine_has(w->machine, &peer);
    switch ((enum address_kind)host->kind) {
    case ADDRESS_IPV4:
    case ADDRESS_IPV6: return machine_has(w->machine, host);
    case ADDRESS_NAME: return is_localhost(host);
    default: return false;
    }
}

enum failure self_forbids_behind_chain(const struct worker *w, const struct session *s)
{
    const struct route_verdict *verdict = &setup_of(w, s)->route.verdict;
    struct address to = verdict->target;
    uint8_t listener;
    if (w->config->allow_self || !self_is_chosen(w, s)) return FAIL_NONE;
    if (to.kind == ADDRESS_NAME && is_localhost(&to))
        to = (struct address){.kind = ADDRESS_IPV4, .port = to.port, .ipv4 = {127, 0, 0, 1}};
    if (to.kind == ADDRESS_NAME || !own_is(w->own, w->machine, &to, &listener)) return FAIL_NONE;
    if (policy_classify(&to) & (POLICY_LOOPBACK | POLICY_NOWHERE))
        for (unsigned i = 0; i < verdict->hop_count; i++)
            if (!self_runs_here(w, s, i)) return FAIL_NONE;
    return FAIL_SELF;
}

/* --- circles --- */

static bool self_find(const struct worker *w, const struct session *s, struct own_trail *trail)
{
    struct net_address raw;
    struct address from = host_port_address(&s->client), to;
    uint64_t now = ring_now_ms(w->ring);
    bool elsewhere = false;
    if (from.kind == ADDRESS_NONE) return false;
    if (!own_knows(w->own, &from, now)) return false; /* as a rule */
    if (s->reached.kind != ADDRESS_NONE)
        to = host_port_address(&s->reached); /* a proxy of this machine has passed our own connection on to us */
    else if (net_local_address(s->fd[CLIENT], &raw) < 0 || !net_address_to(&raw, &to))
        return false;
    if (own_find(w->own, &from, &to, now, trail, &elsewhere)) return true;
    if (!elsewhere || net_original_address(s->fd[CLIENT], &raw) < 0 || !net_address_to(&raw, &to)) return false;
    return own_find(w->own, &from, &to, now, trail, &elsewhere);
}

bool self_came_back(const struct worker *w, struct session *s)
{
    struct own_trail trail = {0};
    if (!own_has_notes(w->own) || s->fd[CLIENT] < 0 || !self_find(w, s, &trail)) return false;
    s->passed = trail.listeners;
    s->depth = trail.depth;
    return (trail.listeners & UINT32_C(1) << s->listener) != 0 && !self_may_repeat(w, s->listener, trail.depth);
}

bool self_may_return(const struct worker *w, const struct session *s, const struct address *to)
{
    return s->protocol != PROTOCOL_INTERNAL && own_may_return(w->own, to);
}

void self_note(const struct worker *w, struct session *s, int fd, const struct address *to)
{
    struct net_address raw;
    struct address from;
    struct own_trail trail = {.listeners = s->passed | UINT32_C(1) << s->listener, .depth = (uint8_t)(s->depth + 1)};
    if (net_local_address(fd, &raw) < 0 || !net_address_to(&raw, &from)) return;
    self_forget(w, s);
    s->note = own_note(w->own, &from, to, trail, ring_now_ms(w->ring));
}

void self_forget(const struct worker *w, struct session *s)
{
    own_forget(w->own, s->note);
    s->note = OWN_NO_NOTE;
}
