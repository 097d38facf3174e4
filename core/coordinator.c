#include "coordinator.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "log.h"
#include "process.h"
#include "resolve.h"
#include "worker.h"

#define COORDINATOR_RING_ENTRIES 256u
/* How often the workers' log lines are written out. */
#define COORDINATOR_LOG_MS 100u
/* A resolver that never answers costs this, not the whole half-open limit. */
#define COORDINATOR_RESOLVE_MS 10000u

enum coordinator_op { COORDINATOR_OP_WAKE = 1, COORDINATOR_OP_SIGNAL, COORDINATOR_OP_RESOLVE };

/* A worker and its thread. */
struct crew {
    struct worker worker;
    struct coordinator *coordinator;
    struct queue *outbox, *inbox;
    pthread_t thread;
    bool started, stopped;
    int cpu;    /* -1: not pinned */
    int result; /* of worker_open(), behind the lock */
};

struct coordinator {
    const struct config *config;
    struct ring *ring;
    struct resolver *resolver;
    struct sleeper sleeper;
    int signal_fd;
    uint32_t running; /* workers that have not said MESSAGE_STOPPED */
    bool broken;      /* a worker's ring broke */
    uint64_t
        quiet_ms; /* names are answered until then: the drain is over after it; UINT64_MAX while nobody asks to stop */
    struct crew *crew;
    struct worker **workers;

    pthread_mutex_t lock; /* start-up and end only */
    pthread_cond_t changed;
    uint32_t ready; /* workers that have finished worker_open() */
    bool go;        /* all are open: accept */
    bool abandon;   /* one is not: end */
    bool over;      /* nothing is posted to workers any more: their rings may go */
};

/* --- to the workers --- */

static void coordinator_post(struct coordinator *c, struct crew *to, const struct message *message)
{
    bool pushed = queue_push(to->inbox, message);
    assert(pushed); /* a worker's inbox has room for an answer to each of its sessions */
    if (pushed && sleeper_must_wake(&to->worker.sleeper))
        ring_wake(c->ring, to->worker.ring, (struct ring_tag){.op = WORKER_OP_WAKE});
}

static void coordinator_on_resolved(void *context, struct resolve_request *request, void *cookie, int status)
{
    struct coordinator *c = context;
    struct message answer = request->origin;
    (void)cookie;
    answer.result = status;
    coordinator_post(c, &c->crew[request->origin_worker], &answer);
}

/* --- from the workers --- */

static void coordinator_on_message(struct coordinator *c, uint32_t index, const struct message *message)
{
    switch ((enum message_kind)message->kind) {
    case MESSAGE_RESOLVE: {
        struct resolve_request *request = message->body;
        request->origin = *message;
        request->origin_worker = index;
        if (c->resolver)
            resolve_ask(c->resolver, request, NULL);
        else
            coordinator_on_resolved(c, request, NULL, -ECANCELED);
        return;
    }
    case MESSAGE_STOPPED:
        c->crew[index].stopped = true;
        c->broken |= message->result < 0;
        c->running--;
        return;
    default: assert(0 && "a message that no worker sends");
    }
}

static void coordinator_read(struct coordinator *c)
{
    struct message message;
    for (uint32_t i = 0; i < c->config->workers; i++)
        while (queue_pop(c->crew[i].outbox, &message)) coordinator_on_message(c, i, &message);
}

static bool coordinator_has_mail(const struct coordinator *c)
{
    for (uint32_t i = 0; i < c->config->workers; i++)
        if (queue_depth(c->crew[i].outbox) > 0) return true;
    return false;
}

/* --- signals --- */

static void coordinator_arm_signals(struct coordinator *c)
{
    ring_poll(c->ring, c->signal_fd, POLLIN, (struct ring_tag){.op = COORDINATOR_OP_SIGNAL});
}

static void coordinator_stop_workers(struct coordinator *c)
{
    uint64_t now = ring_now_ms(c->ring);
    c->quiet_ms = c->quiet_ms == UINT64_MAX ? now + c->config->drain_ms : now;
    for (uint32_t i = 0; i < c->config->workers; i++)
        if (!c->crew[i].stopped) coordinator_post(c, &c->crew[i], &(struct message){.kind = MESSAGE_STOP});
}

static void coordinator_on_signal(struct coordinator *c)
{
    struct signalfd_siginfo info;
    while (read(c->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            LOGN("SIGHUP: nothing to reload");
            continue;
        }
        LOGN("server shutdown gracefully");
        coordinator_stop_workers(c);
    }
    coordinator_arm_signals(c);
}

static int coordinator_open_signals(struct coordinator *c)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    c->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return c->signal_fd < 0 ? -errno : 0;
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
    if (result == 0) return; /* worker_run() has said it */
    worker_post(&crew->worker,
                &(struct message){.kind = MESSAGE_STOPPED, .slot = crew->worker.index, .result = result});
}

static void *crew_main(void *argument)
{
    struct crew *crew = argument;
    char name[16] = "worker";
    log_attach();
    snprintf(name, sizeof name, "worker-%u", crew->worker.index);
    pthread_setname_np(pthread_self(), name);
    if (crew->cpu >= 0) process_pin_thread(crew->cpu);
    int result = worker_open(&crew->worker);
    if (crew_wait_for_start(crew, result)) {
        worker_arm_listeners(&crew->worker);
        crew_say_stopped(crew, worker_run(&crew->worker));
    }
    crew_wait_for_end(crew);
    if (result == 0) worker_close(&crew->worker);
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
    w->inbox = crew->inbox;
    w->outbox = crew->outbox;
    w->coordinator_sleeper = &c->sleeper;
    w->coordinator_ring = c->ring;
    w->coordinator_tag = (struct ring_tag){.op = COORDINATOR_OP_WAKE};
    w->peers = c->workers;
    w->peer_count = c->config->workers;
    for (uint32_t i = 0; i < c->config->listener_count; i++) {
        w->listeners[i].fd = fds[index * c->config->listener_count + i];
        w->listeners[i].shared = c->config->listeners[i].address.kind == ADDRESS_UNIX;
    }
    c->workers[index] = w;
}

static int coordinator_open_crew(struct coordinator *c, const int *fds)
{
    c->crew = calloc(c->config->workers, sizeof *c->crew);
    c->workers = calloc(c->config->workers, sizeof(struct worker *));
    if (!c->crew || !c->workers) return -ENOMEM;
    for (uint32_t i = 0; i < c->config->workers; i++) {
        int error = queue_open(&c->crew[i].inbox, c->config->queue_capacity);
        if (error == 0) error = queue_open(&c->crew[i].outbox, c->config->queue_capacity);
        if (error < 0) return error;
        crew_init(c, i, fds);
    }
    return 0;
}

static int coordinator_open_resolver(struct coordinator *c)
{
    struct resolve_options options = {
        .nameservers = c->config->nameservers,
        .timeout_ms = COORDINATOR_RESOLVE_MS < c->config->timeout_ms ? COORDINATOR_RESOLVE_MS : c->config->timeout_ms,
        .op = COORDINATOR_OP_RESOLVE};
    int error = resolve_open(&c->resolver, c->ring, &options, coordinator_on_resolved, c);
    if (error < 0)
        LOGE("the resolver could not be set up: %s; check --nameserver and /etc/resolv.conf", strerror(-error));
    return error;
}

int coordinator_open(struct coordinator **out, const struct config *config, const int *fds)
{
    struct coordinator *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    c->config = config;
    c->signal_fd = -1;
    c->quiet_ms = UINT64_MAX;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    *out = c;
    int error = ring_open(&c->ring, &(struct ring_options){.entries = COORDINATOR_RING_ENTRIES});
    if (error < 0) {
        LOGE("%s (%s)", ring_explain(error), strerror(-error));
        return error;
    }
    error = coordinator_open_signals(c);
    if (error == 0) error = coordinator_open_crew(c, fds);
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

static void coordinator_join(struct coordinator *c)
{
    pthread_mutex_lock(&c->lock);
    c->over = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < c->config->workers; i++) {
        if (c->crew[i].started) pthread_join(c->crew[i].thread, NULL);
        c->crew[i].started = false;
    }
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

int coordinator_start(struct coordinator *c)
{
    int cpus[CONFIG_WORKERS_MAX];
    int cpu_count = process_affinity_cpus(cpus, (int)CONFIG_WORKERS_MAX);
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

/* --- the loop --- */

/* Sessions that the drain has ended still wait for names that they have asked for: a server that does not answer must
 * not hold up the end. */
static void coordinator_hush(struct coordinator *c)
{
    if (!c->resolver || ring_now_ms(c->ring) < c->quiet_ms) return;
    resolve_close(c->resolver);
    c->resolver = NULL;
}

static uint64_t coordinator_wait_ms(const struct coordinator *c)
{
    if (!c->resolver) return COORDINATOR_LOG_MS;
    uint64_t wait = resolve_wait_ms(c->resolver, ring_now_ms(c->ring));
    return wait < COORDINATOR_LOG_MS ? wait : COORDINATOR_LOG_MS;
}

static void coordinator_dispatch(struct coordinator *c, const struct ring_completion *completion)
{
    switch ((enum coordinator_op)completion->tag.op) {
    case COORDINATOR_OP_WAKE: return; /* mail is read in every turn */
    case COORDINATOR_OP_SIGNAL: coordinator_on_signal(c); return;
    case COORDINATOR_OP_RESOLVE:
        if (c->resolver) resolve_on_completion(c->resolver, completion); /* else of a poll that was cancelled */
        return;
    }
    assert(0 && "a completion of an unknown kind");
}

static int coordinator_turn(struct coordinator *c)
{
    struct ring_completion completion;
    sleeper_announce(&c->sleeper);
    int error = ring_wait(c->ring, coordinator_has_mail(c) ? 0 : coordinator_wait_ms(c));
    sleeper_awake(&c->sleeper);
    if (error < 0) return error;
    while (ring_next(c->ring, &completion)) coordinator_dispatch(c, &completion);
    coordinator_read(c);
    if (c->resolver) resolve_on_time(c->resolver, ring_now_ms(c->ring));
    coordinator_hush(c);
    log_flush();
    return 0;
}

int coordinator_run(struct coordinator *c)
{
    int error = 0;
    coordinator_arm_signals(c);
    while (c->running > 0 && error == 0) {
        error = coordinator_turn(c);
        if (c->broken && c->quiet_ms == UINT64_MAX) coordinator_stop_workers(c);
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
    if (c->resolver) resolve_close(c->resolver);
    for (uint32_t i = 0; c->crew && i < c->config->workers; i++) {
        if (c->crew[i].inbox) queue_close(c->crew[i].inbox);
        if (c->crew[i].outbox) queue_close(c->crew[i].outbox);
    }
    if (c->signal_fd >= 0) close(c->signal_fd);
    if (c->ring) ring_destroy(c->ring);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c->workers);
    free(c->crew);
    free(c);
}
