/* The accounts in memory: what keys have used in periods that are not over (past.h), and what is not written yet, by
 * key and hour. Belongs to one thread, but for the past, which workers read.
 *
 * Memory is bounded: there is room for so many keys. When it is full, the one that was used least recently makes room,
 * if it is written and nobody needs what is known of it; when it comes back, that is read from the database again. What
 * keys use for which there is no room is added up by their kind, under its name alone (`source`); so is what comes when
 * as many keys have made room within an hour as there is room for, for each of them is rows of the database, too. Rows
 * of hours that are over wait in a list of LEDGER_BACKLOG_MAX; where writing fails for longer, the rows of a key are
 * added up in the latest hour: sums stay right, hours do not. */
#ifndef SLUICE_CORE_USAGE_LEDGER_H
#define SLUICE_CORE_USAGE_LEDGER_H

#include "core/session/past.h"

#define LEDGER_BACKLOG_MAX 65536u

struct ledger_row {
    int64_t hour;                /* its begin, seconds since 1970 */
    uint64_t octets[2], refused; /* up, down */
    int64_t connections;
};

struct ledger;

int ledger_open(struct ledger **out, uint32_t keys); /* 0 or -ENOMEM */
void ledger_close(struct ledger *ledger);
const struct past *ledger_past(const struct ledger *ledger);
uint32_t ledger_room(const struct ledger *ledger); /* one more than the largest number of a key */

/* What only others know of a key. Where a function is missing, any key may leave, and none is known. */
struct ledger_hooks {
    void *context;
    /* Whether what it has used may leave memory. `used`: it was, since the process began. */
    bool (*may_leave)(void *context, const struct limit_key *key, const struct limit_sums *sums, bool used,
                      const struct limit_time *time);
    /* What it had used when it was in memory for the last time. False: nothing is known of it. */
    bool (*recall)(void *context, const struct limit_key *key, const struct limit_time *time, struct limit_sums *sums);
};
void ledger_set_hooks(struct ledger *ledger, const struct ledger_hooks *hooks); /* a copy is made */

/* Of a key that was known before: what it had used; those that were used last come first. False: there is no room. */
bool ledger_load(struct ledger *ledger, const struct limit_key *key, const struct limit_sums *sums,
                 const struct limit_time *time);
/* The key's number; it is made if it is not known. PAST_NONE: there is no room. */
uint32_t ledger_index(struct ledger *ledger, const struct limit_key *key, const struct limit_time *time);
/* How many keys have had that number before the one that has it now. */
uint32_t ledger_generation(const struct ledger *ledger, uint32_t index);
void ledger_add(struct ledger *ledger, const struct limit_key *key, const struct limit_use *use,
                const struct limit_time *time);
/* Calls `write` for each row that is not written. It may refuse: then that is the answer. */
int ledger_each(const struct ledger *ledger,
                int (*write)(void *context, const struct limit_key *key, const struct ledger_row *row), void *context);
void ledger_clear(struct ledger *ledger);             /* all of them are written */
uint32_t ledger_rows(const struct ledger *ledger);    /* that are not */
uint64_t ledger_merged(const struct ledger *ledger);  /* uses that went to their kind for want of room */
uint64_t ledger_evicted(const struct ledger *ledger); /* keys that have made room for others */

#endif
