#include "core/session/udp_targets.h"

#include <assert.h>
#include <string.h>

#include "core/io/hash.h"

static uint32_t hash_of(const struct address *address)
{
    uint64_t hash = hash_plain(HASH_START, &address->port, sizeof address->port);
    if (address->kind == ADDRESS_NAME) return hash_fold(hash_plain_lower(hash, address->name, address->name_size));
    return hash_fold(
        hash_plain(hash, address->ipv6, address->kind == ADDRESS_IPV4 ? sizeof address->ipv4 : sizeof address->ipv6));
}

void udp_targets_clear(struct udp_targets *t)
{
    t->count = 0;
    t->rewrites = false;
    t->uses = 0;
}

struct udp_target *udp_targets_find(struct udp_targets *t, const struct address *asked, uint64_t now_ms)
{
    uint32_t hash = hash_of(asked);
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->used[i] == 0 || t->hashes[i] != hash || !address_equal(&t->all[i].asked, asked)) continue;
        if (t->all[i].until_ms <= now_ms) {
            t->used[i] = 0;
            return NULL;
        }
        t->used[i] = ++t->uses;
        return &t->all[i];
    }
    return NULL;
}

/* A free one, or the one that was used longest ago. */
static uint32_t place_for_another(const struct udp_targets *t)
{
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->used[i] < t->used[oldest]) oldest = i;
    if (t->count > 0 && t->used[oldest] == 0) return oldest;
    return t->count < UDP_TARGETS_MAX ? t->count : oldest;
}

struct udp_target *udp_targets_put(struct udp_targets *t, const struct address *asked)
{
    uint32_t at = place_for_another(t);
    if (at == t->count) t->count++;
    t->used[at] = ++t->uses;
    t->hashes[at] = hash_of(asked);
    struct udp_target *target = &t->all[at];
    target->asked = *asked;
    target->to.kind = ADDRESS_NONE;
    target->sent_to.kind = ADDRESS_NONE;
    target->chain = UDP_NO_CHAIN;
    target->drops = true;
    target->until_ms = UINT64_MAX;
    return target;
}

void udp_targets_lose_chain(struct udp_targets *t, uint8_t chain, uint64_t until_ms)
{
    for (uint32_t i = 0; i < t->count; i++) {
        struct udp_target *target = &t->all[i];
        if (t->used[i] == 0 || target->chain != chain) continue;
        target->chain = UDP_NO_CHAIN;
        target->drops = true;
        target->until_ms = until_ms;
        if (until_ms == 0) t->used[i] = 0;
    }
}

void udp_targets_note(struct udp_targets *t, struct udp_target *target, const struct address *sent_to)
{
    if (target->asked.kind == ADDRESS_NAME) return;
    t->rewrites |= !address_equal(&target->asked, &target->to);
    target->sent_to = host_port_of(sent_to);
}

const struct address *udp_targets_asked(const struct udp_targets *t, const struct address *from)
{
    struct host_port wanted = host_port_of(from);
    const struct address *found = NULL;
    uint64_t latest = 0;
    for (uint32_t i = 0; i < t->count && t->rewrites; i++) {
        const struct udp_target *target = &t->all[i];
        if (t->used[i] <= latest || target->sent_to.kind == ADDRESS_NONE) continue;
        if (target->sent_to.kind != wanted.kind || target->sent_to.port != wanted.port) continue;
        if (memcmp(target->sent_to.octets, wanted.octets, sizeof wanted.octets) != 0) continue;
        latest = t->used[i];
        found = &target->asked;
    }
    return found;
}
