/* Connects to the upstream: all addresses of a name in RFC 8305 order, 250 ms apart or as soon as one has failed; the
 * first that answers wins. With a chain it is the first proxy that is dialled, and hop.c takes over. */
#ifndef SLUICE_CORE_SESSION_DIAL_H
#define SLUICE_CORE_SESSION_DIAL_H

#include "core/io/net.h"
#include "core/session/session_state.h"

#define DIAL_ATTEMPTS_MAX 4u   /* connects in flight at the same time */
#define DIAL_STAGGER_MS   250u /* RFC 8305 section 5: the recommended Connection Attempt Delay */

struct dial {
    int fds[DIAL_ATTEMPTS_MAX];                      /* -1: free */
    struct net_address addresses[DIAL_ATTEMPTS_MAX]; /* read by the kernel until it is submitted */
    uint8_t next;                                    /* candidate to be tried next */
    uint8_t live;                                    /* attempts in flight */
    uint8_t order[DIAL_ATTEMPTS_MAX];                /* the candidate of each: the lowest was started first */
    uint8_t polled;                                  /* bits of attempts that were begun by net_connect() */
    uint8_t failure;                                 /* enum failure of the last attempt that failed */
};

struct worker;
struct session;

/* Begins to dial the verdict's target or its chain's first proxy: RESOLVE, DIAL, or a failure's state. */
enum session_state dial_begin(struct worker *w, struct session *s);
enum session_state dial_resolve_step(struct worker *w, struct session *s); /* the coordinator has answered: s->result */
enum session_state dial_step(struct worker *w, struct session *s);    /* an attempt has completed: s->op, s->result */
enum session_state dial_on_time(struct worker *w, struct session *s); /* the stagger has passed */
/* Cancels and closes all attempts. */
void dial_abandon(struct worker *w, struct session *s);

#endif
