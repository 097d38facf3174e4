/* Every route of the API, one row each: path, methods, who may, and the function. A path has several rows where its
 * methods differ in more than their function. */
#ifndef SLUICE_API_ENDPOINTS_H
#define SLUICE_API_ENDPOINTS_H

#include <stddef.h>

#include "api/endpoint.h"

/* The row of this path that takes the method; if none does, the first one of this path. NULL: there is no such route.
 * *rest: what follows the path of one that takes an id. */
const struct endpoint *endpoint_find(const char *path, unsigned method, const char **rest);
/* All methods that the endpoint's path takes. */
unsigned endpoint_methods(const struct endpoint *endpoint);
/* The i-th row; NULL behind the last. */
const struct endpoint *endpoint_at(size_t i);

#endif
