/* Operands of --allow-client, --deny-client, --allow-target and --deny-target. */
#ifndef SLUICE_CORE_PROCESS_LIST_OPTIONS_H
#define SLUICE_CORE_PROCESS_LIST_OPTIONS_H

#include "core/process/option.h"

/* Adds what stands between commas to config.lists_given; entries are judged, files (@PATH) are not looked at. scope  as
 * in struct list_option. 0, or -1 after option_complain(). */
int list_options_add(struct option_parse *p, enum list_kind kind, unsigned scope, const char *operand);
/* Takes away what was given for that kind in that scope. kind LIST_KINDS: for all kinds. */
void list_options_clear(struct config *config, enum list_kind kind, unsigned scope);

#endif
