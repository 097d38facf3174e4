#include "lua/engine/match.h"

#include <lauxlib.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

#define ESCAPE '%'

/* --- classes of octets --- */

enum class {
    CLASS_ALPHA = 1,
    CLASS_CONTROL = 2,
    CLASS_DIGIT = 4,
    CLASS_GRAPH = 8,
    CLASS_LOWER = 16,
    CLASS_PUNCT = 32,
    CLASS_SPACE = 64,
    CLASS_UPPER = 128,
    CLASS_HEX = 256,
    CLASS_ZERO = 512,
    CLASS_MAGIC = 1024, /* means something in a pattern */
};
#define CLASS_ALNUM (CLASS_ALPHA | CLASS_DIGIT)

#define LOWER (CLASS_ALPHA | CLASS_GRAPH | CLASS_LOWER)
#define UPPER (CLASS_ALPHA | CLASS_GRAPH | CLASS_UPPER)
#define PUNCT (CLASS_GRAPH | CLASS_PUNCT)

#define MAGIC (PUNCT | CLASS_MAGIC)

static const uint16_t classes_of[UCHAR_MAX + 1] = {
    [0] = CLASS_CONTROL | CLASS_ZERO,
    [1 ... 8] = CLASS_CONTROL,
    ['\t' ... '\r'] = CLASS_CONTROL | CLASS_SPACE,
    [14 ... 31] = CLASS_CONTROL,
    [' '] = CLASS_SPACE,
    ['!' ... '#'] = PUNCT,
    ['$' ... '%'] = MAGIC,
    ['&' ... '\''] = PUNCT,
    ['('] = MAGIC,
    [')'] = PUNCT,
    ['*' ... '+'] = MAGIC,
    [','] = PUNCT,
    ['-' ... '.'] = MAGIC,
    ['/'] = PUNCT,
    ['0' ... '9'] = CLASS_DIGIT | CLASS_HEX | CLASS_GRAPH,
    [':' ... '>'] = PUNCT,
    ['?'] = MAGIC,
    ['@'] = PUNCT,
    ['A' ... 'F'] = UPPER | CLASS_HEX,
    ['G' ... 'Z'] = UPPER,
    ['['] = MAGIC,
    ['\\' ... ']'] = PUNCT,
    ['^'] = MAGIC,
    ['_' ... '`'] = PUNCT,
    ['a' ... 'f'] = LOWER | CLASS_HEX,
    ['g' ... 'z'] = LOWER,
    ['{' ... '~'] = PUNCT,
    [127] = CLASS_CONTROL,
};

/* The classes that a letter behind % stands for, in its lower case; 0: the octet itself. */
static const uint16_t classes_named[UCHAR_MAX + 1] = {
    ['a'] = CLASS_ALPHA, ['c'] = CLASS_CONTROL, ['d'] = CLASS_DIGIT, ['g'] = CLASS_GRAPH,
    ['l'] = CLASS_LOWER, ['p'] = CLASS_PUNCT,   ['s'] = CLASS_SPACE, ['u'] = CLASS_UPPER,
    ['w'] = CLASS_ALNUM, ['x'] = CLASS_HEX,     ['z'] = CLASS_ZERO,
};

static inline bool is_in_class(unsigned char octet, unsigned char name)
{
    bool inverse = classes_of[name] & CLASS_UPPER;
    uint16_t wanted = classes_named[inverse ? name + ('a' - 'A') : name];
    if (wanted == 0) return octet == name;
    return ((classes_of[octet] & wanted) != 0) != inverse;
}

/* --- items: what matches one octet --- */

/* Behind the set that `p` is in, just behind its "[". */
static const char *set_end(const struct match *m, const char *p)
{
    if (*p == '^') p++;
    do { /* the first octet may be "]" itself */
        if (p == m->pattern_end) luaL_error(m->meter.L, "malformed pattern (missing ']')");
        if (*p++ == ESCAPE && p < m->pattern_end) p++;
    } while (p == m->pattern_end || *p != ']');
    return p + 1;
}

/* Behind the item at `p`. */
static inline const char *item_end(const struct match *m, const char *p)
{
    char octet = *p++;
    if (octet == '[') return set_end(m, p);
    if (octet != ESCAPE) return p;
    if (p == m->pattern_end) luaL_error(m->meter.L, "malformed pattern (ends with '%%')");
    return p + 1;
}

/* The set is from `p`, its "[", to `end`, behind its "]". */
static bool is_in_set(unsigned char octet, const char *p, const char *end)
{
    const unsigned char *at = (const unsigned char *)p + 1, *last = (const unsigned char *)end - 1;
    bool inside = *at != '^';
    for (at += !inside; at < last; at++) {
        if (*at == ESCAPE) {
            if (is_in_class(octet, *++at)) return inside;
        } else if (at[1] == '-' && last - at > 2) {
            if (*at <= octet && octet <= at[2]) return inside;
            at += 2;
        } else if (*at == octet) {
            return inside;
        }
    }
    return !inside;
}

static inline bool item_has(char octet, const char *p, const char *end)
{
    switch (*p) {
    case '.': return true;
    case ESCAPE: return is_in_class((unsigned char)octet, (unsigned char)p[1]);
    case '[': return is_in_set((unsigned char)octet, p, end);
    default: return octet == *p;
    }
}

/* Behind the longest run of octets of the item that begins at `at`. */
static const char *item_run(struct match *m, const char *at, const char *p, const char *end)
{
    ptrdiff_t most = *p == '[' ? LIMITS_STEPS / 16 : LIMITS_STEPS; /* between two looks at the clock */
    if (*p == '.') return m->subject_end;
    for (;;) {
        const char *first = at, *last = m->subject_end - at > most ? at + most : m->subject_end;
        while (at < last && item_has(*at, p, end)) at++;
        limits_step(&m->meter, (uint32_t)(at - first));
        if (at < last || at == m->subject_end) return at;
    }
}

/* --- the parts of a pattern, each with what follows it --- */

static const char *match_rest(struct match *m, const char *at, const char *p);

/* "*" and "+" behind the item: as many as there are, then fewer. */
static const char *match_greedy(struct match *m, const char *at, const char *p, const char *end, ptrdiff_t least)
{
    for (const char *to = item_run(m, at, p, end); to - at >= least; to--) {
        const char *found = match_rest(m, to, end + 1);
        if (found) return found;
    }
    return NULL;
}

/* "-": as few as it takes. */
static const char *match_lazy(struct match *m, const char *at, const char *p, const char *end)
{
    for (;; at++) {
        const char *found = match_rest(m, at, end + 1);
        if (found) return found;
        if (at == m->subject_end || !item_has(*at, p, end)) return NULL;
        limits_step(&m->meter, 1);
    }
}

static const char *match_open(struct match *m, const char *at, const char *p, ptrdiff_t size)
{
    int i = m->captures;
    if (i >= MATCH_CAPTURES_MAX) luaL_error(m->meter.L, "too many captures");
    m->capture[i].start = at;
    m->capture[i].size = size;
    m->captures = i + 1;
    const char *found = match_rest(m, at, p);
    if (!found) m->captures--;
    return found;
}

static const char *match_close(struct match *m, const char *at, const char *p)
{
    int i = m->captures - 1;
    while (i >= 0 && m->capture[i].size != MATCH_OPEN) i--;
    if (i < 0) luaL_error(m->meter.L, "invalid pattern capture");
    m->capture[i].size = at - m->capture[i].start;
    const char *found = match_rest(m, at, p);
    if (!found) m->capture[i].size = MATCH_OPEN;
    return found;
}

/* %bxy: behind the y that closes the x here. */
static const char *match_balance(struct match *m, const char *at, const char *p)
{
    if (m->pattern_end - p < 2) luaL_error(m->meter.L, "malformed pattern (missing arguments to '%%b')");
    if (at == m->subject_end || *at != p[0]) return NULL;
    size_t open = 1;
    for (at++; at < m->subject_end; at++) {
        limits_step(&m->meter, 1);
        if (*at == p[1]) {
            if (--open == 0) return at + 1;
        } else if (*at == p[0]) {
            open++;
        }
    }
    return NULL;
}

/* %f[set]: whether the set begins here. Before the subject and behind it stands a zero. */
static bool match_frontier(const struct match *m, const char *at, const char *p, const char **end)
{
    if (*p != '[') luaL_error(m->meter.L, "missing '[' after '%%f' in pattern");
    *end = item_end(m, p);
    unsigned char before = at == m->subject ? 0 : (unsigned char)at[-1];
    unsigned char here = at == m->subject_end ? 0 : (unsigned char)*at;
    return !is_in_set(before, p, *end) && is_in_set(here, p, *end);
}

/* %1 to %9: what that capture holds once more. */
static const char *match_again(struct match *m, const char *at, unsigned char digit)
{
    int i = digit - '1';
    if (i < 0 || i >= m->captures || m->capture[i].size == MATCH_OPEN)
        luaL_error(m->meter.L, "invalid capture index %%%d", i + 1);
    ptrdiff_t size = m->capture[i].size;
    if (size == MATCH_POSITION || m->subject_end - at < size) return NULL;
    limits_step(&m->meter, (uint32_t)(size / 16 & 0xffff) + 1);
    return memcmp(m->capture[i].start, at, (size_t)size) == 0 ? at + size : NULL;
}

/* What begins with %, but for items. True: it has been dealt with, *at and *p stand behind it, *at NULL: no match. */
static bool match_escape(struct match *m, const char **at, const char **p)
{
    const char *rest = *p + 1;
    unsigned char name = (unsigned char)*rest;
    if (name == 'b') {
        *at = match_balance(m, *at, rest + 1);
        *p = rest + 3;
        return true;
    }
    if (name == 'f') {
        if (!match_frontier(m, *at, rest + 1, p)) *at = NULL;
        return true;
    }
    if (!(classes_of[name] & CLASS_DIGIT)) return false;
    *at = match_again(m, *at, name);
    *p = rest + 1;
    return true;
}

/* One item and what says how often. NULL: go on at *at and *p; else *found is the result. */
static inline __attribute__((always_inline)) bool match_item(struct match *m, const char **at, const char **p,
                                                             const char **found)
{
    const char *end = item_end(m, *p);
    bool here;
    switch (end < m->pattern_end ? *end : '\0') {
    case '*': *found = match_greedy(m, *at, *p, end, 0); return true;
    case '+': *found = match_greedy(m, *at, *p, end, 1); return true;
    case '-': *found = match_lazy(m, *at, *p, end); return true;
    case '?':
        here = *at < m->subject_end && item_has(**at, *p, end);
        if (here && (*found = match_rest(m, *at + 1, end + 1)) != NULL) return true;
        *p = end + 1;
        return false;
    default:
        *found = NULL;
        if (*at == m->subject_end || !item_has(**at, *p, end)) return true;
        ++*at;
        *p = end;
        return false;
    }
}

static inline __attribute__((always_inline)) const char *match_parts(struct match *m, const char *at, const char *p)
{
    const char *found;
    while (p != m->pattern_end) {
        limits_step(&m->meter, 1);
        switch (*p) {
        case '(':
            if (p[1] == ')') return match_open(m, at, p + 2, MATCH_POSITION);
            return match_open(m, at, p + 1, MATCH_OPEN);
        case ')': return match_close(m, at, p + 1);
        case '$':
            if (p + 1 == m->pattern_end) return at == m->subject_end ? at : NULL;
            break;
        case ESCAPE:
            if (!match_escape(m, &at, &p)) break;
            if (!at) return NULL;
            continue;
        default: break;
        }
        if (match_item(m, &at, &p, &found)) return found;
    }
    return at;
}

static const char *match_rest(struct match *m, const char *at, const char *p)
{
    if (m->depth == 0) luaL_error(m->meter.L, "pattern too complex");
    m->depth--;
    const char *found = match_parts(m, at, p);
    m->depth++;
    return found;
}

/* --- from outside --- */

void match_init(struct match *m, lua_State *L, const char *subject, size_t subject_size, const char *pattern_end)
{
    m->meter = (struct limits_meter){L, LIMITS_STEPS};
    m->subject = subject;
    m->subject_end = subject + subject_size;
    m->pattern_end = pattern_end;
    m->captures = 0;
}

const char *match_at(struct match *m, const char *at, const char *pattern)
{
    m->depth = MATCH_DEPTH_MAX;
    m->captures = 0;
    return match_rest(m, at, pattern);
}

static const char *skip_run(const struct match *m, const char *at, const char *p, const char *end)
{
    while (at < m->subject_end && !item_has(*at, p, end)) at++;
    return at < m->subject_end ? at : NULL;
}

/* Looks for the octet that the pattern begins with, if it must be there. Raises nothing that a try would not raise. */
const char *match_skip(const struct match *m, const char *at, const char *p)
{
    if (p == m->pattern_end) return at;
    bool is_set = *p == '[', escaped = *p == ESCAPE;
    uint16_t class = classes_of[(unsigned char)p[escaped]];
    if (escaped ? (class & CLASS_DIGIT) || p + 1 == m->pattern_end || p[1] == 'b' || p[1] == 'f'
                : !is_set && strchr("().$", *p))
        return at;
    const char *end = item_end(m, p);
    if (end < m->pattern_end && (*end == '*' || *end == '?' || *end == '-')) return at;
    if (is_set || (escaped && !(class & CLASS_PUNCT))) return skip_run(m, at, p, end);
    return memchr(at, end[-1], (size_t)(m->subject_end - at));
}

bool match_is_plain(const char *pattern, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (classes_of[(unsigned char)pattern[i]] & CLASS_MAGIC) return false;
    return true;
}

ptrdiff_t match_capture(const struct match *m, int i, const char *start, const char *end, const char **text)
{
    if (i >= m->captures) {
        if (i != 0) luaL_error(m->meter.L, "invalid capture index %%%d", i + 1);
        *text = start;
        return end - start;
    }
    *text = m->capture[i].start;
    if (m->capture[i].size == MATCH_OPEN) luaL_error(m->meter.L, "unfinished capture");
    return m->capture[i].size;
}

void match_push(const struct match *m, int i, const char *start, const char *end)
{
    const char *text;
    ptrdiff_t size = match_capture(m, i, start, end, &text);
    if (size == MATCH_POSITION)
        lua_pushinteger(m->meter.L, text - m->subject + 1);
    else
        lua_pushlstring(m->meter.L, text, (size_t)size);
}

int match_push_all(const struct match *m, const char *start, const char *end, bool whole)
{
    int count = m->captures == 0 && whole ? 1 : m->captures;
    luaL_checkstack(m->meter.L, count, "too many captures");
    for (int i = 0; i < count; i++) match_push(m, i, start, end);
    return count;
}
