#include "pattern.h"

#include <stdint.h>
#include <string.h>

/* A group that is open: the cost of what it holds so far, and of its last atom, which a repeat would multiply. */
struct level {
    uint64_t sum, last;
};

struct judge {
    const char *at, *end;
    bool extended;
    unsigned depth;
    struct level levels[PATTERN_DEPTH_MAX + 1];
};

static const char too_costly[] = "its repeats expand to too much";

static struct level *level_of(struct judge *j)
{
    return &j->levels[j->depth];
}

/* What stands in its level before is closed, a new atom begins. */
static void begin_atom(struct judge *j, uint64_t cost)
{
    level_of(j)->sum += level_of(j)->last;
    level_of(j)->last = cost;
}

/* [...] with its classes, in which a bracket may stand first. */
static void skip_bracket(struct judge *j)
{
    const char *p = j->at + 1;
    if (p < j->end && *p == '^') p++;
    if (p < j->end && *p == ']') p++;
    while (p < j->end && *p != ']') {
        if (*p == '[' && p + 1 < j->end && strchr(":.=", p[1])) {
            char kind = p[1];
            for (p += 2; p + 1 < j->end && !(p[0] == kind && p[1] == ']'); p++) {
            }
            p++;
        }
        p++;
    }
    j->at = p < j->end ? p + 1 : j->end;
}

static uint64_t read_number(const char **at, const char *end)
{
    uint64_t value = 0;
    while (*at < end && **at >= '0' && **at <= '9' && value < PATTERN_COST_MAX)
        value = value * 10 + (uint64_t)(*(*at)++ - '0');
    while (*at < end && **at >= '0' && **at <= '9') (*at)++;
    return value;
}

/* {m}, {m,}, {m,n}; `at` is behind the brace. The greater number counts, {m,} as one more. */
static const char *multiply(struct judge *j)
{
    uint64_t least = read_number(&j->at, j->end), most = least;
    if (j->at < j->end && *j->at == ',') {
        j->at++;
        const char *digits = j->at;
        most = read_number(&j->at, j->end);
        if (j->at == digits) most = least + 1;
    }
    if (most < least) most = least;
    while (j->at < j->end && *j->at != '}') j->at++;
    if (j->at < j->end) j->at++;
    struct level *level = level_of(j);
    level->last = (level->last > 0 ? level->last : 1) * (most > 0 ? most : 1);
    return level->last > PATTERN_COST_MAX ? too_costly : NULL;
}

static const char *open_group(struct judge *j)
{
    if (j->depth == PATTERN_DEPTH_MAX) return "its groups are nested too deep";
    begin_atom(j, 0);
    j->depth++;
    *level_of(j) = (struct level){.sum = 1};
    return NULL;
}

static void close_group(struct judge *j)
{
    if (j->depth == 0) return; /* TRE will say so */
    struct level *inner = level_of(j);
    uint64_t cost = inner->sum + inner->last;
    j->depth--;
    level_of(j)->last = cost;
}

/* Behind a backslash. Back-references cannot be matched in linear time, and extended expressions have none. */
static const char *judge_escape(struct judge *j)
{
    int c = j->at + 1 < j->end ? (unsigned char)j->at[1] : 0;
    j->at += j->at + 1 < j->end ? 2 : 1;
    if (c >= '1' && c <= '9') return "it has a back-reference";
    if (j->extended) {
        begin_atom(j, 1);
        return NULL;
    }
    if (c == '(') return open_group(j);
    if (c == ')')
        close_group(j);
    else if (c == '{')
        return multiply(j);
    else
        begin_atom(j, 1);
    return NULL;
}

static const char *judge_next(struct judge *j)
{
    char c = *j->at;
    if (c == '\\') return judge_escape(j);
    if (c == '[') {
        begin_atom(j, 1);
        skip_bracket(j);
        return NULL;
    }
    j->at++;
    if (j->extended && c == '(') return open_group(j);
    if (j->extended && c == ')')
        close_group(j);
    else if (j->extended && c == '{')
        return multiply(j);
    else if (c == '*' || (j->extended && (c == '+' || c == '?')))
        level_of(j)->last += 1; /* one more atom at most */
    else
        begin_atom(j, 1);
    return NULL;
}

const char *pattern_judge(const char *pattern, size_t size, bool extended)
{
    struct judge j = {.at = pattern, .end = pattern + size, .extended = extended};
    if (size > PATTERN_SIZE_MAX) return "it is too long";
    while (j.at < j.end) {
        const char *wrong = judge_next(&j);
        if (wrong) return wrong;
        if (level_of(&j)->sum + level_of(&j)->last > PATTERN_COST_MAX) return too_costly;
    }
    uint64_t total = 0;
    for (unsigned i = 0; i <= j.depth; i++) total += j.levels[i].sum + j.levels[i].last;
    return total > PATTERN_COST_MAX ? too_costly : NULL;
}
