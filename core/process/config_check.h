/* What options can get wrong together, and listener addresses. */
#ifndef SLUICE_CORE_PROCESS_CONFIG_CHECK_H
#define SLUICE_CORE_PROCESS_CONFIG_CHECK_H

#include "core/session/config.h"

/* Checks what options can get wrong together, resolves listener addresses, derives the sizes. 0, or -1 after one log
 * line per fault. */
int config_check(struct config *config);
/* One line of warning if strangers may use the proxy for whatever they like: what is open, and how to close it. */
void config_warn_open(const struct config *config);

#endif
