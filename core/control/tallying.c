#include "core/control/tallying.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "core/control/coordinator_private.h"
#include "core/io/memory.h"

#define USERS_SIZE (TALLY_USERS * sizeof(struct tally_count))
#define RULES_SIZE ((TALLY_RULES + 1) * sizeof(struct tally_count))

static bool tally_open(struct tally *tally, struct keys *users)
{
    tally->users = users;
    tally->user_counts = memory_map(USERS_SIZE);
    tally->rule_counts = memory_map(RULES_SIZE);
    return tally->user_counts && tally->rule_counts;
}

static void tally_close(struct tally *tally)
{
    if (tally->user_counts) munmap(tally->user_counts, USERS_SIZE);
    if (tally->rule_counts) munmap(tally->rule_counts, RULES_SIZE);
}

/* Names without terms: each user has a place as soon as there is one. */
int tallying_open(struct coordinator *c)
{
    const struct limit_key each = {.kind = LIMIT_USER, .every = true};
    struct limit_terms none;
    uint64_t now = ring_now_us(c->ring);
    int error = keys_open(&c->tally_users, TALLY_USERS, now, (int64_t)time(NULL));
    if (error < 0) return error;
    limit_terms_init(&none);
    keys_put(c->tally_users, &each, &none, now);
    c->tallies = calloc(c->config->workers, sizeof *c->tallies);
    if (!c->tallies) return -ENOMEM;
    c->tally_count = c->config->workers;
    for (uint32_t i = 0; i < c->tally_count; i++)
        if (!tally_open(&c->tallies[i], c->tally_users)) return -ENOMEM;
    return 0;
}

void tallying_close(struct coordinator *c)
{
    for (uint32_t i = 0; i < c->tally_count; i++) tally_close(&c->tallies[i]);
    free(c->tallies);
    keys_close(c->tally_users);
}

/* --- sums --- */

struct keys *coordinator_tally_users(const struct coordinator *c)
{
    return c->tally_users;
}

static void add(struct tally_sum *sum, const struct tally_count *count)
{
    for (unsigned i = 0; i < 2; i++) sum->octets[i] += counter_read(&count->octets[i]);
    sum->connections += counter_read(&count->connections);
}

void coordinator_tally_user(const struct coordinator *c, uint32_t index, struct tally_sum *out)
{
    assert(index < TALLY_USERS);
    *out = (struct tally_sum){0};
    for (uint32_t i = 0; i < c->tally_count; i++) add(out, &c->tallies[i].user_counts[index]);
}

void coordinator_tally_rule(const struct coordinator *c, uint32_t tag, struct tally_sum *out)
{
    assert(tag > 0 && tag <= TALLY_RULES);
    *out = (struct tally_sum){0};
    for (uint32_t i = 0; i < c->tally_count; i++) add(out, &c->tallies[i].rule_counts[tag]);
}

uint64_t coordinator_tally_missed(const struct coordinator *c)
{
    uint64_t missed = 0;
    for (uint32_t i = 0; i < c->tally_count; i++) missed += counter_read(&c->tallies[i].missed);
    return missed;
}
