#include "core/session/flow.h"
#include "core/session/access.h"

#include <errno.h>
#include <poll.h>

#include "core/io/net.h"
#include "core/session/flow_private.h"
#include "core/session/limited.h"
#include "core/session/session.h"

/* Reads in a row that fill a whole buffer before a flow counts as bulk and turns to SPLICE. */
#define FLOW_BULK_STREAK 4u
/* The same when there was no pipe the last time: asking again must not cost more than copying. */
#define FLOW_BULK_STREAK_PATIENT 64u
/* Buffers that a flow may hold before its receive is stopped: what is being sent counts as one, and another shows that
 * the sink is slower. From then on it holds one at most. */
#define FLOW_HELD_MAX 2u
/* Buffers that one receive fills at most, and so one send. */
#define FLOW_BURST 4u
/* Sends in a row that leave nothing held before such a flow may receive ahead again. */
#define FLOW_PROMPT_STREAK 32u
/* --- beginning and end --- */

void flow_init(struct flow *f)
{
    *f = (struct flow){.phase = FLOW_IDLE, .mode = FLOW_COPY, .pipe = PIPES_NONE, .held = BUFFER_LIST_EMPTY};
    link_init(&f->link);
}

void flow_open(struct worker *w, struct session *s, enum session_side from, const struct flow_start *start)
{
    struct flow *f = &s->flows[from];
    uint64_t bytes = f->bytes, taken = f->taken;
    assert(f->phase == FLOW_IDLE || f->phase == FLOW_DONE);
    assert(f->held.count == 0 && f->pipe == PIPES_NONE);
    assert(start->limit > 0 && start->early_size <= start->limit);
    flow_init(f);
    f->phase = FLOW_OPEN;
    f->owner = start->owner;
    f->limit = start->limit;
    f->early = start->early;
    f->early_left = start->early_size;
    f->own = f->own_early = start->own;
    f->bytes = bytes;
    f->taken = taken;
    if (s->protocol == PROTOCOL_INTERNAL) f->flags |= FLOW_INTERNAL;
    if (w->config->relay == RELAY_SPLICE) f->flags |= FLOW_TURNING;
}

void flow_finish(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    flow_return_pipe(w, f);
    f->phase = FLOW_DONE;
    f->owner->done(w, s, from);
}

static void flow_break(struct worker *w, struct session *s, enum session_side from, enum session_side side,
                       ssize_t error)
{
    s->flows[from].owner->broken(w, s, from, side, error);
}

/* No buffer was to be had for it: see scarcity.h. */
static void flow_starve(struct worker *w, struct flow *f)
{
    counter_add(&w->stats.starved, 1);
    if (f->flags & FLOW_STARVED) return;
    f->flags |= FLOW_STARVED;
    link_append(&w->starved, &f->link);
}

void flow_feed(struct flow *f)
{
    if (!(f->flags & FLOW_STARVED)) return;
    f->flags &= (uint16_t)~FLOW_STARVED;
    link_remove(&f->link);
}

void flow_drop(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    flow_end_rest(w, s, from);
    flow_feed(f);
    limited_forget(w, s, from);
    f->flags &= FLOW_INTERNAL; /* a send that is in flight is counted as what it was */
    f->early_left = 0;
    if (flow_is_open(f)) f->phase = FLOW_IDLE;
    flow_return_pipe(w, f);
}

void flow_release(struct worker *w, struct session *s)
{
    buffers_drop_all(&w->buffers, &s->flows[CLIENT].held);
    buffers_drop_all(&w->buffers, &s->flows[UPSTREAM].held);
}

void flow_count(struct worker *w, struct session *s, enum session_side from, uint64_t octets)
{
    struct flow *f = &s->flows[from];
    f->bytes += octets;
    if (f->flags & FLOW_INTERNAL) return;
    limited_count(w, s, from, octets);
    if (w->access) access_count(w, s, from, octets, f->mode);
    counter_add(from == CLIENT ? &w->stats.bytes_up : &w->stats.bytes_down, octets);
    counter_add(f->mode == FLOW_SPLICE ? &w->stats.bytes_splice : &w->stats.bytes_copy, octets);
}

/* Our own reply does not count as relayed. */
static void flow_count_sent(struct worker *w, struct session *s, enum session_side from, uint32_t octets)
{
    struct flow *f = &s->flows[from];
    uint32_t own = octets < f->own ? octets : f->own;
    f->own -= own;
    if (own > 0) session_count_reply(w, s, own);
    flow_count(w, s, from, octets - own);
}

bool flow_count_send(struct worker *w, struct session *s, enum session_side side, int32_t result)
{
    struct flow *f = &s->flows[flow_sink(side)];
    if (f->sending == 0) return false;
    f->sending = 0;
    if (result > 0) flow_count_sent(w, s, flow_sink(side), (uint32_t)result);
    return true;
}

bool flow_sends(const struct session *s)
{
    return s->flows[CLIENT].sending > 0 || s->flows[UPSTREAM].sending > 0;
}

/* --- limits --- */

uint32_t flow_grant(struct worker *w, struct session *s, enum session_side from, uint32_t wanted)
{
    uint64_t again_us;
    if (!limited_is(s)) return wanted;
    if (s->spent) return 0;
    uint32_t octets = limited_take(w, s, from, wanted, &again_us);
    if (octets == 0 && again_us == LIMITED_SPENT) s->spent = true;
    if (octets == 0 && !s->spent) flow_rest(w, s, from, limited_wake_us(w, s, from, again_us));
    return octets;
}

static bool flow_is_drained(const struct session *s, enum session_side from)
{
    const struct flow *f = &s->flows[from];
    if (!flow_is_open(f)) return true;
    return f->held.count == 0 && f->pipe_fill == 0 && !flow_in_flight(s, SESSION_SEND + flow_sink(from)) &&
           !flow_in_flight(s, SESSION_RECV + from);
}

bool flow_cut(struct worker *w, struct session *s, enum session_side from)
{
    if (!flow_is_drained(s, CLIENT) || !flow_is_drained(s, UPSTREAM)) return false;
    s->flows[from].owner->spent(w, s, from);
    return true;
}

/* --- octets in memory --- */

/* How many of them may be taken now: our own reply is no traffic, and no limit's. */
static uint32_t flow_grant_early(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (f->early_left == f->own_early || f->flags & FLOW_RESTING) return f->own_early;
    return f->own_early + flow_grant(w, s, from, f->early_left - f->own_early);
}

static void flow_take_own(struct worker *w, struct session *s, enum session_side from, uint32_t taken)
{
    struct flow *f = &s->flows[from];
    uint32_t own = taken < f->own_early ? taken : f->own_early;
    f->own_early -= own;
    limited_settle(w, s, from, taken - own);
}

/* They are bounded as all that a flow holds, so that the rest of them waits where it is. */
static void flow_take_early(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (f->early_left == 0 || f->flags & (FLOW_STARVED | FLOW_RESTING)) return;
    while (f->early_left > 0 && f->held.count < FLOW_HELD_MAX) {
        uint32_t may = flow_grant_early(w, s, from);
        if (may == 0) return; /* it rests, or its quota is spent */
        uint32_t taken = buffers_copy(&w->buffers, &f->held, f->early, may);
        flow_take_own(w, s, from, taken);
        if (taken == 0) {
            flow_starve(w, f);
            return;
        }
        f->early += taken;
        f->early_left -= taken;
        flow_take(f, taken);
    }
    if (f->owner->emptied) f->owner->emptied(w, s);
}

/* --- COPY --- */

/* Octets of the first held buffers, as many as the send has. */
static uint32_t flow_gathered(const struct worker *w, const struct flow *f)
{
    uint32_t octets = 0;
    uint16_t buffer = f->held.first;
    for (unsigned i = 0; i < f->gathered; i++, buffer = w->buffers.next[buffer]) octets += w->buffers.filled[buffer];
    return octets;
}

/* All that is held, in one operation. */
static void flow_send(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    struct iovec parts[RING_PARTS_MAX];
    unsigned count = 0;
    for (uint16_t buffer = f->held.first; buffer != BUFFERS_NONE && count < RING_PARTS_MAX;
         buffer = w->buffers.next[buffer])
        parts[count++] = (struct iovec){buffers_at(&w->buffers, buffer), w->buffers.filled[buffer]};
    f->gathered = (uint8_t)ring_send_parts(w->ring, s->fd[flow_sink(from)], parts, count,
                                           session_arm(w, s, SESSION_SEND + flow_sink(from)));
    f->sending = flow_gathered(w, f);
}

/* Buffers are sent. */
static void flow_judge_sink(struct flow *f)
{
    if (!(f->flags & FLOW_SINGLE) || f->flags & FLOW_PAUSED) return;
    if (f->flags & FLOW_WAITED || f->streak > 0)
        f->prompt = 0;
    else if (++f->prompt >= FLOW_PROMPT_STREAK)
        f->flags &= (uint16_t)~FLOW_SINGLE;
    f->flags &= (uint16_t)~FLOW_WAITED;
}

static void flow_on_sent(struct worker *w, struct session *s, enum session_side from, int32_t result)
{
    struct flow *f = &s->flows[from];
    if (result <= 0) {
        flow_break(w, s, from, flow_sink(from), result);
        return;
    }
    assert((uint32_t)result <= flow_gathered(w, f));
    /* An error has cut it, and that was the only notice: the receive may now find what looks like an orderly end. */
    if ((uint32_t)result < flow_gathered(w, f)) {
        flow_break(w, s, from, flow_sink(from), 0); /* unknown */
        return;
    }
    for (; f->gathered > 0; f->gathered--) buffers_drop_first(&w->buffers, &f->held);
    flow_judge_sink(f);
    flow_advance(w, s, from);
}

static unsigned flow_bulk_streak(const struct worker *w, const struct flow *f)
{
    if (f->flags & FLOW_PATIENT) return FLOW_BULK_STREAK_PATIENT;
    return w->config->relay == RELAY_SPLICE ? 0 : FLOW_BULK_STREAK;
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
        flow_break(w, s, from, from, c->result);
}

/* A receive has filled a buffer and goes on: what follows in this turn is sent together with it. */
static bool flow_gather(struct worker *w, struct session *s, enum session_side from, const struct ring_completion *c)
{
    struct flow *f = &s->flows[from];
    if (!c->more || c->result != (int32_t)w->buffers.size || f->held.count >= RING_PARTS_MAX) return false;
    if (flow_in_flight(s, SESSION_SEND + flow_sink(from))) return false;
    if (f->flags & FLOW_GATHERS) return true;
    if (w->gather_count == WORKER_GATHER_MAX) return false;
    f->flags |= FLOW_GATHERS;
    w->gatherers[w->gather_count++] = (struct gatherer){s->slot, pool_generation(&w->sessions, s->slot), (uint8_t)from};
    return true;
}

void flow_send_gathered(struct worker *w)
{
    for (uint32_t i = 0; i < w->gather_count; i++) {
        const struct gatherer *g = &w->gatherers[i];
        struct session *s = session_at(w, g->slot);
        if (pool_generation(&w->sessions, g->slot) != g->generation) continue; /* it has ended in this turn */
        if (s->flows[g->from].flags & FLOW_GATHERS) flow_advance(w, s, g->from);
    }
    w->gather_count = 0;
}

static void flow_on_received(struct worker *w, struct session *s, enum session_side from,
                             const struct ring_completion *c)
{
    struct flow *f = &s->flows[from];
    if (f->phase == FLOW_LOST) {
        flow_on_lost(w, s, from, c);
        return;
    }
    if (f->granted > 0) f->flags |= c->result < (int64_t)f->granted ? FLOW_DRY : 0;
    limited_settle(w, s, from, c->result > 0 ? (uint32_t)c->result : 0);
    if (c->result > 0) {
        assert(c->has_buffer);
        buffers_append(&w->buffers, &f->held, c->buffer, (uint32_t)c->result);
        flow_take(f, (uint32_t)c->result);
        flow_judge_bulk(w, f, (uint32_t)c->result);
    } else if (c->has_buffer) {
        buffers_return(&w->buffers, c->buffer);
    }
    if (c->result == 0 && flow_in_flight(s, SESSION_SEND + from) && net_was_cut(s->fd[from])) {
        flow_break(w, s, from, from, -ECONNRESET); /* that send was told of the reset, and this seems to be an end */
        return;
    }
    if (flow_gather(w, s, from, c)) return;
    if (c->result == 0) {
        f->phase = FLOW_ENDING;
    } else if (c->result == -ENOBUFS) {
        flow_starve(w, f);
    } else if (c->result < 0 && c->result != -ECANCELED) {
        flow_break(w, s, from, from, c->result);
        return;
    }
    flow_advance(w, s, from);
}

static void flow_arm_once(struct worker *w, struct session *s, enum session_side from, size_t size)
{
    ring_recv_group_once(w->ring, s->fd[from], w->buffers.group, flow_bound(&s->flows[from], size),
                         session_arm(w, s, SESSION_RECV + from));
}

/* One receive of what the sink takes at once. Without room the octets stay with the kernel, which tells the source to
 * stop, and no buffer waits for the sink. */
static void flow_receive_once(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    uint32_t room = net_send_room(s->fd[flow_sink(from)]);
    if (room < FLOW_ROOM_MIN && !(f->flags & FLOW_WRITABLE)) {
        f->flags |= FLOW_WAITED;
        ring_poll(w->ring, s->fd[flow_sink(from)], POLLOUT, session_arm(w, s, SESSION_POLL_OUT + flow_sink(from)));
        return;
    }
    f->flags &= (uint16_t)~FLOW_WRITABLE;
    if (room < FLOW_ROOM_MIN) room = FLOW_ROOM_MIN;
    if (room > w->buffers.size) room = w->buffers.size;
    flow_arm_once(w, s, from, room);
}

/* Whether a receive would bring something, or the end. To ask costs a system call: nobody but the flow takes what is
 * there, and a source that had less than was asked for has most likely nothing yet, which a poll finds out as well. */
static bool flow_is_readable(struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    bool dry = f->flags & FLOW_DRY;
    f->flags &= (uint16_t)~FLOW_DRY;
    if (!(f->flags & FLOW_READABLE) && !dry && net_is_readable(s->fd[from])) f->flags |= FLOW_READABLE;
    return f->flags & FLOW_READABLE;
}

/* Under a limit: what is there stays with the kernel until the flow may take it, so that it holds nothing while it
 * waits, for octets or for its turn. */
static void flow_receive_limited(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (f->flags & (FLOW_RESTING | FLOW_TURNING) || f->held.count > 0) return;
    if (flow_in_flight(s, SESSION_RECV + from) || flow_in_flight(s, SESSION_POLL_IN + from)) return;
    if (!flow_is_readable(s, from)) {
        ring_poll(w->ring, s->fd[from], POLLIN, session_arm(w, s, SESSION_POLL_IN + from));
        return;
    }
    uint32_t size = flow_grant(w, s, from, (uint32_t)flow_bound(f, w->buffers.size));
    if (size == 0) return;
    f->flags &= (uint16_t)~FLOW_READABLE;
    flow_arm_once(w, s, from, size);
}

/* What follows the last octet that the flow may take is somebody else's, and ring_recv_group() may take less than a
 * buffer beyond what it is told. */
static void flow_arm(struct worker *w, struct session *s, enum session_side from)
{
    const struct flow *f = &s->flows[from];
    size_t size = w->buffers.size, most = flow_bound(f, (f->held.count == 0 ? FLOW_BURST : FLOW_HELD_MAX) * size);
    if (most > size)
        ring_recv_group(w->ring, s->fd[from], w->buffers.group, most - size + 1,
                        session_arm(w, s, SESSION_RECV + from));
    else
        flow_arm_once(w, s, from, most);
}

/* Keeps the receive armed while little is held, stops it when more is. After a stop, or where buffers are scarce, the
 * flow receives one buffer at a time: a peer that reads slowly must not hold what others need. */
static void flow_receive(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    unsigned op = SESSION_RECV + from;
    if (flow_in_flight(s, SESSION_POLL_OUT + flow_sink(from))) return;
    if (f->phase != FLOW_OPEN || f->flags & FLOW_STARVED || f->early_left > 0) return;
    if (limited_is(s)) {
        flow_receive_limited(w, s, from);
        return;
    }
    unsigned sent = flow_in_flight(s, SESSION_SEND + flow_sink(from)) ? f->gathered : 0u;
    bool enough = f->flags & FLOW_TURNING || f->held.count >= FLOW_HELD_MAX + (sent > 1 ? sent - 1 : 0);
    if (enough && !(f->flags & (FLOW_PAUSED | FLOW_SINGLE))) {
        f->flags |= FLOW_PAUSED;
        if (flow_in_flight(s, op)) ring_cancel(w->ring, session_tag(w, s, op));
    }
    if (flow_in_flight(s, op)) return;
    if (f->flags & FLOW_TURNING || (f->held.count > 0 && f->flags & (FLOW_PAUSED | FLOW_SINGLE))) return;
    if (f->flags & FLOW_PAUSED) f->flags = (uint16_t)((f->flags & ~FLOW_PAUSED) | FLOW_SINGLE);
    if (f->streak > 0 && f->held.count > 0) return; /* much is coming: after this is sent */
    if (!(f->flags & FLOW_SINGLE) && !w->scarce)
        flow_arm(w, s, from);
    else if (f->held.count == 0)
        flow_receive_once(w, s, from);
}

/* --- both --- */

void flow_advance(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    f->flags &= (uint16_t)~FLOW_GATHERS;
    if (!flow_is_open(f)) return;
    if (s->spent && flow_cut(w, s, from)) return;
    if (f->mode == FLOW_SPLICE) {
        flow_splice(w, s, from);
        return;
    }
    flow_take_early(w, s, from);
    if (!flow_in_flight(s, SESSION_SEND + flow_sink(from))) {
        if (f->held.count > 0) {
            flow_send(w, s, from);
        } else if (f->early_left > 0 && !s->spent) {
            return; /* no buffer is spare, or it is not its turn yet */
        } else if (f->phase == FLOW_ENDING) {
            flow_finish(w, s, from);
            return;
        } else if (f->flags & FLOW_TURNING && !flow_in_flight(s, SESSION_RECV + from)) {
            flow_turn_to_splice(w, s, from);
            return;
        }
    }
    flow_receive(w, s, from);
    if (s->spent) flow_cut(w, s, from);
}

/* The sink of the flow takes something. */
static void flow_on_writable(struct worker *w, struct session *s, enum session_side from)
{
    s->flows[from].flags |= FLOW_WRITABLE;
    flow_advance(w, s, from);
}

bool flow_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c)
{
    if (op > SESSION_POLL_OUT + UPSTREAM) return false;
    enum session_side side = op % 2,
                      from = op - side == SESSION_SEND || op - side == SESSION_POLL_OUT ? flow_sink(side) : side;
    if (s->flows[from].phase == FLOW_IDLE) return false;
    switch (op - side) {
    case SESSION_RECV: flow_on_received(w, s, from, c); break;
    case SESSION_SEND: flow_on_sent(w, s, from, c->result); break;
    case SESSION_POLL_IN:
        if (c->result > 0) s->flows[from].flags |= FLOW_READABLE;
        flow_advance(w, s, from);
        break;
    default: flow_on_writable(w, s, from); break;
    }
    return true;
}
