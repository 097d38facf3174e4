/* Of words that somebody may have meant, the one that is most like what was written. Pure. */
#ifndef SLUICE_LUA_BOOT_NEAREST_H
#define SLUICE_LUA_BOOT_NEAREST_H

#include <stddef.h>

#define NEAREST_WORD_MAX 40u

/* Edits that make `to` of `from`: one octet added, dropped, replaced, or two neighbours exchanged; upper and lower
 * case, and `-` and `_`, are the same. Words longer than NEAREST_WORD_MAX are far from everything. */
unsigned nearest_distance(const char *from, const char *to);
/* A bound: how many edits still look like a slip in a word of that length. */
unsigned nearest_slips(size_t size);

#endif
