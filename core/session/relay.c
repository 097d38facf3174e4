#include "core/session/relay.h"

#include <errno.h>
#include <poll.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/end.h"
#include "core/session/flow.h"
#include "core/session/flow_private.h"
#include "core/session/parting.h"
#include "core/session/session.h"
#include "core/session/worker.h"

/* How soon a half-closed session looks after the side that it does not read from any more. */
#define RELAY_WATCH_MS 1000u

/* Gives the setup slot back when nothing of the handshake is left in it: what remains of the session is small. */
static void relay_leave_setup(struct worker *w, struct session *s)
{
    if (s->flows[CLIENT].early_left + s->flows[UPSTREAM].early_left == 0) session_release_setup(w, s);
}

static void relay_blame(struct worker *w, struct session *s, enum session_side side)
{
    enum failure cause = side == CLIENT ? FAIL_CLIENT_RESET : FAIL_TARGET_RESET;
    if (s->failure == FAIL_NONE) session_log(w, s, LOG_LEVEL_DEBUG, failure_row(cause)->word);
    session_blame(w, s, cause);
}

/* `side` takes no more, but what it sent has an orderly end: that is still delivered to the other side, whose octets
 * have nowhere to go from now on. */
static void relay_lose_sink(struct worker *w, struct session *s, enum session_side side)
{
    struct flow *f = &s->flows[flow_sink(side)];
    bool sending = flow_in_flight(s, SESSION_SEND + side);
    bool sends_on = f->phase == FLOW_OPEN || f->phase == FLOW_LOST;
    relay_blame(w, s, side);
    s->lost |= sending || f->held.count > 0 || f->pipe_fill > 0 || f->early_left > 0;
    flow_drop(w, s, flow_sink(side));
    relay_leave_setup(w, s);
    if (!sending) buffers_drop_all(&w->buffers, &f->held);
    f->phase = sends_on ? FLOW_LOST : FLOW_DONE;
    if (s->flows[side].phase == FLOW_DONE) parting_end_relay(w, s, flow_sink(side));
}

/* An error on one side: what the other has not got yet is lost, and it must not take that for an orderly end. Nor must
 * the peer on this side, unless the error says that it is not there any more: then the cheaper end will do. */
static void relay_reset(struct worker *w, struct session *s, enum session_side side, ssize_t error)
{
    relay_blame(w, s, side);
    if (error == -ECONNRESET || error == -EPIPE) session_drop_side(w, s, side, SESSION_ORDERLY);
    session_close(w, s, SESSION_RESET);
}

/* A side takes no more. If it had ended in order before, the other one still gets what it sent. */
static void relay_on_sink_gone(struct worker *w, struct session *s, enum session_side side, ssize_t error)
{
    enum flow_phase phase = s->flows[side].phase;
    bool delivers = phase != FLOW_IDLE && phase != FLOW_LOST && s->protocol != PROTOCOL_INTERNAL;
    if (delivers && net_has_ended(s->fd[side]))
        relay_lose_sink(w, s, side);
    else
        relay_reset(w, s, side, error);
}

static void relay_on_broken(struct worker *w, struct session *s, enum session_side from, enum session_side side,
                            ssize_t error)
{
    if (from == side)
        relay_reset(w, s, side, error);
    else
        relay_on_sink_gone(w, s, side, error);
}

/* Both are done: so is the session. */
static void relay_on_done(struct worker *w, struct session *s, enum session_side from)
{
    if (s->flows[flow_sink(from)].phase >= FLOW_DONE) {
        parting_end_relay(w, s, flow_sink(from));
        return;
    }
    if (s->protocol == PROTOCOL_INTERNAL && from == CLIENT) { /* the coordinator has what it wanted, or gave up */
        session_close(w, s, SESSION_ORDERLY);
        return;
    }
    net_shutdown_write(s->fd[flow_sink(from)]);
    s->moved_ms = ring_now_ms(w->ring); /* the time of a half-closed relay begins */
    timer_set(w->timers, s->slot, ring_now_ms(w->ring) + RELAY_WATCH_MS);
}

/* What was taken is with the kernel: both sides are reset when their peers have it. */
static void relay_on_spent(struct worker *w, struct session *s, enum session_side from)
{
    (void)from;
    session_release_setup(w, s);
    parting_cut(w, s, FAIL_QUOTA);
}

static const struct flow_owner relay_owner = {relay_on_done, relay_on_broken, relay_on_spent, relay_leave_setup};

static void relay_open(struct worker *w, struct session *s)
{
    const struct setup *setup = setup_of(w, s);
    uint32_t out = setup->out_used - setup->out_sent;
    assert(out >= setup->hop_received); /* which stands behind the reply, see established_begin() */
    flow_open(w, s, CLIENT,
              &(struct flow_start){.owner = &relay_owner,
                                   .limit = FLOW_UNLIMITED,
                                   .early = setup->head.data + setup->consumed,
                                   .early_size = setup->received - setup->consumed});
    flow_open(w, s, UPSTREAM,
              &(struct flow_start){.owner = &relay_owner,
                                   .limit = FLOW_UNLIMITED,
                                   .early = setup->out + setup->out_sent,
                                   .early_size = out,
                                   .own = out - setup->hop_received});
    relay_leave_setup(w, s);
    flow_advance(w, s, UPSTREAM);
    flow_advance(w, s, CLIENT);
}

/* A word of the handshake may still be on its way to the client, who has not waited for it: then the reply waits. */
void relay_begin(struct worker *w, struct session *s)
{
    s->moved_ms = ring_now_ms(w->ring);
    flow_init(&s->flows[CLIENT]);
    flow_init(&s->flows[UPSTREAM]);
    if (!flow_in_flight(s, SESSION_SEND + CLIENT)) relay_open(w, s);
}

/* That word is sent. A send that an error has cut says how far it came, and has consumed the error. */
static void relay_on_word_sent(struct worker *w, struct session *s, int32_t result)
{
    if (result > 0) session_count_reply(w, s, (uint64_t)result);
    if (result <= 0 || net_is_closed(s->fd[CLIENT])) {
        relay_reset(w, s, CLIENT, result);
        return;
    }
    setup_of(w, s)->out_sent += (uint32_t)result;
    relay_open(w, s);
}

static void relay_on_watch(struct worker *w, struct session *s, enum session_side side, int32_t result)
{
    /* POLLHUP alone: both directions have ended in order, and what was received before may still be unread. The same
     * goes for the orderly end that the watch of a BIND looks for, too. */
    if (result < 0) return;
    bool gone = result & POLLHUP && s->flows[flow_sink(side)].phase == FLOW_OPEN && net_has_ended(s->fd[side]);
    if (result & POLLERR || gone) relay_on_sink_gone(w, s, side, -ECONNRESET);
}

void relay_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c)
{
    if (op == SESSION_SEND + CLIENT && s->flows[UPSTREAM].phase == FLOW_IDLE) {
        relay_on_word_sent(w, s, c->result);
        return;
    }
    if (flow_on_completion(w, s, op, c)) return;
    /* Else a connect that lost its race. */
    if (op == SESSION_WATCH + CLIENT) relay_on_watch(w, s, CLIENT, c->result);
    if (op == SESSION_WATCH + UPSTREAM) relay_on_watch(w, s, UPSTREAM, c->result);
}

/* --- time --- */

/* A side whose sending direction has ended is not read any more; only this notices that it resets. */
static void relay_watch_side(struct worker *w, struct session *s, enum session_side side)
{
    if (s->flows[side].phase != FLOW_DONE || flow_in_flight(s, SESSION_WATCH + side)) return;
    ring_watch(w->ring, s->fd[side], session_arm(w, s, SESSION_WATCH + side));
}

static bool relay_is_half_closed(const struct session *s)
{
    return s->flows[CLIENT].phase >= FLOW_DONE || s->flows[UPSTREAM].phase >= FLOW_DONE;
}

/* How long nothing may move: 0: for ever. Of a half-closed relay the other end may be gone for good, and keepalive does
 * not tell: a host answers it for a program that waits for nothing any more. The coordinator's calls have --timeout
 * in all; a peer that does not read would hide that they are over. */
static uint32_t relay_limit_ms(const struct worker *w, const struct session *s)
{
    uint32_t idle = w->config->idle_timeout_ms, half = w->config->half_close_timeout_ms;
    if (s->protocol == PROTOCOL_INTERNAL) return w->config->timeout_ms;
    if (!relay_is_half_closed(s) || half == 0) return idle;
    return idle == 0 || half < idle ? half : idle;
}

/* True if the session is still there. */
static bool relay_judge_idle(struct worker *w, struct session *s)
{
    uint64_t now = ring_now_ms(w->ring);
    uint64_t moved = s->flows[CLIENT].bytes + s->flows[UPSTREAM].bytes;
    if (moved != s->moved) {
        s->moved = moved;
        s->moved_ms = now;
    }
    uint32_t limit = relay_limit_ms(w, s);
    if (limit == 0 || now - s->moved_ms < limit) return true;
    session_blame(w, s, limit == w->config->idle_timeout_ms ? FAIL_IDLE_TIMEOUT : FAIL_HALF_CLOSE_TIMEOUT);
    session_log(w, s, LOG_LEVEL_DEBUG,
                s->protocol == PROTOCOL_INTERNAL      ? "closed: the call is over"
                : limit == w->config->idle_timeout_ms ? "closed: nothing moved for --idle-timeout seconds"
                                                      : "closed: half-closed, nothing moved for --half-close-timeout");
    session_close(w, s, SESSION_RESET);
    return false;
}

void relay_on_timer(struct worker *w, struct session *s)
{
    session_set_keepalive(w, s);
    relay_watch_side(w, s, CLIENT);
    relay_watch_side(w, s, UPSTREAM);
    if (!relay_judge_idle(w, s) || relay_limit_ms(w, s) == 0) return;
    uint32_t quarter = relay_limit_ms(w, s) / 4;
    timer_set(w->timers, s->slot, ring_now_ms(w->ring) + (quarter > TIMER_TICK_MS ? quarter : TIMER_TICK_MS));
}
