#include "core/session/worker.h"

#include "core/resolver/resolve_request.h"
#include "core/session/message.h"

/* --- messages --- */

static bool worker_send(struct worker *w, const struct mailbox *to, const struct message *message)
{
    if (mailbox_post(to, w->ring, message, NULL)) return true;
    counter_add(&w->stats.queue_full, 1);
    return false;
}

bool worker_post(struct worker *w, const struct message *message)
{
    return worker_send(w, &w->coordinator, message);
}

bool worker_ask(struct worker *w, const struct message *question)
{
    assert(question->kind == RESOLVE_MESSAGE);
    return worker_send(w, &w->resolver, question);
}

/* --- errands that are done --- */

/* With a quarter of the queue taken, by whatever messages, a return waits. */
static bool errand_post(struct worker *w, const struct errand *errand)
{
    struct message back = {.kind = MESSAGE_ERRAND, .result = errand->result, .body = (void *)(uintptr_t)errand};
    return queue_depth(w->coordinator.queue) < w->config->queue_capacity / 4 && worker_post(w, &back);
}

void worker_return(struct worker *w, struct errand *errand, int32_t result)
{
    struct errand_returns *returns = &w->returns;
    errand->next = NULL;
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
void worker_return_more(struct worker *w)
{
    for (struct errand *errand = w->returns.first, *next; errand; errand = next) {
        next = errand->next;
        if (!errand_post(w, errand)) return;
        w->returns.first = next;
    }
}
