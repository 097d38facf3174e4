/* Names in an open-addressing hash over one block of text, in lower case. A host is hashed once, from its end to its
 * beginning, and looked up at every label on the way: c, b.c, a.b.c. A million names take some 60 MiB.
 *
 * What is kept is memory of the Lua state, so that its limit holds. Lists may come from peers: start and factor of the
 * hash are random, so that nobody can choose names that collide. */
#include "lua/modules/domains.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#include "lua/engine/class.h"
#include "lua/modules/entries.h"

#define NAME_MAX_SIZE 255u

static const struct class_key domains_class = {"sluice.domains"};

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
static const char *domains_next(struct entries *e, size_t *size)
{
    const char *entry = entries_next(e, size);
    if (!entry) return NULL;
    size_t trimmed = *size;
    const char *name = trim_name(entry, &trimmed);
    if (trimmed == 0 || trimmed > NAME_MAX_SIZE) entries_refuse(e->L, "domain", entry, *size);
    *size = trimmed;
    return name;
}

/* How many there are, and how much text. */
static size_t domains_measure(lua_State *L, size_t *text)
{
    size_t count = 0, size;
    struct entries e = entries_open(L);
    *text = 1;
    for (; domains_next(&e, &size); count++) *text += size + 1;
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

int domains_new(lua_State *L)
{
    size_t text, count = domains_measure(L, &text), slots = 8, size;
    while (slots < count * 2) slots *= 2;
    lua_settop(L, 1);
    struct domains *d = domains_push(L, slots, text);
    struct entries e = entries_open(L);
    for (const char *name; (name = domains_next(&e, &size));)
        if (!domains_add(d, (const uint8_t *)name, size)) return luaL_error(L, ENTRIES_CHANGED);
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

void domains_open(lua_State *L)
{
    static const luaL_Reg events[] = {{"__call", domains_call}, {"__len", domains_length}, {NULL, NULL}};
    class_open(L, &domains_class, events);
    lua_pop(L, 1);
}
