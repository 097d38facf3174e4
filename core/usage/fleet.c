#include "core/usage/fleet.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Keys of one call of the script: it answers four numbers for each, and nobody else is served meanwhile. */
#define FLEET_KEYS_MAX    200u
#define FLEET_NAME_SIZE   (LIMIT_KEY_TEXT_SIZE + 64u)
#define FLEET_NUMBER_SIZE 24u
/* Sums of a period that is over stay for so long, for boxes whose clocks are late. */
#define FLEET_LATE_S 172800

static const char script[] =
    "local out, node = {}, ARGV[1] "
    "for i, key in ipairs(KEYS) do "
    "local own = {tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])} "
    "local mine, others = {0, 0}, {0, 0} "
    "local all = redis.call('HGETALL', key) "
    "for j = 1, #all, 2 do "
    "local up, down = string.match(all[j + 1], '^(%d+) (%d+)$') "
    "up, down = tonumber(up) or 0, tonumber(down) or 0 "
    "if all[j] == node then mine = {up, down} else others = {others[1] + up, others[2] + down} end "
    "end "
    "if own[1] > mine[1] or own[2] > mine[2] then "
    "redis.call('HSET', key, node, string.format('%.0f %.0f', math.max(own[1], mine[1]), math.max(own[2], mine[2]))) "
    "if ARGV[3 * i + 1] ~= '0' then redis.call('EXPIREAT', key, ARGV[3 * i + 1]) end "
    "end "
    "for _, number in ipairs({mine[1], mine[2], others[1], others[2]}) do out[#out + 1] = number end "
    "end "
    "return out";

enum fleet_phase { FLEET_IDLE, FLEET_BUSY };

struct fleet {
    struct usage_text where;
    char node[FLEET_NODE_SIZE];
    struct redis *redis; /* the thread's; NULL: not connected */
    int event_fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    _Atomic int phase; /* enum fleet_phase: who has the batch */
    bool ends, ended;
    struct fleet_batch batch;
    /* Of one call: 3 words behind each key, and those in front. */
    const char *words[4 + 4 * FLEET_KEYS_MAX];
    size_t sizes[4 + 4 * FLEET_KEYS_MAX];
    char names[FLEET_KEYS_MAX][FLEET_NAME_SIZE];
    char numbers[3 * FLEET_KEYS_MAX][FLEET_NUMBER_SIZE];
    int64_t answer[REDIS_NUMBERS_MAX];
};

/* --- on its thread --- */

static size_t name_item(const struct fleet_item *item, char out[FLEET_NAME_SIZE])
{
    char key[LIMIT_KEY_TEXT_SIZE];
    const char *period = item->period == LIMIT_EVER ? "ever" : limit_period_name((enum limit_period)item->period);
    limit_key_format(&item->key, key, sizeof key);
    return (size_t)snprintf(out, FLEET_NAME_SIZE, "sluice:quota:%s:%lld:%s", period, (long long)item->begin, key);
}

static void add_word(struct fleet *f, int *count, const char *word, size_t size)
{
    f->words[*count] = word;
    f->sizes[(*count)++] = size;
}

static void add_number(struct fleet *f, int *count, unsigned at, int64_t number)
{
    int size = snprintf(f->numbers[at], FLEET_NUMBER_SIZE, "%lld", (long long)number);
    add_word(f, count, f->numbers[at], (size_t)size);
}

/* Words of one call of the script. */
static int write_call(struct fleet *f, const struct fleet_item *items, uint32_t count, const char *keys)
{
    static const char eval[] = "EVAL";
    int words = 0;
    add_word(f, &words, eval, sizeof eval - 1);
    add_word(f, &words, script, sizeof script - 1);
    add_word(f, &words, keys, strlen(keys));
    for (uint32_t i = 0; i < count; i++) add_word(f, &words, f->names[i], name_item(&items[i], f->names[i]));
    add_word(f, &words, f->node, strlen(f->node));
    for (uint32_t i = 0; i < count; i++) {
        int64_t expires = items[i].period == LIMIT_EVER ? 0 : items[i].end + FLEET_LATE_S;
        add_number(f, &words, 3 * i, (int64_t)items[i].told[0]);
        add_number(f, &words, 3 * i + 1, (int64_t)items[i].told[1]);
        add_number(f, &words, 3 * i + 2, expires);
    }
    return words;
}

static bool read_answer(const struct fleet *f, struct fleet_item *items, uint32_t count, size_t numbers)
{
    if (numbers != 4 * (size_t)count) return false;
    for (uint32_t i = 0; i < count; i++) {
        const int64_t *four = &f->answer[4 * (size_t)i];
        for (unsigned j = 0; j < 4; j++)
            if (four[j] < 0) return false;
        for (unsigned d = 0; d < 2; d++) {
            items[i].mine[d] = (uint64_t)four[d];
            items[i].others[d] = (uint64_t)four[2 + d];
        }
    }
    return true;
}

static int call_script(struct fleet *f, struct fleet_item *items, uint32_t count)
{
    char keys[FLEET_NUMBER_SIZE], *message = f->batch.message;
    snprintf(keys, sizeof keys, "%u", count);
    int words = write_call(f, items, count, keys);
    struct redis_command command = {.count = words, .words = f->words, .sizes = f->sizes, .numbers = f->answer};
    if (redis_ask(f->redis, &command, message) < 0) return -1;
    if (read_answer(f, items, count, command.number_count)) return 0;
    snprintf(message, REDIS_MESSAGE_SIZE,
             "the script's answer is not what it should be: see that it is a Redis server");
    return -1;
}

/* A server that throws keys away when its memory is full forgets what was used. */
static void look_at_policy(struct fleet *f)
{
    char message[REDIS_MESSAGE_SIZE];
    const char *words[] = {"CONFIG", "GET", "maxmemory-policy"};
    const size_t sizes[] = {6, 3, 16};
    struct redis_command command = {.count = 3, .words = words, .sizes = sizes};
    bool known = redis_ask(f->redis, &command, message) == 0 && command.text[0];
    if (known && strcmp(command.text, "noeviction") != 0)
        snprintf(f->batch.message, REDIS_MESSAGE_SIZE,
                 "its maxmemory-policy is %.64s, with which it may forget what was used: set noeviction", command.text);
}

static int connect_redis(struct fleet *f)
{
    if (f->redis) return 0;
    if (redis_open(&f->redis, &f->where, f->batch.message) < 0) return -1;
    look_at_policy(f);
    return 0;
}

/* After an error nobody knows what was carried out: all of it is done again, over another connection. */
static void run_batch(struct fleet *f)
{
    struct fleet_batch *b = &f->batch;
    b->message[0] = '\0';
    b->result = connect_redis(f);
    for (uint32_t at = 0; at < b->count && b->result == 0;) {
        uint32_t count = b->count - at < FLEET_KEYS_MAX ? b->count - at : FLEET_KEYS_MAX;
        b->result = call_script(f, &b->items[at], count);
        at += count;
    }
    if (b->result == 0) return;
    redis_close(f->redis);
    f->redis = NULL;
}

static void fleet_free(struct fleet *f)
{
    redis_close(f->redis);
    if (f->event_fd >= 0) close(f->event_fd);
    explicit_bzero(&f->where, sizeof f->where);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* False: the fleet is over. */
static bool wait_for_batch(struct fleet *f)
{
    pthread_mutex_lock(&f->lock);
    while (!f->ends && atomic_load(&f->phase) != FLEET_BUSY) pthread_cond_wait(&f->changed, &f->lock);
    bool goes_on = !f->ends;
    pthread_mutex_unlock(&f->lock);
    return goes_on;
}

static void give_batch_back(struct fleet *f)
{
    uint64_t one = 1;
    pthread_mutex_lock(&f->lock);
    atomic_store(&f->phase, FLEET_IDLE);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    if (write(f->event_fd, &one, sizeof one) < 0) assert(errno == EAGAIN || errno == EINTR);
}

static void *fleet_main(void *argument)
{
    struct fleet *f = argument;
    pthread_setname_np(pthread_self(), "usage-fleet");
    while (wait_for_batch(f)) {
        run_batch(f);
        give_batch_back(f);
    }
    pthread_mutex_lock(&f->lock);
    bool left = f->ended; /* nobody waits for us any more */
    f->ended = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    if (left) fleet_free(f);
    return NULL;
}

/* --- on the thread of accounts --- */

int fleet_open(struct fleet **out, const struct usage_text *where, const char *node)
{
    struct fleet *f = calloc(1, sizeof *f);
    *out = NULL;
    if (!f) return -ENOMEM;
    f->where = *where;
    snprintf(f->node, sizeof f->node, "%s", node);
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&f->changed, &clock);
    pthread_condattr_destroy(&clock);
    f->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = f->event_fd < 0 ? -errno : -pthread_create(&f->thread, NULL, fleet_main, f);
    if (error < 0)
        fleet_free(f);
    else
        *out = f;
    return error;
}

static struct timespec moment_in(uint32_t wait_ms)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += wait_ms / 1000;
    end.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    return end;
}

int fleet_event_fd(const struct fleet *fleet)
{
    return fleet->event_fd;
}

struct fleet_batch *fleet_batch(struct fleet *fleet)
{
    return atomic_load(&fleet->phase) == FLEET_IDLE ? &fleet->batch : NULL;
}

bool fleet_wait(struct fleet *fleet, uint32_t wait_ms)
{
    struct timespec end = moment_in(wait_ms);
    int error = 0;
    pthread_mutex_lock(&fleet->lock);
    while (atomic_load(&fleet->phase) == FLEET_BUSY && error == 0)
        error = pthread_cond_timedwait(&fleet->changed, &fleet->lock, &end);
    pthread_mutex_unlock(&fleet->lock);
    return error == 0;
}

void fleet_send(struct fleet *fleet)
{
    pthread_mutex_lock(&fleet->lock);
    assert(atomic_load(&fleet->phase) == FLEET_IDLE);
    atomic_store(&fleet->phase, FLEET_BUSY);
    pthread_cond_broadcast(&fleet->changed);
    pthread_mutex_unlock(&fleet->lock);
}

/* The thread may be resolving a name, which nothing can cut short: then it frees everything when it comes back. */
void fleet_close(struct fleet *fleet, uint32_t wait_ms)
{
    struct timespec end = moment_in(wait_ms);
    int error = 0;
    if (!fleet) return;
    pthread_mutex_lock(&fleet->lock);
    fleet->ends = true;
    pthread_cond_broadcast(&fleet->changed);
    while (!fleet->ended && error == 0) error = pthread_cond_timedwait(&fleet->changed, &fleet->lock, &end);
    bool ended = fleet->ended;
    fleet->ended = true;
    pthread_t thread = fleet->thread;
    if (!ended) pthread_detach(thread);
    pthread_mutex_unlock(&fleet->lock);
    if (!ended) return;
    pthread_join(thread, NULL);
    fleet_free(fleet);
}
