/* Steps HELLO, AUTH and REQUEST: lends received octets to protocols/, turns results into states. From there
 * the session goes on in route.h, bind.h or udp.h. */
#ifndef SLUICE_CORE_SESSION_HANDSHAKE_H
#define SLUICE_CORE_SESSION_HANDSHAKE_H

#include "core/session/session.h"

/* The first state of a fresh connection on its listener. */
enum session_state handshake_begin(struct worker *w, struct session *s);
enum session_state handshake_hello_step(struct worker *w, struct session *s);
enum session_state handshake_auth_step(struct worker *w, struct session *s);
enum session_state handshake_verify_step(struct worker *w, struct session *s);
enum session_state handshake_request_step(struct worker *w, struct session *s);

#endif
