/* SOCKS5 UDP ASSOCIATE (RFC 1928 section 7): datagrams between a client and its targets, as long as the client's TCP
 * connection stands.
 *
 *   client -- header, payload --> UDP_CLIENT >  header off, policy  > UDP_IPV4 or UDP_IPV6 -- payload --> target
 *                                            >  a name: waits for its address, few at a time
 *   client <-- header, payload -- UDP_CLIENT <  header in front     < UDP_IPV4 or UDP_IPV6 <-- payload -- target
 *
 * UDP_CLIENT is bound to the address on which the TCP connection has reached us, so that no target ever talks to the
 * socket that trusts the client. On it, datagrams count only from the client's own IP address; answers go to the port
 * of its last one, so that a NAT may give it another. A client that names its own address and port in the request, and
 * sends from there, must go on sending from there.
 *
 * Targets answer to the other two sockets. An answer is passed on if its sender's address, whatever its port, is one
 * that the client has sent to within UDP_PEER_MS: address-dependent filtering, which RFC 4787 section 5 (REQ-8) has for
 * those who want more than transparency. It keeps strangers away who scan for the port, and lets through the protocols
 * that answer from a second port (TFTP). core/session/udp_peers has the table of these addresses.
 *
 * A datagram lies in one buffer of the worker's UDP group from its receive until its send has completed; the payload is
 * never copied. What cannot be sent is dropped and counted, never waited for: that is what UDP promises. */
#ifndef SLUICE_CORE_SESSION_UDP_H
#define SLUICE_CORE_SESSION_UDP_H

#include "core/io/ring.h"
#include "core/session/session_state.h"

struct session;
struct worker;
struct udp; /* what the associations of a worker share: pool, buffers, sends; made when the first one begins */

/* The request is known, its target stands in the setup slot: ASSOCIATE; HOP if proxies have to agree first; or a
 * failure's state. */
enum session_state udp_begin(struct worker *w, struct session *s);
/* Something has completed on the client's TCP connection: s->op, s->result. */
void udp_on_completion(struct worker *w, struct session *s);
/* A receive of SESSION_UDP_RECV + enum udp_socket, in whatever state the session is by now. */
void udp_on_received(struct worker *w, struct session *s, const struct ring_completion *c);
/* The resolver's answer: s->result. */
void udp_on_answer(struct worker *w, struct session *s);
/* The ruleset's: s->result. */
void udp_on_verdict(struct worker *w, struct session *s);
/* Chain number `chain` of it stands, or has failed. */
void udp_on_chain(struct worker *w, struct session *s, uint32_t chain);
/* HOP is given up; for any session. */
void udp_abandon(struct worker *w, struct session *s);
void udp_on_timer(struct worker *w, struct session *s);
/* WORKER_OP_UDP_SEND; the tag's slot is the buffer. */
void udp_on_sent(struct worker *w, const struct ring_completion *c);
/* Receives that found no buffer go on when enough have come back; cheap when there are none. */
void udp_feed_starved(struct worker *w);
/* Cancels and closes the sockets of an association; for session_close(). */
void udp_drop(struct worker *w, struct session *s);
/* Gives its slot back, when nothing is in flight any more; for any session. */
void udp_release(struct worker *w, struct session *s);
/* Frees what the associations share; for worker_close(). */
void udp_close(struct worker *w);

#endif
