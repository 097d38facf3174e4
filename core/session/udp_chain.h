/* Proxies that datagrams pass on their way to a target: UDP ASSOCIATE through a chain of SOCKS5 proxies.
 *
 *   association ======= control 1: UDP ASSOCIATE =======> proxy 1
 *               ======= control 2 by way of proxy 1: UDP ASSOCIATE =======> proxy 2      one connection for each proxy
 *               ------- datagram: [to relay 2][to the target] payload -----> relay 1 ---[to the target] payload--->
 * relay 2
 *
 * Each proxy keeps its association as long as the connection stands by which it was asked for it (RFC 1928 section 7),
 * so that there is one for each of them, made through those in front of it. Each relay takes one header off, and puts
 * one in front of answers. So nothing goes past a proxy, and no name of a target is looked up here. A control is a
 * session without a client: it dials and speaks as every session does (dial, hop), and then only waits for its end.
 *
 * The chain belongs to an association, which hears of it by session_hook_chain() when all proxies have agreed, and when
 * one has failed. */
#ifndef SLUICE_CORE_SESSION_UDP_CHAIN_H
#define SLUICE_CORE_SESSION_UDP_CHAIN_H

#include "core/session/failure.h"
#include "core/session/session.h"

#define UDP_CHAIN_HEADER_MAX 1200u /* octets in front of a payload: four names as long as they may be */

/* A chain for the association of `s`, by that way; its number, to be given back by udp_chain_close(). POOL_NONE:
 * *failure says why.
 */
uint32_t udp_chain_open(struct worker *w, struct session *s, const struct egress *egress, const struct proxy_uri *hops,
                        uint8_t hop_count, enum failure *failure);
void udp_chain_close(struct worker *w, uint32_t chain);
/* Whether it is one of these proxies, in that order and with the same credentials. */
bool udp_chain_leads(const struct worker *w, uint32_t chain, const struct proxy_uri *hops, uint8_t hop_count);
bool udp_chain_stands(const struct worker *w, uint32_t chain);
/* FAIL_NONE: none of its proxies has failed. */
enum failure udp_chain_failure(const struct worker *w, uint32_t chain);

/* Of a chain that stands: where its datagrams go, and come from. */
const struct address *udp_chain_relay(const struct worker *w, uint32_t chain);
/* The headers in front of a payload for that target. 0: they do not fit. */
size_t udp_chain_write_header(const struct worker *w, uint32_t chain, uint8_t *out, size_t size,
                              const struct address *target);
/* Takes the headers off an answer: who has sent it, and where its payload begins. False: it is none of this chain. */
bool udp_chain_read_header(const struct worker *w, uint32_t chain, const uint8_t *data, size_t size,
                           struct address *source, size_t *used);

/* --- its controls: sessions with PROTOCOL_CHAIN --- */

/* The last proxy of that connection has agreed; `bound` is its relay. ASSOCIATE, or a failure's state. */
enum session_state udp_chain_agree(struct worker *w, struct session *s, const struct address *bound);
void udp_chain_begin(struct worker *w, struct session *s); /* ASSOCIATE has been entered */
void udp_chain_on_completion(struct worker *w, struct session *s);
void udp_chain_on_timer(struct worker *w, struct session *s);
void udp_chain_on_close(struct worker *w, struct session *s);
/* Frees what chains share; for worker_close(). */
void udp_chains_close(struct worker *w);

#endif
