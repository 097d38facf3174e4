#include "lua/modules/marshal.h"

#include <ctype.h>
#include <inttypes.h>
#include <lauxlib.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "lua/engine/buffer.h"
#include "lua/engine/limits.h"
#include "lua/engine/quote.h"
#include "lua/modules/modules.h"

#define ENCODE_DEPTH_MAX 196
#define DECIMAL_MAX      INT64_C(999999999999) /* beyond this an integer is shorter in hexadecimal */
#define WRITER_ROOM_MIN  256u

/* --- writing --- */

struct writer {
    lua_State *L;
    struct limits_meter meter;
    int index; /* of the struct buffer that is written to */
};

static void write_octets(struct writer *w, const char *data, size_t size)
{
    struct buffer *b = buffer_reserve(w->L, w->index, size);
    if (size > 0) memcpy(b->octets + b->size, data, size);
    b->size += size;
}

static void write_text(struct writer *w, const char *text)
{
    write_octets(w, text, strlen(text));
}

/* --- values to text --- */

/* The tables that are being written, from the innermost outwards. */
struct within {
    const void *table;
    const struct within *outer;
    int depth;
};

static void encode_value(struct writer *w, int index, const struct within *outer);

static void encode_string(struct writer *w, const char *s, size_t size)
{
    size_t plain = 0; /* what can stand as it is begins here */
    write_text(w, "\"");
    for (size_t i = 0; i < size; i++) {
        char escape[QUOTE_OCTET_MAX];
        limits_step(&w->meter, 1);
        if (!quote_is_needed((unsigned char)s[i])) continue;
        write_octets(w, s + plain, i - plain);
        write_octets(w, escape, quote_octet(escape, (unsigned char)s[i], false));
        plain = i + 1;
    }
    write_octets(w, s + plain, size - plain);
    write_text(w, "\"");
}

static void encode_integer(struct writer *w, lua_Integer value)
{
    char text[24];
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    if (magnitude <= (uint64_t)DECIMAL_MAX)
        snprintf(text, sizeof text, "%" PRId64, (int64_t)value);
    else /* the least integer has no positive twin: its hexadecimal form wraps around to it */
        snprintf(text, sizeof text, "%s0x%" PRIx64, value < 0 && value != LUA_MININTEGER ? "-" : "", magnitude);
    write_text(w, text);
}

static void encode_float(struct writer *w, lua_Number value)
{
    char text[48];
    if (isnan(value))
        write_text(w, "0/0");
    else if (isinf(value))
        write_text(w, value < 0 ? "-1/0" : "1/0");
    else if (value == 0)
        write_text(w, signbit(value) ? "-0.0" : "0");
    else {
        char *point = text;
        snprintf(text, sizeof text, "%a", value);
        while (*point == '-' || isalnum((unsigned char)*point)) point++;
        if (*point != '\0' && *point != '+') *point = '.'; /* a script may have set a locale that has a comma there */
        write_text(w, text);
    }
}

static void encode_key(struct writer *w, int index, const struct within *here)
{
    write_text(w, "[");
    encode_value(w, index, here);
    write_text(w, "]=");
}

/* In the order of lua_next(); as an array as long as the keys run 1, 2, 3 and so on. */
static void encode_table(struct writer *w, int index, const struct within *outer)
{
    lua_State *L = w->L;
    struct within here = {lua_topointer(L, index), outer, outer ? outer->depth + 1 : 1};
    lua_Integer expected = 1;
    for (const struct within *o = outer; o; o = o->outer)
        if (o->table == here.table) luaL_error(L, "circular referenced table is not marshallable");
    if (here.depth > ENCODE_DEPTH_MAX) luaL_error(L, "C stack overflow");
    luaL_checkstack(L, 8, "C stack overflow");
    if (lua_getmetatable(L, index)) {
        lua_pop(L, 1);
        lua_warning(L, "marshal: a metatable is ignored", 0);
    }
    write_text(w, "{");
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        int top = lua_gettop(L);
        if (expected > 0 && lua_isinteger(L, top - 1) && lua_tointeger(L, top - 1) == expected) {
            expected++;
        } else {
            expected = 0;
            encode_key(w, top - 1, &here);
        }
        encode_value(w, top, &here);
        write_text(w, ",");
    }
    write_text(w, "}");
}

static void encode_value(struct writer *w, int index, const struct within *outer)
{
    lua_State *L = w->L;
    size_t size;
    const char *s;
    limits_step(&w->meter, 16);
    switch (lua_type(L, index)) {
    case LUA_TNIL: write_text(w, "nil"); return;
    case LUA_TBOOLEAN: write_text(w, lua_toboolean(L, index) ? "true" : "false"); return;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            encode_integer(w, lua_tointeger(L, index));
        else
            encode_float(w, lua_tonumber(L, index));
        return;
    case LUA_TSTRING:
        s = lua_tolstring(L, index, &size);
        encode_string(w, s, size);
        return;
    case LUA_TTABLE: encode_table(w, index, outer); return;
    default: luaL_error(L, "%s is not marshallable", luaL_tolstring(L, index, NULL));
    }
}

void marshal_encode(lua_State *L, int first)
{
    int last = lua_gettop(L);
    struct writer w = {.L = L, .meter = {L, LIMITS_STEPS}, .index = last + 1};
    luaL_checkstack(L, 8, NULL);
    buffer_push(L, WRITER_ROOM_MIN);
    for (int i = first; i <= last; i++) {
        if (i > first) write_text(&w, ",");
        encode_value(&w, i, NULL);
    }
    const struct buffer *b = lua_touserdata(L, w.index);
    lua_pushlstring(L, b->octets, b->size);
    lua_replace(L, w.index);
}

/* marshal(...) -> string                                                                            [-0, +1, e] */
static int marshal_call(lua_State *L)
{
    marshal_encode(L, 1);
    return 1;
}

/* The first long string of a state makes the metatable of its luaL_Buffers. When memory ends in the middle of that, Lua
 * 5.4.4 keeps half of it, and every long string of the state fails from then on. Here is memory.    [-0, +0, m] */
static void prepare_buffers(lua_State *L)
{
    luaL_Buffer b;
    luaL_buffinitsize(L, &b, LUAL_BUFFERSIZE + 1);
    luaL_pushresultsize(&b, 0);
    lua_pop(L, 1);
}

int luaopen_marshal(lua_State *L)
{
    prepare_buffers(L);
    lua_pushcfunction(L, marshal_call);
    return 1;
}
