#include "core/session/parting.h"

#include <errno.h>
#include <poll.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/end.h"
#include "core/session/flow.h"
#include "core/session/hooks.h"
#include "core/session/session.h"
#include "core/session/worker.h"

/* So long a side may take to end after it has acknowledged what was sent. */
#define PARTING_LINGER_MS 2000u
/* Nothing tells of an acknowledgement: it is looked for after as much time as has passed already, within these. */
#define PARTING_LOOK_MIN_MS 64u
#define PARTING_LOOK_MAX_MS 4096u
/* When nothing is acknowledged for so long, and --half-close-timeout is 0, nothing will be. */
#define PARTING_STALL_MS 3600000u

static bool in_flight(const struct session *s, unsigned op)
{
    return (s->inflight & SESSION_BIT(op)) != 0;
}

static uint64_t parting_age_ms(const struct worker *w, const struct session *s)
{
    return ring_now_ms(w->ring) - s->parted_ms;
}

/* What it sent is lost, or what it would go on to send: its peer is gone, and it must hear of that. */
static bool side_was_cut(const struct session *s, enum session_side side)
{
    return s->lost || s->flows[side].phase == FLOW_LOST;
}

/* An upstream whose client has gone sends for nobody. A client gets the time to read what its system has: not every
 * system keeps that for it behind a reset. */
static uint64_t side_linger_ms(const struct session *s, enum session_side side)
{
    return side_was_cut(s, side) && side == UPSTREAM ? 0 : PARTING_LINGER_MS;
}

/* The end that we have announced counts as an octet, which may take as long as the others: a peer without room has none
 * for the end either. The kernel brings it behind an orderly close, but not behind a reset. To who is cut off by a
 * quota none was announced. */
static bool side_has_acknowledged(const struct session *s, enum session_side side)
{
    return net_unacknowledged(s->fd[side]) <= (side_was_cut(s, side) ? 0 : 1);
}

static bool side_is_over(const struct worker *w, const struct session *s, enum session_side side)
{
    if (!side_has_acknowledged(s, side)) return false;
    return s->flows[side].phase == FLOW_DONE || ring_now_ms(w->ring) - s->moved_ms >= side_linger_ms(s, side);
}

/* Reads from who has not ended, and watches who has: its last acknowledgement ends the connection, which is an event.
 */
static void side_wait(struct worker *w, struct session *s, enum session_side side, bool again)
{
    unsigned receive = SESSION_RECV + side, watch = SESSION_WATCH + side;
    if (s->flows[side].phase == FLOW_DONE) {
        if (again && !in_flight(s, watch)) ring_watch(w->ring, s->fd[side], session_arm(w, s, watch));
    } else if (!in_flight(s, receive)) {
        ring_recv_group_once(w->ring, s->fd[side], w->buffers.group, w->buffers.size, session_arm(w, s, receive));
    }
}

/* What an exchange still has in flight points into its slots. */
static void parting_release_slots(struct worker *w, struct session *s)
{
    static const uint32_t busy = SESSION_BIT(SESSION_RECV + CLIENT) | SESSION_BIT(SESSION_RECV + UPSTREAM) |
                                 SESSION_BIT(SESSION_SEND + CLIENT) | SESSION_BIT(SESSION_SEND + UPSTREAM);
    if (s->extra == POOL_NONE || s->inflight & busy) return;
    flow_release(w, s);
    session_hook_release_exchange(w, s);
    session_release_setup(w, s);
}

static void parting_note_progress(const struct worker *w, struct session *s)
{
    uint64_t left = 0;
    for (unsigned side = CLIENT; side <= UPSTREAM; side++)
        if (s->fd[side] >= 0) left += net_unacknowledged(s->fd[side]);
    if (left != s->moved) s->moved_ms = ring_now_ms(w->ring);
    s->moved = left;
}

/* True if the session is still there. */
static bool parting_judge_stall(struct worker *w, struct session *s)
{
    uint32_t limit = w->config->half_close_timeout_ms;
    parting_note_progress(w, s);
    if (ring_now_ms(w->ring) - s->moved_ms < (limit > 0 ? limit : PARTING_STALL_MS)) return true;
    session_blame(w, s, FAIL_HALF_CLOSE_TIMEOUT);
    session_log(w, s, LOG_LEVEL_DEBUG, "closed: its peer does not acknowledge the last octets");
    session_close(w, s, SESSION_RESET);
    return false;
}

/* Octets that its peer had not acknowledged when it went are lost; that the end did not arrive means nothing then. */
static void side_leave(struct worker *w, struct session *s, enum session_side side, enum session_end end)
{
    if (net_lost(s->fd[side]) > 1) session_blame(w, s, side == CLIENT ? FAIL_CLIENT_RESET : FAIL_TARGET_RESET);
    session_drop_side(w, s, side, end);
}

/* Closes the sides that are over, and waits for the others. `again`: a watch that has ended may be armed anew; it tells
 * at once what it has told before. */
static void parting_look(struct worker *w, struct session *s, bool again)
{
    bool waits = false;
    parting_note_progress(w, s);
    for (unsigned side = CLIENT; side <= UPSTREAM; side++) {
        if (s->fd[side] >= 0 && side_is_over(w, s, side))
            side_leave(w, s, side, side_was_cut(s, side) ? SESSION_RESET : SESSION_ORDERLY);
        waits |= s->fd[side] >= 0;
    }
    if (!waits) {
        session_close(w, s, SESSION_ORDERLY);
        return;
    }
    parting_release_slots(w, s);
    for (unsigned side = CLIENT; side <= UPSTREAM; side++)
        if (s->fd[side] >= 0 && s->extra == POOL_NONE) side_wait(w, s, side, again);
}

static void parting_set_timer(struct worker *w, struct session *s)
{
    uint64_t wait = parting_age_ms(w, s);
    if (wait < PARTING_LOOK_MIN_MS) wait = PARTING_LOOK_MIN_MS;
    if (wait > PARTING_LOOK_MAX_MS) wait = PARTING_LOOK_MAX_MS;
    timer_set(w->timers, s->slot, ring_now_ms(w->ring) + wait);
}

static void parting_begin(struct worker *w, struct session *s)
{
    session_enter(w, s, SESSION_PARTING);
    s->parted_ms = s->moved_ms = ring_now_ms(w->ring);
    s->moved = 0;
    parting_look(w, s, true);
    if (s->state == SESSION_PARTING) parting_set_timer(w, s);
}

void parting_end_relay(struct worker *w, struct session *s, enum session_side last)
{
    enum session_side first = last == CLIENT ? UPSTREAM : CLIENT;
    bool lost = s->lost || s->flows[last].phase == FLOW_LOST;
    if (lost) session_drop_side(w, s, first, SESSION_RESET); /* gone, or as good as: it must not take this for an end */
    if (!lost && net_unacknowledged(s->fd[last]) == 0 && net_unacknowledged(s->fd[first]) <= 1) {
        session_close(w, s, SESSION_ORDERLY);
        return;
    }
    flow_drop(w, s, CLIENT);
    flow_drop(w, s, UPSTREAM);
    net_shutdown_write(s->fd[last]);
    parting_begin(w, s);
}

void parting_end_exchange(struct worker *w, struct session *s)
{
    flow_drop(w, s, CLIENT);
    flow_drop(w, s, UPSTREAM);
    session_drop_side(w, s, UPSTREAM, SESSION_ORDERLY);
    net_shutdown_write(s->fd[CLIENT]);
    if (in_flight(s, SESSION_RECV + CLIENT)) ring_cancel(w->ring, session_tag(w, s, SESSION_RECV + CLIENT));
    parting_begin(w, s);
}

void parting_cut(struct worker *w, struct session *s, enum failure failure)
{
    session_blame(w, s, failure);
    session_log(w, s, LOG_LEVEL_INFO, failure_row(failure)->word);
    s->lost = true;
    flow_drop(w, s, CLIENT);
    flow_drop(w, s, UPSTREAM);
    for (unsigned side = CLIENT; side <= UPSTREAM; side++)
        if (in_flight(s, SESSION_RECV + side)) ring_cancel(w->ring, session_tag(w, s, SESSION_RECV + side));
    parting_begin(w, s);
}

/* A side that has an error is gone, and needs no reset; but who is cut off has been told no end, should it be there. */
static enum session_end parting_ends(const struct session *s)
{
    return s->spent ? SESSION_RESET : SESSION_ORDERLY;
}

static void parting_on_received(struct worker *w, struct session *s, enum session_side side)
{
    if (s->fd[side] < 0) return;
    if (s->result == 0) s->flows[side].phase = FLOW_DONE;
    if (s->result > 0 && s->flows[side].phase == FLOW_LOST) s->lost = true;
    if (s->result < 0 && s->result != -ECANCELED && s->result != -ENOBUFS)
        side_leave(w, s, side, parting_ends(s)); /* it is gone */
}

static void parting_on_watch(struct worker *w, struct session *s, enum session_side side)
{
    if (s->fd[side] < 0 || s->result < 0) return;
    if (s->result & POLLERR) side_leave(w, s, side, parting_ends(s));
}

void parting_on_completion(struct worker *w, struct session *s)
{
    switch (s->op) {
    case SESSION_RECV + CLIENT:
    case SESSION_RECV + UPSTREAM: parting_on_received(w, s, s->op - SESSION_RECV); break;
    case SESSION_WATCH + CLIENT:
    case SESSION_WATCH + UPSTREAM: parting_on_watch(w, s, s->op - SESSION_WATCH); break;
    default: break;
    }
    if (s->result == -ENOBUFS) return; /* the timer asks again */
    parting_look(w, s, false);
}

void parting_on_timer(struct worker *w, struct session *s)
{
    if (!parting_judge_stall(w, s)) return;
    parting_look(w, s, true);
    if (s->state == SESSION_PARTING) parting_set_timer(w, s);
}
