/* Limits that a ruleset gives to the request it decides on: sluice.limit(). */
#ifndef SLUICE_LUA_MODULES_GIVEN_LIMITS_H
#define SLUICE_LUA_MODULES_GIVEN_LIMITS_H

#include <lua.h>
#include <stdint.h>

#include "core/control/coordinator.h"
#include "core/session/route_request.h"

/* Those of one request. */
struct given_limits {
    uint64_t handles[KEYS_PER_SESSION];
    uint8_t count;
};

/* The arguments of sluice.limit() stand on the stack. Raises what is wrong with them. */
void given_limits_add(lua_State *L, struct coordinator *c, struct given_limits *given);
/* What the verdict tells the worker: these, and that of the rule with that tag (NULL: none). */
void given_limits_write(struct coordinator *c, const struct given_limits *given, const char *rule,
                        struct route_verdict *verdict);

#endif
