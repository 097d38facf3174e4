#include "core/usage/collector.h"

#define QUARTER_S 900

void collector_open(struct collector *collector, struct keys *keys, struct ledger *ledger,
                    const struct limit_time *time)
{
    *collector = (struct collector){
        .keys = keys, .ledger = ledger, .hour = calendar_find(time->calendar, CALENDAR_HOUR, time->wall_s)};
}

struct taking {
    struct ledger *ledger;
    struct limit_time time;
};

static void take(void *context, const struct limit_key *key, const struct limit_use *use)
{
    const struct taking *taking = context;
    ledger_add(taking->ledger, key, use, &taking->time);
}

void collector_take(struct collector *collector, const struct limit_time *time, bool all)
{
    struct taking taking = {collector->ledger, *time};
    if (all)
        keys_collect(collector->keys, take, &taking);
    else
        keys_collect_departed(collector->keys, take, &taking);
}

bool collector_end_hour(struct collector *collector, const struct limit_time *time)
{
    int64_t hour = calendar_find(time->calendar, CALENDAR_HOUR, time->wall_s);
    struct limit_time end = *time;
    if (hour == collector->hour) return false;
    if (hour > collector->hour) end.wall_s = hour - 1;
    collector_take(collector, &end, true);
    collector->hour = hour;
    return true;
}

uint64_t collector_wait_us(const struct limit_time *time)
{
    return (uint64_t)(QUARTER_S - time->wall_s % QUARTER_S) * 1000000;
}
