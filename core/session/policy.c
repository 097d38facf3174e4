/* Tables of nets and one of forms that carry an IPv4 address. In each the first row that matches decides, so that the
 * narrow nets stand before the wide ones; what matches no row is global. */
#include "core/session/policy.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct policy_net {
    uint8_t octets[16]; /* network order; IPv4 uses four */
    uint8_t bits;
    uint8_t class; /* enum policy_class */
};

/* IANA's special-purpose registries (RFC 6890), both as last updated on 2025-10-09: what they list as not
 * globally reachable is LOCAL. Beside the registries: multicast, site-local, and what they call reachable although no
 * connection should end there, marked with *. A row of GLOBAL is an exception to a wider net below it. */
static const struct policy_net policy_ipv4[] = {
    {{255, 255, 255, 255}, 32, POLICY_NOWHERE}, /* limited broadcast, RFC 919 */
    {{0}, 8, POLICY_NOWHERE},                   /* this network, RFC 791; Linux dials 0.0.0.0 as itself */
    {{127}, 8, POLICY_LOOPBACK},                /* RFC 1122 */
    {{224}, 4, POLICY_MULTICAST},               /* RFC 5771 */
    {{10}, 8, POLICY_LOCAL},                    /* private, RFC 1918 */
    {{100, 64}, 10, POLICY_LOCAL},              /* carrier-grade NAT, RFC 6598 */
    {{169, 254}, 16, POLICY_LOCAL},             /* link-local, RFC 3927; cloud metadata lives here */
    {{172, 16}, 12, POLICY_LOCAL},              /* private, RFC 1918 */
    {{192, 0, 0},
     24,
     POLICY_LOCAL}, /* protocol assignments, RFC 6890; * .9 and .10: anycast to our own network's NAT */
    {{192, 0, 2}, 24, POLICY_LOCAL},    /* documentation, RFC 5737 */
    {{192, 88, 99}, 24, POLICY_LOCAL},  /* relays of 6to4, deprecated by RFC 7526 */
    {{192, 168}, 16, POLICY_LOCAL},     /* private, RFC 1918 */
    {{198, 18}, 15, POLICY_LOCAL},      /* benchmarks, RFC 2544 */
    {{198, 51, 100}, 24, POLICY_LOCAL}, /* documentation, RFC 5737 */
    {{203, 0, 113}, 24, POLICY_LOCAL},
    {{240}, 4, POLICY_LOCAL}, /* reserved, RFC 1112 */
};

static const struct policy_net policy_ipv6[] = {
    {{0}, 128, POLICY_NOWHERE},                                /* ::, RFC 4291 */
    {{[15] = 1}, 128, POLICY_LOOPBACK},                        /* RFC 4291 */
    {{0xff}, 8, POLICY_MULTICAST},                             /* RFC 4291 */
    {{0x01, 0x00}, 64, POLICY_LOCAL},                          /* discard, RFC 6666 */
    {{0x01, 0x00, [7] = 0x01}, 64, POLICY_LOCAL},              /* dummy prefix, RFC 9780 */
    {{0x20, 0x01, 0x00, 0x03}, 32, POLICY_GLOBAL},             /* AMT, RFC 7450 */
    {{0x20, 0x01, 0x00, 0x04, 0x01, 0x12}, 48, POLICY_GLOBAL}, /* AS112, RFC 7535 */
    {{0x20, 0x01, 0x0d, 0xb8}, 32, POLICY_LOCAL},              /* documentation, RFC 3849 */
    {{0x3f, 0xff}, 20, POLICY_LOCAL},                          /* documentation, RFC 9637 */
    {{0x5f, 0x00}, 16, POLICY_LOCAL},                          /* segment identifiers, RFC 9602 */
    {{0xfc}, 7, POLICY_LOCAL},                                 /* unique-local, RFC 4193 */
    {{0xfe, 0x80}, 10, POLICY_LOCAL},                          /* link-local, RFC 4291 */
    {{0xfe, 0xc0}, 10, POLICY_LOCAL},                          /* site-local, RFC 3879 */
};

/* Behind the carriers, of which Teredo lies inside. */
static const struct policy_net policy_ipv6_wide[] = {
    /* Protocol assignments, RFC 2928: benchmarks (2001:2::/48) and what is not assigned yet; * anycast to the nearest
     * server (2001:1::/32) and identifiers that are no places (ORCHID 2001:10::/28, ORCHIDv2 2001:20::/28, RFC 9374's
     * 2001:30::/28). */
    {{0x20, 0x01, 0x00, 0x00}, 23, POLICY_LOCAL},
};

struct policy_carrier {
    uint8_t octets[16];
    uint8_t bits;
    uint8_t offset;   /* where the IPv4 address stands */
    uint8_t inverted; /* 0xff: its bits are flipped */
    uint8_t at_most;  /* the class in place of GLOBAL */
};

static const struct policy_carrier policy_carriers[] = {
    {{[10] = 0xff, [11] = 0xff}, 96, 12, 0, POLICY_GLOBAL},  /* v4-mapped: the kernel dials IPv4 */
    {{[8] = 0xff, [9] = 0xff}, 96, 12, 0, POLICY_GLOBAL},    /* v4-translated, RFC 2765 */
    {{0}, 96, 12, 0, POLICY_GLOBAL},                         /* v4-compatible, RFC 4291 */
    {{0x00, 0x64, 0xff, 0x9b}, 96, 12, 0, POLICY_GLOBAL},    /* NAT64, RFC 6052 */
    {{0x20, 0x02}, 16, 2, 0, POLICY_GLOBAL},                 /* 6to4, RFC 3056 */
    {{0x20, 0x01, 0x00, 0x00}, 32, 12, 0xff, POLICY_GLOBAL}, /* Teredo's client, RFC 4380 */
    /* NAT64 of a site, RFC 8215: the site chooses the layout. Read as the usual /96, and never better than LOCAL,
     * which the prefix is by itself. */
    {{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, 12, 0, POLICY_LOCAL},
};

static bool policy_in_net(const uint8_t *octets, const uint8_t *net, unsigned bits)
{
    unsigned whole = bits / 8;
    unsigned rest = bits % 8;
    if (memcmp(octets, net, whole) != 0) return false;
    return rest == 0 || (octets[whole] ^ net[whole]) >> (8 - rest) == 0;
}

/* Whether a row matches; then *class is what it says. */
static bool policy_look_up(const struct policy_net *nets, size_t count, const uint8_t *octets, enum policy_class *class)
{
    for (size_t i = 0; i < count; i++) {
        if (!policy_in_net(octets, nets[i].octets, nets[i].bits)) continue;
        *class = (enum policy_class)nets[i].class;
        return true;
    }
    return false;
}
#define POLICY_LOOK_UP(nets, octets, class) policy_look_up((nets), sizeof(nets) / sizeof *(nets), (octets), (class))

static enum policy_class policy_classify_ipv4(const uint8_t *octets)
{
    enum policy_class class = POLICY_GLOBAL;
    POLICY_LOOK_UP(policy_ipv4, octets, &class);
    return class;
}

static void policy_read_carried(const struct policy_carrier *carrier, const uint8_t *octets, uint8_t ipv4[4])
{
    assert(carrier->offset + 4u <= 16);
    for (size_t i = 0; i < 4; i++) ipv4[i] = octets[carrier->offset + i] ^ carrier->inverted;
}

/* NULL: it is of none of these forms. */
static const struct policy_carrier *policy_find_carrier(const uint8_t *octets)
{
    for (size_t i = 0; i < sizeof policy_carriers / sizeof *policy_carriers; i++) {
        const struct policy_carrier *carrier = &policy_carriers[i];
        if (policy_in_net(octets, carrier->octets, carrier->bits)) return carrier;
    }
    return NULL;
}

static enum policy_class policy_classify_ipv6(const uint8_t *octets)
{
    enum policy_class class = POLICY_GLOBAL;
    if (POLICY_LOOK_UP(policy_ipv6, octets, &class)) return class;
    const struct policy_carrier *carrier = policy_find_carrier(octets);
    if (carrier) {
        uint8_t carried[4];
        policy_read_carried(carrier, octets, carried);
        class = policy_classify_ipv4(carried);
        return class == POLICY_GLOBAL ? (enum policy_class)carrier->at_most : class;
    }
    POLICY_LOOK_UP(policy_ipv6_wide, octets, &class);
    return class;
}

bool policy_carried(const struct address *address, uint8_t ipv4[4])
{
    enum policy_class class;
    if (address->kind != ADDRESS_IPV6 || POLICY_LOOK_UP(policy_ipv6, address->ipv6, &class)) return false;
    const struct policy_carrier *carrier = policy_find_carrier(address->ipv6);
    if (carrier) policy_read_carried(carrier, address->ipv6, ipv4);
    return carrier != NULL;
}

enum policy_class policy_classify(const struct address *address)
{
    assert(address->kind != ADDRESS_NONE);
    assert(address->kind != ADDRESS_NAME); /* judged after resolution */
    switch ((enum address_kind)address->kind) {
    case ADDRESS_IPV4: return policy_classify_ipv4(address->ipv4);
    case ADDRESS_IPV6: return policy_classify_ipv6(address->ipv6);
    case ADDRESS_UNIX: return POLICY_LOOPBACK;
    case ADDRESS_NONE:
    case ADDRESS_GROUP:
    case ADDRESS_NAME: break;
    }
    abort();
}

bool policy_allows(uint32_t blocked, const struct address *address)
{
    return (policy_classify(address) & (blocked | POLICY_NOWHERE)) == 0;
}

static uint32_t policy_find_word(const char *word, size_t size)
{
    static const struct {
        const char *name;
        uint32_t class;
    } words[] = {
        {"loopback", POLICY_LOOPBACK},
        {"multicast", POLICY_MULTICAST},
        {"local", POLICY_LOCAL},
        {"global", POLICY_GLOBAL},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strlen(words[i].name) == size && memcmp(words[i].name, word, size) == 0) return words[i].class;
    }
    return 0;
}

bool policy_parse(const char *text, uint32_t *blocked, const char **bad, size_t *bad_size)
{
    static const char blanks[] = " \t";
    bool more = text[strspn(text, blanks)] != '\0';
    uint32_t set = 0;
    while (more) {
        text += strspn(text, blanks);
        size_t size = strcspn(text, ",");
        const char *next = text + size;
        while (size > 0 && strchr(blanks, text[size - 1])) size--;
        uint32_t class = policy_find_word(text, size);
        if (class == 0) {
            *bad = text;
            *bad_size = size;
            return false;
        }
        set |= class;
        more = *next == ',';
        text = next + more;
    }
    *blocked = set;
    return true;
}
