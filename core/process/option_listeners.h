/* Options that open listeners and say what these are for: -l, -f, --http, --tproxy, --api.
 *
 * Order matters for -l, -f and --http alone: -f and a bare --http belong to the -l before them, or to the one that
 * follows when there is none left. What addresses mean is config_check()'s part: here, only their form is judged. */
#ifndef SLUICE_CORE_PROCESS_OPTION_LISTENERS_H
#define SLUICE_CORE_PROCESS_OPTION_LISTENERS_H

#include "core/process/option.h"

option_function option_set_listen, option_set_forward, option_set_http, option_set_api;

/* To be called behind the last word: completes the kinds of listeners. -1 after option_complain() when a -f or --http
 * still waits for its -l. */
int option_finish_listeners(struct option_parse *p);

#endif
