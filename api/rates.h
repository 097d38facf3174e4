/* How fast counters grow that somebody else keeps: octets per second of each key, user or rule, from two looks at its
 * counter. Nothing is measured while nobody asks, and nothing is paid for it where octets move.
 *
 * A rate is the mean between two looks that are RATES_SPAN_US to RATES_STALE_US apart; it stays until the next such
 * look, so that any number of pages may ask at the same time. */
#ifndef SLUICE_API_RATES_H
#define SLUICE_API_RATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RATES_SPAN_US  UINT64_C(900000)
#define RATES_STALE_US UINT64_C(10000000)
#define RATES_REST_US  UINT64_C(1000000)

struct rate {
    bool known;           /* there was an earlier look */
    double per_second[2]; /* octets up and down */
};

struct rates_row;

struct rates {
    uint32_t count;
    struct rates_row *rows; /* memory is taken as they are looked at */
    uint64_t passed_us;     /* when the last pass over all of them ended; 0: never */
};

/* Room for rows 0 to count - 1. False: no memory. */
bool rates_open(struct rates *rates, uint32_t count);
void rates_close(struct rates *rates);
/* Looks: the counters are `octets` now. handle: whose they are; a row that is another's has no past. */
struct rate rates_look(struct rates *rates, uint32_t index, uint64_t handle, const uint64_t octets[2], uint64_t now_us);

/* Whether all rows have been looked at lately, so that one more pass over them tells their rates. Else it takes two,
 * with a rest of RATES_REST_US between them: for everybody who asks meanwhile, too. */
bool rates_are_fresh(const struct rates *rates, uint64_t now_us);
void rates_end_pass(struct rates *rates, uint64_t now_us); /* the one that told the rates */

#endif
