/* A file of the operator's, as a whole. */
#ifndef SLUICE_CORE_CONTROL_READ_FILE_H
#define SLUICE_CORE_CONTROL_READ_FILE_H

#include <stddef.h>

/* All of a regular file of 256 MiB at most; *memory is to be freed. NULL, or what is wrong with it. */
const char *read_file_whole(const char *path, char **memory, size_t *size);

#endif
