/* Limits of the process: those of the settings, and those that a script or the API puts, takes away or gives to a
 * request. Workers look them up in the table of keys; here it is filled, and workers are told to ask again when a limit
 * that they wait for has changed. */
#ifndef SLUICE_CORE_CONTROL_LIMITING_H
#define SLUICE_CORE_CONTROL_LIMITING_H

#include "core/session/keys.h"

struct coordinator;

/* NULL before coordinator_start(). To be read; the functions below change it. */
struct keys *coordinator_keys(const struct coordinator *c);

/* keys_put(), keys_name() and keys_remove(); sessions that run obey within a turn of their worker. */
enum keys_change coordinator_put_limit(struct coordinator *c, const struct limit_key *key,
                                       const struct limit_terms *terms);
enum keys_change coordinator_name_limit(struct coordinator *c, const struct limit_key *key,
                                        const struct limit_terms *terms, uint64_t *handle);
bool coordinator_remove_limit(struct coordinator *c, const struct limit_key *key);

#endif
