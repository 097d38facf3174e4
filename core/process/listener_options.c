/* An option of a listener is a row of the table below: its name, and the function that reads its value. */
#include "core/process/listener_options.h"

#include <string.h>

#include "core/process/advertise_option.h"
#include "core/process/egress_options.h"
#include "core/process/kept_text.h"
#include "core/process/list_options.h"
#include "protocols/list_text.h"

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

static int add_proxies(struct option_parse *p, struct config_proxies *proxies, const char *value)
{
    struct list_entry entry;
    const char *wrong = list_parse_entry(value, strlen(value), false, &entry);
    if (wrong)
        return option_complain(p, "\"%s\" is no proxy, give an address, a network (address/bits), *, unix or optional",
                               value);
    unsigned families = entry.kind == LIST_ENTRY_ALL ? 2 : 1;
    if (proxies->count + families > CONFIG_PROXIES_MAX)
        return option_complain(p, "too many proxies, give at most %u networks", CONFIG_PROXIES_MAX);
    for (unsigned i = 0; i < families; i++) {
        bool is_ipv6 = families == 2 ? i == 1 : entry.kind == LIST_ENTRY_IPV6;
        proxies->networks[proxies->count].is_ipv6 = is_ipv6;
        proxies->networks[proxies->count].first = families == 2 ? (struct number){0, 0} : entry.first;
        proxies->networks[proxies->count++].bits = families == 2 ? (is_ipv6 ? 0 : 96) : entry.bits;
    }
    return 0;
}

static int read_proxy_protocol(struct option_parse *p, struct listener_config *l, const char *value)
{
    if (strcmp(value, "unix") == 0)
        l->proxies.unix_sockets = true;
    else if (strcmp(value, "optional") == 0)
        l->proxies.optional = true;
    else
        return add_proxies(p, &l->proxies, value);
    return 0;
}

static int read_send_proxy(struct option_parse *p, struct listener_config *l, const char *value)
{
    if (strcmp(value, "v1") != 0 && strcmp(value, "v2") != 0)
        return option_complain(p, "\"%s\" is no version of the PROXY protocol, give v1 or v2", value);
    l->send_proxy = value[1] == '1' ? 1 : 2;
    return 0;
}

static int read_udp_advertise(struct option_parse *p, struct listener_config *l, const char *value)
{
    return advertise_option_add(p, &l->advertise, value, strlen(value));
}

static int read_source(struct option_parse *p, struct listener_config *l, const char *value)
{
    return egress_options_source(p, &l->egress, value);
}

static int read_by(struct option_parse *p, struct listener_config *l, const char *value)
{
    return egress_options_by(p, &l->egress, value);
}

static int read_mark(struct option_parse *p, struct listener_config *l, const char *value)
{
    return egress_options_mark(p, &l->egress, value);
}

static int read_interface(struct option_parse *p, struct listener_config *l, const char *value)
{
    return egress_options_interface(p, &l->egress, value);
}

static const struct {
    const char *name;
    listener_function *read;
} rows[] = {
    {"protocol", read_protocol},
    {"users", read_users},
    {"allow-client", read_allow_client},
    {"deny-client", read_deny_client},
    {"allow-target", read_allow_target},
    {"deny-target", read_deny_target},
    {"proxy-protocol", read_proxy_protocol},
    {"send-proxy", read_send_proxy},
    {"udp-advertise", read_udp_advertise},
    {"source", read_source},
    {"by", read_by},
    {"mark", read_mark},
    {"interface", read_interface},
};

/* Of rows, for messages. */
#define KNOWN                                                                                                          \
    "protocol=, users=, allow-client=, deny-client=, allow-target=, deny-target=, proxy-protocol=, send-proxy=, "      \
    "udp-advertise=, source=, by=, mark=, interface="

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
