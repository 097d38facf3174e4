/* Addresses that replies name in the place of our own, for boxes behind NAT: --udp-advertise, and udp-advertise= of a
 * listener. */
#ifndef SLUICE_CORE_PROCESS_ADVERTISE_OPTION_H
#define SLUICE_CORE_PROCESS_ADVERTISE_OPTION_H

#include "core/process/option.h"

/* Adds one address to what was given before, at most one of each family. 0, or -1 after option_complain(). */
int advertise_option_add(struct option_parse *p, struct advertise *advertise, const char *text, size_t size);

#endif
