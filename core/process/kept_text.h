/* Texts that settings point to and that are nobody else's: parts of operands, fields of a -c file. */
#ifndef SLUICE_CORE_PROCESS_KEPT_TEXT_H
#define SLUICE_CORE_PROCESS_KEPT_TEXT_H

#include <stddef.h>

/* A terminated copy of text[size], which lives as long as the process; NULL: no memory. Each text is kept once, however
 * often a file is read again: old settings may still be in use somewhere, so that none is freed. The main thread
 * only. */
const char *kept_text(const char *text, size_t size);

#endif
