#include "core/session/established.h"

#include <string.h>

#include "core/io/log.h"
#include "core/session/access.h"
#include "core/session/end.h"
#include "core/session/exchange.h"
#include "core/session/reply.h"
#include "core/session/session.h"
#include "core/session/upstream.h"
#include "core/session/worker.h"

/* What followed the last answer of a chain in the same segment is the target's and goes behind our own reply. */
static void append_early(struct setup *setup)
{
    assert(setup->out_used + setup->hop_received <= SETUP_OUT_SIZE);
    memcpy(setup->out + setup->out_used, setup->hop_in.data, setup->hop_received);
    setup->out_used += setup->hop_received;
}

enum session_state established_begin(struct worker *w, struct session *s)
{
    bool exchange = s->protocol == PROTOCOL_HTTP_PLAIN;
    if (exchange && !exchange_take(w, s)) return session_fail(w, s, FAIL_RESOURCE);
    if (exchange && !s->reused) counter_add(&w->stats.conns_opened, 1);
    upstream_connected(w, s);
    reply_append_success(w, s);
    if (s->protocol != PROTOCOL_INTERNAL && !s->reused)
        histogram_add(&w->stats.connect, ring_now_us(w->ring) - setup_of(w, s)->dialled_us);
    access_on_connected(w, s);
    session_report_trial(w, s, 0);
    session_log(w, s, LOG_LEVEL_DEBUG, s->reused ? "takes a connection of before" : "connected");
    if (exchange) return SESSION_EXCHANGE;
    append_early(setup_of(w, s));
    return SESSION_RELAY;
}
