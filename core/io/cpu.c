#include "core/io/cpu.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stddef.h>

#define CPUS_MAX 4096

int cpu_list_allowed(int *cpus, int max)
{
    assert(max >= 1);
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    int count = 0;

    if (set && sched_getaffinity(0, size, set) == 0)
        for (int cpu = 0; cpu < CPUS_MAX && count < max; cpu++)
            if (CPU_ISSET_S((size_t)cpu, size, set)) cpus[count++] = cpu;
    CPU_FREE(set);
    if (count == 0) cpus[count++] = 0;
    return count;
}

int cpu_pin_thread(int cpu)
{
    assert(cpu >= 0 && cpu < CPUS_MAX);
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX);

    if (!set) return -ENOMEM;
    CPU_ZERO_S(size, set);
    CPU_SET_S((size_t)cpu, size, set);
    int result = sched_setaffinity(0, size, set) < 0 ? -errno : 0; /* 0 is the calling thread */
    CPU_FREE(set);
    return result;
}
