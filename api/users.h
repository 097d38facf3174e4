/* /users: who may come by --users. Hashes go in, and never out; what changes holds until the file is read again. */
#ifndef SLUICE_API_USERS_H
#define SLUICE_API_USERS_H

#include "api/call.h"

void users_list_all(struct call *call);
/* The name stands behind the path. */
void users_show(struct call *call);
void users_set(struct call *call);
void users_drop(struct call *call);

#endif
