/* Groups of upstreams, as rulesets name them: group:NAME. */
#ifndef SLUICE_LUA_MODULES_UPSTREAMS_H
#define SLUICE_LUA_MODULES_UPSTREAMS_H

#include <stddef.h>

#include "core/control/coordinator.h"

/* Whether the groups that a verdict names are there and may stand where they do; else `why` says what is wrong. */
bool upstreams_judge(const struct coordinator *c, const struct route_verdict *verdict, char *why, size_t size);

#endif
