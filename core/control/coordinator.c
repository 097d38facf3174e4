#include "core/control/coordinator.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/control/access_log.h"
#include "core/control/coordinator_private.h"
#include "core/control/list_load.h"
#include "core/io/log.h"
#include "core/session/lists.h"

/* The API and scripts wait on this ring as well. */
#define COORDINATOR_RING_ENTRIES 1024u
/* How often the workers' log lines are written out. */
#define COORDINATOR_LOG_MS 100u

struct own *coordinator_own(const struct coordinator *c)
{
    return c->own;
}

/* By way of the ring of the thread that calls. Under c->lock: no worker's ring goes meanwhile. */
static void coordinator_wake_all(struct coordinator *c, struct ring *ring)
{
    for (uint32_t i = 0; c->go && !c->over && i < coordinator_worker_count(c); i++)
        ring_wake(ring, c->threads[i].worker.ring, (struct ring_tag){.op = WORKER_OP_WAKE});
}

void coordinator_set_revision(struct coordinator *c, uint32_t revision)
{
    atomic_store_explicit(&c->revision, revision, memory_order_release);
    pthread_mutex_lock(&c->lock);
    coordinator_wake_all(c,
                         c->ring); /* connections of the ruleset before are closed now, and not with the next client */
    pthread_mutex_unlock(&c->lock);
    c->wakes_armed = true;
}

uint32_t coordinator_revision(const struct coordinator *c)
{
    return atomic_load_explicit(&c->revision, memory_order_acquire);
}

struct ring *coordinator_ring(struct coordinator *c)
{
    return c->ring;
}

uint64_t coordinator_now_ms(const struct coordinator *c)
{
    return ring_now_ms(c->ring);
}

void coordinator_set_hooks(struct coordinator *c, const struct coordinator_hooks *hooks)
{
    c->hooks = *hooks;
}

void coordinator_set_access_log(struct coordinator *c, struct access_log *log)
{
    c->access_log = log;
}

struct access_log *coordinator_access_log(const struct coordinator *c)
{
    return c->access_log;
}

void coordinator_set_reload(struct coordinator *c, void (*reload)(void *context), void *context)
{
    c->reload = reload;
    c->reload_context = context;
}

/* The last look before sleep. */
static bool coordinator_has_mail(const struct coordinator *c)
{
    return workers_have_sent(c) || !queue_is_empty(c->names_answers) || !letter_box_is_empty(&c->letters);
}

struct usage *coordinator_usage(const struct coordinator *c)
{
    return c->usage;
}

/* --- stopping, reloading --- */

void coordinator_stop_from(struct coordinator *c, struct ring *ring)
{
    pthread_mutex_lock(&c->lock);
    atomic_fetch_add_explicit(&c->stops, 1, memory_order_release);
    coordinator_wake_all(c, ring);
    if (ring != c->ring) {
        ring_wake(ring, c->ring, (struct ring_tag){.op = COORDINATOR_OP_WAKE});
        ring_flush(ring);
    }
    pthread_mutex_unlock(&c->lock);
}

void coordinator_stop(struct coordinator *c)
{
    coordinator_stop_from(c, c->ring);
}

/* The workers have seen it for themselves. */
static void coordinator_heed_stop(struct coordinator *c)
{
    uint32_t stops = coordinator_stops(c);
    if (stops == c->stops_seen) return;
    uint64_t now = ring_now_ms(c->ring);
    c->drained_ms = stops > 1 ? now : now + c->config->drain_ms;
    c->stops_seen = stops;
}

void coordinator_exit(struct coordinator *c, int status)
{
    if (c->exit_status >= 0) return; /* the second one would end the drain */
    c->exit_status = status;
    if (c->running > 0) coordinator_stop(c);
}

int coordinator_exit_status(const struct coordinator *c)
{
    return c->exit_status;
}

void coordinator_reload(struct coordinator *c)
{
    char why[LIST_WHY_SIZE];
    if (!c->names_stopped) resolver_thread_reload(c->resolver, c->ring);
    bool lists = c->config->list_count > 0;
    if (c->hooks.on_reload)
        c->hooks.on_reload(c->hooks.context); /* reads a -c file again, and the lists that it names */
    else
        (void)coordinator_reload_lists(c, why, sizeof why);
    if (c->reload) c->reload(c->reload_context);
    if (c->access_log) access_log_reopen(c->access_log);
    accounts_reload(c);
    bool any = c->reload || c->access_log || lists || c->user_stores > 0;
    if (!c->hooks.on_reload && !any) LOGN("SIGHUP: nothing to reload");
}

/* --- from other threads --- */

void coordinator_post(struct coordinator *c, struct ring *ring, struct letter *letter)
{
    letter_put(&c->letters, letter);
    if (sleeper_must_wake(&c->sleeper)) ring_wake(ring, c->ring, (struct ring_tag){.op = COORDINATOR_OP_WAKE});
}

void coordinator_deliver(struct coordinator *c)
{
    letter_box_deliver(&c->letters);
}

uint32_t coordinator_stops(const struct coordinator *c)
{
    return atomic_load_explicit(&c->stops, memory_order_acquire);
}

bool coordinator_is_over(const struct coordinator *c)
{
    return atomic_load_explicit(&c->finished, memory_order_acquire);
}

struct heartbeat *coordinator_heartbeat(struct coordinator *c)
{
    return &c->heartbeat;
}

/* --- opening --- */

int coordinator_open(struct coordinator **out, const struct config *config)
{
    struct coordinator *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    c->config = config;
    settings_show(c, config);
    c->exit_status = -1;
    link_init(&c->checks);
    c->drained_ms = UINT64_MAX;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    *out = c;
    if (own_open(&c->own) < 0) return -ENOMEM;
    int error = ring_open(&c->ring, &(struct ring_options){.entries = COORDINATOR_RING_ENTRIES});
    if (error < 0) {
        LOGE("%s (%s)", ring_explain(error), strerror(-error));
        return error;
    }
    char description[RING_DESCRIPTION_SIZE];
    ring_describe(c->ring, description, sizeof description);
    LOGI("%s", description);
    heartbeat_set(&c->heartbeat.turn_ms, ring_now_ms(c->ring));
    error = waiters_open(c);
    if (error < 0) LOGE("start-up failed: %s", strerror(-error));
    return error < 0 ? error : names_open(c);
}

static int coordinator_open_usage(struct coordinator *c)
{
    const struct config *config = c->config;
    if (!config->usage && !config->state_dir) return 0;
    return usage_open(&c->usage, c->keys,
                      &(struct usage_options){.text = config->usage,
                                              .state_dir = config->state_dir,
                                              .keys_max = config->limit_keys,
                                              .now_us = ring_now_us(c->ring)});
}

int coordinator_start(struct coordinator *c, const int *fds)
{
    int error = limiting_open(c);
    if (error < 0) {
        LOGE("no memory for the table of limits (%s); lower --limit-keys", strerror(-error));
        return error;
    }
    error = tallying_open(c);
    if (error < 0) LOGE("no memory to count users and rules: %s", strerror(-error));
    if (error == 0) error = upstreams_start(c);
    if (error == 0) error = accounts_start(c); /* its limits are there before what they have used comes back */
    if (error == 0) error = coordinator_open_usage(c);
    return error < 0 ? error : workers_start(c, fds);
}

/* --- the loop --- */

/* Sessions that the drain has ended still wait for names and verdicts that they have asked for: a server or a script
 * that does not answer must not hold up the end. */
static void coordinator_end_waits(struct coordinator *c)
{
    if (c->names_stopped || ring_now_ms(c->ring) < c->drained_ms) return;
    if (c->hooks.on_stop) c->hooks.on_stop(c->hooks.context);
    names_stop(c);
    accounts_stop(c);
}

static uint64_t coordinator_wait_us(const struct coordinator *c)
{
    uint64_t wait = COORDINATOR_LOG_MS * 1000, next = waiters_wait_us(c);
    return next < wait ? next : wait;
}

static void coordinator_dispatch(struct coordinator *c, const struct ring_completion *completion)
{
    if (completion->tag.op >= COORDINATOR_OP_WAITER) {
        waiters_on_completion(c, completion);
        return;
    }
    switch ((enum coordinator_op)completion->tag.op) {
    case COORDINATOR_OP_WAKE: return; /* mail is read in every turn */
    case COORDINATOR_OP_WAITER: break;
    }
    assert(0 && "a completion of an unknown kind");
}

int coordinator_turn(struct coordinator *c)
{
    struct ring_completion completion;
    heartbeat_set(&c->heartbeat.turn_ms, 0);
    sleeper_announce(&c->sleeper);
    int error = ring_wait_us(c->ring, coordinator_has_mail(c) ? 0 : coordinator_wait_us(c));
    sleeper_awake(&c->sleeper);
    c->wakes_armed = false; /* that wait has submitted them */
    heartbeat_set(&c->heartbeat.turn_ms, ring_now_ms(c->ring));
    if (error < 0) return error;
    coordinator_heed_stop(c);
    while (ring_next(c->ring, &completion)) coordinator_dispatch(c, &completion);
    workers_read(c);
    limiting_turn(c);
    coordinator_wake_workers(c);
    letter_box_deliver(&c->letters);
    names_read(c);
    waiters_expire(c);
    coordinator_wake_workers(c);
    if (c->hooks.on_turn) c->hooks.on_turn(c->hooks.context);
    coordinator_end_waits(c);
    log_flush();
    return 0;
}

int coordinator_run(struct coordinator *c)
{
    int error = 0;
    while (c->running > 0 && error == 0) {
        error = coordinator_turn(c);
        if (c->broken && coordinator_stops(c) == 0) coordinator_stop(c);
    }
    if (error < 0) {
        LOGE("the coordinator's ring broke: %s", strerror(-error));
        return error; /* the workers cannot be told; the process ends with them */
    }
    workers_join(c);
    usage_stop(c->usage, c->ring);
    log_flush();
    return c->broken ? -EIO : 0;
}

void coordinator_close(struct coordinator *c)
{
    names_end(c);
    if (c->resolver) resolver_thread_close(c->resolver);
    workers_close(c);
    usage_stop(c->usage, c->ring);
    usage_close(c->usage);
    accounts_close(c);
    limiting_close(c);
    tallying_close(c);
    waiters_close(c);
    if (c->ring) ring_destroy(c->ring);
    upstreams_close(c);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    own_close(c->own);
    lists_release(c->config->lists);
    free(c->owned);
    free(c);
}
