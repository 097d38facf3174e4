/* What an orchestrator or a load balancer asks, answered without the coordinator, which a script may hold:
 *
 *   /healthy  does the process do its work? Then ruleset.healthy() is asked, which has a second for it
 *   /ready    should it get new connections? Not while it starts, from the first SIGTERM on, or while Lua is stuck */
#ifndef SLUICE_API_HEALTH_H
#define SLUICE_API_HEALTH_H

#include "api/call.h"

#define HEALTH_LIMIT_MS  1000u
#define HEALTH_TEXT_SIZE 160u

/* Whether the coordinator has not come back for a while: then the message says what it does. Any thread. */
bool health_is_stuck(const struct api_parts *parts, char *message, size_t size);
/* On the supervisor's thread. */
void health_live(struct call *call); /* no answer yet: the ruleset is to be asked */
void health_ready(struct call *call);

#endif
