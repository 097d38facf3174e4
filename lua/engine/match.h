/* Lua's patterns (manual, section 6.4.1), matched by backtracking as Lua's own functions do, with two differences: the
 * steps count against the time budget of the entry, so that a pattern whose backtracking explodes is ended by it, and
 * classes are those of the "C" locale.
 *
 * A match is an attempt at one place of the subject:
 *
 *   match_init > match_at > captures > match_at ... */
#ifndef SLUICE_LUA_ENGINE_MATCH_H
#define SLUICE_LUA_ENGINE_MATCH_H

#include <stddef.h>

#include "lua/engine/limits.h"

#define MATCH_CAPTURES_MAX 32
#define MATCH_DEPTH_MAX    200 /* of backtracking: each repeat, option and bracket on the way is one level */

enum match_size { MATCH_OPEN = -1, MATCH_POSITION = -2 }; /* in the place of a capture's size */

struct match {
    struct limits_meter meter;
    const char *subject, *subject_end;
    const char *pattern_end;
    int depth, captures;
    struct {
        const char *start;
        ptrdiff_t size;
    } capture[MATCH_CAPTURES_MAX];
};

/* Both strings are Lua's (a zero octet follows) and stay the caller's. */
void match_init(struct match *m, lua_State *L, const char *subject, size_t subject_size, const char *pattern_end);
/* The end of what `pattern` matches at `at`; NULL: nothing. Raises what is wrong with the pattern. */
const char *match_at(struct match *m, const char *at, const char *pattern);
/* The first place at or behind `at`, up to the subject's end, where the pattern may match; NULL: nowhere. */
const char *match_skip(const struct match *m, const char *at, const char *pattern);
/* Whether the text is a pattern that matches itself alone. */
bool match_is_plain(const char *pattern, size_t size);
/* The text of capture `i`, or of the whole match if there are none and i is 0. MATCH_POSITION: it is a position, *text
 * is there. Raises if there is no such capture, or if it is not closed. */
ptrdiff_t match_capture(const struct match *m, int i, const char *start, const char *end, const char **text);
/* Pushes capture `i`.                                                                               [-0, +1, e] */
void match_push(const struct match *m, int i, const char *start, const char *end);
/* Pushes all captures; the whole match if there are none and `whole`. Their number.                 [-0, +n, e] */
int match_push_all(const struct match *m, const char *start, const char *end, bool whole);

#endif
