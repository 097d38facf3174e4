/* What the coordinator sends a worker to do (struct errand, route.h): connections for the coordinator itself, lists of
 * sessions, ends of sessions, other settings. */
#ifndef SLUICE_CORE_SESSION_ERRAND_H
#define SLUICE_CORE_SESSION_ERRAND_H

#include "core/session/route.h"

struct worker;

/* Does it and sends it back. */
void errand_perform(struct worker *w, const struct message *message);
/* Sends back one that is done, MESSAGE_DIAL to MESSAGE_CONFIG. They fill a quarter of the queue to the coordinator at
 * most, whose rest is for what may not wait (config_size()); what goes beyond waits on the worker. So a coordinator may
 * lend as many as it likes while it does not read, and any number of relays may end at once. */
void errand_return(struct worker *w, enum message_kind kind, struct errand *errand, int32_t result);
void errand_return_more(struct worker *w); /* in each turn: those that wait and now have room */
static inline bool errand_returns_wait(const struct errand_returns *returns)
{
    return returns->first != NULL;
}
/* For who takes over what a worker that is gone has left; NULL: nothing. */
struct errand *errand_take_return(struct errand_returns *returns);

#endif
