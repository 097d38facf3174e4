/* Address space for pools that are sized for the worst case: what was never needed is never resident, and what was
 * needed once can be given back. */
#ifndef SLUICE_CORE_IO_MEMORY_H
#define SLUICE_CORE_IO_MEMORY_H

#include <stddef.h>

/* `size` octets, zero, not accounted for, and without huge pages: where those are `always` (Debian's kernels) the first
 * slot of 4 KiB would bring 2 MiB along. NULL: none to be had. Freed with munmap(). */
void *memory_map(size_t size);
/* Gives the whole pages within back to the system: they are zero from now on. */
void memory_give_back(void *base, size_t size);

#endif
