/* Which way a client's datagram goes: directly, through a chain, or nowhere.
 *
 *   no ruleset, no -x     directly, a name when its address is known
 *   a ruleset             what it has decided about that target, once for each and association (udp_targets.h); until
 *                         it has answered the datagram waits
 *   -x, or a verdict with proxies   through a chain (udp_chain.h), when all of its proxies have agreed
 *
 * Questions to the resolver and to the ruleset are asked one at a time; what waits is bounded, the rest is dropped. */
#ifndef SLUICE_CORE_SESSION_UDP_FORWARD_H
#define SLUICE_CORE_SESSION_UDP_FORWARD_H

#include "core/session/udp_private.h"

enum udp_fate { UDP_SENT, UDP_DROPPED, UDP_WAITS };

struct udp_datagram {
    uint16_t buffer;
    bool may_wait;
    struct address target; /* as its header has it */
    struct iovec payload;
};

enum udp_fate udp_forward(struct worker *w, struct session *s, const struct udp_datagram *d);
/* Has something come that a datagram of the association waits for? Then each is to be tried again. The resolver's
 * answer is s->result; the ruleset's, too, and its verdict stands in association.route. */
void udp_forward_on_name(struct worker *w, struct session *s);
void udp_forward_on_verdict(struct worker *w, struct session *s);
/* Chain number `chain` of the worker stands (FAIL_NONE), or has failed, and is given up. */
enum failure udp_forward_on_chain(struct worker *w, struct session *s, uint32_t chain);
/* For an association all of whose datagrams go through the chain of -x: opens it. */
enum failure udp_forward_open_chain(struct worker *w, struct session *s);
/* Where an answer has come from: a chain that stands, then the headers are taken off; or a target itself, which must
 * be one that has been asked. False: from somebody else. */
bool udp_forward_source(struct worker *w, struct session *s, struct address *source, struct iovec *payload);
/* Gives up its chains, and what it has asked. */
void udp_forward_drop(struct worker *w, struct session *s);

#endif
