/* Who stands behind a proxy in front of us: the PROXY header that its connections begin with, on listeners that are
 * told so (--proxy-protocol).
 *
 *   accept > ORIGIN: the header arrives > the session's client is the one that it names > what the protocol begins with
 *
 * Until then nobody knows whose connection it is: it counts for no source, and no list of clients is asked. All that
 * accept judges a client by is made up for when the header is there. Headers that name nobody (LOCAL, UNKNOWN, a Unix
 * socket) leave the proxy itself as the client. */
#ifndef SLUICE_CORE_SESSION_ORIGIN_H
#define SLUICE_CORE_SESSION_ORIGIN_H

#include "core/session/session.h"

enum origin_kind {
    ORIGIN_ITSELF, /* the peer is the client */
    ORIGIN_BEHIND, /* it is a proxy, and has to say who is */
    ORIGIN_NOBODY, /* it is none, and nobody else may come */
};

/* What a connection of that peer is. peer: NONE if it came by a Unix socket. */
enum origin_kind origin_judge(const struct config_proxies *proxies, const struct host_port *peer);
/* Octets of the header have come: s->result. */
enum session_state origin_step(struct worker *w, struct session *s);

#endif
