#include "core/process/option_listeners.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/process/kept_text.h"
#include "core/process/listener_options.h"
#include "core/process/option_values.h"

#define LISTEN_TEXT_MAX 261u /* contract section 1.3 */

static int check_unix(struct option_parse *p, const char *text)
{
    const char *path = text + strlen(VALUE_UNIX);
    size_t size = strlen(path);

    if (size == 0) return option_complain(p, "\"%s\" has no path, give unix:/path", text);
    if (size > ADDRESS_PATH_MAX)
        return option_complain(p, "the path \"%s\" is longer than %u octets, give a shorter one", path,
                               ADDRESS_PATH_MAX);
    return 0;
}

/* A port that is a name is config_check()'s part, and getaddrinfo()'s, which would take "+80", " 80" and "-1" as
 * numbers. */
static int check_port(struct option_parse *p, const char *text)
{
    size_t size = strlen(text);
    uint64_t port;

    if (!isalnum((unsigned char)text[0]))
        return option_complain(p, "\"%s\" is no port, give a number or the name of a service", text);
    if (strspn(text, "0123456789") != size) return 0;
    if (value_number(text, size, &port) && port <= 65535) return 0;
    return option_complain(p, "port \"%s\" is out of range, give 1 to 65535, or 0 for any that is free", text);
}

static int check_listen_text(struct option_parse *p, const char *text)
{
    const char *colon = strrchr(text, ':');
    size_t host_size = colon ? (size_t)(colon - text) : 0;

    if (value_is_unix(text)) return check_unix(p, text);
    if (strlen(text) > LISTEN_TEXT_MAX)
        return option_complain(p, "the address is longer than %u octets", LISTEN_TEXT_MAX);
    if (!colon || !colon[1]) return option_complain(p, "\"%s\" has no port, give host:port, :port or unix:/path", text);
    if (text[0] != '[' && memchr(text, ':', host_size))
        return option_complain(p, "\"%s\" is ambiguous, write an IPv6 address in brackets: [address]:port", text);
    if (text[0] == '[' && text[host_size - 1] != ']')
        return option_complain(p, "\"%s\" has an open bracket, give [address]:port", text);
    return check_port(p, colon + 1);
}

/* --- options of one listener --- */

/* Reads `name=value` as if it stood behind the listener's address, where it stands from now on. */
static int add_option(struct option_parse *p, struct listener_config *l, const char *name, const char *value,
                      size_t size)
{
    char *text = NULL;
    int used =
        asprintf(&text, "%s%s%s=%.*s", l->options ? l->options : "", l->options ? "," : "", name, (int)size, value);
    if (used < 0) return option_complain(p, "not enough memory");
    size_t own = strlen(name) + 1 + size;
    const char *kept = kept_text(text, (size_t)used);
    int result = kept ? listener_options_read(p, l, text + used - own) : option_complain(p, "not enough memory");
    if (result == 0) l->options = kept;
    free(text);
    return result;
}

/* The same for each member of a list. */
static int add_options(struct option_parse *p, struct listener_config *l, const char *name, const char *list)
{
    for (const char *next = list;; next++) {
        size_t size = strcspn(next, ",");
        if (add_option(p, l, name, next, size) < 0) return -1;
        next += size;
        if (!*next) return 0;
    }
}

static struct listener_config *latest_listener(struct option_parse *p)
{
    return p->config->listener_count > 0 ? &p->config->listeners[p->config->listener_count - 1] : NULL;
}

int option_set_proxy_protocol(struct option_parse *p, const char *operand)
{
    struct listener_config *l = latest_listener(p), unused = {0};

    if (l && !config_has_proxies(&l->proxies) && !l->proxies.optional)
        return add_options(p, l, "proxy-protocol", operand);
    if (p->pending_proxies)
        return option_complain(p, "\"%s\" has no listener, give an -l before it", p->pending_proxies);
    p->pending_proxies = operand;
    return add_options(p, &unused, "proxy-protocol", operand); /* a wrong one is reported under its own name */
}

int option_set_send_proxy(struct option_parse *p, const char *operand)
{
    struct listener_config *l = latest_listener(p), unused = {0};

    if (l && l->send_proxy == 0) return add_option(p, l, "send-proxy", operand, strlen(operand));
    if (p->pending_send_proxy)
        return option_complain(p, "\"%s\" has no listener, give an -l before it", p->pending_send_proxy);
    p->pending_send_proxy = operand;
    return add_option(p, &unused, "send-proxy", operand, strlen(operand));
}

/* What stood in front of it. */
static int take_pending(struct option_parse *p, struct listener_config *l)
{
    const char *proxies = p->pending_proxies, *version = p->pending_send_proxy;

    p->pending_proxies = p->pending_send_proxy = NULL;
    if (proxies && add_options(p, l, "proxy-protocol", proxies) < 0) return -1;
    return version ? add_option(p, l, "send-proxy", version, strlen(version)) : 0;
}

/* The operand is an address, and what is for this listener alone behind it. */
static struct listener_config *add_listener(struct option_parse *p, const char *operand, enum listener_kind kind)
{
    size_t size = value_listen_size(operand);
    const char *options = operand[size] ? operand + size + 1 : NULL, *text = operand;

    if (options) text = kept_text(operand, size);
    if (!text) {
        option_complain(p, "not enough memory");
        return NULL;
    }
    if (check_listen_text(p, text) < 0) return NULL;
    if (p->config->listener_count == CONFIG_LISTENERS_MAX) {
        option_complain(p, "too many listeners, give at most %u", CONFIG_LISTENERS_MAX);
        return NULL;
    }
    struct listener_config *l = &p->config->listeners[p->config->listener_count++];
    *l = (struct listener_config){.kind = kind, .text = text, .options = options};
    if (options && listener_options_read(p, l, options) < 0) return NULL;
    return take_pending(p, l) < 0 ? NULL : l;
}

static int read_forward(struct option_parse *p, const char *text, struct listener_config *l)
{
    if (value_is_unix(text)) {
        const char *path = text + strlen(VALUE_UNIX);
        if (check_unix(p, text) < 0) return -1;
        l->forward = (struct address){.kind = ADDRESS_UNIX, .name_size = (uint8_t)strlen(path)};
        memcpy(l->forward.name, path, l->forward.name_size);
    } else if (value_is_left_open(text)) {
        l->forward = (struct address){.kind = ADDRESS_NONE};
    } else if (!value_target(text, &l->forward)) {
        return option_complain(p, "\"%s\" is no target, give host:port with a port of 1 to 65535, or unix:/path", text);
    }
    l->kind = LISTENER_FORWARD;
    l->forward_text = text;
    return 0;
}

int option_set_listen(struct option_parse *p, const char *operand)
{
    struct listener_config *l = add_listener(p, operand, LISTENER_AUTO);

    if (!l) return -1;
    p->last_listen = (int)(l - p->config->listeners);
    if (p->pending_http) {
        if (p->pending_forward) return option_complain(p, "--http and -f cannot share one listener, give -l for each");
        if (l->kind == LISTENER_SOCKS)
            return option_complain(p, "protocol=socks contradicts --http, leave one of them out");
        l->kind = LISTENER_HTTP;
    }
    if (p->pending_forward && l->kind != LISTENER_AUTO)
        return option_complain(p, "a listener that forwards speaks no protocol, leave protocol= out");
    if (p->pending_forward && read_forward(p, p->pending_forward, l) < 0) return -1;
    p->pending_http = false;
    p->pending_forward = NULL;
    return 0;
}

/* The -l that a following -f or bare --http speaks of: the latest one, unless it has got its purpose already. */
static struct listener_config *latest_listen(struct option_parse *p)
{
    struct listener_config *l = p->last_listen < 0 ? NULL : &p->config->listeners[p->last_listen];
    return l && l->kind == LISTENER_AUTO ? l : NULL;
}

int option_set_forward(struct option_parse *p, const char *operand)
{
    struct listener_config *l = latest_listen(p), unused = {0};

    if (l) return read_forward(p, operand, l);
    if (p->pending_forward)
        return option_complain(p, "\"%s\" has no listener, give an -l before it", p->pending_forward);
    p->pending_forward = operand;
    return read_forward(p, operand, &unused); /* a wrong one is reported under its own name */
}

int option_set_http(struct option_parse *p, const char *operand)
{
    if (operand) return add_listener(p, operand, LISTENER_HTTP) ? 0 : -1;
    struct listener_config *l = latest_listen(p);
    if (l)
        l->kind = LISTENER_HTTP;
    else
        p->pending_http = true;
    return 0;
}

int option_set_api(struct option_parse *p, const char *operand)
{
    if (check_listen_text(p, operand) < 0) return -1;
    p->config->api_text = operand;
    return 0;
}

int option_finish_listeners(struct option_parse *p)
{
    struct config *c = p->config;

    p->name = p->pending_forward   ? "--forward"
              : p->pending_http    ? "--http"
              : p->pending_proxies ? "--proxy-protocol"
                                   : "--send-proxy";
    p->name_size = (int)strlen(p->name);
    if (p->pending_forward)
        return option_complain(p, "\"%s\" has no listener, give an -l of its own before it", p->pending_forward);
    if (p->pending_http) return option_complain(p, "no -l is left to become an HTTP listener, give --http ADDRESS");
    if (p->pending_proxies || p->pending_send_proxy)
        return option_complain(p, "\"%s\" has no listener, give an -l before it",
                               p->pending_proxies ? p->pending_proxies : p->pending_send_proxy);
    for (uint32_t i = 0; c->tproxy && i < c->listener_count; i++)
        if (c->listeners[i].kind == LISTENER_AUTO) c->listeners[i].kind = LISTENER_TPROXY;
    return 0;
}
