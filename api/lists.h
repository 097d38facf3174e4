/* /lists: what --allow-client, --deny-client, --allow-target and --deny-target hold, which entry decides, and reading
 * their files again. */
#ifndef SLUICE_API_LISTS_H
#define SLUICE_API_LISTS_H

#include "api/call.h"

void lists_show_all(struct call *call);
/* `clients` or `targets` stands behind the path. */
void lists_ask(struct call *call);
void lists_reload(struct call *call);

#endif
