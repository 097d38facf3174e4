/* Lists of the settings, read from their operands and files. */
#ifndef SLUICE_CORE_CONTROL_LIST_LOAD_H
#define SLUICE_CORE_CONTROL_LIST_LOAD_H

#include <stddef.h>

#include "core/session/lists.h"

#define LIST_WHY_SIZE 1024u

/* What --allow-client, --deny-client, --allow-target and --deny-target of `config` name, its listeners' too: one that
 * the caller holds, NULL if there are none. Reads files, and takes about a second for a million entries. 0, or -1 and
 * in why[size], on one line, what is wrong and where: `--deny-target /etc/bad:7: "entry": what to do`. */
int list_load(const struct config *config, struct lists **lists, char *why, size_t size);

/* --- one member of them --- */

const char *list_name(const struct list_option *option); /* deny-target */
const char *list_path(const struct list_option *option); /* of its file; NULL: the member is the entry itself */

#endif
