#include "core/control/list_load.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/control/read_file.h"
#include "core/io/log.h"

#define SHOWN_MAX 80u /* octets of a wrong entry */

/* Where a part of a side comes from. */
struct source {
    const struct list_option *option;
    char *memory; /* of a file; NULL: the operand itself */
};

/* What is being read. */
struct load {
    const struct config *config;
    char *why;
    size_t why_size;
    size_t count; /* of the side */
    struct source sources[CONFIG_LISTS_MAX];
    struct list_part parts[CONFIG_LISTS_MAX];
};

const char *list_path(const struct list_option *option)
{
    return option->text[0] == '@' ? option->text + 1 : NULL;
}

/* --- what is wrong --- */

const char *list_name(const struct list_option *option)
{
    static const char *const names[] = {[LIST_ALLOW_CLIENT] = "allow-client",
                                        [LIST_DENY_CLIENT] = "deny-client",
                                        [LIST_ALLOW_TARGET] = "allow-target",
                                        [LIST_DENY_TARGET] = "deny-target"};
    return names[option->kind];
}

/* `--deny-target PATH`, or `listener "ADDRESS": deny-target=PATH`, into why; octets used. */
static size_t write_place(struct load *load, const struct list_option *option)
{
    const char *path = list_path(option) ? list_path(option) : "";
    const char *name = list_name(option);
    int used = option->scope == LIST_SCOPE_PROCESS
                   ? snprintf(load->why, load->why_size, "--%s%s%s", name, *path ? " " : "", path)
                   : snprintf(load->why, load->why_size, "listener \"%s\": %s%s%s",
                              load->config->listeners[option->scope].text, name, *path ? "=" : "", path);
    return used < 0 ? 0 : (size_t)used < load->why_size ? (size_t)used : load->why_size - 1;
}

static int fail_file(struct load *load, const struct list_option *option, const char *wrong)
{
    size_t used = write_place(load, option);
    snprintf(load->why + used, load->why_size - used, ": %s", wrong);
    return -1;
}

static int fail_entry(struct load *load, const struct list_fault *fault)
{
    const struct list_option *option = load->sources[fault->part].option;
    assert(fault->part < load->count && option);
    char raw[SHOWN_MAX + 1], shown[4 * SHOWN_MAX + 1], line[24] = "";
    size_t used = write_place(load, option), size = fault->entry_size < SHOWN_MAX ? fault->entry_size : SHOWN_MAX;
    memcpy(raw, fault->entry, size);
    raw[size] = '\0';
    log_quote(raw, shown, sizeof shown);
    if (list_path(option)) snprintf(line, sizeof line, ":%u", fault->line);
    snprintf(load->why + used, load->why_size - used, "%s: \"%s\": %s", line, shown, fault->wrong);
    return -1;
}

/* --- sides --- */

static int add_part(struct load *load, const struct list_option *option)
{
    struct list_part *part = &load->parts[load->count];
    struct source *source = &load->sources[load->count];
    *source = (struct source){.option = option};
    *part = (struct list_part){.text = option->text, .size = strlen(option->text)};
    part->denies = option->kind == LIST_DENY_CLIENT || option->kind == LIST_DENY_TARGET;
    if (list_path(option)) {
        const char *wrong = read_file_whole(list_path(option), &source->memory, &part->size);
        if (wrong) return fail_file(load, option, wrong);
        part->text = source->memory;
    }
    load->count++;
    return 0;
}

static int add_parts(struct load *load, enum list_subject subject, unsigned scope)
{
    const struct config *config = load->config;
    for (uint32_t i = 0; i < config->list_count; i++) {
        const struct list_option *option = &config->lists_given[i];
        bool clients = option->kind == LIST_ALLOW_CLIENT || option->kind == LIST_DENY_CLIENT;
        if (option->scope != scope || clients != (subject == LIST_CLIENTS)) continue;
        if (add_part(load, option) < 0) return -1;
    }
    return 0;
}

static int load_side(struct load *load, enum list_subject subject, unsigned scope, struct lists *lists)
{
    struct list_side **side = &lists->sides[subject][scope];
    struct list_fault fault;
    load->count = 0;
    int error = add_parts(load, subject, scope);
    if (error == 0) {
        error = list_side_build(subject, load->parts, load->count, side, &fault);
        if (error == -EINVAL) error = fail_entry(load, &fault);
        if (error == -ENOMEM || error == -E2BIG)
            snprintf(load->why, load->why_size, "lists of %s: %s", subject == LIST_CLIENTS ? "clients" : "targets",
                     error == -E2BIG ? "there are more entries than a table can have" : "not enough memory");
    }
    for (size_t i = 0; i < load->count; i++) {
        lists->entries[load->sources[i].option - load->config->lists_given] = (uint32_t)load->parts[i].entries;
        free(load->sources[i].memory);
    }
    return error < 0 ? -1 : 0;
}

static int load_sides(struct load *load, struct lists *lists)
{
    for (unsigned subject = 0; subject < LIST_SUBJECTS; subject++)
        for (unsigned scope = 0; scope < LIST_SCOPES; scope++)
            if (load_side(load, (enum list_subject)subject, scope, lists) < 0) return -1;
    return 0;
}

int list_load(const struct config *config, struct lists **lists, char *why, size_t size)
{
    *lists = NULL;
    if (config->list_count == 0) return 0;
    struct load *load = calloc(1, sizeof *load);
    struct lists *fresh = lists_new();
    int error = load && fresh ? 0 : -1;
    if (error < 0) snprintf(why, size, "lists: not enough memory");
    if (error == 0) {
        *load = (struct load){.config = config, .why = why, .why_size = size};
        error = load_sides(load, fresh);
    }
    if (error == 0) {
        fresh->loaded_s = (int64_t)time(NULL);
        *lists = fresh;
    } else {
        lists_release(fresh);
    }
    free(load);
    return error;
}
