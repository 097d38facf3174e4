#include "core/io/calendar.h"

#include <assert.h>
#include <time.h>

/* Midnight of that date, or what there is first of it: a clock that is put forward at midnight leaves an hour out, and
 * mktime() may answer with the last one of the day before. */
static int64_t first_moment(int year, int month, int day)
{
    struct tm tm = {.tm_year = year, .tm_mon = month, .tm_mday = day, .tm_isdst = -1}, found;
    time_t midnight = mktime(&tm);
    struct tm wanted = {.tm_year = year, .tm_mon = month, .tm_mday = day, .tm_hour = 12, .tm_isdst = -1};
    mktime(&wanted); /* a day beyond the month's last becomes one of the next month */
    localtime_r(&midnight, &found);
    for (unsigned quarters = 0; found.tm_mday != wanted.tm_mday && quarters < 12; quarters++) {
        midnight += 900;
        localtime_r(&midnight, &found);
    }
    /* Put back over midnight, the hour is there twice: the earlier one counts. */
    for (time_t earlier = midnight - 900; midnight - earlier <= 7200; earlier -= 900) {
        localtime_r(&earlier, &found);
        if (found.tm_mday == wanted.tm_mday) midnight = earlier;
    }
    return midnight;
}

int64_t calendar_begin(enum calendar_period period, int64_t now_s)
{
    time_t now = (time_t)now_s;
    struct tm tm;
    localtime_r(&now, &tm);
    switch (period) {
    case CALENDAR_HOUR: return now_s - tm.tm_min * 60 - tm.tm_sec;
    case CALENDAR_DAY: return first_moment(tm.tm_year, tm.tm_mon, tm.tm_mday);
    case CALENDAR_WEEK: return first_moment(tm.tm_year, tm.tm_mon, tm.tm_mday - (tm.tm_wday + 6) % 7);
    case CALENDAR_MONTH: return first_moment(tm.tm_year, tm.tm_mon, 1);
    case CALENDAR_PERIODS: break;
    }
    assert(0 && "no such period");
    return 0;
}

/* Noon of a day that is surely in the next period, or the next hour: that one's begin. */
int64_t calendar_next(enum calendar_period period, int64_t begin_s)
{
    time_t begin = (time_t)begin_s + 43200;
    struct tm tm;
    if (period == CALENDAR_HOUR) return calendar_begin(CALENDAR_HOUR, begin_s + 3600);
    localtime_r(&begin, &tm);
    switch (period) {
    case CALENDAR_DAY: return first_moment(tm.tm_year, tm.tm_mon, tm.tm_mday + 1);
    case CALENDAR_WEEK: return first_moment(tm.tm_year, tm.tm_mon, tm.tm_mday + 7);
    default: return first_moment(tm.tm_year, tm.tm_mon + 1, 1);
    }
}

void calendar_update(struct calendar *calendar, int64_t now_s)
{
    uint32_t next = 1 - atomic_load_explicit(&calendar->current, memory_order_relaxed);
    struct calendar_table *table = &calendar->tables[next];
    for (unsigned period = 0; period < CALENDAR_PERIODS; period++) {
        int64_t begin = calendar_begin((enum calendar_period)period, now_s);
        begin = calendar_begin((enum calendar_period)period, begin - 1);
        for (unsigned i = 0; i < CALENDAR_AHEAD; i++) {
            atomic_store_explicit(&table->begins[period][i], begin, memory_order_relaxed);
            begin = calendar_next((enum calendar_period)period, begin);
        }
    }
    atomic_store_explicit(&calendar->current, next, memory_order_release);
}

int64_t calendar_find(const struct calendar *calendar, enum calendar_period period, int64_t now_s)
{
    uint32_t current = atomic_load_explicit(&calendar->current, memory_order_acquire);
    const struct calendar_table *table = &calendar->tables[current];
    int64_t found = atomic_load_explicit(&table->begins[period][0], memory_order_relaxed);
    for (unsigned i = 1; i < CALENDAR_AHEAD; i++) {
        int64_t begin = atomic_load_explicit(&table->begins[period][i], memory_order_relaxed);
        if (begin > now_s) break;
        found = begin;
    }
    return found;
}
