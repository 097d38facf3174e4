#include "core/session/errand_kinds.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/access.h"
#include "core/session/conn_cache.h"
#include "core/session/end.h"
#include "core/session/flow.h"
#include "core/session/hooks.h"
#include "core/session/limited.h"
#include "core/session/lists.h"
#include "core/session/route.h"

/* --- listing and ending sessions --- */

static void row_flows(struct session_row *row, const struct session *s)
{
    if (s->state != SESSION_RELAY && s->state != SESSION_EXCHANGE) return;
    for (unsigned side = CLIENT; side <= UPSTREAM; side++) {
        row->bytes[side] = s->flows[side].bytes;
        row->splice[side] = s->flows[side].mode == FLOW_SPLICE;
    }
}

/* While it is set up the setup slot knows more than the label. */
static void row_labels(struct worker *w, struct session_row *row, const struct session *s)
{
    row->user[0] = row->target[0] = '\0';
    if (s->setup == POOL_NONE) {
        const char *target = s->label + strlen(s->label) + 1;
        snprintf(row->user, sizeof row->user, "%s", s->label);
        snprintf(row->target, sizeof row->target, "%s", target);
        snprintf(row->chain, sizeof row->chain, "%s", target + strlen(target) + 1);
        return;
    }
    const struct setup *setup = setup_of(w, s);
    if (setup->credentials.present) snprintf(row->user, sizeof row->user, "%s", setup->credentials.user);
    if (setup->target.kind != ADDRESS_NONE) address_format(&setup->target, row->target, sizeof row->target);
    session_format_chain(w, s, row->chain, sizeof row->chain);
}

static void row_write(struct worker *w, struct session_row *row, const struct session *s)
{
    *row = (struct session_row){.slot = s->slot,
                                .generation = pool_generation(&w->sessions, s->slot),
                                .state = s->state,
                                .protocol = s->protocol,
                                .hops = s->hops,
                                .rule = s->rule,
                                .age_ms = ring_now_ms(w->ring) - s->opened_ms};
    row_flows(row, s);
    session_format_client(s, row->client, sizeof row->client);
    row_labels(w, row, s);
}

/* Our own are no one's business. */
static bool errand_shows(const struct session *s)
{
    return s->state != SESSION_FREE && s->state != SESSION_CLOSING && !protocol_is_own(s->protocol);
}

void errand_list(struct errand *self, struct worker *w)
{
    struct list_errand *list = (struct list_errand *)self;
    uint32_t slot = list->first;
    list->count = 0;
    for (; slot < w->sessions.untouched && list->count < list->room; slot++) {
        if (!pool_is_taken(&w->sessions, slot)) continue;
        const struct session *s = session_at(w, slot);
        if (errand_shows(s)) row_write(w, &list->rows[list->count++], s);
    }
    list->next = slot < w->sessions.untouched ? slot : UINT32_MAX;
    worker_return(w, self, 0);
}

static int32_t kill_session(struct worker *w, const struct kill_errand *kill)
{
    if (kill->slot >= w->sessions.untouched || !pool_is_taken(&w->sessions, kill->slot)) return -ENOENT;
    struct session *s = session_at(w, kill->slot);
    if (pool_generation(&w->sessions, kill->slot) != kill->generation || !errand_shows(s)) return -ENOENT;
    session_blame(w, s, FAIL_KILLED);
    session_log(w, s, LOG_LEVEL_NOTICE, "ended by the operator");
    session_close(w, s, SESSION_RESET);
    return 0;
}

void errand_kill(struct errand *self, struct worker *w)
{
    worker_return(w, self, kill_session(w, (const struct kill_errand *)self));
}

/* --- judging again --- */

/* Its failure is counted beside the success that it has been, as that of a quota is. */
static bool judge_session(struct worker *w, struct session *s)
{
    struct address client = host_port_address(&s->client);
    bool any = client.kind != ADDRESS_NONE && s->protocol != PROTOCOL_SCRIPT;
    if (!any || lists_admit_client(w->config->lists, s->listener, &client)) return false;
    session_log(w, s, LOG_LEVEL_NOTICE, failure_row(FAIL_CLIENT_DENIED)->word);
    session_blame(w, s, FAIL_CLIENT_DENIED);
    session_close(w, s, SESSION_RESET);
    return true;
}

void errand_judge(struct errand *self, struct worker *w)
{
    struct judge_errand *judge = (struct judge_errand *)self;
    uint32_t slot = judge->first;
    for (uint32_t n = 0; n < JUDGE_SLOTS && slot < w->sessions.untouched; n++, slot++) {
        if (!pool_is_taken(&w->sessions, slot) || !errand_shows(session_at(w, slot))) continue;
        judge->judged++;
        judge->reset += judge_session(w, session_at(w, slot));
    }
    judge->next = slot < w->sessions.untouched ? slot : UINT32_MAX;
    worker_return(w, self, 0);
}

/* --- connections, relays, settings --- */

/* 0; or -ENOBUFS, there is no room, and nothing is taken over. */
static int open_internal(struct worker *w, struct dial_errand *dial)
{
    if (!session_has_room(w) || w->draining) return -ENOBUFS;
    struct session *s = session_take(w, 0, dial->fd, dial->timeout_ms);
    struct setup *setup = setup_of(w, s);
    dial->fd = -1;
    s->protocol = PROTOCOL_INTERNAL;
    setup->target = setup->route.target = dial->target;
    setup->request_complete = true;
    route_decide_builtin(&setup->route, dial->hops, dial->hop_count);
    session_enter(w, s, SESSION_HELLO);
    session_proceed(w, s, route_obey(w, s));
    return 0;
}

void errand_dial(struct errand *self, struct worker *w)
{
    worker_return(w, self, open_internal(w, (struct dial_errand *)self));
}

/* The same. */
static int open_relay(struct worker *w, struct relay_errand *relay)
{
    if (!session_has_room(w) || w->draining) return -ENOBUFS;
    struct session *s = session_take(w, 0, relay->fds[CLIENT], w->config->timeout_ms);
    s->protocol = PROTOCOL_SCRIPT;
    s->fd[UPSTREAM] = relay->fds[UPSTREAM];
    relay->fds[CLIENT] = relay->fds[UPSTREAM] = -1;
    s->errand = relay;
    s->client = net_peer_host_port(s->fd[CLIENT]);
    struct host_port peer = net_peer_host_port(s->fd[UPSTREAM]);
    setup_of(w, s)->target = host_port_address(&peer);
    access_begin(w, s);
    access_on_request(w, s);
    access_on_connected(w, s);
    counter_add(&w->stats.accepted, 1);
    session_enter(w, s, SESSION_HELLO);
    session_proceed(w, s, SESSION_RELAY);
    return 0;
}

void errand_relay(struct errand *self, struct worker *w)
{
    int error = open_relay(w, (struct relay_errand *)self);
    if (error < 0) worker_return(w, self, error); /* else it goes back when the session ends */
}

void errand_return_relay(struct worker *w, struct session *s)
{
    struct relay_errand *relay = s->errand;
    if (!relay) return;
    bool orderly = s->flows[CLIENT].phase == FLOW_DONE && s->flows[UPSTREAM].phase == FLOW_DONE;
    relay->bytes[0] = s->flows[CLIENT].bytes;
    relay->bytes[1] = s->flows[UPSTREAM].bytes;
    worker_return(w, &relay->errand, orderly ? 0 : -ECONNRESET);
}

/* Its flows may end it. */
static void heed_session(struct worker *w, uint32_t slot)
{
    struct session *s = session_at(w, slot);
    for (unsigned side = CLIENT; side <= UPSTREAM; side++)
        if (pool_is_taken(&w->sessions, slot) && limited_is(s) && limited_is_stale(w, s, side)) flow_hurry(w, s, side);
}

void errand_heed_limits(struct errand *self, struct worker *w)
{
    struct heed_errand *heed = (struct heed_errand *)self;
    uint32_t slot = heed->first;
    for (uint32_t n = 0; n < heed->room && slot < w->sessions.untouched; n++, slot++) heed_session(w, slot);
    heed->next = slot < w->sessions.untouched ? slot : UINT32_MAX;
    worker_return(w, self, 0);
}

void errand_configure(struct errand *self, struct worker *w)
{
    w->config = ((const struct config_errand *)self)->config;
    conn_cache_begin_era(w); /* where it leads, and whether it may lead there, is another question now */
    worker_return(w, self, 0);
}

void errand_regroup(struct errand *self, struct worker *w)
{
    w->groups = ((const struct groups_errand *)self)->groups;
    worker_return(w, self, 0);
}
