/* Ways out as text: a pool that is accepted lies within its bounds, each of its addresses lies in one of its networks
 * and so does the one behind it; what is refused leaves all as it was. */
#include "fuzz/check.h"
#include "protocols/egress_text.h"

#define INPUT_SIZE_MAX 1024u

static void check_place(const struct egress_sources *pool, const struct egress_place *place, uint8_t kind)
{
    assert(place->range < pool->count && pool->ranges[place->range].kind == kind);
    const struct egress_range *range = &pool->ranges[place->range];
    struct address address = egress_address(pool, place);
    unsigned width = kind == ADDRESS_IPV4 ? 32 : 128;
    assert(address.kind == kind && address.port == 0 && range->bits >= 8 && range->bits <= width);
    for (unsigned bit = 0; bit < range->bits; bit++) {
        unsigned at = 128 - width + bit;
        uint64_t half = at < 64 ? range->first.high : range->first.low;
        unsigned is = address.ipv6[bit / 8] >> (7 - bit % 8) & 1u;
        assert((half >> (63 - at % 64) & 1u) == is);
    }
}

static void check_pool(const struct egress_sources *pool, uint64_t number)
{
    assert(pool->given && pool->count <= EGRESS_RANGES_MAX && pool->by <= EGRESS_BY_RANDOM);
    for (unsigned k = ADDRESS_IPV4; k <= ADDRESS_IPV6; k++) {
        uint8_t kind = (uint8_t)k;
        struct egress_place place;
        for (unsigned spread = 0; spread < 2; spread++) {
            if (!egress_first(pool, kind, number, spread, &place)) continue;
            check_place(pool, &place, kind);
            for (unsigned i = 0; i < 40 && egress_next(pool, &place); i++) check_place(pool, &place, kind);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t number = 0;
    uint32_t mark;
    char device[EGRESS_DEVICE_SIZE];
    union {
        struct egress_sources pool;
        uint8_t octets[sizeof(struct egress_sources)];
    } given = {{0}}, before;
    if (size < sizeof number) return 0;
    if (size > INPUT_SIZE_MAX) size = INPUT_SIZE_MAX;
    memcpy(&number, data, sizeof number);
    size -= sizeof number;
    uint8_t *copy = check_copy(data + sizeof number, size);
    if (copy == NULL) return 0;
    for (unsigned i = 0; i < 2; i++) { /* the second time it is added to what is there */
        before = given;
        const char *wrong = egress_parse_sources((const char *)copy, size, &given.pool);
        if (wrong) assert(wrong[0] != '\0' && memcmp(given.octets, before.octets, sizeof before.octets) == 0);
        if (!wrong) check_pool(&given.pool, number);
    }
    egress_parse_mark((const char *)copy, size, &mark);
    if (egress_parse_device((const char *)copy, size, device)) assert(strlen(device) == size);
    free(copy);
    return 0;
}
