/* The settings in force, which may be replaced while workers run. */
#ifndef SLUICE_CORE_CONTROL_SETTINGS_H
#define SLUICE_CORE_CONTROL_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/session/config.h"

struct coordinator;

/* Lets all workers, and ourselves, obey other settings. Takes over `fresh` (malloc) with one hold of its lists, whose
 * derived sizes and listeners become those of the one in force. 0 or -errno, then nothing has changed and `fresh` is
 * still the caller's. */
int coordinator_configure(struct coordinator *c, struct config *fresh);
/* Reads the files of lists again and lets the workers obey; a fault leaves all as it was. One line in the log says
 * which. 0, also where there are none; or -1, and why[LIST_WHY_SIZE] says what is wrong. */
int coordinator_reload_lists(struct coordinator *c, char *why, size_t size);
const struct config *coordinator_config(const struct coordinator *c);
uint32_t coordinator_drain_ms(const struct coordinator *c);   /* of the settings in force; any thread */
uint32_t coordinator_timeout_ms(const struct coordinator *c); /* any thread */

#endif
