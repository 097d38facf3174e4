/* Every turn: what the ring has brought, what askers have sent, what became due; then the answers leave, each with the
 * wake-up of its asker, which the next wait submits. A turn takes from each queue what stood there when it began, so
 * that no asker keeps the others waiting.
 *
 * What the opener wants goes by atomics, not by a queue: it is never lost, and the last word counts. */
#include "core/resolver/resolver_thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/privilege.h"

#define RESOLVER_RING_ENTRIES 256u

enum resolver_op { RESOLVER_OP_WAKE = 1, RESOLVER_OP_DNS };

enum resolver_phase { RESOLVER_RUNS, RESOLVER_STOPPED, RESOLVER_ENDS };

struct asker {
    struct mailbox answers;
    struct queue *questions;
};

/* Other name servers. */
struct server_choice {
    bool given; /* else those of resolv.conf */
    char text[];
};

/* Another way to them. */
struct way_choice {
    struct egress_terms terms;
    enum resolver_rights rights;
};

struct resolver_thread {
    struct ring *ring;
    struct resolver *resolver;
    struct resolve_options options;
    struct sleeper sleeper;
    struct asker askers[RESOLVER_ASKERS_MAX];
    _Atomic uint32_t asker_count;
    _Atomic uint32_t phase;                 /* enum resolver_phase; written by the opener */
    _Atomic(struct server_choice *) choice; /* from the opener, which owns what has not been taken */
    _Atomic(struct way_choice *) way;       /* likewise */
    _Atomic bool reload;                    /* from the opener */
    bool stopped;                           /* the resolver knows of that phase */

    pthread_t thread;
    pthread_mutex_t lock; /* start and end only */
    pthread_cond_t changed;
    bool opened; /* `result` is set */
    bool ended;  /* the loop is left, nobody is answered any more */
    bool gone;   /* nobody asks any more */
    int result;
};

/* --- on the thread --- */

static void thread_answer(struct resolver_thread *t, const struct resolve_request *request, int status)
{
    struct message answer = request->origin;
    answer.result = status;
    bool posted = mailbox_post(&t->askers[request->asker].answers, t->ring, &answer, NULL);
    assert(posted); /* an asker has no more questions open than its queues hold */
    (void)posted;
}

static void thread_on_answered(void *context, struct resolve_request *request, void *cookie, int status)
{
    (void)cookie;
    thread_answer(context, request, status);
}

static void thread_read(struct resolver_thread *t, uint32_t index)
{
    struct message message;
    struct queue *questions = t->askers[index].questions;
    for (uint32_t left = queue_depth(questions); left > 0 && queue_pop(questions, &message); left--) {
        struct resolve_request *request = message.body;
        assert(message.kind == RESOLVE_MESSAGE);
        request->origin = message;
        request->asker = index;
        int refused = resolve_ask(t->resolver, request, NULL);
        if (refused < 0) thread_answer(t, request, refused);
    }
}

static void thread_obey_way(struct resolver_thread *t)
{
    struct way_choice *way = atomic_exchange(&t->way, NULL);
    if (way && !t->stopped) resolve_set_way(t->resolver, &way->terms);
    if (way && way->rights == RESOLVER_MARKS) (void)privilege_raise();
    if (way && way->rights == RESOLVER_NOTHING) privilege_drop();
    free(way);
}

static void thread_obey(struct resolver_thread *t)
{
    thread_obey_way(t);
    struct server_choice *choice = atomic_exchange(&t->choice, NULL);
    if (choice && !t->stopped) {
        int error = resolve_set_nameservers(t->resolver, choice->given ? choice->text : NULL);
        if (error < 0) LOGE("the name servers could not be changed: %s", strerror(-error));
    }
    free(choice);
    if (atomic_exchange(&t->reload, false) && !t->stopped) {
        int error = resolve_reload(t->resolver);
        if (error < 0) LOGE("resolv.conf could not be read again: %s", strerror(-error));
    }
    if (t->stopped || atomic_load(&t->phase) == RESOLVER_RUNS) return;
    t->stopped = true;
    resolve_stop(t->resolver);
}

/* The last look before sleep: whoever comes later sees that we sleep. */
static bool thread_has_work(struct resolver_thread *t)
{
    uint32_t count = atomic_load(&t->asker_count);
    for (uint32_t i = 0; i < count; i++)
        if (!queue_is_empty(t->askers[i].questions)) return true;
    if (atomic_load(&t->choice) != NULL || atomic_load(&t->way) != NULL || atomic_load(&t->reload)) return true;
    return (atomic_load(&t->phase) != RESOLVER_RUNS && !t->stopped) || atomic_load(&t->phase) == RESOLVER_ENDS;
}

static int thread_turn(struct resolver_thread *t)
{
    struct ring_completion completion;
    sleeper_announce(&t->sleeper);
    uint64_t wait_ms = thread_has_work(t) ? 0 : resolve_wait_ms(t->resolver, resolve_clock_ms());
    int error = ring_wait(t->ring, wait_ms);
    sleeper_awake(&t->sleeper);
    if (error < 0) return error;
    while (ring_next(t->ring, &completion))
        if (completion.tag.op == RESOLVER_OP_DNS) resolve_on_completion(t->resolver, &completion);
    thread_obey(t);
    uint32_t count = atomic_load(&t->asker_count);
    for (uint32_t i = 0; i < count; i++) thread_read(t, i);
    resolve_on_time(t->resolver, ring_now_ms(t->ring));
    return 0;
}

/* The last turn reads what was asked before the end, and the wait behind it submits the last wake-ups. */
static void thread_run(struct resolver_thread *t)
{
    int error = 0;
    bool last = false;
    while (!last && error == 0) {
        last = atomic_load(&t->phase) == RESOLVER_ENDS;
        error = thread_turn(t);
    }
    if (error == 0) error = ring_wait(t->ring, 0);
    if (error < 0) LOGE("the resolver's ring broke: %s; no name is resolved any more", strerror(-error));
}

static int thread_open(struct resolver_thread *t)
{
    int error = ring_open(&t->ring, &(struct ring_options){.entries = RESOLVER_RING_ENTRIES});
    if (error < 0) {
        LOGE("%s (%s)", ring_explain(error), strerror(-error));
        return error;
    }
    error = resolve_open(&t->resolver, t->ring, &t->options, thread_on_answered, t);
    if (error == 0) return 0;
    LOGE("the resolver could not be set up: %s; check --nameserver and /etc/resolv.conf", strerror(-error));
    ring_destroy(t->ring);
    return error;
}

static void thread_say(struct resolver_thread *t, bool *what)
{
    pthread_mutex_lock(&t->lock);
    *what = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void thread_hear(struct resolver_thread *t, const bool *what)
{
    pthread_mutex_lock(&t->lock);
    while (!*what) pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

static void *thread_main(void *argument)
{
    struct resolver_thread *t = argument;
    pthread_setname_np(pthread_self(), "resolver");
    int result = t->result = thread_open(t); /* `opened` publishes it */
    if (result == 0) log_attach();
    thread_say(t, &t->opened);
    if (result < 0) return NULL;
    thread_run(t);
    thread_say(t, &t->ended);
    thread_hear(t, &t->gone);
    resolve_close(t->resolver);
    ring_wait(t->ring, 0); /* submits the last closes */
    ring_destroy(t->ring);
    log_detach();
    return NULL;
}

/* --- on the opener's --- */

static void thread_free(struct resolver_thread *t)
{
    for (uint32_t i = 0; i < atomic_load(&t->asker_count); i++) {
        queue_close(t->askers[i].questions);
        queue_close(t->askers[i].answers.queue);
    }
    free(atomic_load(&t->choice));
    free(atomic_load(&t->way));
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int resolver_thread_open(struct resolver_thread **out, const struct resolve_options *options)
{
    struct resolver_thread *t = calloc(1, sizeof *t);
    if (!t) return -ENOMEM;
    t->options = *options;
    t->options.op = RESOLVER_OP_DNS;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    privilege_keep(true); /* of the thread, which is older than -u: see RESOLVER_MARKS */
    int error = -pthread_create(&t->thread, NULL, thread_main, t);
    privilege_keep(false);
    if (error < 0) {
        LOGE("the resolver's thread could not be started: %s; raise ulimit -u", strerror(-error));
    } else {
        thread_hear(t, &t->opened);
        error = t->result;
        if (error < 0) pthread_join(t->thread, NULL);
    }
    if (error < 0)
        thread_free(t);
    else
        *out = t;
    return error;
}

static uint32_t power_of_two(uint32_t least)
{
    uint32_t size = 1;
    while (size < least) size *= 2;
    return size;
}

int resolver_thread_add_asker(struct resolver_thread *t, const struct mailbox *wake, uint32_t questions_max,
                              struct mailbox *ask, struct queue **answers)
{
    uint32_t index = atomic_load(&t->asker_count), capacity = power_of_two(questions_max);
    assert(index < RESOLVER_ASKERS_MAX && questions_max > 0);
    struct asker *asker = &t->askers[index];
    asker->answers = *wake;
    int error = queue_open(&asker->questions, capacity);
    if (error < 0) return error;
    error = queue_open(&asker->answers.queue, capacity);
    if (error < 0) {
        queue_close(asker->questions);
        return error;
    }
    *answers = asker->answers.queue;
    *ask = (struct mailbox){
        .queue = asker->questions, .sleeper = &t->sleeper, .ring = &t->ring, .wake = {.op = RESOLVER_OP_WAKE}};
    atomic_store(&t->asker_count, index + 1);
    return 0;
}

/* Behind a change that thread_has_work() looks at. */
static void thread_wake(struct resolver_thread *t, struct ring *own)
{
    if (!sleeper_must_wake(&t->sleeper)) return;
    ring_wake(own, t->ring, (struct ring_tag){.op = RESOLVER_OP_WAKE});
    ring_flush(own);
}

int resolver_thread_set_nameservers(struct resolver_thread *t, struct ring *own, const char *nameservers)
{
    int error = resolve_check_nameservers(nameservers);
    if (error < 0) return error;
    size_t size = nameservers ? strlen(nameservers) + 1 : 1;
    struct server_choice *choice = calloc(1, sizeof *choice + size);
    if (!choice) return -ENOMEM;
    choice->given = nameservers != NULL;
    if (nameservers) memcpy(choice->text, nameservers, size);
    free(atomic_exchange(&t->choice, choice));
    thread_wake(t, own);
    return 0;
}

int resolver_thread_set_way(struct resolver_thread *t, struct ring *own, const struct egress_terms *terms,
                            enum resolver_rights rights)
{
    struct way_choice *way = malloc(sizeof *way);
    if (!way) return -ENOMEM;
    *way = (struct way_choice){.terms = *terms, .rights = rights};
    free(atomic_exchange(&t->way, way));
    thread_wake(t, own);
    return 0;
}

void resolver_thread_reload(struct resolver_thread *t, struct ring *own)
{
    atomic_store(&t->reload, true);
    thread_wake(t, own);
}

const struct resolve_stats *resolver_thread_stats(const struct resolver_thread *t)
{
    return resolve_get_stats(t->resolver);
}

void resolver_thread_stop(struct resolver_thread *t, struct ring *own)
{
    if (atomic_load(&t->phase) != RESOLVER_RUNS) return;
    atomic_store(&t->phase, RESOLVER_STOPPED);
    thread_wake(t, own);
}

void resolver_thread_end(struct resolver_thread *t, struct ring *own)
{
    atomic_store(&t->phase, RESOLVER_ENDS);
    thread_wake(t, own);
    thread_hear(t, &t->ended);
}

void resolver_thread_close(struct resolver_thread *t)
{
    assert(t->ended);
    thread_say(t, &t->gone);
    pthread_join(t->thread, NULL);
    thread_free(t);
}
