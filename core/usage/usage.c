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
#include "core/session/departures.h"
#include "core/usage/collector.h"
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
/* And that there is no room for further keys. */
#define USAGE_SAY_MERGED_US UINT64_C(3600000000)
/* Between two transactions: so whoever asks again and again does not make the disk busy. */
#define USAGE_REST_US UINT64_C(1000000)
/* From so many rows that are not written on the next transaction is due, so that keys may leave the ledger; and room
 * for those that come meanwhile. */
#define USAGE_ROWS_DUE DEPARTURES_MAX
#define USAGE_SPARE    (3 * DEPARTURES_MAX)
/* Where writing fails, an answer has the rows of memory in it up to so many: they are added up for each question. */
#define USAGE_PREVIEW_MAX 10000u

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
    struct collector collector;
    uint64_t tried_us; /* the last transaction */
    uint64_t say_us;   /* before then nothing is said of failures */
    uint64_t say_merged_us;
    bool failing;
    counter written, failures, waiting, merged, evicted, known, wal_size, written_us;

    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* of the start */
    pthread_cond_t changed;
    bool opened;
    int result;
};

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

static void usage_say_merged(struct usage *u)
{
    uint64_t now = ring_now_us(u->ring);
    if (ledger_merged(u->ledger) == counter_read(&u->merged) || now < u->say_merged_us) return;
    u->say_merged_us = now + USAGE_SAY_MERGED_US;
    LOGW("--usage %s: more keys are in use than there is room for; what further ones use is booked under the name of "
         "their kind, and their quotas begin anew with the next start: give more --limit-keys",
         u->name);
}

static void usage_note(struct usage *u)
{
    counter_set(&u->waiting, ledger_rows(u->ledger));
    counter_set(&u->merged, ledger_merged(u->ledger));
    counter_set(&u->evicted, ledger_evicted(u->ledger));
    counter_set(&u->known, past_count(ledger_past(u->ledger)));
    counter_set(&u->wal_size, store_wal_size(u->store));
}

static void usage_write(struct usage *u)
{
    char message[STORE_MESSAGE_SIZE];
    uint64_t now = ring_now_us(u->ring);
    u->tried_us = now;
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
    usage_say_merged(u);
    usage_note(u);
}

static struct limit_time usage_time(const struct usage *u)
{
    return keys_time(u->keys, ring_now_us(u->ring));
}

static void usage_collect_and_write(struct usage *u)
{
    struct limit_time time = usage_time(u);
    collector_end_hour(&u->collector, &time);
    collector_take(&u->collector, &time, true);
    usage_write(u);
}

/* --- the loop --- */

static void usage_on_question(struct letter *letter)
{
    struct usage_question *question = (struct usage_question *)letter;
    struct usage *u = question->usage;
    struct limit_time time = usage_time(u);
    bool due = collector_end_hour(&u->collector, &time) || time.now_us - u->tried_us >= USAGE_REST_US;
    collector_take(&u->collector, &time, true);
    if (due && !u->failing) usage_write(u);
    usage_say_merged(u);
    usage_note(u);
    bool preview = !u->failing || ledger_rows(u->ledger) <= USAGE_PREVIEW_MAX;
    question->result = store_ask(u->store, preview ? u->ledger : NULL, &question->query, question->message);
    question->answered(question, u->ring);
}

static uint64_t usage_wait_us(const struct usage *u)
{
    uint64_t turn_us = u->sharing ? SHARING_MS * 1000 : USAGE_TURN_US;
    struct limit_time time = usage_time(u);
    uint64_t quarter_us = collector_wait_us(&time);
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

static bool usage_is_due(const struct usage *u, uint64_t now_us)
{
    bool many = !u->failing && ledger_rows(u->ledger) >= USAGE_ROWS_DUE;
    return now_us - u->tried_us >= (many ? USAGE_REST_US : USAGE_WRITE_MS * 1000);
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
    if (collector_end_hour(&u->collector, &time) || usage_is_due(u, time.now_us))
        usage_collect_and_write(u);
    else
        collector_take(&u->collector, &time, false);
    /* At that moment: what is told of a period has nothing in it that belongs to the hour before. */
    if (u->sharing) sharing_turn(u->sharing, time.now_us);
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
    u->tried_us = ring_now_us(u->ring);
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

/* A name whose terms the ruleset has not given yet may have a quota. */
static bool usage_may_leave(void *context, const struct limit_key *key, const struct limit_sums *sums, bool used,
                            const struct limit_time *time)
{
    struct usage *u = context;
    return (used || key->kind != LIMIT_NAMED) && !keys_need(u->keys, key, sums, time);
}

static bool usage_recall(void *context, const struct limit_key *key, const struct limit_time *time,
                         struct limit_sums *sums)
{
    const struct usage *u = context;
    return store_find(u->store, key, time, sums);
}

struct loading {
    struct usage *usage;
    const struct limit_time *time;
    bool needed; /* those alone that may have something used of a quota */
    bool full;
};

static bool usage_load(void *context, const struct limit_key *key, const struct limit_sums *sums)
{
    struct loading *loading = context;
    struct usage *u = loading->usage;
    bool needed = key->kind == LIMIT_NAMED || keys_need(u->keys, key, sums, loading->time);
    if (loading->needed && !needed) return true;
    loading->full = !ledger_load(u->ledger, key, sums, loading->time);
    return !loading->full;
}

/* Where there are more keys than there is room for, those come first whose quotas would begin anew without it. */
static int usage_load_all(struct usage *u, const struct usage_options *options, const struct limit_time *time,
                          char message[STORE_MESSAGE_SIZE])
{
    struct loading needed = {.usage = u, .time = time, .needed = true}, rest = {.usage = u, .time = time};
    int more = store_has_more(u->store, options->keys_max, message), error = more < 0 ? -1 : 0;
    if (more > 0) error = store_load(u->store, time, keys_quota_kinds(u->keys), usage_load, &needed, message);
    if (error == 0 && !needed.full) error = store_load(u->store, time, UINT32_MAX, usage_load, &rest, message);
    if (needed.full)
        LOGW("--usage %s: it knows more keys with quotas than --limit-keys %u; quotas of those that were used least "
             "recently begin anew: give more --limit-keys",
             u->name, options->keys_max);
    return error;
}

static int usage_open_store(struct usage *u, const struct usage_options *options)
{
    char path[2 * USAGE_PATH_MAX], message[STORE_MESSAGE_SIZE];
    struct limit_time time = keys_time(u->keys, options->now_us);
    snprintf(path, sizeof path, "%s", u->text.path);
    if (!*u->text.path) snprintf(path, sizeof path, "%s/usage.db", options->state_dir);
    snprintf(u->name, sizeof u->name, "sqlite:%.*s", (int)USAGE_PATH_MAX, path);
    collector_open(&u->collector, u->keys, u->ledger, &time);
    if (store_open(&u->store, path, message) < 0 || usage_load_all(u, options, &time, message) < 0) {
        LOGE("--usage %s: %s", u->name, message);
        return -EIO;
    }
    ledger_set_hooks(u->ledger, &(struct ledger_hooks){u, usage_may_leave, usage_recall});
    return 0;
}

static int usage_open_sharing(struct usage *u)
{
    char node[STORE_NODE_SIZE], message[STORE_MESSAGE_SIZE];
    static_assert(STORE_NODE_SIZE <= FLEET_NODE_SIZE, "a node's name");
    if (u->text.kind != USAGE_REDIS) return 0;
    if (store_node(u->store, node, message) < 0) {
        LOGE("--usage %s: %s", u->name, message);
        return -EIO;
    }
    int error = sharing_open(&u->sharing, u->keys, u->ledger, &u->text, node);
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
    int error = ledger_open(&u->ledger, options->keys_max + USAGE_SPARE);
    if (error == 0) error = keys_keep_accounts(keys, ledger_past(u->ledger));
    if (error == -ENOMEM) LOGE("--usage: there is no memory for its accounts; lower --limit-keys");
    if (error == 0) error = usage_open_store(u, options);
    if (error == 0) keys_restore(keys, options->now_us);
    if (error == 0) error = usage_open_sharing(u);
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
                                      .evicted = counter_read(&usage->evicted),
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
