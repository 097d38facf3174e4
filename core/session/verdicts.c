#include "core/session/verdicts.h"

#include <assert.h>
#include <stdlib.h>

#include "core/io/hash.h"

struct verdict_entry {
    uint64_t until_ms; /* 0: free */
    uint32_t revision;
    uint8_t callback, command;
    struct address target; /* asked for */
    struct credentials credentials;
    struct route_verdict verdict; /* its hops stand behind it */
    struct proxy_uri hops[VERDICTS_HOPS_MAX];
};

static size_t address_octets(const struct address *a, const void **octets)
{
    *octets = a->name;
    switch ((enum address_kind)a->kind) {
    case ADDRESS_IPV4: return sizeof a->ipv4;
    case ADDRESS_IPV6: return sizeof a->ipv6;
    case ADDRESS_NAME:
    case ADDRESS_UNIX:
    case ADDRESS_GROUP: return a->name_size;
    case ADDRESS_NONE: break;
    }
    return 0;
}

/* Clients that collide on purpose only displace each other's entries. */
static uint32_t verdicts_place(const struct route_request *request)
{
    const void *octets;
    size_t size = address_octets(&request->target, &octets);
    uint64_t hash = hash_plain(HASH_START + request->target.port, octets, size);
    const struct credentials *c = request->credentials;
    if (c->present) hash = hash_plain(hash_plain(hash, c->user, strlen(c->user)), c->password, strlen(c->password));
    return hash_fold(hash) & (VERDICTS_COUNT - 1);
}

/* Names octet for octet: the ruleset sees them as they were sent. */
static bool same_target(const struct address *a, const struct address *b)
{
    const void *octets_a, *octets_b;
    size_t size = address_octets(a, &octets_a);
    if (a->kind != b->kind || a->port != b->port || address_octets(b, &octets_b) != size) return false;
    return memcmp(octets_a, octets_b, size) == 0;
}

void verdicts_close(struct verdicts *verdicts)
{
    free(verdicts->entries);
    verdicts->entries = NULL;
}

/* Only workers whose ruleset makes use of it have the table. */
static struct verdict_entry *verdicts_table(struct verdicts *verdicts)
{
    if (!verdicts->entries) verdicts->entries = calloc(VERDICTS_COUNT, sizeof *verdicts->entries);
    return verdicts->entries;
}

void verdicts_keep(struct verdicts *verdicts, const struct route_request *request, uint32_t revision, uint64_t now_ms)
{
    const struct route_verdict *verdict = &request->verdict;
    if (verdict->cache_ms == 0 || verdict->order == ROUTE_TRY || verdict->hop_count > VERDICTS_HOPS_MAX) return;
    if (!verdicts_table(verdicts)) return;
    struct verdict_entry *entry = &verdicts->entries[verdicts_place(request)];
    entry->until_ms = now_ms + verdict->cache_ms;
    entry->revision = revision;
    entry->callback = request->callback;
    entry->command = request->command;
    entry->target = request->target;
    entry->credentials = *request->credentials;
    entry->verdict = *verdict;
    if (verdict->hop_count > 0) memcpy(entry->hops, verdict->hops, verdict->hop_count * sizeof *verdict->hops);
}

bool verdicts_find(const struct verdicts *verdicts, struct route_request *request, uint32_t revision, uint64_t now_ms)
{
    if (!verdicts->entries) return false;
    const struct verdict_entry *entry = &verdicts->entries[verdicts_place(request)];
    if (now_ms >= entry->until_ms || entry->revision != revision || entry->callback != request->callback) return false;
    if (entry->command != request->command) return false;
    if (!same_target(&entry->target, &request->target)) return false;
    if (!credentials_equal(&entry->credentials, request->credentials)) return false;
    request->verdict = entry->verdict;
    request->verdict.hops = request->hops;
    assert(entry->verdict.hop_count <= VERDICTS_HOPS_MAX);
    if (entry->verdict.hop_count > 0)
        memcpy(request->hops, entry->hops, entry->verdict.hop_count * sizeof *entry->hops);
    return true;
}
