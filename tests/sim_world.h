/* The world around one worker on the simulated ring: clients, upstreams, proxies of a chain, and the coordinator, all
 * from one seed. */
#ifndef SLUICE_TESTS_SIM_WORLD_H
#define SLUICE_TESTS_SIM_WORLD_H

#include <stddef.h>
#include <stdint.h>

/* Plans a world, runs it until all is over, and judges: octets delivered are octets sent, in order; what ended in an
 * orderly way was complete; replies are well formed; nothing is left of any session; counters agree. Aborts with one
 * line that names the seed if not.
 * script  decisions come from there until it is used up, then from the seed; may be NULL.
 * Returns what chance would say next: two runs that made the same decisions return the same. */
uint64_t sim_world_run(uint64_t seed, const uint8_t *script, size_t script_size);

#endif
