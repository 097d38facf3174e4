/* Each cell has a number that says whose turn it is: that of the place in the line which may write it, and one more
 * when it may be read (Vyukov's bounded queue). A writer takes its place before it writes, so that the reader may find
 * a cell that is not ready: it comes back later. */
#include "core/session/departures.h"

#include <errno.h>
#include <stdlib.h>

struct cell {
    _Atomic uint64_t turn;
    struct limit_key key;
    struct limit_use use;
};

struct rest {
    _Atomic uint64_t octets[2], refused;
    _Atomic int64_t connections;
};

struct departures {
    _Alignas(64) _Atomic uint64_t in;
    _Alignas(64) uint64_t out;
    struct rest rest[LIMIT_KINDS];
    struct cell cells[DEPARTURES_MAX];
};

int departures_open(struct departures **out)
{
    struct departures *d = aligned_alloc(64, (sizeof *d + 63) / 64 * 64);
    *out = d;
    if (!d) return -ENOMEM;
    atomic_init(&d->in, 0);
    d->out = 0;
    for (unsigned i = 0; i < LIMIT_KINDS; i++) {
        for (unsigned j = 0; j < 2; j++) atomic_init(&d->rest[i].octets[j], 0);
        atomic_init(&d->rest[i].refused, 0);
        atomic_init(&d->rest[i].connections, 0);
    }
    for (unsigned i = 0; i < DEPARTURES_MAX; i++) atomic_init(&d->cells[i].turn, i);
    return 0;
}

void departures_close(struct departures *departures)
{
    free(departures);
}

static void add_rest(struct rest *rest, const struct limit_use *use)
{
    for (unsigned i = 0; i < 2; i++) atomic_fetch_add(&rest->octets[i], use->octets[i]);
    atomic_fetch_add(&rest->connections, use->connections);
    atomic_fetch_add(&rest->refused, use->refused);
}

/* The cell whose turn has come; NULL: the queue is full. */
static struct cell *claim_cell(struct departures *d, uint64_t *place)
{
    *place = atomic_load_explicit(&d->in, memory_order_relaxed);
    for (;;) {
        struct cell *cell = &d->cells[*place % DEPARTURES_MAX];
        int64_t ahead = (int64_t)(atomic_load_explicit(&cell->turn, memory_order_acquire) - *place);
        if (ahead < 0) return NULL;
        if (ahead > 0)
            *place = atomic_load_explicit(&d->in, memory_order_relaxed);
        else if (atomic_compare_exchange_weak(&d->in, place, *place + 1))
            return cell;
    }
}

void departures_put(struct departures *departures, const struct limit_key *key, const struct limit_use *use)
{
    uint64_t place;
    struct cell *cell = claim_cell(departures, &place);
    if (!cell) {
        add_rest(&departures->rest[key->kind], use);
        return;
    }
    cell->key = *key;
    cell->use = *use;
    atomic_store_explicit(&cell->turn, place + 1, memory_order_release);
}

bool departures_take(struct departures *departures, struct limit_key *key, struct limit_use *use)
{
    struct cell *cell = &departures->cells[departures->out % DEPARTURES_MAX];
    if (atomic_load_explicit(&cell->turn, memory_order_acquire) != departures->out + 1) return false;
    *key = cell->key;
    *use = cell->use;
    atomic_store_explicit(&cell->turn, departures->out + DEPARTURES_MAX, memory_order_release);
    departures->out++;
    return true;
}

bool departures_take_rest(struct departures *departures, struct limit_key *key, struct limit_use *use)
{
    for (unsigned kind = 0; kind < LIMIT_KINDS; kind++) {
        struct rest *rest = &departures->rest[kind];
        *use =
            (struct limit_use){.octets = {atomic_exchange(&rest->octets[0], 0), atomic_exchange(&rest->octets[1], 0)},
                               .connections = atomic_exchange(&rest->connections, 0),
                               .refused = atomic_exchange(&rest->refused, 0)};
        if (limit_use_is_none(use)) continue;
        *key = (struct limit_key){.kind = (uint8_t)kind, .every = true};
        return true;
    }
    return false;
}
