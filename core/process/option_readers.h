/* Functions that read the operand of one option each: what its row cannot say in numbers, and what obsolete options do.
 */
#ifndef SLUICE_CORE_PROCESS_OPTION_READERS_H
#define SLUICE_CORE_PROCESS_OPTION_READERS_H

#include "core/process/option.h"

option_function option_set_proxy, option_set_family, option_set_nameserver, option_set_netdev, option_set_blocked;
option_function option_add_upstream;
option_function option_set_udp_advertise;
option_function option_set_socket_buffer, option_set_startups, option_add_limit, option_add_lists, option_set_workers;
option_function option_set_access_log, option_set_access_log_format;
option_function option_set_user, option_add_script;
option_function option_ask_help, option_ask_version, option_ask_hash;

option_function option_warn_obsolete, option_block_ingress, option_block_egress;

#endif
