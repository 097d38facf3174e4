#include "protocols/egress_text.h"

#include <arpa/inet.h>
#include <assert.h>
#include <string.h>

/* --- reading --- */

static bool is_word(const char *text, size_t size, const char *word)
{
    return strlen(word) == size && memcmp(text, word, size) == 0;
}

static const char *parse_by(const char *text, size_t size, struct egress_sources *sources)
{
    static const char *const words[] = {[EGRESS_BY_USER] = "user",
                                        [EGRESS_BY_SOURCE] = "source",
                                        [EGRESS_BY_ROUND] = "round",
                                        [EGRESS_BY_RANDOM] = "random"};
    if (sources->by != EGRESS_BY_DEFAULT) return "by= is there twice, give it once";
    for (unsigned i = EGRESS_BY_USER; i <= EGRESS_BY_RANDOM; i++) {
        if (!is_word(text, size, words[i])) continue;
        sources->by = (uint8_t)i;
        return NULL;
    }
    return "give by=user, by=source, by=round or by=random";
}

/* Whether nothing can come from any address of that network. */
static bool is_nowhere(int family, const struct subnet *net)
{
    if (family == AF_INET)
        return net->first.low >> 24 == 0 || net->first.low >> 28 == 0xe || net->last.low == UINT32_MAX;
    bool mapped = net->first.high == 0 && net->first.low >> 32 == 0xffff;
    return mapped || net->first.high >> 56 == 0xff || (net->first.high == 0 && net->first.low == 0);
}

static const char *parse_range(const char *text, size_t size, struct egress_sources *sources)
{
    char whole[64];
    struct subnet net;
    bool colon = memchr(text, ':', size) != NULL, bare = memchr(text, '/', size) == NULL;
    int family = colon ? AF_INET6 : AF_INET;
    const char *all = colon ? "/128" : "/32";
    if (size + strlen(all) >= sizeof whole || memchr(text, '\0', size))
        return "this is no address, give an address, address/bits, same, any or by=";
    memcpy(whole, text, size);
    if (bare) memcpy(whole + size, all, strlen(all));
    const char *wrong = subnet_parse(family, whole, size + (bare ? strlen(all) : 0), &net);
    if (wrong && bare) return "this is no address, give an address, address/bits, same, any or by=";
    if (wrong) return "this is no network, give address/bits with nothing but zeros behind the bits, and no port";
    if (net.bits < 8) return "the network is too large, give /8 at most";
    if (is_nowhere(family, &net)) return "nobody can send from this address, give one of this machine's";
    if (sources->count == EGRESS_RANGES_MAX) return "there are more than 16 addresses and networks, give fewer";
    sources->ranges[sources->count++] = (struct egress_range){
        .kind = colon ? ADDRESS_IPV6 : ADDRESS_IPV4, .bits = (uint8_t)net.bits, .first = net.first};
    return NULL;
}

const char *egress_parse_sources(const char *text, size_t size, struct egress_sources *sources)
{
    struct egress_sources all = *sources;
    for (const char *next = text, *end = text + size;; next++) {
        const char *comma = memchr(next, ',', (size_t)(end - next)), *wrong = NULL;
        size_t member = (size_t)((comma ? comma : end) - next);
        if (member == 0) return "a member is empty, give an address, address/bits, same, any or by=";
        if (is_word(next, member, "same"))
            all.same = true;
        else if (is_word(next, member, "any"))
            all.any = true;
        else if (member > 3 && memcmp(next, "by=", 3) == 0)
            wrong = parse_by(next + 3, member - 3, &all);
        else
            wrong = parse_range(next, member, &all);
        if (wrong) return wrong;
        next += member;
        if (next == end) break;
    }
    if (all.any && (all.same || all.count > 0 || all.by != EGRESS_BY_DEFAULT))
        return "any stands alone, leave the others out";
    all.given = true;
    *sources = all;
    return NULL;
}

const char *egress_check_sources(const struct egress_sources *sources)
{
    bool chooses = !sources->given || sources->any || sources->same || sources->count > 0;
    return chooses ? NULL : "by= chooses among addresses, give some";
}

bool egress_parse_mark(const char *text, size_t size, uint32_t *mark)
{
    uint64_t value = 0;
    unsigned base = size > 2 && text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10;
    size_t at = base == 16 ? 2 : 0;
    if (size == 0 || size > 10) return false;
    for (; at < size; at++) {
        char c = text[at];
        unsigned digit = c >= '0' && c <= '9'                     ? (unsigned)(c - '0')
                         : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (unsigned)((c | 0x20) - 'a') + 10
                                                                  : 16;
        if (digit >= base) return false;
        value = value * base + digit;
    }
    if (value > UINT32_MAX) return false;
    *mark = (uint32_t)value;
    return true;
}

/* As the kernel has it (dev_valid_name); a percent sign is a pattern there. */
bool egress_parse_device(const char *text, size_t size, char device[EGRESS_DEVICE_SIZE])
{
    if (size == 0 || size >= EGRESS_DEVICE_SIZE || is_word(text, size, ".") || is_word(text, size, "..")) return false;
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] <= ' ' || text[i] == '/' || text[i] == ':' || text[i] == '%' || text[i] == 0x7f)
            return false;
    memset(device, 0, EGRESS_DEVICE_SIZE);
    memcpy(device, text, size);
    return true;
}

/* --- choosing --- */

/* Networks that have more hosts count as if they had so many: among them none gets nearly everything. */
#define HOSTS_MAX (UINT64_C(1) << 32)

/* splitmix64's last steps. */
uint64_t egress_mix(uint64_t number)
{
    number = (number ^ number >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    number = (number ^ number >> 27) * UINT64_C(0x94d049bb133111eb);
    return number ^ number >> 31;
}

static unsigned host_bits(const struct egress_range *range)
{
    return (range->kind == ADDRESS_IPV4 ? 32u : 128u) - range->bits;
}

/* The first address, and for IPv4 the last, is no host's. */
static bool has_network_address(const struct egress_range *range)
{
    return host_bits(range) > 1;
}

/* At most HOSTS_MAX. */
static uint64_t hosts_of(const struct egress_range *range)
{
    unsigned bits = host_bits(range);
    if (bits >= 33) return HOSTS_MAX;
    uint64_t all = UINT64_C(1) << bits;
    if (!has_network_address(range)) return all;
    return range->kind == ADDRESS_IPV4 ? all - 2 : all - 1;
}

static uint64_t hosts_of_kind(const struct egress_sources *sources, uint8_t kind)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < sources->count; i++)
        if (sources->ranges[i].kind == kind) all += hosts_of(&sources->ranges[i]);
    return all;
}

/* The bits of a host number that its network has room for, and not all zero where that is the network's own address. */
static struct number host_within(const struct egress_range *range, struct number host)
{
    unsigned bits = host_bits(range);
    host.high = bits <= 64 ? 0 : bits == 128 ? host.high : host.high & ((UINT64_C(1) << (bits - 64)) - 1);
    if (bits < 64) host.low &= (UINT64_C(1) << bits) - 1;
    if (has_network_address(range) && host.high == 0 && host.low == 0) host.low = 1;
    return host;
}

/* The host with that number, from 0 on. */
static struct number host_numbered(const struct egress_range *range, uint64_t number)
{
    return host_within(range, (struct number){.low = number + (has_network_address(range) ? 1 : 0)});
}

bool egress_first(const struct egress_sources *sources, uint8_t kind, uint64_t number, bool spread,
                  struct egress_place *place)
{
    uint64_t all = hosts_of_kind(sources, kind);
    if (all == 0) return false;
    if (spread) number = egress_mix(number);
    uint64_t left = number % all;
    for (unsigned i = 0; i < sources->count; i++) {
        const struct egress_range *range = &sources->ranges[i];
        uint64_t hosts = hosts_of(range);
        if (range->kind != kind) continue;
        if (left >= hosts) {
            left -= hosts;
            continue;
        }
        place->range = (uint8_t)i;
        bool large = spread && hosts == HOSTS_MAX;
        place->host = large ? host_within(range, (struct number){egress_mix(number + 1), egress_mix(number + 2)})
                            : host_numbered(range, left);
        return true;
    }
    return false;
}

/* The host behind that one in its network, the first one behind the last. */
static struct number host_behind(const struct egress_range *range, struct number host)
{
    struct number next = {.high = host.high + (host.low == UINT64_MAX), .low = host.low + 1};
    next = host_within(range, next);
    bool last = range->kind == ADDRESS_IPV4 && has_network_address(range) && next.low > hosts_of(range);
    return last ? host_within(range, (struct number){0, 0}) : next;
}

bool egress_next(const struct egress_sources *sources, struct egress_place *place)
{
    const struct egress_range *now = &sources->ranges[place->range];
    unsigned next = place->range;
    assert(place->range < sources->count);
    do next = next + 1 < sources->count ? next + 1 : 0;
    while (sources->ranges[next].kind != now->kind);
    if (next == place->range && hosts_of(now) == 1) return false;
    struct number host = next <= place->range ? host_behind(now, place->host) : place->host; /* once round: others */
    if (next != place->range) {
        const struct egress_range *range = &sources->ranges[next];
        host =
            hosts_of(range) == HOSTS_MAX ? host_within(range, host) : host_numbered(range, host.low % hosts_of(range));
    }
    *place = (struct egress_place){.range = (uint8_t)next, .host = host};
    return true;
}

static void write_half(uint64_t half, uint8_t *out)
{
    for (unsigned i = 0; i < 8; i++) out[i] = (uint8_t)(half >> (56 - 8 * i));
}

struct address egress_address(const struct egress_sources *sources, const struct egress_place *place)
{
    assert(place->range < sources->count);
    const struct egress_range *range = &sources->ranges[place->range];
    struct address out = {.kind = range->kind};
    uint8_t octets[16];
    write_half(range->first.high | place->host.high, octets);
    write_half(range->first.low | place->host.low, octets + 8);
    if (range->kind == ADDRESS_IPV4)
        memcpy(out.ipv4, octets + 12, sizeof out.ipv4);
    else
        memcpy(out.ipv6, octets, sizeof out.ipv6);
    return out;
}
