/* Answers that are made piece by piece, because all of them at once would hold the coordinator's thread for too long:
 * lists that pass over any number of keys.
 *
 *   begins > runs: a few pieces a turn, one listing a turn, by turns > answers
 *              `--> rests --'
 *
 * However many of them there are, a turn of the thread is longer by LISTING_TURN_US. */
#ifndef SLUICE_API_LISTING_H
#define SLUICE_API_LISTING_H

#include "api/call.h"
#include "api/rates.h"
#include "core/control/waiters.h"
#include "core/io/list.h"

#define LISTING_TURN_US 500u

enum listing_next {
    LISTING_GOES_ON,
    LISTING_RESTS, /* for RATES_REST_US */
    LISTING_IS_DONE
};

/* First in what its owner makes of it. */
struct listing {
    struct link link;
    struct call *call;
    uint64_t due_us;                                    /* of one that rests */
    enum listing_next (*step)(struct listing *listing); /* does a piece: some microseconds */
    /* Frees it. over: it is done, and answers its call; else the server stops, and the call is not its own any more. */
    void (*end)(struct listing *listing, bool over);
};

struct listings {
    struct waiter waiter; /* first: it is found by it */
    struct coordinator *coordinator;
    struct link running, resting;
    struct rates keys, users, rules; /* see listings_rates() */
};

/* NULL: no memory. The coordinator outlives it. */
struct listings *listings_open(struct coordinator *c);
/* Those that are under way are answered with 503. NULL is fine. */
void listings_close(struct listings *listings);
/* Of one of the three, with room for so many; made when it is asked for first. NULL: no memory. */
struct rates *listings_rates(struct rates *rates, uint32_t count);
/* It begins with the next turn. */
void listings_begin(struct listings *listings, struct listing *listing);

#endif
