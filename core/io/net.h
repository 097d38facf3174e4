/* Immediate system calls on sockets and pipes: those that the kernel answers at once, where a ring would only add a
 * detour. The neighbour of ring.h; tests/sim_ring.c has a second body for both. All return 0 or a count, or -errno. */
#ifndef SLUICE_CORE_IO_NET_H
#define SLUICE_CORE_IO_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/io/net_address.h"
#include "protocols/host_port.h"

int net_socket(int family, int type); /* non-blocking, close-on-exec; the descriptor or -errno */
int net_bind(int fd, const struct net_address *address);
int net_listen(int fd, int backlog);
int net_local_address(int fd, struct net_address *out);
int net_peer_address(int fd, struct net_address *out); /* also of one that has reset the connection */
/* The address from which this host would talk to `to` by UDP, in the interface `device` unless it is NULL, with that
 * mark unless it is 0; nothing is sent. -ENETUNREACH and the like if there is no route. */
int net_route_source(const struct net_address *to, const char *device, uint32_t mark, struct net_address *out);
/* Begins a connection; its local address is known from then on. 0 or -EINPROGRESS, or -errno; net_take_error() tells
 * when it is writable. -EOPNOTSUPP: only the ring can do that. */
int net_connect(int fd, const struct net_address *to);
/* Whether the attempt succeeded: 0 or -errno. */
int net_take_error(int fd);
int net_type(int fd); /* SOCK_STREAM, SOCK_DGRAM */
bool net_is_ipv6_only(int fd);
/* The address that a client connected to before a firewall of this machine redirected the connection to us (REDIRECT,
 * DNAT). -errno: it was not redirected. */
int net_original_address(int fd, struct net_address *out);
int net_accept(int fd); /* immediate, for BIND and for the refusal of a connection without a free descriptor */
bool net_is_readable(int fd);
/* Whether a receive would have octets; an end or an error is none. TCP: splice() stops at urgent data and says that
 * nothing is there, or that the end is, whatever stands behind it; a receive steps over it. A pending error may be
 * taken. */
bool net_holds_octets(int fd);
int net_open_spare(void); /* a descriptor that only keeps its number taken; or -errno */
/* Makes such a descriptor of an open one: what it referred to is closed, and nobody else gets the number meanwhile. */
void net_make_spare(int fd);
int net_shutdown_write(int fd);
/* A listening socket accepts nothing from here on, whoever else still holds it (an operation in flight does until its
 * cancellation is carried out); what waits to be accepted is reset. The descriptor is still to be closed. */
void net_stop_listening(int fd);
void net_send_octet(int fd, uint8_t octet); /* into an empty socket buffer */
/* The next close sends a reset instead of an orderly end (SO_LINGER with zero seconds); no effect on Unix sockets. */
void net_reset_on_close(int fd);
void net_set_nodelay(int fd);
void net_set_buffers(int fd, int send_size, int receive_size); /* octets; 0: what the kernel chooses */
/* A peer that is gone is noticed within about two minutes of silence, or, while octets for it are under way, when the
 * kernel has sent them net.ipv4.tcp_retries2 times in vain. One that is alive and does not read may take for ever. */
void net_set_keepalive(int fd);
int net_set_device(int fd, const char *name);
int net_set_mark(int fd, uint32_t mark); /* of its packets, for routes and firewalls (SO_MARK) */
/* Binds to a source address with any port. connects  the socket is going to connect: the kernel then looks for a port
 * that is free towards that target alone (IP_BIND_ADDRESS_NO_PORT), so that one address has 28,000 ports for each. An
 * IPv6 address may be one that no interface has (IPV6_FREEBIND): whether it is this machine's is the caller's to ask.
 */
int net_bind_source(int fd, const struct net_address *source, bool connects);
void net_set_fastopen_connect(int fd);
/* Octets that a send would take now, rather fewer than more; UINT32_MAX: unknown. */
uint32_t net_send_room(int fd);
/* Octets of the receive buffer, the kernel's own structures included; 0: unknown. */
uint32_t net_receive_buffer(int fd);
/* Octets that a TCP peer has not acknowledged, the end of the stream counted as one if it is announced; 0 for other
 * sockets, and on a connection that is gone. */
uint32_t net_unacknowledged(int fd);
/* The same of a connection that is gone: octets that never arrived, as far as the kernel knows. 0 while it is there. */
uint32_t net_lost(int fd);
bool net_is_closed(int fd); /* TCP: the connection is gone, whoever ended it */
/* TCP: the orderly end of what the peer sends has arrived. Octets before it may be unread, a reset may have come behind
 * it, and its error may have been told to anybody. True for other sockets, whose receives tell. A pending error may be
 * taken. */
bool net_has_ended(int fd);
/* TCP: the smoothed round trip time in microseconds, and segments that were sent again. False: another socket, or none.
 */
bool net_measure(int fd, uint32_t *rtt_us, uint32_t *retransmissions);
void net_signal(int event_fd); /* counts its eventfd one up */
bool net_was_cut(int fd);      /* TCP: the connection is gone without that end: what is read as one is none */
void net_close(int fd);

/* Of net_peer_address(), what is kept; NONE: a Unix socket, or nobody. */
static inline struct host_port net_peer_host_port(int fd)
{
    struct net_address raw;
    struct address address = {.kind = ADDRESS_NONE};
    if (net_peer_address(fd, &raw) < 0 || !net_address_to(&raw, &address)) return host_port_of(&(struct address){0});
    return host_port_of(&address);
}

/* splice(2) between a non-blocking socket and a pipe. `more`: SPLICE_F_MORE. Octets moved, 0 at the end, -EAGAIN. */
ssize_t net_splice(int from, int to, size_t size, bool more);
/* A non-blocking pipe of about *size octets; *size becomes what the kernel granted. */
int net_pipe(int fds[2], size_t *size);
void net_empty_pipe(int fd); /* throws away what is in it */

#endif
