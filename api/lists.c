#include "api/lists.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "api/fields.h"
#include "api/parts.h"
#include "core/control/coordinator.h"
#include "core/control/list_find.h"
#include "core/control/list_load.h"
#include "core/control/settings.h"

static const struct config *config_of(struct call *call)
{
    return coordinator_config(call->parts->coordinator);
}

/* null: of the process. */
static json_t *scope_json(const struct config *config, unsigned scope)
{
    return scope == LIST_SCOPE_PROCESS ? json_null() : text_json(config->listeners[scope].text);
}

/* --- what there is --- */

static json_t *files_json(const struct config *config, enum list_kind kind, unsigned scope, uint64_t *entries)
{
    json_t *files = json_array();
    *entries = 0;
    for (uint32_t i = 0; i < config->list_count; i++) {
        const struct list_option *option = &config->lists_given[i];
        if (option->kind != kind || option->scope != scope) continue;
        uint32_t count = config->lists ? config->lists->entries[i] : 0;
        *entries += count;
        if (list_path(option))
            json_array_append_new(
                files, json_pack("{s:o, s:I}", "path", text_json(list_path(option)), "entries", (json_int_t)count));
    }
    return files;
}

static const struct list_option *first_of(const struct config *config, enum list_kind kind, unsigned scope)
{
    for (uint32_t i = 0; i < config->list_count; i++)
        if (config->lists_given[i].kind == kind && config->lists_given[i].scope == scope)
            return &config->lists_given[i];
    return NULL;
}

static void add_lists(const struct config *config, unsigned scope, json_t *all)
{
    uint64_t entries;
    for (unsigned kind = 0; kind < LIST_KINDS; kind++) {
        const struct list_option *first = first_of(config, (enum list_kind)kind, scope);
        if (!first) continue;
        json_t *files = files_json(config, (enum list_kind)kind, scope, &entries);
        json_array_append_new(all,
                              json_pack("{s:s, s:o, s:I, s:o}", "name", list_name(first), "listener",
                                        scope_json(config, scope), "entries", (json_int_t)entries, "files", files));
    }
}

static const char *subject_name(unsigned subject)
{
    return subject == LIST_CLIENTS ? "clients" : "targets";
}

static void add_denied(const struct config *config, unsigned scope, json_t *all)
{
    const struct lists *lists = config->lists;
    for (unsigned subject = 0; lists && subject < LIST_SUBJECTS; subject++) {
        if (!lists->sides[subject][scope]) continue;
        uint64_t count = atomic_load_explicit(&lists->meters->denied[subject][scope], memory_order_relaxed);
        json_array_append_new(all, json_pack("{s:s, s:o, s:I}", "subject", subject_name(subject), "listener",
                                             scope_json(config, scope), "count", (json_int_t)count));
    }
}

static json_t *lists_json(const struct config *config)
{
    const struct lists *lists = config->lists;
    json_t *all = json_array(), *denied = json_array();
    for (unsigned i = 0; i <= config->listener_count; i++) {
        unsigned scope = i == 0 ? LIST_SCOPE_PROCESS : i - 1;
        add_lists(config, scope, all);
        add_denied(config, scope, denied);
    }
    return json_pack("{s:I, s:o, s:o, s:o}", "revision", (json_int_t)(lists ? lists->revision : 0), "loaded",
                     lists ? json_integer((json_int_t)lists->loaded_s) : json_null(), "lists", all, "denied", denied);
}

void lists_show_all(struct call *call)
{
    call_reply_json(call, 200, lists_json(config_of(call)));
}

/* --- which entry decides --- */

struct question {
    enum list_subject subject;
    unsigned scopes[2], scope_count;
    struct address address;
};

static const char *read_listener(const struct config *config, const char *text, struct question *q)
{
    q->scopes[q->scope_count++] = LIST_SCOPE_PROCESS;
    if (!text) return NULL;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (strcmp(config->listeners[i].text, text) != 0) continue;
        q->scopes[q->scope_count++] = i;
        return NULL;
    }
    return "listener: give the address of a listener as its option has it, or leave it out";
}

static const char *read_subject(const char *text, struct question *q)
{
    q->subject = strcmp(text, "targets") == 0 ? LIST_TARGETS : LIST_CLIENTS;
    return strcmp(text, subject_name(q->subject)) == 0 ? NULL : "ask for /lists/clients or /lists/targets";
}

/* NULL, or what is wrong. */
static const char *read_question(struct call *call, struct question *q)
{
    const char *address, *name, *port, *listener;
    uint32_t number;
    if (!call_query_given(call, "address", &address) || !call_query_given(call, "name", &name) ||
        !call_query_given(call, "port", &port) || !call_query_given(call, "listener", &listener))
        return "address, name, port, listener: give a value, or leave it out";
    const char *wrong = read_subject(call->path_rest, q);
    if (wrong) return wrong;
    if (!address == !name) return "give an address, or a name";
    if (q->subject == LIST_CLIENTS && (name || port)) return "clients have an address alone";
    if (!fields_read_number(port, 0, UINT16_MAX, &number)) return "port: give a number of 1 to 65535";
    const char *text = address ? address : name;
    if (!text || !address_from_host(text, strlen(text), (uint16_t)number, &q->address)) return "this is no host";
    if ((q->address.kind == ADDRESS_NAME) != (name != NULL))
        return address ? "address: give an IPv4 or IPv6 address" : "name: give the name of a host";
    if (q->address.kind == ADDRESS_NONE || q->address.kind == ADDRESS_UNIX) return "this is no host";
    return read_listener(config_of(call), listener, q);
}

static const char *verdict_name(enum list_verdict verdict)
{
    return verdict == LIST_ALLOWED ? "allowed" : verdict == LIST_DENIED ? "denied" : "by-address";
}

static json_t *answer_json(const struct config *config, const struct question *q, unsigned scope,
                           enum list_verdict *verdict)
{
    struct list_found found;
    enum list_word word = lists_say(config->lists, q->subject, scope, &q->address, verdict);
    list_find(config, q->subject, scope, &q->address, word, &found);
    const char *path = found.option ? list_path(found.option) : NULL;
    return json_pack("{s:o, s:s, s:s?, s:o, s:o, s:o}", "listener", scope_json(config, scope), "verdict",
                     verdict_name(*verdict), "list", found.option ? list_name(found.option) : NULL, "entry",
                     found.option ? text_json(found.entry) : json_null(), "file", path ? text_json(path) : json_null(),
                     "line", found.line > 0 ? json_integer((json_int_t)found.line) : json_null());
}

void lists_ask(struct call *call)
{
    struct question q = {.scope_count = 0};
    enum list_verdict worst = LIST_ALLOWED, verdict;
    const char *wrong = read_question(call, &q);
    if (wrong) {
        call_reply_text(call, 400, wrong);
        return;
    }
    json_t *scopes = json_array();
    for (unsigned i = 0; i < q.scope_count; i++) {
        json_array_append_new(scopes, answer_json(config_of(call), &q, q.scopes[i], &verdict));
        if (verdict > worst) worst = verdict;
    }
    call_reply_json(call, 200, json_pack("{s:s, s:o}", "verdict", verdict_name(worst), "scopes", scopes));
}

/* --- reading the files again --- */

void lists_reload(struct call *call)
{
    char why[LIST_WHY_SIZE];
    if (config_of(call)->list_count == 0) {
        call_reply_text(call, 404, "there are no lists");
        return;
    }
    call_log_change(call, "lists");
    if (coordinator_reload_lists(call->parts->coordinator, why, sizeof why) < 0)
        call_reply_text(call, 409, why);
    else
        lists_show_all(call);
}
