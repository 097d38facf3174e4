/* The addresses that clients of UDP associations have sent datagrams to: only these may answer.
 *
 * One table for all associations of a worker, found by a keyed hash; each association has its entries on a list of its
 * own, the one used last in front. An association may hold UDP_PEERS_MAX. When it holds so many it gives up the one
 * that it used longest ago; when the table is full, the association with the most entries does: nobody can take from
 * those who have fewer. */
#ifndef SLUICE_CORE_SESSION_UDP_PEERS_H
#define SLUICE_CORE_SESSION_UDP_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocols/address.h"

#define UDP_PEERS_MAX 1024u
/* How long after the client's last datagram a peer may answer. RFC 4787 section 4.3 (REQ-5): at least two minutes, five
 * recommended. */
#define UDP_PEER_MS 300000u

struct udp_peers; /* opaque */

/* count  entries of the table; owners  associations, numbered from 0 on. Only what is used becomes resident. 0 or
 * -ENOMEM. */
int udp_peers_open(struct udp_peers **out, uint32_t count, uint32_t owners);
void udp_peers_close(struct udp_peers *peers);
/* `owner` has sent to that IPv4 or IPv6 address; its port is not looked at. */
void udp_peers_note(struct udp_peers *peers, uint32_t owner, const struct address *address, uint64_t now_ms);
/* Whether `owner` has sent to that address within UDP_PEER_MS. */
bool udp_peers_know(const struct udp_peers *peers, uint32_t owner, const struct address *address, uint64_t now_ms);
/* The association has ended. */
void udp_peers_forget(struct udp_peers *peers, uint32_t owner);
/* How many addresses the association holds. */
uint32_t udp_peers_count(const struct udp_peers *peers, uint32_t owner);

#endif
