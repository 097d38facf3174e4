/* Who moves how much: what workers have counted (core/session/tally.h), added up. */
#ifndef SLUICE_CORE_CONTROL_TALLYING_H
#define SLUICE_CORE_CONTROL_TALLYING_H

#include <stdint.h>

struct coordinator;
struct keys;

struct tally_sum {
    uint64_t octets[2]; /* delivered up and down: a counter that only grows, but tells of one user only while the handle
                           of that place is the same */
    uint64_t connections; /* at the moment */
};

/* The users that are known: `index` is the lower half of a handle. Before coordinator_start(): NULL. */
struct keys *coordinator_tally_users(const struct coordinator *c);
void coordinator_tally_user(const struct coordinator *c, uint32_t index, struct tally_sum *out);
void coordinator_tally_rule(const struct coordinator *c, uint32_t tag, struct tally_sum *out); /* 1 to TALLY_RULES */
/* Requests whose user could not be counted for want of room. */
uint64_t coordinator_tally_missed(const struct coordinator *c);

#endif
