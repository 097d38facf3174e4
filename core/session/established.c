#include "core/session/established.h"

#include "core/io/log.h"
#include "core/session/access.h"
#include "core/session/end.h"
#include "core/session/exchange.h"
#include "core/session/reply.h"
#include "core/session/session.h"
#include "core/session/worker.h"

enum session_state established_begin(struct worker *w, struct session *s)
{
    bool exchange = s->protocol == PROTOCOL_HTTP_PLAIN;
    if (exchange && !exchange_take(w, s)) return session_fail(w, s, FAIL_RESOURCE);
    if (exchange && !s->reused) counter_add(&w->stats.conns_opened, 1);
    reply_append_success(w, s);
    if (s->protocol != PROTOCOL_INTERNAL && !s->reused)
        histogram_add(&w->stats.connect, ring_now_us(w->ring) - setup_of(w, s)->dialled_us);
    access_on_connected(w, s);
    session_report_trial(w, s, 0);
    session_log(w, s, LOG_LEVEL_DEBUG, s->reused ? "takes a connection of before" : "connected");
    return exchange ? SESSION_EXCHANGE : SESSION_RELAY;
}
