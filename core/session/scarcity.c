#include "core/session/scarcity.h"

#include "core/io/log.h"
#include "core/session/relay.h"
#include "core/session/worker.h"

void scarcity_starve(struct worker *w, struct flow *f)
{
    counter_add(&w->stats.starved, 1);
    if (f->flags & FLOW_STARVED) return;
    f->flags |= FLOW_STARVED;
    w->starved++;
}

static void scarcity_feed_flow(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    if (s->state != SESSION_RELAY || !(f->flags & FLOW_STARVED)) return;
    f->flags &= (uint16_t)~FLOW_STARVED;
    w->starved--;
    relay_advance(w, s, from);
}

/* Rare, so a walk over the sessions is fine; it goes on where the last one ended, for fairness. */
static void scarcity_feed(struct worker *w)
{
    uint32_t count = w->sessions.untouched;
    for (uint32_t i = 0; i < count && w->starved > 0; i++) {
        w->starved_at = w->starved_at + 1 < count ? w->starved_at + 1 : 0;
        if (!pool_is_taken(&w->sessions, w->starved_at)) continue;
        scarcity_feed_flow(w, session_at(w, w->starved_at), CLIENT);
        scarcity_feed_flow(w, session_at(w, w->starved_at), UPSTREAM);
    }
}

/* A receive that is armed would take a buffer whatever its sink does. */
static void scarcity_stop_receives(struct worker *w)
{
    for (uint32_t slot = 0; slot < w->sessions.untouched; slot++) {
        struct session *s = session_at(w, slot);
        if (!pool_is_taken(&w->sessions, slot) || s->state != SESSION_RELAY) continue;
        for (unsigned side = CLIENT; side <= UPSTREAM; side++)
            if (s->inflight & SESSION_BIT(SESSION_RECV + side) && !(s->flows[side].flags & FLOW_PAUSED))
                ring_cancel(w->ring, session_tag(w, s, SESSION_RECV + side));
    }
}

void scarcity_judge(struct worker *w)
{
    const struct buffers *buffers = &w->buffers;
    if (!w->scarce && buffers->leased >= buffers->count / 4 * 3) {
        w->scarce = true;
        LOGN("worker %u: peers that read slowly hold most of the buffers; others are read only as fast as they can be "
             "sent to",
             w->index);
        scarcity_stop_receives(w);
    } else if (w->scarce && buffers->leased < buffers->count / 2) {
        w->scarce = false;
    }
    if (w->starved > 0 && buffers_are_plenty(buffers)) scarcity_feed(w);
}
