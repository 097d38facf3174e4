/* Every route of the API, one row each: path, methods, who may, and the function. */
#ifndef SLUICE_API_ENDPOINTS_H
#define SLUICE_API_ENDPOINTS_H

#include "call.h"

struct endpoint {
    const char *path;
    unsigned methods;        /* set of enum call_method */
    enum access_scope scope; /* that a token needs; NONE: everybody may */
    bool takes_id;           /* `path/ID`: the rest of the path is the handler's */
    bool needs_length;       /* a body with Content-Length, else 411 */
    void (*handle)(struct call *call);
};

/* NULL: there is no such route. *rest: what follows the path of one that takes an id. */
const struct endpoint *endpoint_find(const char *path, const char **rest);
/* The i-th row; NULL behind the last. */
const struct endpoint *endpoint_at(size_t i);

#endif
