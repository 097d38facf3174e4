/* Entries, of which there is a fixed number, and places where they are found: twice as many, in sets of PLACES. A key
 * belongs into one set, by its keyed hash.
 *
 * Who holds an entry may read it. Who takes one that nobody else holds away from LIVE has it alone: to write another
 * key into it.
 *
 *   place  FREE --> TENTATIVE --> LIVE --> FREE
 *                      `--------> KILLED --> FREE
 *
 * Two workers may make the same key at the same time. Each writes its entry, puts it TENTATIVE, and then looks at the
 * whole set: one that is LIVE already is used instead, one that is TENTATIVE is killed, and its owner tries again. As
 * who comes second sees who came first, two never become LIVE. Nobody waits for anybody. */
#include "core/session/keys.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "core/io/hash.h"
#include "core/session/departures.h"

#define PLACES 64u /* of a set; with twice as many places as entries no set fills up before the table does */
/* Entries that are looked at for one that may leave; the hand goes on there the next time. */
#define LOOKS_MAX 1024u
/* Times that a key which is made by others, too, is tried. */
#define TRIES_MAX 64u

/* An entry's word: who holds it, how often it was held (so that a word which is still the same says that nobody has
 * used it meanwhile), LIVE, and the generation above that. */
#define ENTRY_REFS       UINT64_C(0xffffff)
#define ENTRY_USE        (UINT64_C(1) << 24)
#define ENTRY_USES       (UINT64_C(0xfff) << 24)
#define ENTRY_LIVE       (UINT64_C(1) << 36)
#define ENTRY_GENERATION (UINT64_C(1) << 37)

enum phase { PLACE_FREE, PLACE_TENTATIVE, PLACE_LIVE, PLACE_KILLED };

struct entry {
    _Atomic uint64_t word;
    _Atomic uint32_t place; /* KEYS_NONE: it is not to be found */
    _Atomic bool recent;    /* used since the hand has passed */
    _Atomic bool put;       /* by keys_put(), which holds it */
    bool stranger;
    struct limit_key key;
    _Alignas(64) struct limit limit;
};

/* The limit of each key of a kind, which all of them obey that have none of their own. */
struct kind {
    _Atomic bool each;     /* there is one; else `rules` bound nothing */
    _Atomic uint32_t keys; /* that were put */
    _Atomic uint16_t bits; /* SOURCE: of IPv4, of IPv6 << 8 */
    struct limit_rules rules;
};

struct keys {
    uint32_t count, sets;
    uint64_t seed[2];
    struct entry *entries;
    _Atomic uint64_t *places;
    size_t entries_size, places_size;
    _Atomic uint32_t touched, hand, strangers;
    _Atomic bool early; /* a limit bounds what sources do before their requests, or has done so */
    struct kind kinds[LIMIT_NAMED];
    struct calendar calendar;
    _Atomic int64_t wall_us;           /* what the wall clock is ahead of the rings' clock */
    _Atomic(const struct past *) past; /* NULL: nobody keeps accounts */
    struct departures *departures;     /* likewise */
};

/* --- opening --- */

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void kind_init(struct kind *kind)
{
    struct limit_terms none;
    limit_terms_init(&none);
    limit_rules_set(&kind->rules, &none);
    atomic_init(&kind->bits, LIMIT_SOURCE_BITS_IPV4 | LIMIT_SOURCE_BITS_IPV6 << 8);
}

int keys_open(struct keys **out, uint32_t keys, uint64_t now_us, int64_t wall_s)
{
    struct keys *l = calloc(1, sizeof *l);
    *out = l;
    if (!l) return -ENOMEM;
    l->count = keys;
    l->sets = keys * 2 / PLACES + 1;
    if (getrandom(l->seed, sizeof l->seed, GRND_NONBLOCK) != sizeof l->seed) l->seed[0] = (uint64_t)(uintptr_t)l;
    l->entries_size = keys * sizeof(struct entry);
    l->places_size = (size_t)l->sets * PLACES * sizeof *l->places;
    l->entries = map(l->entries_size);
    l->places = map(l->places_size);
    for (unsigned kind = 0; kind < LIMIT_NAMED; kind++) kind_init(&l->kinds[kind]);
    keys_update_clock(l, now_us, wall_s);
    if (l->entries && l->places) return 0;
    keys_close(l);
    *out = NULL;
    return -ENOMEM;
}

void keys_close(struct keys *keys)
{
    if (!keys) return;
    if (keys->entries) munmap(keys->entries, keys->entries_size);
    if (keys->places) munmap((void *)keys->places, keys->places_size);
    departures_close(keys->departures);
    free(keys);
}

/* --- time --- */

void keys_update_clock(struct keys *keys, uint64_t now_us, int64_t wall_s)
{
    calendar_update(&keys->calendar, wall_s);
    atomic_store_explicit(&keys->wall_us, wall_s * 1000000 - (int64_t)now_us, memory_order_relaxed);
}

struct limit_time keys_time(const struct keys *keys, uint64_t now_us)
{
    int64_t wall_us = atomic_load_explicit(&keys->wall_us, memory_order_relaxed) + (int64_t)now_us;
    return (struct limit_time){.now_us = now_us, .calendar = &keys->calendar, .wall_s = wall_us / 1000000};
}

/* --- holding --- */

static struct entry *entry_at(const struct keys *l, uint32_t index)
{
    assert(index < l->count);
    return &l->entries[index];
}

/* One more holds it: its word from then on. 0: it is somebody's alone. */
static uint64_t entry_hold(struct entry *e)
{
    uint64_t word = atomic_load(&e->word), held;
    do {
        if (!(word & ENTRY_LIVE)) return 0;
        held = ((word & ~ENTRY_USES) | ((word + ENTRY_USE) & ENTRY_USES)) + 1;
    } while (!atomic_compare_exchange_weak(&e->word, &word, held));
    return held;
}

void keys_release(struct keys *keys, uint32_t held)
{
    uint64_t before = atomic_fetch_sub(&entry_at(keys, held)->word, 1);
    assert((before & ENTRY_REFS) > 0);
    (void)before;
}

uint64_t keys_handle(const struct keys *keys, uint32_t held)
{
    return atomic_load(&entry_at(keys, held)->word) / ENTRY_GENERATION << 32 | held;
}

bool keys_hold_again(struct keys *keys, uint64_t handle, uint32_t *out)
{
    uint32_t index = (uint32_t)handle;
    if (entry_hold(entry_at(keys, index)) == 0) return false;
    *out = index;
    if (keys_handle(keys, index) == handle) return true;
    keys_release(keys, index);
    return false;
}

struct limit *keys_at(struct keys *keys, uint32_t held)
{
    return &entry_at(keys, held)->limit;
}

const struct limit_key *keys_key(const struct keys *keys, uint32_t held)
{
    return &entry_at(keys, held)->key;
}

/* --- places --- */

static uint64_t place_word(enum phase phase, uint64_t hash, uint32_t index)
{
    return (hash & UINT64_C(0xffffffff00000000)) | (uint64_t)index << 2 | phase;
}

static enum phase place_phase(uint64_t word)
{
    return (enum phase)(word & 3);
}

static uint32_t place_index(uint64_t word)
{
    return (uint32_t)word >> 2;
}

static uint64_t hash_of(const struct keys *l, const struct limit_key *key)
{
    uint8_t octets[1 + LIMIT_NAME_MAX];
    octets[0] = key->kind;
    memcpy(octets + 1, key->name, key->size);
    return hash_keyed(l->seed, octets, 1u + key->size);
}

static _Atomic uint64_t *set_of(const struct keys *l, uint64_t hash)
{
    return l->places + (size_t)((hash & 0xffffffffu) * l->sets >> 32) * PLACES;
}

static bool same_tag(uint64_t word, uint64_t hash)
{
    return ((word ^ hash) >> 32) == 0 && word != 0;
}

/* Holds the entry of that word if it has the key. */
static bool place_hold(struct keys *l, uint64_t word, const struct limit_key *key)
{
    uint32_t index = place_index(word);
    struct entry *e = entry_at(l, index);
    if (entry_hold(e) == 0) return false;
    if (limit_key_equal(&e->key, key)) return true;
    keys_release(l, index);
    return false;
}

static uint32_t set_find(struct keys *l, uint64_t hash, const struct limit_key *key)
{
    _Atomic uint64_t *set = set_of(l, hash);
    for (unsigned i = 0; i < PLACES; i++) {
        uint64_t word = atomic_load(&set[i]);
        if (same_tag(word, hash) && place_phase(word) == PLACE_LIVE && place_hold(l, word, key))
            return place_index(word);
    }
    return KEYS_NONE;
}

/* --- taking an entry --- */

/* Takes it if nobody holds it, or has used it since we have looked. */
static bool entry_claim(struct keys *l, uint32_t index, bool stranger_only, uint64_t now_us)
{
    struct entry *e = entry_at(l, index);
    struct limit_time time = keys_time(l, now_us);
    if (!(atomic_load(&e->word) & ENTRY_LIVE) || atomic_load(&e->word) & ENTRY_REFS) return false;
    uint64_t held = entry_hold(e);
    if (held == 0) return false;
    bool may = (!stranger_only || e->stranger) && !limit_keeps_quota(&e->limit, &time);
    if (may && (held & ENTRY_REFS) == 1 && atomic_compare_exchange_strong(&e->word, &held, (held - 1) & ~ENTRY_LIVE))
        return true;
    keys_release(l, index);
    return false;
}

/* It is ours alone: nobody finds it any more. */
static void entry_leave(struct keys *l, struct entry *e)
{
    uint32_t place = atomic_load(&e->place);
    if (place != KEYS_NONE) atomic_store(&l->places[place], 0);
    if (e->stranger) atomic_fetch_sub(&l->strangers, 1);
    struct limit_use use;
    if (l->departures && limit_uncollected(&e->limit, &use)) departures_put(l->departures, &e->key, &use);
}

static uint32_t entry_evict(struct keys *l, bool stranger_only, uint64_t now_us)
{
    for (unsigned looks = 0; looks < LOOKS_MAX && looks < 2 * l->count; looks++) {
        uint32_t index = atomic_fetch_add(&l->hand, 1) % l->count;
        bool patient = looks < LOOKS_MAX / 2 && looks < l->count;
        if (patient && atomic_exchange(&entry_at(l, index)->recent, false)) continue;
        if (!entry_claim(l, index, stranger_only, now_us)) continue;
        entry_leave(l, entry_at(l, index));
        return index;
    }
    return KEYS_NONE;
}

/* One that was never used, else one that leaves. It is ours alone. */
static uint32_t entry_take(struct keys *l, bool stranger, uint64_t now_us)
{
    bool full = stranger && atomic_load(&l->strangers) >= l->count / 4 * 3;
    uint32_t touched = atomic_load(&l->touched);
    while (!full && touched < l->count)
        if (atomic_compare_exchange_weak(&l->touched, &touched, touched + 1)) return touched;
    return entry_evict(l, full, now_us);
}

static const struct limit_rules *rules_of_kind(const struct keys *l, unsigned kind)
{
    return kind < LIMIT_NAMED ? &l->kinds[kind].rules : &limit_no_rules;
}

/* What the key has used in periods that are not over, what nobody has collected yet included. False: nobody knows. What
 * an octet becomes next is asked first, so that none is missing: under way, delivered, collected. */
static bool entry_sums(const struct keys *l, const struct entry *e, const struct limit_time *time,
                       struct limit_sums *sums)
{
    const struct past *past = atomic_load_explicit(&l->past, memory_order_acquire);
    struct limit_use use;
    if (!past) return false;
    uint64_t under_way[LIMIT_DIRECTIONS];
    limit_under_way(&e->limit, under_way);
    limit_uncollected(&e->limit, &use);
    past_read(past, &e->key, time, sums);
    memcpy(sums->under_way, under_way, sizeof under_way);
    for (unsigned i = 0; i < LIMIT_PERIODS; i++)
        for (unsigned d = 0; d < 2; d++) sums->octets[i][d] += use.octets[d];
    return true;
}

/* Held by us from now on. */
static void entry_make(struct keys *l, uint32_t index, const struct limit_key *key, bool stranger, uint64_t now_us)
{
    struct entry *e = entry_at(l, index);
    struct limit_time time = keys_time(l, now_us);
    uint64_t generation = atomic_load(&e->word) / ENTRY_GENERATION + 1;
    struct limit_sums sums;
    e->key = *key;
    e->stranger = stranger;
    if (stranger) atomic_fetch_add(&l->strangers, 1);
    atomic_store(&e->place, KEYS_NONE);
    atomic_store(&e->put, false);
    atomic_store(&e->recent, true);
    limit_open(&e->limit, rules_of_kind(l, key->kind), &time);
    if (entry_sums(l, e, &time, &sums)) limit_restore(&e->limit, &sums, &time);
    atomic_store(&e->word, generation * ENTRY_GENERATION | ENTRY_LIVE | 1);
}

/* --- making a key --- */

static _Atomic uint64_t *set_claim(_Atomic uint64_t *set, uint64_t tentative)
{
    for (unsigned i = 0; i < PLACES; i++) {
        uint64_t free = 0;
        if (atomic_load(&set[i]) == 0 && atomic_compare_exchange_strong(&set[i], &free, tentative)) return &set[i];
    }
    return NULL;
}

/* Kills what is TENTATIVE there. The word that is left. */
static uint64_t place_kill(_Atomic uint64_t *place, uint64_t hash)
{
    uint64_t word = atomic_load(place);
    while (same_tag(word, hash) && place_phase(word) == PLACE_TENTATIVE)
        if (atomic_compare_exchange_weak(place, &word, word ^ PLACE_TENTATIVE ^ PLACE_KILLED)) return 0;
    return word;
}

/* Whether another entry stands in the way of this key: one that is LIVE. One that is TENTATIVE is killed, or, so that
 * two do not kill each other again and again, the first in the set goes on and the other gives way, at first. */
static bool set_has_rival(struct keys *l, uint64_t hash, const struct limit_key *key, const _Atomic uint64_t *ours,
                          bool give_way)
{
    _Atomic uint64_t *set = set_of(l, hash);
    for (unsigned i = 0; i < PLACES; i++) {
        uint64_t word = atomic_load(&set[i]);
        if (&set[i] == ours || !same_tag(word, hash)) continue;
        if (give_way && &set[i] < ours && place_phase(word) == PLACE_TENTATIVE) return true;
        word = place_kill(&set[i], hash);
        if (!same_tag(word, hash) || place_phase(word) != PLACE_LIVE || !place_hold(l, word, key)) continue;
        keys_release(l, place_index(word));
        return true;
    }
    return false;
}

enum settled { SETTLED, RIVAL, NO_PLACE };

/* Puts an entry that we hold where it is found. RIVAL: it is not; another one may be. */
static enum settled set_settle(struct keys *l, uint64_t hash, uint32_t index, bool give_way)
{
    struct entry *e = entry_at(l, index);
    uint64_t tentative = place_word(PLACE_TENTATIVE, hash, index);
    _Atomic uint64_t *ours = set_claim(set_of(l, hash), tentative);
    if (!ours) return NO_PLACE;
    if (!set_has_rival(l, hash, &e->key, ours, give_way)) {
        atomic_store(&e->place, (uint32_t)(ours - l->places));
        if (atomic_compare_exchange_strong(ours, &tentative, place_word(PLACE_LIVE, hash, index))) return SETTLED;
        atomic_store(&e->place, KEYS_NONE);
    }
    atomic_store(ours, 0);
    return RIVAL;
}

/* An entry that we have made, and that nobody finds: it is as good as left. */
static void entry_abandon(struct keys *l, uint32_t index)
{
    atomic_store(&entry_at(l, index)->recent, false);
    keys_release(l, index);
}

/* Finds the key, or makes it if that is wanted. KEYS_NONE: no room, or it is not known. */
static uint32_t key_hold(struct keys *l, const struct limit_key *key, bool make, bool stranger, uint64_t now_us)
{
    uint64_t hash = hash_of(l, key);
    uint32_t made = KEYS_NONE;
    for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
        uint32_t found = set_find(l, hash, key);
        if (found != KEYS_NONE) {
            if (made != KEYS_NONE) entry_abandon(l, made);
            return found;
        }
        if (!make) return KEYS_NONE;
        if (made == KEYS_NONE) {
            made = entry_take(l, stranger, now_us);
            if (made == KEYS_NONE) return KEYS_NONE;
            entry_make(l, made, key, stranger, now_us);
        }
        enum settled settled = set_settle(l, hash, made, tries < TRIES_MAX / 2);
        if (settled == SETTLED) return made;
        if (settled == NO_PLACE) break;
    }
    if (made != KEYS_NONE) entry_abandon(l, made);
    return KEYS_NONE;
}

static void key_touch(struct keys *l, uint32_t held)
{
    struct entry *e = entry_at(l, held);
    if (!atomic_load_explicit(&e->recent, memory_order_relaxed))
        atomic_store_explicit(&e->recent, true, memory_order_relaxed);
}

/* --- workers --- */

uint32_t keys_kinds(const struct keys *keys)
{
    uint32_t kinds = 0;
    for (unsigned kind = 0; kind < LIMIT_NAMED; kind++) {
        const struct kind *k = &keys->kinds[kind];
        bool any = atomic_load_explicit(&k->each, memory_order_acquire) ||
                   atomic_load_explicit(&k->keys, memory_order_acquire) > 0;
        if (any) kinds |= 1u << kind;
    }
    return kinds;
}

bool keys_bound_newcomers(const struct keys *keys)
{
    return atomic_load_explicit(&keys->early, memory_order_acquire);
}

void keys_source_key(const struct keys *keys, const struct address *client, struct limit_key *key)
{
    uint16_t bits = atomic_load_explicit(&keys->kinds[LIMIT_SOURCE].bits, memory_order_relaxed);
    limit_key_source(client, (uint8_t[2]){(uint8_t)bits, (uint8_t)(bits >> 8)}, key);
}

static bool kind_has_each(const struct keys *l, const struct limit_key *key)
{
    return key->kind < LIMIT_NAMED && atomic_load_explicit(&l->kinds[key->kind].each, memory_order_acquire);
}

enum keys_found keys_hold(struct keys *keys, const struct limit_key *key, bool stranger, uint64_t now_us, uint32_t *out)
{
    bool make = kind_has_each(keys, key);
    *out = key_hold(keys, key, make, stranger, now_us);
    if (*out == KEYS_NONE) return make ? KEYS_FULL : KEYS_UNBOUNDED;
    key_touch(keys, *out);
    return KEYS_FOUND;
}

/* --- the coordinator --- */

/* Held by us. It obeys these rules from now on, which are new, or have new terms in them; `periods`: of which quotas
 * they change the period. */
static void entry_change(struct keys *l, struct entry *e, const struct limit_rules *rules, uint32_t periods,
                         const struct limit_time *time)
{
    struct limit_sums sums;
    bool known = periods != 0 && entry_sums(l, e, time, &sums);
    limit_change(&e->limit, rules, time);
    if (known) limit_adopt(&e->limit, periods, &sums, time);
}

/* The rules of a kind have changed: what was booked by them is void. */
static void kind_changed(struct keys *l, unsigned kind, uint32_t periods, const struct limit_time *time)
{
    const struct limit_rules *rules = rules_of_kind(l, kind);
    uint32_t touched = atomic_load(&l->touched);
    for (uint32_t i = 0; i < touched; i++) {
        struct entry *e = entry_at(l, i);
        if (entry_hold(e) == 0) continue;
        if (atomic_load(&e->limit.rules) == rules) entry_change(l, e, rules, periods, time);
        keys_release(l, i);
    }
}

static bool rules_are(const struct limit_rules *rules, const struct limit_terms *terms)
{
    struct limit_terms now;
    limit_rules_get(rules, &now);
    return limit_terms_equal(&now, terms);
}

/* Kinds that sessions are under, if this one is added. */
static bool kind_has_room(const struct keys *l, unsigned kind)
{
    return kind >= LIMIT_NAMED || (uint32_t)__builtin_popcount(keys_kinds(l) | 1u << kind) <= KEYS_PER_SESSION;
}

static enum keys_change kind_put(struct keys *l, const struct limit_key *key, const struct limit_terms *terms,
                                 uint64_t now_us)
{
    struct kind *kind = &l->kinds[key->kind];
    struct limit_time time = keys_time(l, now_us);
    uint16_t bits = (uint16_t)(key->bits[0] | key->bits[1] << 8);
    bool same = atomic_load(&kind->each) && rules_are(&kind->rules, terms);
    if (key->kind == LIMIT_SOURCE && atomic_exchange(&kind->bits, bits) != bits) same = false;
    if (same) return KEYS_SAME;
    uint32_t periods = limit_rules_compare(&kind->rules, terms, &time);
    limit_rules_set(&kind->rules, terms);
    atomic_store_explicit(&kind->each, true, memory_order_release);
    kind_changed(l, key->kind, periods, &time);
    return KEYS_CHANGED;
}

/* Its own terms; held by us. */
static enum keys_change entry_put(struct keys *l, uint32_t held, const struct limit_terms *terms, uint64_t now_us)
{
    struct limit *limit = keys_at(l, held);
    struct limit_time time = keys_time(l, now_us);
    if (atomic_load(&limit->rules) == &limit->own && rules_are(&limit->own, terms)) return KEYS_SAME;
    uint32_t periods = limit_rules_compare(atomic_load(&limit->rules), terms, &time);
    limit_rules_set(&limit->own, terms);
    entry_change(l, entry_at(l, held), &limit->own, periods, &time);
    return KEYS_CHANGED;
}

/* Noted for good: sessions that it has counted are still to be counted off. */
static void note_early(struct keys *l, const struct limit_terms *terms)
{
    if (terms->half_open != LIMIT_CONNECTIONS_NONE || terms->resolving != LIMIT_CONNECTIONS_NONE)
        atomic_store_explicit(&l->early, true, memory_order_release);
}

enum keys_change keys_put(struct keys *keys, const struct limit_key *key, const struct limit_terms *terms,
                          uint64_t now_us)
{
    note_early(keys, terms);
    if (!kind_has_room(keys, key->kind)) return KEYS_TOO_MANY;
    if (key->every) return kind_put(keys, key, terms, now_us);
    uint32_t held = key_hold(keys, key, true, false, now_us);
    if (held == KEYS_NONE) return KEYS_NO_ROOM;
    enum keys_change change = entry_put(keys, held, terms, now_us);
    if (atomic_exchange(&entry_at(keys, held)->put, true)) {
        keys_release(keys, held); /* it is held already */
    } else if (key->kind < LIMIT_NAMED) {
        atomic_fetch_add(&keys->kinds[key->kind].keys, 1);
    }
    return change;
}

enum keys_change keys_name(struct keys *keys, const struct limit_key *key, const struct limit_terms *terms,
                           uint64_t now_us, uint64_t *handle)
{
    note_early(keys, terms);
    uint32_t held = key_hold(keys, key, true, false, now_us);
    if (held == KEYS_NONE) return KEYS_NO_ROOM;
    enum keys_change change = entry_put(keys, held, terms, now_us);
    *handle = keys_handle(keys, held);
    key_touch(keys, held);
    keys_release(keys, held);
    return change;
}

static bool kind_remove(struct keys *l, const struct limit_key *key, const struct limit_time *time)
{
    struct kind *kind = &l->kinds[key->kind];
    struct limit_terms none;
    if (!atomic_exchange(&kind->each, false)) return false;
    limit_terms_init(&none);
    uint32_t periods = limit_rules_compare(&kind->rules, &none, time);
    limit_rules_set(&kind->rules, &none);
    kind_changed(l, key->kind, periods, time);
    return true;
}

/* It has no terms of its own any more. */
static void entry_follow_kind(struct keys *l, struct entry *e, const struct limit_time *time)
{
    const struct limit_rules *rules = rules_of_kind(l, e->key.kind);
    struct limit_terms terms;
    limit_rules_get(rules, &terms);
    entry_change(l, e, rules, limit_rules_compare(&e->limit.own, &terms, time), time);
}

bool keys_remove(struct keys *keys, const struct limit_key *key, uint64_t now_us)
{
    struct limit_time time = keys_time(keys, now_us);
    if (key->every) return kind_remove(keys, key, &time);
    uint32_t held = set_find(keys, hash_of(keys, key), key);
    if (held == KEYS_NONE) return false;
    struct entry *e = entry_at(keys, held);
    bool own = atomic_load(&e->limit.rules) == &e->limit.own;
    if (own) entry_follow_kind(keys, e, &time);
    if (atomic_exchange(&e->put, false)) {
        if (key->kind < LIMIT_NAMED) atomic_fetch_sub(&keys->kinds[key->kind].keys, 1);
        keys_release(keys, held);
    }
    keys_release(keys, held);
    return own;
}

/* --- accounts --- */

int keys_keep_accounts(struct keys *keys, const struct past *past)
{
    int error = departures_open(&keys->departures);
    if (error == 0) keys_set_past(keys, past);
    return error;
}

void keys_set_past(struct keys *keys, const struct past *past)
{
    atomic_store_explicit(&keys->past, past, memory_order_release);
}

void keys_restore(struct keys *keys, uint64_t now_us)
{
    struct limit_time time = keys_time(keys, now_us);
    uint32_t touched = atomic_load(&keys->touched);
    struct limit_sums sums;
    for (uint32_t i = 0; i < touched; i++) {
        struct entry *e = entry_at(keys, i);
        if (entry_hold(e) == 0) continue;
        if (entry_sums(keys, e, &time, &sums)) limit_restore(&e->limit, &sums, &time);
        keys_release(keys, i);
    }
}

bool keys_need(struct keys *keys, const struct limit_key *key, const struct limit_sums *sums,
               const struct limit_time *time)
{
    uint32_t held = set_find(keys, hash_of(keys, key), key);
    bool needed = key->kind < LIMIT_NAMED && limit_rules_need(rules_of_kind(keys, key->kind), sums);
    if (held == KEYS_NONE) return needed;
    struct entry *e = entry_at(keys, held);
    bool alone = (atomic_load(&e->word) & ENTRY_REFS) == 1; /* but for us */
    needed |= !alone || limit_keeps_quota(&e->limit, time);
    keys_release(keys, held);
    return needed;
}

uint32_t keys_quota_kinds(const struct keys *keys)
{
    uint32_t kinds = 1u << LIMIT_NAMED;
    for (unsigned kind = 0; kind < LIMIT_NAMED; kind++) {
        const struct kind *k = &keys->kinds[kind];
        bool has_keys = atomic_load(&k->keys) > 0; /* whose terms may be theirs alone */
        if (has_keys || limit_rules_have_quota(&k->rules)) kinds |= 1u << kind;
    }
    return kinds;
}

/* It counts in the past before it counts as collected: who adds both up may see some octets twice, none is missing. */
void keys_collect(struct keys *keys, keys_take *take, void *context)
{
    uint32_t touched = atomic_load(&keys->touched);
    struct limit_use use;
    for (uint32_t i = 0; i < touched; i++) {
        struct entry *e = entry_at(keys, i);
        if (!(atomic_load_explicit(&e->word, memory_order_relaxed) & ENTRY_LIVE) || entry_hold(e) == 0) continue;
        if (limit_uncollected(&e->limit, &use)) {
            take(context, &e->key, &use);
            limit_collect(&e->limit, &use);
        }
        keys_release(keys, i);
    }
    keys_collect_departed(keys, take, context);
}

void keys_collect_departed(struct keys *keys, keys_take *take, void *context)
{
    struct limit_key key;
    struct limit_use use;
    while (departures_take(keys->departures, &key, &use)) take(context, &key, &use);
    while (departures_take_rest(keys->departures, &key, &use)) take(context, &key, &use);
}

static bool quota_row(struct keys *l, uint32_t held, const struct limit_time *time, struct keys_quota *row)
{
    struct entry *e = entry_at(l, held);
    row->periods = limit_quota_periods(&e->limit);
    if (row->periods == 0 || atomic_load(&e->place) == KEYS_NONE || !entry_sums(l, e, time, &row->sums)) return false;
    row->key = e->key;
    row->handle = keys_handle(l, held);
    row->connections = atomic_load(&e->limit.connections);
    for (unsigned d = 0; d < 2; d++) row->counted[d] = atomic_load(&e->limit.octets[d]);
    return true;
}

bool keys_next_quota(struct keys *keys, uint32_t *at, uint64_t now_us, struct keys_quota *row)
{
    struct limit_time time = keys_time(keys, now_us);
    uint32_t touched = atomic_load(&keys->touched);
    while (*at < touched) {
        uint32_t index = (*at)++;
        if (entry_hold(entry_at(keys, index)) == 0) continue;
        bool found = quota_row(keys, index, &time, row);
        keys_release(keys, index);
        if (found) return true;
    }
    return false;
}

void keys_set_elsewhere(struct keys *keys, uint64_t handle, enum limit_period period, int64_t begin,
                        const uint64_t octets[2])
{
    uint32_t held;
    if (!keys_hold_again(keys, handle, &held)) return;
    limit_set_elsewhere(keys_at(keys, held), period, begin, octets);
    keys_release(keys, held);
}

void keys_give(struct keys *keys, uint64_t handle, const uint64_t octets[2], uint64_t now_us)
{
    struct limit_time time = keys_time(keys, now_us);
    uint32_t held;
    if (!keys_hold_again(keys, handle, &held)) return;
    limit_give(keys_at(keys, held), octets, &time);
    keys_release(keys, held);
}

/* --- what is shown --- */

uint32_t keys_count(const struct keys *keys)
{
    uint32_t count = 0, touched = atomic_load(&keys->touched);
    for (uint32_t i = 0; i < touched; i++) count += atomic_load(&entry_at(keys, i)->place) != KEYS_NONE;
    return count;
}

uint32_t keys_room(const struct keys *keys)
{
    return keys->count;
}

static void entry_show(struct keys *l, uint32_t held, uint64_t now_us, struct keys_row *row)
{
    const struct entry *e = entry_at(l, held);
    const struct limit *limit = &e->limit;
    struct limit_time time = keys_time(l, now_us);
    *row = (struct keys_row){.key = e->key,
                             .handle = keys_handle(l, held),
                             .put = atomic_load(&e->put),
                             .connections = atomic_load(&limit->connections),
                             .half_open = atomic_load(&limit->half_open),
                             .resolving = atomic_load(&limit->resolving),
                             .waiting = atomic_load(&limit->waiting[LIMIT_BOTH]),
                             .admitted = atomic_load(&limit->admitted),
                             .refused = atomic_load(&limit->refused),
                             .octets = {atomic_load(&limit->octets[0]), atomic_load(&limit->octets[1])}};
    limit_rules_get(atomic_load(&limit->rules), &row->terms);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        row->used[d] = limit_quota_used(limit, (enum limit_direction)d, &time);
}

static bool kind_show(struct keys *l, unsigned number, struct keys_row *row)
{
    struct kind *kind = &l->kinds[number];
    uint16_t bits = atomic_load(&kind->bits);
    if (!atomic_load(&kind->each)) return false;
    *row = (struct keys_row){.put = true, .key = {.kind = (uint8_t)number, .every = true}};
    if (number == LIMIT_SOURCE) row->key.bits[0] = (uint8_t)bits, row->key.bits[1] = (uint8_t)(bits >> 8);
    limit_rules_get(&kind->rules, &row->terms);
    return true;
}

enum keys_place keys_look(struct keys *keys, uint32_t *at, uint64_t now_us, struct keys_row *row)
{
    if (*at < LIMIT_NAMED) return kind_show(keys, (*at)++, row) ? KEYS_ROW : KEYS_GAP;
    uint32_t index = *at - LIMIT_NAMED;
    if (index >= atomic_load(&keys->touched)) return KEYS_END;
    struct entry *e = entry_at(keys, index);
    (*at)++;
    if (entry_hold(e) == 0) return KEYS_GAP;
    bool found = atomic_load(&e->place) != KEYS_NONE;
    if (found) entry_show(keys, index, now_us, row);
    keys_release(keys, index);
    return found ? KEYS_ROW : KEYS_GAP;
}

bool keys_next(struct keys *keys, uint32_t *at, uint64_t now_us, struct keys_row *row)
{
    enum keys_place place;
    do place = keys_look(keys, at, now_us, row);
    while (place == KEYS_GAP);
    return place == KEYS_ROW;
}

bool keys_show(struct keys *keys, uint64_t handle, uint64_t now_us, struct keys_row *row)
{
    uint32_t held;
    if (!keys_hold_again(keys, handle, &held)) return false;
    entry_show(keys, held, now_us, row);
    keys_release(keys, held);
    return true;
}

bool keys_find(struct keys *keys, const struct limit_key *key, uint64_t now_us, struct keys_row *row)
{
    if (key->every) return kind_show(keys, key->kind, row);
    uint32_t held = set_find(keys, hash_of(keys, key), key);
    if (held == KEYS_NONE) return false;
    entry_show(keys, held, now_us, row);
    keys_release(keys, held);
    return true;
}
