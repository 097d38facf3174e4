/* The sizes of all pools, each a commented sum. */
#ifndef SLUICE_CORE_PROCESS_CONFIG_SIZE_H
#define SLUICE_CORE_PROCESS_CONFIG_SIZE_H

#include "core/session/config.h"

/* Derives the pool sizes from limits (RLIMIT_NOFILE, raised to its hard limit by main before), workers and
 * max_sessions. */
void config_size(struct config *config);

#endif
