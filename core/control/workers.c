#include "core/control/workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/control/access_log.h"
#include "core/control/coordinator_private.h"
#include "core/io/cpu.h"
#include "core/io/log.h"
#include "core/session/message.h"
#include "core/session/worker_loop.h"

/* --- to the workers --- */

bool workers_try_push(struct coordinator *c, uint32_t worker, const struct message *message)
{
    return mailbox_post(&c->threads[worker].to_inbox, c->ring, message, &c->wakes_armed);
}

void coordinator_wake_workers(struct coordinator *c)
{
    if (!c->wakes_armed) return;
    c->wakes_armed = false;
    ring_flush(c->ring);
}

void coordinator_answer(struct coordinator *c, struct route_request *request, int32_t result)
{
    struct message answer = request->origin;
    answer.result = result;
    bool pushed = workers_try_push(c, request->origin_worker, &answer);
    assert(pushed); /* a worker's inbox has room for an answer to each of its sessions, see config_size() */
    (void)pushed;
}

/* --- from the workers --- */

static void workers_on_route(struct coordinator *c, uint32_t index, const struct message *message)
{
    struct route_request *request = message->body;
    request->origin = *message;
    request->origin_worker = index;
    assert(c->hooks.on_route); /* nobody else sets a revision */
    coordinator_wake_workers(c);
    c->hooks.on_route(c->hooks.context, request);
}

static void workers_on_message(struct coordinator *c, uint32_t index, const struct message *message)
{
    const struct coordinator_hooks *hooks = &c->hooks;
    switch ((enum message_kind)message->kind) {
    case MESSAGE_ROUTE: workers_on_route(c, index, message); return;
    case MESSAGE_CANCEL: hooks->on_cancel(hooks->context, index, message->slot, message->generation); return;
    case MESSAGE_ROUTED:
        hooks->on_routed(hooks->context, index, message->slot, message->generation, message->result);
        return;
    case MESSAGE_ERRAND: errand_finish(message->body, message->result); return;
    case MESSAGE_STOPPED:
        c->threads[index].stopped = c->threads[index].closed = true;
        c->broken |= message->result < 0;
        c->running--;
        return;
    }
    assert(0 && "a message that no worker sends");
}

void workers_read(struct coordinator *c)
{
    struct message message;
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++)
        for (uint32_t left = queue_depth(c->threads[i].outbox); left > 0 && queue_pop(c->threads[i].outbox, &message);
             left--)
            workers_on_message(c, i, &message);
}

bool workers_have_sent(const struct coordinator *c)
{
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++)
        if (!queue_is_empty(c->threads[i].outbox)) return true;
    return false;
}

/* --- what they show --- */

/* None before coordinator_start(). */
uint32_t coordinator_worker_count(const struct coordinator *c)
{
    return c->threads ? c->worker_count : 0;
}

const struct stats *coordinator_worker_stats(const struct coordinator *c, uint32_t worker)
{
    assert(worker < coordinator_worker_count(c));
    return &c->threads[worker].worker.stats;
}

const struct ring_stats *coordinator_ring_stats(const struct coordinator *c, uint32_t worker)
{
    assert(worker < coordinator_worker_count(c));
    const struct worker_thread *thread = &c->threads[worker];
    return thread->worker.ring ? ring_get_stats(thread->worker.ring) : &thread->ring_stats;
}

void coordinator_queue_depths(const struct coordinator *c, uint32_t worker, uint32_t *to_us, uint32_t *to_worker)
{
    assert(worker < coordinator_worker_count(c));
    *to_us = queue_depth(c->threads[worker].outbox);
    *to_worker = queue_depth(c->threads[worker].inbox);
}

uint64_t coordinator_drain_resets(const struct coordinator *c)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++)
        sum += counter_read(&c->threads[i].worker.stats.drain_resets);
    return sum;
}

/* --- a worker's thread --- */

static bool thread_wait_for_start(struct worker_thread *thread, int result)
{
    struct coordinator *c = thread->coordinator;
    pthread_mutex_lock(&c->lock);
    thread->result = result;
    c->ready++;
    pthread_cond_broadcast(&c->changed);
    while (!c->go && !c->abandon) pthread_cond_wait(&c->changed, &c->lock);
    bool go = c->go;
    pthread_mutex_unlock(&c->lock);
    return go;
}

/* Until then the coordinator may be about to wake us, by way of our ring. */
static void thread_wait_for_end(struct worker_thread *thread)
{
    struct coordinator *c = thread->coordinator;
    pthread_mutex_lock(&c->lock);
    while (!c->over) pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static void thread_say_stopped(struct worker_thread *thread, int result)
{
    struct message message = {.kind = MESSAGE_STOPPED, .slot = thread->worker.index, .result = result};
    if (result == 0) return;                                      /* worker_run() has said it */
    while (!worker_post(&thread->worker, &message)) usleep(1000); /* there is nothing else that it could do */
}

static void *thread_main(void *argument)
{
    struct worker_thread *thread = argument;
    char name[16] = "worker";
    log_attach();
    snprintf(name, sizeof name, "worker-%u", thread->worker.index);
    pthread_setname_np(pthread_self(), name);
    if (thread->cpu >= 0) cpu_pin_thread(thread->cpu);
    int result = worker_open(&thread->worker);
    if (thread_wait_for_start(thread, result)) {
        worker_arm_listeners(&thread->worker);
        thread_say_stopped(thread, worker_run(&thread->worker));
    }
    thread_wait_for_end(thread);
    if (result == 0) {
        memcpy(&thread->ring_stats, ring_get_stats(thread->worker.ring), sizeof thread->ring_stats);
        worker_close(&thread->worker);
    }
    return NULL;
}

/* --- opening --- */

static void thread_init(struct coordinator *c, uint32_t index, const int *fds)
{
    struct worker_thread *thread = &c->threads[index];
    struct worker *w = &thread->worker;
    thread->coordinator = c;
    w->config = c->config;
    w->index = index;
    w->own = c->own;
    w->keys = c->keys;
    w->groups = c->groups;
    w->tally = &c->tallies[index];
    if (c->access_log) w->access = access_log_feed(c->access_log, index);
    if (c->checkers) w->verifier = checkers_verifier(c->checkers);
    w->inbox = thread->inbox;
    w->coordinator = (struct mailbox){
        .queue = thread->outbox, .sleeper = &c->sleeper, .ring = &c->ring, .wake = {.op = COORDINATOR_OP_WAKE}};
    thread->to_inbox = (struct mailbox){
        .queue = thread->inbox, .sleeper = &w->sleeper, .ring = &w->ring, .wake = {.op = WORKER_OP_WAKE}};
    w->revision = &c->revision;
    w->stops = &c->stops;
    w->pipes_ahead_count = c->pipes_ahead_count / c->config->workers;
    if (c->pipes_ahead) w->pipes_ahead = c->pipes_ahead + (size_t)index * w->pipes_ahead_count;
    w->peers = c->workers;
    w->peer_count = c->config->workers;
    for (uint32_t i = 0; i < c->config->listener_count; i++) {
        w->listeners[i].fd = fds[index * c->config->listener_count + i];
        w->listeners[i].shared = c->config->listeners[i].address.kind == ADDRESS_UNIX;
    }
    c->workers[index] = w;
}

int coordinator_make_pipes(struct coordinator *c)
{
    uint32_t count = c->config->pipes * c->config->workers;
    if (count == 0) return 0;
    c->pipes_ahead = calloc(count, sizeof *c->pipes_ahead);
    if (!c->pipes_ahead) return -ENOMEM;
    c->pipes_ahead_count = pipes_make_ahead(c->pipes_ahead, count, c->config->pipe_size);
    return 0;
}

/* Each setup slot, and each UDP association, may have one question open. */
static int thread_meet_resolver(struct worker_thread *thread)
{
    struct worker *w = &thread->worker;
    w->resolver_stats = resolver_thread_stats(thread->coordinator->resolver);
    uint32_t questions_max = w->config->setups + w->config->associations;
    return resolver_thread_add_asker(thread->coordinator->resolver, &thread->to_inbox, questions_max, &w->resolver,
                                     &w->names);
}

static int workers_open(struct coordinator *c, const int *fds)
{
    c->worker_count = c->config->workers;
    c->threads = calloc(c->worker_count, sizeof *c->threads);
    c->workers = calloc(c->config->workers, sizeof(struct worker *));
    if (!c->threads || !c->workers) return -ENOMEM;
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {
        int error = queue_open(&c->threads[i].inbox, c->config->queue_capacity);
        if (error == 0) error = queue_open(&c->threads[i].outbox, c->config->queue_capacity);
        if (error < 0) return error;
        thread_init(c, i, fds);
        error = thread_meet_resolver(&c->threads[i]);
        if (error < 0) return error;
    }
    return 0;
}

/* Wakes the workers that wait in thread_wait_for_start(). */
static void workers_release(struct coordinator *c, bool go)
{
    pthread_mutex_lock(&c->lock);
    c->go = go;
    c->abandon = !go;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* The resolver and the checkers first: they may be about to wake a worker by way of its ring. */
void workers_join(struct coordinator *c)
{
    names_end(c);
    accounts_end(c);
    pthread_mutex_lock(&c->lock);
    c->over = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {
        if (c->threads[i].started) pthread_join(c->threads[i].thread, NULL);
        c->threads[i].started = false;
        c->threads[i].closed = true;
    }
    atomic_store_explicit(&c->finished, true, memory_order_release);
    errands_take_back(c);
}

static int workers_await_ready(struct coordinator *c, uint32_t count)
{
    int error = 0;
    pthread_mutex_lock(&c->lock);
    while (c->ready < count) pthread_cond_wait(&c->changed, &c->lock);
    for (uint32_t i = 0; i < count; i++)
        if (error == 0) error = c->threads[i].result; /* 0 or -errno */
    pthread_mutex_unlock(&c->lock);
    return error;
}

static int workers_start_threads(struct coordinator *c)
{
    int cpus[CONFIG_WORKERS_MAX];
    int cpu_count = cpu_list_allowed(cpus, (int)CONFIG_WORKERS_MAX);
    bool pin = c->config->workers <= (uint32_t)cpu_count;
    uint32_t started = 0;
    int error = 0;
    for (; started < c->config->workers && error == 0; started++) {
        struct worker_thread *thread = &c->threads[started];
        thread->cpu = pin ? cpus[started] : -1;
        error = -pthread_create(&thread->thread, NULL, thread_main, thread);
        thread->started = error == 0;
        if (error < 0) break;
    }
    if (error < 0) LOGE("a worker thread could not be started: %s; raise ulimit -u", strerror(-error));
    int opened = workers_await_ready(c, started);
    if (error == 0) error = opened;
    workers_release(c, error == 0);
    if (error < 0) {
        workers_join(c);
        log_flush();
    } else {
        c->running = c->config->workers;
    }
    return error;
}

int workers_start(struct coordinator *c, const int *fds)
{
    int error = workers_open(c, fds);
    if (error < 0) {
        LOGE("start-up failed: %s", strerror(-error));
        return error;
    }
    return workers_start_threads(c);
}

void workers_close(struct coordinator *c)
{
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {
        if (c->threads[i].inbox) queue_close(c->threads[i].inbox);
        if (c->threads[i].outbox) queue_close(c->threads[i].outbox);
    }
    free(c->pipes_ahead);
    free(c->workers);
    free(c->threads);
}
