/* The desk sleeps on a semaphore, which is posted once for each letter; so is each hasher, for each job. All that tells
 * whose turn it is belongs to the desk alone. A job is a copy: the question that it is about may be answered, and be
 * gone, before the hash is done. */
#include "core/control/checkers.h"

#include <assert.h>
#include <crypt.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/io/cpu.h"
#include "core/io/hash.h"
#include "core/io/list.h"
#include "core/io/log.h"
#include "core/session/worker.h"

#define HASHERS_MIN  2u
#define HASHERS_MAX  8u
#define HASHERS_NICE 5
#define BUCKETS      1024u
#define DESK_ENTRIES 256u

enum phase { CHECKERS_RUN, CHECKERS_STOPPED, CHECKERS_ENDED };

/* Whose questions wait, or are being hashed. */
struct line {
    struct link in_bucket, in_turn; /* in_turn: it waits and may have another hasher */
    struct link waiting;            /* of struct verify_request */
    struct share_source source;
    uint32_t count;   /* that wait */
    uint32_t running; /* that are being hashed */
};

struct hasher {
    struct checkers *checkers;
    struct letter done; /* to the desk */
    sem_t work;
    struct crypt_data *data;        /* too large for the stack */
    bool busy;                      /* these five are the desk's alone */
    struct checkers_order *order;   /* NULL: it has a password, or the order is answered already */
    struct verify_request *request; /* NULL: it is answered already */
    struct line *line;
    uint8_t store;
    /* The job: the desk's until `work` is posted, and again from `done` on. */
    struct verify_digest digest;
    struct credentials credentials;
    char setting[USERS_SETTING_SIZE];
    char hash[CRYPT_OUTPUT_SIZE];
    bool changes; /* the job is `change`, and nothing of the above */
    struct users_job change;
};

struct checkers {
    struct verifier verifier; /* first: workers have a pointer to it */
    struct users *users[CONFIG_USER_FILES_MAX];
    uint32_t store_count;
    _Atomic uint32_t phase; /* enum phase; written by the coordinator */
    _Atomic uint32_t owners;
    struct letter_box box;
    sem_t mail;
    pthread_t desk;
    bool started;
    struct ring *ring; /* the desk's, to wake workers with */
    int result;        /* of its opening */
    sem_t opened;

    struct hasher hashers[HASHERS_MAX];
    uint32_t hasher_count;
    struct link buckets[BUCKETS]; /* of lines */
    struct link turns;            /* lines, the next one first */
    uint32_t waiting;
    struct link orders; /* that wait */
    bool ordered;       /* one is being carried out */
    bool stopped;       /* the desk knows of that phase */
};

static void checkers_release(struct checkers *c)
{
    if (atomic_fetch_sub(&c->owners, 1) > 1) return;
    for (uint32_t i = 1; i <= c->store_count; i++) users_close(c->users[i]);
    for (uint32_t i = 0; i < HASHERS_MAX; i++) {
        sem_destroy(&c->hashers[i].work);
        free(c->hashers[i].data);
    }
    sem_destroy(&c->mail);
    sem_destroy(&c->opened);
    explicit_bzero(c, sizeof *c);
    free(c);
}

/* --- a hasher --- */

static void hasher_run(struct hasher *h)
{
    struct crypt_data *data = h->data;
    const char *hash = crypt_r(h->credentials.password, h->setting, data);
    size_t size = hash ? strnlen(hash, sizeof h->hash - 1) : 0;
    if (size > 0) memcpy(h->hash, hash, size);
    h->hash[size] = '\0';
    explicit_bzero(h->credentials.password, sizeof h->credentials.password);
    explicit_bzero(data, sizeof *data);
}

static void *hasher_main(void *argument)
{
    struct hasher *h = argument;
    struct checkers *c = h->checkers;
    pthread_setname_np(pthread_self(), "hasher");
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), HASHERS_NICE); /* of this thread; without it, it is only unkind */
    for (;;) {
        while (sem_wait(&h->work) < 0) continue;
        if (atomic_load(&c->phase) == CHECKERS_ENDED) break;
        if (h->changes)
            users_job_run(&h->change);
        else
            hasher_run(h);
        letter_put(&c->box, &h->done);
        sem_post(&c->mail);
    }
    checkers_release(c);
    return NULL;
}

/* --- the desk: answers --- */

static void desk_tell(struct checkers *c, struct verify_request *request, enum verify_result result, uint32_t era,
                      bool hashed)
{
    struct worker *w = request->worker;
    request->result = (uint8_t)result;
    request->era = era;
    request->hashed = hashed;
    request->letter.deliver = request->answered;
    letter_put(&w->letters, &request->letter); /* it is the worker's from here on */
    if (sleeper_must_wake(&w->sleeper)) ring_wake(c->ring, w->ring, (struct ring_tag){.op = WORKER_OP_WAKE});
}

/* Without a hash. */
static void desk_answer(struct checkers *c, struct verify_request *request, enum verify_result result, uint32_t era)
{
    desk_tell(c, request, result, era, false);
}

/* --- the desk: lines --- */

static struct link *bucket_of(struct checkers *c, const struct share_source *source)
{
    return &c->buckets[hash_keyed(c->verifier.keys[0], source, sizeof *source) % BUCKETS];
}

/* NULL: there is no memory for another one. */
static struct line *line_of(struct checkers *c, const struct share_source *source)
{
    struct link *bucket = bucket_of(c, source);
    for (struct link *at = bucket->next; at != bucket; at = at->next) {
        struct line *line = link_owner(at, struct line, in_bucket);
        if (memcmp(&line->source, source, sizeof *source) == 0) return line;
    }
    struct line *line = calloc(1, sizeof *line);
    if (!line) return NULL;
    line->source = *source;
    link_init(&line->in_turn);
    link_init(&line->waiting);
    link_append(bucket, &line->in_bucket);
    return line;
}

/* It has a turn while somebody waits in it and it may have another hasher: one of them is always for others. */
static void line_update(struct checkers *c, struct line *line)
{
    bool turn = line->count > 0 && line->running + 1 < c->hasher_count;
    if (turn && link_is_empty(&line->in_turn)) link_append(&c->turns, &line->in_turn);
    if (!turn) link_remove(&line->in_turn);
    if (line->count > 0 || line->running > 0) return;
    link_remove(&line->in_bucket);
    free(line);
}

static struct verify_request *line_take(struct checkers *c, struct line *line)
{
    struct verify_request *request = link_owner(link_take_first(&line->waiting), struct verify_request, line);
    line->count--;
    c->waiting--;
    return request;
}

/* --- the desk: questions --- */

static bool desk_has_room(const struct checkers *c, const struct line *line)
{
    bool bounded = line->source.size > 0; /* not the users of this machine */
    return c->waiting < CHECKERS_WAITING_MAX && (!bounded || line->count < CHECKERS_SOURCE_MAX);
}

static void desk_take(struct checkers *c, struct verify_request *request)
{
    char setting[USERS_SETTING_SIZE];
    uint32_t era = 0;
    bool stopped = c->stopped || atomic_load_explicit(&request->cancelled, memory_order_relaxed);
    if (!stopped &&
        users_ask(c->users[request->store], request->credentials, &request->digest, setting, &era) == USERS_RIGHT) {
        desk_answer(c, request, VERIFY_RIGHT, era);
        return;
    }
    struct line *line = stopped ? NULL : line_of(c, &request->source);
    if (!line || !desk_has_room(c, line)) {
        desk_answer(c, request, stopped ? VERIFY_STOPPED : VERIFY_BUSY, era);
    } else {
        link_append(&line->waiting, &request->line);
        line->count++;
        c->waiting++;
    }
    if (line) line_update(c, line);
}

static void desk_on_question(struct letter *letter)
{
    struct verify_request *request = link_owner(letter, struct verify_request, letter);
    desk_take((struct checkers *)(void *)request->worker->verifier, request);
}

/* Unless it needs none any more. */
static void desk_lend(struct checkers *c, struct hasher *h, struct line *line, struct verify_request *request)
{
    uint32_t era;
    if (atomic_load_explicit(&request->cancelled, memory_order_relaxed)) {
        desk_answer(c, request, VERIFY_STOPPED, 0);
        return;
    }
    if (users_ask(c->users[request->store], request->credentials, &request->digest, h->setting, &era) == USERS_RIGHT) {
        desk_answer(c, request, VERIFY_RIGHT, era);
        return;
    }
    h->busy = true;
    h->request = request;
    h->line = line;
    h->store = request->store;
    h->digest = request->digest;
    h->credentials = *request->credentials;
    line->running++;
    sem_post(&h->work);
}

static struct hasher *desk_find_idle(struct checkers *c)
{
    for (uint32_t i = 0; i < c->hasher_count; i++)
        if (!c->hashers[i].busy) return &c->hashers[i];
    return NULL;
}

/* --- the desk: orders --- */

static void desk_return(struct checkers *c, struct checkers_order *order, bool stopped)
{
    explicit_bzero(order->job.password, sizeof order->job.password);
    order->stopped = stopped;
    order->done(order, c->ring);
}

static void desk_on_order(struct letter *letter)
{
    struct checkers_order *order = link_owner(letter, struct checkers_order, letter);
    struct checkers *c = order->checkers;
    if (c->stopped)
        desk_return(c, order, true);
    else
        link_append(&c->orders, &order->line);
}

/* The job is a copy: at the end the order goes back without it. */
static void desk_lend_order(struct checkers *c)
{
    struct hasher *idle;
    if (c->ordered || link_is_empty(&c->orders) || (idle = desk_find_idle(c)) == NULL) return;
    idle->order = link_owner(link_take_first(&c->orders), struct checkers_order, line);
    idle->change = idle->order->job;
    idle->busy = idle->changes = c->ordered = true;
    sem_post(&idle->work);
}

static void desk_on_order_done(struct checkers *c, struct hasher *h)
{
    struct checkers_order *order = h->order;
    h->busy = h->changes = c->ordered = false;
    h->order = NULL;
    if (order) order->job = h->change;
    if (order) desk_return(c, order, false);
    explicit_bzero(&h->change, sizeof h->change);
}

/* One of each line in turn. */
static void desk_lend_all(struct checkers *c)
{
    struct hasher *idle;
    desk_lend_order(c);
    while (!link_is_empty(&c->turns) && (idle = desk_find_idle(c)) != NULL) {
        struct line *line = link_owner(link_take_first(&c->turns), struct line, in_turn);
        desk_lend(c, idle, line, line_take(c, line));
        line_update(c, line);
    }
}

static void desk_on_hash(struct letter *letter)
{
    struct hasher *h = link_owner(letter, struct hasher, done);
    struct checkers *c = h->checkers;
    struct verify_request *request = h->request;
    struct line *line = h->line;
    uint32_t era;
    if (h->changes) {
        desk_on_order_done(c, h);
        return;
    }
    h->busy = false;
    h->request = NULL;
    h->line = NULL;
    if (request) {
        enum verify_result result =
            users_judge(c->users[h->store], &h->credentials, &h->digest, h->setting, h->hash, &era);
        if (result == VERIFY_STOPPED)
            desk_take(c, request); /* another hash is in force since */
        else
            desk_tell(c, request, result, era, true);
    }
    explicit_bzero(h->hash, sizeof h->hash);
    line->running--; /* until here it has kept the line */
    line_update(c, line);
}

/* --- the desk: its life --- */

static void desk_stop(struct checkers *c)
{
    if (c->stopped || atomic_load(&c->phase) == CHECKERS_RUN) return;
    c->stopped = true;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        for (struct link *at = c->buckets[i].next, *next; at != &c->buckets[i]; at = next) {
            struct line *line = link_owner(at, struct line, in_bucket);
            next = at->next;
            while (line->count > 0) desk_answer(c, line_take(c, line), VERIFY_STOPPED, 0);
            line_update(c, line);
        }
    }
    for (uint32_t i = 0; i < c->hasher_count; i++) {
        struct hasher *h = &c->hashers[i];
        if (h->request) desk_answer(c, h->request, VERIFY_STOPPED, 0);
        if (h->order) desk_return(c, h->order, true);
        h->request = NULL;
        h->order = NULL;
    }
    while (!link_is_empty(&c->orders))
        desk_return(c, link_owner(link_take_first(&c->orders), struct checkers_order, line), true);
}

/* The answers of a turn go out with one system call. Wake-ups are silent; an error of one would be that of a worker
 * which has ended, and is nobody's. */
static void desk_turn(struct checkers *c)
{
    struct ring_completion completion;
    desk_stop(c);
    letter_box_deliver(&c->box);
    desk_lend_all(c);
    (void)ring_wait(c->ring, 0);
    while (ring_next(c->ring, &completion)) continue;
}

static void desk_close(struct checkers *c)
{
    for (uint32_t i = 0; i < BUCKETS; i++)
        while (!link_is_empty(&c->buckets[i]))
            free(link_owner(link_take_first(&c->buckets[i]), struct line, in_bucket));
    for (uint32_t i = 0; i < c->hasher_count; i++) sem_post(&c->hashers[i].work); /* those that rest see the end */
    ring_destroy(c->ring);
}

static void *desk_main(void *argument)
{
    struct checkers *c = argument;
    pthread_setname_np(pthread_self(), "checkers");
    c->result = ring_open(&c->ring, &(struct ring_options){.entries = DESK_ENTRIES});
    int result = c->result;
    sem_post(&c->opened); /* publishes it */
    if (result < 0) return NULL;
    for (bool last = false; !last;) {
        while (sem_wait(&c->mail) < 0) continue;
        last = atomic_load(&c->phase) == CHECKERS_ENDED;
        desk_turn(c);
    }
    desk_close(c);
    return NULL;
}

/* --- the coordinator's --- */

/* Any thread. */
static void checkers_ask(struct verifier *self, struct verify_request *request)
{
    struct checkers *c = (struct checkers *)(void *)self;
    request->letter.deliver = desk_on_question;
    letter_put(&c->box, &request->letter);
    sem_post(&c->mail);
}

void checkers_take_order(struct checkers *c, struct checkers_order *order)
{
    order->checkers = c;
    link_init(&order->line);
    order->letter.deliver = desk_on_order;
    letter_put(&c->box, &order->letter);
    sem_post(&c->mail);
}

static int open_stores(struct checkers *c, const struct config *config)
{
    int error = 0;
    for (uint32_t i = 1; i <= config->user_file_count && error == 0; i++) {
        error = users_open(&c->users[i], config->user_files[i], &c->verifier, &c->verifier.eras[i]);
        if (error == 0) c->store_count = i;
    }
    return error;
}

int checkers_open(struct checkers **out, const struct config *config)
{
    struct checkers *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    c->owners = 1;
    c->verifier.ask = checkers_ask;
    link_init(&c->turns);
    link_init(&c->orders);
    for (uint32_t i = 0; i < BUCKETS; i++) link_init(&c->buckets[i]);
    sem_init(&c->mail, 0, 0);
    sem_init(&c->opened, 0, 0);
    for (uint32_t i = 0; i < HASHERS_MAX; i++) sem_init(&c->hashers[i].work, 0, 0);
    bool random = getrandom(c->verifier.keys, sizeof c->verifier.keys, 0) == (ssize_t)sizeof c->verifier.keys;
    int error = random ? open_stores(c, config) : -errno;
    if (error < 0)
        checkers_release(c);
    else
        *out = c;
    return error;
}

struct users *checkers_users(struct checkers *c, uint32_t store)
{
    assert(store > 0 && store <= c->store_count);
    return c->users[store];
}

struct verifier *checkers_verifier(struct checkers *c)
{
    return &c->verifier;
}

/* A quarter of the CPUs. */
static uint32_t hashers_wanted(void)
{
    int cpus[CONFIG_WORKERS_MAX];
    int quarter = cpu_list_allowed(cpus, (int)CONFIG_WORKERS_MAX) / 4;
    if (quarter < (int)HASHERS_MIN) return HASHERS_MIN;
    return quarter < (int)HASHERS_MAX ? (uint32_t)quarter : HASHERS_MAX;
}

static int start_hasher(struct checkers *c, struct hasher *h)
{
    pthread_attr_t attributes;
    pthread_t thread;
    h->checkers = c;
    h->done.deliver = desk_on_hash;
    h->data = calloc(1, sizeof *h->data);
    if (!h->data) return -ENOMEM;
    atomic_fetch_add(&c->owners, 1);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int error = -pthread_create(&thread, &attributes, hasher_main, h);
    pthread_attr_destroy(&attributes);
    if (error < 0) atomic_fetch_sub(&c->owners, 1);
    return error;
}

/* Before the desk runs, which looks at them. */
static int start_hashers(struct checkers *c)
{
    uint32_t wanted = hashers_wanted();
    int error = 0;
    while (c->hasher_count < wanted && error == 0) {
        error = start_hasher(c, &c->hashers[c->hasher_count]);
        if (error == 0) c->hasher_count++;
    }
    return c->hasher_count >= HASHERS_MIN ? 0 : error;
}

static int start_desk(struct checkers *c)
{
    int error = -pthread_create(&c->desk, NULL, desk_main, c);
    if (error < 0) return error;
    c->started = true;
    while (sem_wait(&c->opened) < 0) continue;
    return c->result;
}

int checkers_start(struct checkers *c)
{
    int error = start_hashers(c);
    if (error == 0) error = start_desk(c);
    if (error < 0) LOGE("the threads that check passwords could not be started: %s; raise ulimit -u", strerror(-error));
    return error;
}

void checkers_stop(struct checkers *c)
{
    if (atomic_load(&c->phase) != CHECKERS_RUN) return;
    atomic_store(&c->phase, CHECKERS_STOPPED);
    sem_post(&c->mail);
}

void checkers_end(struct checkers *c)
{
    if (atomic_exchange(&c->phase, CHECKERS_ENDED) == CHECKERS_ENDED) return;
    if (c->started) {
        sem_post(&c->mail);
        pthread_join(c->desk, NULL);
    }
    /* Where there is no desk, or its ring could not be opened, nobody has told them. */
    for (uint32_t i = 0; i < c->hasher_count; i++) sem_post(&c->hashers[i].work);
}

void checkers_close(struct checkers *c)
{
    if (!c) return;
    checkers_end(c);
    checkers_release(c);
}
