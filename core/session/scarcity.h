/* What happens when receive buffers run short. Nobody is reset for reading slowly.
 *
 *   starved   a receive found the kernel's group empty; it is armed again when half of the group is back. Or no
 *             buffer was spare for what came before a relay
 *   scarce    slow readers hold three quarters of all buffers: from now on octets are read only where the sink has room
 *             for them, so that buffers come back at once and no further one waits for a sink. Over at one half.
 *
 * Between the moment at which it becomes scarce and the one at which the receives that were armed before are cancelled
 * two waits may lease what the kernel has: less than the last quarter. */
#ifndef SLUICE_CORE_SESSION_SCARCITY_H
#define SLUICE_CORE_SESSION_SCARCITY_H

#include "core/session/session.h"

/* Called once in each turn. */
void scarcity_judge(struct worker *w);

#endif
