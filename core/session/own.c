/* A door is three words, of which the first says whether the others are valid and has another value each time that it
 * is given to somebody: who reads them and finds the first unchanged has read what belongs together. A note is the
 * same. */
#include "core/session/own.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/net.h"
#include "core/session/machine.h"

#define DOORS_MAX 1024u /* listeners, API, and the listening sockets of all scripts */
#define NOTES_MAX 16384u
#define NOTE_WAYS 8u
/* The other end of a connection asks as soon as it is accepted, or has read a request; later nobody does. */
#define NOTE_SECONDS 10u
#define NOTE_BUSY    1u

enum door_flag {
    DOOR_USED = 1,
    DOOR_IPV4 = 2, /* on an address of that family */
    DOOR_IPV6 = 4,
    DOOR_ALL_IPV4 = 8, /* on all of that family */
    DOOR_ALL_IPV6 = 16,
    DOOR_DATAGRAMS = 32,
};

/* state: port 16, flags 8, listener 8, version 32 bits. */
struct door {
    _Atomic uint64_t state, host[2];
};

/* trail: listeners 32, depth 8, seconds 24 bits. */
struct note {
    _Atomic uint64_t from; /* a hash; 0: free, NOTE_BUSY: being written */
    _Atomic uint64_t to, trail;
};

struct own {
    struct door doors[DOORS_MAX];
    _Atomic uint32_t limit; /* doors from there on were never used */
    _Atomic uint32_t redirects;
    _Atomic bool noted;
    bool redirecting[DOORS_MAX]; /* the main thread's */
    struct note notes[NOTES_MAX];
    _Atomic uint16_t datagrams[UINT16_MAX + 1]; /* sockets of associations, by port */
};

static_assert((NOTES_MAX & (NOTES_MAX - 1)) == 0, "the hash is masked");

int own_open(struct own **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : -ENOMEM;
}

void own_close(struct own *own)
{
    free(own);
}

/* --- addresses --- */

/* As the kernel takes it: a mapped address is an IPv4 one, and who dials nothing dials himself. */
static bool plain_form(const struct address *address, struct address *out)
{
    struct net_address raw;
    if (address->kind != ADDRESS_IPV4 && address->kind != ADDRESS_IPV6) return false;
    if (!net_address_from(address, &raw) || !net_address_to(&raw, out)) return false;
    if (!address_is_any_host(out)) return true;
    if (out->kind == ADDRESS_IPV4) {
        out->ipv4[0] = 127;
        out->ipv4[3] = 1;
    } else {
        out->ipv6[15] = 1;
    }
    return true;
}

static void host_words(const struct address *address, uint64_t words[2])
{
    words[0] = words[1] = 0;
    memcpy(words, address->ipv6, address->kind == ADDRESS_IPV4 ? 4 : 16);
}

/* --- doors --- */

static uint64_t door_state(const struct address *at, bool datagrams, bool only_ipv6, uint8_t listener, uint32_t version)
{
    uint64_t flags = DOOR_USED | (datagrams ? (unsigned)DOOR_DATAGRAMS : 0u);
    if (!address_is_any_host(at))
        flags |= at->kind == ADDRESS_IPV4 ? DOOR_IPV4 : DOOR_IPV6;
    else if (at->kind == ADDRESS_IPV4)
        flags |= DOOR_ALL_IPV4;
    else
        flags |= DOOR_ALL_IPV6 | (only_ipv6 ? 0u : (unsigned)DOOR_ALL_IPV4);
    return at->port | flags << 16 | (uint64_t)listener << 24 | (uint64_t)version << 32;
}

static uint32_t door_free(const struct own *own)
{
    uint32_t index = 0;
    while (index < DOORS_MAX &&
           (atomic_load_explicit(&own->doors[index].state, memory_order_relaxed) >> 16 & DOOR_USED))
        index++;
    return index;
}

int own_add(struct own *own, int fd, uint8_t listener, bool redirects)
{
    struct net_address local;
    struct address at;
    uint64_t words[2];
    int type = net_type(fd);
    if (net_local_address(fd, &local) < 0 || !net_address_to(&local, &at) || at.port == 0) return -1;
    uint32_t index = door_free(own);
    if (index == DOORS_MAX) return -ENOBUFS;
    struct door *door = &own->doors[index];
    uint32_t version = (uint32_t)(atomic_load_explicit(&door->state, memory_order_relaxed) >> 32) + 1;
    uint64_t state = door_state(&at, type == SOCK_DGRAM, net_is_ipv6_only(fd), listener, version);
    host_words(&at, words);
    atomic_store_explicit(&door->host[0], words[0], memory_order_release);
    atomic_store_explicit(&door->host[1], words[1], memory_order_release);
    atomic_store_explicit(&door->state, state, memory_order_release);
    if (index >= atomic_load_explicit(&own->limit, memory_order_relaxed))
        atomic_store_explicit(&own->limit, index + 1, memory_order_release);
    own->redirecting[index] = redirects;
    if (redirects) atomic_fetch_add_explicit(&own->redirects, 1, memory_order_relaxed);
    return (int)index;
}

void own_remove(struct own *own, int index)
{
    if (index < 0) return;
    struct door *door = &own->doors[index];
    uint64_t version = atomic_load_explicit(&door->state, memory_order_relaxed) >> 32;
    atomic_store_explicit(&door->state, (version + 1) << 32, memory_order_release);
    if (own->redirecting[index]) atomic_fetch_sub_explicit(&own->redirects, 1, memory_order_relaxed);
    own->redirecting[index] = false;
}

enum match { MATCH_NOT, MATCH_HERE, MATCH_IF_OURS };

/* What a door on all addresses says is true if the address is ours. */
static enum match door_match(const struct door *door, const struct address *to, const uint64_t words[2], bool datagrams,
                             uint8_t *listener)
{
    uint64_t state = atomic_load_explicit(&door->state, memory_order_acquire), host[2];
    unsigned flags = state >> 16 & 0xffu;
    bool ipv4 = to->kind == ADDRESS_IPV4;
    if ((state & 0xffffu) != to->port || !(flags & DOOR_USED)) return MATCH_NOT;
    if ((flags & DOOR_DATAGRAMS) != (datagrams ? (unsigned)DOOR_DATAGRAMS : 0u)) return MATCH_NOT;
    host[0] = atomic_load_explicit(&door->host[0], memory_order_acquire);
    host[1] = atomic_load_explicit(&door->host[1], memory_order_acquire);
    *listener = (uint8_t)(state >> 24);
    if (atomic_load_explicit(&door->state, memory_order_acquire) != state)
        return MATCH_IF_OURS; /* it has just changed */
    if (flags & (ipv4 ? DOOR_ALL_IPV4 : DOOR_ALL_IPV6)) return MATCH_IF_OURS;
    bool same = flags & (ipv4 ? DOOR_IPV4 : DOOR_IPV6) && host[0] == words[0] && host[1] == words[1];
    return same ? MATCH_HERE : MATCH_NOT;
}

/* Among the doors for streams, or those for datagrams. */
static bool doors_hold(const struct own *own, int machine, const struct address *to, bool datagrams, uint8_t *listener)
{
    struct address plain;
    uint64_t words[2];
    uint32_t limit = atomic_load_explicit(&own->limit, memory_order_acquire);
    uint8_t at = OWN_NO_LISTENER;
    bool perhaps = false;
    if (limit == 0 || !plain_form(to, &plain)) return false;
    host_words(&plain, words);
    for (uint32_t i = 0; i < limit; i++) {
        enum match match = door_match(&own->doors[i], &plain, words, datagrams, &at);
        if (match == MATCH_NOT) continue;
        *listener = at;
        if (match == MATCH_HERE) return true;
        perhaps = true;
    }
    return perhaps && machine_has(machine, &plain);
}

bool own_is(const struct own *own, int machine, const struct address *to, uint8_t *listener)
{
    return doors_hold(own, machine, to, false, listener);
}

void own_add_datagrams(struct own *own, uint16_t port)
{
    atomic_fetch_add_explicit(&own->datagrams[port], 1, memory_order_relaxed);
}

void own_remove_datagrams(struct own *own, uint16_t port)
{
    atomic_fetch_sub_explicit(&own->datagrams[port], 1, memory_order_relaxed);
}

bool own_is_datagrams(const struct own *own, int machine, const struct address *to)
{
    struct address plain;
    uint8_t listener;
    if (doors_hold(own, machine, to, true, &listener)) return true;
    if (atomic_load_explicit(&own->datagrams[to->port], memory_order_relaxed) == 0) return false;
    return plain_form(to, &plain) && machine_has(machine, &plain);
}

/* --- returns --- */

/* splitmix64. Nobody but the kernel chooses the local addresses of our connections. */
static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t hash_of(const struct address *address)
{
    struct address plain;
    uint64_t words[2];
    if (!plain_form(address, &plain)) return 0;
    host_words(&plain, words);
    return mix(mix(words[0]) ^ mix(words[1] ^ ((uint64_t)plain.kind << 16 | plain.port))) | 2u; /* neither 0 nor busy */
}

static uint64_t note_seconds(uint64_t trail)
{
    return trail >> 40;
}

static bool note_is_old(uint64_t trail, uint64_t now_s)
{
    return ((now_s - note_seconds(trail)) & 0xffffffu) > NOTE_SECONDS;
}

static bool door_has_port(const struct door *door, uint16_t port)
{
    uint64_t state = atomic_load_explicit(&door->state, memory_order_relaxed);
    return (state & 0xffffu) == port && (state >> 16 & DOOR_USED);
}

bool own_may_return(const struct own *own, const struct address *to)
{
    if (to->kind != ADDRESS_IPV4 && to->kind != ADDRESS_IPV6) return false;
    if (atomic_load_explicit(&own->redirects, memory_order_relaxed) > 0) return true;
    uint32_t limit = atomic_load_explicit(&own->limit, memory_order_acquire);
    for (uint32_t i = 0; i < limit; i++)
        if (door_has_port(&own->doors[i], to->port)) return true;
    return false;
}

/* A place among those that this hash may take: a free one, an old one, or that of somebody who has less left. */
static struct note *note_claim(struct own *own, uint64_t hash, uint64_t now_s)
{
    struct note *set = &own->notes[hash >> 8 & (NOTES_MAX - 1) & ~(uint64_t)(NOTE_WAYS - 1)], *place = set;
    uint64_t age_max = 0;
    for (unsigned i = 0; i < NOTE_WAYS; i++) {
        uint64_t from = atomic_load_explicit(&set[i].from, memory_order_relaxed);
        uint64_t trail = atomic_load_explicit(&set[i].trail, memory_order_relaxed);
        uint64_t age = from == 0 ? UINT64_MAX : from == NOTE_BUSY ? 0 : ((now_s - note_seconds(trail)) & 0xffffffu) + 1;
        if (age <= age_max) continue;
        age_max = age;
        place = &set[i];
    }
    uint64_t before = atomic_load_explicit(&place->from, memory_order_relaxed);
    if (before == NOTE_BUSY) return NULL;
    return atomic_compare_exchange_strong(&place->from, &before, NOTE_BUSY) ? place : NULL;
}

uint32_t own_note(struct own *own, const struct address *from, const struct address *to, struct own_trail trail,
                  uint64_t now_ms)
{
    uint64_t hash = hash_of(from), now_s = now_ms / 1000 & 0xffffffu;
    struct note *note = note_claim(own, hash, now_s);
    if (!note) return OWN_NO_NOTE;
    atomic_store_explicit(&note->to, hash_of(to), memory_order_release);
    atomic_store_explicit(&note->trail, trail.listeners | (uint64_t)trail.depth << 32 | now_s << 40,
                          memory_order_release);
    atomic_store_explicit(&note->from, hash, memory_order_release);
    atomic_store_explicit(&own->noted, true, memory_order_release);
    return (uint32_t)(note - own->notes) << 16 | (uint32_t)(hash >> 48);
}

void own_forget(struct own *own, uint32_t number)
{
    if (number == OWN_NO_NOTE) return;
    struct note *note = &own->notes[number >> 16];
    uint64_t hash = atomic_load_explicit(&note->from, memory_order_relaxed);
    if (hash == NOTE_BUSY || hash >> 48 != (number & 0xffffu)) return; /* another's by now */
    atomic_compare_exchange_strong(&note->from, &hash, 0);
}

bool own_has_notes(const struct own *own)
{
    return atomic_load_explicit(&own->noted, memory_order_acquire);
}

bool own_knows(const struct own *own, const struct address *from, uint64_t now_ms)
{
    struct own_trail trail;
    bool elsewhere;
    static const struct address nowhere;
    return own_find(own, from, &nowhere, now_ms, &trail, &elsewhere) || elsewhere;
}

bool own_find(const struct own *own, const struct address *from, const struct address *to, uint64_t now_ms,
              struct own_trail *trail, bool *elsewhere)
{
    uint64_t hash = hash_of(from), now_s = now_ms / 1000 & 0xffffffu, wanted = hash_of(to);
    const struct note *set = &own->notes[hash >> 8 & (NOTES_MAX - 1) & ~(uint64_t)(NOTE_WAYS - 1)];
    *elsewhere = false;
    for (unsigned i = 0; i < NOTE_WAYS; i++) {
        if (atomic_load_explicit(&set[i].from, memory_order_acquire) != hash) continue;
        uint64_t went = atomic_load_explicit(&set[i].to, memory_order_acquire);
        uint64_t found = atomic_load_explicit(&set[i].trail, memory_order_acquire);
        if (atomic_load_explicit(&set[i].from, memory_order_acquire) != hash || note_is_old(found, now_s)) continue;
        *elsewhere = true;
        if (went != wanted) continue;
        *trail = (struct own_trail){.listeners = (uint32_t)found, .depth = (uint8_t)(found >> 32)};
        return true;
    }
    return false;
}
