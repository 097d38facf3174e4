/* The command line, and the defaults of its options. */
#ifndef SLUICE_CORE_PROCESS_OPTIONS_H
#define SLUICE_CORE_PROCESS_OPTIONS_H

#include <stddef.h>

#include "core/session/config.h"

enum config_action { CONFIG_RUN, CONFIG_EXIT_SUCCESS, CONFIG_EXIT_FAILURE };

/* The defaults of every option. */
void config_defaults(struct config *config);
/* Parses the command line into config, which holds the defaults. Prints help, version or one line about what is wrong;
 * carries out --dump-config; opens the log as asked for. --check (check_only) is left to main. Strings in config point
 * into argv. */
enum config_action config_parse(struct config *config, int argc, char **argv);
/* The same for words that come from elsewhere (a -c script's fields): argv[0] is not looked at, nothing is checked
 * together. 0, or -1 and `--option: what is wrong` in why[size]. */
int config_read(struct config *config, int argc, char **argv, char *why, size_t size);

#endif
