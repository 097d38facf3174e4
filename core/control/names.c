#include "core/control/names.h"

#include <assert.h>
#include <errno.h>

#include "core/control/coordinator_private.h"
#include "core/control/workers.h"

/* A resolver that never answers costs this, not the whole half-open limit. */
#define RESOLVE_MS 10000u
/* Names that scripts may wait for at the same time. */
#define NAMES_MAX 16384u

int names_open(struct coordinator *c)
{
    struct resolve_options options = {.nameservers = c->config->nameservers,
                                      .sockets_max = c->config->name_sockets,
                                      .timeout_ms =
                                          RESOLVE_MS < c->config->timeout_ms ? RESOLVE_MS : c->config->timeout_ms};
    struct mailbox ours = {.sleeper = &c->sleeper, .ring = &c->ring, .wake = {.op = COORDINATOR_OP_WAKE}};
    int error = resolver_thread_open(&c->resolver, &options);
    if (error == 0) error = resolver_thread_set_way(c->resolver, c->ring, &c->config->egress, RESOLVER_AS_BEFORE);
    return error < 0 ? error : resolver_thread_add_asker(c->resolver, &ours, NAMES_MAX, &c->names, &c->names_answers);
}

int coordinator_resolve(struct coordinator *c, struct resolve_question *question)
{
    struct message message = {.kind = RESOLVE_MESSAGE, .body = &question->request};
    atomic_store_explicit(&question->request.cancelled, 0, memory_order_relaxed);
    question->request.count = 0;
    if (c->names_stopped) return -ECANCELED;
    if (c->names_open == NAMES_MAX) return -EAGAIN;
    bool posted = mailbox_post(&c->names, c->ring, &message, &c->wakes_armed);
    assert(posted); /* the queue holds NAMES_MAX */
    c->names_open += posted;
    return 0;
}

static void names_on_answer(struct coordinator *c, const struct message *answer)
{
    struct resolve_question *question = (struct resolve_question *)answer->body; /* its request comes first */
    assert(c->names_open > 0);
    c->names_open--;
    coordinator_wake_workers(c);
    question->answered(question, answer->result);
}

/* Those that are there now: a script that asks again and again must not keep us here. */
void names_read(struct coordinator *c)
{
    struct message answer;
    for (uint32_t left = queue_depth(c->names_answers); left > 0 && queue_pop(c->names_answers, &answer); left--)
        names_on_answer(c, &answer);
}

void names_stop(struct coordinator *c)
{
    c->names_stopped = true;
    resolver_thread_stop(c->resolver, c->ring);
}

/* Nobody is answered any more, and what was lent is back. */
void names_end(struct coordinator *c)
{
    if (!c->resolver) return;
    c->names_stopped = true;
    resolver_thread_end(c->resolver, c->ring);
    while (c->names_open > 0) names_read(c);
}

struct resolve_counts coordinator_resolve_counts(const struct coordinator *c)
{
    struct resolve_counts counts = resolve_count(resolver_thread_stats(c->resolver));
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {
        uint64_t remembered = counter_read(&coordinator_worker_stats(c, i)->names_remembered);
        counts.cache_hits += remembered;
        counts.found += remembered;
    }
    return counts;
}

int coordinator_set_way(struct coordinator *c, const struct egress_terms *terms, enum resolver_rights rights)
{
    return c->names_stopped ? -ECANCELED : resolver_thread_set_way(c->resolver, c->ring, terms, rights);
}

int coordinator_set_nameservers(struct coordinator *c, const char *nameservers)
{
    return c->names_stopped ? -ECANCELED : resolver_thread_set_nameservers(c->resolver, c->ring, nameservers);
}
