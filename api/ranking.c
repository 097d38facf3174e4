#include "api/ranking.h"

#include <assert.h>
#include <stdlib.h>

bool ranking_open(struct ranking *ranking, uint32_t room)
{
    assert(room > 0);
    *ranking = (struct ranking){.all = calloc(room, sizeof(struct ranked)), .room = room};
    return ranking->all != NULL;
}

void ranking_close(struct ranking *ranking)
{
    free(ranking->all);
    *ranking = (struct ranking){0};
}

static double speed_of(const struct ranked *one)
{
    return one->rate.known ? one->rate.per_second[0] + one->rate.per_second[1] : 0;
}

/* Below 0: a stands in front of b. */
static int compare(const void *left, const void *right)
{
    const struct ranked *a = left, *b = right;
    double fast_a = speed_of(a), fast_b = speed_of(b);
    if (fast_a < fast_b || fast_a > fast_b) return fast_a > fast_b ? -1 : 1;
    if (a->connections != b->connections) return a->connections > b->connections ? -1 : 1;
    return a->handle < b->handle ? -1 : a->handle > b->handle;
}

static void swap(struct ranked *a, struct ranked *b)
{
    struct ranked other = *a;
    *a = *b;
    *b = other;
}

static void rise(struct ranking *r, uint32_t at)
{
    for (; at > 0 && compare(&r->all[at], &r->all[(at - 1) / 2]) > 0; at = (at - 1) / 2)
        swap(&r->all[at], &r->all[(at - 1) / 2]);
}

static void sink(struct ranking *r)
{
    for (uint32_t at = 0, child; (child = 2 * at + 1) < r->count; at = child) {
        if (child + 1 < r->count && compare(&r->all[child + 1], &r->all[child]) > 0) child++;
        if (compare(&r->all[child], &r->all[at]) <= 0) return;
        swap(&r->all[child], &r->all[at]);
    }
}

void ranking_offer(struct ranking *ranking, const struct ranked *one)
{
    if (ranking->count < ranking->room) {
        ranking->all[ranking->count] = *one;
        rise(ranking, ranking->count++);
    } else if (compare(one, &ranking->all[0]) < 0) {
        ranking->all[0] = *one;
        sink(ranking);
    }
}

void ranking_sort(struct ranking *ranking)
{
    qsort(ranking->all, ranking->count, sizeof *ranking->all, compare);
}
