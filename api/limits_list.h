/* GET /limits: the keys, a page at a time, or the fastest of them. */
#ifndef SLUICE_API_LIMITS_LIST_H
#define SLUICE_API_LIMITS_LIST_H

#include "api/call.h"

void limits_list(struct call *call);

#endif
