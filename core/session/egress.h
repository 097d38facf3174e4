/* The way that traffic leaves this machine by: source address, mark, interface. The one place for all sockets towards
 * targets, of DIAL, BIND and UDP.
 *
 * egress_way.h has the values.
 *
 *     egress_choose()     what settings, listener and verdict say, and whose address of a pool it is: once a request
 *     egress_prepare()    a socket takes that way, or another address of the pool, or fails
 *
 * Whoever is told a way goes by it or not at all: a socket whose mark, interface or address did not take is never used,
 * and neither is one of a family for which there is no address. */
#ifndef SLUICE_CORE_SESSION_EGRESS_H
#define SLUICE_CORE_SESSION_EGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/session/egress_way.h"
#include "core/session/failure.h"

struct session;
struct worker;

/* For the connection of a session, whose request has got its verdict. verdict  what it says of the way; NULL: nothing.
 */
void egress_choose(struct worker *w, const struct session *s, const struct egress_terms *verdict, struct egress *out);
/* A socket towards `to` that has no address yet: marked, bound to the interface, and to the source of that family with
 * any port, unless `to` is a Unix socket. connects  it is going to connect: then its port is chosen with regard to the
 * target. When the source is not to be had, another of the pool is tried, once. FAIL_NONE; FAIL_EGRESS_FAMILY, there is
 * no source for that family; FAIL_EGRESS: the socket must not be used. */
enum failure egress_prepare(struct worker *w, struct egress *e, int fd, const struct address *to, bool connects);
/* A connection to `to` could not be made, for want of a port or because its source has gone (-EADDRNOTAVAIL). True: the
 * next one has another source. */
bool egress_try_another(struct worker *w, struct egress *e, const struct address *to);

/* A connection to `to` has been made; a target has not answered in time. Source addresses that nobody answers rest for
 * a while, as those that have gone do: egress_choose() leaves them out where the pool has others. */
void egress_note_answer(struct worker *w, const struct egress *e, const struct address *to);
void egress_note_timeout(struct worker *w, const struct egress *e, const struct address *to);

#endif
