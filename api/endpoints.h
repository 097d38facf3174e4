/* Every route of the API, one row each: path, methods, who may, and the function. A path has several rows where its
 * methods differ in more than their function. */
#ifndef SLUICE_API_ENDPOINTS_H
#define SLUICE_API_ENDPOINTS_H

#include "api/call.h"

struct endpoint {
    const char *path;
    unsigned methods;        /* set of enum call_method */
    enum access_scope scope; /* that a token needs; NONE: everybody may */
    bool takes_id;           /* `path/ID`: the rest of the path is the handler's */
    bool needs_length;       /* a body with Content-Length, else 411 */
    const char *parameters;  /* of the query, between blanks: others are refused with 400; NULL: others are ignored */
    bool waits;              /* for a script, as long as that wants: few at a time */
    uint32_t limit_ms;       /* for the coordinator to answer in, else 503; 0: --timeout, else 504 */
    void (*outside)(
        struct call *call); /* on the supervisor's thread, which Lua cannot hold: it may answer; NULL: none */
    void (*handle)(struct call *call); /* on the coordinator's thread, if `outside` has not answered; NULL: it does */
};

/* The row of this path that takes the method; if none does, the first one of this path. NULL: there is no such route.
 * *rest: what follows the path of one that takes an id. */
const struct endpoint *endpoint_find(const char *path, unsigned method, const char **rest);
/* All methods that the endpoint's path takes. */
unsigned endpoint_methods(const struct endpoint *endpoint);
/* The i-th row; NULL behind the last. */
const struct endpoint *endpoint_at(size_t i);

#endif
