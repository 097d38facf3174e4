/* The accounts in memory: what keys have used in periods that are not over (past.h), and what is not written yet, by
 * key and hour. Belongs to one thread, but for the past, which workers read.
 *
 * Memory is bounded: there is room for so many keys; what further ones use is added up by their kind, under its name
 * alone (`source`). Rows of hours that are over wait in a list of LEDGER_BACKLOG_MAX; where writing fails for longer,
 * the rows of a key are added up in the latest hour: sums stay right, hours do not. */
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

/* Of a key that was known before: what it had used. False: there is no room for it. */
bool ledger_load(struct ledger *ledger, const struct limit_key *key, const struct limit_sums *sums,
                 const struct limit_time *time);
/* The key's number, below its maximum and the kinds; it is made if it is not known. PAST_NONE: there is no room. */
uint32_t ledger_index(struct ledger *ledger, const struct limit_key *key);
void ledger_add(struct ledger *ledger, const struct limit_key *key, const struct limit_use *use,
                const struct limit_time *time);
/* Calls `write` for each row that is not written. It may refuse: then that is the answer. */
int ledger_each(const struct ledger *ledger,
                int (*write)(void *context, const struct limit_key *key, const struct ledger_row *row), void *context);
void ledger_clear(struct ledger *ledger);            /* all of them are written */
uint32_t ledger_rows(const struct ledger *ledger);   /* that are not */
uint64_t ledger_merged(const struct ledger *ledger); /* uses that went to their kind for want of room */

#endif
