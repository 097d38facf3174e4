/* Requests that have no answer yet, and those whose answer is ready.
 *
 *     pending_open() --> waiting --pending_finish()--> ready --pending_deliver()--> answered()
 *                           \-- its deadline passes: -ETIMEDOUT --^
 *
 * The ready ones are delivered at the top of the owner's loop: so answered() may ask again or change the servers at
 * once, and no answer is delivered while another request is being made. One thread. */
#ifndef SLUICE_CORE_RESOLVER_PENDING_H
#define SLUICE_CORE_RESOLVER_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/list.h"
#include "core/io/pool.h"
#include "core/resolver/resolve_request.h"
#include "core/resolver/resolve_stats.h"

struct cache_entry;

struct pending {
    struct link age;   /* waiting: in waiting, the oldest first; then in ready */
    struct link peers; /* waiting: in its lookup's list of pending requests */
    struct resolve_request *request;
    void *cookie;
    uint64_t deadline_ms;
    int status;
};

struct pending_requests {
    struct pool pool;
    struct link waiting, ready;
    uint32_t timeout_ms;
    bool delivering; /* within pending_deliver() */
    resolve_answered *answered;
    void *context;
    struct resolve_stats *stats;
};

/* 0 or -ENOMEM. The stats outlive it. */
int pending_requests_open(struct pending_requests *p, uint32_t timeout_ms, resolve_answered *answered, void *context,
                          struct resolve_stats *stats);
/* Also for zeroes, and for what failed to open. */
void pending_requests_close(struct pending_requests *p);

/* NULL: too many requests wait. The cookie comes back with the answer. */
struct pending *pending_open(struct pending_requests *p, struct resolve_request *request, void *cookie,
                             uint64_t now_ms);
/* Makes it ready. Status 0: the entry's answer is copied now, as the entry may be gone before it is delivered. */
void pending_finish(struct pending_requests *p, struct pending *pending, int status, const struct cache_entry *entry,
                    uint64_t now_ms);
void pending_expire(struct pending_requests *p, uint64_t now_ms);
/* Delivers what is ready now. What becomes ready meanwhile waits for the next turn of the owner's loop, so that a
 * script that asks for the same name for ever does not keep the owner here. */
void pending_deliver(struct pending_requests *p);
/* When the oldest one's time is over; UINT64_MAX: none waits. */
uint64_t pending_deadline_ms(const struct pending_requests *p);

#endif
