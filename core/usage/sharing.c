#include "core/usage/sharing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/io/counter.h"
#include "core/io/log.h"
#include "core/io/memory.h"
#include "core/usage/fleet.h"

/* Keys that rest are compared so often. */
#define SHARING_REST_US UINT64_C(10000000)
/* After a failure nobody is asked for so long. */
#define SHARING_AGAIN_US UINT64_C(1000000)
/* What is wrong is said so often; something else that is wrong at once, a few times. */
#define SHARING_SAY_US  UINT64_C(60000000)
#define SHARING_SAY_MAX 3u

/* What is known of one key and period: of the period that began then. */
struct slot {
    int64_t begin;
    uint64_t acknowledged[2]; /* that Redis has of us */
    uint64_t told[2];         /* that it may have, if it has carried out what it did not answer */
    uint64_t compared_us;     /* when; 0: never */
};

struct account {
    struct slot slots[LIMIT_PERIODS];
    uint32_t generation; /* of the ledger's number */
    bool met;            /* it was compared since the start */
};

struct sharing {
    struct keys *keys;
    struct ledger *ledger;
    struct fleet *fleet;
    char name[USAGE_TEXT_SIZE];
    struct account *accounts; /* by index of the ledger */
    uint32_t accounts_count;
    uint32_t at; /* of the table of keys, where the next batch begins */
    bool sent;
    uint64_t due_us, say_us, say_lost_us, say_twin_us;
    bool failing;
    char last[REDIS_MESSAGE_SIZE]; /* what was said */
    uint32_t said;                 /* in that minute */
    counter connected, exchanges, failures, lost, recovered, exchanged_us;
};

/* --- opening --- */

int sharing_open(struct sharing **out, struct keys *keys, struct ledger *ledger, const struct usage_text *where,
                 const char *node)
{
    struct sharing *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return -ENOMEM;
    s->keys = keys;
    s->ledger = ledger;
    s->accounts_count = ledger_room(ledger);
    s->accounts = memory_map(s->accounts_count * sizeof *s->accounts);
    usage_text_format(where, s->name, sizeof s->name);
    int error = s->accounts ? fleet_open(&s->fleet, where, node) : -ENOMEM;
    if (error == 0) {
        *out = s;
        return 0;
    }
    sharing_close(s);
    return error;
}

int sharing_event_fd(const struct sharing *sharing)
{
    return fleet_event_fd(sharing->fleet);
}

/* --- what comes back --- */

static void note_failure(struct sharing *s, const struct fleet_batch *b, uint64_t now_us)
{
    counter_add(&s->failures, 1);
    counter_set(&s->connected, 0);
    s->failing = true;
    s->due_us = now_us + SHARING_AGAIN_US;
    if (now_us < s->say_us && s->said >= SHARING_SAY_MAX) return;
    if (now_us < s->say_us && strcmp(s->last, b->message) == 0) return;
    s->said = now_us < s->say_us ? s->said + 1 : 1;
    s->say_us = now_us + SHARING_SAY_US;
    snprintf(s->last, sizeof s->last, "%s", b->message);
    LOGW("--usage %s: quotas go on with the last sums of the other boxes: %s", s->name, b->message);
}

static void note_success(struct sharing *s, const struct fleet_batch *b, uint64_t now_us)
{
    if (s->failing) LOGN("--usage %s: quotas are shared again", s->name);
    if (*b->message) LOGW("--usage %s: %s", s->name, b->message);
    s->failing = false;
    s->say_us = 0;
    counter_add(&s->exchanges, 1);
    counter_set(&s->connected, 1);
    counter_set(&s->exchanged_us, now_us);
}

/* Redis knows less of us than it did: the key was thrown away, or another server has taken over that had not heard of
 * it yet. The script has written it again. */
static void note_lost(struct sharing *s, uint64_t now_us)
{
    counter_add(&s->lost, 1);
    if (now_us < s->say_lost_us) return;
    s->say_lost_us = now_us + SHARING_SAY_US;
    LOGW("--usage %s: it had lost sums of this box, which are there again; see that it keeps what it is told "
         "(maxmemory-policy noeviction, appendonly yes)",
         s->name);
}

/* It knows more of us than we have ever told it. */
static void note_twin(struct sharing *s, uint64_t now_us)
{
    if (now_us < s->say_twin_us) return;
    s->say_twin_us = now_us + SHARING_SAY_US;
    LOGE(
        "--usage %s: another box writes as this one does: its database is a copy of ours; delete the row `node' of its "
        "table `meta' while it is stopped",
        s->name);
}

/* A number that another key had before is nobody's that was met. */
static struct account *account_at(struct sharing *s, uint32_t index)
{
    struct account *a = &s->accounts[index];
    uint32_t generation = ledger_generation(s->ledger, index);
    if (a->generation != generation) *a = (struct account){.generation = generation};
    return a;
}

/* What Redis has of us beyond what the database had when the process began. */
static void recover(struct sharing *s, const struct fleet_item *item, const uint64_t counted[2], uint64_t now_us)
{
    struct limit_use use = {0};
    struct limit_time time = keys_time(s->keys, now_us);
    for (unsigned d = 0; d < 2; d++) {
        uint64_t before = item->own[d] > counted[d] ? item->own[d] - counted[d] : 0;
        if (item->mine[d] > before) use.octets[d] = item->mine[d] - before;
    }
    if (limit_use_is_none(&use)) return;
    counter_add(&s->recovered, use.octets[0] + use.octets[1]);
    ledger_add(s->ledger, &item->key, &use, &time);
    keys_give(s->keys, item->handle, use.octets, now_us);
}

static void read_item(struct sharing *s, const struct fleet_item *item, uint64_t now_us)
{
    struct account *a = account_at(s, item->index);
    if (a->generation != item->generation) return; /* it is another key's by now */
    struct slot *slot = &a->slots[item->period];
    if (!a->met) {
        recover(s, item, item->counted, now_us);
    } else if (slot->compared_us > 0 && slot->begin == item->begin) {
        bool less = false, more = false;
        for (unsigned d = 0; d < 2; d++) {
            less |= item->mine[d] < slot->acknowledged[d];
            more |= item->mine[d] > slot->told[d];
        }
        if (less) note_lost(s, now_us);
        if (more && !less) note_twin(s, now_us);
    }
    a->met = true;
    slot->begin = item->begin;
    slot->compared_us = now_us;
    for (unsigned d = 0; d < 2; d++) {
        slot->acknowledged[d] = item->told[d] > item->mine[d] ? item->told[d] : item->mine[d];
        if (slot->told[d] < slot->acknowledged[d]) slot->told[d] = slot->acknowledged[d];
    }
    keys_set_elsewhere(s->keys, item->handle, (enum limit_period)item->period, item->begin, item->others);
}

static void read_batch(struct sharing *s, const struct fleet_batch *b, uint64_t now_us)
{
    s->sent = false;
    if (b->result < 0) {
        note_failure(s, b, now_us);
        return;
    }
    for (uint32_t i = 0; i < b->count; i++) read_item(s, &b->items[i], now_us);
    note_success(s, b, now_us);
}

/* --- what is sent --- */

static bool is_due(const struct slot *slot, const struct keys_quota *row, int64_t begin, const uint64_t own[2],
                   uint64_t now_us)
{
    if (row->connections > 0 || slot->compared_us == 0 || slot->begin != begin) return true;
    if (own[0] > slot->acknowledged[0] || own[1] > slot->acknowledged[1]) return true;
    return now_us - slot->compared_us >= SHARING_REST_US;
}

static int64_t begin_of(enum limit_period period, const struct limit_time *time)
{
    return period == LIMIT_EVER ? 0 : calendar_find(time->calendar, (enum calendar_period)period, time->wall_s);
}

static void tell(struct slot *slot, struct fleet_item *item)
{
    if (slot->begin != item->begin) *slot = (struct slot){.begin = item->begin};
    for (unsigned d = 0; d < 2; d++) slot->told[d] = item->told[d] = item->own[d];
}

/* A key's periods; until it was met, one of them alone, for what is recovered counts in all; and nothing is told, so
 * that what comes back is of the time before this process, also when an answer got lost. */
static void add_items(struct sharing *s, struct fleet_batch *b, const struct keys_quota *row, uint64_t now_us)
{
    struct limit_time time = keys_time(s->keys, now_us);
    uint32_t index = ledger_index(s->ledger, &row->key, &time);
    if (index == PAST_NONE) return; /* nobody keeps an account of it */
    struct account *a = account_at(s, index);
    for (unsigned period = 0; period < LIMIT_PERIODS; period++) {
        const uint64_t *own = row->sums.octets[period];
        int64_t begin = begin_of((enum limit_period)period, &time);
        if (!(row->periods & 1u << period) || !is_due(&a->slots[period], row, begin, own, now_us)) continue;
        struct fleet_item *item = &b->items[b->count++];
        *item =
            (struct fleet_item){.key = row->key,
                                .period = (uint8_t)period,
                                .begin = begin,
                                .end = period == LIMIT_EVER ? 0 : calendar_next((enum calendar_period)period, begin),
                                .own = {own[0], own[1]},
                                .counted = {row->counted[0], row->counted[1]},
                                .handle = row->handle,
                                .index = index,
                                .generation = a->generation};
        if (!a->met) return;
        tell(&a->slots[period], item);
    }
}

/* Where the batch is full, the next one goes on there. */
static void send_batch(struct sharing *s, struct fleet_batch *b, uint64_t now_us)
{
    struct keys_quota row;
    b->count = 0;
    s->due_us = now_us + SHARING_MS * 1000;
    while (b->count + LIMIT_PERIODS <= FLEET_BATCH_MAX && keys_next_quota(s->keys, &s->at, now_us, &row))
        add_items(s, b, &row, now_us);
    if (b->count + LIMIT_PERIODS > FLEET_BATCH_MAX)
        s->due_us = now_us;
    else
        s->at = 0;
    if (b->count == 0 && !s->failing && counter_read(&s->exchanges) > 0) return;
    s->sent = true;
    fleet_send(s->fleet);
}

void sharing_turn(struct sharing *sharing, uint64_t now_us)
{
    struct fleet_batch *b = fleet_batch(sharing->fleet);
    if (!b) return;
    if (sharing->sent) read_batch(sharing, b, now_us);
    if (now_us >= sharing->due_us) send_batch(sharing, b, now_us);
}

void sharing_end(struct sharing *sharing, uint64_t now_us, uint32_t wait_ms)
{
    if (!sharing->failing && fleet_wait(sharing->fleet, wait_ms / 2)) {
        sharing->due_us = 0;
        sharing_turn(sharing, now_us);
        fleet_wait(sharing->fleet, wait_ms / 2);
    }
    fleet_close(sharing->fleet, wait_ms / 4);
    sharing->fleet = NULL;
}

void sharing_close(struct sharing *sharing)
{
    if (!sharing) return;
    fleet_close(sharing->fleet, 200);
    if (sharing->accounts) munmap(sharing->accounts, sharing->accounts_count * sizeof *sharing->accounts);
    free(sharing);
}

void sharing_show(const struct sharing *sharing, struct sharing_figures *figures)
{
    *figures = (struct sharing_figures){.connected = counter_read(&sharing->connected) > 0,
                                        .exchanges = counter_read(&sharing->exchanges),
                                        .failures = counter_read(&sharing->failures),
                                        .lost = counter_read(&sharing->lost),
                                        .recovered = counter_read(&sharing->recovered),
                                        .exchanged_us = counter_read(&sharing->exchanged_us)};
}
