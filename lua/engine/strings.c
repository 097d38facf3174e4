#include "lua/engine/standard.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>
#include <string.h>

#include "lua/engine/match.h"

/* Where a search begins, from 0: from 1 in Lua, and negative from the end. May be behind the end. */
static size_t read_start(lua_State *L, int index, size_t size)
{
    lua_Integer init = luaL_optinteger(L, index, 1);
    if (init > 0) return (size_t)init - 1;
    if (init == 0 || 0 - (lua_Unsigned)init > size) return 0;
    return size - (size_t)(0 - (lua_Unsigned)init);
}

/* --- find, match --- */

/* memmem() is linear whatever the strings, but prepares for that; a few tries by the first octet find most texts. */
static const char *find_text(const char *s, size_t size, const char *text, size_t text_size)
{
    if (text_size == 0) return s;
    if (size < text_size) return NULL;
    const char *last = s + size - text_size;
    for (int tries = 16; tries > 0 && s <= last; tries--, s++) {
        s = memchr(s, *text, (size_t)(last - s) + 1);
        if (!s) return NULL;
        if (s[text_size - 1] == text[text_size - 1] && memcmp(s, text, text_size) == 0) return s;
    }
    return s > last ? NULL : memmem(s, (size_t)(last - s) + text_size, text, text_size);
}

static int find_plain(lua_State *L, const char *s, size_t size, size_t start, const char *text, size_t text_size)
{
    const char *found = find_text(s + start, size - start, text, text_size);
    if (size - start > LIMITS_STEPS) limits_spend(L);
    if (!found) {
        luaL_pushfail(L);
        return 1;
    }
    lua_pushinteger(L, found - s + 1);
    lua_pushinteger(L, found - s + (ptrdiff_t)text_size);
    return 2;
}

/* The first match at `at` or behind it; its beginning is in *start. NULL: there is none. */
static const char *search(struct match *m, const char *at, const char *p, const char **start)
{
    bool anchored = p < m->pattern_end && *p == '^';
    if (anchored) {
        *start = at;
        return match_at(m, at, p + 1);
    }
    for (; (at = match_skip(m, at, p)) != NULL && at <= m->subject_end; at++) {
        const char *end = match_at(m, at, p);
        if (!end) continue;
        *start = at;
        return end;
    }
    return NULL;
}

static int find_pattern(lua_State *L, const char *s, size_t size, size_t start, const char *p, size_t pattern_size,
                        bool find)
{
    struct match m;
    const char *from;
    match_init(&m, L, s, size, p + pattern_size);
    const char *end = search(&m, s + start, p, &from);
    if (!end) {
        luaL_pushfail(L);
        return 1;
    }
    if (!find) return match_push_all(&m, from, end, true);
    lua_pushinteger(L, from - s + 1);
    lua_pushinteger(L, end - s);
    return match_push_all(&m, from, end, false) + 2;
}

static int find_or_match(lua_State *L, bool find)
{
    size_t size, pattern_size;
    const char *s = luaL_checklstring(L, 1, &size), *p = luaL_checklstring(L, 2, &pattern_size);
    size_t start = lua_isnoneornil(L, 3) ? 0 : read_start(L, 3, size);
    if (start > size) {
        luaL_pushfail(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || match_is_plain(p, pattern_size)))
        return find_plain(L, s, size, start, p, pattern_size);
    return find_pattern(L, s, size, start, p, pattern_size, find);
}

/* string.find(s, pattern[, init[, plain]]) -> first, last, captures... | nil                        [-0, +n, e] */
static int strings_find(lua_State *L)
{
    return find_or_match(L, true);
}

/* string.match(s, pattern[, init]) -> captures... | nil                                             [-0, +n, e] */
static int strings_match(lua_State *L)
{
    return find_or_match(L, false);
}

/* --- gmatch --- */

struct walk {
    size_t at;       /* where the next search begins */
    size_t last_end; /* of the match before; SIZE_MAX: none. An empty match there is none */
};

/* Upvalues: subject, pattern, struct walk.                                                          [-0, +n, e] */
static int gmatch_next(lua_State *L)
{
    struct match m;
    size_t size, pattern_size;
    const char *s = lua_tolstring(L, lua_upvalueindex(1), &size);
    const char *p = lua_tolstring(L, lua_upvalueindex(2), &pattern_size);
    struct walk *walk = lua_touserdata(L, lua_upvalueindex(3));
    if (walk->at > size) return 0;
    match_init(&m, L, s, size, p + pattern_size);
    for (const char *at = s + walk->at; (at = match_skip(&m, at, p)) != NULL && at <= m.subject_end; at++) {
        const char *end = match_at(&m, at, p);
        if (!end || (size_t)(end - s) == walk->last_end) continue;
        walk->at = walk->last_end = (size_t)(end - s);
        return match_push_all(&m, at, end, true);
    }
    return 0;
}

/* string.gmatch(s, pattern[, init]) -> iterator                                                     [-0, +1, e] */
static int strings_gmatch(lua_State *L)
{
    size_t size;
    luaL_checklstring(L, 1, &size);
    luaL_checkstring(L, 2);
    size_t start = read_start(L, 3, size);
    lua_settop(L, 2);
    struct walk *walk = lua_newuserdatauv(L, sizeof *walk, 0);
    *walk = (struct walk){start > size ? size + 1 : start, SIZE_MAX};
    lua_pushcclosure(L, gmatch_next, 3);
    return 1;
}

/* --- gsub --- */

struct replacement {
    struct match m;
    luaL_Buffer out;
    int type; /* of the value at index 3 */
};

/* The string at index 3, with captures in the place of %0 to %9. */
static void replace_by_text(struct replacement *r, const char *start, const char *end)
{
    lua_State *L = r->m.meter.L;
    size_t size;
    const char *text = lua_tolstring(L, 3, &size), *capture, *percent;
    for (; (percent = memchr(text, '%', size)) != NULL; text = percent + 2) {
        char kind = percent[1];
        luaL_addlstring(&r->out, text, (size_t)(percent - text));
        size -= (size_t)(percent - text) + 2;
        if (kind == '%') {
            luaL_addchar(&r->out, '%');
        } else if (kind == '0') {
            luaL_addlstring(&r->out, start, (size_t)(end - start));
        } else if (kind >= '1' && kind <= '9') {
            ptrdiff_t length = match_capture(&r->m, kind - '1', start, end, &capture);
            if (length == MATCH_POSITION) {
                lua_pushinteger(L, capture - r->m.subject + 1);
                luaL_addvalue(&r->out);
            } else {
                luaL_addlstring(&r->out, capture, (size_t)length);
            }
        } else {
            luaL_error(L, "invalid use of '%%' in replacement string");
        }
    }
    luaL_addlstring(&r->out, text, size);
}

/* What the function or the table at index 3 gives; false and nil keep the match. Whether anything is replaced. */
static bool replace_by_value(struct replacement *r, const char *start, const char *end)
{
    lua_State *L = r->m.meter.L;
    if (r->type == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        lua_call(L, match_push_all(&r->m, start, end, true), 1);
    } else {
        match_push(&r->m, 0, start, end);
        lua_gettable(L, 3);
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(&r->out, start, (size_t)(end - start));
        return false;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(&r->out);
    return true;
}

static bool replace(struct replacement *r, const char *start, const char *end)
{
    limits_step(&r->m.meter, 64);
    if (r->type == LUA_TFUNCTION || r->type == LUA_TTABLE) return replace_by_value(r, start, end);
    replace_by_text(r, start, end);
    return true;
}

/* Replaces up to `most` matches. Their number; *rest is what has not been copied. */
static lua_Integer replace_all(struct replacement *r, const char *p, lua_Integer most, const char **rest, bool *changed)
{
    const char *at = r->m.subject, *last_end = NULL;
    bool anchored = p < r->m.pattern_end && *p == '^';
    lua_Integer count = 0;
    if (anchored) p++;
    while (count < most) {
        const char *begin = anchored ? at : match_skip(&r->m, at, p);
        if (!begin) break;
        luaL_addlstring(&r->out, at, (size_t)(begin - at));
        at = begin;
        const char *end = match_at(&r->m, at, p);
        if (end && end != last_end) {
            count++;
            *changed |= replace(r, at, end);
            at = last_end = end;
        } else if (at < r->m.subject_end) {
            luaL_addchar(&r->out, *at++);
        } else {
            break;
        }
        if (anchored) break;
    }
    *rest = at;
    return count;
}

/* string.gsub(s, pattern, replacement[, n]) -> string, count                                        [-0, +2, e] */
static int strings_gsub(lua_State *L)
{
    struct replacement r;
    size_t size, pattern_size;
    const char *s = luaL_checklstring(L, 1, &size), *p = luaL_checklstring(L, 2, &pattern_size), *rest;
    bool changed = false;
    r.type = lua_type(L, 3);
    lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)size + 1);
    luaL_argexpected(L,
                     r.type == LUA_TSTRING || r.type == LUA_TNUMBER || r.type == LUA_TFUNCTION || r.type == LUA_TTABLE,
                     3, "string/function/table");
    match_init(&r.m, L, s, size, p + pattern_size);
    luaL_buffinit(L, &r.out);
    lua_Integer count = replace_all(&r, p, most, &rest, &changed);
    if (changed) {
        luaL_addlstring(&r.out, rest, (size_t)(r.m.subject_end - rest));
        luaL_pushresult(&r.out);
    } else {
        lua_pushvalue(L, 1);
    }
    lua_pushinteger(L, count);
    return 2;
}

/* --- rep --- */

/* Doubles what is there, so that a repeat of little is as fast as one of much. */
static void fill(char *to, size_t size, size_t filled)
{
    while (filled < size) {
        size_t more = filled < size - filled ? filled : size - filled;
        memcpy(to + filled, to, more);
        filled += more;
    }
}

/* string.rep(s, n[, separator]) -> string                                                           [-0, +1, e] */
static int strings_rep(lua_State *L)
{
    size_t size, separator_size;
    const char *s = luaL_checklstring(L, 1, &size);
    lua_Integer n = luaL_checkinteger(L, 2);
    const char *separator = luaL_optlstring(L, 3, "", &separator_size);
    size_t each = size + separator_size;
    luaL_Buffer out;
    if (n <= 0 || each == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    if (each < size || each > (size_t)INT64_MAX / (lua_Unsigned)n) return luaL_error(L, "resulting string too large");
    size_t total = each * (size_t)n - separator_size;
    char *to = luaL_buffinitsize(L, &out, total);
    memcpy(to, s, size);
    if (n > 1) {
        memcpy(to + size, separator, separator_size);
        fill(to, total, each);
    }
    luaL_pushresultsize(&out, total);
    if (total > LIMITS_STEPS) limits_spend(L);
    return 1;
}

void strings_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"find", strings_find},   {"gmatch", strings_gmatch}, {"gsub", strings_gsub},
                                         {"match", strings_match}, {"rep", strings_rep},       {NULL, NULL}};
    lua_getglobal(L, LUA_STRLIBNAME);
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 1);
}
