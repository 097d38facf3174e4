/* Circles that can be seen before anything runs: -x and -f that lead to a listener of the same process. What depends on
 * names, rulesets or firewalls is seen when it happens (self.h). */
#ifndef SLUICE_CORE_PROCESS_CIRCLE_H
#define SLUICE_CORE_PROCESS_CIRCLE_H

#include "core/session/config.h"

#define CIRCLE_NONE UINT32_MAX
/* The listener at which a connection to `to` would arrive, or CIRCLE_NONE; names other than localhost are not looked
 * up. After the listeners' addresses have been resolved. */
uint32_t circle_arrives(const struct config *config, const struct address *to);
/* Whether what a forwarding listener takes in comes back to it, by way of itself or of others. */
bool circle_returns(const struct config *config, uint32_t listener);

#endif
