#include <lauxlib.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "lua/engine/limits.h"
#include "lua/modules/marshal.h"
#include "lua/modules/modules.h"

#define DECODE_DEPTH_MAX 200

struct reader {
    lua_State *L;
    struct limits_meter meter;
    const char *start, *at, *end;
    const char *wrong; /* static; NULL: nothing so far */
};

static bool read_value(struct reader *r, int depth);

static bool fail(struct reader *r, const char *wrong)
{
    if (!r->wrong) r->wrong = wrong;
    return false;
}

static int peek(const struct reader *r)
{
    return r->at < r->end ? (unsigned char)*r->at : -1;
}

static bool is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int hex_value(int c)
{
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The level of a long bracket that opens here ("[[" is 0, "[=[" is 1), or -1. */
static int long_level(const struct reader *r)
{
    const char *p = r->at;
    if (p >= r->end || *p++ != '[') return -1;
    int level = 0;
    while (p < r->end && *p == '=' && level < 1000) p++, level++;
    return p < r->end && *p == '[' ? level : -1;
}

/* Finds the end of a long bracket of that level, whose opening has been passed. */
static const char *long_end(const struct reader *r, int level)
{
    for (const char *p = r->at; p < r->end; p++) {
        if (*p != ']' || r->end - p < level + 2 || p[level + 1] != ']') continue;
        int i = 0;
        while (i < level && p[1 + i] == '=') i++;
        if (i == level) return p;
    }
    return NULL;
}

static bool skip_comment(struct reader *r)
{
    r->at += 2;
    int level = long_level(r);
    if (level < 0) {
        while (r->at < r->end && *r->at != '\n' && *r->at != '\r') r->at++;
        return true;
    }
    r->at += level + 2;
    const char *end = long_end(r, level);
    if (!end) return fail(r, "unfinished comment");
    r->at = end + level + 2;
    return true;
}

static bool skip_blanks(struct reader *r)
{
    for (;;) {
        while (is_space(peek(r))) r->at++;
        if (r->end - r->at < 2 || r->at[0] != '-' || r->at[1] != '-') return true;
        if (!skip_comment(r)) return false;
    }
}

static bool take(struct reader *r, int c)
{
    if (!skip_blanks(r) || peek(r) != c) return false;
    r->at++;
    return true;
}

/* A word that ends where it should. */
static bool take_word(struct reader *r, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(r->end - r->at) < size || memcmp(r->at, word, size) != 0) return false;
    if (r->at + size < r->end && (is_letter((unsigned char)r->at[size]) || is_digit((unsigned char)r->at[size])))
        return false;
    r->at += size;
    return true;
}

/* --- strings --- */

/* Behind a line end of one or two octets, which counts as one: \n, \r, \r\n or \n\r. */
static const char *skip_line_end(const char *at, const char *end)
{
    char first = *at++;
    return at < end && (*at == '\n' || *at == '\r') && *at != first ? at + 1 : at;
}

static bool is_line_end(int c)
{
    return c == '\n' || c == '\r';
}

/* A line end that follows the opening bracket is no part of it, the others are \n whatever they were. */
static bool read_long_string(struct reader *r, int level)
{
    luaL_Buffer b;
    r->at += level + 2;
    const char *end = long_end(r, level);
    if (!end) return fail(r, "unfinished long string");
    if (is_line_end(peek(r))) r->at = skip_line_end(r->at, end);
    luaL_buffinit(r->L, &b);
    while (r->at < end) {
        const char *line = r->at;
        limits_step(&r->meter, 16);
        while (r->at < end && !is_line_end((unsigned char)*r->at)) r->at++;
        luaL_addlstring(&b, line, (size_t)(r->at - line));
        if (r->at == end) break;
        luaL_addchar(&b, '\n');
        r->at = skip_line_end(r->at, end);
    }
    luaL_pushresult(&b);
    r->at = end + level + 2;
    return true;
}

/* \ddd: up to three decimal digits. */
static bool escape_decimal(struct reader *r, luaL_Buffer *b)
{
    int value = 0;
    for (int i = 0; i < 3 && is_digit(peek(r)); i++) value = value * 10 + (*r->at++ - '0');
    if (value > 255) return fail(r, "decimal escape too large");
    luaL_addchar(b, (char)value);
    return true;
}

/* \xXX */
static bool escape_hex(struct reader *r, luaL_Buffer *b)
{
    int value = 0;
    for (int i = 0; i < 2; i++) {
        int digit = hex_value(peek(r));
        if (digit < 0) return fail(r, "hexadecimal digit expected");
        value = value * 16 + digit;
        r->at++;
    }
    luaL_addchar(b, (char)value);
    return true;
}

/* The octets of a code point of up to 31 bits, as Lua writes them. */
static void add_utf8(luaL_Buffer *b, uint32_t code)
{
    char octets[8];
    unsigned count = 0;
    uint32_t first_max = 0x3f;
    if (code < 0x80) {
        luaL_addchar(b, (char)code);
        return;
    }
    do {
        octets[count++] = (char)(0x80 | (code & 0x3f));
        code >>= 6;
        first_max >>= 1;
    } while (code > first_max);
    octets[count++] = (char)((~first_max << 1) | code);
    while (count > 0) luaL_addchar(b, octets[--count]);
}

/* \u{XXX} */
static bool escape_utf8(struct reader *r, luaL_Buffer *b)
{
    uint32_t code = 0;
    if (peek(r) != '{') return fail(r, "missing '{' in \\u{xxxx}");
    r->at++;
    if (hex_value(peek(r)) < 0) return fail(r, "hexadecimal digit expected");
    for (int digit; (digit = hex_value(peek(r))) >= 0; r->at++) {
        if (code > 0x7ffffff) return fail(r, "UTF-8 value too large");
        code = code * 16 + (uint32_t)digit;
    }
    if (peek(r) != '}') return fail(r, "missing '}' in \\u{xxxx}");
    r->at++;
    add_utf8(b, code);
    return true;
}

static bool read_escape(struct reader *r, luaL_Buffer *b)
{
    static const char names[] = "abfnrtv\\\"'", values[] = "\a\b\f\n\r\t\v\\\"'";
    int c = peek(r);
    if (c < 0) return fail(r, "unfinished string");
    if (is_digit(c)) return escape_decimal(r, b);
    if (is_line_end(c)) {
        r->at = skip_line_end(r->at, r->end);
        luaL_addchar(b, '\n');
        return true;
    }
    r->at++;
    const char *found = c == 0 ? NULL : strchr(names, c);
    if (found) {
        luaL_addchar(b, values[found - names]);
        return true;
    }
    switch (c) {
    case 'x': return escape_hex(r, b);
    case 'u': return escape_utf8(r, b);
    case 'z':
        while (is_space(peek(r))) r->at++;
        return true;
    default: return fail(r, "invalid escape sequence");
    }
}

/* Pushes the string even when it is malformed: the buffer needs its end. */
static bool read_string(struct reader *r)
{
    luaL_Buffer b;
    int quote = (unsigned char)*r->at++;
    luaL_buffinit(r->L, &b);
    bool good = true;
    while (good && peek(r) != quote) {
        int c = peek(r);
        limits_step(&r->meter, 1);
        if (c < 0 || is_line_end(c)) {
            good = fail(r, "unfinished string");
        } else if (c == '\\') {
            r->at++;
            good = read_escape(r, &b);
        } else {
            luaL_addchar(&b, (char)c);
            r->at++;
        }
    }
    if (good) r->at++;
    luaL_pushresult(&b);
    return good;
}

/* --- numbers --- */

/* Lua's own reader of numerals judges what looks like one. */
static bool read_numeral(struct reader *r, bool negative)
{
    char text[256];
    size_t size = 0;
    bool exponent = false;
    for (int c; (c = peek(r)) >= 0 && (is_letter(c) || is_digit(c) || c == '.' || (exponent && (c == '+' || c == '-')));
         r->at++) {
        if (size == sizeof text - 1) return fail(r, "malformed number");
        text[size++] = (char)c;
        bool hex = size > 1 && (text[1] == 'x' || text[1] == 'X');
        exponent = hex ? c == 'p' || c == 'P' : c == 'e' || c == 'E';
    }
    text[size] = '\0';
    if (lua_stringtonumber(r->L, text) == 0) return fail(r, "malformed number");
    if (negative && lua_isinteger(r->L, -1)) {
        lua_pushinteger(r->L, (lua_Integer)(0 - (lua_Unsigned)lua_tointeger(r->L, -1)));
        lua_remove(r->L, -2);
    } else if (negative) {
        lua_pushnumber(r->L, -lua_tonumber(r->L, -1));
        lua_remove(r->L, -2);
    }
    return true;
}

/* The quotients that stand for what has no numeral: 1/0, -1/0, 0/0. Anything else that is divided is no literal. */
static bool read_quotient(struct reader *r)
{
    if (!take(r, '/')) return !r->wrong;
    if (!skip_blanks(r) || peek(r) != '0') return fail(r, "a quotient other than of infinity or nan");
    r->at++;
    if (is_digit(peek(r)) || is_letter(peek(r)) || peek(r) == '.')
        return fail(r, "a quotient other than of infinity or nan");
    lua_Number dividend = lua_tonumber(r->L, -1);
    if (dividend != 0 && dividend != 1 && dividend != -1) return fail(r, "a quotient other than of infinity or nan");
    lua_pop(r->L, 1);
    lua_pushnumber(r->L, dividend == 0 ? (lua_Number)NAN : dividend > 0 ? (lua_Number)INFINITY : -(lua_Number)INFINITY);
    return true;
}

static bool read_number(struct reader *r)
{
    bool negative = false;
    if (peek(r) == '-') {
        r->at++;
        negative = true;
        if (!skip_blanks(r)) return false;
    }
    int c = peek(r);
    if (!is_digit(c) && c != '.') return fail(r, "a literal is expected");
    return read_numeral(r, negative) && read_quotient(r);
}

/* --- tables --- */

static bool is_key_name(const struct reader *r)
{
    struct reader ahead = *r;
    if (!is_letter(peek(r))) return false;
    while (is_letter(peek(&ahead)) || is_digit(peek(&ahead))) ahead.at++;
    return skip_blanks(&ahead) && peek(&ahead) == '=' && !(ahead.at + 1 < ahead.end && ahead.at[1] == '=');
}

static bool read_key_name(struct reader *r)
{
    const char *start = r->at;
    while (is_letter(peek(r)) || is_digit(peek(r))) r->at++;
    lua_pushlstring(r->L, start, (size_t)(r->at - start));
    return take(r, '=') || fail(r, "'=' is expected");
}

static bool read_key_bracket(struct reader *r, int depth)
{
    r->at++;
    if (!skip_blanks(r) || !read_value(r, depth)) return false;
    if (lua_isnil(r->L, -1)) return fail(r, "a key is nil");
    if (lua_type(r->L, -1) == LUA_TNUMBER && isnan(lua_tonumber(r->L, -1))) return fail(r, "a key is nan");
    if (!take(r, ']')) return fail(r, "']' is expected");
    return take(r, '=') || fail(r, "'=' is expected");
}

/* One field into the table below the top. */
static bool read_field(struct reader *r, lua_Integer *position, int depth)
{
    bool bracket = peek(r) == '[' && long_level(r) < 0;
    if (!bracket && !is_key_name(r)) {
        if (!read_value(r, depth)) return false;
        lua_rawseti(r->L, -2, ++*position);
        return true;
    }
    if (!(bracket ? read_key_bracket(r, depth) : read_key_name(r))) return false;
    if (!skip_blanks(r) || !read_value(r, depth)) return false;
    lua_rawset(r->L, -3);
    return true;
}

static bool read_table(struct reader *r, int depth)
{
    lua_Integer position = 0;
    if (depth > DECODE_DEPTH_MAX) return fail(r, "tables are nested too deep");
    r->at++;
    lua_newtable(r->L);
    while (!take(r, '}')) {
        if (r->wrong || !read_field(r, &position, depth + 1)) return false;
        if (take(r, ',') || take(r, ';')) continue;
        if (r->wrong || !take(r, '}')) return fail(r, "'}' is expected");
        return true;
    }
    return true;
}

/* --- values --- */

static bool read_word(struct reader *r)
{
    if (take_word(r, "nil"))
        lua_pushnil(r->L);
    else if (take_word(r, "true"))
        lua_pushboolean(r->L, 1);
    else if (take_word(r, "false"))
        lua_pushboolean(r->L, 0);
    else
        return fail(r, "a literal is expected");
    return true;
}

/* Blanks have been skipped. Pushes one value if it is good. */
static bool read_value(struct reader *r, int depth)
{
    limits_step(&r->meter, 16);
    if (!lua_checkstack(r->L, 8)) return fail(r, "too many values");
    int c = peek(r);
    if (c == '"' || c == '\'') return read_string(r);
    if (c == '{') return read_table(r, depth);
    if (c == '-' || c == '.' || is_digit(c)) return read_number(r);
    if (c == '[' && long_level(r) >= 0) return read_long_string(r, long_level(r));
    return is_letter(c) ? read_word(r) : fail(r, "a literal is expected");
}

/* Values with commas between them up to the end. Their number. */
static int read_list(struct reader *r)
{
    int count = 0;
    if (!skip_blanks(r)) return 0;
    if (take_word(r, "return") && !skip_blanks(r)) return 0;
    while (r->at < r->end && peek(r) != ';') {
        if (!read_value(r, 0)) return count;
        count++;
        if (!take(r, ',')) break;
        if (!skip_blanks(r)) return count;
        if (r->at == r->end || peek(r) == ';') fail(r, "a literal is expected");
    }
    take(r, ';');
    if (skip_blanks(r) && r->at < r->end) fail(r, "something follows the literals");
    return count;
}

int marshal_decode(lua_State *L, const char *text, size_t size)
{
    struct reader r = {.L = L, .meter = {L, LIMITS_STEPS}, .start = text, .at = text, .end = text + size};
    int top = lua_gettop(L);
    int count = read_list(&r);
    if (!r.wrong) return count;
    lua_settop(L, top);
    lua_pushfstring(L, "at octet %d: %s", (int)(r.at - r.start), r.wrong);
    return -1;
}

/* The module of libruleset's unmarshal(): text -> the values, which raises for what is no literal       [-0, +n, e] */
static int literals_call(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    lua_settop(L, 1);
    int count = marshal_decode(L, text, size);
    if (count < 0) return luaL_error(L, "unmarshal: %s", lua_tostring(L, -1));
    return count;
}

int luaopen_literals(lua_State *L)
{
    lua_pushcfunction(L, literals_call);
    return 1;
}
