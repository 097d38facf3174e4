/* The client side of proxy protocols: speaks to the proxies of a chain, one after the other, on one connection. All but
 * the last one are asked to connect; the last one to do what the client wants.
 *
 *   CONNECT   METHOD [AUTH] REPLY                                                   > established
 *   BIND      METHOD [AUTH] REPLY: where it listens, which the client is told; PEER: who has come  > established
 *   UDP ASSOCIATE  METHOD [AUTH] REPLY: where its relay is                         > udp_chain */
#ifndef SLUICE_CORE_SESSION_HOP_H
#define SLUICE_CORE_SESSION_HOP_H

#include "core/session/session.h"

/* The first proxy of a chain is connected: sends the first request. HOP, or a failure's state. */
enum session_state hop_begin(struct worker *w, struct session *s);
enum session_state hop_step(struct worker *w, struct session *s);

#endif
