/* What --help and --version print on stdout. */
#ifndef SLUICE_CORE_PROCESS_OPTION_HELP_H
#define SLUICE_CORE_PROCESS_OPTION_HELP_H

void option_print_help(void);
void option_print_version(void);

#endif
