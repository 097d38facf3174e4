/* GET /usage: what keys have used, by hour, day or month, as JSON or CSV. */
#ifndef SLUICE_API_USAGE_H
#define SLUICE_API_USAGE_H

#include "api/call.h"

/* The thread of accounts answers; the call comes back when it has. */
void usage_list(struct call *call);

#endif
