/* What the coordinator sends a worker to do (struct errand, route.h): connections for the coordinator itself, lists of
 * sessions, ends of sessions, other settings. */
#ifndef SLUICE_CORE_ERRAND_H
#define SLUICE_CORE_ERRAND_H

#include "route.h"

struct worker;

/* Does it and sends it back. */
void errand_perform(struct worker *w, const struct message *message);

#endif
