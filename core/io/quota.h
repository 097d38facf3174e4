/* A number of octets for a period, which threads share without a lock and never exceed.
 *
 * Octets are taken before they move, and what did not move is given back. `taken` only grows, but for that; a new
 * period begins by noting how far it has come. Whoever is the first to see the new period does so. */
#ifndef SLUICE_CORE_IO_QUOTA_H
#define SLUICE_CORE_IO_QUOTA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define QUOTA_EVER INT64_C(0) /* the period of what never begins anew */

struct quota {
    _Atomic uint64_t taken;     /* octets, less those given back */
    _Atomic uint64_t base;      /* of `taken`: before this period */
    _Atomic int64_t period;     /* when it began, seconds since 1970 */
    _Atomic uint64_t unsettled; /* of `taken`: they may still come back */
    _Atomic uint64_t given;     /* of `taken`: nobody has taken them here, see quota_restore() and quota_adopt() */
    /* What is used of it elsewhere, and counts as if it were used here: in the period that began then. */
    _Atomic uint64_t elsewhere;
    _Atomic int64_t elsewhere_period;
};

/* What was taken, to be settled when it has moved. */
struct quota_grant {
    uint64_t octets;
    int64_t period;
};

/* Nothing is used. */
void quota_open(struct quota *quota, int64_t period);
/* The same with what was used before: after a restart. */
void quota_restore(struct quota *quota, int64_t period, uint64_t used);
/* It has this period from now on, an hour instead of a day for example, with so much used in it. One thread at a time;
 * others may take meanwhile. */
void quota_adopt(struct quota *quota, int64_t period, uint64_t used);
/* So much is used elsewhere in that period; and so much more was used here, if it is still this period. One thread. */
void quota_set_elsewhere(struct quota *quota, int64_t period, uint64_t octets);
void quota_give(struct quota *quota, int64_t period, uint64_t octets);
/* Takes up to `wanted` octets of `limit` for the period that began at `period`. 0 octets: nothing is left. */
struct quota_grant quota_take(struct quota *quota, uint64_t limit, int64_t period, uint64_t wanted);
/* So many of them have moved. */
void quota_settle(struct quota *quota, const struct quota_grant *grant, uint64_t moved);
/* Octets that have moved, and then got lost before they were delivered: they count no more, if the period is still the
 * one in which that is noticed. */
void quota_refund(struct quota *quota, int64_t period, uint64_t octets);
/* Nothing is left, and nothing that was taken may come back. */
bool quota_is_spent(struct quota *quota, uint64_t limit, int64_t period);
uint64_t quota_taken(const struct quota *quota); /* here, in all periods */
/* In that period, elsewhere too; 0 if it has another one. */
uint64_t quota_used(const struct quota *quota, int64_t period);

#endif
