/* Files that travel in the binary: the shipped scripts and the dashboard. build/embedded.c is made by lua/embed.sh. */
#ifndef SLUICE_LUA_ENGINE_EMBEDDED_H
#define SLUICE_LUA_ENGINE_EMBEDDED_H

#include <stddef.h>

struct embedded_file {
    const char *name; /* without folder */
    const char *data; /* terminated by a zero that size does not count */
    size_t size;
};

extern const struct embedded_file embedded_files[]; /* a NULL name ends */

/* NULL if there is none of that name. */
const struct embedded_file *embedded_find(const char *name);

#endif
