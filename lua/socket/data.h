/* Buffers of scripts: the memory behind the objects of the `data` module, for what reads and writes them in place. */
#ifndef SLUICE_LUA_SOCKET_DATA_H
#define SLUICE_LUA_SOCKET_DATA_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DATA_SIZE_MAX ((size_t)256 << 20) /* octets of one buffer */

struct data_view {
    uint8_t *octets; /* valid as long as the object is reachable: it never moves */
    size_t size;     /* 0 is possible: a segment may be empty */
};

/* False: the value at `index` is no data object. Never raises. */
bool data_to_view(lua_State *L, int index, struct data_view *view);
/* Copies the first `size` elements of the table at `index`. Raises an argument error about `argument` unless each is an
 * integer of 0...255. */
void data_copy_table(lua_State *L, int index, int argument, uint8_t *out, size_t size);
/* Writes these octets into the table on the top. No Lua runs meanwhile, so that `octets` may be anybody's. */
void data_fill_table(lua_State *L, const uint8_t *octets, size_t size);

#endif
