#include "core/process/config_dump.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/session/policy.h"

/* The escapes of Lua. A digit may follow, so that control octets always take three. */
static void dump_octets(const char *text)
{
    for (; *text; text++) {
        unsigned char octet = (unsigned char)*text;
        if (octet == '\\' || octet == '"')
            printf("\\%c", octet);
        else if (octet < 0x20 || octet == 0x7f)
            printf("\\%03u", octet);
        else
            putchar(octet);
    }
}

static void dump_text(const char *key, const char *text)
{
    printf("    %s = %s", key, text ? "\"" : "nil");
    if (text) dump_octets(text);
    puts(text ? "\"," : ",");
}

static void dump_number(const char *key, long long value)
{
    printf("    %s = %lld,\n", key, value);
}

static void dump_seconds(const char *key, uint32_t value_ms)
{
    printf("    %s = %.17g,\n", key, value_ms / 1000.0);
}

static void dump_bool(const char *key, bool value)
{
    printf("    %s = %s,\n", key, value ? "true" : "false");
}

/* Several listeners become one text with commas. */
static void dump_listeners(const struct config *c, const char *key, bool http)
{
    bool any = false;

    printf("    %s = ", key);
    for (uint32_t i = 0; i < c->listener_count; i++) {
        if ((c->listeners[i].kind == LISTENER_HTTP) != http) continue;
        putchar(any ? ',' : '"');
        dump_octets(c->listeners[i].text);
        any = true;
    }
    puts(any ? "\"," : "nil,");
}

/* In the order of `listen`, empty where that listener does not forward. */
static void dump_forwards(const struct config *c)
{
    bool first = true;

    if (!config_has_listener(c, LISTENER_FORWARD)) {
        dump_text("forward", NULL);
        return;
    }
    printf("    forward = \"");
    for (uint32_t i = 0; i < c->listener_count; i++) {
        if (c->listeners[i].kind == LISTENER_HTTP) continue;
        if (!first) putchar(',');
        if (c->listeners[i].forward_text) dump_octets(c->listeners[i].forward_text);
        first = false;
    }
    puts("\",");
}

static void dump_addresses(const struct config *c)
{
    dump_listeners(c, "listen", false);
    dump_forwards(c);
    dump_text("proxy", c->proxy_text);
    dump_text("restapi", c->api_text);
    dump_listeners(c, "http_listen", true);
    dump_text("user_name", c->user);
    dump_text("nameserver", c->nameservers);
    dump_text("netdev", c->netdev);
}

static void dump_switches(const struct config *c)
{
    dump_bool("auth_required", c->auth_required);
    dump_bool("pipe", c->pipe);
    dump_bool("reuseport", c->reuseport);
    dump_bool("tcp_fastopen", c->fastopen);
    dump_bool("tcp_fastopen_connect", c->fastopen_connect);
    dump_bool("tcp_nodelay", c->tcp_nodelay);
    dump_bool("tcp_keepalive", c->tcp_keepalive);
    dump_bool("transparent", c->tproxy);
    dump_bool("traceback", c->traceback);
    dump_bool("socks5_bind", c->socks5_bind);
    dump_bool("socks5_udp", c->socks5_udp);
    dump_bool("daemonize", c->daemonize);
    dump_bool("block_loopback", c->blocked & POLICY_LOOPBACK);
    dump_bool("block_multicast", c->blocked & POLICY_MULTICAST);
    dump_bool("block_local", c->blocked & POLICY_LOCAL);
    dump_bool("block_global", c->blocked & POLICY_GLOBAL);
}

static void dump_limits(const struct config *c)
{
    dump_number("tcp_sndbuf", c->tcp_sndbuf);
    dump_number("tcp_rcvbuf", c->tcp_rcvbuf);
    dump_number("max_sessions", c->max_sessions);
    dump_number("startup_limit_start", c->startup_start);
    dump_number("startup_limit_rate", c->startup_rate);
    dump_number("startup_limit_full", c->startup_full);
}

static void dump_own(const struct config *c)
{
    static const char *const relays[] = {[RELAY_AUTO] = "auto", [RELAY_SPLICE] = "splice", [RELAY_COPY] = "copy"};

    dump_number("workers", c->workers);
    dump_text("relay", relays[c->relay]);
    dump_seconds("idle_timeout", c->idle_timeout_ms);
    dump_seconds("half_close_timeout", c->half_close_timeout_ms);
    dump_seconds("drain", c->drain_ms);
    dump_number("lua_budget", c->lua_budget_ms);
    dump_bool("allow_self", c->allow_self);
    dump_text("api_token_file", c->api_token_file);
    dump_text("ruleset", c->ruleset); /* a table of the -c script's own cannot be shown */
}

/* The table separates them by commas. Only the path of a Unix socket may hold one. */
static const char *find_comma(const struct config *c)
{
    for (uint32_t i = 0; i < c->listener_count; i++) {
        const char *forward = c->listeners[i].forward_text;
        if (strchr(c->listeners[i].text, ',')) return c->listeners[i].text;
        if (forward && strchr(forward, ',')) return forward;
    }
    return NULL;
}

int config_dump(const struct config *config)
{
    const char *comma = find_comma(config);
    if (comma) {
        fprintf(stderr, "sluice: --dump-config: a table cannot hold \"%s\", for its comma; choose another name\n",
                comma);
        return -EINVAL;
    }
    puts("return {");
    dump_addresses(config);
    dump_number("loglevel", config->log_level);
    dump_number("resolve_pf", config->family);
    dump_seconds("timeout", config->timeout_ms);
    dump_number("memlimit", config->memlimit_mib);
    dump_switches(config);
    dump_limits(config);
    dump_own(config);
    puts("}");
    if (fflush(stdout) != 0) return -errno;
    return ferror(stdout) ? -EIO : 0;
}
