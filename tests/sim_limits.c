#include "tests/sim_limits.h"

#include <string.h>

#include "core/session/keys.h"
#include "core/session/tally.h"
#include "tests/sim.h"

#define WALL_S INT64_C(1796000000)
#define USERS  4u /* who may be counted at a time: fewer than there are */

static const struct limit_key total = {.kind = LIMIT_TOTAL};

/* Fast enough for the world's patience, slow enough to make flows wait. */
static uint64_t plan_speed(void)
{
    return sim_chance(400) ? 0 : sim_between(40000, sim_chance(500) ? 200000 : 20000000);
}

static void plan_terms(struct limit_terms *terms, bool calm)
{
    limit_terms_init(terms);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        terms->speed[d] = plan_speed();
        if (terms->speed[d] > 0 && sim_chance(300)) terms->speed_burst[d] = sim_between(1, 100000);
        if (calm || sim_chance(700)) continue;
        terms->quota[d] = sim_below(sim_chance(500) ? 3000 : 400000);
        terms->period[d] = (uint8_t)sim_below(LIMIT_PERIODS);
    }
    if (calm) return;
    if (sim_chance(200)) terms->connections = sim_below(4);
    if (sim_chance(200)) {
        terms->rate = sim_between(1, 5);
        terms->burst = sim_between(1, 3);
    }
}

void sim_limits_plan(struct sim_limits *limits, bool calm)
{
    *limits = (struct sim_limits){.on = sim_chance(400), .calm = calm};
    plan_terms(&limits->quotas, calm);
}

static void put(struct sim_limits *limits, enum limit_kind kind)
{
    struct limit_key key = {.kind = (uint8_t)kind, .every = kind != LIMIT_TOTAL};
    struct limit_terms terms;
    if (kind == LIMIT_SOURCE) key.bits[0] = 32, key.bits[1] = 64;
    plan_terms(&terms, limits->calm);
    if (kind == LIMIT_SOURCE && !limits->calm) {
        if (sim_chance(500)) terms.half_open = sim_between(1, 8);
        if (sim_chance(500)) terms.resolving = sim_between(1, 4);
    }
    if (kind == LIMIT_TOTAL) {
        memcpy(terms.quota, limits->quotas.quota, sizeof terms.quota);
        memcpy(terms.period, limits->quotas.period, sizeof terms.period);
    }
    keys_put(limits->keys, &key, &terms, sim_now_us());
}

static void open_tally(struct sim_limits *limits, struct worker *w)
{
    static struct tally_count users[USERS], rules[TALLY_RULES + 1];
    const struct limit_key each = {.kind = LIMIT_USER, .every = true};
    struct limit_terms none;
    limit_terms_init(&none);
    limits->tally = (struct tally){.user_counts = users, .rule_counts = rules};
    for (unsigned i = 0; i < USERS; i++) users[i] = (struct tally_count){0};
    if (keys_open(&limits->tally.users, USERS, sim_now_us(), WALL_S) < 0) sim_fail("no keys");
    keys_put(limits->tally.users, &each, &none, sim_now_us());
    w->tally = &limits->tally;
}

void sim_limits_open(struct sim_limits *limits, struct worker *w)
{
    static const enum limit_kind kinds[] = {LIMIT_SOURCE, LIMIT_USER, LIMIT_TARGET};
    open_tally(limits, w);
    if (!limits->on) return;
    if (keys_open(&limits->keys, 64, sim_now_us(), WALL_S) < 0) sim_fail("no keys");
    put(limits, LIMIT_TOTAL);
    for (unsigned i = 0; i < 3; i++)
        if (sim_chance(300)) put(limits, kinds[i]);
    w->keys = limits->keys;
}

/* A total that is removed counts no more: it is only changed. */
struct errand *sim_limits_act(struct sim_limits *limits)
{
    if (!limits->on || limits->heeding || (!limits->heed_goes_on && !sim_chance(10))) return NULL;
    if (!limits->heed_goes_on) {
        put(limits, LIMIT_TOTAL);
        limits->heed.first = 0;
    }
    limits->heeding = true;
    limits->heed.errand = (struct errand){.run = errand_heed_limits};
    limits->heed.room = sim_between(1, 8);
    return &limits->heed.errand;
}

bool sim_limits_hear(struct sim_limits *limits, const void *body)
{
    if (body != &limits->heed) return false;
    limits->heeding = false;
    limits->heed_goes_on = limits->heed.next != UINT32_MAX;
    limits->heed.first = limits->heed.next;
    return true;
}

/* Nobody is left: nothing is counted as there, waits, or is on its way. */
static void check_row(const struct keys_row *row)
{
    if (row->half_open > 0 || row->resolving > 0)
        sim_fail("a limit has %u handshakes and %u questions, though none is left", row->half_open, row->resolving);
    if (row->connections == 0 && row->waiting == 0) return;
    sim_fail("a limit has %u connections and %u flows that wait, though none is left", row->connections, row->waiting);
}

/* What is used of the quotas is what was delivered, to the octet, and no more than they allow. */
static void check_quotas(const struct sim_limits *limits, const struct keys_row *row)
{
    uint64_t octets[LIMIT_DIRECTIONS] = {row->octets[0], row->octets[1], row->octets[0] + row->octets[1]};
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        if (row->used[d] != octets[d])
            sim_fail("quota %u: %llu octets are used, %llu were delivered", d, (unsigned long long)row->used[d],
                     (unsigned long long)octets[d]);
        if (octets[d] > limits->quotas.quota[d])
            sim_fail("quota %u: %llu octets were delivered of %llu", d, (unsigned long long)octets[d],
                     (unsigned long long)limits->quotas.quota[d]);
    }
}

static void check_total(const struct sim_limits *limits, struct keys_row *row)
{
    uint32_t held;
    if (keys_hold(limits->keys, &total, false, sim_now_us(), &held) != KEYS_FOUND) return; /* nobody has come */
    struct limit *limit = keys_at(limits->keys, held);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        if (atomic_load(&limit->quota[d].unsettled) > 0) sim_fail("quota %u: octets are on their way for ever", d);
    keys_release(limits->keys, held);
    keys_find(limits->keys, &total, sim_now_us(), row);
    check_quotas(limits, row);
}

/* Nobody is counted any more, no place is held, and nothing was counted twice. */
static void check_tally(const struct sim_limits *limits, const struct worker *w)
{
    const struct tally *tally = &limits->tally;
    uint64_t octets[2] = {0, 0};
    for (unsigned i = 0; i < USERS; i++) {
        if (counter_read(&tally->user_counts[i].connections) != 0) sim_fail("user %u is counted as there for ever", i);
        for (unsigned d = 0; d < 2; d++) octets[d] += counter_read(&tally->user_counts[i].octets[d]);
    }
    if (octets[0] > counter_read(&w->stats.bytes_up) || octets[1] > counter_read(&w->stats.bytes_down))
        sim_fail("users have moved more than everybody together");
    for (unsigned i = 0; i < USERS; i++) {
        struct limit_key key = {.kind = LIMIT_USER, .size = 1, .name = {(uint8_t)i}};
        uint32_t held;
        if (keys_hold(tally->users, &key, false, sim_now_us(), &held) != KEYS_FOUND)
            sim_fail("a user's place is held for ever");
    }
}

void sim_limits_check(const struct sim_limits *limits, const struct worker *w, bool alone)
{
    struct keys_row row;
    uint32_t at = 0;
    check_tally(limits, w);
    if (!limits->on) return;
    while (keys_next(limits->keys, &at, sim_now_us(), &row)) check_row(&row);
    check_total(limits, &row);
    for (unsigned side = 0; alone && side < 2; side++) {
        uint64_t counted = counter_read(side == 0 ? &w->stats.bytes_up : &w->stats.bytes_down);
        if (row.octets[side] != counted)
            sim_fail("%llu octets were delivered under the total, %llu counted", (unsigned long long)row.octets[side],
                     (unsigned long long)counted);
    }
}

void sim_limits_close(struct sim_limits *limits)
{
    keys_close(limits->keys);
    keys_close(limits->tally.users);
    limits->keys = limits->tally.users = NULL;
}
