#include "api/lend.h"

#include <assert.h>
#include <stdlib.h>

#include "core/control/supervisor.h"

/* --- back on the supervisor's thread --- */

static void on_returned(struct letter *letter)
{
    struct call *call = (struct call *)letter;
    struct lending *l = call->lending;
    l->out--;
    l->waiting -= call->endpoint->waits;
    l->returned(call);
}

bool lend_is_full(const struct lending *l, const struct endpoint *endpoint)
{
    return l->out >= LEND_MAX || (endpoint->waits && l->waiting >= LEND_WAITING_MAX);
}

/* --- the coordinator's thread --- */

static void give_back(struct call *call);

static void hold(struct lending *l, struct call *call)
{
    call->give_back = give_back;
    call->previous = NULL;
    call->next = l->held;
    if (l->held) l->held->previous = call;
    l->held = call;
}

static void let_go(struct lending *l, struct call *call)
{
    if (call->previous)
        call->previous->next = call->next;
    else
        l->held = call->next;
    if (call->next) call->next->previous = call->previous;
    call->give_back = NULL;
}

/* The call is answered. */
static void give_back(struct call *call)
{
    struct lending *l = call->lending;
    assert(call->give_back && call->answered && !call->pending);
    let_go(l, call);
    call->letter.deliver = on_returned;
    supervisor_post(l->parts->supervisor, &call->letter);
}

static void refresh_counters(struct lending *l)
{
    struct snapshot_api *counters = &l->parts->counters;
    counters->connections = counter_read(&l->connections);
    counters->requests = counter_read(&l->requests);
    counters->successes = counter_read(&l->successes);
    counters->errors = counter_read(&l->errors);
    counters->bytes_in = counter_read(&l->bytes_in);
    counters->bytes_out = counter_read(&l->bytes_out);
}

void lend_read_counters(void *context, struct engine_api_counters *out)
{
    struct lending *l = context;
    out->successes = counter_read(&l->successes);
    out->requests = counter_read(&l->requests);
}

/* A ruleset cannot go, but a script may have failed to bring one since the head was judged. */
static void on_lent(struct letter *letter)
{
    struct call *call = (struct call *)letter;
    struct lending *l = call->lending;
    hold(l, call);
    call->handling = true;
    if (l->closed || coordinator_is_over(l->parts->coordinator)) {
        call_reply_text(call, 503, "the server stops");
    } else {
        refresh_counters(l);
        call->endpoint->handle(call);
    }
    call->handling = false;
    if (call->answered) give_back(call);
}

uint64_t lend_call(struct lending *l, struct call *call)
{
    uint64_t serial = ++l->serial;
    l->out++;
    l->waiting += call->endpoint->waits;
    call->serial = serial;
    call->lending = l;
    call->letter.deliver = on_lent;
    coordinator_post(l->parts->coordinator, supervisor_ring(l->parts->supervisor), &call->letter);
    return serial;
}

/* --- withdrawing --- */

struct withdrawal {
    struct letter letter; /* first */
    struct lending *lending;
    uint64_t serial;
};

/* What waits for a script is ended. What a worker does for it comes back by itself. */
static void give_up(struct call *call, unsigned status, const char *why)
{
    if (!call->pending) return;
    engine_job_cancel(call->pending);
    call->pending = NULL;
    call_reply_text(call, status, why);
}

static void on_withdrawn(struct letter *letter)
{
    struct withdrawal *w = (struct withdrawal *)letter;
    for (struct call *call = w->lending->held; call; call = call->next) {
        if (call->serial != w->serial) continue;
        give_up(call, 504, "nobody waits for it any more");
        break;
    }
    free(w);
}

void lend_withdraw(struct lending *l, uint64_t serial)
{
    struct withdrawal *w = calloc(1, sizeof *w);
    if (!w) return; /* then it goes on to its end, for nobody */
    *w = (struct withdrawal){.letter.deliver = on_withdrawn, .lending = l, .serial = serial};
    coordinator_post(l->parts->coordinator, supervisor_ring(l->parts->supervisor), &w->letter);
}

void lend_close(struct lending *l)
{
    l->closed = true;
    for (struct call *call = l->held, *next; call; call = next) {
        next = call->next;
        give_up(call, 503, "the server stops");
    }
}
