#include "core/session/errand.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/relay.h"
#include "core/session/worker.h"

/* --- sessions, as they are shown --- */

static void row_flows(struct session_row *row, const struct session *s)
{
    if (s->state != SESSION_RELAY) return;
    for (unsigned side = CLIENT; side <= UPSTREAM; side++) {
        row->bytes[side] = s->flows[side].bytes;
        row->splice[side] = s->flows[side].mode == FLOW_SPLICE;
    }
}

static void row_client(struct session_row *row, const struct session *s)
{
    struct net_address peer;
    struct address address;
    if (s->fd[CLIENT] >= 0 && net_peer_address(s->fd[CLIENT], &peer) >= 0 && net_address_to(&peer, &address))
        address_format(&address, row->client, sizeof row->client);
    else
        snprintf(row->client, sizeof row->client, "local");
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
    row_client(row, s);
    row_labels(w, row, s);
}

/* Those of the coordinator itself are no one's business. */
static bool errand_shows(const struct session *s)
{
    return s->state != SESSION_FREE && s->state != SESSION_CLOSING && s->protocol != PROTOCOL_INTERNAL;
}

static void errand_list(struct worker *w, struct list_errand *list)
{
    uint32_t slot = list->first;
    list->count = 0;
    for (; slot < w->sessions.untouched && list->count < list->room; slot++) {
        if (!pool_is_taken(&w->sessions, slot)) continue;
        const struct session *s = session_at(w, slot);
        if (errand_shows(s)) row_write(w, &list->rows[list->count++], s);
    }
    list->next = slot < w->sessions.untouched ? slot : UINT32_MAX;
}

static int32_t errand_kill(struct worker *w, const struct kill_errand *kill)
{
    if (kill->slot >= w->sessions.untouched || !pool_is_taken(&w->sessions, kill->slot)) return -ENOENT;
    struct session *s = session_at(w, kill->slot);
    if (pool_generation(&w->sessions, kill->slot) != kill->generation || !errand_shows(s)) return -ENOENT;
    session_log(w, s, LOG_LEVEL_NOTICE, "ended by the operator");
    session_close(w, s, SESSION_RESET);
    return 0;
}

void errand_perform(struct worker *w, const struct message *message)
{
    enum message_kind kind = (enum message_kind)message->kind;
    int32_t result = 0;
    switch (kind) {
    case MESSAGE_DIAL: result = session_open_internal(w, message->body); break;
    case MESSAGE_LIST: errand_list(w, message->body); break;
    case MESSAGE_KILL: result = errand_kill(w, message->body); break;
    case MESSAGE_RELAY:
        result = session_open_relay(w, message->body);
        if (result == 0) return; /* it goes back when the session ends */
        break;
    case MESSAGE_CONFIG: w->config = ((const struct config_errand *)message->body)->config; break;
    default: assert(0 && "an errand of an unknown kind");
    }
    errand_return(w, kind, message->body, result);
}

/* --- sending back --- */

/* With a quarter of the queue taken, by whatever messages, a return waits. */
static bool errand_post(struct worker *w, const struct errand *errand)
{
    struct message back = {.kind = errand->kind, .result = errand->result, .body = (void *)(uintptr_t)errand};
    return queue_depth(w->coordinator.queue) < w->config->queue_capacity / 4 && worker_post(w, &back);
}

void errand_return(struct worker *w, enum message_kind kind, struct errand *errand, int32_t result)
{
    struct errand_returns *returns = &w->returns;
    errand->next = NULL;
    errand->kind = kind;
    errand->result = result;
    if (!returns->first && errand_post(w, errand)) return;
    counter_add(&w->stats.queue_full, 1);
    if (returns->first)
        returns->last->next = errand;
    else
        returns->first = errand;
    returns->last = errand;
}

/* Once it is posted it is the coordinator's, who may free it: the next one is looked up before. */
void errand_return_more(struct worker *w)
{
    for (struct errand *errand = w->returns.first, *next; errand; errand = next) {
        next = errand->next;
        if (!errand_post(w, errand)) return;
        w->returns.first = next;
    }
}

struct errand *errand_take_return(struct errand_returns *returns)
{
    struct errand *errand = returns->first;
    if (errand) returns->first = errand->next;
    return errand;
}
