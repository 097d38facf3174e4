/* The half of a flow that moves octets by splice(2), through pipes that a flow borrows for as long as something is in
 * them; and the rests of bulk flows. */
#include <errno.h>
#include <poll.h>

#include "core/io/net.h"
#include "core/session/flow.h"
#include "core/session/flow_private.h"
#include "core/session/hooks.h"
#include "core/session/limited.h"

/* Rounds of splicing in a row that move less than FLOW_SMALL before a flow turns back to COPY. */
#define FLOW_SMALL_STREAK 8u
#define FLOW_SMALL        16384u
/* Fills and drains of the pipe per turn: one busy flow must not keep the others waiting. */
#define FLOW_SPLICE_ROUNDS 4u
/* Visits in a row that did not wait for the sink before it is taken for a fast one again. */
#define FLOW_FAST_STREAK 16u
/* The share of the pipes that flows may hold without a look at what their sinks take. */
#define FLOW_PIPES_SHARE 8u

void flow_return_pipe(struct worker *w, struct flow *f)
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
    f->flags &=
        (uint16_t) ~(FLOW_TURNING | FLOW_PAUSED | FLOW_SINGLE | FLOW_CUT | FLOW_READABLE | FLOW_DRY | FLOW_VAIN);
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

/* Socket to pipe. Octets moved; 0 when nothing was to be had (which says end, dry or full: see phase and pipe_fill); <
 * 0: broken. The opposite flow's splice may have met the reset of this socket in the middle of a call: it then reports
 * what it had moved, and the error is consumed, so that what is read next looks like an orderly end. -EAGAIN: the
 * source holds octets in front of its end that only a receive gets, see net_holds_octets(). */
static ssize_t splice_fill(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    const struct pipe *pipe = &w->pipes.all[f->pipe];
    if (f->phase != FLOW_OPEN || f->pipe_fill > 0) return 0;
    uint32_t wanted = (uint32_t)flow_bound(f, f->room < pipe->size ? f->room : pipe->size);
    uint32_t size = flow_grant(w, s, from, wanted);
    if (size == 0) return 0;
    ssize_t moved = net_splice(s->fd[from], pipe->write_fd, size, false);
    limited_settle(w, s, from, moved > 0 ? (uint32_t)moved : 0);
    if (moved == (ssize_t)size && size < wanted) f->flags |= FLOW_CUT;
    if (moved == 0 && net_was_cut(s->fd[from])) return -ECONNRESET;
    if (moved == 0 && net_holds_octets(s->fd[from])) return -EAGAIN;
    if (moved == 0) f->phase = FLOW_ENDING;
    if (moved > 0) {
        f->pipe_fill += (uint32_t)moved;
        flow_take(f, (uint64_t)moved);
    }
    return moved == -EAGAIN ? 0 : moved; /* dry */
}

/* Pipe to socket: octets moved, 0 when the socket takes no more, < 0: broken. */
static ssize_t splice_drain(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (f->pipe_fill == 0) return 0;
    ssize_t moved = net_splice(w->pipes.all[f->pipe].read_fd, s->fd[flow_sink(from)], f->pipe_fill, false);
    if (moved > 0) {
        f->pipe_fill -= (uint32_t)moved;
        f->room -= (uint32_t)moved < f->room ? (uint32_t)moved : f->room;
        w->bulk_left -= (uint32_t)moved < w->bulk_left ? (uint32_t)moved : w->bulk_left;
        flow_count(w, s, from, (uint64_t)moved);
    }
    return moved == -EAGAIN ? 0 : moved;
}

/* --- resting --- */

static uint32_t rest_entry(const struct session *s, enum session_side from)
{
    return s->slot * 2 + from;
}

void flow_rest(struct worker *w, struct session *s, enum session_side from, uint64_t until_us)
{
    struct flow *f = &s->flows[from];
    assert(!(f->flags & (FLOW_RESTING | FLOW_STARVED)));
    f->flags |= FLOW_RESTING;
    timer_set(w->rests, rest_entry(s, from), until_us);
}

/* This turn's work is done: the flow goes on in the next one, behind those that wait already. */
static void flow_defer(struct worker *w, struct flow *f)
{
    assert(!(f->flags & (FLOW_RESTING | FLOW_STARVED)));
    f->flags |= FLOW_RESTING;
    link_append(&w->deferred, &f->link);
}

void flow_end_rest(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (!(f->flags & FLOW_RESTING)) return;
    f->flags &= (uint16_t)~FLOW_RESTING;
    link_remove(&f->link);
    timer_clear(w->rests, rest_entry(s, from));
}

uint64_t flow_rest_us(const struct worker *w)
{
    return link_is_empty(&w->deferred) ? timer_wait_exact(w->rests, ring_now_us(w->ring)) : 0;
}

static void flow_go_on(struct worker *w, struct session *s, enum session_side from)
{
    flow_end_rest(w, s, from);
    if (flow_is_open(&s->flows[from]))
        flow_advance(w, s, from);
    else
        session_hook_due(w, s, from);
}

void flow_hurry(struct worker *w, struct session *s, enum session_side from)
{
    if (s->flows[from].flags & FLOW_RESTING) flow_go_on(w, s, from);
}

void flow_wake_resting(struct worker *w)
{
    uint64_t now = ring_now_us(w->ring);
    for (uint32_t entry; (entry = timer_expire(w->rests, now)) != TIMER_NONE;)
        link_append(&w->deferred, &session_at(w, entry / 2)->flows[entry % 2].link);
    while (w->bulk_left > 0 && !link_is_empty(&w->deferred)) {
        enum session_side from;
        struct session *s = flow_session_of(w, link_owner(w->deferred.next, struct flow, link), &from);
        flow_go_on(w, s, from);
    }
}

/* The sink took less than was in the pipe. */
static void splice_on_slow_sink(struct flow *f)
{
    f->room = 0;
    f->prompt = 0;
    f->flags |= FLOW_SLOW;
}

/* A visit has ended without waiting for the sink. */
static void splice_judge_sink(struct flow *f)
{
    if (f->flags & FLOW_SLOW && ++f->prompt >= FLOW_FAST_STREAK) f->flags &= (uint16_t)~FLOW_SLOW;
}

/* The source is dry: for how long is the flow left alone? */
static uint32_t splice_rest_us(struct worker *w, struct session *s, enum session_side from, uint64_t moved)
{
    struct flow_pace *pace = &s->flows[from].pace;
    if (flow_pace_window_is_old(pace)) flow_pace_set_window(pace, net_receive_buffer(s->fd[from]));
    return flow_pace_visit(pace, moved, s->flows[flow_sink(from)].bytes, ring_now_us(w->ring));
}

/* Nothing is in the pipe, and the source has nothing now: it sleeps without a pipe. */
static void splice_pause(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    uint64_t moved = f->visit;
    f->visit = 0;
    flow_return_pipe(w, f);
    splice_judge_sink(f);
    if (moved >= FLOW_SMALL)
        f->streak = 0;
    else
        f->streak++;
    bool small = f->streak >= FLOW_SMALL_STREAK && w->config->relay != RELAY_SPLICE;
    /* It was woken and got nothing: without a look it would be woken for the same octets again and again. The first
     * time they may have come behind the splice. */
    bool vain = moved == 0 && net_holds_octets(s->fd[from]), again = vain && f->flags & FLOW_VAIN;
    f->flags = (uint16_t)(vain ? f->flags | FLOW_VAIN : f->flags & ~FLOW_VAIN);
    if (small || again) {
        flow_turn_to_copy(w, s, from);
        return;
    }
    uint32_t rest = splice_rest_us(w, s, from, moved);
    if (rest > 0)
        flow_rest(w, s, from, ring_now_us(w->ring) + rest);
    else
        ring_poll(w->ring, s->fd[from], POLLIN, session_arm(w, s, SESSION_POLL_IN + from));
}

static void splice_wait_for_sink(struct worker *w, struct session *s, enum session_side from)
{
    ring_poll(w->ring, s->fd[flow_sink(from)], POLLOUT, session_arm(w, s, SESSION_POLL_OUT + flow_sink(from)));
}

/* Whether the sink takes anything. To ask costs a system call, so a sink is taken for a fast one until it proves slow,
 * or until pipes get scarce. Then only what it takes is put into the pipe, so that a flow whose sink is slow waits
 * without one, and the others have pipes however many such flows there are; asked again only when what was known is
 * used up. */
static bool splice_has_room(const struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (!(f->flags & FLOW_SLOW) && pipes_lent(&w->pipes) <= w->pipes.count / FLOW_PIPES_SHARE) f->room = UINT32_MAX;
    if (f->room == 0) f->room = net_send_room(s->fd[flow_sink(from)]);
    if (f->room == 0 && f->flags & FLOW_WRITABLE) f->room = FLOW_ROOM_MIN;
    f->flags &= (uint16_t)~FLOW_WRITABLE;
    return f->room > 0;
}

/* A round has taken `in` octets from the source. False: the visit is over, and what follows is arranged. */
static bool splice_goes_on(struct worker *w, struct session *s, enum session_side from, ssize_t in)
{
    struct flow *f = &s->flows[from];
    bool cut = f->flags & FLOW_CUT;
    if (f->pipe_fill == 0 && (s->spent || f->flags & FLOW_RESTING)) { /* its limits let it move nothing now */
        flow_return_pipe(w, f);
        if (s->spent) flow_cut(w, s, from);
        return false;
    }
    if (f->pipe_fill > 0) {
        splice_on_slow_sink(f);
        splice_wait_for_sink(w, s, from);
        return false;
    }
    if (f->phase == FLOW_ENDING) {
        flow_finish(w, s, from);
        return false;
    }
    f->flags &= (uint16_t)~FLOW_CUT;
    if (in >= (ssize_t)(w->pipes.all[f->pipe].size / 2) || cut) return true;
    splice_pause(w, s, from);
    return false;
}

/* Fills the pipe and drains it once; the same result. */
static bool splice_round(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (f->pipe_fill == 0 && f->phase == FLOW_OPEN && !splice_has_room(w, s, from)) {
        flow_return_pipe(w, f);
        splice_wait_for_sink(w, s, from);
        return false;
    }
    ssize_t in = splice_fill(w, s, from);
    if ((in == -EINVAL || in == -EAGAIN) && f->pipe_fill == 0) {
        if (in == -EINVAL) f->flags |= FLOW_COPY_ONLY;
        flow_turn_to_copy(w, s, from);
        return false;
    }
    ssize_t out = in < 0 ? in : splice_drain(w, s, from);
    if (in < 0 || out < 0) {
        f->owner->broken(w, s, from, in < 0 ? from : flow_sink(from), in < 0 ? in : out);
        return false;
    }
    f->visit += (uint64_t)out;
    return splice_goes_on(w, s, from, in);
}

void flow_splice(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (flow_in_flight(s, SESSION_POLL_IN + from) || flow_in_flight(s, SESSION_POLL_OUT + flow_sink(from))) return;
    if (f->flags & FLOW_RESTING) return;
    if (w->bulk_left == 0) {
        flow_defer(w, f);
        return;
    }
    if (!flow_borrow_pipe(w, s, from)) return;
    for (unsigned round = 0; round < FLOW_SPLICE_ROUNDS && w->bulk_left > 0; round++)
        if (!splice_round(w, s, from)) return;
    flow_return_pipe(w, f);
    flow_defer(w, f);
}

void flow_turn_to_splice(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    f->mode = FLOW_SPLICE;
    f->streak = 0;
    f->flags &= (uint16_t) ~(FLOW_TURNING | FLOW_PAUSED | FLOW_SINGLE | FLOW_READABLE | FLOW_DRY);
    f->visit = 0;
    flow_pace_begin(&f->pace, w->config->pipe_size, s->flows[flow_sink(from)].bytes, ring_now_us(w->ring));
    counter_add(&w->stats.to_splice, 1);
    flow_splice(w, s, from);
}
