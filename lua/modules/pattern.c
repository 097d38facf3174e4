/* One pass over the pattern, without recursion: a stack of open groups, each with what its alternatives, its current
 * branch and the last piece of that branch cost. */
#include "lua/modules/pattern.h"

#include <string.h>

/* Sums and products stay below this, so that no product of two overflows. */
#define COST_MAX UINT64_C(1000000000)

/* A tag is four octets where an entry of a set has fifty. */
#define TAGS_PER_STEP 8u

/* What TRE knows of a part of the tree: how many positions a match may begin and end with, with how many tags those are
 * marked together, how many tags there are on the way through it that takes nothing, and the work so far. Repeats have
 * tags of their own where there are groups in them, or where they are lazy. */
struct part {
    uint64_t nodes, first, last, first_tags, last_tags, skip_tags, steps, moves;
    bool nullable, present, tagged;
};

/* A group that is open, or the whole pattern. */
struct level {
    struct part alternatives, branch, piece;
    bool captured;
};

struct judge {
    const char *at, *end;
    bool extended, icase;
    unsigned depth, groups;
    struct level levels[PATTERN_DEPTH_MAX + 1];
};

static const char too_costly[] = "its repeats or alternatives expand to too much";
static const char bad_repeat[] = "a repeat count is malformed or above 255";
static const char bad_bracket[] = "a bracket is malformed or not closed";

static uint64_t capped(uint64_t value)
{
    return value < COST_MAX ? value : COST_MAX;
}

static struct level *level_of(struct judge *j)
{
    return &j->levels[j->depth];
}

/* --- the algebra of parts --- */

/* One of several characters or ranges: a position or more; none: an assertion or nothing at all. */
static struct part part_atom(uint64_t ranges)
{
    return (struct part){.nodes = ranges > 1 ? 2 * ranges - 1 : 1,
                         .first = ranges,
                         .last = ranges,
                         .steps = ranges * ranges + 1,
                         .nullable = ranges == 0,
                         .present = true};
}

/* Every end of `from` is followed by every beginning of `to`. */
static void part_connect(struct part *sum, const struct part *from, const struct part *to)
{
    uint64_t pairs = capped(from->last * to->first);
    uint64_t tags = capped(from->last * to->first_tags) + capped(from->last_tags * to->first);
    sum->moves = capped(sum->moves + pairs + tags / TAGS_PER_STEP);
    sum->steps = capped(sum->steps + pairs + tags / TAGS_PER_STEP);
}

/* The set of `near`, and if that can be skipped the set of `far` behind it, with the tags of the skip. A set that is
 * joined is a copy. */
static uint64_t set_join(struct part *sum, uint64_t near, uint64_t far, uint64_t *near_tags, uint64_t far_tags,
                         uint64_t skip_tags)
{
    uint64_t entries = capped(near + far);
    *near_tags = capped(*near_tags + far_tags + capped(far * skip_tags));
    sum->steps = capped(sum->steps + entries + *near_tags / TAGS_PER_STEP);
    return entries;
}

static struct part part_sequence(const struct part *left, const struct part *right)
{
    if (!left->present) return *right;
    if (!right->present) return *left;
    struct part sum = {.nodes = capped(left->nodes + right->nodes + 1),
                       .first = left->first,
                       .last = right->last,
                       .first_tags = left->first_tags,
                       .last_tags = right->last_tags,
                       .skip_tags = capped(left->skip_tags + right->skip_tags),
                       .steps = capped(left->steps + right->steps + 1),
                       .moves = capped(left->moves + right->moves),
                       .nullable = left->nullable && right->nullable,
                       .present = true,
                       .tagged = left->tagged || right->tagged};
    if (left->nullable)
        sum.first = set_join(&sum, left->first, right->first, &sum.first_tags, right->first_tags, left->skip_tags);
    if (right->nullable)
        sum.last = set_join(&sum, right->last, left->last, &sum.last_tags, left->last_tags, right->skip_tags);
    part_connect(&sum, left, right);
    return sum;
}

static struct part part_either(const struct part *left, const struct part *right)
{
    if (!left->present) return *right;
    struct part sum = {.nodes = capped(left->nodes + right->nodes + 1),
                       .first_tags = left->first_tags,
                       .last_tags = left->last_tags,
                       .skip_tags = capped(left->skip_tags + right->skip_tags),
                       .steps = capped(left->steps + right->steps + 1),
                       .moves = capped(left->moves + right->moves),
                       .nullable = left->nullable || right->nullable,
                       .present = true,
                       .tagged = left->tagged || right->tagged};
    sum.first = set_join(&sum, left->first, right->first, &sum.first_tags, right->first_tags, sum.tagged);
    sum.last = set_join(&sum, left->last, right->last, &sum.last_tags, right->last_tags, sum.tagged);
    return sum;
}

/* ?, or * and + with `again`. */
static struct part part_optional(const struct part *inner, bool again, bool skippable)
{
    struct part sum = *inner;
    sum.nodes = capped(sum.nodes + 1);
    sum.nullable = sum.nullable || skippable;
    sum.skip_tags = capped(sum.skip_tags + (sum.tagged ? 2 : 0));
    sum.steps = capped(sum.steps + 1);
    if (again) part_connect(&sum, inner, inner);
    return sum;
}

/* Captured: a tag in front and one behind. */
static struct part part_captured(const struct part *inner)
{
    struct part sum = *inner;
    sum.nodes = capped(sum.nodes + 4);
    sum.first_tags = capped(sum.first_tags + sum.first);
    sum.last_tags = capped(sum.last_tags + sum.last);
    sum.skip_tags = capped(sum.skip_tags + 2);
    sum.steps = capped(sum.steps + 2 * (sum.first + sum.last) + 4);
    sum.tagged = true;
    return sum;
}

static bool part_costly(const struct part *part)
{
    return part->nodes > PATTERN_NODES_MAX || part->steps > PATTERN_STEPS_MAX;
}

/* Written out as TRE does it: `least` copies in a row, then a star, or nested options for the rest. */
static struct part part_repeat(const struct part *inner, uint64_t least, uint64_t most, bool endless)
{
    struct part copies = {0}, rest = {0};
    for (uint64_t i = 0; i < least && !part_costly(&copies); i++) copies = part_sequence(&copies, inner);
    if (endless) rest = part_optional(inner, true, true);
    for (uint64_t i = least; i < most && !part_costly(&rest); i++) {
        rest = part_sequence(inner, &rest);
        rest = part_optional(&rest, false, true);
    }
    return copies.present || rest.present ? part_sequence(&copies, &rest) : part_atom(0);
}

/* --- reading --- */

/* What stands before is closed, a new piece begins. */
static void begin_piece(struct judge *j, struct part piece)
{
    struct level *level = level_of(j);
    level->branch = part_sequence(&level->branch, &level->piece);
    level->piece = piece;
}

/* A branch or group ends: an empty one matches the empty string. */
static void end_branch(struct judge *j)
{
    struct level *level = level_of(j);
    begin_piece(j, (struct part){0});
    if (!level->branch.present) level->branch = part_atom(0);
    level->alternatives = part_either(&level->alternatives, &level->branch);
    level->branch = (struct part){0};
}

static int peek(const struct judge *j, size_t ahead)
{
    return (size_t)(j->end - j->at) > ahead ? (unsigned char)j->at[ahead] : -1;
}

/* What a repeat is for; `at` is behind the repeat. Without a piece in front TRE takes the empty string. A question mark
 * that follows makes the repeat lazy, in basic expressions too. */
static struct part *repeated(struct judge *j)
{
    struct part *piece = &level_of(j)->piece;
    if (!piece->present) *piece = part_atom(0);
    if (peek(j, 0) == '?') {
        j->at++;
        piece->tagged = true;
    }
    return piece;
}

static bool is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(int c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static const char *judge_character(struct judge *j, int c)
{
    begin_piece(j, part_atom(j->icase && (is_letter(c) || c >= 0x80) ? 2 : 1));
    return NULL;
}

/* [:alpha:] and the like, `at` is on the bracket. It must be closed: TRE reads on where it is not. */
static bool skip_class(struct judge *j)
{
    j->at += 2;
    while (is_letter(peek(j, 0))) j->at++;
    if (peek(j, 0) != ':' || peek(j, 1) != ']') return false;
    j->at += 2;
    return true;
}

/* One item; how many ranges TRE makes of it at most in the C locale, which is the program's. 0: malformed. */
static uint64_t judge_item(struct judge *j)
{
    if (peek(j, 1) == '-' && peek(j, 2) >= 0 && peek(j, 2) != ']') {
        j->at += 3;
        return j->icase ? 4 : 1;
    }
    if (peek(j, 0) == '[' && (peek(j, 1) == '.' || peek(j, 1) == '=')) return 0;
    if (peek(j, 0) == '[' && peek(j, 1) == ':') return skip_class(j) ? 4 : 0;
    j->at++;
    return j->icase ? 2 : 1;
}

/* [...] as TRE reads it: a bracket that stands first is a member, a backslash too. */
static const char *judge_bracket(struct judge *j)
{
    uint64_t ranges = 1; /* negated there is one more */
    j->at++;
    if (peek(j, 0) == '^') j->at++;
    for (bool first = true; first || peek(j, 0) != ']'; first = false) {
        uint64_t item = peek(j, 0) < 0 ? 0 : judge_item(j);
        if (item == 0) return bad_bracket;
        ranges += item;
    }
    j->at++;
    begin_piece(j, part_atom(ranges));
    return NULL;
}

static const char *judge_option(struct judge *j, bool again, bool skippable)
{
    struct part *piece = repeated(j);
    *piece = part_optional(piece, again, skippable);
    return NULL;
}

/* A number of up to three digits, or false. */
static bool read_number(struct judge *j, uint64_t *value)
{
    const char *start = j->at;
    *value = 0;
    while (is_digit(peek(j, 0)) && j->at - start < 4) *value = *value * 10 + (uint64_t)(*j->at++ - '0');
    return j->at > start;
}

/* {m}, {m,}, {m,n} and {,n}; `at` is behind the brace. TRE would take more, such as the number of errors it may make.
 */
static const char *judge_repeat(struct judge *j)
{
    uint64_t least, most;
    bool has_least = read_number(j, &least), has_most = false, comma = peek(j, 0) == ',';
    most = least;
    if (comma) {
        j->at++;
        has_most = read_number(j, &most);
    }
    if (!has_least && !has_most) return bad_repeat;
    if (!j->extended && peek(j, 0) == '\\')
        j->at++;
    else if (!j->extended)
        return bad_repeat;
    if (peek(j, 0) != '}') return bad_repeat;
    j->at++;
    bool endless = comma && !has_most;
    if (least > PATTERN_REPEAT_MAX || most > PATTERN_REPEAT_MAX || (!endless && least > most)) return bad_repeat;
    struct part *piece = repeated(j);
    *piece = part_repeat(piece, least, most, endless);
    return NULL;
}

/* `at` is behind the parenthesis. Of what may follow a question mark there, "(?:" is harmless and common. */
static const char *open_group(struct judge *j)
{
    bool captured = true;
    if (j->extended && peek(j, 0) == '?') {
        if (peek(j, 1) != ':') return "it has flags behind (?";
        captured = false;
        j->at += 2;
    }
    if (captured && ++j->groups > PATTERN_GROUPS_MAX) return "it has more than 63 groups";
    if (j->depth == PATTERN_DEPTH_MAX) return "its groups are nested too deep";
    begin_piece(j, (struct part){0});
    j->depth++;
    *level_of(j) = (struct level){.captured = captured};
    return NULL;
}

/* TRE 0.8.0 takes a parenthesis too many for a character, but never ends when it stands behind an escaped backslash. */
static const char *close_group(struct judge *j)
{
    if (j->depth == 0) return "its parentheses do not match";
    end_branch(j);
    struct level *inner = level_of(j);
    j->depth--;
    level_of(j)->piece = inner->captured ? part_captured(&inner->alternatives) : inner->alternatives;
    return NULL;
}

/* \x, \xF, \xFF, \x{F} to \x{FFFFFFFF}; `at` is behind the letter. TRE has room for so many digits, and does not look.
 */
static const char *judge_hex(struct judge *j)
{
    size_t digits = 0;
    begin_piece(j, part_atom(1));
    if (peek(j, 0) != '{') return NULL; /* what follows counts once more, as characters */
    while (is_hex(peek(j, 1 + digits))) digits++;
    if (digits > 8 || peek(j, 1 + digits) != '}') return "the digits behind \\x are malformed";
    j->at += digits + 2;
    return NULL;
}

/* Letters behind a backslash that mean something to TRE. */
static const char *judge_letter(struct judge *j, int c)
{
    if (c == 'x') return judge_hex(j);
    if (c == 'Q') return "it quotes with \\Q";
    if (strchr("wWsSdD", c))
        begin_piece(j, part_atom(5));
    else if (strchr("bB<>", c))
        begin_piece(j, part_atom(0));
    else
        return judge_character(j, c);
    return NULL;
}

/* TRE takes the parenthesis behind an escaped backslash for one that is escaped. */
static bool is_ambiguous(const struct judge *j, int c)
{
    return !j->extended && c == '\\' && (peek(j, 0) == '(' || peek(j, 0) == ')');
}

/* Back-references cannot be matched in linear time; TRE would go back and forth, even for \0. */
static const char *judge_escape(struct judge *j)
{
    int c = peek(j, 1);
    if (c < 0) return "it ends in a backslash";
    j->at += 2;
    if (is_digit(c)) return "it has a back-reference";
    if (!j->extended && c == '(') return open_group(j);
    if (!j->extended && c == ')') return close_group(j);
    if (!j->extended && c == '{')
        return level_of(j)->piece.present ? judge_repeat(j) : "a repeat has nothing to repeat";
    if (is_ambiguous(j, c)) return "a backslash and a parenthesis: write [(] or [)]";
    if (is_letter(c) || c == '<' || c == '>') return judge_letter(j, c);
    return judge_character(j, c);
}

/* What means something in extended expressions alone; `at` is behind it. */
static const char *judge_extended(struct judge *j, int c)
{
    switch (c) {
    case '(': return open_group(j);
    case ')': return close_group(j);
    case '{': return judge_repeat(j);
    case '|': end_branch(j); return NULL;
    case '+': return judge_option(j, true, false);
    case '?': return judge_option(j, false, true);
    default: return judge_character(j, c);
    }
}

static const char *judge_next(struct judge *j)
{
    int c = peek(j, 0);
    if (c == '\\') return judge_escape(j);
    if (c == '[') return judge_bracket(j);
    j->at++;
    switch (c) {
    case '*': return judge_option(j, true, true);
    case '.': begin_piece(j, part_atom(2)); return NULL; /* before and behind the line feed */
    case '^':
    case '$':
        if (!j->extended) return judge_character(j, c);
        begin_piece(j, part_atom(0));
        return NULL;
    default: return j->extended ? judge_extended(j, c) : judge_character(j, c);
    }
}

/* The parts that are open, together; what they will be joined to only adds to it. */
static const char *judge_sum(struct judge *j, struct pattern_cost *cost)
{
    uint64_t nodes = 0, steps = 0, moves = 0;
    for (unsigned i = 0; i <= j->depth; i++) {
        const struct level *level = &j->levels[i];
        nodes += level->alternatives.nodes + level->branch.nodes + level->piece.nodes;
        steps += level->alternatives.steps + level->branch.steps + level->piece.steps;
        moves += level->alternatives.moves + level->branch.moves + level->piece.moves;
    }
    if (nodes > PATTERN_NODES_MAX || steps > PATTERN_STEPS_MAX) return too_costly;
    *cost = (struct pattern_cost){(uint32_t)nodes, j->groups, (uint32_t)steps, (uint32_t)(moves + nodes)};
    return NULL;
}

const char *pattern_judge(const char *pattern, size_t size, unsigned flags, struct pattern_cost *cost)
{
    struct judge j = {
        .at = pattern, .end = pattern + size, .extended = flags & PATTERN_EXTENDED, .icase = flags & PATTERN_ICASE};
    const char *wrong;
    if (size > PATTERN_SIZE_MAX) return "it is too long";
    while (j.at < j.end) {
        if ((wrong = judge_next(&j))) return wrong;
        if (part_costly(&level_of(&j)->piece) || part_costly(&level_of(&j)->branch)) return too_costly;
    }
    while (j.depth > 0) close_group(&j);
    end_branch(&j);
    return judge_sum(&j, cost);
}
