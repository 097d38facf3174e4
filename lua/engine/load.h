/* Source text of scripts: from files and standard input, gzip recognized, byte order mark and `#!` line taken off. */
#ifndef SLUICE_LUA_ENGINE_LOAD_H
#define SLUICE_LUA_ENGINE_LOAD_H

#include <lua.h>
#include <stddef.h>

#include "lua/engine/text.h"

#define LOAD_SIZE_MAX ((size_t)256 << 20) /* of a file, also decompressed: lists of a million names fit */

/* path "-": standard input. NULL, or what was wrong: a text with a place of its own in `reason`. */
const char *load_read(const char *path, struct engine_text *out, char *reason, size_t reason_size);

/* As lua_load() of a text chunk, without mark and `#!` line: LUA_OK and a function, or an error and its message on the
 * stack. Binary chunks are refused. */
int load_chunk(lua_State *L, const char *data, size_t size, const char *chunkname);
/* Gives the function on the top a table of its own for its globals, behind which stand the real ones. */
void load_sandbox(lua_State *L);
/* A package searcher for the scripts in the binary. */
int load_search_embedded(lua_State *L);

#endif
