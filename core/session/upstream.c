#include "core/session/upstream.h"

#include <stdio.h>
#include <string.h>

#include "core/io/hash.h"
#include "core/io/log.h"
#include "core/io/share.h"
#include "core/session/worker.h"

void upstream_begin(struct setup *setup)
{
    setup->upstream.at = UPSTREAM_NO_GROUP;
    setup->upstream.tried_count = 0;
    setup->upstream.again = false;
    setup->upstream.until_ms = UINT64_MAX;
    setup->upstream.failure = FAIL_NO_UPSTREAM;
}

/* --- choosing --- */

static bool upstream_find_place(const struct route_verdict *verdict, struct upstream_tries *tries)
{
    for (unsigned i = 0; i < verdict->hop_count; i++) {
        if (verdict->hops[i].address.kind != ADDRESS_GROUP) continue;
        tries->at = (uint8_t)i;
        memcpy(tries->group, verdict->hops[i].address.name, sizeof tries->group);
        return true;
    }
    if (verdict->target.kind != ADDRESS_GROUP) return false;
    tries->at = verdict->hop_count;
    memcpy(tries->group, verdict->target.name, sizeof tries->group);
    return true;
}

/* The client's address, without its port: all that it does goes to one member. */
static uint64_t upstream_hash(const struct session *s)
{
    struct share_source source = share_source_of(&s->client);
    return hash_plain(HASH_START, source.octets, source.size);
}

static void upstream_put(struct setup *setup, const struct group_member *member)
{
    struct route_verdict *verdict = &setup->route.verdict;
    if (setup->upstream.at == verdict->hop_count) {
        verdict->target = member->uri.address;
        return;
    }
    if (verdict->hops != setup->route.hops) {
        memcpy(setup->route.hops, verdict->hops, verdict->hop_count * sizeof *verdict->hops);
        verdict->hops = setup->route.hops;
    }
    setup->route.hops[setup->upstream.at] = member->uri;
}

/* A group of targets is no proxy, and the other way round. */
static struct upstream_group *upstream_group(const struct worker *w, const struct setup *setup)
{
    struct upstream_group *group = groups_find(w->groups, setup->upstream.group);
    bool as_target = setup->upstream.at == setup->route.verdict.hop_count;
    return group && group->targets == as_target ? group : NULL;
}

enum failure upstream_choose(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct upstream_tries *tries = &setup->upstream;
    if (tries->at == UPSTREAM_NO_GROUP && !upstream_find_place(&setup->route.verdict, tries)) return FAIL_NONE;
    upstream_leave(s);
    uint64_t now_ms = ring_now_ms(w->ring);
    struct upstream_group *group = upstream_group(w, setup);
    if (!group || tries->tried_count == GROUP_TRIES_MAX) return tries->failure;
    if (!group_choose(group, now_ms, upstream_hash(s), tries->tried, tries->tried_count, &s->choice))
        return tries->failure;
    tries->tried[tries->tried_count++] = s->choice.member->id;
    tries->until_ms = now_ms + group->timeout_ms;
    setup->refused = false;
    upstream_put(setup, s->choice.member);
    return FAIL_NONE;
}

/* --- judging --- */

/* Between us and the member, without it. */
static bool is_ours(enum failure failure)
{
    switch (failure) {
    case FAIL_NETWORK_UNREACHABLE:
    case FAIL_HOST_UNREACHABLE:
    case FAIL_REFUSED:
    case FAIL_CONNECT_TIMEOUT:
    case FAIL_CONNECT:
    case FAIL_RESOLVE: return false;
    default: return true;
    }
}

static struct upstream_judgement judge_dial(const struct session *s, const struct setup *setup, enum failure failure)
{
    bool unnamed = failure == FAIL_RESOLVE_TIMEOUT || (failure == FAIL_CONNECT_TIMEOUT && s->state == SESSION_RESOLVE);
    /* What is refused to one member may be granted to another; and another may have an address. */
    bool other = unnamed || failure == FAIL_DENIED || failure == FAIL_BLOCKED || failure == FAIL_TARGET_DENIED;
    bool blame = !is_ours(failure) && !unnamed;
    if (setup->upstream.at != 0) return (struct upstream_judgement){0};
    return (struct upstream_judgement){.blame = blame, .retry = blame || other};
}

/* The proxy in front of the member is to connect to it. */
static struct upstream_judgement judge_behind(const struct setup *setup, enum failure failure)
{
    bool unreachable = failure >= FAIL_PROXY_REFUSED && failure <= FAIL_PROXY_TTL;
    bool late = failure == FAIL_CONNECT_TIMEOUT && setup->hop_stage == HOP_REPLY;
    bool blame = (setup->refused && unreachable) || late;
    return (struct upstream_judgement){.blame = blame, .retry = blame};
}

/* The member itself is spoken to. */
static struct upstream_judgement judge_hop(const struct setup *setup, enum failure failure)
{
    enum proxy_scheme scheme = setup->route.verdict.hops[setup->hop].scheme;
    bool proven = scheme == PROXY_SOCKS5 && setup->hop_stage == HOP_REPLY;
    switch (failure) {
    case FAIL_PROXY_AUTH:
    case FAIL_PROXY_CLOSED: return (struct upstream_judgement){.blame = true, .retry = true};
    case FAIL_PROXY_PROTOCOL: /* also what well-formed replies become that have no failure of their own */
        if (!setup->refused) return (struct upstream_judgement){.blame = true, .retry = true};
        break;
    case FAIL_CONNECT_TIMEOUT: /* it has spoken SOCKS5 with us: the target may be what is silent */
        return (struct upstream_judgement){.blame = !proven, .retry = !proven};
    default: break;
    }
    return (struct upstream_judgement){.clear = setup->refused};
}

struct upstream_judgement upstream_judge(const struct session *s, const struct setup *setup, enum failure failure)
{
    if (setup->upstream.at == UPSTREAM_NO_GROUP || s->state > SESSION_HOP) return (struct upstream_judgement){0};
    if (s->state == SESSION_HOP && setup->hop_stage > HOP_REPLY) return (struct upstream_judgement){0};
    if (s->state != SESSION_HOP) return judge_dial(s, setup, failure);
    if (setup->hop == setup->upstream.at) return judge_hop(setup, failure);
    if (setup->hop + 1 == setup->upstream.at) return judge_behind(setup, failure);
    return (struct upstream_judgement){.clear = setup->hop > setup->upstream.at};
}

static void upstream_clear(struct worker *w, struct session *s)
{
    struct group_member *member = s->choice.member;
    if (!member_clear(member)) return;
    LOGN("group:%s: %s is in use again", setup_of(w, s)->upstream.group, member->text);
}

static void upstream_blame(struct worker *w, struct session *s, const struct upstream_group *group,
                           enum failure failure)
{
    struct group_member *member = s->choice.member;
    uint64_t now_ms = ring_now_ms(w->ring);
    bool out = member_blame(member, group, now_ms, (uint8_t)failure, s->choice.trial);
    if (!out) return;
    LOGW("group:%s: %s is left out for %llu ms: %s", group->name, member->text,
         (unsigned long long)(member_out_until_ms(member) - now_ms), failure_row(failure)->word);
}

bool upstream_moves_on(struct worker *w, struct session *s, enum failure failure)
{
    if (!s->choice.member) return false;
    struct setup *setup = s->setup == POOL_NONE ? NULL : setup_of(w, s);
    struct upstream_group *group = setup ? upstream_group(w, setup) : NULL;
    struct upstream_judgement judgement = {0};
    if (group) judgement = upstream_judge(s, setup, failure);
    if (judgement.clear) upstream_clear(w, s);
    if (judgement.blame) upstream_blame(w, s, group, failure);
    upstream_leave(s);
    if (!judgement.retry) return false;
    struct upstream_tries *tries = &setup->upstream;
    uint64_t now_ms = ring_now_ms(w->ring);
    if (tries->tried_count >= group->tries || now_ms >= session_deadline_ms(w, s)) return false;
    if (!group_has_another(group, now_ms, tries->tried, tries->tried_count)) return false;
    tries->failure = (uint8_t)failure;
    tries->until_ms = UINT64_MAX;
    tries->again = true;
    session_log(w, s, LOG_LEVEL_DEBUG, failure_row(failure)->word);
    return true;
}

/* A connection of before has proven nothing now. */
void upstream_connected(struct worker *w, struct session *s)
{
    struct group_member *member = s->choice.member;
    if (!member) return;
    setup_of(w, s)->upstream.until_ms = UINT64_MAX;
    if (s->reused) return;
    upstream_clear(w, s);
    group_end_trial(&s->choice);
    atomic_fetch_add_explicit(&member->connected, 1, memory_order_relaxed);
}

uint64_t upstream_deadline_ms(const struct worker *w, const struct session *s)
{
    if (!s->choice.member || s->setup == POOL_NONE) return UINT64_MAX;
    const struct setup *setup = setup_of(w, s);
    if (s->state == SESSION_RESOLVE || s->state == SESSION_DIAL)
        return setup->upstream.at == 0 ? setup->upstream.until_ms : UINT64_MAX;
    bool own = s->state == SESSION_HOP && setup->hop == setup->upstream.at && setup->hop_stage != HOP_REPLY;
    return own ? setup->upstream.until_ms : UINT64_MAX;
}

void upstream_leave(struct session *s)
{
    group_leave(&s->choice);
}
