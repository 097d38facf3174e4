#include "core/session/scarcity.h"

#include "core/io/log.h"
#include "core/session/flow.h"
#include "core/session/flow_private.h"
#include "core/session/worker.h"

/* Each goes on once; those that find nothing again stand behind the others. */
static void scarcity_feed(struct worker *w)
{
    struct link fed;
    link_init(&fed);
    link_move_all(&w->starved, &fed);
    while (!link_is_empty(&fed)) {
        enum session_side from;
        struct flow *f = link_owner(fed.next, struct flow, link);
        struct session *s = flow_session_of(w, f, &from);
        flow_feed(f);
        flow_advance(w, s, from);
    }
}

/* A receive that is armed would take a buffer whatever its sink does. */
static void scarcity_stop_receives(struct worker *w)
{
    for (uint32_t slot = 0; slot < w->sessions.untouched; slot++) {
        struct session *s = session_at(w, slot);
        if (!pool_is_taken(&w->sessions, slot)) continue;
        if (s->state != SESSION_RELAY && s->state != SESSION_EXCHANGE) continue;
        for (unsigned side = CLIENT; side <= UPSTREAM; side++)
            if (flow_is_open(&s->flows[side]) && s->inflight & SESSION_BIT(SESSION_RECV + side) &&
                !(s->flows[side].flags & FLOW_PAUSED))
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
    if (!link_is_empty(&w->starved) && buffers_are_plenty(buffers)) scarcity_feed(w);
}
