/* The entries of a list that a script gives: the lines of a text, without blanks around them and without comments (#),
 * or the strings of a table. */
#ifndef SLUICE_LUA_MODULES_ENTRIES_H
#define SLUICE_LUA_MODULES_ENTRIES_H

#include <lua.h>
#include <stddef.h>

struct entries {
    lua_State *L;
    const char *at, *end; /* what is left of a text; NULL: a table */
    lua_Integer index;    /* of the table's last entry that was read */
};

/* Why a list that is read twice is refused: a finalizer may change it in between. */
#define ENTRIES_CHANGED "the list has changed while it was read"

/* Reads the list at index 1 of the stack from its beginning; raises an error if it is neither text nor table. */
struct entries entries_open(lua_State *L);
/* The next entry that is not empty, or NULL. It is valid until Lua allocates something: then a finalizer may run, which
 * may change the table. Raises an error if it is no string. */
const char *entries_next(struct entries *e, size_t *size);
/* Raises "invalid <what> <entry>", with the entry on one line, cut where it is long. */
_Noreturn void entries_refuse(lua_State *L, const char *what, const char *entry, size_t size);

#endif
