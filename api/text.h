/* A text that grows, for answers; a lack of memory is remembered and found at the end. */
#ifndef SLUICE_API_TEXT_H
#define SLUICE_API_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct text {
    char *data; /* malloc'd, terminated; NULL: empty */
    size_t size, room;
    bool failed;
};

void text_add(struct text *text, const void *data, size_t size);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* As compact JSON, fractions with so many digits. Takes over `all`; NULL is a lack of memory. */
void text_add_json(struct text *text, json_t *all, size_t digits);
/* What a client or a file has named, as a JSON string: if it is no UTF-8, what is no ASCII of it are question marks.
 * NULL is a lack of memory. */
json_t *text_json(const char *text);
void text_free(struct text *text);

#endif
