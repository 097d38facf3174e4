#include "core/control/limiting.h"

#include <assert.h>
#include <string.h>
#include <time.h>

#include "core/control/coordinator_private.h"
#include "core/control/errands.h"
#include "core/control/workers.h"
#include "core/io/log.h"

/* The calendar reaches some hours ahead; a wall clock that is set must be heeded sooner. */
#define LIMITING_CLOCK_US UINT64_C(20000000)

struct keys *coordinator_keys(const struct coordinator *c)
{
    return c->keys;
}

/* --- telling the workers --- */

static void limiting_tell_one(struct coordinator *c, uint32_t worker);

static void limiting_on_heeded(struct errand *errand, int32_t result)
{
    struct worker_thread *thread = link_owner(errand, struct worker_thread, heed.errand);
    bool more = result == 0 && thread->heed.next != UINT32_MAX;
    thread->heeding = false;
    thread->heed.first = more ? thread->heed.next : 0;
    if (more) limiting_tell_one(thread->coordinator, (uint32_t)(thread - thread->coordinator->threads));
}

/* A piece of the worker's sessions at a time. What changes meanwhile is for another look at all of them, behind this
 * one: it may have been past some already, and would never come to the last ones if each change made it begin anew. */
static void limiting_tell_one(struct coordinator *c, uint32_t worker)
{
    struct worker_thread *thread = &c->threads[worker];
    bool begins = thread->heed.first == 0;
    if (thread->heeding || (begins && !thread->heed_due)) return;
    thread->heed.errand = (struct errand){.run = errand_heed_limits, .done = limiting_on_heeded};
    thread->heed.room = HEED_SLOTS;
    thread->heeding = coordinator_send(c, worker, &thread->heed.errand);
    if (begins) thread->heed_due = !thread->heeding && !thread->closed;
}

static void limiting_tell(struct coordinator *c)
{
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) limiting_tell_one(c, i);
}

static void limiting_changed(struct coordinator *c)
{
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) c->threads[i].heed_due = true;
    limiting_tell(c);
}

/* --- changes --- */

enum keys_change coordinator_put_limit(struct coordinator *c, const struct limit_key *key,
                                       const struct limit_terms *terms)
{
    enum keys_change change = keys_put(c->keys, key, terms, ring_now_us(c->ring));
    if (change == KEYS_CHANGED) limiting_changed(c);
    return change;
}

enum keys_change coordinator_name_limit(struct coordinator *c, const struct limit_key *key,
                                        const struct limit_terms *terms, uint64_t *handle)
{
    enum keys_change change = keys_name(c->keys, key, terms, ring_now_us(c->ring), handle);
    if (change == KEYS_CHANGED) limiting_changed(c);
    return change;
}

bool coordinator_remove_limit(struct coordinator *c, const struct limit_key *key)
{
    bool removed = keys_remove(c->keys, key, ring_now_us(c->ring));
    if (removed) limiting_changed(c);
    return removed;
}

/* --- those of the settings --- */

/* config_check() has read them. */
static void read_limit(const struct config *config, uint32_t i, struct limit_key *key, struct limit_terms *terms)
{
    const char *wrong = limit_parse(config->limits[i], strlen(config->limits[i]), key, terms);
    assert(!wrong);
    (void)wrong;
}

static bool has_key(const struct config *config, const struct limit_key *key)
{
    struct limit_key other;
    struct limit_terms terms;
    for (uint32_t i = 0; i < config->limit_count; i++) {
        read_limit(config, i, &other, &terms);
        bool each = key->every && other.every && key->kind == other.kind; /* whatever tells sources apart */
        if (each || limit_key_equal(key, &other)) return true;
    }
    return false;
}

static void put_all(struct coordinator *c, const struct config *config)
{
    struct limit_key key;
    struct limit_terms terms;
    for (uint32_t i = 0; i < config->limit_count; i++) {
        read_limit(config, i, &key, &terms);
        enum keys_change change = coordinator_put_limit(c, &key, &terms);
        if (change == KEYS_TOO_MANY || change == KEYS_NO_ROOM)
            LOGE("--limit %s: %s", config->limits[i],
                 change == KEYS_NO_ROOM ? "the table of keys is full, give more --limit-keys"
                                        : "with what the API has put sessions would be under too many kinds of limits");
    }
}

/* What was put by others stays. */
void limiting_configure(struct coordinator *c, const struct config *now, const struct config *fresh)
{
    struct limit_key key;
    struct limit_terms terms;
    for (uint32_t i = 0; i < now->limit_count; i++) {
        read_limit(now, i, &key, &terms);
        if (!has_key(fresh, &key)) coordinator_remove_limit(c, &key);
    }
    put_all(c, fresh);
}

/* --- opening, and each turn --- */

int limiting_open(struct coordinator *c)
{
    uint64_t now = ring_now_us(c->ring);
    int error = keys_open(&c->keys, c->config->limit_keys, now, (int64_t)time(NULL));
    if (error < 0) return error;
    c->clock_due_us = now + LIMITING_CLOCK_US;
    put_all(c, c->config);
    return 0;
}

void limiting_turn(struct coordinator *c)
{
    uint64_t now = ring_now_us(c->ring);
    if (!c->keys) return;
    limiting_tell(c);
    if (now < c->clock_due_us) return;
    c->clock_due_us = now + LIMITING_CLOCK_US;
    keys_update_clock(c->keys, now, (int64_t)time(NULL));
}

void limiting_close(struct coordinator *c)
{
    keys_close(c->keys);
    c->keys = NULL;
}
