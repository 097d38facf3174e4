/* What stands behind a listener's address, for that listener alone: `0.0.0.0:1080,protocol=socks`. */
#ifndef SLUICE_CORE_PROCESS_LISTENER_OPTIONS_H
#define SLUICE_CORE_PROCESS_LISTENER_OPTIONS_H

#include "core/process/option.h"

/* Reads `name=value,name=value` into the listener, which is one of p->config; the values are kept (kept_text.h). 0, or
 * -1 after option_complain(). */
int listener_options_read(struct option_parse *p, struct listener_config *l, const char *text);

#endif
