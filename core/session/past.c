#include "core/session/past.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "core/io/hash.h"
#include "core/io/memory.h"

/* While sums are put back to nothing for a new period. */
#define PAST_TURNING INT64_MIN

struct past_record {
    struct limit_key key;
    _Atomic int64_t begins[CALENDAR_PERIODS];
    _Atomic uint64_t octets[LIMIT_PERIODS][2];
};

struct past {
    uint32_t room, mask;
    _Atomic uint32_t count;
    uint64_t seed[2];
    struct past_record *records;
    _Atomic uint32_t *places; /* 0: free; else an index and one */
};

static size_t records_size(const struct past *p)
{
    return (size_t)p->room * sizeof(struct past_record);
}

static size_t places_size(const struct past *p)
{
    return ((size_t)p->mask + 1) * sizeof(_Atomic uint32_t);
}

int past_open(struct past **out, uint32_t keys)
{
    struct past *p = calloc(1, sizeof *p);
    *out = p;
    if (!p) return -ENOMEM;
    p->room = keys;
    for (p->mask = 15; p->mask / 2 < keys;) p->mask = p->mask * 2 + 1; /* half of the places are free at least */
    if (getrandom(p->seed, sizeof p->seed, GRND_NONBLOCK) != sizeof p->seed) p->seed[0] = (uint64_t)(uintptr_t)p;
    p->records = memory_map(records_size(p));
    p->places = memory_map(places_size(p));
    if (p->records && p->places) return 0;
    past_close(p);
    *out = NULL;
    return -ENOMEM;
}

void past_close(struct past *past)
{
    if (!past) return;
    if (past->records) munmap(past->records, records_size(past));
    if (past->places) munmap((void *)past->places, places_size(past));
    free(past);
}

/* --- finding --- */

static uint32_t first_place(const struct past *p, const struct limit_key *key)
{
    uint8_t octets[2 + LIMIT_NAME_MAX];
    octets[0] = key->kind;
    octets[1] = key->every;
    memcpy(octets + 2, key->name, key->size);
    return (uint32_t)hash_keyed(p->seed, octets, 2u + key->size) & p->mask;
}

/* limit_key_equal() tells keys of each source apart by their bits; here there is one of a kind. */
static bool is_key(const struct limit_key *a, const struct limit_key *b)
{
    return a->kind == b->kind && a->every == b->every && a->size == b->size && memcmp(a->name, b->name, a->size) == 0;
}

/* The place of the key, or the free one where it belongs. */
static uint32_t find_place(const struct past *p, const struct limit_key *key)
{
    uint32_t place = first_place(p, key), found;
    while ((found = atomic_load_explicit(&p->places[place], memory_order_acquire)) != 0) {
        if (is_key(&p->records[found - 1].key, key)) break;
        place = (place + 1) & p->mask;
    }
    return place;
}

uint32_t past_find(const struct past *past, const struct limit_key *key)
{
    uint32_t found = atomic_load_explicit(&past->places[find_place(past, key)], memory_order_acquire);
    return found == 0 ? PAST_NONE : found - 1;
}

uint32_t past_count(const struct past *past)
{
    return atomic_load_explicit(&past->count, memory_order_relaxed);
}

uint32_t past_make(struct past *past, const struct limit_key *key)
{
    uint32_t place = find_place(past, key), found = atomic_load(&past->places[place]), count = past_count(past);
    if (found != 0) return found - 1;
    if (count == past->room) return PAST_NONE;
    struct past_record *r = &past->records[count];
    r->key = *key;
    for (unsigned i = 0; i < CALENDAR_PERIODS; i++) atomic_store(&r->begins[i], PAST_TURNING);
    atomic_store(&past->count, count + 1);
    atomic_store_explicit(&past->places[place], count + 1, memory_order_release);
    return count;
}

const struct limit_key *past_key(const struct past *past, uint32_t index)
{
    assert(index < past_count(past));
    return &past->records[index].key;
}

/* --- sums --- */

static int64_t begin_of(const struct limit_time *time, unsigned period)
{
    return calendar_find(time->calendar, (enum calendar_period)period, time->wall_s);
}

/* A reader that meets the turn finds another begin than it looks for, and with it nothing. */
static void record_turn(struct past_record *r, unsigned period, int64_t begin)
{
    if (atomic_load_explicit(&r->begins[period], memory_order_relaxed) == begin) return;
    atomic_store(&r->begins[period], PAST_TURNING);
    for (unsigned d = 0; d < 2; d++) atomic_store(&r->octets[period][d], 0);
    atomic_store(&r->begins[period], begin);
}

void past_add(struct past *past, uint32_t index, const uint64_t octets[2], const struct limit_time *time)
{
    struct past_record *r = &past->records[index];
    assert(index < past_count(past));
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) {
        if (i < CALENDAR_PERIODS) record_turn(r, i, begin_of(time, i));
        for (unsigned d = 0; d < 2; d++) atomic_fetch_add(&r->octets[i][d], octets[d]);
    }
}

void past_set(struct past *past, uint32_t index, const struct limit_sums *sums, const struct limit_time *time)
{
    struct past_record *r = &past->records[index];
    assert(index < past_count(past));
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) {
        if (i < CALENDAR_PERIODS) record_turn(r, i, begin_of(time, i));
        for (unsigned d = 0; d < 2; d++) atomic_store(&r->octets[i][d], sums->octets[i][d]);
    }
}

void past_read(const struct past *past, uint32_t index, const struct limit_time *time, struct limit_sums *sums)
{
    const struct past_record *r = &past->records[index];
    *sums = (struct limit_sums){0};
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) {
        if (i < CALENDAR_PERIODS && atomic_load(&r->begins[i]) != begin_of(time, i)) continue;
        for (unsigned d = 0; d < 2; d++) sums->octets[i][d] = atomic_load(&r->octets[i][d]);
    }
}
