/* sets.*: large lists of names and networks with answers that do not depend on their size.
 *
 *   domains    an open-addressing hash of lower-case names over one block of text. A host is looked up label by label
 *              from the left: a.b.c, b.c, c. A million names take some 60 MiB and about a second to load.
 *   subnets    ranges of addresses, sorted and merged once, then binary search.
 *
 * All memory is the Lua state's, so that its limit holds. */
#include <arpa/inet.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "modules.h"

#define DOMAINS_CLASS  "sluice.domains"
#define SUBNETS_CLASS  "sluice.subnets"
#define SUBNETS6_CLASS "sluice.subnets6"
#define NAME_MAX_SIZE  255u

/* --- names --- */

struct domain_entry {
    uint32_t hash;
    uint32_t offset; /* of its text; its length stands before it */
};

struct domains {
    uint32_t count, mask;         /* of the table: a power of two less one */
    struct domain_entry *entries; /* offset 0: free */
    uint8_t *text;                /* an octet of length, then the name; the first octet is not used */
    size_t text_used;
};

/* Where an entry comes from: the lines of a text, or the elements of a table. */
struct source {
    lua_State *L;
    const char *at, *end; /* text; NULL: table */
    lua_Integer index;
};

static uint8_t lower(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? (uint8_t)(octet + 32) : octet;
}

static uint32_t hash_name(const uint8_t *name, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ lower(name[i])) * 0x100000001b3u;
    return (uint32_t)(hash ^ hash >> 32);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A line without blanks and comment; it may be empty. */
static const char *source_line(struct source *s, size_t *size)
{
    const char *start = s->at, *stop = memchr(s->at, '\n', (size_t)(s->end - s->at));
    if (!stop) stop = s->end;
    s->at = stop < s->end ? stop + 1 : s->end;
    const char *comment = memchr(start, '#', (size_t)(stop - start));
    if (comment) stop = comment;
    while (start < stop && is_blank(*start)) start++;
    while (stop > start && is_blank(stop[-1])) stop--;
    *size = (size_t)(stop - start);
    return start;
}

/* The next entry, or NULL. Of a table: leaves nothing on the stack, the string is anchored there. */
static const char *source_next(struct source *s, size_t *size)
{
    if (s->at) {
        while (s->at < s->end) {
            const char *line = source_line(s, size);
            if (*size > 0) return line;
        }
        return NULL;
    }
    if (lua_rawgeti(s->L, 1, ++s->index) == LUA_TNIL) {
        lua_pop(s->L, 1);
        return NULL;
    }
    if (lua_type(s->L, -1) != LUA_TSTRING) luaL_error(s->L, "entry %d is no string", (int)s->index);
    const char *text = lua_tolstring(s->L, -1, size);
    lua_pop(s->L, 1);
    return text;
}

static struct source source_open(lua_State *L)
{
    struct source s = {.L = L};
    if (lua_type(L, 1) == LUA_TSTRING) {
        size_t size;
        s.at = lua_tolstring(L, 1, &size);
        s.end = s.at + size;
        return s;
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    return s;
}

/* A dot in front of a name, and one behind it, mean nothing. */
static const char *trim_name(const char *name, size_t *size)
{
    if (*size > 0 && *name == '.') name++, (*size)--;
    if (*size > 0 && name[*size - 1] == '.') (*size)--;
    return name;
}

static bool domains_is(const struct domains *d, const struct domain_entry *e, const uint8_t *name, size_t size)
{
    const uint8_t *text = d->text + e->offset;
    if (text[0] != size) return false;
    for (size_t i = 0; i < size; i++)
        if (text[1 + i] != lower(name[i])) return false;
    return true;
}

/* The entry of that name, or the free one where it would stand. */
static struct domain_entry *domains_find(const struct domains *d, const uint8_t *name, size_t size, uint32_t hash)
{
    for (uint32_t i = hash & d->mask;; i = (i + 1) & d->mask) {
        struct domain_entry *e = &d->entries[i];
        if (e->offset == 0 || (e->hash == hash && domains_is(d, e, name, size))) return e;
    }
}

static void domains_add(struct domains *d, const uint8_t *name, size_t size)
{
    uint32_t hash = hash_name(name, size);
    struct domain_entry *e = domains_find(d, name, size, hash);
    if (e->offset != 0) return;
    *e = (struct domain_entry){hash, (uint32_t)d->text_used};
    d->text[d->text_used++] = (uint8_t)size;
    for (size_t i = 0; i < size; i++) d->text[d->text_used++] = lower((uint8_t)name[i]);
    d->count++;
}

/* How many there are, and how much text. */
static size_t domains_measure(lua_State *L, size_t *text)
{
    size_t count = 0, size;
    struct source s = source_open(L);
    *text = 1;
    for (const char *name; (name = source_next(&s, &size)); count++) {
        name = trim_name(name, &size);
        if (size == 0 || size > NAME_MAX_SIZE) luaL_error(L, "invalid domain '%s'", name);
        *text += size + 1;
    }
    if (count > UINT32_MAX / 8 || *text > UINT32_MAX) luaL_error(L, "too many domains");
    return count;
}

/* sets.domains(list) -> predicate                                                                   [-0, +1, e] */
static int domains_new(lua_State *L)
{
    size_t text, count = domains_measure(L, &text), slots = 8, size;
    while (slots < count * 2) slots *= 2;
    lua_settop(L, 1);
    struct domains *d = lua_newuserdatauv(L, sizeof *d, 2);
    *d = (struct domains){.mask = (uint32_t)(slots - 1), .text_used = 1};
    d->entries = lua_newuserdatauv(L, slots * sizeof *d->entries, 0);
    lua_setiuservalue(L, 2, 1);
    d->text = lua_newuserdatauv(L, text, 0);
    lua_setiuservalue(L, 2, 2);
    memset(d->entries, 0, slots * sizeof *d->entries);
    luaL_setmetatable(L, DOMAINS_CLASS);
    struct source s = source_open(L);
    for (const char *name; (name = source_next(&s, &size));) {
        name = trim_name(name, &size);
        domains_add(d, (const uint8_t *)name, size);
    }
    return 1;
}

/* predicate(host) -> boolean                                                                        [-0, +1, e] */
static int domains_call(lua_State *L)
{
    const struct domains *d = luaL_checkudata(L, 1, DOMAINS_CLASS);
    size_t size;
    const char *name = luaL_checklstring(L, 2, &size);
    name = trim_name(name, &size);
    bool found = false;
    while (size > 0 && size <= NAME_MAX_SIZE && !found) {
        const uint8_t *octets = (const uint8_t *)name;
        found = domains_find(d, octets, size, hash_name(octets, size))->offset != 0;
        const char *dot = memchr(name, '.', size);
        if (!dot) break;
        size -= (size_t)(dot + 1 - name);
        name = dot + 1;
    }
    lua_pushboolean(L, found);
    return 1;
}

static int domains_length(lua_State *L)
{
    const struct domains *d = luaL_checkudata(L, 1, DOMAINS_CLASS);
    lua_pushinteger(L, d->count);
    return 1;
}

/* --- networks: IPv4 as IPv6, so that both are one --- */

struct number {
    uint64_t high, low;
};
struct range {
    struct number first, last;
};
struct subnets {
    size_t count;
    struct range ranges[];
};

static int number_compare(struct number a, struct number b)
{
    if (a.high != b.high) return a.high < b.high ? -1 : 1;
    return a.low < b.low ? -1 : a.low > b.low;
}

static int range_compare(const void *a, const void *b)
{
    const struct range *left = a, *right = b;
    return number_compare(left->first, right->first);
}

/* The number behind it; the last one has none. */
static bool number_follows(struct number a, struct number b)
{
    struct number next = {a.high + (a.low == UINT64_MAX), a.low + 1};
    return (a.high != UINT64_MAX || a.low != UINT64_MAX) && number_compare(next, b) == 0;
}

static uint64_t mask_of(int bits)
{
    return bits <= 0 ? 0 : bits >= 64 ? UINT64_MAX : ~(UINT64_MAX >> bits);
}

static uint64_t read_u64(const uint8_t *octets)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | octets[i];
    return value;
}

/* The address of an entry in the low 32 bits (IPv4) or all 128. */
static bool parse_number(int family, const char *text, struct number *out)
{
    uint8_t octets[16] = {0};
    if (inet_pton(family, text, family == AF_INET ? octets + 12 : octets) != 1) return false;
    *out = (struct number){read_u64(octets), read_u64(octets + 8)};
    return true;
}

/* Raises with the entry, which stands on top. */
_Noreturn static void fail(lua_State *L, const char *what)
{
    luaL_error(L, "invalid %s \"%s\"", what, lua_tostring(L, -1));
    abort(); /* luaL_error() does not return, but its declaration does not say so */
}

/* `address/bits`; the word "subnet" of the messages is the contract's. */
static struct range parse_subnet(lua_State *L, int family, const char *entry, size_t size)
{
    char text[64];
    struct number address = {0, 0};
    int width = family == AF_INET ? 32 : 128;
    const char *slash = memchr(entry, '/', size);
    lua_pushlstring(L, entry, size);
    if (!slash || (size_t)(slash - entry) >= sizeof text) fail(L, "subnet");
    memcpy(text, entry, (size_t)(slash - entry));
    text[slash - entry] = '\0';
    char *end;
    long bits = slash[1] >= '0' && slash[1] <= '9' ? strtol(lua_tostring(L, -1) + (slash - entry) + 1, &end, 10) : -1;
    if (bits < 0 || bits > width || *end) fail(L, "prefix size");
    if (!parse_number(family, text, &address)) fail(L, "subnet");
    int network = 128 - width + (int)bits;
    struct number mask = {mask_of(network), mask_of(network - 64)};
    struct number last = {address.high | ~mask.high, address.low | ~mask.low};
    if ((address.high & ~mask.high) != 0 || (address.low & ~mask.low) != 0)
        fail(L, "subnet"); /* bits of a host are set */
    lua_pop(L, 1);
    return (struct range){address, last};
}

/* Sorted, and those that touch or overlap made one. */
static void subnets_merge(struct subnets *s)
{
    size_t kept = 0;
    if (s->count == 0) return;
    qsort(s->ranges, s->count, sizeof *s->ranges, range_compare);
    for (size_t i = 1; i < s->count; i++) {
        struct range *last = &s->ranges[kept], *next = &s->ranges[i];
        bool joins = number_compare(next->first, last->last) <= 0 || number_follows(last->last, next->first);
        if (!joins)
            s->ranges[++kept] = *next;
        else if (number_compare(next->last, last->last) > 0)
            last->last = next->last;
    }
    s->count = kept + 1;
}

static int subnets_new(lua_State *L, int family, const char *class)
{
    size_t count = 0, size;
    struct source s = source_open(L);
    while (source_next(&s, &size)) count++;
    if (count > SIZE_MAX / sizeof(struct range) / 2) return luaL_error(L, "too many subnets");
    lua_settop(L, 1);
    struct subnets *subnets = lua_newuserdatauv(L, sizeof *subnets + count * sizeof(struct range), 0);
    subnets->count = 0;
    luaL_setmetatable(L, class);
    s = source_open(L);
    for (const char *entry; (entry = source_next(&s, &size));)
        subnets->ranges[subnets->count++] = parse_subnet(L, family, entry, size);
    subnets_merge(subnets);
    return 1;
}

static bool subnets_hold(const struct subnets *s, struct number address)
{
    size_t low = 0, high = s->count; /* the first range that begins behind the address is in low...high */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (number_compare(s->ranges[middle].first, address) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && number_compare(address, s->ranges[low - 1].last) <= 0;
}

/* sets.subnets(list) -> predicate                                                                   [-0, +1, e] */
static int subnets4_new(lua_State *L)
{
    return subnets_new(L, AF_INET, SUBNETS_CLASS);
}

/* sets.subnets6(list) -> predicate                                                                  [-0, +1, e] */
static int subnets6_new(lua_State *L)
{
    return subnets_new(L, AF_INET6, SUBNETS6_CLASS);
}

/* predicate(ip) -> boolean                                                                          [-0, +1, e] */
static int subnets4_call(lua_State *L)
{
    const struct subnets *s = luaL_checkudata(L, 1, SUBNETS_CLASS);
    lua_Integer ip = luaL_checkinteger(L, 2);
    lua_pushboolean(L, ip >= 0 && ip <= UINT32_MAX && subnets_hold(s, (struct number){0, (uint64_t)ip}));
    return 1;
}

/* predicate(high, low) -> boolean                                                                   [-0, +1, e] */
static int subnets6_call(lua_State *L)
{
    const struct subnets *s = luaL_checkudata(L, 1, SUBNETS6_CLASS);
    struct number address = {(uint64_t)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3)};
    lua_pushboolean(L, subnets_hold(s, address));
    return 1;
}

/* sets.equal(a, b) -> boolean: strings, in a time that depends on the length of `b` alone            [-0, +1, e] */
static int sets_equal(lua_State *L)
{
    size_t a_size, b_size;
    const char *a = luaL_checklstring(L, 1, &a_size), *b = luaL_checklstring(L, 2, &b_size);
    volatile uint8_t differs = a_size != b_size;
    for (size_t i = 0; i < b_size; i++) differs |= (uint8_t)(b[i] ^ (a_size > 0 ? a[i % a_size] : 0));
    lua_pushboolean(L, differs == 0);
    return 1;
}

static void sets_class(lua_State *L, const char *name, lua_CFunction call, lua_CFunction length)
{
    luaL_newmetatable(L, name);
    lua_pushcfunction(L, call);
    lua_setfield(L, -2, "__call");
    if (length) {
        lua_pushcfunction(L, length);
        lua_setfield(L, -2, "__len");
    }
    lua_pop(L, 1);
}

int luaopen_sets(lua_State *L)
{
    static const luaL_Reg functions[] = {{"domains", domains_new},
                                         {"subnets", subnets4_new},
                                         {"subnets6", subnets6_new},
                                         {"equal", sets_equal},
                                         {NULL, NULL}};
    sets_class(L, DOMAINS_CLASS, domains_call, domains_length);
    sets_class(L, SUBNETS_CLASS, subnets4_call, NULL);
    sets_class(L, SUBNETS6_CLASS, subnets6_call, NULL);
    luaL_newlib(L, functions);
    return 1;
}
