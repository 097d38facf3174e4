/* What has been decided about the targets of one UDP association: the ruleset is asked once for each. UDP_TARGETS_MAX
 * are remembered; then the one that was used longest ago makes room, and is asked about again. Pure memory, part of the
 * association. */
#ifndef SLUICE_CORE_SESSION_UDP_TARGETS_H
#define SLUICE_CORE_SESSION_UDP_TARGETS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocols/address.h"
#include "protocols/host_port.h"

#define UDP_TARGETS_MAX 256u
#define UDP_NO_CHAIN    0xffu

struct udp_target {
    struct address asked;
    struct address to;        /* the verdict's target */
    struct host_port sent_to; /* where its datagrams went last, if an address was asked for */
    uint8_t chain;            /* of the association's chains; UDP_NO_CHAIN: direct */
    bool drops;               /* the verdict lets nothing through */
    uint64_t until_ms;        /* how long it holds; UINT64_MAX: as long as the association */
};

struct udp_targets {
    uint32_t count; /* entries from there on were never used */
    bool rewrites;  /* some are sent elsewhere than was asked for */
    uint64_t uses;
    uint64_t used[UDP_TARGETS_MAX];   /* the number of its last use; 0: free */
    uint32_t hashes[UDP_TARGETS_MAX]; /* of `asked` */
    struct udp_target all[UDP_TARGETS_MAX];
};

/* Forgets all; also to begin with. What was remembered is not touched. */
void udp_targets_clear(struct udp_targets *targets);
/* What holds of that target, and is used now; NULL: nothing. Names are the same in whatever case. */
struct udp_target *udp_targets_find(struct udp_targets *targets, const struct address *asked, uint64_t now_ms);
/* A new entry for a target that has none: drops, direct, for ever. */
struct udp_target *udp_targets_put(struct udp_targets *targets, const struct address *asked);
/* The chain is gone. until_ms: its targets drop until then; 0: they are forgotten. */
void udp_targets_lose_chain(struct udp_targets *targets, uint8_t chain, uint64_t until_ms);
/* A datagram for that entry has gone there. Of an address that was asked for answers come in its name, wherever it was
 * sent; of a name they come from the address that has answered. */
void udp_targets_note(struct udp_targets *targets, struct udp_target *target, const struct address *sent_to);
/* The address that a client had asked for whose datagrams went to that one; NULL: that one itself. */
const struct address *udp_targets_asked(const struct udp_targets *targets, const struct address *from);

#endif
