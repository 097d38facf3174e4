#include "core/control/errands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/control/coordinator_private.h"
#include "core/control/workers.h"
#include "core/io/net.h"
#include "core/session/message.h"

/* An errand leaves room for the answers that must not be lost. */
bool coordinator_may_send(const struct coordinator *c, uint32_t worker)
{
    if (worker >= coordinator_worker_count(c) || c->threads[worker].closed) return false;
    return queue_depth(c->threads[worker].inbox) <= c->config->queue_capacity / 4;
}

bool coordinator_send(struct coordinator *c, uint32_t worker, struct errand *errand)
{
    struct message message = {.kind = MESSAGE_ERRAND, .body = errand};
    return coordinator_may_send(c, worker) && workers_try_push(c, worker, &message);
}

/* --- connections for the coordinator --- */

/* With its descriptor: no worker has taken it. Our end of the pair is new and empty, the one octet always fits. */
static void dial_on_return(struct errand *errand, int32_t result)
{
    struct dial_errand *dial = (struct dial_errand *)errand;
    (void)result;
    if (dial->fd >= 0) {
        net_send_octet(dial->fd, FAIL_RESOURCE);
        close(dial->fd);
    }
    free(dial);
}

/* Behind the chain of -x, or directly. */
static bool dial_fill(const struct coordinator *c, struct dial_errand *dial, bool chained, const struct proxy_uri *hops,
                      uint8_t hop_count)
{
    uint32_t own = chained ? c->config->hop_count : 0;
    if (own + hop_count > ROUTE_HOPS_MAX) return false;
    memcpy(dial->hops, c->config->hops, own * sizeof *hops);
    if (hop_count > 0) memcpy(dial->hops + own, hops, hop_count * sizeof *hops);
    dial->hop_count = (uint8_t)(own + hop_count);
    return true;
}

static int dial_send(struct coordinator *c, const struct address *target, bool chained, const struct proxy_uri *hops,
                     uint8_t hop_count, uint32_t timeout_ms)
{
    struct dial_errand *dial = calloc(1, sizeof *dial);
    int ends[2];
    if (!dial) return -ENOMEM;
    dial->errand = (struct errand){.run = errand_dial, .done = dial_on_return};
    dial->target = *target;
    dial->timeout_ms = timeout_ms;
    int error = dial_fill(c, dial, chained, hops, hop_count) ? 0 : -E2BIG;
    if (error == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) error = -errno;
    if (error < 0) {
        free(dial);
        return error;
    }
    dial->fd = ends[1];
    uint32_t count = coordinator_worker_count(c), worker = count > 0 ? c->next_worker++ % count : 0;
    if (coordinator_send(c, worker, &dial->errand)) return ends[0];
    dial_on_return(&dial->errand, -EAGAIN);
    close(ends[0]);
    return -EAGAIN;
}

int coordinator_dial(struct coordinator *c, const struct address *target, const struct proxy_uri *hops,
                     uint8_t hop_count, uint32_t timeout_ms)
{
    return dial_send(c, target, true, hops, hop_count, timeout_ms);
}

int coordinator_dial_directly(struct coordinator *c, const struct address *target, uint32_t timeout_ms)
{
    return dial_send(c, target, false, NULL, 0, timeout_ms);
}

/* --- the end --- */

/* What was lent to, or by, a worker that is gone. */
void errands_take_back(struct coordinator *c)
{
    struct message message;
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {
        while (queue_pop(c->threads[i].inbox, &message)) {
            if (message.kind == MESSAGE_ERRAND) errand_finish(message.body, -ECANCELED);
        }
        while (queue_pop(c->threads[i].outbox, &message)) {
            if (message.kind == MESSAGE_ERRAND) errand_finish(message.body, message.result);
        }
        struct errand_returns *returns = &c->threads[i].worker.returns;
        for (struct errand *errand; (errand = errand_take_return(returns)) != NULL;)
            errand_finish(errand, errand->result);
    }
}
