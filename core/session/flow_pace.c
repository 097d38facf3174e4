#include "core/session/flow_pace.h"

/* Visits for which the size of the receive buffer is believed. */
#define FLOW_PACE_WINDOW_VISITS 32u
/* The share of what has moved one way, and of the receive buffer, that may gather. */
#define FLOW_PACE_RUN_SHARE    8u
#define FLOW_PACE_WINDOW_SHARE 4u

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void flow_pace_begin(struct flow_pace *p, uint32_t gather, uint64_t back, uint64_t now_us)
{
    *p = (struct flow_pace){
        .gather = gather, .visited_us = (uint32_t)now_us, .back = (uint32_t)back, .visits = FLOW_PACE_WINDOW_VISITS};
}

bool flow_pace_window_is_old(const struct flow_pace *p)
{
    return p->visits >= FLOW_PACE_WINDOW_VISITS;
}

void flow_pace_set_window(struct flow_pace *p, uint32_t octets)
{
    p->window = octets;
    p->visits = 0;
}

static void pace_run(struct flow_pace *p, uint64_t moved, uint64_t back)
{
    bool answered = p->back != (uint32_t)back;
    p->back = (uint32_t)back;
    if (answered) p->run = 0;
    p->run = moved > UINT32_MAX - p->run ? UINT32_MAX : p->run + (uint32_t)moved;
}

static uint32_t pace_gather(const struct flow_pace *p)
{
    return least(p->gather, least(p->run / FLOW_PACE_RUN_SHARE, p->window / FLOW_PACE_WINDOW_SHARE));
}

uint32_t flow_pace_visit(struct flow_pace *p, uint64_t moved, uint64_t back, uint64_t now_us)
{
    uint32_t elapsed = (uint32_t)now_us - p->visited_us;
    p->visited_us = (uint32_t)now_us;
    if (p->visits < UINT8_MAX) p->visits++;
    pace_run(p, moved, back);
    uint32_t gather = pace_gather(p), worth = p->gather / FLOW_PACE_LEAST_SHARE;
    if (moved > UINT32_MAX) moved = UINT32_MAX;
    if (moved == 0 || gather < worth) return 0;
    uint64_t rest = (uint64_t)gather * elapsed / moved;
    if (rest > FLOW_PACE_US_MAX) {
        if (moved * FLOW_PACE_US_MAX / elapsed < worth) return 0;
        rest = FLOW_PACE_US_MAX;
    }
    return rest < FLOW_PACE_US_MIN ? 0 : (uint32_t)rest;
}
