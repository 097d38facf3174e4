#include "core/resolver/pending.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/resolver/resolve_cache.h"

#define PENDING_MAX 65536u /* requests on their way */

int pending_requests_open(struct pending_requests *p, uint32_t timeout_ms, resolve_answered *answered, void *context,
                          struct resolve_stats *stats)
{
    *p = (struct pending_requests){.timeout_ms = timeout_ms, .answered = answered, .context = context, .stats = stats};
    link_init(&p->waiting);
    link_init(&p->ready);
    return pool_open(&p->pool, PENDING_MAX, sizeof(struct pending));
}

void pending_requests_close(struct pending_requests *p)
{
    pool_close(&p->pool);
}

struct pending *pending_open(struct pending_requests *p, struct resolve_request *request, void *cookie, uint64_t now_ms)
{
    uint32_t slot = pool_take(&p->pool);
    if (slot == POOL_NONE) return NULL;
    struct pending *pending = pool_at(&p->pool, slot);
    *pending = (struct pending){.request = request, .cookie = cookie, .deadline_ms = now_ms + p->timeout_ms};
    link_init(&pending->peers);
    link_append(&p->waiting, &pending->age); /* one timeout for all: the list is in the order of deadlines */
    return pending;
}

void pending_finish(struct pending_requests *p, struct pending *pending, int status, const struct cache_entry *entry,
                    uint64_t now_ms)
{
    struct resolve_request *request = pending->request;
    assert(status < 0 || (status == 0 && entry));
    pending->status = status;
    request->count = 0;
    if (status == 0 && entry) {
        assert(entry->count > 0);
        /* How long it may be told to others: not at all while a family is still awaited. */
        request->keep_ms = entry->expires_ms > now_ms ? (uint32_t)(entry->expires_ms - now_ms) : 0;
        request->revision = counter_read(&p->stats->revision);
        request->count = entry->count;
        memcpy(request->results, entry->results, sizeof entry->results);
    }
    link_remove(&pending->peers);
    link_remove(&pending->age);
    link_append(&p->ready, &pending->age);
}

void pending_expire(struct pending_requests *p, uint64_t now_ms)
{
    while (!link_is_empty(&p->waiting)) {
        struct pending *pending = link_owner(p->waiting.next, struct pending, age);
        if (pending->deadline_ms > now_ms) break;
        pending_finish(p, pending, -ETIMEDOUT, NULL, now_ms);
    }
}

static void answer(struct pending_requests *p, struct resolve_request *request, void *cookie, int status)
{
    if (atomic_load_explicit(&request->cancelled, memory_order_relaxed) != 0) status = -ECANCELED;
    if (status != 0) request->count = 0;
    if (status == 0)
        counter_add(&p->stats->found, 1);
    else if (status != -ECANCELED)
        counter_add(&p->stats->failures, 1);
    if (status == -ETIMEDOUT) counter_add(&p->stats->timeouts, 1);
    p->answered(p->context, request, cookie, status);
}

void pending_deliver(struct pending_requests *p)
{
    if (p->delivering || link_is_empty(&p->ready)) return;
    struct link batch;
    link_init(&batch);
    link_move_all(&p->ready, &batch);
    p->delivering = true;
    while (!link_is_empty(&batch)) {
        struct pending *pending = link_owner(link_take_first(&batch), struct pending, age);
        struct pending done = *pending;
        pool_give(&p->pool, pool_slot_of(&p->pool, pending));
        answer(p, done.request, done.cookie, done.status);
    }
    p->delivering = false;
}

uint64_t pending_deadline_ms(const struct pending_requests *p)
{
    return link_is_empty(&p->waiting) ? UINT64_MAX : link_owner(p->waiting.next, struct pending, age)->deadline_ms;
}
