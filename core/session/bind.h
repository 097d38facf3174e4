/* SOCKS5 BIND (RFC 1928 sections 4 and 6): the client waits, by way of us, for a connection from a peer.
 *
 *   REQUEST > BIND  [name asked for]  listening, first reply: where the peer is to connect
 *             BIND  a connection: wrong peer > reset, go on waiting; right one > second reply: its address > RELAY
 *
 * While it waits, session.fd[UPSTREAM] is the listening socket; the accepted one takes its place.
 *
 * The first reply carries an address that the peer can reach: the one from which this host would talk to the host asked
 * for. When the client names none (0.0.0.0 or ::) we listen on all addresses of its family, and the reply carries the
 * one on which the client has reached us.
 *
 * The right peer is one with the address asked for (any of them, for a name) that the outbound policy allows. The port
 * asked for is not compared: clients name that of their primary connection, and a server opens the secondary one from
 * another (active FTP: asked for 21, comes from 20 or any). The definition of SOCKS4, on which RFC 1928 builds, has the
 * address alone checked, too. */
#ifndef SLUICE_CORE_SESSION_BIND_H
#define SLUICE_CORE_SESSION_BIND_H

#include <stdbool.h>

#include "core/session/session_state.h"

struct address;
struct session;
struct worker;

/* The verdict is known, and has no chain: BIND, or a failure's state. Behind a chain its last proxy listens (hop.h). */
enum session_state bind_begin(struct worker *w, struct session *s);
/* Something has completed in BIND: s->op, s->result. */
enum session_state bind_step(struct worker *w, struct session *s);
/* The listening socket, if there is one yet, accepts nothing from here on. To be called before a reply that ends the
 * wait. */
void bind_stop_listening(const struct session *s);

#endif
