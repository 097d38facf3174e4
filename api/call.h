/* One request to the API, from its head to its answer.
 *
 *   supervisor:   head > judged: refused at once, or its body is collected > answered at once, or lent (lend.h)
 *   coordinator:                                                              its handler answers, now or later
 *   supervisor:   the answer goes out
 *
 * One thread has a call at a time. What a handler needs of the connection is copied when the call is lent: the
 * connection may end, and be answered otherwise, while the coordinator works. A handler answers with call_reply(); from
 * then on, unless it is still running, the call is gone. */
#ifndef SLUICE_API_CALL_H
#define SLUICE_API_CALL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/access.h"
#include "api/endpoint.h"
#include "api/text.h"
#include "core/io/letter.h"
#include "protocols/address.h"

#define CALL_BODY_MAX    ((size_t)4 << 20)
#define CALL_CHANGE_SIZE 96u

struct MHD_Connection;
struct api_parts;
struct engine_job;
struct lending;
struct visit;

struct call {
    struct letter letter;              /* first: by which it travels */
    struct api_parts *parts;           /* of the API that was called */
    struct visit *visit;               /* the supervisor's note of its connection; NULL: nobody waits for an answer */
    struct MHD_Connection *connection; /* NULL while it is lent: the copies below serve */
    const struct endpoint *endpoint;
    enum call_method method;
    const char *path_rest;             /* behind the endpoint's path, for those that take an id */
    char token_name[ACCESS_NAME_SIZE]; /* of the token that let it in; "": none was needed */
    struct text body;
    size_t body_expected; /* by its Content-Length; 0: none */
    const char *url_end;  /* of its URL, as it was sent; until it is lent */
    bool sound;           /* the escapes of its URL are complete, see fields_url_is_sound() */
    size_t answer_size;   /* of the body of its answer, as it goes out */
    bool persists;        /* the client lets its connection live on */
    bool query_wrong;     /* it names a parameter that the route does not have, or one twice */

    /* Copies. */
    char peer[ADDRESS_TEXT_SIZE];
    char *path_copy;
    struct call_field *fields; /* parameters and fields, in one block */
    size_t field_count;

    bool answered;
    unsigned status;
    const char *type; /* of the answer: static */
    struct text answer;
    bool page;                     /* the dashboard, with a policy of its own */
    char change[CALL_CHANGE_SIZE]; /* what it changes, for the log; "": nothing */

    /* The coordinator's. */
    struct lending *lending;      /* by which it came */
    struct call *next, *previous; /* in the list of calls that the coordinator has */
    uint64_t serial;
    bool handling; /* the handler runs */
    /* Sends the call back once it is answered; NULL: the coordinator does not have it. */
    void (*give_back)(struct call *call);
    struct engine_job *pending;
    _Atomic uint32_t patience_ms; /* how much longer than --timeout it may take */
};

/* Answers; takes over the text. Sends the call back, unless its handler still runs or the supervisor has it. */
void call_reply(struct call *call, unsigned status, const char *type, struct text *text);
void call_reply_text(struct call *call, unsigned status, const char *message); /* text/plain */
void call_reply_json(struct call *call, unsigned status, json_t *all); /* takes over `all`; NULL is a lack of memory */
void call_reply_octets(struct call *call, unsigned status, const char *type, const char *data, size_t size);
const char *call_query(struct call *call, const char *name); /* NULL: absent or without a value */
/* The same where an empty value is a mistake: false if the parameter is there and says nothing. */
bool call_query_given(struct call *call, const char *name, const char **value);
bool call_has_query(struct call *call, const char *name);
bool call_query_flag(struct call *call, const char *name, bool otherwise);
const char *call_header(struct call *call, const char *name);
/* One line before the change: who, what (cut at CALL_CHANGE_SIZE), and the hash of the body. If the answer is a refusal
 * or an error, another one says so. */
void call_log_change(struct call *call, const char *what);

/* Who is at the other end of a connection, as it was at accept(): an address, or a local process. */
void call_peer_text(struct MHD_Connection *connection, char *out, size_t size);
/* Copies what a handler may ask for, and lets go of the connection. False: no memory. */
bool call_copy(struct call *call);
/* NULL: no memory. */
struct call *call_new(struct api_parts *parts, struct visit *visit, struct MHD_Connection *connection);
void call_free(struct call *call);

#define CALL_TEXT "text/plain; charset=utf-8"
#define CALL_JSON "application/json"

#endif
