/* All peers together, and the judgement on what has become of their tunnels. */
#include "tests/sim_peers_private.h"

#include <errno.h>

#include "protocols/proxy_header.h"
#include "tests/sim_lists.h"
#include "tests/sim_users.h"

/* What they say and hear is not cleared: it is much, and little of it is used. */
void peers_give_words(struct actor *a, uint32_t index)
{
    static uint8_t words[TUNNELS_MAX + UPSTREAMS_MAX][2][SAY_MAX];
    a->say = words[index][0];
    a->heard = words[index][1];
}

bool peers_act(struct peers *peers, uint64_t *wake_us)
{
    bool moved = false, partly = sim_chance(300); /* only some of them, so that others are late */
    for (uint32_t i = 0; i < peers->tunnel_count; i++) {
        struct tunnel *t = &peers->tunnels[i];
        if (partly && sim_chance(500)) continue;
        moved |= client_act(peers, t, wake_us);
    }
    for (uint32_t i = 0; i < peers->upstream_count; i++) {
        if (partly && sim_chance(500)) continue;
        moved |= upstream_act(peers, &peers->upstreams[i], wake_us);
    }
    if (moved) peers->moved_us = sim_now_us();
    return moved || partly;
}

uint32_t peers_posts(const struct peers *peers)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < peers->tunnel_count; i++) {
        const struct tunnel *t = &peers->tunnels[i];
        count += t->speech == SPEECH_SEQUENCE ? 2 * t->sequence.count : t->speech == SPEECH_POST;
    }
    return count;
}

bool peers_all_gone(const struct peers *peers)
{
    for (uint32_t i = 0; i < peers->tunnel_count; i++)
        if (!peers->tunnels[i].client.gone) return false;
    for (uint32_t i = 0; i < peers->upstream_count; i++)
        if (!peers->upstreams[i].actor.gone) return false;
    return true;
}

/* --- judging --- */

static bool tunnel_reachable(const struct peers *peers, const struct tunnel *t)
{
    if (peers->config->hop_count > 0) return true;
    if (t->target.kind == ADDRESS_NAME && t->resolve_result < 0) return false;
    for (uint32_t i = 0; i < t->address_count; i++)
        if (t->outcomes[i] == 0) return true;
    return false;
}

/* SOCKS4 has no word for a time-out, a forwarded connection none at all. */
static bool tunnel_may_be_silent(const struct tunnel *t)
{
    if (t->speech == SPEECH_FORWARD) return true;
    if (t->speech != SPEECH_SOCKS4 && t->speech != SPEECH_SOCKS4A) return false;
    for (uint32_t i = 0; i < t->address_count; i++)
        if (t->outcomes[i] == 1 || t->outcomes[i] == -ETIMEDOUT) return true;
    return false;
}

static bool tunnel_clean(const struct peers *peers, const struct tunnel *t)
{
    return peers->calm && !t->flawed && !t->refused_admission;
}

/* The one that was used: of several that had answered only the winner of the race. NULL if that cannot be told. */
static const struct upstream *tunnel_upstream(const struct peers *peers, const struct tunnel *t, uint32_t *count)
{
    const struct upstream *found = NULL;
    *count = 0;
    for (uint32_t i = 0; i < peers->upstream_count; i++) {
        const struct upstream *u = &peers->upstreams[i];
        if (u->tunnel != t) continue;
        if (++*count == 1 || u->actor.received > 0) found = u;
    }
    return *count == 1 || (found && found->actor.received > 0) ? found : NULL;
}

static void check_complete(const struct peers *peers, const struct tunnel *t)
{
    uint32_t count;
    const struct upstream *u = tunnel_upstream(peers, t, &count);
    const struct actor *c = &t->client;
    if (t->speech == SPEECH_SEQUENCE) {
        if (t->sequence.answered != t->sequence.count || !c->gone)
            sim_fail("tunnel %u has %u of %u responses, though nothing was wrong%s", t->index, t->sequence.answered,
                     t->sequence.count, c->gone ? "" : ", it never ended");
        if (c->saw_reset) sim_fail("tunnel %u was reset, though nothing was wrong", t->index);
        return;
    }
    uint32_t arrived = u ? u->actor.received : 0;
    if (count == 0) sim_fail("tunnel %u never reached its target, though nothing was wrong", t->index);
    if (c->received != c->to_receive || arrived != c->to_send)
        sim_fail("tunnel %u is incomplete, though nothing was wrong: %u of %u up, %u of %u down%s", t->index, arrived,
                 c->to_send, c->received, c->to_receive, c->gone ? "" : ", it never ended");
    if (!c->gone || (u && !u->actor.gone)) sim_fail("tunnel %u never ended: an end was not passed on", t->index);
    if (c->saw_reset || (u && u->actor.saw_reset)) sim_fail("tunnel %u was reset, though nothing was wrong", t->index);
}

/* What an upstream says before its stream are the answers of the proxies of a chain. If it ends before it has said all
 * of them, that ends a handshake and no stream: the chain has failed, and the client is refused. A forwarded client can
 * be told so by closing its connection only, which the kernel does with a reset when octets of it are unread. */
static bool upstream_opened_stream(const struct upstream *u)
{
    return u->actor.say_sent == u->actor.say_size;
}

/* An upstream whose end has arrived behind an open stream has said everything, whatever becomes of it then. */
static void check_end_survives(const struct peers *peers, const struct tunnel *t)
{
    uint32_t count;
    const struct upstream *u = tunnel_upstream(peers, t, &count);
    if (!peers->calm || t->client_flawed || tunnel_is_http(t) || !t->client.reads_stream) return;
    if (peers->lists && sim_lists_client_denied(peers->lists, t, t->begun_us) != SIM_NEVER)
        return; /* it may be reset */
    if (!u || !u->actor.reads_stream || !u->actor.conn->in_ended) return;
    if (!upstream_opened_stream(u)) {
        if (t->established || t->client.received > 0)
            sim_fail("the client of tunnel %u has a stream that the last proxy has not granted", t->index);
        return;
    }
    if (t->client.received != u->actor.sent)
        sim_fail("the client of tunnel %u has %u of the %u octets that its upstream had sent before an orderly end",
                 t->index, t->client.received, u->actor.sent);
    if (t->client.saw_reset && !t->client.saw_end)
        sim_fail("the client of tunnel %u was reset in place of its upstream's orderly end", t->index);
}

/* --- who may come, and where to --- */

bool peers_have_garbage(const struct peers *peers)
{
    for (uint32_t i = 0; i < peers->tunnel_count; i++)
        if (peers->tunnels[i].garbage) return true;
    return false;
}

/* Whether the tunnel's client has been whom it says it is, from since_us on until now. */
static enum sim_while tunnel_proven(const struct peers *peers, const struct tunnel *t, uint64_t since_us)
{
    if (!peers->users || t->listener > 0) return SIM_ALWAYS;
    return t->anonymous ? SIM_NEVER : sim_users_right(peers->users, t->user, t->password, since_us);
}

static enum sim_while tunnel_denied(const struct peers *peers, const struct tunnel *t, uint64_t since_us)
{
    return peers->lists ? sim_lists_denied(peers->lists, t, since_us) : SIM_NEVER;
}

void peers_check_allowed(const struct peers *peers, const struct tunnel *t, uint64_t since_us)
{
    if (peers_have_garbage(peers)) return;
    if (!t->started) sim_fail("tunnel %u is reached out for before its client has come", t->index);
    if (tunnel_proven(peers, t, since_us) == SIM_NEVER)
        sim_fail("tunnel %u is reached out for, but its client has not shown who it is", t->index);
    if (tunnel_denied(peers, t, since_us) == SIM_ALWAYS)
        sim_fail("tunnel %u is reached out for, but a list denies that", t->index);
}

/* A client that is denied by a list may be reset without a word. */
static bool tunnel_must_fail(const struct peers *peers, const struct tunnel *t)
{
    return tunnel_proven(peers, t, t->begun_us) == SIM_NEVER || tunnel_denied(peers, t, t->begun_us) == SIM_ALWAYS;
}

static bool tunnel_may_fail(const struct peers *peers, const struct tunnel *t)
{
    return tunnel_proven(peers, t, t->begun_us) != SIM_ALWAYS || tunnel_denied(peers, t, t->begun_us) != SIM_NEVER;
}

static void check_barred(const struct peers *peers, const struct tunnel *t)
{
    bool listed = tunnel_denied(peers, t, t->begun_us) != SIM_NEVER;
    if (t->established || t->client.received > 0)
        sim_fail("tunnel %u has led its client where it may not go", t->index);
    if (!t->refused && !listed && t->speech != SPEECH_FORWARD)
        sim_fail("the client of tunnel %u was not told that it is not known here", t->index);
    if (!t->client.gone) sim_fail("tunnel %u, which is refused, never ended", t->index);
}

void peers_check_finished(const struct peers *peers)
{
    for (uint32_t i = 0; i < peers->tunnel_count; i++) {
        const struct tunnel *t = &peers->tunnels[i];
        check_end_survives(peers, t);
        if (!tunnel_clean(peers, t)) continue;
        if (tunnel_must_fail(peers, t)) check_barred(peers, t);
        if (tunnel_may_fail(peers, t)) continue;
        if (tunnel_reachable(peers, t))
            check_complete(peers, t);
        else if (t->established || (!tunnel_may_be_silent(t) && !t->refused))
            sim_fail("the client of tunnel %u was not told that its target cannot be reached", i);
    }
}

static void check_upstream_end(const struct peers *peers, const struct upstream *u)
{
    const struct tunnel *t = u->tunnel;
    const struct actor *a = &u->actor;
    uint32_t count;
    if (!a->saw_end || !t || t->garbage || !a->reads_stream || tunnel_is_http(t)) return;
    if (a->received == 0 && !t->established && t->client.received == 0) return; /* given up before it was used */
    if (a->received == 0 && u != tunnel_upstream(peers, t, &count)) return;     /* lost the race */
    if (!t->client.ended || a->received != t->client.sent)
        sim_fail("the upstream of tunnel %u was told an orderly end after %u octets, but its client had sent %u%s",
                 t->index, a->received, t->client.sent, t->client.ended ? "" : " and not ended");
}

static void check_client_end(const struct peers *peers, const struct tunnel *t)
{
    const struct actor *a = &t->client;
    if (t->speech == SPEECH_SEQUENCE) {
        if (a->saw_end && !t->garbage && !t->refused && (a->heard_size > 0 || t->reader.begun))
            sim_fail("the client of tunnel %u was told an orderly end in the middle of a response", t->index);
        return;
    }
    if (!a->saw_end || !a->reads_stream || t->garbage) return;
    for (uint32_t i = 0; i < peers->upstream_count; i++) {
        const struct upstream *u = &peers->upstreams[i];
        if (u->tunnel == t && u->actor.ended && u->actor.sent == a->received) return;
    }
    if (t->speech == SPEECH_FORWARD && a->received == 0 && !t->established) return; /* has no other word for "no" */
    sim_fail("the client of tunnel %u was told an orderly end after %u octets, but no upstream had ended there",
             t->index, a->received);
}

/* A client that lists denied all the time is never taken in. */
static void check_taken_in(const struct peers *peers, const struct tunnel *t)
{
    if (!peers->lists || !t->client.conn || t->client.conn->sent == 0) return;
    if (sim_lists_client_denied(peers->lists, t, t->begun_us) == SIM_ALWAYS)
        sim_fail("the client of tunnel %u is denied by a list, and got an answer", t->index);
}

void peers_check_ends(const struct peers *peers)
{
    for (uint32_t i = 0; i < peers->tunnel_count; i++) check_taken_in(peers, &peers->tunnels[i]);
    for (uint32_t i = 0; i < peers->upstream_count; i++) check_upstream_end(peers, &peers->upstreams[i]);
    for (uint32_t i = 0; i < peers->tunnel_count; i++) check_client_end(peers, &peers->tunnels[i]);
}

/* How much of what a client was sent is answers, as opposed to the stream. */
static uint64_t client_answers(const struct tunnel *t)
{
    const struct sim_conn *conn = t->client.conn;
    size_t at = 0;
    if (t->speech == SPEECH_FORWARD) return 0;
    for (unsigned stage = 0;; stage++) {
        struct client_answer r = client_read_answer(t, conn->transcript + at, conn->transcript_size - at, stage);
        if (r.parsed != PARSE_OK || !r.granted) return conn->sent;
        at += r.used;
        if (r.final) return at;
    }
}

/* How much of what an upstream was sent is the stream. */
static uint64_t upstream_stream(const struct upstream *u)
{
    const struct sim_conn *conn = u->actor.conn;
    struct proxy_header unused;
    size_t header = 0;
    if (!u->announced) return u->actor.reads_stream ? conn->sent - u->asked : 0;
    if (conn->sent <= u->asked) return 0;
    proxy_header_parse(conn->transcript + u->asked, conn->transcript_size - (size_t)u->asked, &unused, &header);
    return header > 0 ? conn->sent - u->asked - header : 0;
}

bool peers_sum(const struct peers *peers, struct peers_octets *sum)
{
    bool exact = true;
    *sum = (struct peers_octets){0};
    for (uint32_t i = 0; i < peers->upstream_count; i++) {
        const struct upstream *u = &peers->upstreams[i];
        sum->up += upstream_stream(u);
        sum->to_upstreams += u->actor.conn->sent;
    }
    for (uint32_t i = 0; i < peers->tunnel_count; i++) {
        const struct tunnel *t = &peers->tunnels[i];
        if (!t->client.conn) continue;
        if (t->garbage || tunnel_is_http(t)) exact = false; /* heads are counted, too */
        sum->down += t->client.conn->sent - client_answers(t);
        sum->to_clients += t->client.conn->sent;
    }
    return exact;
}
