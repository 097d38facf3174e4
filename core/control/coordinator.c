#include "core/control/coordinator.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/control/config_change.h"
#include "core/io/cpu.h"
#include "core/io/log.h"
#include "core/io/net.h"
#include "core/io/pool.h"
#include "core/io/timer.h"
#include "core/session/message.h"
#include "core/session/worker.h"
#include "core/session/worker_loop.h"

/* The API and scripts wait on this ring as well. */
#define COORDINATOR_RING_ENTRIES 1024u
/* How often the workers' log lines are written out. */
#define COORDINATOR_LOG_MS 100u
/* A resolver that never answers costs this, not the whole half-open limit. */
#define COORDINATOR_RESOLVE_MS 10000u
/* Names that scripts may wait for at the same time. */
#define COORDINATOR_NAMES_MAX 16384u

enum coordinator_op {
    COORDINATOR_OP_WAKE = 1,
    COORDINATOR_OP_WAITER, /* + the waiter's own; slot and generation: waiter */
};

/* A worker and its thread. */
struct crew {
    struct worker worker;
    struct coordinator *coordinator;
    struct queue *outbox, *inbox;
    struct mailbox inbox_way; /* to it */
    pthread_t thread;
    bool started, stopped;
    bool closed;                  /* its last message has been read: nothing more is sent to it */
    int cpu;                      /* -1: not pinned */
    int result;                   /* of worker_open(), behind the lock */
    struct ring_stats ring_stats; /* what the ring had counted when it was closed */
};

struct coordinator {
    const struct config *config;
    struct config *owned; /* the same, if it came by coordinator_configure(): then ours to free */
    struct ring *ring;
    struct resolver_thread *resolver;
    struct mailbox names;        /* questions of our own */
    struct queue *names_answers; /* and what becomes of them */
    uint32_t names_open;
    bool hushed;      /* no name is resolved any more */
    bool expiring;    /* deadlines are being handed out */
    bool wakes_armed; /* of workers, that no system call has submitted yet */
    struct own *own;
    struct coordinator_hooks hooks;
    void (*reload)(void *context);
    void *reload_context;
    struct pool waiters;        /* of struct waiter * */
    struct timer_wheel *timers; /* by waiter slot, in microseconds */
    struct letter_box letters;
    struct sleeper sleeper; /* of letters and outboxes */
    struct heartbeat heartbeat;
    _Atomic uint32_t revision; /* workers ask for routes while it is not zero */
    _Atomic uint32_t stops;    /* how often we were asked to stop; workers read it too */
    uint32_t stops_seen;
    _Atomic uint32_t drain_ms, timeout_ms; /* of `config`, for other threads */
    _Atomic bool finished;                 /* the workers are gone */
    uint32_t next_worker;                  /* for what any worker may do */
    uint32_t running;                      /* workers that have not said MESSAGE_STOPPED */
    bool broken;                           /* a worker's ring broke */
    _Atomic int exit_status;               /* that a script has asked for; -1: none has */
    uint64_t
        quiet_ms; /* names are answered until then: the drain is over after it; UINT64_MAX while nobody asks to stop */
    struct crew *crew;
    struct worker **workers;
    uint32_t crew_size; /* written once, before the workers start: the configuration may be replaced meanwhile */

    pthread_mutex_t lock; /* start-up and end only, and who wakes workers from another thread */
    pthread_cond_t changed;
    uint32_t ready; /* workers that have finished worker_open() */
    bool go;        /* all are open: accept */
    bool abandon;   /* one is not: end */
    bool over;      /* nothing is posted to workers any more: their rings may go */
};

/* How many workers there are to talk to: none before coordinator_start(). */
static uint32_t coordinator_crew_size(const struct coordinator *c)
{
    return c->crew ? c->crew_size : 0;
}

/* --- to the workers --- */

static bool coordinator_try_push(struct coordinator *c, struct crew *to, const struct message *message)
{
    return mailbox_post(&to->inbox_way, c->ring, message, &c->wakes_armed);
}

/* In front of whatever may run Lua: an answer that is ready must not wait for the end of a script that computes. At
 * most one system call for each sleep of a worker. */
static void coordinator_let_go(struct coordinator *c)
{
    if (!c->wakes_armed) return;
    c->wakes_armed = false;
    ring_flush(c->ring);
}

static void coordinator_push(struct coordinator *c, struct crew *to, const struct message *message)
{
    bool pushed = coordinator_try_push(c, to, message);
    assert(pushed); /* a worker's inbox has room for an answer to each of its sessions, see config_size() */
    (void)pushed;
}

void coordinator_answer(struct coordinator *c, struct route_request *request, int32_t result)
{
    struct message answer = request->origin;
    answer.result = result;
    coordinator_push(c, &c->crew[request->origin_worker], &answer);
}

/* --- names --- */

int coordinator_resolve(struct coordinator *c, struct resolve_question *question)
{
    struct message message = {.kind = RESOLVE_MESSAGE, .body = &question->request};
    atomic_store_explicit(&question->request.cancelled, 0, memory_order_relaxed);
    question->request.count = 0;
    if (c->hushed) return -ECANCELED;
    if (c->names_open == COORDINATOR_NAMES_MAX) return -EAGAIN;
    bool posted = mailbox_post(&c->names, c->ring, &message, &c->wakes_armed);
    assert(posted); /* the queue holds COORDINATOR_NAMES_MAX */
    c->names_open += posted;
    return 0;
}

static void coordinator_on_name(struct coordinator *c, const struct message *answer)
{
    struct resolve_question *question = (struct resolve_question *)answer->body; /* its request comes first */
    assert(c->names_open > 0);
    c->names_open--;
    coordinator_let_go(c);
    question->answered(question, answer->result);
}

/* Those that are there now: a script that asks again and again must not keep us here. */
static void coordinator_read_names(struct coordinator *c)
{
    struct message answer;
    for (uint32_t left = queue_depth(c->names_answers); left > 0 && queue_pop(c->names_answers, &answer); left--)
        coordinator_on_name(c, &answer);
}

static void coordinator_hush_names(struct coordinator *c)
{
    c->hushed = true;
    resolver_thread_hush(c->resolver, c->ring);
}

/* Nobody is answered any more, and what was lent is back. */
static void coordinator_end_names(struct coordinator *c)
{
    if (!c->resolver) return;
    c->hushed = true;
    resolver_thread_end(c->resolver, c->ring);
    while (c->names_open > 0) coordinator_read_names(c);
}

struct resolve_counts coordinator_resolve_counts(const struct coordinator *c)
{
    return resolve_count(resolver_thread_stats(c->resolver));
}

int coordinator_set_nameservers(struct coordinator *c, const char *nameservers)
{
    return c->hushed ? -ECANCELED : resolver_thread_set_nameservers(c->resolver, c->ring, nameservers);
}

/* --- errands --- */

/* An errand leaves room for the answers that must not be lost. */
bool coordinator_may_send(const struct coordinator *c, uint32_t worker)
{
    if (worker >= coordinator_crew_size(c) || c->crew[worker].closed) return false;
    return queue_depth(c->crew[worker].inbox) <= c->config->queue_capacity / 4;
}

bool coordinator_send(struct coordinator *c, uint32_t worker, struct errand *errand)
{
    struct message message = {.kind = MESSAGE_ERRAND, .body = errand};
    return coordinator_may_send(c, worker) && coordinator_try_push(c, &c->crew[worker], &message);
}

/* With its descriptor: no worker has taken it. Our end of the pair is new and empty, the one octet always fits. */
static void coordinator_on_dialled(struct errand *errand, int32_t result)
{
    struct dial_errand *dial = (struct dial_errand *)errand;
    (void)result;
    if (dial->fd >= 0) {
        net_send_octet(dial->fd, FAIL_RESOURCE);
        close(dial->fd);
    }
    free(dial);
}

static bool coordinator_fill_dial(const struct coordinator *c, struct dial_errand *dial, const struct proxy_uri *hops,
                                  uint8_t hop_count)
{
    uint32_t own = c->config->hop_count;
    if (own + hop_count > ROUTE_HOPS_MAX) return false;
    memcpy(dial->hops, c->config->hops, own * sizeof *hops);
    if (hop_count > 0) memcpy(dial->hops + own, hops, hop_count * sizeof *hops);
    dial->hop_count = (uint8_t)(own + hop_count);
    return true;
}

int coordinator_dial(struct coordinator *c, const struct address *target, const struct proxy_uri *hops,
                     uint8_t hop_count, uint32_t timeout_ms)
{
    struct dial_errand *dial = calloc(1, sizeof *dial);
    int ends[2];
    if (!dial) return -ENOMEM;
    dial->errand = (struct errand){.run = errand_dial, .done = coordinator_on_dialled};
    dial->target = *target;
    dial->timeout_ms = timeout_ms;
    int error = coordinator_fill_dial(c, dial, hops, hop_count) ? 0 : -E2BIG;
    if (error == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) error = -errno;
    if (error < 0) {
        free(dial);
        return error;
    }
    dial->fd = ends[1];
    uint32_t crew = coordinator_crew_size(c), worker = crew > 0 ? c->next_worker++ % crew : 0;
    if (coordinator_send(c, worker, &dial->errand)) return ends[0];
    coordinator_on_dialled(&dial->errand, -EAGAIN);
    close(ends[0]);
    return -EAGAIN;
}

/* --- live settings --- */

/* The last worker that comes back frees what nobody obeys any more. */
struct reconfiguration {
    struct config *old; /* NULL: main's, which is not ours to free */
    uint32_t left;      /* errands on their way */
};

static void reconfiguration_release(struct reconfiguration *all, uint32_t errands)
{
    assert(errands <= all->left);
    all->left -= errands;
    if (all->left > 0) return;
    free(all->old);
    free(all);
}

static void coordinator_on_configured(struct errand *errand, int32_t result)
{
    struct reconfiguration *all = ((struct config_errand *)errand)->all;
    (void)result;
    free(errand);
    reconfiguration_release(all, 1);
}

static bool coordinator_has_room(const struct coordinator *c)
{
    for (uint32_t i = 0; i < coordinator_crew_size(c); i++)
        if (queue_depth(c->crew[i].inbox) > c->config->queue_capacity / 4) return false;
    return true;
}

/* An array of errands, one per worker; NULL without memory. */
static struct config_errand **coordinator_prepare_errands(const struct coordinator *c, struct reconfiguration *all,
                                                          const struct config *fresh)
{
    uint32_t count = coordinator_crew_size(c);
    struct config_errand **errands = calloc(count + 1u, sizeof(struct config_errand *));
    for (uint32_t i = 0; errands && i < count; i++) {
        errands[i] = calloc(1, sizeof **errands);
        if (!errands[i]) {
            while (i > 0) free(errands[--i]);
            free(errands);
            return NULL;
        }
        *errands[i] = (struct config_errand){
            .errand = {.run = errand_configure, .done = coordinator_on_configured}, .config = fresh, .all = all};
    }
    return errands;
}

/* For who must not follow c->config, which may be replaced at any time. */
static void coordinator_show(struct coordinator *c, const struct config *config)
{
    atomic_store_explicit(&c->drain_ms, config->drain_ms, memory_order_relaxed);
    atomic_store_explicit(&c->timeout_ms, config->timeout_ms, memory_order_relaxed);
}

int coordinator_configure(struct coordinator *c, struct config *fresh)
{
    if (!coordinator_has_room(c)) return -EAGAIN;
    struct reconfiguration *all = calloc(1, sizeof *all);
    struct config_errand **errands = all ? coordinator_prepare_errands(c, all, fresh) : NULL;
    if (!errands) {
        free(all);
        return -ENOMEM;
    }
    config_take_fixed(fresh, c->config);
    uint32_t count = coordinator_crew_size(c), stopped = 0;
    *all = (struct reconfiguration){.old = c->owned, .left = count};
    c->config = c->owned = fresh;
    for (uint32_t i = 0; i < count; i++) {
        if (coordinator_send(c, i, &errands[i]->errand)) continue;
        free(errands[i]); /* a worker that has stopped obeys nobody */
        stopped++;
    }
    reconfiguration_release(all, stopped);
    free(errands);
    coordinator_show(c, fresh);
    return 0;
}

const struct config *coordinator_config(const struct coordinator *c)
{
    return c->config;
}

struct own *coordinator_own(const struct coordinator *c)
{
    return c->own;
}

/* --- what workers show --- */

uint32_t coordinator_worker_count(const struct coordinator *c)
{
    return coordinator_crew_size(c);
}

const struct stats *coordinator_worker_stats(const struct coordinator *c, uint32_t worker)
{
    assert(worker < coordinator_crew_size(c));
    return &c->crew[worker].worker.stats;
}

const struct ring_stats *coordinator_ring_stats(const struct coordinator *c, uint32_t worker)
{
    assert(worker < coordinator_crew_size(c));
    const struct crew *crew = &c->crew[worker];
    return crew->worker.ring ? ring_get_stats(crew->worker.ring) : &crew->ring_stats;
}

void coordinator_queue_depths(const struct coordinator *c, uint32_t worker, uint32_t *to_us, uint32_t *to_worker)
{
    assert(worker < coordinator_crew_size(c));
    *to_us = queue_depth(c->crew[worker].outbox);
    *to_worker = queue_depth(c->crew[worker].inbox);
}

void coordinator_set_revision(struct coordinator *c, uint32_t revision)
{
    atomic_store_explicit(&c->revision, revision, memory_order_release);
}

uint32_t coordinator_revision(const struct coordinator *c)
{
    return atomic_load_explicit(&c->revision, memory_order_acquire);
}

uint64_t coordinator_drain_resets(const struct coordinator *c)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < coordinator_crew_size(c); i++) sum += counter_read(&c->crew[i].worker.stats.drain_resets);
    return sum;
}

/* --- waiters --- */

/* The ring's clock as it is now; ring_now_us() is as old as this turn. */
static uint64_t clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static struct waiter **coordinator_waiter(const struct coordinator *c, uint32_t slot)
{
    return pool_at(&c->waiters, slot);
}

bool coordinator_attach(struct coordinator *c, struct waiter *waiter)
{
    waiter->slot = pool_take(&c->waiters);
    if (waiter->slot == POOL_NONE) return false;
    *coordinator_waiter(c, waiter->slot) = waiter;
    return true;
}

void coordinator_detach(struct coordinator *c, struct waiter *waiter)
{
    assert(waiter->slot != POOL_NONE && *coordinator_waiter(c, waiter->slot) == waiter);
    timer_clear(c->timers, waiter->slot);
    *coordinator_waiter(c, waiter->slot) = NULL;
    pool_give(&c->waiters, waiter->slot);
    waiter->slot = POOL_NONE;
}

struct ring_tag coordinator_tag(const struct coordinator *c, const struct waiter *waiter, unsigned op)
{
    assert(op < COORDINATOR_WAITER_OPS && waiter->slot != POOL_NONE);
    return (struct ring_tag){.op = (uint8_t)(COORDINATOR_OP_WAITER + op),
                             .generation = pool_generation(&c->waiters, waiter->slot),
                             .slot = waiter->slot};
}

void coordinator_set_deadline(struct coordinator *c, struct waiter *waiter, uint64_t deadline_ms)
{
    coordinator_set_deadline_us(c, waiter, deadline_ms > UINT64_MAX / 1000 ? UINT64_MAX : deadline_ms * 1000);
}

void coordinator_set_deadline_us(struct coordinator *c, struct waiter *waiter, uint64_t deadline_us)
{
    assert(waiter->slot != POOL_NONE);
    /* What has become due by another's end is for the next turn: two that end each other would hold this one for ever.
     */
    if (c->expiring && deadline_us <= ring_now_us(c->ring)) deadline_us = ring_now_us(c->ring) + 1;
    timer_set(c->timers, waiter->slot, deadline_us);
}

void coordinator_clear_deadline(struct coordinator *c, struct waiter *waiter)
{
    assert(waiter->slot != POOL_NONE);
    timer_clear(c->timers, waiter->slot);
}

static void coordinator_on_waiter(struct coordinator *c, const struct ring_completion *completion)
{
    assert(pool_generation(&c->waiters, completion->tag.slot) == completion->tag.generation);
    struct waiter *waiter = *coordinator_waiter(c, completion->tag.slot);
    assert(waiter && waiter->slot == completion->tag.slot);
    coordinator_let_go(c);
    waiter->on_completion(waiter, completion->tag.op - COORDINATOR_OP_WAITER, completion);
}

static void coordinator_expire(struct coordinator *c)
{
    uint64_t now = ring_now_us(c->ring);
    c->expiring = true;
    for (uint32_t slot; (slot = timer_expire(c->timers, now)) != TIMER_NONE;) {
        struct waiter *waiter = *coordinator_waiter(c, slot);
        coordinator_let_go(c);
        waiter->on_time(waiter);
    }
    c->expiring = false;
}

struct ring *coordinator_ring(struct coordinator *c)
{
    return c->ring;
}

uint64_t coordinator_now_ms(const struct coordinator *c)
{
    return ring_now_ms(c->ring);
}

uint64_t coordinator_after_ms(uint64_t wait_ms)
{
    return clock_us() / 1000 + 1 + wait_ms;
}

uint64_t coordinator_after_us(uint64_t wait_us)
{
    return clock_us() + wait_us;
}

void coordinator_set_hooks(struct coordinator *c, const struct coordinator_hooks *hooks)
{
    c->hooks = *hooks;
}

void coordinator_set_reload(struct coordinator *c, void (*reload)(void *context), void *context)
{
    c->reload = reload;
    c->reload_context = context;
}

/* --- from the workers --- */

static void coordinator_on_route(struct coordinator *c, uint32_t index, const struct message *message)
{
    struct route_request *request = message->body;
    request->origin = *message;
    request->origin_worker = index;
    assert(c->hooks.on_route); /* nobody else sets a revision */
    coordinator_let_go(c);
    c->hooks.on_route(c->hooks.context, request);
}

static void coordinator_on_errand(struct errand *errand, int32_t result)
{
    errand->done(errand, result);
}

static void coordinator_on_message(struct coordinator *c, uint32_t index, const struct message *message)
{
    const struct coordinator_hooks *hooks = &c->hooks;
    switch ((enum message_kind)message->kind) {
    case MESSAGE_ROUTE: coordinator_on_route(c, index, message); return;
    case MESSAGE_CANCEL: hooks->on_cancel(hooks->context, index, message->slot, message->generation); return;
    case MESSAGE_ROUTED:
        hooks->on_routed(hooks->context, index, message->slot, message->generation, message->result);
        return;
    case MESSAGE_ERRAND: coordinator_on_errand(message->body, message->result); return;
    case MESSAGE_STOPPED:
        c->crew[index].stopped = c->crew[index].closed = true;
        c->broken |= message->result < 0;
        c->running--;
        return;
    }
    assert(0 && "a message that no worker sends");
}

static void coordinator_read(struct coordinator *c)
{
    struct message message;
    for (uint32_t i = 0; i < coordinator_crew_size(c); i++)
        for (uint32_t left = queue_depth(c->crew[i].outbox); left > 0 && queue_pop(c->crew[i].outbox, &message); left--)
            coordinator_on_message(c, i, &message);
}

/* The last look before sleep. */
static bool coordinator_has_mail(const struct coordinator *c)
{
    for (uint32_t i = 0; i < coordinator_crew_size(c); i++)
        if (!queue_is_empty(c->crew[i].outbox)) return true;
    return !queue_is_empty(c->names_answers) || !letter_box_is_empty(&c->letters);
}

/* --- stopping, reloading --- */

void coordinator_stop_from(struct coordinator *c, struct ring *ring)
{
    pthread_mutex_lock(&c->lock); /* no worker's ring goes meanwhile */
    atomic_fetch_add_explicit(&c->stops, 1, memory_order_release);
    for (uint32_t i = 0; c->go && !c->over && i < coordinator_crew_size(c); i++)
        ring_wake(ring, c->crew[i].worker.ring, (struct ring_tag){.op = WORKER_OP_WAKE});
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
    c->quiet_ms = stops > 1 ? now : now + c->config->drain_ms;
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
    if (!c->hushed) resolver_thread_reload(c->resolver, c->ring);
    if (c->hooks.on_reload) c->hooks.on_reload(c->hooks.context);
    if (c->reload) c->reload(c->reload_context);
    if (!c->hooks.on_reload && !c->reload) LOGN("SIGHUP: nothing to reload");
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

uint32_t coordinator_drain_ms(const struct coordinator *c)
{
    return atomic_load_explicit(&c->drain_ms, memory_order_relaxed);
}

uint32_t coordinator_timeout_ms(const struct coordinator *c)
{
    return atomic_load_explicit(&c->timeout_ms, memory_order_relaxed);
}

struct heartbeat *coordinator_heartbeat(struct coordinator *c)
{
    return &c->heartbeat;
}

/* --- a worker's thread --- */

static bool crew_wait_for_start(struct crew *crew, int result)
{
    struct coordinator *c = crew->coordinator;
    pthread_mutex_lock(&c->lock);
    crew->result = result;
    c->ready++;
    pthread_cond_broadcast(&c->changed);
    while (!c->go && !c->abandon) pthread_cond_wait(&c->changed, &c->lock);
    bool go = c->go;
    pthread_mutex_unlock(&c->lock);
    return go;
}

/* Until then the coordinator may be about to wake us, by way of our ring. */
static void crew_wait_for_end(struct crew *crew)
{
    struct coordinator *c = crew->coordinator;
    pthread_mutex_lock(&c->lock);
    while (!c->over) pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static void crew_say_stopped(struct crew *crew, int result)
{
    struct message message = {.kind = MESSAGE_STOPPED, .slot = crew->worker.index, .result = result};
    if (result == 0) return;                                    /* worker_run() has said it */
    while (!worker_post(&crew->worker, &message)) usleep(1000); /* there is nothing else that it could do */
}

static void *crew_main(void *argument)
{
    struct crew *crew = argument;
    char name[16] = "worker";
    log_attach();
    snprintf(name, sizeof name, "worker-%u", crew->worker.index);
    pthread_setname_np(pthread_self(), name);
    if (crew->cpu >= 0) cpu_pin_thread(crew->cpu);
    int result = worker_open(&crew->worker);
    if (crew_wait_for_start(crew, result)) {
        worker_arm_listeners(&crew->worker);
        crew_say_stopped(crew, worker_run(&crew->worker));
    }
    crew_wait_for_end(crew);
    if (result == 0) {
        memcpy(&crew->ring_stats, ring_get_stats(crew->worker.ring), sizeof crew->ring_stats);
        worker_close(&crew->worker);
    }
    return NULL;
}

/* --- opening --- */

static void crew_init(struct coordinator *c, uint32_t index, const int *fds)
{
    struct crew *crew = &c->crew[index];
    struct worker *w = &crew->worker;
    crew->coordinator = c;
    w->config = c->config;
    w->index = index;
    w->own = c->own;
    w->inbox = crew->inbox;
    w->coordinator = (struct mailbox){
        .queue = crew->outbox, .sleeper = &c->sleeper, .ring = &c->ring, .wake = {.op = COORDINATOR_OP_WAKE}};
    crew->inbox_way = (struct mailbox){
        .queue = crew->inbox, .sleeper = &w->sleeper, .ring = &w->ring, .wake = {.op = WORKER_OP_WAKE}};
    w->revision = &c->revision;
    w->stops = &c->stops;
    w->peers = c->workers;
    w->peer_count = c->config->workers;
    for (uint32_t i = 0; i < c->config->listener_count; i++) {
        w->listeners[i].fd = fds[index * c->config->listener_count + i];
        w->listeners[i].shared = c->config->listeners[i].address.kind == ADDRESS_UNIX;
    }
    c->workers[index] = w;
}

/* Each setup slot, and each UDP association, may have one question open. */
static int crew_meet_resolver(struct crew *crew)
{
    struct worker *w = &crew->worker;
    uint32_t questions_max = w->config->setups + w->config->associations;
    return resolver_thread_add_asker(crew->coordinator->resolver, &crew->inbox_way, questions_max, &w->resolver,
                                     &w->names);
}

static int coordinator_open_crew(struct coordinator *c, const int *fds)
{
    c->crew_size = c->config->workers;
    c->crew = calloc(c->crew_size, sizeof *c->crew);
    c->workers = calloc(c->config->workers, sizeof(struct worker *));
    if (!c->crew || !c->workers) return -ENOMEM;
    for (uint32_t i = 0; i < coordinator_crew_size(c); i++) {
        int error = queue_open(&c->crew[i].inbox, c->config->queue_capacity);
        if (error == 0) error = queue_open(&c->crew[i].outbox, c->config->queue_capacity);
        if (error < 0) return error;
        crew_init(c, i, fds);
        error = crew_meet_resolver(&c->crew[i]);
        if (error < 0) return error;
    }
    return 0;
}

static int coordinator_open_resolver(struct coordinator *c)
{
    struct resolve_options options = {
        .nameservers = c->config->nameservers,
        .sockets_max = c->config->name_sockets,
        .timeout_ms = COORDINATOR_RESOLVE_MS < c->config->timeout_ms ? COORDINATOR_RESOLVE_MS : c->config->timeout_ms};
    struct mailbox ours = {.sleeper = &c->sleeper, .ring = &c->ring, .wake = {.op = COORDINATOR_OP_WAKE}};
    int error = resolver_thread_open(&c->resolver, &options);
    return error < 0
               ? error
               : resolver_thread_add_asker(c->resolver, &ours, COORDINATOR_NAMES_MAX, &c->names, &c->names_answers);
}

static int coordinator_open_waiters(struct coordinator *c)
{
    int error = pool_open(&c->waiters, COORDINATOR_WAITERS_MAX, sizeof(struct waiter *));
    return error < 0 ? error : timer_open(&c->timers, COORDINATOR_WAITERS_MAX, ring_now_us(c->ring), 1);
}

int coordinator_open(struct coordinator **out, const struct config *config)
{
    struct coordinator *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    c->config = config;
    coordinator_show(c, config);
    c->exit_status = -1;
    c->quiet_ms = UINT64_MAX;
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
    error = coordinator_open_waiters(c);
    if (error < 0) LOGE("start-up failed: %s", strerror(-error));
    return error < 0 ? error : coordinator_open_resolver(c);
}

/* Wakes the workers that wait in crew_wait_for_start(). */
static void coordinator_release(struct coordinator *c, bool go)
{
    pthread_mutex_lock(&c->lock);
    c->go = go;
    c->abandon = !go;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* What was lent to, or by, a worker that is gone. */
static void coordinator_take_back(struct coordinator *c)
{
    struct message message;
    for (uint32_t i = 0; i < coordinator_crew_size(c); i++) {
        while (queue_pop(c->crew[i].inbox, &message)) {
            if (message.kind == MESSAGE_ERRAND) coordinator_on_errand(message.body, -ECANCELED);
        }
        while (queue_pop(c->crew[i].outbox, &message)) {
            if (message.kind == MESSAGE_ERRAND) coordinator_on_errand(message.body, message.result);
        }
        struct errand_returns *returns = &c->crew[i].worker.returns;
        for (struct errand *errand; (errand = errand_take_return(returns)) != NULL;)
            coordinator_on_errand(errand, errand->result);
    }
}

/* The resolver first: it may be about to wake a worker by way of its ring. */
static void coordinator_join(struct coordinator *c)
{
    coordinator_end_names(c);
    pthread_mutex_lock(&c->lock);
    c->over = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < coordinator_crew_size(c); i++) {
        if (c->crew[i].started) pthread_join(c->crew[i].thread, NULL);
        c->crew[i].started = false;
        c->crew[i].closed = true;
    }
    atomic_store_explicit(&c->finished, true, memory_order_release);
    coordinator_take_back(c);
}

static int coordinator_await_ready(struct coordinator *c, uint32_t count)
{
    int error = 0;
    pthread_mutex_lock(&c->lock);
    while (c->ready < count) pthread_cond_wait(&c->changed, &c->lock);
    for (uint32_t i = 0; i < count; i++)
        if (c->crew[i].result < 0) error = c->crew[i].result;
    pthread_mutex_unlock(&c->lock);
    return error;
}

static int coordinator_start_crew(struct coordinator *c)
{
    int cpus[CONFIG_WORKERS_MAX];
    int cpu_count = cpu_list_allowed(cpus, (int)CONFIG_WORKERS_MAX);
    bool pin = c->config->workers <= (uint32_t)cpu_count;
    uint32_t started = 0;
    int error = 0;
    for (; started < c->config->workers && error == 0; started++) {
        struct crew *crew = &c->crew[started];
        crew->cpu = pin ? cpus[started] : -1;
        error = -pthread_create(&crew->thread, NULL, crew_main, crew);
        crew->started = error == 0;
        if (error < 0) break;
    }
    if (error < 0) LOGE("a worker thread could not be started: %s; raise ulimit -u", strerror(-error));
    int opened = coordinator_await_ready(c, started);
    if (error == 0) error = opened;
    coordinator_release(c, error == 0);
    if (error < 0) {
        coordinator_join(c);
        log_flush();
    } else {
        c->running = c->config->workers;
    }
    return error;
}

int coordinator_start(struct coordinator *c, const int *fds)
{
    int error = coordinator_open_crew(c, fds);
    if (error < 0) {
        LOGE("start-up failed: %s", strerror(-error));
        return error;
    }
    return coordinator_start_crew(c);
}

/* --- the loop --- */

/* Sessions that the drain has ended still wait for names and verdicts that they have asked for: a server or a script
 * that does not answer must not hold up the end. */
static void coordinator_hush(struct coordinator *c)
{
    if (c->hushed || ring_now_ms(c->ring) < c->quiet_ms) return;
    if (c->hooks.on_stop) c->hooks.on_stop(c->hooks.context);
    coordinator_hush_names(c);
}

static uint64_t coordinator_wait_us(const struct coordinator *c)
{
    uint64_t wait = COORDINATOR_LOG_MS * 1000, next = timer_wait_exact(c->timers, clock_us());
    return next < wait ? next : wait;
}

static void coordinator_dispatch(struct coordinator *c, const struct ring_completion *completion)
{
    if (completion->tag.op >= COORDINATOR_OP_WAITER) {
        coordinator_on_waiter(c, completion);
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
    coordinator_read(c);
    coordinator_let_go(c);
    letter_box_deliver(&c->letters);
    coordinator_read_names(c);
    coordinator_expire(c);
    coordinator_let_go(c);
    if (c->hooks.on_turn) c->hooks.on_turn(c->hooks.context);
    coordinator_hush(c);
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
    coordinator_join(c);
    log_flush();
    return c->broken ? -EIO : 0;
}

void coordinator_close(struct coordinator *c)
{
    coordinator_end_names(c);
    if (c->resolver) resolver_thread_close(c->resolver);
    for (uint32_t i = 0; i < coordinator_crew_size(c); i++) {
        if (c->crew[i].inbox) queue_close(c->crew[i].inbox);
        if (c->crew[i].outbox) queue_close(c->crew[i].outbox);
    }
    if (c->timers) timer_close(c->timers);
    if (c->waiters.slots) pool_close(&c->waiters);
    if (c->ring) ring_destroy(c->ring);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c->workers);
    free(c->crew);
    own_close(c->own);
    free(c->owned);
    free(c);
}
