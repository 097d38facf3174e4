/* A request on its connection, on the supervisor's thread: from its first line until libmicrohttpd forgets it. call.h
 * has what is asked; a visit decides when and by whom it is answered.
 *
 *   visit_open() > visit_begin(): judged > body > visit_dispatch() > answered, or lent and suspended
 *                                                                    > returned: answered > visit_close()
 *                                                                    > its time is over, or nobody is there: given up
 */
#ifndef SLUICE_API_VISIT_H
#define SLUICE_API_VISIT_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/call.h"
#include "api/lend.h"
#include "api/peers.h"

struct visit {
    struct visits *owner;
    struct MHD_Connection *connection;
    struct call *call;
    struct visit *next, *previous; /* of all */
    struct peer *peer;             /* its connection; NULL: not known */
    uint64_t serial;               /* of the call that is lent */
    uint64_t since_ms, end_ms;     /* suspended: since when, and when it is answered by ourselves */
    bool begun, dispatched, succeeded;
    bool suspended; /* its call is lent */
};

struct visits {
    struct api_parts *parts;
    struct lending lending;
    struct visit *first;
    bool closing;   /* the server stops: new calls are refused */
    bool run_again; /* libmicrohttpd has to run: a call is answered, or there is room again */
};

/* `all` is zero; parts outlive it. */
void visits_open(struct visits *all, struct api_parts *parts);
/* Refuses new calls from here on, and answers those that are lent. */
void visits_end(struct visits *all);

/* The first line of a request has come. NULL: no memory. */
struct visit *visit_open(struct visits *all, struct MHD_Connection *connection);
void visit_close(struct visit *visit);
/* The head is there: url, method and version as libmicrohttpd gives them, borrowed for the call. */
enum MHD_Result visit_begin(struct visit *visit, const char *url, const char *method, const char *version);
/* The body is there, too: answers the call, or lends it and suspends the connection. */
enum MHD_Result visit_dispatch(struct visit *visit);
/* Queues the answer; the call is answered, and has its connection again. */
enum MHD_Result visit_answer(struct visit *visit);

/* Answers those whose time is over. When the next one's time is over; UINT64_MAX: none waits. */
uint64_t visits_expire(struct visits *all, uint64_t now_ms);
/* Gives up those whose client has gone. */
void visits_drop_gone(struct visits *all);

#endif
