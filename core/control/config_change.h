/* Which settings of a running process may change, and which are fixed at its start. */
#ifndef SLUICE_CORE_CONTROL_CONFIG_CHANGE_H
#define SLUICE_CORE_CONTROL_CONFIG_CHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/session/config.h"

/* Whether a process that runs can obey `fresh` instead of `now`. sessions: the pool that `fresh` would have at a start.
 * False: `why` names the setting and the remedy. */
bool config_can_change(const struct config *now, const struct config *fresh, uint32_t sessions, char *why, size_t size);
/* What was made at the start stays: sockets, threads, pools. What their connections are forwarded to, and what
 * is for one listener alone, is `fresh`'s. */
void config_take_fixed(struct config *fresh, const struct config *now);

#endif
