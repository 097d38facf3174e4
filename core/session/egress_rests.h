/* Source addresses that have failed, and are left alone for a while where a pool has others: they have gone, have no
 * port left, or several targets in a row did not answer them. Of one worker; a place for each hash, so that few are
 * known at a time and a newer one takes another's place: what is forgotten is tried again. */
#ifndef SLUICE_CORE_SESSION_EGRESS_RESTS_H
#define SLUICE_CORE_SESSION_EGRESS_RESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocols/host_port.h"

#define EGRESS_REST_MS      30000u
#define EGRESS_REST_PLACES  64u
#define EGRESS_TIMEOUTS_MAX 4u /* different targets in a row, with nobody in between who answers */

struct egress_rest {
    struct host_port source; /* port 0; NONE: free */
    uint64_t until_ms;       /* 0: it does not rest */
    uint64_t target;         /* hash of the last one that did not answer */
    uint32_t timeouts;
};

struct egress_rests {
    struct egress_rest places[EGRESS_REST_PLACES];
};

bool egress_rests(const struct egress_rests *rests, const struct host_port *source, uint64_t now_ms);
/* True: it did not rest before. */
bool egress_rests_begin(struct egress_rests *rests, const struct host_port *source, uint64_t now_ms);
/* A target has not answered it in time. True: it rests from now on. */
bool egress_rests_note_timeout(struct egress_rests *rests, const struct host_port *source,
                               const struct host_port *target, uint64_t now_ms);
/* Somebody has answered it. */
void egress_rests_note_answer(struct egress_rests *rests, const struct host_port *source);

#endif
