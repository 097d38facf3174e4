#include "core/process/option.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/process/option_values.h"
#include "core/session/policy.h"

int option_complain(const struct option_parse *p, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    if (p->why) {
        int used = snprintf(p->why, p->why_size, "%.*s: ", p->name_size, p->name);
        if (used > 0 && (size_t)used < p->why_size)
            vsnprintf(p->why + used, p->why_size - (size_t)used, format, arguments);
    } else {
        fprintf(stderr, "sluice: %.*s: ", p->name_size, p->name);
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
    }
    va_end(arguments);
    return -1;
}

/* --- the setting of a row --- */

static void *place_of(const struct option_row *row, struct config *config)
{
    return (char *)config + row->place;
}

static const void *seen_place_of(const struct option_row *row, const struct config *config)
{
    return (const char *)config + row->place;
}

bool option_flag(const struct option_row *row, const struct config *config)
{
    assert(row->kind == OPTION_FLAG || row->kind == OPTION_CLASS);
    if (row->kind == OPTION_CLASS) return (config->blocked & row->class) != 0;
    return *(const bool *)seen_place_of(row, config);
}

uint32_t option_number(const struct option_row *row, const struct config *config)
{
    assert(row->kind == OPTION_NUMBER || row->kind == OPTION_FAMILY || row->kind == OPTION_SECONDS);
    return *(const uint32_t *)seen_place_of(row, config);
}

const char *option_text(const struct option_row *row, const struct config *config)
{
    assert(row->kind == OPTION_TEXT || row->kind == OPTION_WORD || row->kind == OPTION_RULESET);
    if (row->kind == OPTION_WORD) return row->words[*(const int *)seen_place_of(row, config)];
    return *(const char *const *)seen_place_of(row, config);
}

/* A dump gives the defaults, too: these do not count as given. */
static void put_class(uint32_t class, struct config *config, bool value)
{
    config->blocked = value ? config->blocked | class : config->blocked & ~class;
    if (value != (class == POLICY_MULTICAST)) config->blocked_given = true;
}

void option_put_flag(const struct option_row *row, struct config *config, bool value)
{
    assert(row->kind == OPTION_FLAG || row->kind == OPTION_CLASS);
    if (row->kind == OPTION_CLASS)
        put_class(row->class, config, value);
    else
        *(bool *)place_of(row, config) = value;
}

void option_put_number(const struct option_row *row, struct config *config, uint32_t value)
{
    assert(row->kind == OPTION_NUMBER || row->kind == OPTION_FAMILY);
    *(uint32_t *)place_of(row, config) = value;
}

void option_put_seconds(const struct option_row *row, struct config *config, double seconds)
{
    assert(row->kind == OPTION_SECONDS);
    *(uint32_t *)place_of(row, config) = (uint32_t)(seconds * 1000.0 + 0.999);
}

void option_put_text(const struct option_row *row, struct config *config, const char *text)
{
    assert(row->kind == OPTION_TEXT || row->kind == OPTION_RULESET);
    *(const char **)place_of(row, config) = text;
}

/* --- functions that serve several options --- */

int option_set_flag(struct option_parse *p, const char *operand)
{
    (void)operand;
    option_put_flag(p->row, p->config, true);
    return 0;
}

int option_clear_flag(struct option_parse *p, const char *operand)
{
    (void)operand;
    option_put_flag(p->row, p->config, false);
    return 0;
}

static bool is_negative(const char *text)
{
    return text[0] == '-' && text[1] && strspn(text + 1, "0123456789") == strlen(text + 1);
}

int option_set_number(struct option_parse *p, const char *operand)
{
    const struct option_row *row = p->row;
    uint64_t value;

    if (row->negative_is_none && is_negative(operand)) operand = "0";
    if (!value_number(operand, strlen(operand), &value))
        return option_complain(p, "\"%s\" is not a number, give %.0f to %.0f", operand, row->least, row->most);
    if ((double)value < row->least || (double)value > row->most)
        return option_complain(p, "\"%s\" is out of range, give %.0f to %.0f", operand, row->least, row->most);
    option_put_number(row, p->config, (uint32_t)value);
    return 0;
}

int option_set_seconds(struct option_parse *p, const char *operand)
{
    const struct option_row *row = p->row;
    double value;

    if (!value_seconds(operand, &value))
        return option_complain(p, "\"%s\" is not a number, give %.0f to %.0f seconds", operand, row->least, row->most);
    if (value < row->least || value > row->most)
        return option_complain(p, "\"%s\" is out of range, give %.0f to %.0f seconds", operand, row->least, row->most);
    option_put_seconds(row, p->config, value);
    return 0;
}

int option_set_word(struct option_parse *p, const char *operand)
{
    char known[80] = "";

    assert(p->row->kind == OPTION_WORD);
    for (int i = 0; p->row->words[i]; i++) {
        size_t used = strlen(known);
        if (strcmp(p->row->words[i], operand) == 0) {
            *(int *)place_of(p->row, p->config) = i;
            return 0;
        }
        snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", p->row->words[i]);
    }
    return option_complain(p, "\"%s\" is unknown, give one of %s", operand, known);
}

int option_set_text(struct option_parse *p, const char *operand)
{
    if (!*operand) return option_complain(p, "the operand is empty, give %s", p->row->operand);
    option_put_text(p->row, p->config, operand);
    return 0;
}
