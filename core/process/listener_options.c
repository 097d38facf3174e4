/* An option of a listener is a row of the table below: its name, and the function that reads its value. */
#include "core/process/listener_options.h"

#include <string.h>

#include "core/process/kept_text.h"
#include "core/process/list_options.h"

/* The value is kept and not empty. 0, or -1 after option_complain(). */
typedef int listener_function(struct option_parse *p, struct listener_config *l, const char *value);

static int read_protocol(struct option_parse *p, struct listener_config *l, const char *value)
{
    static const struct {
        const char *word;
        enum listener_kind kind;
    } words[] = {{"auto", LISTENER_AUTO}, {"http", LISTENER_HTTP}, {"socks", LISTENER_SOCKS}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(words[i].word, value) != 0) continue;
        if (l->kind != LISTENER_AUTO && l->kind != words[i].kind)
            return option_complain(p, "protocol=%s contradicts --http, leave one of them out", value);
        l->kind = words[i].kind;
        return 0;
    }
    return option_complain(p, "protocol \"%s\" is unknown, give one of auto, http, socks", value);
}

static int add_list(struct option_parse *p, const struct listener_config *l, enum list_kind kind, const char *value)
{
    return list_options_add(p, kind, (unsigned)(l - p->config->listeners), value);
}

static int read_allow_client(struct option_parse *p, struct listener_config *l, const char *value)
{
    return add_list(p, l, LIST_ALLOW_CLIENT, value);
}

static int read_deny_client(struct option_parse *p, struct listener_config *l, const char *value)
{
    return add_list(p, l, LIST_DENY_CLIENT, value);
}

static int read_allow_target(struct option_parse *p, struct listener_config *l, const char *value)
{
    return add_list(p, l, LIST_ALLOW_TARGET, value);
}

static int read_deny_target(struct option_parse *p, struct listener_config *l, const char *value)
{
    return add_list(p, l, LIST_DENY_TARGET, value);
}

static int read_users(struct option_parse *p, struct listener_config *l, const char *value)
{
    (void)p;
    l->users = value;
    return 0;
}

static const struct {
    const char *name;
    listener_function *read;
} rows[] = {
    {"protocol", read_protocol},         {"users", read_users},
    {"allow-client", read_allow_client}, {"deny-client", read_deny_client},
    {"allow-target", read_allow_target}, {"deny-target", read_deny_target},
};

/* Of rows, for messages. */
#define KNOWN "protocol=, users=, allow-client=, deny-client=, allow-target=, deny-target="

/* One `name=value`. */
static int read_option(struct option_parse *p, struct listener_config *l, const char *text, size_t size)
{
    const char *equals = memchr(text, '=', size);
    size_t name = equals ? (size_t)(equals - text) : size;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strlen(rows[i].name) != name || memcmp(rows[i].name, text, name) != 0) continue;
        if (!equals || name + 1 == size)
            return option_complain(p, "\"%.*s\" has no value, give %s=VALUE", (int)size, text, rows[i].name);
        const char *value = kept_text(equals + 1, size - name - 1);
        return value ? rows[i].read(p, l, value) : option_complain(p, "not enough memory");
    }
    return option_complain(p, "\"%.*s\" is no option of a listener, give one of " KNOWN, (int)name, text);
}

int listener_options_read(struct option_parse *p, struct listener_config *l, const char *text)
{
    for (const char *next = text;; next++) {
        size_t size = strcspn(next, ",");
        if (read_option(p, l, next, size) < 0) return -1;
        next += size;
        if (!*next) return 0;
    }
}
