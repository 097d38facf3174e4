/* The settings as a Lua table that -c reads. */
#ifndef SLUICE_CORE_PROCESS_CONFIG_DUMP_H
#define SLUICE_CORE_PROCESS_CONFIG_DUMP_H

#include "core/session/config.h"

/* Prints the configuration as a Lua table on stdout (contract section 1.4). 0 or -errno. */
int config_dump(const struct config *config);

#endif
