/* Upstream connections of plain HTTP that wait for the next request (RFC 9112 section 9.3), of one worker.
 *
 *     IDLE --a request takes it--> the session's          (its poll is cancelled; the slot waits for the completion)
 *     IDLE --its upstream ends or says something, 15 s, too many, a reload, a stop--> closed
 *
 * A connection is found by everything that has decided what it is: the target as it was asked for and as it was
 * dialled, the client's user and password, the rule, the chain with its credentials, the way by which it leaves
 * (egress.h), and the listeners that the client has passed (self.h). Reloads and changed settings begin another era, in
 * which no connection of the one before is kept or found. While it waits nothing is owed to or by its upstream, so that
 * whatever arrives on it ends it.
 *
 * Only requests that may be sent again take one, because a connection may end in the moment in which it is taken.
 *
 * A connection that has begun with a PROXY header (announce.h) is its client's, and never waits here.
 *
 * A connection that has been authenticated itself (NTLM, Negotiate) waits for its own client alone, which may send any
 * request on it, and ends with that client. */
#ifndef SLUICE_CORE_SESSION_CONN_CACHE_H
#define SLUICE_CORE_SESSION_CONN_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/ring.h"

struct session;
struct worker;
struct conn_cache;

#define CONN_CACHE_IDLE_MS 15000u /* below the 60 and 75 s of common servers; those that end sooner are noticed */
/* With 4, three of five requests of 32 busy clients made a connection: many responses end in the same turn. */
#define CONN_CACHE_ORIGIN_MAX 32u /* waiting ones with the same key, but for those that wait for their own client */

/* Room for `count` that wait; 0: nothing is ever kept, and *out is NULL. 0 or -ENOMEM. */
int conn_cache_open(struct conn_cache **out, uint32_t count);
void conn_cache_close(struct conn_cache *cache); /* none waits, nothing is in flight; NULL is fine */

/* For a plain HTTP request whose verdict is there: looks for a connection, which then is the session's upstream, or
 * says false. Notes the era in which the verdict is obeyed. */
bool conn_cache_take(struct worker *w, struct session *s);
/* The session's upstream, on which nothing is in flight, of whose last response nothing is missing and behind which
 * nothing has been received, waits here from now on. False: it is still the session's. */
bool conn_cache_keep(struct worker *w, struct session *s);
/* The client of a connection that waits for it alone has gone. */
void conn_cache_forget_client(struct worker *w, struct session *s);

/* Closes all that wait: descriptors are wanted. False: there were none. */
bool conn_cache_clear(struct worker *w);
/* The settings are others: the same, and what is in use is not kept either. */
void conn_cache_begin_era(struct worker *w);
/* In each turn: a ruleset or resolver settings that are new begin an era; those whose time is over are closed. */
void conn_cache_tend(struct worker *w);
uint64_t
conn_cache_wait_ms(const struct worker *w);       /* until the oldest has waited long enough; UINT64_MAX: none waits */
bool conn_cache_is_quiet(const struct worker *w); /* none waits, nothing is in flight */
void conn_cache_on_completion(struct worker *w, const struct ring_completion *c); /* WORKER_OP_CONN */

#endif
