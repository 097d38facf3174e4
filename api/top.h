/* GET /top: the users, or the rules, that move most at the moment, each with its limit; those without one, too. */
#ifndef SLUICE_API_TOP_H
#define SLUICE_API_TOP_H

#include "api/call.h"

void top_list(struct call *call);

#endif
