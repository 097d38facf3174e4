#include "core/process/config_dump.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/process/option_table.h"

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

/* Several listeners become one text with commas. */
static void dump_listeners(const struct config *c, const char *key, bool http)
{
    bool any = false;

    printf("    %s = ", key);
    for (uint32_t i = 0; i < c->listener_count; i++) {
        if ((c->listeners[i].kind == LISTENER_HTTP) != http) continue;
        putchar(any ? ',' : '"');
        dump_octets(c->listeners[i].text);
        if (c->listeners[i].options) putchar(',');
        if (c->listeners[i].options) dump_octets(c->listeners[i].options);
        any = true;
    }
    puts(any ? "\"," : "nil,");
}

/* In the order of `listen`, empty where that listener does not forward. */
static void dump_forwards(const struct config *c, const char *key)
{
    bool first = true;

    if (!config_has_listener(c, LISTENER_FORWARD)) {
        dump_text(key, NULL);
        return;
    }
    printf("    %s = \"", key);
    for (uint32_t i = 0; i < c->listener_count; i++) {
        if (c->listeners[i].kind == LISTENER_HTTP) continue;
        if (!first) putchar(',');
        if (c->listeners[i].forward_text) dump_octets(c->listeners[i].forward_text);
        first = false;
    }
    puts("\",");
}

static void dump_scripts(const struct config *c, const char *key)
{
    printf("    %s = ", key);
    for (uint32_t i = 0; i < c->script_count; i++) {
        putchar(i > 0 ? ',' : '"');
        dump_octets(c->scripts[i]);
    }
    puts(c->script_count > 0 ? "\"," : "nil,");
}

/* The contract's keys in the contract's order (section 1.4). Our own follow as they stand in the table. */
static const char *const contract_keys[] = {"listen",
                                            "forward",
                                            "proxy",
                                            "restapi",
                                            "http_listen",
                                            "user_name",
                                            "nameserver",
                                            "netdev",
                                            "loglevel",
                                            "resolve_pf",
                                            "timeout",
                                            "memlimit",
                                            "auth_required",
                                            "pipe",
                                            "reuseport",
                                            "tcp_fastopen",
                                            "tcp_fastopen_connect",
                                            "tcp_nodelay",
                                            "tcp_keepalive",
                                            "transparent",
                                            "traceback",
                                            "socks5_bind",
                                            "socks5_udp",
                                            "daemonize",
                                            "block_loopback",
                                            "block_multicast",
                                            "block_local",
                                            "block_global",
                                            "tcp_sndbuf",
                                            "tcp_rcvbuf",
                                            "max_sessions",
                                            "startup_limit_start",
                                            "startup_limit_rate",
                                            "startup_limit_full"};
#define CONTRACT_KEY_COUNT (sizeof contract_keys / sizeof *contract_keys)

static bool is_contract_key(const char *key)
{
    for (size_t i = 0; i < CONTRACT_KEY_COUNT; i++)
        if (strcmp(contract_keys[i], key) == 0) return true;
    return false;
}

/* What has blanks and commas of its own. */
static void dump_texts(const char *key, const char *const *texts, uint32_t count)
{
    printf("    %s = %s", key, count > 0 ? "\"" : "nil");
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0) printf("; ");
        dump_octets(texts[i]);
    }
    puts(count > 0 ? "\"," : ",");
}

static void dump_lists(const struct config *c, const struct option_row *row)
{
    bool any = false;

    printf("    %s = ", row->key);
    for (uint32_t i = 0; i < c->list_count; i++) {
        const struct list_option *option = &c->lists_given[i];
        if (option->kind != row->list || option->scope != LIST_SCOPE_PROCESS) continue;
        putchar(any ? ',' : '"');
        dump_octets(option->text);
        any = true;
    }
    puts(any ? "\"," : "nil,");
}

static void dump_row(const struct config *c, const struct option_row *row)
{
    switch (row->kind) {
    case OPTION_ACTION: abort(); /* has no key */
    case OPTION_FLAG:
    case OPTION_CLASS: printf("    %s = %s,\n", row->key, option_flag(row, c) ? "true" : "false"); return;
    case OPTION_NUMBER:
    case OPTION_FAMILY: printf("    %s = %u,\n", row->key, option_number(row, c)); return;
    case OPTION_SECONDS: printf("    %s = %.17g,\n", row->key, option_number(row, c) / 1000.0); return;
    case OPTION_TEXT:
    case OPTION_WORD:
    case OPTION_RULESET: dump_text(row->key, option_text(row, c)); return; /* a ruleset that is a table: nil */
    case OPTION_LISTEN: dump_listeners(c, row->key, false); return;
    case OPTION_HTTP_LISTEN: dump_listeners(c, row->key, true); return;
    case OPTION_FORWARD: dump_forwards(c, row->key); return;
    case OPTION_SCRIPTS: dump_scripts(c, row->key); return;
    case OPTION_LISTS: dump_lists(c, row); return;
    case OPTION_LIMITS: dump_texts(row->key, c->limits, c->limit_count); return;
    case OPTION_UPSTREAMS: dump_texts(row->key, c->upstreams, c->upstream_count); return;
    }
}

static void dump_rows(const struct config *c)
{
    for (size_t i = 0; i < CONTRACT_KEY_COUNT; i++) dump_row(c, option_find_key(contract_keys[i]));
    for (size_t i = 0; i < option_row_count; i++)
        if (option_rows[i].key && !is_contract_key(option_rows[i].key)) dump_row(c, &option_rows[i]);
}

/* The table separates them by commas. Only the path of a Unix socket or of a script may hold one. */
static const char *find_comma(const struct config *c)
{
    for (uint32_t i = 0; i < c->listener_count; i++) {
        const char *forward = c->listeners[i].forward_text;
        if (strchr(c->listeners[i].text, ',')) return c->listeners[i].text;
        if (forward && strchr(forward, ',')) return forward;
    }
    for (uint32_t i = 0; i < c->script_count; i++)
        if (strchr(c->scripts[i], ',')) return c->scripts[i];
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
    dump_rows(config);
    puts("}");
    if (fflush(stdout) != 0) return -errno;
    return ferror(stdout) ? -EIO : 0;
}
