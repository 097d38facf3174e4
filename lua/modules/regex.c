/* regex.*: POSIX regular expressions on TRE (contract section 5.5), which matches in time linear in the subject, times
 * the size of its automaton. What would take too much to compile is refused before (pattern.h), and so is a subject
 * that is too long for its automaton: no call of C may take longer than a script's whole budget, which cannot interrupt
 * it. */
#include <lauxlib.h>
#include <limits.h>
#include <string.h>
#include <tre/tre.h>

#include "lua/engine/class.h"
#include "lua/engine/limits.h"
#include "lua/modules/modules.h"
#include "lua/modules/pattern.h"

#define REGEX_GROUPS_MAX (PATTERN_GROUPS_MAX + 1) /* the whole match is one */
#define REGEX_QUOTE_MAX  200u                     /* octets of a pattern in an error */

/* Moves of the automaton in one search: one or two seconds at worst, commonly a tenth of that. The 255 octets of a name
 * are never too long; a pattern of 50 moves may search 5 MB. */
#define REGEX_MOVES_MAX UINT64_C(250000000)
/* Above this a search is fed octet by octet, and looks at the clock; below it takes a millisecond or two at worst. */
#define REGEX_MOVES_FEW UINT64_C(250000)

static const struct class_key regex_class = {"regex"};

/* The values that libc's flags have, and scripts may have written down. */
enum regex_flag { FLAG_EXTENDED = 1, FLAG_ICASE = 2, FLAG_NEWLINE = 4, FLAG_NOSUB = 8 };

struct regex {
    bool compiled;
    uint64_t moves; /* for each octet of a subject */
    regex_t compiled_regex;
};

/* A script may call __gc by itself. */
static struct regex *regex_check(lua_State *L)
{
    struct regex *r = class_check(L, 1, &regex_class);
    if (!r->compiled) luaL_error(L, "regex is closed");
    return r;
}

static const char *regex_check_text(lua_State *L, int index, size_t *size)
{
    const char *text = luaL_checklstring(L, index, size);
    if (memchr(text, 0, *size)) luaL_error(L, "string contains an embedded NUL byte");
    return text;
}

/* regex:__gc()                                                                                      [-0, +0, e] */
static int regex_collect(lua_State *L)
{
    struct regex *r = class_check(L, 1, &regex_class);
    if (r->compiled) tre_regfree(&r->compiled_regex);
    r->compiled = false;
    return 0;
}

/* NOSUB would take away the positions that every function returns. */
static int regex_flags(lua_Integer flags)
{
    int tre = 0;
    if (flags & FLAG_EXTENDED) tre |= REG_EXTENDED;
    if (flags & FLAG_ICASE) tre |= REG_ICASE;
    if (flags & FLAG_NEWLINE) tre |= REG_NEWLINE;
    return tre;
}

/* Raises what is wrong, behind the pattern or its beginning. */
static int regex_fail(lua_State *L, const char *pattern, size_t size, const char *why)
{
    luaL_where(L, 1);
    lua_pushliteral(L, "regex '");
    lua_pushlstring(L, pattern, size < REGEX_QUOTE_MAX ? size : REGEX_QUOTE_MAX);
    lua_pushfstring(L, "%s': %s", size < REGEX_QUOTE_MAX ? "" : "...", why);
    lua_concat(L, 4);
    return lua_error(L);
}

/* A tag is a copy for each move: a pattern with groups moves slower. */
static uint64_t regex_moves(const struct pattern_cost *cost)
{
    return (uint64_t)cost->moves * (1 + cost->groups / 2);
}

/* regex.compile(pattern[, flags]) -> regex                                                          [-0, +1, e] */
static int regex_compile(lua_State *L)
{
    size_t size;
    char why[128];
    struct pattern_cost cost;
    const char *pattern = regex_check_text(L, 1, &size);
    lua_Integer flags = luaL_optinteger(L, 2, FLAG_EXTENDED | FLAG_NEWLINE);
    unsigned syntax = (flags & FLAG_EXTENDED ? PATTERN_EXTENDED : 0u) | (flags & FLAG_ICASE ? PATTERN_ICASE : 0u);
    const char *wrong = pattern_judge(pattern, size, syntax, &cost);
    if (wrong) return regex_fail(L, pattern, size, wrong);
    struct regex *r = lua_newuserdatauv(L, sizeof *r, 0);
    r->compiled = false;
    r->moves = regex_moves(&cost);
    class_set(L, &regex_class);
    int error = tre_regncomp(&r->compiled_regex, pattern, size, regex_flags(flags));
    if (error != 0) {
        tre_regerror(error, &r->compiled_regex, why, sizeof why);
        return regex_fail(L, pattern, size, why);
    }
    r->compiled = true;
    return 1;
}

/* Where the search begins, from 0: negative counts from the end, as in string.find. */
static size_t regex_start(lua_State *L, int index, size_t size)
{
    lua_Integer init = luaL_optinteger(L, index, 1);
    if (init > 0) return (lua_Unsigned)init - 1 < size ? (size_t)init - 1 : size;
    if (init == 0) return 0;
    return 0 - (lua_Unsigned)init < size ? size - (size_t)(0 - (lua_Unsigned)init) : 0;
}

/* A subject that ends when the time budget does. */
struct subject {
    const char *text;
    size_t size, at;
    uint64_t moves, left; /* for each octet; until the next look at the clock */
    struct limits *limits;
    bool over;
};

static int subject_next(tre_char_t *octet, unsigned *step, void *context)
{
    struct subject *s = context;
    *step = 1;
    if (s->left < s->moves) {
        s->left = REGEX_MOVES_FEW;
        s->over |= limits_look(s->limits);
    } else {
        s->left -= s->moves;
    }
    bool ended = s->over || s->at == s->size;
    *octet = ended ? 0 : (unsigned char)s->text[s->at++];
    return ended;
}

/* For matchers with back-references, which there are none of. */
static void subject_rewind(size_t at, void *context)
{
    ((struct subject *)context)->at = at;
}

static int subject_compare(size_t a, size_t b, size_t size, void *context)
{
    const struct subject *s = context;
    return memcmp(s->text + a, s->text + b, size);
}

static int regex_execute(lua_State *L, const struct regex *r, const char *text, size_t size, regmatch_t *matches)
{
    if (size * r->moves < REGEX_MOVES_FEW)
        return tre_regnexec(&r->compiled_regex, text, size, REGEX_GROUPS_MAX, matches, 0);
    struct subject s = {text, size, 0, r->moves, REGEX_MOVES_FEW, limits_of(L), false};
    tre_str_source source = {subject_next, subject_rewind, subject_compare, &s};
    int error = tre_reguexec(&r->compiled_regex, &source, REGEX_GROUPS_MAX, matches, 0);
    if (s.over) limits_check(L);
    return error;
}

/* The positions count from `text`. */
static bool regex_search(lua_State *L, struct regex *r, const char *text, size_t size, regmatch_t *matches)
{
    if (size > INT_MAX || size * r->moves > REGEX_MOVES_MAX)
        luaL_error(L, "string of %I octets is too long for this regex", (LUAI_UACINT)size);
    int error = regex_execute(L, r, text, size, matches);
    if (error == REG_NOMATCH) return false;
    if (error != 0) luaL_error(L, "not enough memory");
    return true;
}

/* The arguments of find and match: where in the string they begin, or NULL: nothing matches from there on. The
 * positions count from that place, which is *start octets behind the beginning. */
static const char *regex_search_arguments(lua_State *L, size_t *start, regmatch_t *matches)
{
    size_t size;
    struct regex *r = regex_check(L);
    const char *text = regex_check_text(L, 2, &size);
    *start = regex_start(L, 3, size);
    return regex_search(L, r, text + *start, size - *start, matches) ? text + *start : NULL;
}

/* regex:find(s[, init]) -> first, last | nothing                                                    [-0, +2, e] */
static int regex_find(lua_State *L)
{
    regmatch_t matches[REGEX_GROUPS_MAX];
    size_t start;
    if (!regex_search_arguments(L, &start, matches)) return 0;
    lua_pushinteger(L, (lua_Integer)start + matches[0].rm_so + 1);
    lua_pushinteger(L, (lua_Integer)start + matches[0].rm_eo);
    return 2;
}

/* The whole match and its groups; nil for those that took no part. */
static int regex_push(lua_State *L, const struct regex *r, const char *text, const regmatch_t *matches)
{
    int count = (int)r->compiled_regex.re_nsub + 1;
    luaL_checkstack(L, count, "too many groups");
    for (int i = 0; i < count; i++) {
        if (matches[i].rm_so < 0)
            lua_pushnil(L);
        else
            lua_pushlstring(L, text + matches[i].rm_so, (size_t)(matches[i].rm_eo - matches[i].rm_so));
    }
    return count;
}

/* regex:match(s[, init]) -> match, groups... | nothing                                              [-0, +n, e] */
static int regex_match(lua_State *L)
{
    regmatch_t matches[REGEX_GROUPS_MAX];
    size_t start;
    const char *from = regex_search_arguments(L, &start, matches);
    return from ? regex_push(L, regex_check(L), from, matches) : 0;
}

/* Upvalues: regex, subject, where to go on. An empty match goes on one octet further.               [-0, +n, e] */
static int regex_gmatch_next(lua_State *L)
{
    regmatch_t matches[REGEX_GROUPS_MAX];
    size_t size;
    struct regex *r = lua_touserdata(L, lua_upvalueindex(1));
    if (!r->compiled) return luaL_error(L, "regex is closed");
    const char *text = lua_tolstring(L, lua_upvalueindex(2), &size);
    size_t start = (size_t)lua_tointeger(L, lua_upvalueindex(3));
    if (start > size || !regex_search(L, r, text + start, size - start, matches)) return 0;
    size_t end = (size_t)matches[0].rm_eo;
    size_t next = start + end + (matches[0].rm_eo == matches[0].rm_so ? 1u : 0u);
    lua_pushinteger(L, (lua_Integer)next);
    lua_replace(L, lua_upvalueindex(3));
    return regex_push(L, r, text + start, matches);
}

/* regex:gmatch(s) -> iterator of what match() returns                                               [-0, +1, e] */
static int regex_gmatch(lua_State *L)
{
    size_t size;
    regex_check(L);
    regex_check_text(L, 2, &size);
    lua_settop(L, 2);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, regex_gmatch_next, 3);
    return 1;
}

static void regex_set_flag(lua_State *L, const char *name, enum regex_flag flag)
{
    lua_pushinteger(L, flag);
    lua_setfield(L, -2, name);
}

int luaopen_regex(lua_State *L)
{
    static const luaL_Reg functions[] = {{"compile", regex_compile},
                                         {"find", regex_find},
                                         {"match", regex_match},
                                         {"gmatch", regex_gmatch},
                                         {NULL, NULL}};
    static const luaL_Reg events[] = {{"__gc", regex_collect}, {NULL, NULL}};
    luaL_newlib(L, functions);
    regex_set_flag(L, "EXTENDED", FLAG_EXTENDED);
    regex_set_flag(L, "ICASE", FLAG_ICASE);
    regex_set_flag(L, "NEWLINE", FLAG_NEWLINE);
    regex_set_flag(L, "NOSUB", FLAG_NOSUB);
    class_open(L, &regex_class, events);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    return 1;
}
