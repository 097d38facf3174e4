/* Texts in memory of C that go from one owner to the next. */
#ifndef SLUICE_LUA_ENGINE_TEXT_H
#define SLUICE_LUA_ENGINE_TEXT_H

#include <stddef.h>

struct engine_text {
    char *data; /* malloc'd; NULL: none */
    size_t size;
};
void engine_text_free(struct engine_text *text);
/* A copy of `size` octets with a terminator; data stays NULL without memory. */
void engine_text_set(struct engine_text *text, const char *data, size_t size);

#endif
