#include "api/rates.h"

#include <assert.h>
#include <sys/mman.h>

#include "core/io/memory.h"

struct rates_row {
    uint64_t handle, at_us; /* of the last look that counted; at_us 0: none */
    uint64_t octets[2];
    struct rate rate;
};

bool rates_open(struct rates *rates, uint32_t count)
{
    *rates = (struct rates){.count = count, .rows = memory_map(count * sizeof *rates->rows)};
    return rates->rows != NULL;
}

void rates_close(struct rates *rates)
{
    if (rates->rows) munmap(rates->rows, rates->count * sizeof *rates->rows);
    *rates = (struct rates){0};
}

static void begin_anew(struct rates_row *row, uint64_t handle)
{
    row->handle = handle;
    row->rate = (struct rate){.known = false};
}

struct rate rates_look(struct rates *rates, uint32_t index, uint64_t handle, const uint64_t octets[2], uint64_t now_us)
{
    assert(index < rates->count);
    struct rates_row *row = &rates->rows[index];
    uint64_t age = now_us - row->at_us;
    bool same = row->at_us > 0 && row->handle == handle;
    if (same && age < RATES_SPAN_US) return row->rate;
    if (!same || age > RATES_STALE_US) begin_anew(row, handle);
    for (unsigned d = 0; d < 2; d++) {
        if (same && age <= RATES_STALE_US)
            row->rate.per_second[d] = (double)(octets[d] - row->octets[d]) * 1e6 / (double)age;
        row->octets[d] = octets[d];
    }
    row->rate.known = same && age <= RATES_STALE_US;
    row->at_us = now_us;
    return row->rate;
}

/* With time for another pass before the first of its rows is stale. */
bool rates_are_fresh(const struct rates *rates, uint64_t now_us)
{
    return rates->passed_us > 0 && now_us - rates->passed_us <= RATES_STALE_US / 2;
}

void rates_end_pass(struct rates *rates, uint64_t now_us)
{
    rates->passed_us = now_us;
}
