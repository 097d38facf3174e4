#include "core/session/udp_peers.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#define NOBODY UINT32_MAX

struct peer {
    uint64_t used_ms;
    uint32_t next;         /* in its bucket, or on the free list */
    uint32_t newer, older; /* on its owner's list */
    uint32_t owner;
    uint8_t kind;       /* enum address_kind */
    uint8_t octets[16]; /* zeros behind an IPv4 address */
};

struct owner {
    uint32_t newest, oldest;
    uint32_t count;
};

struct udp_peers {
    struct peer *all; /* mapped */
    uint32_t *buckets;
    uint32_t count, untouched; /* entries from `untouched` on were never used */
    uint32_t free;
    uint32_t mask; /* of the buckets, a power of two less one */
    uint32_t owner_count;
    uint64_t seed; /* clients choose the addresses: they must not be able to choose the bucket */
    struct owner owners[];
};

/* --- opening and closing --- */

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static size_t buckets_size(const struct udp_peers *p)
{
    return ((size_t)p->mask + 1) * sizeof *p->buckets;
}

void udp_peers_close(struct udp_peers *p)
{
    if (!p) return;
    if (p->all) munmap(p->all, p->count * sizeof *p->all);
    if (p->buckets) munmap(p->buckets, buckets_size(p));
    free(p);
}

int udp_peers_open(struct udp_peers **out, uint32_t count, uint32_t owners)
{
    assert(count > 0 && count < NOBODY && owners > 0);
    struct udp_peers *p = calloc(1, sizeof *p + owners * sizeof p->owners[0]);
    if (!p) return -ENOMEM;
    p->count = count;
    p->owner_count = owners;
    p->free = NOBODY;
    while (p->mask < count - 1) p->mask = p->mask << 1 | 1;
    for (uint32_t i = 0; i < owners; i++) p->owners[i] = (struct owner){NOBODY, NOBODY, 0};
    p->all = map(count * sizeof *p->all);
    p->buckets = map(buckets_size(p)); /* zero is none: they hold entries plus one */
    if (!p->all || !p->buckets || getrandom(&p->seed, sizeof p->seed, 0) != (ssize_t)sizeof p->seed) {
        udp_peers_close(p);
        return -ENOMEM;
    }
    *out = p;
    return 0;
}

/* --- finding --- */

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

/* The octets that count, in a form that compares and hashes in one piece. */
static void take_octets(const struct address *address, uint8_t out[16])
{
    assert(address->kind == ADDRESS_IPV4 || address->kind == ADDRESS_IPV6);
    memset(out, 0, 16);
    memcpy(out, address->ipv6, address->kind == ADDRESS_IPV4 ? sizeof address->ipv4 : sizeof address->ipv6);
}

static uint32_t *bucket_of(const struct udp_peers *p, uint32_t owner, uint8_t kind, const uint8_t octets[16])
{
    uint64_t words[2];
    memcpy(words, octets, sizeof words);
    uint64_t hash = mix(mix(mix(p->seed, words[0]), words[1]), (uint64_t)owner << 8 | kind);
    return &p->buckets[(hash ^ hash >> 32) & p->mask];
}

static bool peer_is(const struct peer *peer, uint32_t owner, uint8_t kind, const uint8_t octets[16])
{
    return peer->owner == owner && peer->kind == kind && memcmp(peer->octets, octets, sizeof peer->octets) == 0;
}

static uint32_t find(const struct udp_peers *p, uint32_t owner, const struct address *address)
{
    uint8_t octets[16];
    assert(owner < p->owner_count);
    take_octets(address, octets);
    uint32_t at = *bucket_of(p, owner, address->kind, octets) - 1;
    while (at != NOBODY && !peer_is(&p->all[at], owner, address->kind, octets)) at = p->all[at].next;
    return at;
}

bool udp_peers_know(const struct udp_peers *p, uint32_t owner, const struct address *address, uint64_t now_ms)
{
    uint32_t at = find(p, owner, address);
    return at != NOBODY && now_ms - p->all[at].used_ms < UDP_PEER_MS;
}

uint32_t udp_peers_count(const struct udp_peers *p, uint32_t owner)
{
    assert(owner < p->owner_count);
    return p->owners[owner].count;
}

/* --- the owner's list --- */

static void list_remove(struct udp_peers *p, uint32_t at)
{
    const struct peer *peer = &p->all[at];
    struct owner *owner = &p->owners[peer->owner];
    *(peer->newer == NOBODY ? &owner->newest : &p->all[peer->newer].older) = peer->older;
    *(peer->older == NOBODY ? &owner->oldest : &p->all[peer->older].newer) = peer->newer;
    owner->count--;
}

static void list_put_first(struct udp_peers *p, uint32_t at)
{
    struct peer *peer = &p->all[at];
    struct owner *owner = &p->owners[peer->owner];
    peer->newer = NOBODY;
    peer->older = owner->newest;
    *(peer->older == NOBODY ? &owner->oldest : &p->all[peer->older].newer) = at;
    owner->newest = at;
    owner->count++;
}

/* --- taking and giving up --- */

static void give_up(struct udp_peers *p, uint32_t at)
{
    struct peer *peer = &p->all[at];
    uint32_t *bucket = bucket_of(p, peer->owner, peer->kind, peer->octets);
    list_remove(p, at);
    if (*bucket == at + 1) {
        *bucket = peer->next + 1;
    } else {
        uint32_t before = *bucket - 1;
        while (p->all[before].next != at) before = p->all[before].next;
        p->all[before].next = peer->next;
    }
    peer->next = p->free;
    p->free = at;
}

/* Only called when the table is full, so that a walk over all associations does. */
static uint32_t richest(const struct udp_peers *p)
{
    uint32_t found = 0;
    for (uint32_t i = 1; i < p->owner_count; i++)
        if (p->owners[i].count > p->owners[found].count) found = i;
    return found;
}

static uint32_t take_free(struct udp_peers *p)
{
    uint32_t at = p->free;
    if (at != NOBODY)
        p->free = p->all[at].next;
    else if (p->untouched < p->count)
        at = p->untouched++;
    return at;
}

static uint32_t take(struct udp_peers *p, uint32_t owner)
{
    if (p->owners[owner].count == UDP_PEERS_MAX) give_up(p, p->owners[owner].oldest);
    uint32_t at = take_free(p);
    if (at != NOBODY) return at;
    give_up(p, p->owners[richest(p)].oldest);
    return take_free(p);
}

void udp_peers_note(struct udp_peers *p, uint32_t owner, const struct address *address, uint64_t now_ms)
{
    uint32_t at = find(p, owner, address);
    if (at != NOBODY) {
        list_remove(p, at);
    } else {
        at = take(p, owner);
        struct peer *peer = &p->all[at];
        take_octets(address, peer->octets);
        peer->owner = owner;
        peer->kind = address->kind;
        uint32_t *bucket = bucket_of(p, owner, peer->kind, peer->octets);
        peer->next = *bucket - 1;
        *bucket = at + 1;
    }
    list_put_first(p, at);
    p->all[at].used_ms = now_ms;
}

void udp_peers_forget(struct udp_peers *p, uint32_t owner)
{
    assert(owner < p->owner_count);
    while (p->owners[owner].count > 0) give_up(p, p->owners[owner].oldest);
}
