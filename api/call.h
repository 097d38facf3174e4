/* One request to the API, from its head to its answer.
 *
 *   head > judged: refused at once, or its body is collected > dispatched > answered at once, or suspended > answered
 *
 * A handler answers with call_reply(), now or later; a call that is not answered when its handler returns is suspended
 * until then, at most for the settings' timeout. */
#ifndef SLUICE_API_CALL_H
#define SLUICE_API_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "access.h"
#include "core/coordinator.h"
#include "lua/engine.h"
#include "snapshot.h"
#include "stats.h"
#include "text.h"

#define CALL_BODY_MAX    ((size_t)4 << 20)
#define CALL_CHANGE_SIZE 96u

enum call_method { CALL_GET = 1, CALL_HEAD = 2, CALL_POST = 4, CALL_DELETE = 8 };

struct MHD_Connection;
struct api;
struct endpoint;
struct peer;

struct call {
    struct api *api;
    struct MHD_Connection *connection;
    const struct endpoint *endpoint;
    struct call *next, *previous; /* of all calls of the API */
    enum call_method method;
    const char *path_rest;             /* behind the endpoint's path, for those that take an id */
    char token_name[ACCESS_NAME_SIZE]; /* of the token that let it in; "": none was needed */
    struct text body;
    size_t body_expected; /* by its Content-Length; 0: none */
    struct peer *peer;    /* its connection; NULL: not known */
    const char *url_end;  /* of its URL, as it was sent */
    bool sound;           /* the escapes of its URL */
    bool query_wrong;     /* it names a parameter that the route does not have, or one twice */

    bool begun, dispatched, suspended, answered, succeeded;
    unsigned status;
    const char *type; /* of the answer: static */
    struct text answer;
    bool page;                     /* the dashboard, with a policy of its own */
    char change[CALL_CHANGE_SIZE]; /* what it changes, for the log; "": nothing */

    struct engine_call *pending;
    uint32_t patience_ms; /* how much longer than --timeout it may take */
    struct waiter waiter; /* its time, while suspended */
    bool timed;
};

/* Answers; takes over the text. Resumes the call if it was suspended. */
void call_reply(struct call *call, unsigned status, const char *type, struct text *text);
void call_reply_text(struct call *call, unsigned status, const char *message); /* text/plain */
void call_reply_octets(struct call *call, unsigned status, const char *type, const char *data, size_t size);
const char *call_query(struct call *call, const char *name); /* NULL: absent or without a value */
/* The same where an empty value is a mistake: false if the parameter is there and says nothing. */
bool call_query_given(struct call *call, const char *name, const char **value);
bool call_query_flag(struct call *call, const char *name, bool otherwise);
const char *call_header(struct call *call, const char *name);
/* One line before the change: who, what (cut at CALL_CHANGE_SIZE), and the hash of the body. If the answer is a refusal
 * or an error, another one says so. */
void call_log_change(struct call *call, const char *what);

#define CALL_TEXT "text/plain; charset=utf-8"
#define CALL_JSON "application/json"

/* What handlers need of the API. */
struct api_parts {
    struct coordinator *coordinator;
    struct engine *engine;
    const struct access_tokens *tokens; /* in force; count 0: nobody needs one */
    struct snapshot_api counters;
    struct stats_previous previous;
    double started;
};
struct api_parts *call_parts(struct call *call);

#endif
