#include "core/control/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "core/io/log.h"

#define SUPERVISOR_RING_ENTRIES 512u /* a stop wakes every worker at once */
/* How often log lines are written out, and stops looked for that others have asked for. */
#define SUPERVISOR_TURN_MS 100u
/* What scripts may take behind the drain to return. */
#define SUPERVISOR_GRACE_MS 800u
/* What the end may take behind the drain where no script holds it: a busy machine cuts off nothing that is written. */
#define SUPERVISOR_END_MS 5000u
/* And what a turn of ours may take then, with its lines in the log: stderr may be a pipe that nobody reads. */
#define SUPERVISOR_LAST_MS 1500u

enum supervisor_op { SUPERVISOR_OP_SIGNAL = 1, SUPERVISOR_OP_WAKE, SUPERVISOR_OP_GUEST };

struct supervisor {
    struct ring *ring;
    pthread_t thread;
    int signal_fd, wake_fd;
    struct letter_box letters;
    struct sleeper sleeper;
    _Atomic(struct coordinator *) coordinator; /* NULL: there is none yet */
    _Atomic bool serving, stopping, over;
    void (*_Atomic last)(void);

    /* the thread's own */
    struct guest *guest;
    bool polling, ready; /* the guest's descriptor */
    uint32_t stops;      /* as the coordinator counts them, or as we do while there is none */
    uint64_t stop_ms;    /* when it was asked to stop for the first time; 0: not yet */
    uint64_t end_ms;     /* when the process ends if a script holds it; UINT64_MAX: nobody has asked */
    uint64_t last_ms;    /* when it ends in any case */
    struct letter reload;
    _Atomic bool reloading; /* the letter is on its way */

    pthread_mutex_t lock; /* of opening, and of supervisor_do() */
    pthread_cond_t changed;
    bool opened;
    int result;
};

static struct coordinator *supervisor_coordinator(const struct supervisor *s)
{
    return atomic_load_explicit(&s->coordinator, memory_order_acquire);
}

/* --- what others see --- */

enum supervisor_phase supervisor_phase(const struct supervisor *s)
{
    if (atomic_load(&s->stopping)) return SUPERVISOR_STOPPING;
    return atomic_load(&s->serving) ? SUPERVISOR_SERVING : SUPERVISOR_STARTING;
}

void supervisor_set_serving(struct supervisor *s)
{
    atomic_store(&s->serving, true);
}

void supervisor_set_last(struct supervisor *s, void (*last)(void))
{
    atomic_store(&s->last, last);
}

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* For how long the coordinator's turn has lasted, or its present run of Lua; 0: it waits. */
static uint64_t supervisor_busy_ms(const struct supervisor *s, char *who, size_t size)
{
    struct coordinator *c = supervisor_coordinator(s);
    if (!c) return 0;
    struct heartbeat_reading reading = heartbeat_read(coordinator_heartbeat(c));
    uint64_t now = clock_ms(), since = reading.entry_ms > reading.turn_ms ? reading.entry_ms : reading.turn_ms;
    snprintf(who, size, "%s", reading.entry_ms > 0 && reading.text[0] ? reading.text : "the coordinator");
    return reading.turn_ms > 0 && now > since ? now - since : 0;
}

uint64_t supervisor_stuck_ms(const struct supervisor *s, char *who, size_t size)
{
    uint64_t busy_ms = supervisor_busy_ms(s, who, size);
    return busy_ms >= SUPERVISOR_STUCK_MS ? busy_ms : 0;
}

static void supervisor_wake(struct supervisor *s)
{
    uint64_t one = 1;
    ssize_t written;
    do written = write(s->wake_fd, &one, sizeof one);
    while (written < 0 && errno == EINTR); /* a full counter wakes as well */
}

void supervisor_post(struct supervisor *s, struct letter *letter)
{
    letter_put(&s->letters, letter);
    if (sleeper_must_wake(&s->sleeper)) supervisor_wake(s);
}

struct order {
    struct letter letter; /* first */
    struct supervisor *supervisor;
    void (*function)(void *context);
    void *context;
    bool done;
};

static void order_deliver(struct letter *letter)
{
    struct order *order = (struct order *)letter;
    struct supervisor *s = order->supervisor;
    order->function(order->context);
    pthread_mutex_lock(&s->lock);
    order->done = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void supervisor_do(struct supervisor *s, void (*function)(void *context), void *context)
{
    struct order order = {.letter.deliver = order_deliver, .supervisor = s, .function = function, .context = context};
    supervisor_post(s, &order.letter);
    pthread_mutex_lock(&s->lock);
    while (!order.done) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* --- the end --- */

/* What the process ends with: a script may have asked for another status (os.exit). */
static _Atomic int last_status = EXIT_SUCCESS;

static void on_alarm(int number)
{
    (void)number;
    _exit(atomic_load(&last_status));
}

/* Should a line find nobody who takes it. Each call begins anew. */
static void supervisor_arm_alarm(uint64_t wait_ms)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval when = {
        .it_value = {.tv_sec = (time_t)(wait_ms / 1000), .tv_usec = (suseconds_t)(wait_ms % 1000 * 1000)}};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGALRM, &action, NULL) == 0) setitimer(ITIMER_REAL, &when, NULL);
}

/* `now_ms`: before anybody was told. */
static void supervisor_begin_end(struct supervisor *s, uint32_t stops, uint64_t now_ms)
{
    struct coordinator *c = supervisor_coordinator(s);
    bool serving = atomic_load(&s->serving);
    uint64_t drain_ms = stops == 1 && serving && c ? coordinator_drain_ms(c) : 0;
    if (c && coordinator_exit_status(c) >= 0) atomic_store(&last_status, coordinator_exit_status(c));
    s->stops = stops;
    atomic_store(&s->stopping, true);
    if (s->stop_ms == 0) s->stop_ms = now_ms;
    s->end_ms = now_ms + drain_ms + SUPERVISOR_GRACE_MS;
    s->last_ms = now_ms + drain_ms + SUPERVISOR_END_MS;
    supervisor_arm_alarm(drain_ms + SUPERVISOR_GRACE_MS + SUPERVISOR_LAST_MS);
    if (drain_ms > 0)
        LOGN("stopping: no new connections; sessions may finish for %g s (--drain)", (double)drain_ms / 1000);
    else
        LOGN("stopping: %s", stops > 1 ? "asked again, what is left is reset" : "what runs is ended");
}

/* Whether the coordinator runs Lua, or is still where it was when the process was asked to stop. Else the end is under
 * way, and needs nothing but time. */
static bool supervisor_is_held(const struct supervisor *s)
{
    struct coordinator *c = supervisor_coordinator(s);
    if (!c) return true;
    struct heartbeat_reading reading = heartbeat_read(coordinator_heartbeat(c));
    return reading.entry_ms > 0 || (reading.turn_ms > 0 && reading.turn_ms < s->stop_ms);
}

/* A script, most likely, does not return. Everything that the process holds the kernel takes back: sockets of sessions
 * that are left are closed, and what was to be removed from the file system is `last`. */
static void supervisor_cut(struct supervisor *s)
{
    char who[HEARTBEAT_TEXT_SIZE] = "";
    struct coordinator *c = supervisor_coordinator(s);
    void (*last)(void) = atomic_load(&s->last);
    uint64_t busy_ms = supervisor_busy_ms(s, who, sizeof who);
    supervisor_arm_alarm(SUPERVISOR_LAST_MS);
    unsigned long long resets = c ? (unsigned long long)coordinator_drain_resets(c) : 0;
    if (last) last();
    log_flush();
    if (busy_ms > 0)
        LOGW("stopped by force: %s did not return for %.1f s; its work and that of all scripts was cut, %llu sessions "
             "were reset",
             who, (double)busy_ms / 1000, resets);
    else
        LOGW("stopped by force: the end took too long; what scripts were doing was cut, %llu sessions were reset",
             resets);
    _exit(atomic_load(&last_status));
}

/* --- signals --- */

static void reload_deliver(struct letter *letter)
{
    struct supervisor *s = (struct supervisor *)((char *)letter - offsetof(struct supervisor, reload));
    atomic_store(&s->reloading, false);
    coordinator_reload(supervisor_coordinator(s));
}

static void supervisor_reload(struct supervisor *s)
{
    struct coordinator *c = supervisor_coordinator(s);
    if (!c || atomic_exchange(&s->reloading, true)) return; /* one reload that is to come counts for both */
    s->reload.deliver = reload_deliver;
    coordinator_post(c, s->ring, &s->reload);
}

static void supervisor_stop(struct supervisor *s)
{
    struct coordinator *c = supervisor_coordinator(s);
    uint64_t now_ms = clock_ms();
    if (c) coordinator_stop_from(c, s->ring);
    supervisor_begin_end(s, c ? coordinator_stops(c) : s->stops + 1, now_ms);
}

static void supervisor_arm(struct supervisor *s, int fd, enum supervisor_op op)
{
    ring_poll(s->ring, fd, POLLIN, (struct ring_tag){.op = (uint8_t)op});
}

static void supervisor_on_signal(struct supervisor *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP)
            supervisor_reload(s);
        else
            supervisor_stop(s);
    }
    supervisor_arm(s, s->signal_fd, SUPERVISOR_OP_SIGNAL);
}

/* --- the loop --- */

void supervisor_set_guest(struct supervisor *s, struct guest *guest)
{
    s->guest = guest; /* a poll that is left is cancelled, or finds nobody */
    if (!guest && s->polling) ring_cancel(s->ring, (struct ring_tag){.op = SUPERVISOR_OP_GUEST});
}

struct ring *supervisor_ring(struct supervisor *s)
{
    return s->ring;
}

uint64_t supervisor_now_ms(const struct supervisor *s)
{
    return ring_now_ms(s->ring);
}

static void supervisor_dispatch(struct supervisor *s, const struct ring_completion *completion)
{
    uint64_t count;
    switch ((enum supervisor_op)completion->tag.op) {
    case SUPERVISOR_OP_SIGNAL: supervisor_on_signal(s); return;
    case SUPERVISOR_OP_WAKE:
        if (read(s->wake_fd, &count, sizeof count) < 0) assert(errno == EAGAIN || errno == EINTR);
        supervisor_arm(s, s->wake_fd, SUPERVISOR_OP_WAKE);
        return;
    case SUPERVISOR_OP_GUEST:
        s->polling = false;
        s->ready = completion->result > 0;
        return;
    }
    assert(0 && "a completion of an unknown kind");
}

static uint64_t supervisor_serve_guest(struct supervisor *s)
{
    bool ready = s->ready;
    s->ready = false;
    if (!s->guest) return UINT64_MAX;
    uint64_t wait = s->guest->turn(s->guest, ring_now_ms(s->ring), ready);
    if (s->polling || s->guest->paused) return wait;
    s->polling = true;
    supervisor_arm(s, s->guest->fd, SUPERVISOR_OP_GUEST);
    return wait;
}

static void supervisor_judge_end(struct supervisor *s)
{
    uint64_t now_ms = clock_ms();
    if (now_ms < s->end_ms) return;
    if (now_ms >= s->last_ms || supervisor_is_held(s)) supervisor_cut(s);
    supervisor_arm_alarm(SUPERVISOR_LAST_MS); /* we have had this turn, and shall have another */
}

static void supervisor_tend(struct supervisor *s)
{
    struct coordinator *c = supervisor_coordinator(s);
    if (c && coordinator_stops(c) != s->stops) { /* a script has asked, or a signal before there was a coordinator */
        if (s->stops > coordinator_stops(c))
            coordinator_stop_from(c, s->ring);
        else
            supervisor_begin_end(s, coordinator_stops(c), clock_ms());
    }
    supervisor_judge_end(s);
    log_flush();
}

static int supervisor_turn(struct supervisor *s)
{
    struct ring_completion completion;
    uint64_t wait = supervisor_serve_guest(s);
    if (wait > SUPERVISOR_TURN_MS) wait = SUPERVISOR_TURN_MS;
    sleeper_announce(&s->sleeper);
    int error = ring_wait(s->ring, letter_box_is_empty(&s->letters) ? wait : 0);
    sleeper_awake(&s->sleeper);
    if (error < 0) return error;
    while (ring_next(s->ring, &completion)) supervisor_dispatch(s, &completion);
    letter_box_deliver(&s->letters);
    supervisor_tend(s);
    return 0;
}

/* The thread starts with all signals blocked but those of faults: they belong to the threads that raise them. */
static void *supervisor_main(void *argument)
{
    struct supervisor *s = argument;
    pthread_setname_np(pthread_self(), "supervisor");
    int error = ring_open(&s->ring, &(struct ring_options){.entries = SUPERVISOR_RING_ENTRIES});
    bool good = error == 0;
    pthread_mutex_lock(&s->lock);
    s->opened = true;
    s->result = error;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (!good) return NULL;
    supervisor_arm(s, s->signal_fd, SUPERVISOR_OP_SIGNAL);
    supervisor_arm(s, s->wake_fd, SUPERVISOR_OP_WAKE);
    while (error == 0 && !atomic_load(&s->over)) error = supervisor_turn(s);
    if (error < 0) { /* nobody would hear a signal any more */
        LOGF("the supervisor's ring broke: %s", strerror(-error));
        _exit(EXIT_FAILURE);
    }
    letter_box_deliver(&s->letters);
    ring_destroy(s->ring);
    return NULL;
}

/* --- opening and closing --- */

static int supervisor_open_descriptors(struct supervisor *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return s->signal_fd < 0 || s->wake_fd < 0 ? -errno : 0;
}

static int supervisor_start(struct supervisor *s)
{
    int error = supervisor_open_descriptors(s);
    if (error == 0) error = -pthread_create(&s->thread, NULL, supervisor_main, s);
    if (error < 0) {
        LOGE("start-up failed: %s", strerror(-error));
        return error;
    }
    pthread_mutex_lock(&s->lock);
    while (!s->opened) pthread_cond_wait(&s->changed, &s->lock);
    error = s->result;
    pthread_mutex_unlock(&s->lock);
    if (error == 0) return 0;
    pthread_join(s->thread, NULL);
    LOGE("%s (%s)", ring_explain(error), strerror(-error));
    return error;
}

static void supervisor_free(struct supervisor *s)
{
    if (s->signal_fd >= 0) close(s->signal_fd);
    if (s->wake_fd >= 0) close(s->wake_fd);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int supervisor_open(struct supervisor **out)
{
    struct supervisor *s = calloc(1, sizeof *s);
    if (!s) return -ENOMEM;
    s->signal_fd = s->wake_fd = -1;
    s->end_ms = UINT64_MAX;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    int error = supervisor_start(s);
    if (error < 0)
        supervisor_free(s);
    else
        *out = s;
    return error;
}

void supervisor_attach(struct supervisor *s, struct coordinator *c)
{
    atomic_store_explicit(&s->coordinator, c, memory_order_release);
}

void supervisor_close(struct supervisor *s)
{
    if (!s) return;
    atomic_store(&s->over, true);
    supervisor_wake(s);
    pthread_join(s->thread, NULL);
    if (atomic_load(&s->stopping)) supervisor_arm_alarm(SUPERVISOR_END_MS); /* for what is left no script is needed */
    supervisor_free(s);
}
