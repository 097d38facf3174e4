/* What a regular expression would cost to compile and to match: judged before TRE sees it. Pure.
 *
 * TRE builds an automaton with a position for each character, from a tree in which bounded repeats are written out, one
 * within the other. The time and memory of that are not bounded by the length of the pattern: `((a{200}){200}){200}`
 * has eight million positions, and `a?` a thousand times in a row half a million transitions. The judge computes the
 * sizes of TRE's sets without building them. It lets in POSIX syntax, `(?:`, and TRE's letters behind a backslash, and
 * nothing else: what remains of TRE's own syntax (approximate matching, \Q, flags inside) either matches slower than in
 * linear time or, in TRE 0.8.0, reads or writes behind the end of its memory (`[[:alpha:`, `\x{` with many digits). */
#ifndef SLUICE_LUA_MODULES_PATTERN_H
#define SLUICE_LUA_MODULES_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PATTERN_SIZE_MAX   8192u   /* octets */
#define PATTERN_NODES_MAX  20000u  /* of the tree, repeats written out; TRE walks it recursively */
#define PATTERN_STEPS_MAX  250000u /* entries of all sets and transitions, about 50 octets each */
#define PATTERN_DEPTH_MAX  100u    /* nested groups */
#define PATTERN_GROUPS_MAX 63u     /* that are captured */
#define PATTERN_REPEAT_MAX 255u    /* RE_DUP_MAX */

enum pattern_flag { PATTERN_EXTENDED = 1, PATTERN_ICASE = 2 };

struct pattern_cost {
    uint32_t nodes, groups;
    uint32_t steps; /* what compiling takes */
    uint32_t moves; /* what matching takes for each octet of the subject, at most */
};

/* NULL if the pattern may be compiled, or what is wrong with it, static text. flags: PATTERN_EXTENDED and
 * PATTERN_ICASE. *cost is written when the result is NULL. That NULL is no promise that TRE finds the syntax right. */
const char *pattern_judge(const char *pattern, size_t size, unsigned flags, struct pattern_cost *cost);

#endif
