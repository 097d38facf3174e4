/* The rules of RFC 6724 that need no more than destination and source: 1 (unusable last), 2 (same scope), 5 (same
 * label), 6 (precedence), 8 (smaller scope), 9 (longer prefix in common with the source; IPv6 only). */
#include "core/resolver/address_order.h"

#include <assert.h>
#include <string.h>

#include "core/io/net.h"

struct policy {
    uint8_t prefix[16];
    uint8_t bits, precedence, label;
};

/* Section 2.1, the longest prefix first. IPv4 is looked up as ::ffff:0:0/96. */
static const struct policy policies[] = {
    {{[15] = 1}, 128, 50, 0},  {{[10] = 0xff, [11] = 0xff}, 96, 35, 4},
    {{0}, 96, 1, 3},           {{0x20, 0x01, 0, 0}, 32, 5, 5},
    {{0x20, 0x02}, 16, 30, 2}, {{0x3f, 0xfe}, 16, 1, 12},
    {{0xfe, 0xc0}, 10, 1, 11}, {{0xfc}, 7, 3, 13},
    {{0}, 0, 40, 1},
};

enum scope { SCOPE_LINK = 2, SCOPE_SITE = 5, SCOPE_GLOBAL = 14 };

struct rank {
    bool usable;
    bool scope_matches, label_matches;
    uint8_t precedence, scope, prefix;
};

/* IPv4 as IPv6 has it. */
static void to_octets(const struct address *address, uint8_t octets[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (address->kind == ADDRESS_IPV6) {
        memcpy(octets, address->ipv6, 16);
        return;
    }
    memcpy(octets, mapped, sizeof mapped);
    memcpy(octets + 12, address->ipv4, 4);
}

static unsigned common_bits(const uint8_t a[16], const uint8_t b[16])
{
    unsigned bits = 0;
    while (bits < 128 && ((a[bits / 8] ^ b[bits / 8]) >> (7 - bits % 8) & 1) == 0) bits++;
    return bits;
}

static const struct policy *policy_of(const uint8_t octets[16])
{
    const struct policy *policy = policies;
    while (common_bits(policy->prefix, octets) < policy->bits) policy++; /* the last one fits all */
    return policy;
}

static enum scope scope_of(const struct address *address)
{
    const uint8_t *o = address->kind == ADDRESS_IPV6 ? address->ipv6 : address->ipv4;
    static const uint8_t loopback[16] = {[15] = 1};
    if (address->kind == ADDRESS_IPV4) return o[0] == 127 || (o[0] == 169 && o[1] == 254) ? SCOPE_LINK : SCOPE_GLOBAL;
    if (o[0] == 0xff) return (enum scope)(o[1] & 0x0f);
    if (memcmp(o, loopback, 16) == 0 || (o[0] == 0xfe && (o[1] & 0xc0) == 0x80)) return SCOPE_LINK;
    return o[0] == 0xfe && (o[1] & 0xc0) == 0xc0 ? SCOPE_SITE : SCOPE_GLOBAL;
}

static struct rank rank_of(const struct resolve_result *result)
{
    struct address to = {.kind = result->kind, .port = 80}, from;
    struct net_address plain, source;
    uint8_t to_bits[16], from_bits[16];
    memcpy(to.ipv6, result->octets, sizeof result->octets);
    to_octets(&to, to_bits);
    const struct policy *policy = policy_of(to_bits);
    struct rank rank = {.precedence = policy->precedence, .scope = (uint8_t)scope_of(&to)};
    net_address_from(&to, &plain);
    if (net_route_source(&plain, NULL, 0, &source) < 0 || !net_address_to(&source, &from)) return rank;
    to_octets(&from, from_bits);
    rank.usable = true;
    rank.scope_matches = scope_of(&from) == scope_of(&to);
    rank.label_matches = policy_of(from_bits)->label == policy->label;
    if (to.kind == ADDRESS_IPV6) rank.prefix = (uint8_t)common_bits(to_bits, from_bits);
    return rank;
}

/* Below 0: `a` goes first. */
static int rank_compare(const struct rank *a, const struct rank *b, bool same_family)
{
    if (a->usable != b->usable) return a->usable ? -1 : 1;
    if (a->scope_matches != b->scope_matches) return a->scope_matches ? -1 : 1;
    if (a->label_matches != b->label_matches) return a->label_matches ? -1 : 1;
    if (a->precedence != b->precedence) return a->precedence > b->precedence ? -1 : 1;
    if (a->scope != b->scope) return a->scope < b->scope ? -1 : 1;
    return same_family && a->prefix != b->prefix ? (a->prefix > b->prefix ? -1 : 1) : 0;
}

void address_order_sort(struct resolve_result *results, uint32_t count)
{
    struct rank ranks[RESOLVE_ADDRESSES_MAX];
    assert(count <= RESOLVE_ADDRESSES_MAX);
    if (count < 2) return;
    for (uint32_t i = 0; i < count; i++) {
        struct resolve_result result = results[i];
        struct rank rank = rank_of(&result);
        uint32_t at = i;
        for (; at > 0 && rank_compare(&rank, &ranks[at - 1], true) < 0; at--) {
            ranks[at] = ranks[at - 1];
            results[at] = results[at - 1];
        }
        ranks[at] = rank;
        results[at] = result;
    }
}

static bool ipv4_goes_first(const struct resolve_result *ipv4, const struct resolve_result *ipv6)
{
    struct rank four = rank_of(ipv4), six = rank_of(ipv6);
    return rank_compare(&four, &six, false) < 0;
}

uint32_t address_order_interlace(const struct resolve_result *ipv4, uint32_t ipv4_count,
                                 const struct resolve_result *ipv6, uint32_t ipv6_count, struct resolve_result *out,
                                 uint32_t room)
{
    bool swap = ipv4_count > 0 && (ipv6_count == 0 || ipv4_goes_first(ipv4, ipv6));
    const struct resolve_result *first = swap ? ipv4 : ipv6, *second = swap ? ipv6 : ipv4;
    uint32_t first_count = swap ? ipv4_count : ipv6_count, second_count = swap ? ipv6_count : ipv4_count, count = 0;
    for (uint32_t i = 0; i < first_count || i < second_count; i++) {
        if (i < first_count && count < room) out[count++] = first[i];
        if (i < second_count && count < room) out[count++] = second[i];
    }
    return count;
}
