/* Datagrams on their way out of an association. A buffer's owner is the send, until udp_send_done(). */
#ifndef SLUICE_CORE_SESSION_UDP_SEND_H
#define SLUICE_CORE_SESSION_UDP_SEND_H

#include "core/session/udp_private.h"

/* Arms the receive of one of its sockets. */
void udp_receive(struct worker *w, struct session *s, enum udp_socket from);

/* Sends the payload to an IPv4 or IPv6 address, if policy, lists and limits let it. allowed: what lists have said of
 * the name that it is an address of. False: the datagram is to be dropped. */
bool udp_send_direct(struct worker *w, struct session *s, uint16_t buffer, const struct address *target,
                     uint8_t allowed, struct iovec payload);
/* The same by way of a chain that stands. */
bool udp_send_through(struct worker *w, struct session *s, uint16_t buffer, uint32_t chain,
                      const struct address *target, struct iovec payload);
/* To the client, with a header that names the source. */
bool udp_send_down(struct worker *w, struct session *s, uint16_t buffer, const struct address *source,
                   struct iovec payload);
/* A send has completed: counted, given back. Its buffer is free. */
void udp_send_done(struct worker *w, struct session *s, const struct udp_send *send, int32_t result);

#endif
