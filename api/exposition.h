/* What scripts add to /metrics, judged line by line: a scrape is read as a whole, so that one wrong line of a script
 * would cost all of it. Pure. */
#ifndef SLUICE_API_EXPOSITION_H
#define SLUICE_API_EXPOSITION_H

#include "api/text.h"

/* Adds the lines that are sound (text format 0.0.4), each with its end, to `out`, which holds what came before. Returns
 * how many were left out: no form of a line, not UTF-8, or a family that is there already or has its type already. */
size_t exposition_add(struct text *out, const char *data, size_t size);
/* Whether the line, without its end, is a comment, a HELP, a TYPE or a sample. */
bool exposition_is_sound(const char *line, size_t size);

#endif
