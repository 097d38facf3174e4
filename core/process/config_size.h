/* The sizes of all pools, each a commented sum. */
#ifndef SLUICE_CORE_PROCESS_CONFIG_SIZE_H
#define SLUICE_CORE_PROCESS_CONFIG_SIZE_H

#include "core/session/config.h"

#define CONFIG_SESSIONS_MAX (1u << 20) /* of a process */

/* Derives the pool sizes from limits (RLIMIT_NOFILE, raised to its hard limit by main before), workers and
 * max_sessions. */
void config_size(struct config *config);
/* The least limit of descriptors with which config_size() finds room for so many sessions, with the same workers,
 * listeners and kinds of traffic. */
uint64_t config_descriptors(const struct config *config, uint32_t sessions);

#endif
