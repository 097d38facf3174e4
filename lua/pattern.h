/* What a regular expression would cost to compile: an estimate before TRE is asked, because it expands bounded repeats,
 * nested ones one within the other. Pure. */
#ifndef SLUICE_LUA_PATTERN_H
#define SLUICE_LUA_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#define PATTERN_SIZE_MAX  8192u  /* octets */
#define PATTERN_COST_MAX  20000u /* atoms behind all expansions */
#define PATTERN_DEPTH_MAX 100u   /* nested groups */

/* NULL if the pattern may be compiled, or what is wrong with it, static text. extended: the grammar. */
const char *pattern_judge(const char *pattern, size_t size, bool extended);

#endif
