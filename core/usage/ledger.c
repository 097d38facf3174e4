#include "core/usage/ledger.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/io/memory.h"

/* Accounts that are looked at for one that may leave. */
#define LEDGER_LOOKS_MAX 64u

/* The row of the hour in which a key was used last; it is in the list of those that are not written while it is
 * `open`. Accounts are in the order in which they were used, those of kinds left out, which never leave. */
struct account {
    struct ledger_row row;
    uint32_t next; /* of those that are not written; PAST_NONE: the last */
    uint32_t newer, older;
    uint32_t generation;
    bool open;
    bool used; /* since the process began */
};

struct overdue {
    uint32_t key;
    struct ledger_row row;
};

struct ledger {
    struct past *past;
    struct ledger_hooks hooks;
    struct account *accounts; /* by index of the past */
    uint32_t room;
    uint32_t newest, oldest;
    uint32_t first; /* of the accounts that are not written */
    uint32_t open_count, overdue_count;
    bool incomplete;          /* keys are known that are not in memory */
    int64_t hour;             /* of the evictions that are counted */
    uint32_t evicted_in_hour; /* as many as there is room for, at most */
    uint64_t merged, evicted;
    struct overdue *overdue;
};

/* Room for the kinds is taken first, so that there is always some for them. */
static void make_kinds(struct ledger *l)
{
    for (unsigned kind = 0; kind < LIMIT_KINDS; kind++)
        past_make(l->past, &(struct limit_key){.kind = (uint8_t)kind, .every = true});
}

static size_t accounts_size(const struct ledger *l)
{
    return l->room * sizeof *l->accounts;
}

int ledger_open(struct ledger **out, uint32_t keys)
{
    struct ledger *l = calloc(1, sizeof *l);
    *out = l;
    if (!l) return -ENOMEM;
    l->first = l->newest = l->oldest = PAST_NONE;
    l->room = keys + LIMIT_KINDS;
    l->accounts = memory_map(accounts_size(l));
    l->overdue = memory_map(LEDGER_BACKLOG_MAX * sizeof *l->overdue);
    if (l->accounts && l->overdue && past_open(&l->past, l->room) == 0) {
        make_kinds(l);
        return 0;
    }
    ledger_close(l);
    *out = NULL;
    return -ENOMEM;
}

void ledger_close(struct ledger *ledger)
{
    if (!ledger) return;
    past_close(ledger->past);
    if (ledger->accounts) munmap(ledger->accounts, accounts_size(ledger));
    if (ledger->overdue) munmap(ledger->overdue, LEDGER_BACKLOG_MAX * sizeof *ledger->overdue);
    free(ledger);
}

const struct past *ledger_past(const struct ledger *ledger)
{
    return ledger->past;
}

uint32_t ledger_room(const struct ledger *ledger)
{
    return ledger->room;
}

void ledger_set_hooks(struct ledger *ledger, const struct ledger_hooks *hooks)
{
    ledger->hooks = *hooks;
}

/* --- the order of use --- */

static bool is_kind(uint32_t index)
{
    return index < LIMIT_KINDS;
}

static void unlink_account(struct ledger *l, uint32_t index)
{
    struct account *a = &l->accounts[index];
    *(a->newer == PAST_NONE ? &l->newest : &l->accounts[a->newer].older) = a->older;
    *(a->older == PAST_NONE ? &l->oldest : &l->accounts[a->older].newer) = a->newer;
}

static void link_newest(struct ledger *l, uint32_t index)
{
    struct account *a = &l->accounts[index];
    a->newer = PAST_NONE;
    a->older = l->newest;
    *(a->older == PAST_NONE ? &l->oldest : &l->accounts[a->older].newer) = index;
    l->newest = index;
}

static void link_oldest(struct ledger *l, uint32_t index)
{
    struct account *a = &l->accounts[index];
    a->older = PAST_NONE;
    a->newer = l->oldest;
    *(a->newer == PAST_NONE ? &l->newest : &l->accounts[a->newer].older) = index;
    l->oldest = index;
}

static void touch(struct ledger *l, uint32_t index)
{
    if (is_kind(index) || l->newest == index) return;
    unlink_account(l, index);
    link_newest(l, index);
}

/* --- making room --- */

static bool may_leave(const struct ledger *l, uint32_t index, const struct limit_time *time)
{
    const struct account *a = &l->accounts[index];
    struct limit_key key;
    struct limit_sums sums;
    if (!l->hooks.may_leave) return true;
    past_key(l->past, index, &key);
    past_sums(l->past, index, time, &sums);
    return l->hooks.may_leave(l->hooks.context, &key, &sums, a->used, time);
}

static void evict(struct ledger *l, uint32_t index)
{
    unlink_account(l, index);
    past_remove(l->past, index);
    l->accounts[index] = (struct account){.generation = l->accounts[index].generation + 1};
    l->incomplete = true;
    l->evicted++;
    l->evicted_in_hour++;
}

static bool may_evict(struct ledger *l, const struct limit_time *time)
{
    int64_t hour = calendar_find(time->calendar, CALENDAR_HOUR, time->wall_s);
    if (l->hour != hour) l->evicted_in_hour = 0;
    l->hour = hour;
    return l->evicted_in_hour < l->room;
}

/* Who must stay goes to the other end, so that it is not asked again and again. */
static bool make_room(struct ledger *l, const struct limit_time *time)
{
    uint32_t index = l->oldest;
    if (!may_evict(l, time)) return false;
    for (unsigned looks = 0; looks < LEDGER_LOOKS_MAX && index != PAST_NONE; looks++) {
        uint32_t newer = l->accounts[index].newer;
        if (!l->accounts[index].open && may_leave(l, index, time)) {
            evict(l, index);
            return true;
        }
        if (!l->accounts[index].open) touch(l, index);
        index = newer;
    }
    return false;
}

/* PAST_NONE: there is no room. */
static uint32_t make_account(struct ledger *l, const struct limit_key *key, const struct limit_time *time)
{
    struct limit_sums sums;
    if (past_count(l->past) == l->room && !make_room(l, time)) return PAST_NONE;
    uint32_t index = past_make(l->past, key);
    link_newest(l, index);
    if (l->incomplete && l->hooks.recall && l->hooks.recall(l->hooks.context, key, time, &sums))
        past_set(l->past, index, &sums, time);
    return index;
}

/* --- keys --- */

bool ledger_load(struct ledger *ledger, const struct limit_key *key, const struct limit_sums *sums,
                 const struct limit_time *time)
{
    uint32_t index = past_find(ledger->past, key);
    bool known = index != PAST_NONE;
    if (!known) index = past_make(ledger->past, key);
    if (index == PAST_NONE) {
        ledger->incomplete = true;
        return false;
    }
    if (!known) link_oldest(ledger, index);
    past_set(ledger->past, index, sums, time);
    return true;
}

uint32_t ledger_index(struct ledger *ledger, const struct limit_key *key, const struct limit_time *time)
{
    uint32_t index = past_find(ledger->past, key);
    if (index == PAST_NONE) return make_account(ledger, key, time);
    touch(ledger, index);
    return index;
}

uint32_t ledger_generation(const struct ledger *ledger, uint32_t index)
{
    assert(index < ledger->room);
    return ledger->accounts[index].generation;
}

static uint32_t find_account(struct ledger *l, const struct limit_key *key, const struct limit_time *time)
{
    uint32_t index = ledger_index(l, key, time);
    if (index == PAST_NONE || is_kind(index)) l->merged++; /* the kind's: departures.h has done it */
    if (index != PAST_NONE) return index;
    return past_find(l->past, &(struct limit_key){.kind = key->kind, .every = true});
}

/* --- rows --- */

/* A new hour begins for it: the one before waits by itself, if there is room. */
static void close_hour(struct ledger *l, uint32_t index, int64_t hour)
{
    struct account *a = &l->accounts[index];
    if (a->row.hour == hour) return;
    if (a->open && l->overdue_count < LEDGER_BACKLOG_MAX) {
        l->overdue[l->overdue_count++] = (struct overdue){.key = index, .row = a->row};
        a->row = (struct ledger_row){0};
    }
    a->row.hour = hour;
}

static void add(struct ledger_row *row, const struct limit_use *use)
{
    for (unsigned i = 0; i < 2; i++) row->octets[i] += use->octets[i];
    row->connections += use->connections;
    row->refused += use->refused;
}

void ledger_add(struct ledger *ledger, const struct limit_key *key, const struct limit_use *use,
                const struct limit_time *time)
{
    uint32_t index = find_account(ledger, key, time);
    struct account *a = &ledger->accounts[index];
    past_add(ledger->past, index, use->octets, time);
    close_hour(ledger, index, calendar_find(time->calendar, CALENDAR_HOUR, time->wall_s));
    add(&a->row, use);
    a->used = true;
    if (a->open) return;
    a->open = true;
    a->next = ledger->first;
    ledger->first = index;
    ledger->open_count++;
}

static int write_one(const struct ledger *l, uint32_t index, const struct ledger_row *row,
                     int (*write)(void *context, const struct limit_key *key, const struct ledger_row *row),
                     void *context)
{
    struct limit_key key;
    past_key(l->past, index, &key);
    return write(context, &key, row);
}

int ledger_each(const struct ledger *ledger,
                int (*write)(void *context, const struct limit_key *key, const struct ledger_row *row), void *context)
{
    int error = 0;
    for (uint32_t i = 0; i < ledger->overdue_count && error == 0; i++)
        error = write_one(ledger, ledger->overdue[i].key, &ledger->overdue[i].row, write, context);
    for (uint32_t i = ledger->first; i != PAST_NONE && error == 0; i = ledger->accounts[i].next)
        error = write_one(ledger, i, &ledger->accounts[i].row, write, context);
    return error;
}

void ledger_clear(struct ledger *ledger)
{
    while (ledger->first != PAST_NONE) {
        struct account *a = &ledger->accounts[ledger->first];
        ledger->first = a->next;
        a->row = (struct ledger_row){.hour = a->row.hour};
        a->open = false;
    }
    ledger->open_count = ledger->overdue_count = 0;
}

uint32_t ledger_rows(const struct ledger *ledger)
{
    return ledger->open_count + ledger->overdue_count;
}

uint64_t ledger_merged(const struct ledger *ledger)
{
    return ledger->merged;
}

uint64_t ledger_evicted(const struct ledger *ledger)
{
    return ledger->evicted;
}
