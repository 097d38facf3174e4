/* What keys have used that left the table before it was collected: a bounded queue from any thread to one, without a
 * lock. When it is full, use is added up by kind, so that nothing is lost but whose it was. */
#ifndef SLUICE_CORE_SESSION_DEPARTURES_H
#define SLUICE_CORE_SESSION_DEPARTURES_H

#include <stdbool.h>

#include "core/session/limit.h"

#define DEPARTURES_MAX 8192u /* keys, a power of two */

struct departures;

int departures_open(struct departures **out); /* 0 or -ENOMEM */
void departures_close(struct departures *departures);
/* Any thread. */
void departures_put(struct departures *departures, const struct limit_key *key, const struct limit_use *use);
/* One thread. False: there is none left. */
bool departures_take(struct departures *departures, struct limit_key *key, struct limit_use *use);
/* The same for what was added up: with `every` set in the key. */
bool departures_take_rest(struct departures *departures, struct limit_key *key, struct limit_use *use);

#endif
