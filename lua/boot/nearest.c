#include "lua/boot/nearest.h"

#include <limits.h>
#include <string.h>

static char fold(char c)
{
    if (c == '-') return '_';
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Damerau and Levenshtein, in three rows: two behind, one behind, this one. */
unsigned nearest_distance(const char *from, const char *to)
{
    unsigned rows[3][NEAREST_WORD_MAX + 1];
    size_t rows_count = strnlen(from, NEAREST_WORD_MAX + 1), columns = strnlen(to, NEAREST_WORD_MAX + 1);
    if (rows_count > NEAREST_WORD_MAX || columns > NEAREST_WORD_MAX) return UINT_MAX;
    for (unsigned j = 0; j <= columns; j++) rows[0][j] = j;
    for (unsigned i = 1; i <= rows_count; i++) {
        unsigned *now = rows[i % 3], *before = rows[(i + 2) % 3], *older = rows[(i + 1) % 3];
        now[0] = i;
        for (unsigned j = 1; j <= columns; j++) {
            char a = fold(from[i - 1]), b = fold(to[j - 1]);
            now[j] = least(least(before[j], now[j - 1]) + 1, before[j - 1] + (a != b));
            if (i > 1 && j > 1 && a == fold(to[j - 2]) && b == fold(from[i - 2]))
                now[j] = least(now[j], older[j - 2] + 1);
        }
    }
    return rows[rows_count % 3][columns];
}

unsigned nearest_slips(size_t size)
{
    return size < 4 ? 1 : size < 8 ? 2 : 3;
}
