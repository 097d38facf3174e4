#include "api/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool text_reserve(struct text *text, size_t size)
{
    if (text->room - text->size > size) return true;
    size_t room = text->room ? text->room * 2 : 1024;
    while (room - text->size <= size) room *= 2;
    char *bigger = realloc(text->data, room);
    if (!bigger) {
        text->failed = true;
        return false;
    }
    text->data = bigger;
    text->room = room;
    return true;
}

void text_add(struct text *text, const void *data, size_t size)
{
    if (text->failed || !text_reserve(text, size)) return;
    if (size > 0) memcpy(text->data + text->size, data, size);
    text->size += size;
    text->data[text->size] = '\0';
}

void text_printf(struct text *text, const char *format, ...)
{
    va_list arguments;
    char line[1024];
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (size < 0) return;
    text_add(text, line, (size_t)size < sizeof line ? (size_t)size : sizeof line - 1);
}

void text_add_json(struct text *text, json_t *all, size_t digits)
{
    char *dump = all ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(digits)) : NULL;
    if (dump)
        text_add(text, dump, strlen(dump));
    else
        text->failed = true;
    free(dump);
    json_decref(all);
}

json_t *text_json(const char *text)
{
    json_t *string = json_string(text);
    char *clean = string ? NULL : strdup(text);
    if (!clean) return string;
    for (char *c = clean; *c; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    string = json_string(clean);
    free(clean);
    return string;
}

void text_free(struct text *text)
{
    free(text->data);
    *text = (struct text){0};
}
