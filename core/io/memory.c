#include "core/io/memory.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* NORESERVE: the accounting of overcommit shall not refuse what will hardly ever be used. */
void *memory_map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    (void)madvise(memory, size, MADV_NOHUGEPAGE); /* a kernel without huge pages does not know the word */
    return memory;
}

void memory_give_back(void *base, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)base + page - 1) & ~(page - 1), end = ((uintptr_t)base + size) & ~(page - 1);
    if (first < end) (void)madvise((void *)first, end - first, MADV_DONTNEED);
}
