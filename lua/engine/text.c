#include "lua/engine/text.h"

#include <stdlib.h>
#include <string.h>

void engine_text_free(struct engine_text *text)
{
    free(text->data);
    *text = (struct engine_text){0};
}

void engine_text_set(struct engine_text *text, const char *data, size_t size)
{
    text->data = malloc(size + 1);
    text->size = text->data ? size : 0;
    if (!text->data) return;
    if (size > 0) memcpy(text->data, data, size);
    text->data[size] = '\0';
}
