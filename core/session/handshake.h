/* Steps HELLO to REQUEST and the replies: lends received bytes to protocols/, turns results into states. */
#ifndef SLUICE_CORE_SESSION_HANDSHAKE_H
#define SLUICE_CORE_SESSION_HANDSHAKE_H

#include "core/session/session.h"

/* The first state of a fresh connection on its listener. */
enum session_state handshake_begin(struct worker *w, struct session *s);
enum session_state handshake_hello_step(struct worker *w, struct session *s);
enum session_state handshake_auth_step(struct worker *w, struct session *s);
enum session_state handshake_login_step(struct worker *w, struct session *s);
enum session_state handshake_request_step(struct worker *w, struct session *s);
enum session_state handshake_route_step(struct worker *w, struct session *s);
/* ROUTE: posts the question that is due (setup.asking), if that can be done now. */
void handshake_ask(struct worker *w, struct session *s);
/* Does what the verdict says. */
enum session_state handshake_obey(struct worker *w, struct session *s);
/* The upstream is there: queues the success reply. RELAY or EXCHANGE. */
enum session_state handshake_established(struct worker *w, struct session *s);
/* Appends SOCKS5's "succeeded" with that address to `out`. */
void handshake_append_reply(struct worker *w, struct session *s, const struct address *bound);
/* Appends the protocol's refusal to `out`; false when the protocol has none at this point (close silently). */
bool handshake_write_refusal(struct worker *w, struct session *s, enum failure failure);

#endif
