/* What zlib.* gives to other files: unpacking within the time budget. */
#ifndef SLUICE_LUA_MODULES_ZLIB_H
#define SLUICE_LUA_MODULES_ZLIB_H

#include <lua.h>

#include "lua/engine/codec.h"
#include "lua/engine/text.h"

/* codec_decode() for at most CODEC_OUTPUT_MAX octets, on a thread where the input is large. Raises over the budget.
 * *out is the caller's, without data unless CODEC_OK. */
enum codec_result zlib_unpack(lua_State *L, enum codec codec, const char *data, size_t size, struct engine_text *out);

#endif
