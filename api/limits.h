/* /limits: what is bounded, by key, and what is used of it. */
#ifndef SLUICE_API_LIMITS_H
#define SLUICE_API_LIMITS_H

#include "api/call.h"

/* The key stands behind the path, written as --limit has it. */
void limits_show(struct call *call);
void limits_put(struct call *call);
void limits_remove(struct call *call);

#endif
