#include "core/session/relay.h"

#include <errno.h>
#include <poll.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/end.h"
#include "core/session/parting.h"
#include "core/session/relay_private.h"
#include "core/session/scarcity.h"
#include "core/session/session.h"
#include "core/session/worker.h"

/* Reads in a row that fill a whole buffer before a flow counts as bulk and turns to SPLICE. */
#define RELAY_BULK_STREAK 4u
/* The same when there was no pipe the last time: asking again must not cost more than copying. */
#define RELAY_BULK_STREAK_PATIENT 64u
/* Buffers that a flow may hold before its receive is stopped: one is being sent, and another shows that the sink is
 * slower. From then on it holds one at most. */
#define RELAY_HELD_MAX 2u
/* Sends in a row that leave nothing held before such a flow may receive ahead again. */
#define RELAY_PROMPT_STREAK 32u
/* How soon a half-closed session looks after the side that it does not read from any more. */
#define RELAY_WATCH_MS 1000u

/* Gives the setup slot back when nothing of the handshake is left in it: what remains of the session is small. */
static void relay_leave_setup(struct worker *w, struct session *s)
{
    if (s->flows[CLIENT].early_left + s->flows[UPSTREAM].early_left == 0) session_release_setup(w, s);
}

static void flow_drop(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    relay_end_rest(w, s, from);
    scarcity_forget(f);
    f->flags = 0;
    relay_return_pipe(w, f);
}

/* `side` takes no more, but its own end has been received in order: what it sent is still delivered to the other side,
 * whose octets have nowhere to go from now on. */
static void relay_lose_sink(struct worker *w, struct session *s, enum session_side side)
{
    struct flow *f = &s->flows[relay_other(side)];
    bool sending = relay_in_flight(s, SESSION_SEND + side);
    s->lost |= sending || f->held.count > 0 || f->pipe_fill > 0 || f->early_left > 0;
    flow_drop(w, s, relay_other(side));
    f->early_left = 0;
    relay_leave_setup(w, s);
    if (!sending) buffers_drop_all(&w->buffers, &f->held);
    f->phase = f->phase == FLOW_OPEN ? FLOW_LOST : FLOW_DONE;
    if (s->flows[side].phase == FLOW_DONE) parting_end_relay(w, s, relay_other(side));
}

void relay_prove_end(struct session *s, enum session_side side)
{
    struct flow *f = &s->flows[side];
    if (f->phase != FLOW_ENDING && f->phase != FLOW_DONE) return;
    if (!(f->flags & FLOW_PROVEN) && !net_is_closed(s->fd[side])) f->flags |= FLOW_PROVEN;
}

void relay_prove_slow_end(struct session *s, enum session_side side)
{
    if (s->state == SESSION_RELAY && s->flows[side].phase == FLOW_ENDING) relay_prove_end(s, side);
}

void relay_reset(struct worker *w, struct session *s, enum session_side side, ssize_t error)
{
    if (s->flows[side].flags & FLOW_PROVEN && s->protocol != PROTOCOL_INTERNAL) {
        relay_lose_sink(w, s, side);
        return;
    }
    if (error == -ECONNRESET || error == -EPIPE) session_drop_side(w, s, side, SESSION_ORDERLY);
    session_close(w, s, SESSION_RESET);
}

/* --- the octets that came before the relay --- */

/* They are bounded as all that a flow holds, so that the rest of them waits where it is. */
static void flow_take_early(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (f->early_left == 0 || f->flags & FLOW_STARVED) return;
    while (f->early_left > 0 && f->held.count < RELAY_HELD_MAX) {
        uint32_t taken = buffers_copy(&w->buffers, &f->held, f->early, f->early_left);
        if (taken == 0) {
            scarcity_starve(w, f);
            return;
        }
        f->early += taken;
        f->early_left -= taken;
    }
    relay_leave_setup(w, s);
}

/* --- COPY --- */

/* Octets of the first held buffer that are still to be sent. */
static uint32_t flow_first(const struct worker *w, const struct flow *f)
{
    return w->buffers.filled[f->held.first] - f->offset;
}

static void flow_send(struct worker *w, struct session *s, enum session_side from)
{
    const struct flow *f = &s->flows[from];
    relay_prove_end(s, relay_other(from));
    ring_send(w->ring, s->fd[relay_other(from)], buffers_at(&w->buffers, f->held.first) + f->offset, flow_first(w, f),
              session_arm(w, s, SESSION_SEND + relay_other(from)));
}

/* Our own reply does not count as relayed. */
static void flow_count_sent(struct worker *w, struct session *s, enum session_side from, uint32_t octets)
{
    struct flow *f = &s->flows[from];
    uint32_t own = octets < f->own ? octets : f->own;
    f->own -= own;
    if (own > 0) session_count_reply(w, s, own);
    relay_count(w, f, from, octets - own);
}

/* A buffer is sent. */
static void flow_judge_sink(struct flow *f)
{
    if (!(f->flags & FLOW_SINGLE) || f->flags & FLOW_PAUSED) return;
    if (f->flags & FLOW_WAITED || f->streak > 0)
        f->prompt = 0;
    else if (++f->prompt >= RELAY_PROMPT_STREAK)
        f->flags &= (uint16_t)~FLOW_SINGLE;
    f->flags &= (uint16_t)~FLOW_WAITED;
}

static void flow_on_sent(struct worker *w, struct session *s, enum session_side from, int32_t result)
{
    struct flow *f = &s->flows[from];
    if (result <= 0) {
        relay_reset(w, s, relay_other(from), result);
        return;
    }
    bool whole = (uint32_t)result == flow_first(w, f);
    assert((uint32_t)result <= flow_first(w, f));
    flow_count_sent(w, s, from, (uint32_t)result);
    f->offset += (uint32_t)result;
    if (whole) {
        buffers_drop_first(&w->buffers, &f->held);
        f->offset = 0;
        flow_judge_sink(f);
    }
    /* An error has cut it, and that was the only notice: the receive may now find what looks like an orderly end. */
    if (whole)
        relay_advance(w, s, from);
    else
        relay_reset(w, s, relay_other(from), 0); /* unknown */
}

static unsigned flow_bulk_streak(const struct worker *w, const struct flow *f)
{
    if (f->flags & FLOW_PATIENT) return RELAY_BULK_STREAK_PATIENT;
    return w->config->relay == RELAY_SPLICE ? 0 : RELAY_BULK_STREAK;
}

static void flow_judge_bulk(struct worker *w, struct flow *f, uint32_t filled)
{
    if (filled < w->buffers.size)
        f->streak = 0;
    else if (f->streak < UINT8_MAX)
        f->streak++;
    if (w->config->relay == RELAY_COPY || f->flags & FLOW_COPY_ONLY) return;
    if (f->streak >= flow_bulk_streak(w, f)) f->flags |= FLOW_TURNING;
}

/* A receive that was armed before the sink was gone. */
static void flow_on_lost(struct worker *w, struct session *s, enum session_side from, const struct ring_completion *c)
{
    if (c->has_buffer) buffers_return(&w->buffers, c->buffer);
    if (c->result > 0)
        s->lost = true;
    else if (c->result == 0)
        s->flows[from].phase = FLOW_DONE;
    else if (c->result != -ECANCELED && c->result != -ENOBUFS)
        relay_reset(w, s, from, c->result);
}

static void flow_on_received(struct worker *w, struct session *s, enum session_side from,
                             const struct ring_completion *c)
{
    struct flow *f = &s->flows[from];
    if (f->phase == FLOW_LOST) {
        flow_on_lost(w, s, from, c);
        return;
    }
    if (c->result > 0) {
        assert(c->has_buffer);
        buffers_append(&w->buffers, &f->held, c->buffer, (uint32_t)c->result);
        flow_judge_bulk(w, f, (uint32_t)c->result);
    } else if (c->has_buffer) {
        buffers_return(&w->buffers, c->buffer);
    }
    if (c->result == 0) {
        f->phase = FLOW_ENDING;
        if (relay_in_flight(s, SESSION_SEND + from)) relay_prove_end(s, from);
    } else if (c->result == -ENOBUFS) {
        scarcity_starve(w, f);
    } else if (c->result < 0 && c->result != -ECANCELED) {
        relay_reset(w, s, from, c->result);
        return;
    }
    relay_advance(w, s, from);
    relay_prove_slow_end(s, from);
}

/* One receive of what the sink takes at once. Without room the octets stay with the kernel, which tells the source to
 * stop, and no buffer waits for the sink. */
static void flow_receive_once(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    uint32_t room = net_send_room(s->fd[relay_other(from)]);
    if (room < RELAY_ROOM_MIN && !(f->flags & FLOW_WRITABLE)) {
        f->flags |= FLOW_WAITED;
        ring_poll(w->ring, s->fd[relay_other(from)], POLLOUT, session_arm(w, s, SESSION_POLL_OUT + relay_other(from)));
        return;
    }
    f->flags &= (uint16_t)~FLOW_WRITABLE;
    if (room < RELAY_ROOM_MIN) room = RELAY_ROOM_MIN;
    if (room > w->buffers.size) room = w->buffers.size;
    ring_recv_group_once(w->ring, s->fd[from], w->buffers.group, room, session_arm(w, s, SESSION_RECV + from));
}

/* Keeps the receive armed while little is held, stops it when more is. After a stop, or where buffers are scarce, the
 * flow receives one buffer at a time: a peer that reads slowly must not hold what others need. */
static void flow_receive(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    unsigned op = SESSION_RECV + from;
    if (relay_in_flight(s, SESSION_POLL_OUT + relay_other(from))) return;
    if (f->phase != FLOW_OPEN || f->flags & FLOW_STARVED || f->early_left > 0) return;
    bool enough = f->flags & FLOW_TURNING || f->held.count >= RELAY_HELD_MAX;
    if (enough && !(f->flags & (FLOW_PAUSED | FLOW_SINGLE))) {
        f->flags |= FLOW_PAUSED;
        if (relay_in_flight(s, op)) ring_cancel(w->ring, session_tag(w, s, op));
    }
    if (relay_in_flight(s, op)) return;
    if (f->flags & FLOW_TURNING || (f->held.count > 0 && f->flags & (FLOW_PAUSED | FLOW_SINGLE))) return;
    if (f->flags & FLOW_PAUSED) f->flags = (uint16_t)((f->flags & ~FLOW_PAUSED) | FLOW_SINGLE);
    if (f->streak > 0 && f->held.count > 0) return; /* much is coming: after this is sent */
    if (!(f->flags & FLOW_SINGLE) && !w->scarce)
        ring_recv_group(w->ring, s->fd[from], w->buffers.group, w->buffers.size, session_arm(w, s, op));
    else if (f->held.count == 0)
        flow_receive_once(w, s, from);
}

/* --- both --- */

void relay_finish_flow(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    relay_return_pipe(w, f);
    f->phase = FLOW_DONE;
    if (s->flows[relay_other(from)].phase >= FLOW_DONE) {
        parting_end_relay(w, s, relay_other(from));
        return;
    }
    if (s->protocol == PROTOCOL_INTERNAL && from == CLIENT) { /* the coordinator has what it wanted, or gave up */
        session_close(w, s, SESSION_ORDERLY);
        return;
    }
    net_shutdown_write(s->fd[relay_other(from)]);
    s->moved_ms = ring_now_ms(w->ring); /* the time of a half-closed relay begins */
    timer_set(w->timers, s->slot, ring_now_ms(w->ring) + RELAY_WATCH_MS);
}

/* The one function that runs a flow: looks at what is held and in flight, and starts what is missing. */
void relay_advance(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (s->state != SESSION_RELAY || f->phase == FLOW_IDLE || f->phase >= FLOW_DONE) return;
    if (f->mode == FLOW_SPLICE) {
        relay_splice(w, s, from);
        return;
    }
    flow_take_early(w, s, from);
    if (!relay_in_flight(s, SESSION_SEND + relay_other(from))) {
        if (f->held.count > 0) {
            flow_send(w, s, from);
        } else if (f->early_left > 0) {
            return; /* no buffer is spare */
        } else if (f->phase == FLOW_ENDING) {
            relay_finish_flow(w, s, from);
            return;
        } else if (f->flags & FLOW_TURNING && !relay_in_flight(s, SESSION_RECV + from)) {
            relay_turn_to_splice(w, s, from);
            return;
        }
    }
    flow_receive(w, s, from);
}

static void flow_begin(struct worker *w, struct session *s, enum session_side from, const uint8_t *early, uint32_t size,
                       uint32_t own)
{
    struct flow *f = &s->flows[from];
    f->phase = FLOW_OPEN;
    f->early = early;
    f->early_left = size;
    f->own = own;
    if (s->protocol == PROTOCOL_INTERNAL) f->flags |= FLOW_INTERNAL;
    if (w->config->relay == RELAY_SPLICE) f->flags |= FLOW_TURNING;
}

static void relay_open(struct worker *w, struct session *s)
{
    const struct setup *setup = setup_of(w, s);
    uint32_t out = setup->out_used - setup->out_sent;
    assert(out >= setup->hop_received); /* which stands behind the reply, see hop_finish() */
    flow_begin(w, s, CLIENT, setup->head.data + setup->consumed, setup->received - setup->consumed, 0);
    flow_begin(w, s, UPSTREAM, setup->out + setup->out_sent, out, out - setup->hop_received);
    relay_leave_setup(w, s);
    relay_advance(w, s, UPSTREAM);
    relay_advance(w, s, CLIENT);
}

/* A word of the handshake may still be on its way to the client, who has not waited for it: then the reply waits. */
void relay_begin(struct worker *w, struct session *s)
{
    static const struct flow idle = {
        .phase = FLOW_IDLE, .mode = FLOW_COPY, .pipe = PIPES_NONE, .held = {BUFFERS_NONE, BUFFERS_NONE, 0}};
    s->moved_ms = ring_now_ms(w->ring);
    s->flows[CLIENT] = s->flows[UPSTREAM] = idle;
    link_init(&s->flows[CLIENT].link);
    link_init(&s->flows[UPSTREAM].link);
    if (!relay_in_flight(s, SESSION_SEND + CLIENT)) relay_open(w, s);
}

/* That word is sent. A send that an error has cut says how far it came, and has consumed the error. */
static void relay_on_word_sent(struct worker *w, struct session *s, int32_t result)
{
    if (result <= 0 || net_is_closed(s->fd[CLIENT])) {
        relay_reset(w, s, CLIENT, result);
        return;
    }
    setup_of(w, s)->out_sent += (uint32_t)result;
    session_count_reply(w, s, (uint64_t)result);
    relay_open(w, s);
}

static void relay_on_watch(struct worker *w, struct session *s, enum session_side side, int32_t result)
{
    /* POLLHUP alone: both directions have ended in order, and what was received before may still be unread. The same
     * goes for the orderly end that the watch of a BIND looks for, too. */
    struct flow *f = &s->flows[side];
    if (result < 0) return;
    if (result & POLLERR && net_take_error(s->fd[side]) == -EPIPE) f->flags |= FLOW_PROVEN;
    bool gone = result & POLLHUP && f->flags & FLOW_PROVEN && s->flows[relay_other(side)].phase == FLOW_OPEN;
    if (result & POLLERR || gone) relay_reset(w, s, side, -ECONNRESET);
}

/* The sink of the flow takes something. */
static void flow_on_writable(struct worker *w, struct session *s, enum session_side from)
{
    s->flows[from].flags |= FLOW_WRITABLE;
    relay_advance(w, s, from);
}

void relay_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c)
{
    switch (op) {
    case SESSION_RECV + CLIENT: flow_on_received(w, s, CLIENT, c); return;
    case SESSION_RECV + UPSTREAM: flow_on_received(w, s, UPSTREAM, c); return;
    case SESSION_SEND + UPSTREAM: flow_on_sent(w, s, CLIENT, c->result); return;
    case SESSION_SEND + CLIENT:
        if (s->flows[UPSTREAM].phase == FLOW_IDLE)
            relay_on_word_sent(w, s, c->result);
        else
            flow_on_sent(w, s, UPSTREAM, c->result);
        return;
    case SESSION_POLL_IN + CLIENT: relay_advance(w, s, CLIENT); return;
    case SESSION_POLL_IN + UPSTREAM: relay_advance(w, s, UPSTREAM); return;
    case SESSION_POLL_OUT + CLIENT: flow_on_writable(w, s, UPSTREAM); return;
    case SESSION_POLL_OUT + UPSTREAM: flow_on_writable(w, s, CLIENT); return;
    case SESSION_WATCH + CLIENT: relay_on_watch(w, s, CLIENT, c->result); return;
    case SESSION_WATCH + UPSTREAM: relay_on_watch(w, s, UPSTREAM, c->result); return;
    default: return; /* a connect that lost its race */
    }
}

/* --- time --- */

/* A side whose sending direction has ended is not read any more; only this notices that it resets. */
static void relay_watch_side(struct worker *w, struct session *s, enum session_side side)
{
    if (s->flows[side].phase != FLOW_DONE || relay_in_flight(s, SESSION_WATCH + side)) return;
    relay_prove_end(s, side);
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
    session_log(w, s, LOG_LEVEL_DEBUG,
                s->protocol == PROTOCOL_INTERNAL      ? "closed: the call is over"
                : limit == w->config->idle_timeout_ms ? "closed: nothing moved for --idle-timeout seconds"
                                                      : "closed: half-closed, nothing moved for --half-close-timeout");
    session_close(w, s, SESSION_RESET);
    return false;
}

void relay_on_timer(struct worker *w, struct session *s)
{
    session_settle(w, s);
    relay_watch_side(w, s, CLIENT);
    relay_watch_side(w, s, UPSTREAM);
    if (!relay_judge_idle(w, s) || relay_limit_ms(w, s) == 0) return;
    uint32_t quarter = relay_limit_ms(w, s) / 4;
    timer_set(w->timers, s->slot, ring_now_ms(w->ring) + (quarter > TIMER_TICK_MS ? quarter : TIMER_TICK_MS));
}

/* --- the end --- */

void relay_drop(struct worker *w, struct session *s)
{
    flow_drop(w, s, CLIENT);
    flow_drop(w, s, UPSTREAM);
}

void relay_release(struct worker *w, struct session *s)
{
    assert(s->inflight == 0);
    buffers_drop_all(&w->buffers, &s->flows[CLIENT].held);
    buffers_drop_all(&w->buffers, &s->flows[UPSTREAM].held);
}
