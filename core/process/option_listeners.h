/* Options that open listeners and say what these are for: -l, -f, --http, --tproxy, --api, --proxy-protocol,
 * --send-proxy.
 *
 * Order matters: -f and a bare --http belong to the -l before them, or to the one that follows when there is none left;
 * --proxy-protocol and --send-proxy to the listener before them, or to the one that follows when there is none, or when
 * it has one already. What addresses mean is config_check()'s part: here, only their form is judged. */
#ifndef SLUICE_CORE_PROCESS_OPTION_LISTENERS_H
#define SLUICE_CORE_PROCESS_OPTION_LISTENERS_H

#include "core/process/option.h"

option_function option_set_listen, option_set_forward, option_set_http, option_set_api, option_set_proxy_protocol,
    option_set_send_proxy;

/* To be called behind the last word: completes the kinds of listeners. -1 after option_complain() when an option still
 * waits for its -l. */
int option_finish_listeners(struct option_parse *p);

#endif
