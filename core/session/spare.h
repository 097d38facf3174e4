/* A descriptor for the moment when no other is left: a connection that cannot be accepted would wait in the backlog,
 * and wake its worker again and again. The spare is given up, the connection takes its number, is reset, and the number
 * is the spare's again: dup3(2) does both in one step, so that nobody else gets it in between.
 *
 * Between giving it up and accepting, another thread may have taken the number for something of its own, such as the
 * kernel for another worker's accept. Then a spare is missing: any worker lends its own meanwhile, and whoever accepts
 * next gives one back, of what is free again or in place of the connection, which would have had no descriptor. */
#ifndef SLUICE_CORE_SESSION_SPARE_H
#define SLUICE_CORE_SESSION_SPARE_H

#include "core/session/worker.h"

/* Without a descriptor for it, the spare is missing from the beginning. */
void spare_open(struct worker *w);
void spare_close(struct worker *w);
bool spare_is_missing(void); /* of any worker of the process */
/* Makes up for a missing one. False: there is no descriptor. */
bool spare_refill(struct worker *w);
/* Resets one connection that waits at the listener. False: none does, or nobody has a spare. */
bool spare_refuse(struct worker *w, int listener_fd, struct host_port *client);
/* Resets the connection fd, whose number becomes a spare. */
void spare_make_of(struct worker *w, int fd);

#endif
