#include "core/usage/usage.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/io/log.h"
#include "core/io/queue.h"
#include "core/usage/fleet.h"
#include "core/usage/sharing.h"
#include "protocols/usage_text.h"

#define USAGE_RING_ENTRIES 16u
/* How often keys that have left are looked for, and whether an hour is over. */
#define USAGE_TURN_US UINT64_C(1000000)
/* What a stop may take to tell other boxes of the last octets. */
#define USAGE_LAST_MS 300u
/* What is wrong with the disk is said so often. */
#define USAGE_SAY_US UINT64_C(60000000)
/* Quarters of an hour: zones differ by them, so that every hour ends with one. */
#define USAGE_QUARTER_S 900

enum usage_op { USAGE_OP_WAKE = 1, USAGE_OP_SHARING };

struct usage {
    struct ring *ring;
    struct keys *keys;
    struct ledger *ledger;
    struct store *store;
    struct sharing *sharing; /* NULL: with nobody */
    struct usage_text text;
    char name[USAGE_TEXT_SIZE];
    struct letter_box letters;
    struct sleeper sleeper;
    _Atomic bool ends;
    bool over; /* the thread has ended; of the one that calls usage_stop() */

    /* the thread's own */
    int64_t hour;      /* that uses are booked in */
    uint64_t write_us; /* when the next transaction is due */
    uint64_t say_us;   /* before then nothing is said of failures */
    bool failing;
    counter written, failures, waiting, merged, known, wal_size, written_us;

    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* of the start */
    pthread_cond_t changed;
    bool opened;
    int result;
};

/* --- collecting --- */

struct taking {
    struct usage *usage;
    struct limit_time time;
};

static void usage_take(void *context, const struct limit_key *key, const struct limit_use *use)
{
    const struct taking *taking = context;
    ledger_add(taking->usage->ledger, key, use, &taking->time);
}

static void usage_collect(struct usage *u, const struct limit_time *time, bool all)
{
    struct taking taking = {u, *time};
    if (all)
        keys_collect(u->keys, usage_take, &taking);
    else
        keys_collect_departed(u->keys, usage_take, &taking);
}

/* What was used up to now belongs to the hour that has ended. */
static bool usage_end_hour(struct usage *u, const struct limit_time *time)
{
    int64_t hour = calendar_find(time->calendar, CALENDAR_HOUR, time->wall_s);
    struct limit_time end = *time;
    if (hour == u->hour) return false;
    if (hour > u->hour) end.wall_s = hour - 1;
    usage_collect(u, &end, true);
    u->hour = hour;
    return true;
}

/* --- writing --- */

static void usage_say_failure(struct usage *u, const char *message)
{
    uint64_t now = ring_now_us(u->ring);
    counter_add(&u->failures, 1);
    u->failing = true;
    if (now < u->say_us) return;
    u->say_us = now + USAGE_SAY_US;
    LOGE("--usage %s: usage cannot be written, %u rows wait in memory: %s", u->name, ledger_rows(u->ledger), message);
}

static void usage_note(struct usage *u)
{
    counter_set(&u->waiting, ledger_rows(u->ledger));
    counter_set(&u->merged, ledger_merged(u->ledger));
    counter_set(&u->known, past_count(ledger_past(u->ledger)));
    counter_set(&u->wal_size, store_wal_size(u->store));
}

static void usage_write(struct usage *u)
{
    char message[STORE_MESSAGE_SIZE];
    uint64_t now = ring_now_us(u->ring);
    u->write_us = now + USAGE_WRITE_MS * 1000;
    if (ledger_rows(u->ledger) == 0) {
        counter_set(&u->written_us, now);
    } else if (store_write(u->store, u->ledger, message) < 0) {
        usage_say_failure(u, message);
    } else {
        if (u->failing) LOGN("--usage %s: usage is written again, nothing is missing", u->name);
        u->failing = false;
        u->say_us = 0;
        ledger_clear(u->ledger);
        counter_add(&u->written, 1);
        counter_set(&u->written_us, now);
    }
    usage_note(u);
}

static struct limit_time usage_time(const struct usage *u)
{
    return keys_time(u->keys, ring_now_us(u->ring));
}

static void usage_collect_and_write(struct usage *u)
{
    struct limit_time time = usage_time(u);
    usage_end_hour(u, &time);
    usage_collect(u, &time, true);
    usage_write(u);
}

/* --- the loop --- */

static void usage_on_question(struct letter *letter)
{
    struct usage_question *question = (struct usage_question *)letter;
    struct usage *u = question->usage;
    if (!u->failing) usage_collect_and_write(u);
    question->result = store_ask(u->store, &question->query, question->message);
    question->answered(question, u->ring);
}

static uint64_t usage_wait_us(const struct usage *u)
{
    uint64_t turn_us = u->sharing ? SHARING_MS * 1000 : USAGE_TURN_US;
    struct limit_time time = usage_time(u);
    uint64_t quarter_us = (uint64_t)(USAGE_QUARTER_S - time.wall_s % USAGE_QUARTER_S) * 1000000;
    return quarter_us < turn_us ? quarter_us : turn_us;
}

static void usage_arm_sharing(struct usage *u)
{
    ring_poll(u->ring, sharing_event_fd(u->sharing), POLLIN, (struct ring_tag){.op = USAGE_OP_SHARING});
}

static void usage_on_shared(struct usage *u)
{
    uint64_t count;
    if (read(sharing_event_fd(u->sharing), &count, sizeof count) < 0) assert(errno == EAGAIN || errno == EINTR);
    usage_arm_sharing(u);
}

static int usage_turn(struct usage *u)
{
    struct ring_completion completion;
    sleeper_announce(&u->sleeper);
    bool busy = !letter_box_is_empty(&u->letters) || atomic_load(&u->ends);
    int error = ring_wait_us(u->ring, busy ? 0 : usage_wait_us(u));
    sleeper_awake(&u->sleeper);
    if (error < 0) return error;
    while (ring_next(u->ring, &completion))
        if (completion.tag.op == USAGE_OP_SHARING) usage_on_shared(u);
    struct limit_time time = usage_time(u);
    bool due = ring_now_us(u->ring) >= u->write_us;
    if (usage_end_hour(u, &time) || due)
        usage_collect_and_write(u);
    else
        usage_collect(u, &time, false);
    if (u->sharing) sharing_turn(u->sharing, ring_now_us(u->ring));
    letter_box_deliver(&u->letters);
    return 0;
}

static void *usage_main(void *argument)
{
    struct usage *u = argument;
    pthread_setname_np(pthread_self(), "usage");
    int error = ring_open(&u->ring, &(struct ring_options){.entries = USAGE_RING_ENTRIES});
    bool good = error == 0;
    pthread_mutex_lock(&u->lock);
    u->result = error;
    u->opened = true;
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->lock);
    if (!good) return NULL;
    u->write_us = ring_now_us(u->ring) + USAGE_WRITE_MS * 1000;
    log_attach();
    if (u->sharing) usage_arm_sharing(u);
    while (error == 0 && !atomic_load(&u->ends)) error = usage_turn(u);
    if (error < 0)
        LOGE("--usage %s: the ring of its thread broke: %s; usage is kept no more", u->name, strerror(-error));
    store_hurry(u->store);
    usage_collect_and_write(u);
    if (u->sharing) sharing_end(u->sharing, ring_now_us(u->ring), USAGE_LAST_MS);
    if (u->failing)
        LOGE("--usage %s: %u rows of usage are lost, they could not be written", u->name, ledger_rows(u->ledger));
    letter_box_deliver(&u->letters);
    ring_wait(u->ring, 0); /* submits the last wake-ups */
    log_detach();
    return NULL;
}

/* --- on the thread that opens it --- */

bool usage_ask(struct usage *usage, struct ring *own, struct usage_question *question)
{
    if (!usage || usage->over) return false;
    question->usage = usage;
    question->letter.deliver = usage_on_question;
    letter_put(&usage->letters, &question->letter);
    if (sleeper_must_wake(&usage->sleeper)) {
        ring_wake(own, usage->ring, (struct ring_tag){.op = USAGE_OP_WAKE});
        ring_flush(own);
    }
    return true;
}

void usage_stop(struct usage *usage, struct ring *own)
{
    if (!usage || usage->over) return;
    usage->over = true;
    if (!usage->started) return;
    atomic_store(&usage->ends, true);
    if (sleeper_must_wake(&usage->sleeper)) {
        ring_wake(own, usage->ring, (struct ring_tag){.op = USAGE_OP_WAKE});
        ring_flush(own);
    }
    pthread_join(usage->thread, NULL);
    ring_destroy(usage->ring); /* not by its own thread, which may end while it is being woken */
    usage->started = false;
}

void usage_close(struct usage *usage)
{
    if (!usage) return;
    assert(!usage->started);
    sharing_close(usage->sharing);
    store_close(usage->store);
    ledger_close(usage->ledger);
    pthread_cond_destroy(&usage->changed);
    pthread_mutex_destroy(&usage->lock);
    free(usage);
}

struct loading {
    struct ledger *ledger;
    const struct limit_time *time;
    bool full;
};

static bool usage_load(void *context, const struct limit_key *key, const struct limit_sums *sums)
{
    struct loading *loading = context;
    loading->full = !ledger_load(loading->ledger, key, sums, loading->time);
    return !loading->full;
}

static int usage_open_store(struct usage *u, const struct usage_options *options)
{
    char path[2 * USAGE_PATH_MAX], message[STORE_MESSAGE_SIZE];
    struct limit_time time = keys_time(u->keys, options->now_us);
    struct loading loading = {u->ledger, &time, false};
    snprintf(path, sizeof path, "%s", u->text.path);
    if (!*u->text.path) snprintf(path, sizeof path, "%s/usage.db", options->state_dir);
    snprintf(u->name, sizeof u->name, "sqlite:%.*s", (int)USAGE_PATH_MAX, path);
    u->hour = calendar_find(time.calendar, CALENDAR_HOUR, time.wall_s);
    if (store_open(&u->store, path, message) < 0 || store_load(u->store, &time, usage_load, &loading, message) < 0) {
        LOGE("--usage %s: %s", u->name, message);
        return -EIO;
    }
    if (loading.full)
        LOGW("--usage %s: it knows more keys than --limit-keys %u; quotas of those that were used least recently begin "
             "anew: give more --limit-keys",
             u->name, options->keys_max);
    return 0;
}

static int usage_open_sharing(struct usage *u, const struct usage_options *options)
{
    char node[STORE_NODE_SIZE], message[STORE_MESSAGE_SIZE];
    static_assert(STORE_NODE_SIZE <= FLEET_NODE_SIZE, "a node's name");
    if (u->text.kind != USAGE_REDIS) return 0;
    if (store_node(u->store, node, message) < 0) {
        LOGE("--usage %s: %s", u->name, message);
        return -EIO;
    }
    int error = sharing_open(&u->sharing, u->keys, u->ledger, options->keys_max, &u->text, node);
    if (error < 0) LOGE("--usage: its thread for Redis could not be started: %s; raise ulimit -u", strerror(-error));
    return error;
}

static int usage_start(struct usage *u)
{
    int error = -pthread_create(&u->thread, NULL, usage_main, u);
    if (error < 0) {
        LOGE("--usage: its thread could not be started: %s; raise ulimit -u", strerror(-error));
        return error;
    }
    pthread_mutex_lock(&u->lock);
    while (!u->opened) pthread_cond_wait(&u->changed, &u->lock);
    error = u->result;
    pthread_mutex_unlock(&u->lock);
    u->started = error == 0;
    if (u->started) return 0;
    pthread_join(u->thread, NULL);
    LOGE("%s (%s)", ring_explain(error), strerror(-error));
    return error;
}

int usage_open(struct usage **out, struct keys *keys, const struct usage_options *options)
{
    struct usage *u = calloc(1, sizeof *u);
    *out = NULL;
    if (!u) return -ENOMEM;
    u->keys = keys;
    pthread_mutex_init(&u->lock, NULL);
    pthread_cond_init(&u->changed, NULL);
    const char *wrong = options->text ? usage_text_parse(options->text, strlen(options->text), &u->text) : NULL;
    assert(!wrong); /* config_check() has read it */
    (void)wrong;
    int error = ledger_open(&u->ledger, options->keys_max);
    if (error == 0) error = keys_keep_accounts(keys, ledger_past(u->ledger));
    if (error == -ENOMEM) LOGE("--usage: there is no memory for its accounts; lower --limit-keys");
    if (error == 0) error = usage_open_store(u, options);
    if (error == 0) keys_restore(keys, options->now_us);
    if (error == 0) error = usage_open_sharing(u, options);
    if (error == 0) usage_note(u);
    counter_set(&u->written_us, options->now_us);
    if (error == 0) error = usage_start(u);
    if (error == 0) {
        *out = u;
    } else {
        keys_set_past(keys, NULL);
        usage_close(u);
    }
    return error;
}

void usage_show(const struct usage *usage, uint64_t now_us, struct usage_figures *figures)
{
    uint64_t written_us = counter_read(&usage->written_us);
    *figures = (struct usage_figures){.written = counter_read(&usage->written),
                                      .failures = counter_read(&usage->failures),
                                      .waiting = counter_read(&usage->waiting),
                                      .merged = counter_read(&usage->merged),
                                      .keys = counter_read(&usage->known),
                                      .wal_size = counter_read(&usage->wal_size),
                                      .age_us = now_us > written_us ? now_us - written_us : 0,
                                      .shared = usage->sharing != NULL};
    if (!usage->sharing) return;
    struct sharing_figures shared;
    sharing_show(usage->sharing, &shared);
    figures->connected = shared.connected;
    figures->exchanges = shared.exchanges;
    figures->exchange_failures = shared.failures;
    figures->lost = shared.lost;
    figures->recovered = shared.recovered;
    figures->exchange_age_us = now_us > shared.exchanged_us ? now_us - shared.exchanged_us : 0;
}
