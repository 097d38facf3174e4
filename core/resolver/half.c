#include "core/resolver/half.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "core/resolver/address_order.h"
#include "protocols/dns.h"

#define TTL_MS_MIN  1000u
#define TTL_MS_MAX  (60u * 60 * 1000)
#define TTL_MS_HALF (60u * 1000) /* one family has not answered */

static_assert(DNS_ADDRESSES_MAX == RESOLVE_ADDRESSES_MAX, "what an answer holds is what a request takes");

void halves_init(struct half halves[HALVES], int family)
{
    memset(halves, 0, HALVES * sizeof *halves);
    halves[HALF_IPV4].wanted = family != AF_INET6;
    halves[HALF_IPV6].wanted = family != AF_INET;
}

bool half_is_good(const struct half *half)
{
    return half->wanted && half->back && half->status == 0;
}

static void half_fill(struct half *half, uint8_t kind, const struct dns_addresses *found)
{
    half->count = found->count;
    memset(half->results, 0, sizeof half->results);
    for (uint32_t i = 0; i < found->count; i++) {
        half->results[i].kind = kind;
        memcpy(half->results[i].octets, found->octets[i], sizeof found->octets[i]);
    }
    address_order_sort(half->results, half->count);
    half->ttl_ms = (uint64_t)found->ttl * 1000;
    if (half->ttl_ms < TTL_MS_MIN) half->ttl_ms = TTL_MS_MIN;
    if (half->ttl_ms > TTL_MS_MAX) half->ttl_ms = TTL_MS_MAX;
}

void half_take(struct half *half, unsigned which, int status, bool gone, const uint8_t *answer, size_t size)
{
    struct dns_addresses found = {.count = 0};
    uint16_t type = which == HALF_IPV4 ? DNS_TYPE_A : DNS_TYPE_AAAA;
    half->back = true;
    half->gone = gone;
    half->status = status;
    if (status != 0) return;
    if (!dns_read_addresses(answer, size, type, &found))
        half->status = -EIO;
    else if (found.count == 0)
        half->status = -ENOENT;
    else
        half_fill(half, which == HALF_IPV4 ? ADDRESS_IPV4 : ADDRESS_IPV6, &found);
}

struct halves_state halves_look(const struct half halves[HALVES])
{
    struct halves_state state = {.all = true};
    for (unsigned i = 0; i < HALVES; i++) {
        if (!halves[i].wanted) continue;
        state.all &= halves[i].back;
        state.good |= half_is_good(&halves[i]);
        state.gone |= halves[i].back && halves[i].gone;
    }
    return state;
}

uint32_t halves_merge(const struct half halves[HALVES], struct resolve_result *out)
{
    const struct half *four = &halves[HALF_IPV4], *six = &halves[HALF_IPV6];
    return address_order_interlace(four->results, half_is_good(four) ? four->count : 0, six->results,
                                   half_is_good(six) ? six->count : 0, out, RESOLVE_ADDRESSES_MAX);
}

uint64_t halves_ttl_ms(const struct half halves[HALVES])
{
    uint64_t ttl_ms = TTL_MS_MAX;
    for (unsigned i = 0; i < HALVES; i++) {
        const struct half *half = &halves[i];
        uint64_t limit_ms = half_is_good(half) ? half->ttl_ms : TTL_MS_MAX;
        if (half->wanted && (!half->back || (half->status != 0 && half->status != -ENOENT))) limit_ms = TTL_MS_HALF;
        if (limit_ms < ttl_ms) ttl_ms = limit_ms;
    }
    return ttl_ms;
}

int halves_failure(const struct half halves[HALVES])
{
    int status = -ENOENT;
    for (unsigned i = 0; i < HALVES; i++) {
        const struct half *half = &halves[i];
        if (!half->wanted || !half->back) continue;
        if (half->gone) return -ENOENT;
        if (half->status != -ENOENT) status = half->status;
    }
    return status;
}
