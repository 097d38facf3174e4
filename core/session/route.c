#include "core/session/route.h"

#include "core/session/access.h"
#include "core/session/bind.h"
#include "core/session/conn_cache.h"
#include "core/session/dial.h"
#include "core/session/egress.h"
#include "core/session/end.h"
#include "core/session/established.h"
#include "core/session/limited.h"
#include "core/session/lists.h"
#include "core/session/reply.h"
#include "core/session/self.h"
#include "core/session/session.h"
#include "core/session/upstream.h"
#include "core/session/verify.h"
#include "core/session/worker.h"

/* Contract sections 2.4, 2.5 and 2.7: HTTP always asks by name, the others by what the client, or the option, gave. */
static enum route_callback route_callback(const struct session *s, const struct setup *setup)
{
    bool http = s->protocol == PROTOCOL_HTTP_CONNECT || s->protocol == PROTOCOL_HTTP_PLAIN;
    if (http || setup->by_name) return ROUTE_BY_NAME;
    switch ((enum address_kind)setup->target.kind) {
    case ADDRESS_IPV4: return ROUTE_BY_IPV4;
    case ADDRESS_IPV6: return ROUTE_BY_IPV6;
    default: return ROUTE_BY_NAME;
    }
}

static enum route_command route_command(const struct session *s)
{
    if (s->protocol == PROTOCOL_HTTP_PLAIN) return ROUTE_REQUEST;
    return s->command == SOCKS5_BIND ? ROUTE_BIND : ROUTE_CONNECT;
}

/* With nothing left of an earlier attempt, and room in the queue. Else the next completion, or the timer, tries again.
 */
void route_ask(struct worker *w, struct session *s)
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
static enum session_state route_reject(struct worker *w, struct session *s, enum failure tried)
{
    enum session_state next = session_fail(w, s, tried == FAIL_NONE ? FAIL_REJECTED : tried);
    if (failure_is_upstream(tried)) counter_add(&w->stats.gave_up, 1);
    return next;
}

/* Behind a chain it is the last proxy that listens: of the protocols only SOCKS5 has a word for it. */
static enum session_state route_bind(struct worker *w, struct session *s)
{
    const struct route_verdict *verdict = &setup_of(w, s)->route.verdict;
    if (verdict->hop_count == 0) return bind_begin(w, s);
    if (verdict->hops[verdict->hop_count - 1].scheme != PROXY_SOCKS5) return session_fail(w, s, FAIL_COMMAND);
    return dial_begin(w, s);
}

static enum session_state route_connect(struct worker *w, struct session *s)
{
    enum failure failure = upstream_choose(w, s);
    if (failure != FAIL_NONE) return session_fail(w, s, failure);
    setup_of(w, s)->dialled_us = ring_now_us(w->ring);
    if (s->command == SOCKS5_BIND) return route_bind(w, s);
    return conn_cache_take(w, s) ? established_begin(w, s) : dial_begin(w, s);
}

bool route_must_wait(const struct session *s)
{
    return session_upstream_is_busy(s) || s->inflight & SESSION_BIT(SESSION_ANSWER);
}

enum session_state route_again(struct worker *w, struct session *s)
{
    assert(setup_of(w, s)->upstream.again && !route_must_wait(s));
    setup_of(w, s)->upstream.again = false;
    return route_connect(w, s);
}

/* The verdict is there. Without a ruleset it never left the worker. */
enum session_state route_obey(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    const struct route_verdict *verdict = &setup->route.verdict;
    if (verdict->order == ROUTE_UNAUTHORIZED) return session_fail(w, s, FAIL_AUTH);
    if (verdict->order == ROUTE_REJECT) return route_reject(w, s, (enum failure)setup->route.failure);
    s->rule = verdict->rule;
    s->hops = verdict->hop_count;
    setup->trial = verdict->order == ROUTE_TRY;
    enum failure failure = limited_admit_request(w, s, route_knows_client(w, s), verdict->limits, verdict->limit_count);
    if (failure != FAIL_NONE) return session_fail(w, s, failure);
    egress_choose(w, s, &verdict->egress, &setup->egress);
    upstream_begin(setup);
    return route_connect(w, s);
}

/* The target as it was asked for, before anybody is asked about it. A client that has been let in may send requests for
 * hours: what lists say of it now holds for each. */
static enum failure route_look_at_lists(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    const struct address *target = &setup->target;
    struct address client = host_port_address(&s->client);
    bool named = target->kind == ADDRESS_NAME;
    setup->allowed = 0;
    if (client.kind != ADDRESS_NONE && !lists_admit_client(w->config->lists, s->listener, &client))
        return FAIL_CLIENT_DENIED;
    if (!named && target->kind != ADDRESS_IPV4 && target->kind != ADDRESS_IPV6) return FAIL_NONE;
    if (s->command == SOCKS5_BIND && address_is_any_host(target)) return FAIL_NONE; /* whoever comes is judged */
    bool passes = lists_admit_target(w->config->lists, s->listener, target, &setup->allowed, !named);
    return passes ? FAIL_NONE : FAIL_TARGET_DENIED;
}

enum session_state route_begin(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct route_request *route = &setup->route;
    uint32_t revision = atomic_load_explicit(w->revision, memory_order_acquire);
    counter_add(&w->stats.requests, 1);
    setup->request_complete = true;
    setup->revision = revision; /* also of the questions behind tries: it is the same run of the same callback */
    access_on_request(w, s);
    route->target = setup->target;
    route->credentials = &setup->credentials;
    route->callback = (uint8_t)route_callback(s, setup);
    route->command = (uint8_t)route_command(s);
    route->failure = FAIL_NONE;
    /* A name that no host can have: a ruleset is not asked what it means. Forwarders may leave the target to one. */
    bool open = s->protocol == PROTOCOL_FORWARD && revision > 0;
    if (setup->target.kind == ADDRESS_NONE && !open) return session_fail(w, s, FAIL_RESOLVE);
    if (self_came_back(w, s)) return session_fail(w, s, FAIL_LOOP);
    enum failure failure = route_look_at_lists(w, s);
    if (failure == FAIL_NONE) failure = limited_admit_client(w, s);
    if (failure != FAIL_NONE) return session_fail(w, s, failure);
    if (revision == 0) {
        route_decide_builtin(route, w->config->hops, (uint8_t)w->config->hop_count);
        return route_obey(w, s);
    }
    if (verdicts_find(&w->verdicts, route, revision, ring_now_ms(w->ring)) &&
        limited_knows(w, route->verdict.limits, route->verdict.limit_count)) {
        counter_add(&w->stats.routes_remembered, 1);
        return route_obey(w, s);
    }
    setup->asking = true;
    return SESSION_ROUTE;
}

static void route_count_decision(struct worker *w, struct session *s)
{
    uint64_t took_us = ring_now_us(w->ring) - setup_of(w, s)->asked_us;
    histogram_add(&w->stats.decision, took_us);
    access_on_decision(w, s, took_us);
}

/* Either the last of what an earlier attempt had in flight is back, or the answer is. */
enum session_state route_step(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (setup->upstream.again) return route_must_wait(s) ? SESSION_ROUTE : route_again(w, s);
    if (s->op != SESSION_ANSWER) return SESSION_ROUTE;
    route_count_decision(w, s);
    if (s->result < 0) return session_fail(w, s, FAIL_REJECTED);
    verdicts_keep(&w->verdicts, &setup->route, setup->revision, ring_now_ms(w->ring));
    return route_obey(w, s);
}

/* --- user and password --- */

/* By the settings, or by the word of the ruleset that is in force. */
bool route_wants_credentials(const struct worker *w)
{
    uint32_t revision = atomic_load_explicit(w->revision, memory_order_acquire);
    return w->config->auth_required || (revision & ROUTE_REVISION_AUTH) != 0;
}

bool route_knows_client(const struct worker *w, const struct session *s)
{
    return verify_is_due(w, s) || route_wants_credentials(w);
}

enum session_state route_admit(struct worker *w, struct session *s)
{
    reply_append_admission(w, s);
    session_flush(w, s);
    return SESSION_REQUEST;
}

static enum session_state route_judge_login(struct worker *w, struct session *s)
{
    struct route_request *route = &setup_of(w, s)->route;
    if (route->verdict.order == ROUTE_UNAUTHORIZED) return session_fail(w, s, FAIL_AUTH);
    if (route->verdict.order != ROUTE_ACCEPT) return session_fail(w, s, FAIL_REJECTED);
    route->admitted = true;
    return route_admit(w, s);
}

/* RFC 1929 answers before the client says where to: so the ruleset is asked about user and password alone. One that
 * has no word on them lets everybody pass, and judges with the request. */
enum session_state route_login(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct route_request *route = &setup->route;
    uint32_t revision = atomic_load_explicit(w->revision, memory_order_acquire);
    if (revision == 0 || !route_wants_credentials(w)) return route_admit(w, s);
    setup->revision = revision;
    route->target = (struct address){.kind = ADDRESS_NONE};
    route->credentials = &setup->credentials;
    route->callback = ROUTE_BY_LOGIN;
    route->command = ROUTE_CONNECT;
    route->failure = FAIL_NONE;
    if (verdicts_find(&w->verdicts, route, revision, ring_now_ms(w->ring))) {
        counter_add(&w->stats.routes_remembered, 1);
        return route_judge_login(w, s);
    }
    setup->asking = true;
    return SESSION_LOGIN;
}

enum session_state route_login_step(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->op != SESSION_ANSWER) return SESSION_LOGIN;
    route_count_decision(w, s);
    if (s->result < 0) return session_fail(w, s, FAIL_REJECTED);
    verdicts_keep(&w->verdicts, &setup->route, setup->revision, ring_now_ms(w->ring));
    return route_judge_login(w, s);
}
