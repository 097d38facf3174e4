/* Records hang in chains, by the keyed hash of their keys. A key that is taken out is unhooked first; then `changes`
 * goes up, and only then its record may get another key. A reader that stands on such a record, or that was led into
 * another chain by it, finds the count changed when it has read all: what it has found is void. */
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
/* A key in words: kind, every, size and name. limit_key_equal() tells keys of each source apart by their bits; here
 * there is one of a kind. */
#define KEY_HEAD  3u
#define KEY_WORDS ((KEY_HEAD + LIMIT_NAME_MAX + 7u) / 8u)

struct packed {
    union {
        uint64_t words[KEY_WORDS];
        uint8_t octets[8 * KEY_WORDS];
    };
    unsigned count; /* of words */
    size_t size;    /* of octets */
};

struct past_record {
    _Atomic uint32_t next; /* of the chain: an index and one; 0: the last */
    uint32_t next_free;    /* the same, of those that were taken out */
    _Atomic uint64_t words[KEY_WORDS];
    _Atomic int64_t begins[CALENDAR_PERIODS];
    _Atomic uint64_t octets[LIMIT_PERIODS][2];
};

struct past {
    uint32_t room, mask;
    uint32_t touched, first_free;
    _Atomic uint32_t count;
    _Atomic uint64_t changes;
    uint64_t seed[2];
    struct past_record *records;
    _Atomic uint32_t *chains; /* an index and one; 0: empty */
};

static size_t records_size(const struct past *p)
{
    return (size_t)p->room * sizeof(struct past_record);
}

static size_t chains_size(const struct past *p)
{
    return ((size_t)p->mask + 1) * sizeof(_Atomic uint32_t);
}

int past_open(struct past **out, uint32_t keys)
{
    struct past *p = calloc(1, sizeof *p);
    *out = p;
    if (!p) return -ENOMEM;
    p->room = keys;
    for (p->mask = 15; p->mask < keys;) p->mask = p->mask * 2 + 1;
    if (getrandom(p->seed, sizeof p->seed, GRND_NONBLOCK) != sizeof p->seed) p->seed[0] = (uint64_t)(uintptr_t)p;
    p->records = memory_map(records_size(p));
    p->chains = memory_map(chains_size(p));
    if (p->records && p->chains) return 0;
    past_close(p);
    *out = NULL;
    return -ENOMEM;
}

void past_close(struct past *past)
{
    if (!past) return;
    if (past->records) munmap(past->records, records_size(past));
    if (past->chains) munmap((void *)past->chains, chains_size(past));
    free(past);
}

uint32_t past_count(const struct past *past)
{
    return atomic_load_explicit(&past->count, memory_order_relaxed);
}

/* --- keys --- */

static void pack(const struct limit_key *key, struct packed *out)
{
    out->size = KEY_HEAD + key->size;
    out->count = (unsigned)(out->size + 7) / 8;
    out->words[out->count - 1] = 0;
    out->octets[0] = key->kind;
    out->octets[1] = key->every;
    out->octets[2] = key->size;
    memcpy(out->octets + KEY_HEAD, key->name, key->size);
}

void past_key(const struct past *past, uint32_t index, struct limit_key *out)
{
    struct packed packed;
    assert(index < past->touched);
    for (unsigned i = 0; i < KEY_WORDS; i++)
        packed.words[i] = atomic_load_explicit(&past->records[index].words[i], memory_order_relaxed);
    const uint8_t *octets = packed.octets;
    *out = (struct limit_key){.kind = octets[0], .every = octets[1] != 0, .size = octets[2]};
    memcpy(out->name, octets + KEY_HEAD, out->size);
    if (out->kind != LIMIT_SOURCE || !out->every) return;
    out->bits[0] = LIMIT_SOURCE_BITS_IPV4; /* whatever tells sources apart: it is `source' */
    out->bits[1] = LIMIT_SOURCE_BITS_IPV6;
}

static bool has_key(const struct past_record *r, const struct packed *key)
{
    for (unsigned i = 0; i < key->count; i++)
        if (atomic_load_explicit(&r->words[i], memory_order_acquire) != key->words[i]) return false;
    return true;
}

static _Atomic uint32_t *chain_of(const struct past *p, const struct packed *key)
{
    return &p->chains[(uint32_t)hash_keyed(p->seed, key->octets, key->size) & p->mask];
}

static uint32_t find(const struct past *p, const struct packed *key)
{
    uint32_t at = atomic_load_explicit(chain_of(p, key), memory_order_acquire);
    while (at != 0 && !has_key(&p->records[at - 1], key))
        at = atomic_load_explicit(&p->records[at - 1].next, memory_order_acquire);
    return at == 0 ? PAST_NONE : at - 1;
}

uint32_t past_find(const struct past *past, const struct limit_key *key)
{
    struct packed packed;
    pack(key, &packed);
    return find(past, &packed);
}

static uint32_t take_record(struct past *p)
{
    uint32_t index = p->first_free;
    if (index == 0) return p->touched < p->room ? p->touched++ : PAST_NONE;
    p->first_free = p->records[index - 1].next_free;
    return index - 1;
}

uint32_t past_make(struct past *past, const struct limit_key *key)
{
    struct packed packed;
    pack(key, &packed);
    uint32_t index = find(past, &packed);
    if (index != PAST_NONE) return index;
    index = take_record(past);
    if (index == PAST_NONE) return PAST_NONE;
    struct past_record *r = &past->records[index];
    _Atomic uint32_t *chain = chain_of(past, &packed);
    for (unsigned i = 0; i < packed.count; i++) atomic_store(&r->words[i], packed.words[i]);
    for (unsigned i = 0; i < CALENDAR_PERIODS; i++) atomic_store(&r->begins[i], PAST_TURNING);
    for (unsigned d = 0; d < 2; d++) atomic_store(&r->octets[LIMIT_EVER][d], 0);
    atomic_store(&r->next, atomic_load(chain));
    atomic_store(chain, index + 1);
    atomic_store(&past->count, past_count(past) + 1);
    return index;
}

void past_remove(struct past *past, uint32_t index)
{
    struct past_record *r = &past->records[index];
    struct limit_key key;
    struct packed packed;
    past_key(past, index, &key);
    pack(&key, &packed);
    _Atomic uint32_t *link = chain_of(past, &packed);
    while (atomic_load(link) != index + 1) {
        assert(atomic_load(link) != 0);
        link = &past->records[atomic_load(link) - 1].next;
    }
    atomic_store(link, atomic_load(&r->next));
    atomic_fetch_add(&past->changes, 1);
    r->next_free = past->first_free;
    past->first_free = index + 1;
    atomic_store(&past->count, past_count(past) - 1);
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
    assert(index < past->touched);
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) {
        if (i < CALENDAR_PERIODS) record_turn(r, i, begin_of(time, i));
        for (unsigned d = 0; d < 2; d++) atomic_fetch_add(&r->octets[i][d], octets[d]);
    }
}

void past_set(struct past *past, uint32_t index, const struct limit_sums *sums, const struct limit_time *time)
{
    struct past_record *r = &past->records[index];
    assert(index < past->touched);
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) {
        if (i < CALENDAR_PERIODS) record_turn(r, i, begin_of(time, i));
        for (unsigned d = 0; d < 2; d++) atomic_store(&r->octets[i][d], sums->octets[i][d]);
    }
}

void past_sums(const struct past *past, uint32_t index, const struct limit_time *time, struct limit_sums *sums)
{
    const struct past_record *r = &past->records[index];
    *sums = (struct limit_sums){0};
    for (unsigned i = 0; i < LIMIT_PERIODS; i++) {
        if (i < CALENDAR_PERIODS && atomic_load(&r->begins[i]) != begin_of(time, i)) continue;
        for (unsigned d = 0; d < 2; d++) sums->octets[i][d] = atomic_load(&r->octets[i][d]);
    }
}

/* It looks again only when the writer has taken a key out meanwhile: so it waits for nobody. */
bool past_read(const struct past *past, const struct limit_key *key, const struct limit_time *time,
               struct limit_sums *sums)
{
    struct packed packed;
    uint64_t changes;
    uint32_t index;
    pack(key, &packed);
    do {
        changes = atomic_load(&past->changes);
        index = find(past, &packed);
        *sums = (struct limit_sums){0};
        if (index != PAST_NONE) past_sums(past, index, time, sums);
    } while (atomic_load(&past->changes) != changes);
    return index != PAST_NONE;
}
