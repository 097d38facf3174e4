#include "relay.h"

#include <errno.h>
#include <poll.h>

#include "log.h"
#include "parting.h"
#include "scarcity.h"
#include "worker.h"

/* Reads in a row that fill a whole buffer before a flow counts as bulk and turns to SPLICE. */
#define RELAY_BULK_STREAK 4u
/* The same when there was no pipe the last time: asking again must not cost more than copying. */
#define RELAY_BULK_STREAK_PATIENT 64u
/* Rounds of splicing in a row that move less than RELAY_SMALL before a flow turns back to COPY. */
#define RELAY_SMALL_STREAK 8u
#define RELAY_SMALL        16384u
/* Buffers that a flow may hold before its receive is stopped: one is being sent, and another shows that the sink is
 * slower. From then on it holds one at most. */
#define RELAY_HELD_MAX 2u
/* Sends in a row that leave nothing held before such a flow may receive ahead again. */
#define RELAY_PROMPT_STREAK 32u
/* With less room the sink is waited for; what a sink takes at least that poll(2) calls writable. */
#define RELAY_ROOM_MIN 2048u
/* Fills and drains of the pipe per turn: one busy flow must not keep the others waiting. */
#define RELAY_SPLICE_ROUNDS 4u
/* A flow that has moved so much in one go rests for so long. */
#define RELAY_REST_MIN 65536u
#define RELAY_REST_US  300u
/* How soon a half-closed session looks after the side that it does not read from any more. */
#define RELAY_WATCH_MS 1000u

static void flow_advance(struct worker *w, struct session *s, enum session_side from);

static enum session_side other(enum session_side side)
{
    return side == CLIENT ? UPSTREAM : CLIENT;
}

static bool in_flight(const struct session *s, unsigned op)
{
    return (s->inflight & SESSION_BIT(op)) != 0;
}

static void flow_count(struct worker *w, struct flow *f, enum session_side from, uint64_t octets)
{
    f->bytes += octets;
    if (f->flags & FLOW_INTERNAL) return;
    counter_add(from == CLIENT ? &w->stats.bytes_up : &w->stats.bytes_down, octets);
    counter_add(f->mode == FLOW_SPLICE ? &w->stats.bytes_splice : &w->stats.bytes_copy, octets);
}

/* An error on one side: what the other has not got yet is lost, and it must not take that for an orderly end. Nor must
 * the peer on this side, unless the error says that it is not there any more: then the cheaper end will do. */
static void relay_reset(struct worker *w, struct session *s, enum session_side side, ssize_t error)
{
    if (error == -ECONNRESET || error == -EPIPE) session_drop_side(w, s, side, SESSION_ORDERLY);
    session_close(w, s, SESSION_RESET);
}

/* --- the octets that came before the relay --- */

static size_t preload_of(struct worker *w, struct session *s, enum session_side from, const uint8_t **data)
{
    struct setup *setup = setup_of(w, s);
    if (from == CLIENT) {
        *data = setup->head.data + setup->consumed;
        return setup->received - setup->consumed;
    }
    *data = setup->out + setup->out_sent;
    return setup->out_used - setup->out_sent;
}

/* The first of them are sent. Returns how many count as relayed: our own reply does not. */
static size_t preload_consume(struct worker *w, struct session *s, enum session_side from, size_t octets)
{
    struct setup *setup = setup_of(w, s);
    if (from == CLIENT) {
        setup->consumed += (uint32_t)octets;
        return octets;
    }
    uint32_t before = setup->out_sent > setup->out_reply ? setup->out_sent : setup->out_reply;
    setup->out_sent += (uint32_t)octets;
    size_t relayed = setup->out_sent > before ? setup->out_sent - before : 0;
    counter_add(&w->stats.handshake_out, octets - relayed);
    return relayed;
}

/* The last of the setup slot's octets are sent: what remains of the session is small. */
static void preload_finish(struct worker *w, struct session *s, struct flow *f)
{
    f->flags &= (uint16_t)~FLOW_PRELOADED;
    if (!((s->flows[CLIENT].flags | s->flows[UPSTREAM].flags) & FLOW_PRELOADED)) session_release_setup(w, s);
}

/* --- COPY --- */

static void flow_send(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    const uint8_t *data;
    size_t size;
    if (f->flags & FLOW_PRELOADED) {
        size = preload_of(w, s, from, &data);
    } else {
        data = buffers_at(&w->buffers, f->held.first) + f->offset;
        size = w->buffers.filled[f->held.first] - f->offset;
    }
    assert(size > 0);
    if (f->flags & FLOW_PRELOADED && from == UPSTREAM) setup_of(w, s)->out_asked = (uint32_t)size;
    ring_send(w->ring, s->fd[other(from)], data, size, session_arm(w, s, SESSION_SEND + other(from)));
}

/* What the send that has just completed was to send. To the client it may have begun before the relay did. */
static size_t flow_asked(struct worker *w, struct session *s, enum session_side from)
{
    const struct flow *f = &s->flows[from];
    const uint8_t *data;
    if (!(f->flags & FLOW_PRELOADED)) return w->buffers.filled[f->held.first] - f->offset;
    return from == UPSTREAM ? setup_of(w, s)->out_asked : preload_of(w, s, from, &data);
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
        relay_reset(w, s, other(from), result);
        return;
    }
    bool whole = (size_t)result == flow_asked(w, s, from);
    if (f->flags & FLOW_PRELOADED) {
        const uint8_t *data;
        flow_count(w, f, from, preload_consume(w, s, from, (size_t)result));
        if (preload_of(w, s, from, &data) == 0) preload_finish(w, s, f);
    } else {
        flow_count(w, f, from, (uint64_t)result);
        f->offset += (uint32_t)result;
        assert(f->offset <= w->buffers.filled[f->held.first]);
        if (f->offset == w->buffers.filled[f->held.first]) {
            buffers_drop_first(&w->buffers, &f->held);
            f->offset = 0;
            flow_judge_sink(f);
        }
    }
    /* An error has cut it, and that was the only notice: the receive may now find what looks like an orderly end. */
    if (whole)
        flow_advance(w, s, from);
    else
        relay_reset(w, s, other(from), 0); /* unknown */
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

static void flow_on_received(struct worker *w, struct session *s, enum session_side from,
                             const struct ring_completion *c)
{
    struct flow *f = &s->flows[from];
    if (c->result > 0) {
        assert(c->has_buffer);
        buffers_append(&w->buffers, &f->held, c->buffer, (uint32_t)c->result);
        flow_judge_bulk(w, f, (uint32_t)c->result);
    } else if (c->has_buffer) {
        buffers_return(&w->buffers, c->buffer);
    }
    if (c->result == 0) {
        f->phase = FLOW_ENDING;
    } else if (c->result == -ENOBUFS) {
        scarcity_starve(w, f);
    } else if (c->result < 0 && c->result != -ECANCELED) {
        relay_reset(w, s, from, c->result);
        return;
    }
    flow_advance(w, s, from);
}

/* One receive of what the sink takes at once. Without room the octets stay with the kernel, which tells the source to
 * stop, and no buffer waits for the sink. */
static void flow_receive_once(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    uint32_t room = net_send_room(s->fd[other(from)]);
    if (room < RELAY_ROOM_MIN && !(f->flags & FLOW_WRITABLE)) {
        f->flags |= FLOW_WAITED;
        ring_poll(w->ring, s->fd[other(from)], POLLOUT, session_arm(w, s, SESSION_POLL_OUT + other(from)));
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
    if (in_flight(s, SESSION_POLL_OUT + other(from))) return;
    if (f->phase != FLOW_OPEN || f->flags & FLOW_STARVED) return;
    bool enough = f->flags & FLOW_TURNING || f->held.count >= RELAY_HELD_MAX;
    if (in_flight(s, op)) {
        if (!enough || f->flags & (FLOW_PAUSED | FLOW_SINGLE)) return;
        f->flags |= FLOW_PAUSED;
        ring_cancel(w->ring, session_tag(w, s, op));
        return;
    }
    if (f->flags & FLOW_TURNING || (f->held.count > 0 && f->flags & (FLOW_PAUSED | FLOW_SINGLE))) return;
    if (f->flags & FLOW_PAUSED) f->flags = (uint16_t)((f->flags & ~FLOW_PAUSED) | FLOW_SINGLE);
    if (f->streak > 0 && f->held.count > 0) return; /* much is coming: after this is sent */
    if (!(f->flags & FLOW_SINGLE) && !w->scarce)
        ring_recv_group(w->ring, s->fd[from], w->buffers.group, w->buffers.size, session_arm(w, s, op));
    else if (f->held.count == 0 && !(f->flags & FLOW_PRELOADED))
        flow_receive_once(w, s, from);
}

/* --- SPLICE --- */

static void flow_return_pipe(struct worker *w, struct flow *f)
{
    if (f->pipe == PIPES_NONE) return;
    if (f->pipe_fill == 0)
        pipes_give(&w->pipes, f->pipe);
    else
        pipes_destroy(&w->pipes, f->pipe);
    f->pipe = PIPES_NONE;
    f->pipe_fill = 0;
}

static void flow_turn_to_copy(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    assert(f->pipe_fill == 0);
    flow_return_pipe(w, f);
    f->mode = FLOW_COPY;
    f->streak = 0;
    f->flags &= (uint16_t) ~(FLOW_TURNING | FLOW_PAUSED | FLOW_SINGLE);
    counter_add(&w->stats.to_copy, 1);
    flow_advance(w, s, from);
}

static bool flow_borrow_pipe(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (f->pipe == PIPES_NONE) f->pipe = pipes_borrow(&w->pipes);
    if (f->pipe != PIPES_NONE) return true;
    counter_add(&w->stats.pipes_missing, 1);
    f->flags |= FLOW_PATIENT;
    flow_turn_to_copy(w, s, from);
    return false;
}

/* The opposite flow's splice may have met the reset of this socket in the middle of a call: it then reports what it had
 * moved, and the error is consumed. What looks like the end is one only if the connection is still there, or was ended
 * by both. */
static bool splice_end_is_reset(const struct session *s, enum session_side from)
{
    return s->flows[other(from)].phase != FLOW_DONE && net_is_closed(s->fd[from]);
}

/* Socket to pipe. Octets moved; 0 when nothing was to be had (which says end, dry or full: see phase and pipe_fill); <
 * 0: broken. */
static ssize_t splice_fill(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    const struct pipe *pipe = &w->pipes.all[f->pipe];
    if (f->phase != FLOW_OPEN || f->pipe_fill > 0) return 0;
    ssize_t moved = net_splice(s->fd[from], pipe->write_fd, f->room < pipe->size ? f->room : pipe->size, false);
    if (moved == 0 && splice_end_is_reset(s, from)) return -ECONNRESET;
    if (moved == 0) f->phase = FLOW_ENDING;
    if (moved > 0) f->pipe_fill += (uint32_t)moved;
    return moved == -EAGAIN ? 0 : moved;
}

/* Pipe to socket: octets moved, 0 when the socket takes no more, < 0: broken. */
static ssize_t splice_drain(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (f->pipe_fill == 0) return 0;
    ssize_t moved = net_splice(w->pipes.all[f->pipe].read_fd, s->fd[other(from)], f->pipe_fill, false);
    if (moved > 0) {
        f->pipe_fill -= (uint32_t)moved;
        f->room -= (uint32_t)moved < f->room ? (uint32_t)moved : f->room;
        w->bulk_left -= (uint32_t)moved < w->bulk_left ? (uint32_t)moved : w->bulk_left;
        flow_count(w, f, from, (uint64_t)moved);
    }
    return moved == -EAGAIN ? 0 : moved;
}

static void flow_finish(struct worker *w, struct session *s, enum session_side from);

/* --- resting --- */

static struct flow *resting_flow(const struct worker *w, uint32_t entry)
{
    return &session_at(w, entry / 2)->flows[entry % 2];
}

/* Polling a busy source at once would wake us for every few segments, and every wake-up of ours causes some of the
 * sink's. So a bulk flow is left alone for a moment, without a poll; what gathers meanwhile moves in one go. The slot
 * is pinned, as by an operation. */
static void flow_rest(struct worker *w, struct session *s, enum session_side from, uint64_t until_us)
{
    struct flow *f = &s->flows[from];
    uint32_t entry = s->slot * 2 + from;
    s->inflight |= SESSION_BIT(SESSION_REST + from);
    f->rest_until_us = until_us;
    f->rest_next = POOL_NONE;
    if (w->rest_first == POOL_NONE)
        w->rest_first = entry;
    else
        resting_flow(w, w->rest_last)->rest_next = entry;
    w->rest_last = entry;
}

/* This turn's work is done: the flow goes on in the next one, behind those that wait already. */
static void flow_defer(struct worker *w, struct session *s, enum session_side from)
{
    uint64_t until_us = ring_now_us(w->ring);
    if (w->rest_first != POOL_NONE && resting_flow(w, w->rest_last)->rest_until_us > until_us)
        until_us = resting_flow(w, w->rest_last)->rest_until_us;
    flow_rest(w, s, from, until_us);
}

uint64_t relay_rest_us(const struct worker *w)
{
    if (w->rest_first == POOL_NONE) return UINT64_MAX;
    uint64_t now = ring_now_us(w->ring), until = resting_flow(w, w->rest_first)->rest_until_us;
    return until > now ? until - now : 0;
}

void relay_wake_resting(struct worker *w)
{
    while (w->bulk_left > 0 && relay_rest_us(w) == 0) {
        uint32_t entry = w->rest_first;
        struct session *s = session_at(w, entry / 2);
        w->rest_first = resting_flow(w, entry)->rest_next;
        s->inflight &= ~SESSION_BIT(SESSION_REST + entry % 2);
        if (s->state == SESSION_CLOSING)
            session_join(w, s);
        else
            flow_advance(w, s, entry % 2);
    }
}

/* Nothing is in the pipe, and the source has nothing now: it sleeps without a pipe. */
static void splice_pause(struct worker *w, struct session *s, enum session_side from, uint64_t moved)
{
    struct flow *f = &s->flows[from];
    flow_return_pipe(w, f);
    if (moved >= RELAY_SMALL)
        f->streak = 0;
    else
        f->streak++;
    if (f->streak >= RELAY_SMALL_STREAK && w->config->relay != RELAY_SPLICE) {
        flow_turn_to_copy(w, s, from);
        return;
    }
    if (moved >= RELAY_REST_MIN)
        flow_rest(w, s, from, ring_now_us(w->ring) + RELAY_REST_US);
    else
        ring_poll(w->ring, s->fd[from], POLLIN, session_arm(w, s, SESSION_POLL_IN + from));
}

static void splice_wait_for_sink(struct worker *w, struct session *s, enum session_side from)
{
    ring_poll(w->ring, s->fd[other(from)], POLLOUT, session_arm(w, s, SESSION_POLL_OUT + other(from)));
}

/* Whether the sink takes anything: only so much is put into the pipe, so that a flow whose sink is slow waits without
 * one, and the others have pipes however many such flows there are. Asked again only when what was known is used up. */
static bool splice_has_room(struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (f->room == 0) f->room = net_send_room(s->fd[other(from)]);
    if (f->room == 0 && f->flags & FLOW_WRITABLE) f->room = RELAY_ROOM_MIN;
    f->flags &= (uint16_t)~FLOW_WRITABLE;
    return f->room > 0;
}

static void flow_splice(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    uint64_t total = 0;
    if (in_flight(s, SESSION_POLL_IN + from) || in_flight(s, SESSION_POLL_OUT + other(from))) return;
    if (in_flight(s, SESSION_REST + from)) return;
    if (w->bulk_left == 0) {
        flow_defer(w, s, from);
        return;
    }
    if (!flow_borrow_pipe(w, s, from)) return;
    for (unsigned round = 0; round < RELAY_SPLICE_ROUNDS; round++) {
        if (f->pipe_fill == 0 && f->phase == FLOW_OPEN && !splice_has_room(s, from)) {
            flow_return_pipe(w, f);
            splice_wait_for_sink(w, s, from);
            return;
        }
        ssize_t in = splice_fill(w, s, from);
        if (in == -EINVAL && f->pipe_fill == 0) {
            f->flags |= FLOW_COPY_ONLY;
            flow_turn_to_copy(w, s, from);
            return;
        }
        ssize_t out = in < 0 ? in : splice_drain(w, s, from);
        if (in < 0 || out < 0) {
            relay_reset(w, s, in < 0 ? from : other(from), in < 0 ? in : out);
            return;
        }
        total += (uint64_t)out;
        if (f->pipe_fill > 0) { /* the sink is the slower one, and took less than it had room for */
            f->room = 0;
            splice_wait_for_sink(w, s, from);
            return;
        }
        if (f->phase == FLOW_ENDING) {
            flow_finish(w, s, from);
            return;
        }
        if (w->bulk_left == 0) {
            flow_return_pipe(w, f);
            flow_defer(w, s, from);
            return;
        }
        if (in < (ssize_t)(w->pipes.all[f->pipe].size / 2)) break;
    }
    splice_pause(w, s, from, total);
}

static void flow_turn_to_splice(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    f->mode = FLOW_SPLICE;
    f->streak = 0;
    f->flags &= (uint16_t) ~(FLOW_TURNING | FLOW_PAUSED | FLOW_SINGLE);
    counter_add(&w->stats.to_splice, 1);
    flow_splice(w, s, from);
}

/* --- both --- */

static void flow_finish(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    flow_return_pipe(w, f);
    f->phase = FLOW_DONE;
    if (s->flows[other(from)].phase == FLOW_DONE) {
        parting_end_relay(w, s, other(from));
        return;
    }
    net_shutdown_write(s->fd[other(from)]);
    s->moved_ms = ring_now_ms(w->ring); /* the time of a half-closed relay begins */
    timer_set(w->timers, s->slot, ring_now_ms(w->ring) + RELAY_WATCH_MS);
}

/* The one function that runs a flow: looks at what is held and in flight, and starts what is missing. */
static void flow_advance(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (s->state != SESSION_RELAY || f->phase == FLOW_DONE) return;
    if (f->mode == FLOW_SPLICE) {
        flow_splice(w, s, from);
        return;
    }
    if (!in_flight(s, SESSION_SEND + other(from))) {
        bool pending = f->flags & FLOW_PRELOADED || f->held.count > 0;
        if (pending) {
            flow_send(w, s, from);
        } else if (f->phase == FLOW_ENDING) {
            flow_finish(w, s, from);
            return;
        } else if (f->flags & FLOW_TURNING && !in_flight(s, SESSION_RECV + from)) {
            flow_turn_to_splice(w, s, from);
            return;
        }
    }
    flow_receive(w, s, from);
}

static void flow_begin(struct worker *w, struct session *s, enum session_side from)
{
    const uint8_t *data;
    s->flows[from] =
        (struct flow){.phase = FLOW_OPEN, .mode = FLOW_COPY, .pipe = PIPES_NONE, .held = BUFFER_LIST_EMPTY};
    if (preload_of(w, s, from, &data) > 0) s->flows[from].flags = FLOW_PRELOADED;
    if (s->protocol == PROTOCOL_INTERNAL) s->flows[from].flags |= FLOW_INTERNAL;
    if (w->config->relay == RELAY_SPLICE) s->flows[from].flags |= FLOW_TURNING;
}

void relay_advance(struct worker *w, struct session *s, enum session_side from)
{
    flow_advance(w, s, from);
}

void relay_begin(struct worker *w, struct session *s)
{
    s->moved_ms = ring_now_ms(w->ring);
    flow_begin(w, s, CLIENT);
    flow_begin(w, s, UPSTREAM);
    if (!((s->flows[CLIENT].flags | s->flows[UPSTREAM].flags) & FLOW_PRELOADED)) session_release_setup(w, s);
    flow_advance(w, s, UPSTREAM);
    flow_advance(w, s, CLIENT);
}

static void relay_on_watch(struct worker *w, struct session *s, enum session_side side, int32_t result)
{
    /* POLLHUP alone: both directions have ended in order, and what was received before may still be unread. The same
     * goes for the orderly end that the watch of a BIND looks for, too. */
    if (result < 0 || !(result & POLLERR)) return;
    relay_reset(w, s, side, -ECONNRESET);
}

/* The sink of the flow takes something. */
static void flow_on_writable(struct worker *w, struct session *s, enum session_side from)
{
    s->flows[from].flags |= FLOW_WRITABLE;
    flow_advance(w, s, from);
}

void relay_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c)
{
    switch (op) {
    case SESSION_RECV + CLIENT: flow_on_received(w, s, CLIENT, c); return;
    case SESSION_RECV + UPSTREAM: flow_on_received(w, s, UPSTREAM, c); return;
    case SESSION_SEND + UPSTREAM: flow_on_sent(w, s, CLIENT, c->result); return;
    case SESSION_SEND + CLIENT: flow_on_sent(w, s, UPSTREAM, c->result); return;
    case SESSION_POLL_IN + CLIENT: flow_advance(w, s, CLIENT); return;
    case SESSION_POLL_IN + UPSTREAM: flow_advance(w, s, UPSTREAM); return;
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
    if (s->flows[side].phase != FLOW_DONE || in_flight(s, SESSION_WATCH + side)) return;
    ring_watch(w->ring, s->fd[side], session_arm(w, s, SESSION_WATCH + side));
}

static bool relay_is_half_closed(const struct session *s)
{
    return s->flows[CLIENT].phase == FLOW_DONE || s->flows[UPSTREAM].phase == FLOW_DONE;
}

/* How long nothing may move: 0: for ever. Of a half-closed relay the other end may be gone for good, and keepalive does
 * not tell: a host answers it for a program that waits for nothing any more. */
static uint32_t relay_limit_ms(const struct worker *w, const struct session *s)
{
    uint32_t idle = w->config->idle_timeout_ms, half = w->config->half_close_timeout_ms;
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
                limit == w->config->idle_timeout_ms ? "closed: nothing moved for --idle-timeout seconds"
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

static void flow_drop(struct worker *w, struct flow *f)
{
    if (f->flags & FLOW_STARVED) w->starved--;
    f->flags = 0;
    flow_return_pipe(w, f);
}

void relay_drop(struct worker *w, struct session *s)
{
    flow_drop(w, &s->flows[CLIENT]);
    flow_drop(w, &s->flows[UPSTREAM]);
}

void relay_release(struct worker *w, struct session *s)
{
    assert(s->inflight == 0);
    buffers_drop_all(&w->buffers, &s->flows[CLIENT].held);
    buffers_drop_all(&w->buffers, &s->flows[UPSTREAM].held);
}
