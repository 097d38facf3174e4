/* What the API knows of one route. The table of all routes is in endpoints.c. */
#ifndef SLUICE_API_ENDPOINT_H
#define SLUICE_API_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "api/access.h"

struct call;

enum call_method {
    CALL_GET = 1,
    CALL_HEAD = 2,
    CALL_POST = 4,
    CALL_DELETE = 8,
    CALL_PUT = 16,
    CALL_OTHER = 32,
    CALL_ANY = 63
};

/* Answers a call with call_reply(), at once or later. */
typedef void endpoint_function(struct call *call);

struct endpoint {
    const char *path;
    unsigned methods;        /* set of enum call_method */
    enum access_scope scope; /* that a token needs; NONE: everybody may */
    bool takes_id;           /* `path/ID`: the rest of the path is the handler's */
    bool takes_path;         /* with takes_id: that rest may have slashes in it */
    bool needs_length;       /* a body with Content-Length, else 411 */
    const char *parameters;  /* of the query, between blanks: others are refused with 400; NULL: others are ignored */
    bool waits;              /* for a script, as long as the script wants: few such calls at a time */
    uint32_t limit_ms;       /* for the coordinator to answer in, else 503; 0: --timeout, else 504 */
    endpoint_function *outside; /* on the supervisor's thread, which Lua cannot hold: it may answer; NULL: none */
    endpoint_function *handle;  /* on the coordinator's thread, if `outside` has not answered; NULL: it always does */
};

#endif
