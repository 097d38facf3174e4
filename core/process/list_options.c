#include "core/process/list_options.h"

#include <string.h>

#include "core/process/kept_text.h"
#include "protocols/list_text.h"

static int add_member(struct option_parse *p, enum list_kind kind, unsigned scope, const char *member, size_t size)
{
    struct config *c = p->config;
    struct list_entry entry;
    bool targets = kind == LIST_ALLOW_TARGET || kind == LIST_DENY_TARGET;
    bool file = size > 0 && *member == '@';
    const char *wrong = file ? NULL : list_parse_entry(member, size, targets, &entry);
    if (file && size == 1) wrong = "the path of the file is missing, give @FILE";
    if (wrong) return option_complain(p, "\"%.*s\": %s", (int)size, member, wrong);
    if (c->list_count == CONFIG_LISTS_MAX)
        return option_complain(p, "all lists have more than %u members here, put them into a file: @FILE",
                               CONFIG_LISTS_MAX);
    const char *text = kept_text(member, size);
    if (!text) return option_complain(p, "not enough memory");
    c->lists_given[c->list_count++] =
        (struct list_option){.kind = (uint8_t)kind, .scope = (uint8_t)scope, .text = text};
    return 0;
}

int list_options_add(struct option_parse *p, enum list_kind kind, unsigned scope, const char *operand)
{
    for (const char *next = operand;; next++) {
        next += strspn(next, " ");
        size_t size = strcspn(next, ","), whole = size;
        while (size > 0 && next[size - 1] == ' ') size--;
        if (add_member(p, kind, scope, next, size) < 0) return -1;
        next += whole;
        if (!*next) return 0;
    }
}

void list_options_clear(struct config *config, enum list_kind kind, unsigned scope)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < config->list_count; i++) {
        const struct list_option *option = &config->lists_given[i];
        bool goes = option->scope == scope && (kind == LIST_KINDS || option->kind == kind);
        if (!goes) config->lists_given[kept++] = *option;
    }
    config->list_count = kept;
}
