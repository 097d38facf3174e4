/* A text that grows, for answers; a lack of memory is remembered and found at the end. */
#ifndef SLUICE_API_TEXT_H
#define SLUICE_API_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
    char *data; /* malloc'd, terminated; NULL: empty */
    size_t size, room;
    bool failed;
};

void text_add(struct text *text, const void *data, size_t size);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_free(struct text *text);

#endif
