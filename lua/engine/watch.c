#include "lua/engine/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/io/log.h"

/* The longest time between two looks. Below the least budget (10 ms) it need not be: an entry that begins just behind a
 * look is seen by the next one, which then sleeps until its budget ends. */
#define WATCH_TICK_NS UINT64_C(100000000)
/* Between two signals to an entry that does not end: twice as long each time. Setting the hook walks the whole stack of
 * calls, hundreds of thousands of a recursion; on a busy machine that took longer than 10 ms, and signals at that pace,
 * which queue, left no time for the next instruction. */
#define WATCH_AGAIN_NS     UINT64_C(10000000)
#define WATCH_AGAIN_NS_MAX UINT64_C(320000000)
#define WATCH_SIGNAL       SIGRTMIN

static struct {
    unsigned users;
    bool started;
    int schedstat; /* of the thread of Lua; -1: the kernel has none */
    pthread_t lua, thread;
    void (*interrupt)(void);
    sem_t wake;
    atomic_bool sleeping, quit;
    atomic_bool sent;                     /* a signal is under way: never two at a time */
    uint64_t again_ns;                    /* the thread's: until the next signal to the same entry */
    _Atomic uint64_t start_ns, budget_ns; /* of the entry that runs */
    _Atomic uint64_t entries;             /* that have begun */
    _Atomic uint64_t delay_ns;            /* when it was read last */
} watch = {.schedstat = -1};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- time spent waiting for a CPU --- */

/* "time on a CPU, time waiting for one, number of time slices" */
static uint64_t delay_read(void)
{
    char text[96], *at = text;
    ssize_t size = watch.schedstat < 0 ? -1 : pread(watch.schedstat, text, sizeof text - 1, 0);
    if (size <= 0) return 0;
    text[size] = '\0';
    (void)strtoull(text, &at, 10);
    return strtoull(at, NULL, 10);
}

uint64_t watch_delay_ns(void)
{
    uint64_t delay = delay_read();
    atomic_store_explicit(&watch.delay_ns, delay, memory_order_relaxed);
    return delay;
}

uint64_t watch_delay_before_ns(void)
{
    return atomic_load_explicit(&watch.delay_ns, memory_order_relaxed);
}

static void delay_open(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", (int)gettid());
    watch.schedstat = open(path, O_RDONLY | O_CLOEXEC);
    watch_delay_ns();
}

/* --- the thread --- */

/* Returns at the latest at `until`; 0: when woken. */
static void watch_sleep(uint64_t until)
{
    struct timespec at = {.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};
    int result;
    do result = until == 0 ? sem_wait(&watch.wake) : sem_clockwait(&watch.wake, CLOCK_MONOTONIC, &at);
    while (result < 0 && errno == EINTR);
}

/* Nobody has run Lua since the last look. An entry that begins now either sees that we sleep, or we see it. */
static void watch_rest(void)
{
    atomic_store(&watch.sleeping, true);
    if (atomic_load(&watch.start_ns) == 0 && !atomic_load(&watch.quit)) watch_sleep(0);
    atomic_store(&watch.sleeping, false);
}

/* The entry may have ended meanwhile: then a system call of the loop returns EINTR, which all of them stand. */
static uint64_t watch_look(uint64_t start, uint64_t now)
{
    uint64_t end = start + atomic_load(&watch.budget_ns);
    if (start == 0 || end > now) {
        watch.again_ns = WATCH_AGAIN_NS;
        return start != 0 && end < now + WATCH_TICK_NS ? end : now + WATCH_TICK_NS;
    }
    if (!atomic_exchange(&watch.sent, true)) pthread_kill(watch.lua, WATCH_SIGNAL);
    uint64_t next = now + watch.again_ns;
    if (watch.again_ns < WATCH_AGAIN_NS_MAX) watch.again_ns *= 2;
    return next;
}

static void *watch_main(void *argument)
{
    uint64_t seen = 0;
    (void)argument;
    pthread_setname_np(pthread_self(), "lua-watch");
    while (!atomic_load(&watch.quit)) {
        uint64_t start = atomic_load(&watch.start_ns), entries = atomic_load(&watch.entries);
        watch_delay_ns();
        if (start == 0 && entries == seen) {
            watch_rest();
            continue;
        }
        if (entries != seen) watch.again_ns = WATCH_AGAIN_NS;
        seen = entries;
        watch_sleep(watch_look(start, now_ns()));
    }
    return NULL;
}

static void on_signal(int number)
{
    (void)number;
    if (watch.interrupt) watch.interrupt();
    atomic_store(&watch.sent, false);
}

/* The thread takes no signal that is meant for another. 0 or an errno. */
static int watch_start(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&watch.thread, NULL, watch_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

void watch_open(void (*interrupt)(void))
{
    struct sigaction action = {.sa_handler = on_signal};
    if (watch.users++ > 0) return;
    watch.interrupt = interrupt;
    watch.lua = pthread_self();
    sigemptyset(&action.sa_mask);
    delay_open();
    atomic_store(&watch.quit, false);
    atomic_store(&watch.sent, false);
    watch.again_ns = WATCH_AGAIN_NS;
    int error = sem_init(&watch.wake, 0, 0) < 0 || sigaction(WATCH_SIGNAL, &action, NULL) < 0 ? errno : watch_start();
    watch.started = error == 0;
    if (error != 0)
        LOGW("no thread watches over scripts: %s; a call of theirs that blocks is not interrupted", strerror(error));
}

void watch_close(void)
{
    if (--watch.users > 0) return;
    if (watch.started) {
        atomic_store(&watch.quit, true);
        sem_post(&watch.wake);
        pthread_join(watch.thread, NULL);
        sem_destroy(&watch.wake);
        watch.started = false;
    }
    if (watch.schedstat >= 0) close(watch.schedstat);
    watch.schedstat = -1;
    atomic_store(&watch.delay_ns, 0);
}

/* --- the coordinator's part --- */

static void watch_wake(void)
{
    watch_delay_ns(); /* what stands there is as old as its sleep */
    if (atomic_exchange(&watch.sleeping, false)) sem_post(&watch.wake);
}

struct watch_entry watch_enter(uint64_t start_ns, uint64_t budget_ns)
{
    struct watch_entry outer = {atomic_load_explicit(&watch.start_ns, memory_order_relaxed),
                                atomic_load_explicit(&watch.budget_ns, memory_order_relaxed)};
    uint64_t entries = atomic_load_explicit(&watch.entries, memory_order_relaxed);
    atomic_store_explicit(&watch.entries, entries + 1, memory_order_relaxed);
    atomic_store_explicit(&watch.budget_ns, budget_ns, memory_order_relaxed);
    atomic_store(&watch.start_ns, start_ns); /* before we look whether it sleeps: see watch_rest() */
    if (atomic_load(&watch.sleeping)) watch_wake();
    return outer;
}

void watch_leave(struct watch_entry outer)
{
    atomic_store_explicit(&watch.budget_ns, outer.budget_ns, memory_order_relaxed);
    atomic_store_explicit(&watch.start_ns, outer.start_ns, memory_order_release);
}
