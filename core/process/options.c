/* The command line: one table of options drives parsing and help.
 *
 *     argv > read_word > row of the table > its function > struct config
 *
 * Order matters for -l, -f and --http alone: -f and a bare --http belong to the -l before them, or to the one that
 * follows when there is none left (see pair_forward). What options can get wrong together is config_check()'s part. */
#include "core/process/options.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <net/if.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/io/log.h"
#include "core/process/config_check.h"
#include "core/process/config_dump.h"
#include "core/session/policy.h"

#define LISTEN_TEXT_MAX 261u /* contract section 1.3 */
#define URI_TEXT_MAX    1023u
#define CHAIN_TEXT_MAX  65535u
#define HELP_COLUMN     30 /* where the descriptions begin */
#define HELP_WIDTH      80

enum group {
    GROUP_LISTENERS,
    GROUP_OUTBOUND,
    GROUP_SCRIPTS,
    GROUP_LIMITS,
    GROUP_RELAY,
    GROUP_LOG,
    GROUP_PROCESS,
    GROUP_INFORMATION,
    GROUP_HIDDEN, /* accepted or refused, but not advertised */
};

static const char *const group_titles[] = {
    [GROUP_LISTENERS] = "Listeners (-l, --http and -f may be repeated)",
    [GROUP_OUTBOUND] = "Outgoing connections",
    [GROUP_SCRIPTS] = "Scripts and API",
    [GROUP_LIMITS] = "Limits",
    [GROUP_RELAY] = "Threads and relay",
    [GROUP_LOG] = "Log",
    [GROUP_PROCESS] = "Process",
    [GROUP_INFORMATION] = "Information",
};

struct parse {
    struct config *config;
    const struct option_row *row; /* the option that is being read */
    const char *name;             /* the option as typed, without "=value" */
    int name_size;
    const char *pending_forward; /* -f that waits for its -l; NULL: none */
    bool pending_http;           /* bare --http that waits for its -l */
    int last_listen;             /* index of the latest -l, -1: none */
    bool stop;                   /* everything was said, exit successfully */
    char *why;                   /* where complaints go, why_size octets; NULL: to stderr */
    size_t why_size;
};

typedef int option_function(struct parse *p, const char *operand); /* 0, or -1 after one line on stderr */

struct option_row {
    char short_name;       /* 0: none */
    const char *long_name; /* NULL: none */
    const char *operand;   /* its name in the help; NULL: takes none; in brackets: may be left out */
    enum group group;
    const char *help; /* wrapped when printed; for obsolete ones: what to do instead */
    option_function *function;
    size_t field;             /* of struct config, for the general functions */
    double least, most;       /* for numbers and seconds */
    const char *const *words; /* for enumerations, index is the value, NULL ends */
};

static int complain(const struct parse *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints "sluice: --option: what is wrong, what to do"; to `why` without the program. Always -1. */
static int complain(const struct parse *p, const char *format, ...)
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

static void *field_of(struct parse *p)
{
    return (char *)p->config + p->row->field;
}

/* --- functions that serve several options --- */

static int set_flag(struct parse *p, const char *operand)
{
    (void)operand;
    *(bool *)field_of(p) = true;
    return 0;
}

static int clear_flag(struct parse *p, const char *operand)
{
    (void)operand;
    *(bool *)field_of(p) = false;
    return 0;
}

/* Digits only: strtoul() alone would take blanks, signs and what fits after wrapping. */
static bool read_number(const char *text, size_t size, uint64_t *out)
{
    uint64_t value = 0;

    if (size == 0 || size > 15) return false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    *out = value;
    return true;
}

static int set_number(struct parse *p, const char *operand)
{
    uint64_t value;

    if (!read_number(operand, strlen(operand), &value))
        return complain(p, "\"%s\" is not a number, give %.0f to %.0f", operand, p->row->least, p->row->most);
    if ((double)value < p->row->least || (double)value > p->row->most)
        return complain(p, "\"%s\" is out of range, give %.0f to %.0f", operand, p->row->least, p->row->most);
    *(uint32_t *)field_of(p) = (uint32_t)value;
    return 0;
}

/* Seconds, fractions allowed, stored as milliseconds. */
static int set_seconds(struct parse *p, const char *operand)
{
    const struct option_row *row = p->row;
    char *end;
    double seconds = strtod(operand, &end);

    if (end == operand || *end || isnan(seconds))
        return complain(p, "\"%s\" is not a number, give %.0f to %.0f seconds", operand, row->least, row->most);
    if (seconds < row->least || seconds > row->most)
        return complain(p, "\"%s\" is out of range, give %.0f to %.0f seconds", operand, row->least, row->most);
    /* A wish above zero must not become zero, which means "never" or "at once". */
    *(uint32_t *)field_of(p) = (uint32_t)(seconds * 1000.0 + 0.999);
    return 0;
}

static int set_word(struct parse *p, const char *operand)
{
    char known[80] = "";

    for (int i = 0; p->row->words[i]; i++) {
        size_t used = strlen(known);
        if (strcmp(p->row->words[i], operand) == 0) {
            *(int *)field_of(p) = i;
            return 0;
        }
        snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", p->row->words[i]);
    }
    return complain(p, "\"%s\" is unknown, give one of %s", operand, known);
}

/* --- listeners --- */

static bool is_unix(const char *text)
{
    return strncmp(text, "unix:", 5) == 0;
}

static int check_unix(struct parse *p, const char *text)
{
    size_t size = strlen(text + 5);

    if (size == 0) return complain(p, "\"%s\" has no path, give unix:/path", text);
    if (size > ADDRESS_PATH_MAX)
        return complain(p, "the path \"%s\" is longer than %u octets, give a shorter one", text + 5, ADDRESS_PATH_MAX);
    return 0;
}

/* The form of a listener's address; what names mean is found out by config_check(). */
static int check_listen_text(struct parse *p, const char *text)
{
    const char *colon = strrchr(text, ':');
    size_t host_size = colon ? (size_t)(colon - text) : 0;
    uint64_t port;

    if (is_unix(text)) return check_unix(p, text);
    if (strlen(text) > LISTEN_TEXT_MAX) return complain(p, "the address is longer than %u octets", LISTEN_TEXT_MAX);
    if (!colon || !colon[1]) return complain(p, "\"%s\" has no port, give host:port, :port or unix:/path", text);
    if (text[0] != '[' && memchr(text, ':', host_size))
        return complain(p, "\"%s\" is ambiguous, write an IPv6 address in brackets: [address]:port", text);
    if (text[0] == '[' && text[host_size - 1] != ']')
        return complain(p, "\"%s\" has an open bracket, give [address]:port", text);
    if (strspn(colon + 1, "0123456789") == strlen(colon + 1) &&
        (!read_number(colon + 1, strlen(colon + 1), &port) || port > 65535))
        return complain(p, "port \"%s\" is out of range, give 1 to 65535, or 0 for any that is free", colon + 1);
    return 0;
}

static struct listener_config *add_listener(struct parse *p, const char *text, enum listener_kind kind)
{
    if (check_listen_text(p, text) < 0) return NULL;
    if (p->config->listener_count == CONFIG_LISTENERS_MAX) {
        complain(p, "too many listeners, give at most %u", CONFIG_LISTENERS_MAX);
        return NULL;
    }
    struct listener_config *l = &p->config->listeners[p->config->listener_count++];
    *l = (struct listener_config){.kind = kind, .text = text};
    return l;
}

/* ":" and ":0": a ruleset is to say where. With a host and port 0, or none, it is asked for that host. */
static bool is_left_open(const char *text)
{
    return strcmp(text, ":") == 0 || strcmp(text, ":0") == 0;
}

static bool parse_target(const char *text, struct address *out)
{
    size_t size = strlen(text);
    char whole[ADDRESS_TEXT_SIZE + 2];
    if (size == 0 || size >= ADDRESS_TEXT_SIZE) return false;
    snprintf(whole, sizeof whole, "%s%s", text, text[size - 1] == ':' ? "0" : "");
    return address_parse(whole, strlen(whole), ADDRESS_PORT_REQUIRED, 0, out);
}

static int read_forward(struct parse *p, const char *text, struct listener_config *l)
{
    if (is_unix(text)) {
        if (check_unix(p, text) < 0) return -1;
        l->forward = (struct address){.kind = ADDRESS_UNIX, .name_size = (uint8_t)strlen(text + 5)};
        memcpy(l->forward.name, text + 5, l->forward.name_size);
    } else if (is_left_open(text)) {
        l->forward = (struct address){.kind = ADDRESS_NONE};
    } else if (!parse_target(text, &l->forward)) {
        return complain(p, "\"%s\" is no target, give host:port with a port of 1 to 65535, or unix:/path", text);
    }
    l->kind = LISTENER_FORWARD;
    l->forward_text = text;
    return 0;
}

static int set_listen(struct parse *p, const char *operand)
{
    struct listener_config *l = add_listener(p, operand, LISTENER_AUTO);

    if (!l) return -1;
    p->last_listen = (int)(l - p->config->listeners);
    if (p->pending_http) {
        if (p->pending_forward) return complain(p, "--http and -f cannot share one listener, give -l for each");
        l->kind = LISTENER_HTTP;
    }
    if (p->pending_forward && read_forward(p, p->pending_forward, l) < 0) return -1;
    p->pending_http = false;
    p->pending_forward = NULL;
    return 0;
}

/* The -l that a following -f or bare --http speaks of: the latest one, unless it has got its purpose already. */
static struct listener_config *latest_listen(struct parse *p)
{
    struct listener_config *l = p->last_listen < 0 ? NULL : &p->config->listeners[p->last_listen];
    return l && l->kind == LISTENER_AUTO ? l : NULL;
}

static int pair_forward(struct parse *p, const char *operand)
{
    struct listener_config *l = latest_listen(p), unused = {0};

    if (l) return read_forward(p, operand, l);
    if (p->pending_forward) return complain(p, "\"%s\" has no listener, give an -l before it", p->pending_forward);
    p->pending_forward = operand;
    return read_forward(p, operand, &unused); /* a wrong one is reported under its own name */
}

static int set_http(struct parse *p, const char *operand)
{
    if (operand) return add_listener(p, operand, LISTENER_HTTP) ? 0 : -1;
    struct listener_config *l = latest_listen(p);
    if (l)
        l->kind = LISTENER_HTTP;
    else
        p->pending_http = true;
    return 0;
}

/* --- outgoing connections --- */

/* Messages name the hop by its number: the URI may hold a password. */
static int add_hop(struct parse *p, const char *text, size_t size)
{
    struct config *c = p->config;
    const char *wrong;

    if (c->hop_count == CONFIG_HOPS_MAX) return complain(p, "the chain is too long, give at most %u", CONFIG_HOPS_MAX);
    wrong = size > URI_TEXT_MAX ? "longer than 1023 octets" : proxy_uri_parse(text, size, &c->hops[c->hop_count]);
    if (wrong)
        return complain(p, "proxy %u: %s, give socks5://, socks4a:// or http://[user[:password]@]host[:port]",
                        c->hop_count + 1, wrong);
    c->hop_count++;
    return 0;
}

static int set_proxy(struct parse *p, const char *operand)
{
    if (strlen(operand) > CHAIN_TEXT_MAX) return complain(p, "the chain is longer than %u octets", CHAIN_TEXT_MAX);
    p->config->hop_count = 0;
    p->config->proxy_text = operand;
    for (const char *next = operand;; next++) {
        size_t size = strcspn(next, ",");
        if (add_hop(p, next, size) < 0) return -1;
        next += size;
        if (!*next) return 0;
    }
}

static int set_family(struct parse *p, const char *operand)
{
    int family = p->row->short_name == '4' ? AF_INET : AF_INET6;

    (void)operand;
    if (p->config->family != AF_UNSPEC && p->config->family != family)
        return complain(p, "-4 and -6 exclude each other, leave both out to use addresses of either family");
    p->config->family = family;
    return 0;
}

static bool is_literal(int family, const char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN];
    uint8_t address[16];

    if (size >= sizeof(host)) return false;
    memcpy(host, text, size);
    host[size] = '\0';
    return inet_pton(family, host, address) == 1;
}

/* v4, v4:port, [v6], [v6]:port; a bare IPv6 address cannot have a port. */
static bool is_nameserver(const char *text, size_t size)
{
    const char *end = text + size, *bracket = memchr(text, ']', size), *colon = memchr(text, ':', size), *host_end;
    bool bracketed = bracket && *text == '[';
    uint64_t port = 53;

    if (!bracketed && is_literal(AF_INET6, text, size)) return true;
    host_end = bracketed ? bracket + 1 : colon ? colon : end;
    if (host_end < end && (*host_end != ':' || !read_number(host_end + 1, (size_t)(end - host_end - 1), &port)))
        return false;
    if (port < 1 || port > 65535) return false;
    return bracketed ? is_literal(AF_INET6, text + 1, (size_t)(bracket - text - 1))
                     : is_literal(AF_INET, text, (size_t)(host_end - text));
}

static int set_nameserver(struct parse *p, const char *operand)
{
    for (const char *next = operand;; next++) {
        size_t size = strcspn(next, ",");
        if (!is_nameserver(next, size))
            return complain(p, "\"%.*s\" is no name server, give address[:port], IPv6 as [address]:port", (int)size,
                            next);
        next += size;
        if (!*next) break;
    }
    p->config->nameservers = operand;
    return 0;
}

static int set_netdev(struct parse *p, const char *operand)
{
    if (!*operand || strlen(operand) >= IF_NAMESIZE || strchr(operand, '/'))
        return complain(p, "\"%s\" is no interface name, give 1 to %d characters", operand, IF_NAMESIZE - 1);
    p->config->netdev = operand;
    return 0;
}

static int set_blocked(struct parse *p, const char *operand)
{
    const char *bad;
    size_t bad_size;

    p->config->blocked_given = true;
    if (policy_parse(operand, &p->config->blocked, &bad, &bad_size)) return 0;
    return complain(p, "\"%.*s\" is unknown, give a list of loopback, multicast, local, global", (int)bad_size, bad);
}

/* --- limits, threads, log --- */

/* Octets, or KiB or MiB with a letter. */
static bool read_size(const char *text, uint64_t *out)
{
    size_t size = strlen(text);
    char unit = size > 0 ? text[size - 1] : '\0';
    unsigned shift = unit == 'K' ? 10 : unit == 'M' ? 20 : 0;
    if (shift > 0) size--;
    if (!read_number(text, size, out)) return false;
    *out <<= shift;
    return true;
}

static int set_socket_buffer(struct parse *p, const char *operand)
{
    uint64_t size;

    if (!read_size(operand, &size)) return complain(p, "\"%s\" is no size, give 16K to 1024M", operand);
    if ((double)size < p->row->least || (double)size > p->row->most)
        return complain(p, "\"%s\" is out of range, give 16K to 1024M", operand);
    p->config->tcp_sndbuf = p->config->tcp_rcvbuf = (int)size;
    return 0;
}

/* start:rate:full, all three required. */
static int set_startups(struct parse *p, const char *operand)
{
    uint64_t numbers[3];
    const char *next = operand;

    for (int i = 0; i < 3; i++) {
        size_t size = strcspn(next, ":");
        if (!read_number(next, size, &numbers[i]) || numbers[i] > INT32_MAX || next[size] != (i < 2 ? ':' : '\0'))
            return complain(p, "\"%s\" is malformed, give start:rate:full, such as 100:30:200", operand);
        next += size + 1;
    }
    if (numbers[1] > 100) return complain(p, "rate \"%u\" is out of range, give 0 to 100", (unsigned)numbers[1]);
    p->config->startup_start = (uint32_t)numbers[0];
    p->config->startup_rate = (uint32_t)numbers[1];
    p->config->startup_full = (uint32_t)numbers[2];
    return 0;
}

static int set_workers(struct parse *p, const char *operand)
{
    p->config->workers = 0;
    if (strcmp(operand, "auto") == 0) return 0;
    uint64_t value;
    if (!read_number(operand, strlen(operand), &value))
        return complain(p, "\"%s\" is not a number, give 1 to %u, or auto", operand, CONFIG_WORKERS_MAX);
    if (value < 1 || value > CONFIG_WORKERS_MAX)
        return complain(p, "\"%s\" is out of range, give 1 to %u, or auto", operand, CONFIG_WORKERS_MAX);
    p->config->workers = (uint32_t)value;
    return 0;
}

static int set_check(struct parse *p, const char *operand)
{
    (void)operand;
    p->config->check_only = true;
    return 0;
}

static int set_dump(struct parse *p, const char *operand)
{
    (void)operand;
    p->config->dump_only = true;
    return 0;
}

static int set_user(struct parse *p, const char *operand)
{
    if (!*operand || strcmp(operand, ":") == 0)
        return complain(p, "\"%s\" names nobody, give user, user:, user:group or :group", operand);
    p->config->user = operand;
    return 0;
}

/* --- scripts and API --- */

static int set_text(struct parse *p, const char *operand)
{
    if (!*operand) return complain(p, "the operand is empty, give %s", p->row->operand);
    *(const char **)field_of(p) = operand;
    return 0;
}

static int add_script(struct parse *p, const char *operand)
{
    if (!*operand) return complain(p, "the operand is empty, give %s", p->row->operand);
    if (p->config->script_count == CONFIG_SCRIPTS_MAX)
        return complain(p, "too many scripts, give at most %u", CONFIG_SCRIPTS_MAX);
    p->config->scripts[p->config->script_count++] = operand;
    return 0;
}

static int set_api(struct parse *p, const char *operand)
{
    if (check_listen_text(p, operand) < 0) return -1;
    p->config->api_text = operand;
    return 0;
}

/* Negative is no limit, as the contract has it. */
static int set_memlimit(struct parse *p, const char *operand)
{
    if (operand[0] == '-' && operand[1] && strspn(operand + 1, "0123456789") == strlen(operand + 1)) operand = "0";
    return set_number(p, operand);
}

/* --- obsolete options --- */

static int warn_obsolete(struct parse *p, const char *operand)
{
    (void)operand;
    complain(p, "obsolete, %s", p->row->help);
    return 0;
}

static int block_ingress(struct parse *p, const char *operand)
{
    p->config->blocked |= POLICY_GLOBAL;
    p->config->blocked_given = true;
    return warn_obsolete(p, operand);
}

static int block_egress(struct parse *p, const char *operand)
{
    p->config->blocked |= POLICY_LOCAL;
    p->config->blocked_given = true;
    return warn_obsolete(p, operand);
}

static option_function print_help, print_version;

/* --- the table --- */

static const char *const relay_words[] = {
    [RELAY_AUTO] = "auto", [RELAY_SPLICE] = "splice", [RELAY_COPY] = "copy", NULL};
static const char *const log_words[] = {
    [LOG_TO_STDERR] = "stderr", [LOG_TO_STDOUT] = "stdout", [LOG_TO_TERMINAL] = "terminal",
    [LOG_TO_SYSLOG] = "syslog", [LOG_DISCARD] = "discard",  NULL};

#define FIELD(name) .field = offsetof(struct config, name)
#define NO_FIELD    .field = 0
#define OLD(s, l, h)                                                                                                   \
    {                                                                                                                  \
        s, l, NULL, GROUP_HIDDEN, h, warn_obsolete, 0, 0, 0, NULL                                                      \
    }

static const struct option_row rows[] = {
    {'l', "listen", "ADDRESS", GROUP_LISTENERS,
     "accept SOCKS4, SOCKS4A, SOCKS5 and HTTP proxy clients on host:port, :port (all addresses) or unix:/path",
     set_listen, NO_FIELD},
    {0, "http", "[ADDRESS]", GROUP_LISTENERS,
     "accept HTTP proxy clients only, on ADDRESS; without it, on the -l that stands before", set_http, NO_FIELD},
    {'f', "forward", "TARGET", GROUP_LISTENERS,
     "forward every connection of the -l that stands before to host:port or unix:/path", pair_forward, NO_FIELD},
    {0, "tproxy", NULL, GROUP_LISTENERS,
     "every -l takes connections redirected by the firewall's TPROXY target (needs CAP_NET_ADMIN)", set_flag,
     FIELD(tproxy)},
    {0, "enable-socks5-bind", NULL, GROUP_LISTENERS, "allow the SOCKS5 command BIND", set_flag, FIELD(socks5_bind)},
    {0, "enable-socks5-udp", NULL, GROUP_LISTENERS, "allow the SOCKS5 command UDP ASSOCIATE", set_flag,
     FIELD(socks5_udp)},
    {0, "no-fastopen", NULL, GROUP_LISTENERS, "do not offer TCP Fast Open to clients", clear_flag, FIELD(fastopen)},
    {0, "reuseport", NULL, GROUP_LISTENERS, "let another process listen on the same ports", set_flag, FIELD(reuseport)},

    {'x', "proxy", "URI[,URI...]", GROUP_OUTBOUND,
     "connect through a chain of proxies, first hop first: socks5://, socks4a:// or "
     "http://[user[:password]@]host[:port]",
     set_proxy, NO_FIELD},
    {'4', NULL, NULL, GROUP_OUTBOUND, "resolve names to IPv4 addresses only", set_family, NO_FIELD},
    {'6', NULL, NULL, GROUP_OUTBOUND, "resolve names to IPv6 addresses only", set_family, NO_FIELD},
    {0, "nameserver", "LIST", GROUP_OUTBOUND, "ask these servers, address[:port],... (default: resolv.conf)",
     set_nameserver, NO_FIELD},
    {'i', "netdev", "NAME", GROUP_OUTBOUND, "connect through this network interface", set_netdev, NO_FIELD},
    {0, "block-outbound", "LIST", GROUP_OUTBOUND,
     "never connect to these classes: loopback, multicast, local, global (default: multicast; an empty list blocks "
     "nothing)",
     set_blocked, NO_FIELD},
    {0, "allow-self", NULL, GROUP_OUTBOUND,
     "let clients connect to the API, listeners and scripts' sockets of this process (default: refused)", set_flag,
     FIELD(allow_self)},
    {0, "fastopen-connect", NULL, GROUP_OUTBOUND, "use TCP Fast Open towards upstream servers", set_flag,
     FIELD(fastopen_connect)},

    {'r', "ruleset", "FILE", GROUP_SCRIPTS, "let this Lua script decide where connections go (-: standard input)",
     set_text, FIELD(ruleset)},
    {'c', "config", "FILE", GROUP_SCRIPTS,
     "run this Lua script, which returns a table of settings and may bring a ruleset", set_text, FIELD(boot)},
    {0, "script", "FILE", GROUP_SCRIPTS,
     "run this Lua script beside everything else, with sockets of its own (-: standard input); may be repeated",
     add_script, NO_FIELD},
    {0, "auth-required", NULL, GROUP_SCRIPTS, "demand user and password from clients, for the ruleset to judge",
     set_flag, FIELD(auth_required)},
    {0, "lua-budget", "MS", GROUP_SCRIPTS, "time after which a script is aborted, 10 to 60000 (default: 5000)",
     set_number, FIELD(lua_budget_ms), 10, 60000},
    {0, "memlimit", "MIB", GROUP_SCRIPTS, "memory of all scripts together (default: 0, no limit)", set_memlimit,
     FIELD(memlimit_mib), 0, 2097151},
    {0, "traceback", NULL, GROUP_SCRIPTS, "let messages of Lua errors end with a stack traceback", set_flag,
     FIELD(traceback)},
    {0, "api", "ADDRESS", GROUP_SCRIPTS, "serve the REST API on host:port, :port or unix:/path", set_api, NO_FIELD},
    {0, "api-token-file", "FILE", GROUP_SCRIPTS,
     "demand one of the bearer tokens of this file from the API's callers, one per line", set_text,
     FIELD(api_token_file)},

    {'t', "timeout", "SECONDS", GROUP_LIMITS, "from accept to established, 5 to 86400 (default: 60)", set_seconds,
     FIELD(timeout_ms), 5, 86400},
    {0, "idle-timeout", "SECONDS", GROUP_LIMITS,
     "end established sessions in which nothing moves for so long (default: 7440; 0: never)", set_seconds,
     FIELD(idle_timeout_ms), 0, 2592000},
    {0, "half-close-timeout", "SECONDS", GROUP_LIMITS,
     "the same when one direction has ended already (default: 3600; 0: as --idle-timeout)", set_seconds,
     FIELD(half_close_timeout_ms), 0, 2592000},
    {0, "socket-buffer", "SIZE", GROUP_LIMITS,
     "octets that each socket may hold for sending, and for receiving; K and M are understood (default: what the "
     "kernel "
     "chooses)",
     set_socket_buffer, NO_FIELD, 16384, 1073741824},
    {'m', "max-sessions", "N", GROUP_LIMITS, "sessions at the same time (default: 0, what descriptors allow)",
     set_number, FIELD(max_sessions), 0, 100000000},
    {0, "max-startups", "S:R:F", GROUP_LIMITS,
     "refuse R percent of new connections while S handshakes are under way, all from F on (default: 0:30:0, no limit)",
     set_startups, NO_FIELD},

    {0, "workers", "N|auto", GROUP_RELAY, "threads that carry traffic (default: auto, one per CPU)", set_workers,
     NO_FIELD},
    {0, "relay", "MODE", GROUP_RELAY, "auto: splice bulk flows, copy the others (default); splice; copy", set_word,
     FIELD(relay), 0, 0, relay_words},
    {0, "pipe", NULL, GROUP_RELAY, "accepted for compatibility: --relay auto does it", set_flag, FIELD(pipe)},

    {0, "log", "WHERE", GROUP_LOG, "stderr (default), stdout, terminal (with colours), syslog or discard", set_word,
     FIELD(log_target), 0, 0, log_words},
    {0, "loglevel", "N", GROUP_LOG,
     "0 silence, 1 fatal, 2 error, 3 warning, 4 notice (default), 5 info, 6 debug, 7 verbose, 8 very verbose",
     set_number, FIELD(log_level), 0, 8},

    {'d', "daemonize", NULL, GROUP_PROCESS, "run in the background and log to syslog", set_flag, FIELD(daemonize)},
    {'u', "user", "USER[:GROUP]", GROUP_PROCESS, "run as USER and GROUP once all listeners are open", set_user,
     NO_FIELD},
    {0, "drain", "SECONDS", GROUP_PROCESS, "at SIGTERM, let sessions finish for so long (default: 0)", set_seconds,
     FIELD(drain_ms), 0, 86400},

    {'h', "help", NULL, GROUP_INFORMATION, "print this text and exit", print_help, NO_FIELD},
    {0, "version", NULL, GROUP_INFORMATION, "print the version and exit", print_version, NO_FIELD},
    {0, "check", NULL, GROUP_INFORMATION, "check the options and exit with 0 or 1", set_check, NO_FIELD},
    {0, "dump-config", NULL, GROUP_INFORMATION, "check the options, print them as a Lua table and exit", set_dump,
     NO_FIELD},

    {0, "ingress", NULL, GROUP_HIDDEN, "taken as --block-outbound global", block_ingress, NO_FIELD},
    {0, "egress", NULL, GROUP_HIDDEN, "taken as --block-outbound local", block_egress, NO_FIELD},
    OLD(0, "proto-timeout", "ignored, see --timeout"),
    OLD(0, "bidir-timeout", "ignored, see --timeout"),
    OLD(0, "no-conn-cache", "ignored, there is no such cache"),
    OLD('C', "color", "ignored, see --log terminal"),
    OLD('v', "verbose", "ignored, see --loglevel"),
    OLD('s', "silent", "ignored, see --loglevel"),
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

/* --- help --- */

/* Prints the words of `text` in lines that end before HELP_WIDTH, all beginning at HELP_COLUMN. */
static void print_wrapped(const char *text)
{
    int column = HELP_COLUMN - 1;

    while (*text) {
        int size = (int)strcspn(text, " ");
        if (column + 1 + size > HELP_WIDTH) {
            printf("\n%*s", HELP_COLUMN - 1, "");
            column = HELP_COLUMN - 1;
        }
        column += printf(" %.*s", size, text);
        text += size + (text[size] ? 1 : 0);
    }
    putchar('\n');
}

static void print_row(const struct option_row *row)
{
    char left[64], short_name[] = {'-', row->short_name, row->long_name ? ',' : '\0', '\0'};

    int used =
        snprintf(left, sizeof(left), "  %-3s%s%s%s%s", row->short_name ? short_name : "", row->long_name ? " --" : "",
                 row->long_name ? row->long_name : "", row->operand ? " " : "", row->operand ? row->operand : "");
    assert(used > 0 && used < (int)sizeof(left));
    if (used > HELP_COLUMN - 2) { /* no room: the description begins on a line of its own */
        puts(left);
        left[0] = '\0';
    }
    printf("%-*s", HELP_COLUMN - 1, left); /* each word brings its blank along */
    print_wrapped(row->help);
}

static int print_help(struct parse *p, const char *operand)
{
    (void)operand;
    p->stop = true;
    puts("sluice " SLUICE_VERSION "\n"
         "A proxy for SOCKS4, SOCKS4A, SOCKS5 and HTTP, a TCP forwarder and a transparent\n"
         "proxy, on io_uring.\n\n"
         "Usage: sluice -l ADDRESS [OPTION]...");
    for (size_t group = 0; group < GROUP_HIDDEN; group++) {
        printf("\n%s:\n", group_titles[group]);
        for (size_t i = 0; i < ROW_COUNT; i++)
            if (rows[i].group == group) print_row(&rows[i]);
    }
    puts("\nExamples:\n"
         "  sluice -l 127.0.0.1:1080                    SOCKS and HTTP on one port\n"
         "  sluice -l :1080 -x socks5://192.0.2.1:1080  through another proxy\n"
         "  sluice -l :2222 -f 192.0.2.7:22             forward a port");
    return 0;
}

static int print_version(struct parse *p, const char *operand)
{
    (void)operand;
    p->stop = true;
    puts("sluice " SLUICE_VERSION " (needs Linux 6.1 or newer with io_uring)");
    return 0;
}

/* --- reading the words --- */

static bool row_matches(const struct option_row *row, const char *word, size_t size)
{
    if (size == 2) return row->short_name && word[0] == '-' && word[1] == row->short_name;
    return row->long_name && size > 2 && strncmp(word, "--", 2) == 0 && strlen(row->long_name) == size - 2 &&
           memcmp(row->long_name, word + 2, size - 2) == 0;
}

static const struct option_row *find_row(const char *word, size_t size)
{
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (row_matches(&rows[i], word, size)) return &rows[i];
    return NULL;
}

/* Finds the operand of the option at argv[0]: behind "=", or the next word. Returns the number of words used up, or -1.
 * A required operand is taken blindly, also when it begins with a dash. */
static int take_operand(struct parse *p, int argc, char **argv, const char **operand)
{
    const struct option_row *row = p->row;
    const char *equals = argv[0][p->name_size] ? argv[0] + p->name_size + 1 : NULL;

    *operand = equals;
    if (!row->operand) return equals ? complain(p, "takes no value, give it alone") : 1;
    if (equals) return 1;
    if (row->operand[0] == '[') {
        if (argc < 2 || argv[1][0] == '-') return 1;
    } else if (argc < 2) {
        return complain(p, "the operand is missing, give %s", row->operand);
    }
    *operand = argv[1];
    return 2;
}

/* Reads one option with its operand. Returns the number of words used up, or -1. */
static int read_option(struct parse *p, int argc, char **argv)
{
    const char *operand;

    p->name = argv[0];
    p->name_size = (int)strcspn(argv[0], strncmp(argv[0], "--", 2) == 0 ? "=" : "");
    p->row = find_row(p->name, (size_t)p->name_size);
    if (!p->row) {
        fprintf(stderr, "sluice: \"%s\" is no option, \"sluice --help\" lists all\n", argv[0]);
        return -1;
    }
    int used = take_operand(p, argc, argv, &operand);
    if (used < 0 || p->row->function(p, operand) < 0) return -1;
    return used;
}

static int read_words(struct parse *p, int argc, char **argv)
{
    for (int i = 1; i < argc && !p->stop;) {
        if (strcmp(argv[i], "--") == 0) return 0; /* what follows is ignored, as the contract has it */
        int used = read_option(p, argc - i, argv + i);
        if (used < 0) return -1;
        i += used;
    }
    return 0;
}

/* What waited for an -l until the end waited in vain. */
static int finish_listeners(struct parse *p)
{
    struct config *c = p->config;

    p->name = p->pending_forward ? "--forward" : "--http";
    p->name_size = (int)strlen(p->name);
    if (p->pending_forward)
        return complain(p, "\"%s\" has no listener, give an -l of its own before it", p->pending_forward);
    if (p->pending_http) return complain(p, "no -l is left to become an HTTP listener, give --http ADDRESS");
    for (uint32_t i = 0; c->tproxy && i < c->listener_count; i++)
        if (c->listeners[i].kind == LISTENER_AUTO) c->listeners[i].kind = LISTENER_TPROXY;
    return 0;
}

void config_defaults(struct config *config)
{
    *config = (struct config){
        .family = AF_UNSPEC,
        .fastopen = true,
        .relay = RELAY_AUTO,
        .timeout_ms = 60000,
        /* RFC 5382 section 5: what an application may expect of any box in its path. */
        .idle_timeout_ms = 7440000,
        .half_close_timeout_ms = 3600000,
        .startup_rate = 30,
        .blocked = POLICY_MULTICAST,
        .tcp_nodelay = true,
        .tcp_keepalive = true,
        .lua_budget_ms = 5000,
        .log_level = LOG_LEVEL_NOTICE,
        .log_target = LOG_TO_STDERR,
    };
}

static enum config_action check_and_dump(struct config *config)
{
    if (config_check(config) < 0 || config_dump(config) < 0) return CONFIG_EXIT_FAILURE;
    return CONFIG_EXIT_SUCCESS;
}

enum config_action config_parse(struct config *config, int argc, char **argv)
{
    struct parse p = {.config = config, .last_listen = -1};

    if (read_words(&p, argc, argv) < 0) return CONFIG_EXIT_FAILURE;
    if (p.stop) return fflush(stdout) == 0 ? CONFIG_EXIT_SUCCESS : CONFIG_EXIT_FAILURE;
    if (finish_listeners(&p) < 0) return CONFIG_EXIT_FAILURE;
    if (config->ruleset && config->boot) {
        fputs("sluice: --ruleset and --config exclude each other, leave one of them out\n", stderr);
        return CONFIG_EXIT_FAILURE;
    }
    log_open((enum log_target)config->log_target, config->log_level);
    /* --check is main's, and the dump of what a -c script says: they begin as a start does. */
    return config->dump_only && !config->boot ? check_and_dump(config) : CONFIG_RUN;
}

int config_read(struct config *config, int argc, char **argv, char *why, size_t size)
{
    struct parse p = {.config = config, .last_listen = -1, .why = why, .why_size = size};

    return read_words(&p, argc, argv) < 0 || p.stop || finish_listeners(&p) < 0 ? -1 : 0;
}
