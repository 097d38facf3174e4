/* Takes connections in: multishot accept, admission limits, and a pause when descriptors run out. */
#ifndef SLUICE_CORE_SESSION_ACCEPT_H
#define SLUICE_CORE_SESSION_ACCEPT_H

#include "core/session/worker.h"

void accept_arm(struct worker *w, unsigned listener);
void accept_on_completion(struct worker *w, const struct ring_completion *c);
/* Listeners whose pause is over accept again. */
void accept_resume(struct worker *w);
/* Milliseconds until accept_resume() has something to do; UINT64_MAX: nothing. */
uint64_t accept_wait_ms(const struct worker *w);
bool accept_is_armed(const struct worker *w); /* behind accept_stop(): a connection may still come in */
void accept_stop(struct worker *w);

#endif
