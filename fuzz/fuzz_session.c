/* The input makes the simulator's decisions instead of chance: libFuzzer looks for schedules that reach new code, and
 * the oracle of the simulated world judges them. When the input is used up, a seed derived from it goes on. */
#include <stddef.h>
#include <stdint.h>

#include "tests/sim_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t seed = size;
    for (size_t i = 0; i < size; i++) seed = (seed ^ data[i]) * 0x100000001b3u;
    sim_world_run(seed, data, size);
    return 0;
}
