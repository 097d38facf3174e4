/* The first so many of any number, by how fast they are, while all of them pass by once. */
#ifndef SLUICE_API_RANKING_H
#define SLUICE_API_RANKING_H

#include <stdbool.h>
#include <stdint.h>

#include "api/rates.h"

struct ranked {
    struct rate rate;
    uint64_t connections; /* of two that are as fast the one with more is in front */
    uint64_t handle;      /* the caller's; of two that have as many the smaller one */
};

struct ranking {
    struct ranked *all; /* a heap, the last of them on top; behind ranking_sort() in order */
    uint32_t room, count;
};

bool ranking_open(struct ranking *ranking, uint32_t room); /* false: no memory; room > 0 */
void ranking_close(struct ranking *ranking);
void ranking_offer(struct ranking *ranking, const struct ranked *one);
void ranking_sort(struct ranking *ranking); /* when all have been offered */

#endif
