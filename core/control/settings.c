#include "core/control/settings.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/control/config_change.h"
#include "core/control/coordinator_private.h"
#include "core/control/errands.h"
#include "core/control/list_load.h"
#include "core/control/workers.h"
#include "core/io/log.h"

/* The last worker that comes back frees what nobody obeys any more. */
struct reconfiguration {
    struct config *old; /* NULL: main's, which is not ours to free */
    struct lists *old_lists;
    uint32_t left;                  /* errands on their way */
    struct config_errand errands[]; /* by worker */
};

static void reconfiguration_release(struct reconfiguration *all, uint32_t errands)
{
    assert(errands <= all->left);
    all->left -= errands;
    if (all->left > 0) return;
    lists_release(all->old_lists);
    free(all->old);
    free(all);
}

static void settings_on_obeyed(struct errand *errand, int32_t result)
{
    (void)result;
    reconfiguration_release(((struct config_errand *)errand)->all, 1);
}

static bool settings_have_room(const struct coordinator *c)
{
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++)
        if (queue_depth(c->threads[i].inbox) > c->config->queue_capacity / 4) return false;
    return true;
}

/* For who must not follow c->config, which may be replaced at any time. */
void settings_show(struct coordinator *c, const struct config *config)
{
    atomic_store_explicit(&c->drain_ms, config->drain_ms, memory_order_relaxed);
    atomic_store_explicit(&c->timeout_ms, config->timeout_ms, memory_order_relaxed);
}

int coordinator_configure(struct coordinator *c, struct config *fresh)
{
    uint32_t count = coordinator_worker_count(c), stopped = 0;
    if (!settings_have_room(c)) return -EAGAIN;
    struct reconfiguration *all = calloc(1, sizeof *all + count * sizeof *all->errands);
    if (!all) return -ENOMEM;
    config_take_fixed(fresh, c->config);
    lists_follow(fresh->lists, c->config->lists);
    *all = (struct reconfiguration){.old = c->owned, .old_lists = c->config->lists, .left = count};
    limiting_configure(c, c->config, fresh);
    const struct config *before = c->config;
    c->config = c->owned = fresh;
    for (uint32_t i = 0; i < count; i++) {
        all->errands[i] = (struct config_errand){
            .errand = {.run = errand_configure, .done = settings_on_obeyed}, .config = fresh, .all = all};
        if (!coordinator_send(c, i, &all->errands[i].errand)) stopped++; /* a worker that has stopped obeys nobody */
    }
    upstreams_configure(c, before, fresh);
    reconfiguration_release(all, stopped);
    settings_show(c, fresh);
    return 0;
}

static int settings_take_lists(struct coordinator *c, struct lists *lists)
{
    struct config *fresh = malloc(sizeof *fresh);
    if (!fresh) return -ENOMEM;
    *fresh = *c->config;
    fresh->lists = lists;
    int error = coordinator_configure(c, fresh);
    if (error < 0) free(fresh);
    return error;
}

int coordinator_reload_lists(struct coordinator *c, char *why, size_t size)
{
    struct lists *lists;
    if (c->config->list_count == 0) return 0;
    int error = list_load(c->config, &lists, why, size);
    if (error == 0) error = settings_take_lists(c, lists);
    if (error == -EAGAIN || error == -ENOMEM) {
        lists_release(lists);
        snprintf(why, size, "%s", error == -EAGAIN ? "the workers are busy, try again" : "not enough memory");
    }
    if (error == 0)
        LOGN("reload: the lists have %zu entries now", lists_entries(lists));
    else
        LOGE("reload: %s; the old lists stay", why);
    return error < 0 ? -1 : 0;
}

const struct config *coordinator_config(const struct coordinator *c)
{
    return c->config;
}

uint32_t coordinator_drain_ms(const struct coordinator *c)
{
    return atomic_load_explicit(&c->drain_ms, memory_order_relaxed);
}

uint32_t coordinator_timeout_ms(const struct coordinator *c)
{
    return atomic_load_explicit(&c->timeout_ms, memory_order_relaxed);
}
