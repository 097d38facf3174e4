/* Operands of --source and --mark, the same of a listener, and what the machine has to say about them. */
#ifndef SLUICE_CORE_PROCESS_EGRESS_OPTIONS_H
#define SLUICE_CORE_PROCESS_EGRESS_OPTIONS_H

#include "core/process/option.h"

option_function option_add_source, option_set_mark;

/* A listener's `source=` and `by=`, `mark=`, `interface=`. 0, or -1 after option_complain(). */
int egress_options_source(struct option_parse *p, struct egress_terms *terms, const char *value);
int egress_options_by(struct option_parse *p, struct egress_terms *terms, const char *value);
int egress_options_mark(struct option_parse *p, struct egress_terms *terms, const char *value);
int egress_options_interface(struct option_parse *p, struct egress_terms *terms, const char *value);

/* config.egress, made of what was given. NULL, or what is wrong: static text. */
const char *egress_options_derive(struct config *config);
/* Warns of addresses that are not this machine's, and of interfaces that are not there: both may come yet. */
void egress_options_warn(const struct config *config);
/* Whether this thread, with the rights that it has now, may do what the settings and listeners ask for. 0, or -1 after
 * one log line. */
int egress_options_check_rights(const struct config *config);
/* Whether somebody is to mark packets: a right that has to outlive -u. */
bool egress_options_mark_packets(const struct config *config);

#endif
