/* On which CPUs threads run. */
#ifndef SLUICE_CORE_IO_CPU_H
#define SLUICE_CORE_IO_CPU_H

/* Writes the numbers of the CPUs that this process may use, at most `max`. Returns how many, at least 1. */
int cpu_list_allowed(int *cpus, int max);
int cpu_pin_thread(int cpu); /* the calling thread; 0 or -errno */

#endif
