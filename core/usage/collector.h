/* What keys have used, from their counters into the ledger: by the hour of local time in which it is noticed. On the
 * thread of accounts, which looks at the end of each hour, so that hardly anything is noticed late. */
#ifndef SLUICE_CORE_USAGE_COLLECTOR_H
#define SLUICE_CORE_USAGE_COLLECTOR_H

#include "core/session/keys.h"
#include "core/usage/ledger.h"

struct collector {
    struct keys *keys;
    struct ledger *ledger;
    int64_t hour; /* that uses are booked in */
};

void collector_open(struct collector *collector, struct keys *keys, struct ledger *ledger,
                    const struct limit_time *time);
/* An hour has begun since the last call: what was used up to now belongs to the one that has ended, and is collected.
 */
bool collector_end_hour(struct collector *collector, const struct limit_time *time);
/* all: of every key; else of those alone that have left the table, for which there is little room. */
void collector_take(struct collector *collector, const struct limit_time *time, bool all);
/* When to look again: at the end of a quarter of an hour, for zones differ by them, and every hour ends with one. */
uint64_t collector_wait_us(const struct limit_time *time);

#endif
