#include "core/process/kept_text.h"

#include <stdlib.h>
#include <string.h>

struct text_list {
    struct text_list *next;
    char text[];
};

static struct text_list *texts;

const char *kept_text(const char *text, size_t size)
{
    for (const struct text_list *old = texts; old; old = old->next)
        if (strlen(old->text) == size && memcmp(old->text, text, size) == 0) return old->text;
    struct text_list *kept = malloc(sizeof *kept + size + 1);
    if (!kept) return NULL;
    memcpy(kept->text, text, size);
    kept->text[size] = '\0';
    kept->next = texts;
    texts = kept;
    return kept->text;
}
