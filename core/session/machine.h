/* Which addresses are this machine's: asked of the kernel's routing table each time, so that one that was added a
 * moment ago counts, and one that no interface has but that is routed to here (AnyIP) as well. */
#ifndef SLUICE_CORE_SESSION_MACHINE_H
#define SLUICE_CORE_SESSION_MACHINE_H

#include <stdbool.h>

#include "protocols/address.h"

/* A descriptor for machine_has(), of one thread. -errno where the kernel does not let us ask (a sandbox without
 * AF_NETLINK): machine_has() takes that for an answer, and looks less closely. */
int machine_open(void);
/* Whether a connection to this address (IPv4 or IPv6, its port does not matter) ends on this machine. Some three
 * microseconds; does not wait. `machine`: of machine_open(). */
bool machine_has(int machine, const struct address *address);
void machine_close(int machine);

#endif
