#include "api/listing.h"

#include <assert.h>
#include <stdlib.h>

#include "core/control/coordinator.h"

#define PIECES 8u /* between two looks at the clock */

/* When something of it is to be done next. */
static void set_time(struct listings *l)
{
    if (!link_is_empty(&l->running))
        coordinator_set_deadline_us(l->coordinator, &l->waiter, ring_now_us(coordinator_ring(l->coordinator)));
    else if (!link_is_empty(&l->resting))
        coordinator_set_deadline_us(l->coordinator, &l->waiter,
                                    link_owner(l->resting.next, struct listing, link)->due_us);
}

/* All rest for the same time: the first is due first. */
static void wake_rested(struct listings *l, uint64_t now_us)
{
    while (!link_is_empty(&l->resting) && link_owner(l->resting.next, struct listing, link)->due_us <= now_us)
        link_append(&l->running, link_take_first(&l->resting));
}

/* It is on no list now, and on one behind that, or over. */
static void run(struct listings *l, struct listing *listing)
{
    uint64_t end_us = coordinator_after_us(LISTING_TURN_US);
    enum listing_next next = LISTING_GOES_ON;
    do {
        for (unsigned i = 0; i < PIECES && next == LISTING_GOES_ON; i++) next = listing->step(listing);
    } while (next == LISTING_GOES_ON && coordinator_after_us(0) < end_us);
    if (next == LISTING_IS_DONE) {
        listing->end(listing, true);
        return;
    }
    listing->due_us = coordinator_after_us(RATES_REST_US);
    link_append(next == LISTING_RESTS ? &l->resting : &l->running, &listing->link);
}

static void on_time(struct waiter *waiter)
{
    struct listings *l = (struct listings *)waiter;
    wake_rested(l, coordinator_after_us(0));
    if (!link_is_empty(&l->running)) run(l, link_owner(link_take_first(&l->running), struct listing, link));
    set_time(l);
}

static void on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    (void)waiter, (void)op, (void)completion;
    assert(0 && "it waits for time alone");
}

struct listings *listings_open(struct coordinator *c)
{
    struct listings *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->waiter = (struct waiter){.on_completion = on_completion, .on_time = on_time};
    l->coordinator = c;
    link_init(&l->running);
    link_init(&l->resting);
    if (coordinator_attach(c, &l->waiter)) return l;
    free(l);
    return NULL;
}

static void give_up(struct listing *listing)
{
    struct call *call = listing->call;
    listing->end(listing, false);
    call_reply_text(call, 503, "the server stops");
}

void listings_close(struct listings *listings)
{
    if (!listings) return;
    link_move_all(&listings->resting, &listings->running);
    while (!link_is_empty(&listings->running))
        give_up(link_owner(link_take_first(&listings->running), struct listing, link));
    coordinator_detach(listings->coordinator, &listings->waiter);
    rates_close(&listings->keys);
    rates_close(&listings->users);
    rates_close(&listings->rules);
    free(listings);
}

struct rates *listings_rates(struct rates *rates, uint32_t count)
{
    return rates->rows || rates_open(rates, count) ? rates : NULL;
}

void listings_begin(struct listings *listings, struct listing *listing)
{
    link_append(&listings->running, &listing->link);
    set_time(listings);
}
