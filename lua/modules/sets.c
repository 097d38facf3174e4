/* sets.*: large lists of names and networks with answers that do not depend on their size.
 *
 *   domains    an open-addressing hash of lower-case names over one block of text. A host is hashed once, from its end
 * to its beginning, and looked up at every label on the way: c, b.c, a.b.c. A million names take some 60 MiB. subnets
 * ranges of addresses, sorted and merged once, then binary search.
 *
 * What is kept is memory of the Lua state, so that its limit holds. Lists may come from peers: start and factor of the
 * hash are random, so that nobody can choose names that collide. */
#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "lua/engine/class.h"
#include "lua/engine/quote.h"
#include "lua/modules/modules.h"
#include "lua/modules/subnet.h"

#define NAME_MAX_SIZE 255u
#define LIST_CHANGED  "the list has changed while it was read" /* by a finalizer */
#define SHOWN_SIZE    80u                                      /* of a wrong entry, in its message */

static const struct class_key domains_class = {"sluice.domains"}, subnets_class = {"sluice.subnets"},
                              subnets6_class = {"sluice.subnets6"};

/* --- names --- */

struct domain_entry {
    uint32_t hash;
    uint32_t offset; /* of its text; its length stands before it */
};

struct domains {
    uint64_t start, factor;       /* of the hash */
    uint32_t count, mask;         /* of the table: a power of two less one */
    struct domain_entry *entries; /* offset 0: free */
    uint8_t *text;                /* an octet of length, then the name; the first octet is not used */
    size_t text_used, text_size;
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

static uint64_t hash_octet(const struct domains *d, uint64_t state, uint8_t octet)
{
    return (state ^ lower(octet)) * d->factor;
}

/* The low bits of a product know only the low bits of what went into it. */
static uint32_t hash_end(uint64_t state)
{
    return (uint32_t)((state ^ state >> 32) * 0xd6e8feb86659fd93u >> 32);
}

static uint32_t hash_name(const struct domains *d, const uint8_t *name, size_t size)
{
    uint64_t state = d->start;
    while (size > 0) state = hash_octet(d, state, name[--size]);
    return hash_end(state);
}

/* Raises "invalid <what> <entry>", with the entry on one line, cut where it is long. */
_Noreturn static void fail(lua_State *L, const char *what, const char *entry, size_t size)
{
    char text[SHOWN_SIZE * QUOTE_OCTET_MAX + 1];
    size_t used = 0;
    for (size_t i = 0; i < size && i < SHOWN_SIZE; i++) used += quote_octet(text + used, (unsigned char)entry[i], true);
    text[used] = '\0';
    luaL_error(L, "invalid %s \"%s\"%s", what, text, size > SHOWN_SIZE ? "..." : "");
    abort(); /* luaL_error() does not return, but its declaration does not say so */
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

static const char *source_element(struct source *s, size_t *size)
{
    int type = lua_rawgeti(s->L, 1, ++s->index);
    if (type != LUA_TNIL && type != LUA_TSTRING) luaL_error(s->L, "entry %I is no string", s->index);
    const char *text = lua_tolstring(s->L, -1, size);
    lua_pop(s->L, 1);
    return text;
}

/* The next entry that is not empty, or NULL. It is valid until Lua allocates something: then a finalizer may run, which
 * may change the table. */
static const char *source_next(struct source *s, size_t *size)
{
    const char *entry;
    do {
        if (s->at)
            entry = s->at < s->end ? source_line(s, size) : NULL;
        else
            entry = source_element(s, size);
    } while (entry && *size == 0);
    return entry;
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

/* False: there is no room. */
static bool domains_add(struct domains *d, const uint8_t *name, size_t size)
{
    uint32_t hash = hash_name(d, name, size);
    struct domain_entry *e = domains_find(d, name, size, hash);
    if (e->offset != 0) return true;
    if (size + 1 > d->text_size - d->text_used || d->count > d->mask / 2) return false;
    *e = (struct domain_entry){hash, (uint32_t)d->text_used};
    d->text[d->text_used++] = (uint8_t)size;
    for (size_t i = 0; i < size; i++) d->text[d->text_used++] = lower(name[i]);
    d->count++;
    return true;
}

/* A name of a list, without its dots. */
static const char *domains_next(struct source *s, size_t *size)
{
    const char *entry = source_next(s, size);
    if (!entry) return NULL;
    size_t trimmed = *size;
    const char *name = trim_name(entry, &trimmed);
    if (trimmed == 0 || trimmed > NAME_MAX_SIZE) fail(s->L, "domain", entry, *size);
    *size = trimmed;
    return name;
}

/* How many there are, and how much text. */
static size_t domains_measure(lua_State *L, size_t *text)
{
    size_t count = 0, size;
    struct source s = source_open(L);
    *text = 1;
    for (; domains_next(&s, &size); count++) *text += size + 1;
    if (count > UINT32_MAX / 8 || *text > UINT32_MAX) luaL_error(L, "too many domains");
    return count;
}

/* Pushes an empty table of that size. */
static struct domains *domains_push(lua_State *L, size_t slots, size_t text)
{
    struct domains *d = lua_newuserdatauv(L, sizeof *d, 2);
    *d = (struct domains){.mask = (uint32_t)(slots - 1), .text_used = 1, .text_size = text};
    d->entries = lua_newuserdatauv(L, slots * sizeof *d->entries, 0);
    lua_setiuservalue(L, -2, 1);
    d->text = lua_newuserdatauv(L, text, 0);
    lua_setiuservalue(L, -2, 2);
    memset(d->entries, 0, slots * sizeof *d->entries);
    class_set(L, &domains_class);
    uint64_t random[2] = {(uintptr_t)d, (uintptr_t)d};
    (void)!getrandom(random, sizeof random, GRND_NONBLOCK);
    d->start = random[0];
    d->factor = random[1] | UINT64_C(0x100000001); /* odd, and never small */
    return d;
}

/* sets.domains(list) -> predicate                                                                   [-0, +1, e] */
static int domains_new(lua_State *L)
{
    size_t text, count = domains_measure(L, &text), slots = 8, size;
    while (slots < count * 2) slots *= 2;
    lua_settop(L, 1);
    struct domains *d = domains_push(L, slots, text);
    struct source s = source_open(L);
    for (const char *name; (name = domains_next(&s, &size));)
        if (!domains_add(d, (const uint8_t *)name, size)) return luaL_error(L, LIST_CHANGED);
    return 1;
}

static bool domains_hold(const struct domains *d, const uint8_t *name, size_t size)
{
    uint64_t state = d->start;
    size_t stop = size > NAME_MAX_SIZE ? size - NAME_MAX_SIZE : 0; /* no entry is longer */
    for (size_t i = size; i-- > stop;) {
        state = hash_octet(d, state, name[i]);
        if (i > 0 && name[i - 1] != '.') continue;
        if (domains_find(d, name + i, size - i, hash_end(state))->offset != 0) return true;
    }
    return false;
}

/* predicate(host) -> boolean                                                                        [-0, +1, e] */
static int domains_call(lua_State *L)
{
    const struct domains *d = class_check(L, 1, &domains_class);
    size_t size;
    const char *name = luaL_checklstring(L, 2, &size);
    if (size > 0 && name[size - 1] == '.') size--;
    lua_pushboolean(L, domains_hold(d, (const uint8_t *)name, size));
    return 1;
}

static int domains_length(lua_State *L)
{
    const struct domains *d = class_check(L, 1, &domains_class);
    lua_pushinteger(L, d->count);
    return 1;
}

/* --- networks: IPv4 as IPv6, so that both are one --- */

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

static struct subnet check_subnet(lua_State *L, int family, const char *entry, size_t size)
{
    struct subnet subnet;
    const char *wrong = subnet_parse(family, entry, size, &subnet);
    if (wrong) fail(L, wrong, entry, size);
    return subnet;
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

static int subnets_new(lua_State *L, int family, const struct class_key *class)
{
    size_t count = 0, size;
    struct source s = source_open(L);
    while (source_next(&s, &size)) count++;
    if (count > SIZE_MAX / sizeof(struct range) / 2) return luaL_error(L, "too many subnets");
    lua_settop(L, 1);
    struct subnets *subnets = lua_newuserdatauv(L, sizeof *subnets + count * sizeof(struct range), 0);
    subnets->count = 0;
    class_set(L, class);
    s = source_open(L);
    for (const char *entry; (entry = source_next(&s, &size));) {
        if (subnets->count == count) return luaL_error(L, LIST_CHANGED);
        struct subnet subnet = check_subnet(L, family, entry, size);
        subnets->ranges[subnets->count++] = (struct range){subnet.first, subnet.last};
    }
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
    return subnets_new(L, AF_INET, &subnets_class);
}

/* sets.subnets6(list) -> predicate                                                                  [-0, +1, e] */
static int subnets6_new(lua_State *L)
{
    return subnets_new(L, AF_INET6, &subnets6_class);
}

/* predicate(ip) -> boolean                                                                          [-0, +1, e] */
static int subnets4_call(lua_State *L)
{
    const struct subnets *s = class_check(L, 1, &subnets_class);
    lua_Integer ip = luaL_checkinteger(L, 2);
    lua_pushboolean(L, ip >= 0 && ip <= UINT32_MAX && subnets_hold(s, (struct number){0, (uint64_t)ip}));
    return 1;
}

/* predicate(high, low) -> boolean                                                                   [-0, +1, e] */
static int subnets6_call(lua_State *L)
{
    const struct subnets *s = class_check(L, 1, &subnets6_class);
    struct number address = {(uint64_t)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3)};
    lua_pushboolean(L, subnets_hold(s, address));
    return 1;
}

/* sets.cidr(text) -> subnet, bits                                                                   [-0, +2, e] */
static int sets_cidr(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    struct subnet subnet = check_subnet(L, AF_INET, text, size);
    lua_pushinteger(L, (lua_Integer)subnet.first.low);
    lua_pushinteger(L, subnet.bits);
    return 2;
}

/* sets.cidr6(text) -> high and low half of the subnet, bits                                         [-0, +3, e] */
static int sets_cidr6(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    struct subnet subnet = check_subnet(L, AF_INET6, text, size);
    lua_pushinteger(L, (lua_Integer)subnet.first.high);
    lua_pushinteger(L, (lua_Integer)subnet.first.low);
    lua_pushinteger(L, subnet.bits);
    return 3;
}

/* sets.equal(secret, given) -> boolean: strings, in a time that depends on what is given alone        [-0, +1, e] */
static int sets_equal(lua_State *L)
{
    size_t secret_size, size;
    const char *secret = luaL_checklstring(L, 1, &secret_size), *given = luaL_checklstring(L, 2, &size);
    volatile uint8_t differs = secret_size != size;
    for (size_t i = 0; i < size; i++) differs |= (uint8_t)(given[i] ^ (secret_size > 0 ? secret[i % secret_size] : 0));
    lua_pushboolean(L, differs == 0);
    return 1;
}

int luaopen_sets(lua_State *L)
{
    static const luaL_Reg functions[] = {{"domains", domains_new},
                                         {"subnets", subnets4_new},
                                         {"subnets6", subnets6_new},
                                         {"cidr", sets_cidr},
                                         {"cidr6", sets_cidr6},
                                         {"equal", sets_equal},
                                         {NULL, NULL}};
    static const luaL_Reg domains_events[] = {{"__call", domains_call}, {"__len", domains_length}, {NULL, NULL}};
    static const luaL_Reg subnets_events[] = {{"__call", subnets4_call}, {NULL, NULL}};
    static const luaL_Reg subnets6_events[] = {{"__call", subnets6_call}, {NULL, NULL}};
    class_open(L, &domains_class, domains_events);
    class_open(L, &subnets_class, subnets_events);
    class_open(L, &subnets6_class, subnets6_events);
    lua_pop(L, 3);
    luaL_newlib(L, functions);
    return 1;
}
