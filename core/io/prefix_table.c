#include "core/io/prefix_table.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#define PREFIX_DEPTH_MAX 130u /* networks within each other: one for each size, and nothing around them */

static int number_compare(struct number a, struct number b)
{
    if (a.high != b.high) return a.high < b.high ? -1 : 1;
    return a.low < b.low ? -1 : a.low > b.low;
}

static bool number_is(struct number a, struct number b)
{
    return a.high == b.high && a.low == b.low;
}

/* A network stands in front of those within it. */
static int prefix_compare(const void *a, const void *b)
{
    const struct prefix *left = a, *right = b;
    int order = number_compare(left->first, right->first);
    if (order != 0) return order;
    if (left->bits != right->bits) return left->bits < right->bits ? -1 : 1;
    return left->tag < right->tag ? -1 : left->tag > right->tag;
}

/* The number behind the network; false: there is none. */
static bool prefix_next(struct number first, unsigned bits, struct number *next)
{
    struct number size = {0, 0};
    if (bits == 0) return false;
    if (bits <= 64)
        size.high = UINT64_C(1) << (64 - bits);
    else
        size.low = UINT64_C(1) << (128 - bits);
    next->low = first.low + size.low;
    next->high = first.high + size.high + (next->low < first.low);
    return next->high > first.high || (next->high == first.high && next->low > first.low);
}

size_t prefix_table_size(size_t networks)
{
    const size_t step = sizeof(struct number) + sizeof(uint32_t);
    return networks > SIZE_MAX / step / 2 - 1 ? SIZE_MAX : (2 * networks + 1) * step; /* each begins and ends once */
}

/* Steps are made from left to right; a later one at the same place takes the place of the one before. */
static void table_step(struct prefix_table *table, struct number at, uint32_t value)
{
    if (table->count > 0 && number_is(table->steps[table->count - 1], at)) table->count--;
    uint32_t before = table->count > 0 ? table->values[table->count - 1] : 0;
    if (before == value) return;
    table->steps[table->count] = at;
    table->values[table->count++] = value;
}

/* Networks that the sweep is within. */
struct sweep {
    struct prefix_table *table;
    unsigned depth;
    struct {
        struct number next; /* behind it */
        bool ends;          /* there is such a number */
        uint32_t value;
    } open[PREFIX_DEPTH_MAX];
};

static uint32_t sweep_value(const struct sweep *s)
{
    return s->depth > 0 ? s->open[s->depth - 1].value : 0;
}

/* Closes what ends at `at` or before it; NULL: all that ends. */
static void sweep_close(struct sweep *s, const struct number *at)
{
    while (s->depth > 0) {
        struct number next = s->open[s->depth - 1].next;
        bool ends = s->open[s->depth - 1].ends;
        if (at && (!ends || number_compare(next, *at) > 0)) return;
        s->depth--;
        if (ends) table_step(s->table, next, sweep_value(s));
    }
}

static void sweep_open(struct sweep *s, const struct prefix *network, uint32_t value)
{
    assert(s->depth < PREFIX_DEPTH_MAX);
    struct number next = {0, 0};
    bool ends = prefix_next(network->first, network->bits, &next);
    s->open[s->depth].next = next;
    s->open[s->depth].ends = ends;
    s->open[s->depth++].value = value;
    table_step(s->table, network->first, value);
}

static bool is_sorted(const struct prefix *networks, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (prefix_compare(&networks[i - 1], &networks[i]) > 0) return false;
    return true;
}

void prefix_table_build(struct prefix_table *table, void *memory, struct prefix *networks, size_t count,
                        prefix_value *value, void *context)
{
    struct sweep sweep = {.table = table};
    *table = (struct prefix_table){.steps = memory};
    table->values = (uint32_t *)(table->steps + 2 * count + 1);
    if (!is_sorted(networks, count)) qsort(networks, count, sizeof *networks, prefix_compare);
    for (size_t i = 0, same; i < count; i += same) {
        const struct prefix *network = &networks[i];
        for (same = 1; i + same < count; same++)
            if (!number_is(network->first, network[same].first) || network->bits != network[same].bits) break;
        sweep_close(&sweep, &network->first);
        sweep_open(&sweep, network, value ? value(context, network, same, sweep_value(&sweep)) : network->tag);
    }
    sweep_close(&sweep, NULL);
}

uint32_t prefix_table_find(const struct prefix_table *table, struct number number)
{
    size_t low = 0, size = table->count; /* the first step above the number is in low...low + size */
    while (size > 0) {
        size_t half = size / 2;
        bool above = number_compare(table->steps[low + half], number) > 0;
        low = above ? low : low + half + 1;
        size = above ? half : size - half - 1;
    }
    return low > 0 ? table->values[low - 1] : 0;
}
