/* The time of programs about accounts in memory: a Monday, in UTC, on a clock that stands still. */
#ifndef SLUICE_TESTS_USAGE_TIME_H
#define SLUICE_TESTS_USAGE_TIME_H

#include <stdlib.h>

#include "core/io/calendar.h"
#include "core/session/limit.h"

#define SECOND_US UINT64_C(1000000)
#define NOW_US    (100 * SECOND_US)
#define WALL_S    INT64_C(1795996800) /* 2026-11-30 00:00:00 UTC, a Monday */
#define HOUR_S    3600

static inline struct limit_time at(int64_t wall_s)
{
    static struct calendar calendar;
    calendar_update(&calendar, wall_s);
    return (struct limit_time){.now_us = NOW_US, .calendar = &calendar, .wall_s = wall_s};
}

static inline int setup(void **state)
{
    (void)state;
    setenv("TZ", "UTC0", 1);
    return 0;
}

#endif
