/* When hours, days, weeks and months begin, in local time. One thread computes it, with the C library's tables of time
 * zones, which take a lock; any thread may ask, without one.
 *
 * A day may have 23 or 25 hours, and its first may be missing: it begins with its first moment that there is. Weeks
 * begin on Monday (ISO 8601). */
#ifndef SLUICE_CORE_IO_CALENDAR_H
#define SLUICE_CORE_IO_CALENDAR_H

#include <stdatomic.h>
#include <stdint.h>

enum calendar_period { CALENDAR_HOUR, CALENDAR_DAY, CALENDAR_WEEK, CALENDAR_MONTH, CALENDAR_PERIODS };

/* Periods that are known: the last one that is over, for whoever has something to book in it, and many ahead, so that a
 * thread that is late by some hours does no harm. */
#define CALENDAR_AHEAD 16u

struct calendar_table {
    _Atomic int64_t begins[CALENDAR_PERIODS][CALENDAR_AHEAD]; /* seconds since 1970, ascending */
};

struct calendar {
    struct calendar_table tables[2];
    _Atomic uint32_t current; /* of them */
};

/* The first moment of the period that `now` lies in, and of the next one; seconds since 1970. The thread that
 * computes. */
int64_t calendar_begin(enum calendar_period period, int64_t now_s);
int64_t calendar_next(enum calendar_period period, int64_t begin_s);

/* Computes what periods there are around `now`. One thread at a time, about once a minute, and when clock or zone have
 * changed. A reader that is in the middle of asking sees the table before or this one. */
void calendar_update(struct calendar *calendar, int64_t now_s);
/* The begin of the period that `now` lies in, as far as is known: the earliest or the last one that is in the table. */
int64_t calendar_find(const struct calendar *calendar, enum calendar_period period, int64_t now_s);

#endif
