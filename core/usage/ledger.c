#include "core/usage/ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/io/memory.h"

/* The row of the hour in which a key was used last; it is in the list of those that are not written while it is
 * `open`. */
struct account {
    struct ledger_row row;
    uint32_t next; /* in that list; PAST_NONE: the last */
    bool open;
};

struct overdue {
    uint32_t key;
    struct ledger_row row;
};

struct ledger {
    struct past *past;
    struct account *accounts; /* by index of the past */
    size_t accounts_size;
    uint32_t first; /* of the accounts that are not written */
    uint32_t open_count, overdue_count;
    uint64_t merged;
    struct overdue *overdue;
};

/* Room for the kinds is taken first, so that there is always some for them. */
static void make_kinds(struct ledger *l)
{
    for (unsigned kind = 0; kind < LIMIT_KINDS; kind++)
        past_make(l->past, &(struct limit_key){.kind = (uint8_t)kind, .every = true});
}

int ledger_open(struct ledger **out, uint32_t keys)
{
    struct ledger *l = calloc(1, sizeof *l);
    *out = l;
    if (!l) return -ENOMEM;
    l->first = PAST_NONE;
    l->accounts_size = (size_t)(keys + LIMIT_KINDS) * sizeof *l->accounts;
    l->accounts = memory_map(l->accounts_size);
    l->overdue = memory_map(LEDGER_BACKLOG_MAX * sizeof *l->overdue);
    if (l->accounts && l->overdue && past_open(&l->past, keys + LIMIT_KINDS) == 0) {
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
    if (ledger->accounts) munmap(ledger->accounts, ledger->accounts_size);
    if (ledger->overdue) munmap(ledger->overdue, LEDGER_BACKLOG_MAX * sizeof *ledger->overdue);
    free(ledger);
}

const struct past *ledger_past(const struct ledger *ledger)
{
    return ledger->past;
}

bool ledger_load(struct ledger *ledger, const struct limit_key *key, const struct limit_sums *sums,
                 const struct limit_time *time)
{
    uint32_t index = past_make(ledger->past, key);
    if (index == PAST_NONE) return false;
    past_set(ledger->past, index, sums, time);
    return true;
}

uint32_t ledger_index(struct ledger *ledger, const struct limit_key *key)
{
    return past_make(ledger->past, key);
}

static uint32_t find_account(struct ledger *l, const struct limit_key *key)
{
    uint32_t index = past_make(l->past, key);
    if (index != PAST_NONE) return index;
    l->merged++;
    return past_make(l->past, &(struct limit_key){.kind = key->kind, .every = true});
}

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
    uint32_t index = find_account(ledger, key);
    struct account *a = &ledger->accounts[index];
    past_add(ledger->past, index, use->octets, time);
    close_hour(ledger, index, calendar_find(time->calendar, CALENDAR_HOUR, time->wall_s));
    add(&a->row, use);
    if (a->open) return;
    a->open = true;
    a->next = ledger->first;
    ledger->first = index;
    ledger->open_count++;
}

int ledger_each(const struct ledger *ledger,
                int (*write)(void *context, const struct limit_key *key, const struct ledger_row *row), void *context)
{
    int error = 0;
    for (uint32_t i = 0; i < ledger->overdue_count && error == 0; i++)
        error = write(context, past_key(ledger->past, ledger->overdue[i].key), &ledger->overdue[i].row);
    for (uint32_t i = ledger->first; i != PAST_NONE && error == 0; i = ledger->accounts[i].next)
        error = write(context, past_key(ledger->past, i), &ledger->accounts[i].row);
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
