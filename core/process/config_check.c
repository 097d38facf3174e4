#include "core/process/config_check.h"

#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/io/cpu.h"
#include "core/io/log.h"
#include "core/io/net_address.h"
#include "core/process/circle.h"
#include "core/process/config_size.h"
#include "core/process/egress_options.h"
#include "core/process/process.h"
#include "core/session/keys.h"
#include "core/session/policy.h"
#include "protocols/group_text.h"
#include "protocols/usage_text.h"

#define fault(config, ...) fault_at((config), __LINE__, __VA_ARGS__)
static int fault_at(const struct config *config, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Logs what is wrong. Always -1. Whoever typed the command must see it even when the log is silent or elsewhere. */
static int fault_at(const struct config *config, int line, const char *format, ...)
{
    char text[LOG_TEXT_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    bool hidden = config->log_target == LOG_TO_SYSLOG || config->log_target == LOG_DISCARD;
    if (LOG_ON(LOG_LEVEL_ERROR)) log_write(LOG_LEVEL_ERROR, __FILE__, line, "%s", text);
    if (hidden || !LOG_ON(LOG_LEVEL_ERROR)) fprintf(stderr, "sluice: %s\n", text);
    return -1;
}

/* A target without a host or without a port. */
static bool is_left_open(const struct address *target)
{
    return target->kind == ADDRESS_NONE || (target->kind != ADDRESS_UNIX && target->port == 0);
}

/* A -c script has run before anything is checked: whether it has brought a ruleset is known. */
static bool has_rules(const struct config *c)
{
    return c->ruleset || c->boot_rules;
}

/* What has to do with rulesets. */
static int check_ruleset(const struct config *c)
{
    int result = 0;

    if (c->auth_required && !has_rules(c))
        result = fault(c, "--auth-required: authentication requires a ruleset, give -r");
    if (c->auth_required && (c->tproxy || config_has_listener(c, LISTENER_FORWARD)))
        result = fault(c, "--auth-required: forwarded and transparent clients cannot authenticate, leave it out");
    for (uint32_t i = 0; i < c->listener_count && !has_rules(c); i++)
        if (c->listeners[i].kind == LISTENER_FORWARD && is_left_open(&c->listeners[i].forward))
            result = fault(c, "--forward \"%s\": a target that is left to a ruleset needs one, give -r",
                           c->listeners[i].forward_text);
    return result;
}

static int check_access_log(const struct config *c)
{
    if (!c->access_log && (c->access_log_starts || c->access_log_queries))
        return fault(c, "--access-log-%s: there is no access log, give --access-log, or leave it out",
                     c->access_log_starts ? "start" : "query");
    if (c->access_log && c->daemonize && strcmp(c->access_log, "stdout") == 0)
        return fault(c, "--access-log stdout: a daemon (-d) has no standard output, name a file, syslog or journald");
    return 0;
}

static int refuse_hop(const struct config *c, const struct proxy_uri *hop, const char *command)
{
    char text[PROXY_URI_TEXT_SIZE];

    proxy_uri_format(hop, text, sizeof text);
    return fault(c, "--enable-socks5-%s cannot go through --proxy %s: give socks5:// there, or leave one of them out",
                 command, text);
}

/* BIND is asked of the last proxy alone; datagrams pass all of them. */
static int check_commands(const struct config *c)
{
    int result = 0;

    for (uint32_t i = 0; i < c->hop_count; i++) {
        if (c->hops[i].scheme == PROXY_SOCKS5) continue;
        if (c->socks5_bind && i == c->hop_count - 1) result = refuse_hop(c, &c->hops[i], "bind");
        if (c->socks5_udp) result = refuse_hop(c, &c->hops[i], "udp");
    }
    if (c->advertise_text && !c->socks5_bind && !c->socks5_udp)
        result = fault(c, "--udp-advertise: no reply would name the address, give --enable-socks5-udp or "
                          "--enable-socks5-bind, or leave it out");
    return result;
}

static int check_modes(const struct config *c)
{
    int result = 0;

    if (c->listener_count == 0 && !c->api_text && c->script_count == 0)
        result = fault(c, "listen address is not specified, give -l, such as -l 127.0.0.1:1080");
    if (c->tproxy && config_has_listener(c, LISTENER_FORWARD))
        result = fault(c, "--tproxy cannot be combined with --forward, leave one of them out");
    if (c->tproxy && config_has_listener(c, LISTENER_HTTP))
        result = fault(c, "--tproxy cannot be combined with --http, leave one of them out");
    if (c->tproxy && config_has_listener(c, LISTENER_SOCKS))
        result = fault(c, "--tproxy cannot be combined with protocol=socks, leave one of them out");
    if (check_commands(c) < 0) result = -1;
    for (uint32_t i = 0; i < c->listener_count && c->hop_count > 0; i++)
        if (c->listeners[i].kind == LISTENER_FORWARD && c->listeners[i].forward.kind == ADDRESS_UNIX)
            result = fault(c, "--forward %s: no proxy can connect to a Unix socket of this machine, leave --proxy out",
                           c->listeners[i].forward_text);
    if (c->api_token_file && !c->api_text)
        result = fault(c, "--api-token-file: there is no API that would ask for a token, give --api, or leave it out");
    if (check_ruleset(c) < 0) result = -1;
    if (check_access_log(c) < 0) result = -1;
    if ((c->blocked & POLICY_LOCAL) && (c->blocked & POLICY_GLOBAL))
        result = fault(c, "--block-outbound: local and global together leave nothing to connect to, drop one of them");
    if (c->fastopen_connect)
        LOGW("--fastopen-connect: some networks drop such connections, leave it out when connections hang");
    return result;
}

/* Ranges are checked again for settings that do not come from the command line. */
static int check_limits(const struct config *c)
{
    int result = 0;

    if (c->timeout_ms < 5000 || c->timeout_ms > 86400000)
        result = fault(c, "--timeout is out of range, give 5 to 86400 seconds");
    if (c->log_level < LOG_LEVEL_SILENCE || c->log_level > LOG_LEVEL_VERY_VERBOSE)
        result = fault(c, "--loglevel is out of range, give 0 to 8");
    if (c->workers > CONFIG_WORKERS_MAX)
        result = fault(c, "--workers is out of range, give 1 to %u or auto", CONFIG_WORKERS_MAX);
    if (c->startup_rate > 100) result = fault(c, "--max-startups: rate is out of range (0 - 100)");
    if (c->startup_full > 0 && c->startup_start > c->startup_full)
        result = fault(c, "--max-startups: start is out of range (0 - %u), it must not exceed full", c->startup_full);
    if ((c->tcp_sndbuf > 0 && c->tcp_sndbuf < 16384) || (c->tcp_rcvbuf > 0 && c->tcp_rcvbuf < 16384))
        LOGW("tcp_sndbuf, tcp_rcvbuf: less than 16384 octets makes connections slow");
    if (c->max_sessions > 0 && c->startup_full > c->max_sessions)
        result = fault(c, "--max-startups: full is out of range (%u - %u), it must not exceed --max-sessions",
                       c->startup_start, c->max_sessions);
    return result;
}

/* Whether a request may ever get a name of a limit: there is a ruleset, or one may come by the API. */
static bool may_be_named(const struct config *c)
{
    return c->ruleset || c->boot_rules || c->api_text;
}

static bool is_listener(const struct config *c, const struct limit_key *key)
{
    struct limit_key own;
    for (uint32_t i = 0; i < c->listener_count; i++) {
        limit_key_text(LIMIT_LISTENER, c->listeners[i].text, strlen(c->listeners[i].text), &own);
        if (limit_key_equal(&own, key)) return true;
    }
    return false;
}

/* Each by itself was judged when it was read. */
static int check_keys(const struct config *c)
{
    struct limit_key keys[CONFIG_LIMITS_MAX];
    struct limit_terms terms;
    uint32_t kinds = 0;

    for (uint32_t i = 0; i < c->limit_count; i++) {
        limit_parse(c->limits[i], strlen(c->limits[i]), &keys[i], &terms);
        if (keys[i].kind != LIMIT_NAMED) kinds |= 1u << keys[i].kind;
        if (keys[i].kind == LIMIT_NAMED && !may_be_named(c))
            return fault(c,
                         "--limit \"%s\": nobody can come under that name, for only a ruleset gives requests names; "
                         "give -r or --api, too, or one of source, user, rule, target, listener and total",
                         c->limits[i]);
        if (keys[i].kind == LIMIT_LISTENER && !keys[i].every && !is_listener(c, &keys[i]))
            return fault(c, "--limit \"%s\": no listener has that address, give it as the listener's option has it",
                         c->limits[i]);
        for (uint32_t j = 0; j < i; j++)
            if (keys[i].kind == keys[j].kind &&
                ((keys[i].every && keys[j].every) || limit_key_equal(&keys[i], &keys[j])))
                return fault(c, "--limit \"%s\": that key has a limit already, give one with all its terms",
                             c->limits[i]);
    }
    if (__builtin_popcount(kinds) <= (int)KEYS_PER_SESSION) return 0;
    return fault(c, "--limit: give at most %u of source, user, rule, target, listener and total", KEYS_PER_SESSION);
}

/* --- groups of upstreams --- */

/* The index of the one that has that name, or CONFIG_UPSTREAMS_MAX. What follows the name is a `=`. */
static uint32_t find_upstream(const struct config *c, const char *name, size_t size)
{
    uint32_t i = 0;
    for (; i < c->upstream_count; i++)
        if (strncmp(c->upstreams[i], name, size) == 0 && c->upstreams[i][size] == '=') return i;
    return CONFIG_UPSTREAMS_MAX;
}

/* Each by itself was judged when it was read. */
static int check_upstream(const struct config *c, uint32_t index, struct group_plan *plan)
{
    char member[ADDRESS_TEXT_SIZE];

    group_parse(c->upstreams[index], strlen(c->upstreams[index]), plan);
    if (find_upstream(c, plan->name, strlen(plan->name)) != index)
        return fault(c, "--upstream \"%s\": there are two groups of that name, give one with all its members",
                     plan->name);
    for (unsigned i = 0; i < plan->count; i++) {
        uint32_t arrives = circle_arrives(c, &plan->members[i].uri.address);
        if (arrives == CIRCLE_NONE) continue;
        address_format(&plan->members[i].uri.address, member, sizeof member);
        return fault(c,
                     "--upstream \"%s\": %s is listener \"%s\" of this process, so that connections would run in a "
                     "circle; leave it out",
                     plan->name, member, c->listeners[arrives].text);
    }
    return 0;
}

static int check_hop_group(const struct config *c, const struct address *hop, struct group_plan *plan)
{
    uint32_t index = find_upstream(c, hop->name, hop->name_size);

    if (index == CONFIG_UPSTREAMS_MAX)
        return fault(c, "--proxy group:%s: there is no such group, give --upstream %s=...", hop->name, hop->name);
    group_parse(c->upstreams[index], strlen(c->upstreams[index]), plan);
    if (!plan->targets) return 0;
    return fault(c, "--proxy group:%s: its members are no proxies, give them as socks5://, socks4a:// or http://",
                 hop->name);
}

static int check_upstreams(const struct config *c)
{
    int result = 0;
    unsigned groups = 0;
    struct group_plan *plan = malloc(sizeof *plan);

    if (!plan) return fault(c, "--upstream: not enough memory");
    for (uint32_t i = 0; i < c->upstream_count; i++)
        if (check_upstream(c, i, plan) < 0) result = -1;
    for (uint32_t i = 0; i < c->hop_count; i++) {
        if (c->hops[i].address.kind != ADDRESS_GROUP) continue;
        if (check_hop_group(c, &c->hops[i].address, plan) < 0) result = -1;
        if (++groups == 2) result = fault(c, "--proxy: a chain has one group at most, leave the others out");
    }
    free(plan);
    return result;
}

static int check_usage(const struct config *c)
{
    struct usage_text usage = {0};
    const char *wrong = c->usage ? usage_text_parse(c->usage, strlen(c->usage), &usage) : NULL;

    if (wrong) return fault(c, "--usage: %s", wrong);
    if (c->state_dir && strlen(c->state_dir) > USAGE_PATH_MAX)
        return fault(c, "--state-dir: the path is longer than %u octets, give a shorter one", USAGE_PATH_MAX);
    if (c->usage && !c->state_dir && !*usage.path)
        return fault(c, "--usage %.32s: there is no folder for the database, give --state-dir%s",
                     usage.kind == USAGE_REDIS ? "redis://" : c->usage,
                     usage.kind == USAGE_REDIS ? "" : ", or sqlite:PATH");
    if (c->usage && *usage.ca && access(usage.ca, R_OK) != 0)
        return fault(c, "--usage rediss://: ?ca=%s: %s, give a file of certificates (PEM)", usage.ca, strerror(errno));
    return 0;
}

/* --proxy-protocol, --send-proxy. */
static int check_headers(const struct config *c, const struct listener_config *l)
{
    const struct config_proxies *proxies = &l->proxies;
    bool is_unix = l->address.kind == ADDRESS_UNIX;

    if (proxies->optional && !config_has_proxies(proxies))
        return fault(c,
                     "--proxy-protocol optional: listener \"%s\" has no proxies that would send headers, give their "
                     "addresses, too",
                     l->text);
    if (is_unix && proxies->count > 0)
        return fault(c,
                     "--proxy-protocol: whoever comes by the Unix socket of listener \"%s\" has no address, give unix "
                     "instead",
                     l->text);
    if (!is_unix && proxies->unix_sockets)
        return fault(c, "--proxy-protocol unix: listener \"%s\" is no Unix socket, give addresses of proxies", l->text);
    if (l->send_proxy > 0 && l->kind != LISTENER_FORWARD)
        return fault(c, "--send-proxy: listener \"%s\" forwards to no target, give it a -f, or leave it out", l->text);
    return 0;
}

/* Each file once, whatever names it: whoever listens with it has its index. */
static uint8_t add_user_file(struct config *c, const char *path)
{
    for (uint32_t i = 1; i <= c->user_file_count; i++)
        if (strcmp(c->user_files[i], path) == 0) return (uint8_t)i;
    c->user_files[++c->user_file_count] = path;
    return (uint8_t)c->user_file_count;
}

static const char *users_of(const struct config *c, const struct listener_config *l)
{
    const char *path = l->users ? l->users : c->users;
    return path && strcmp(path, CONFIG_NO_USERS) != 0 ? path : NULL;
}

static int check_listener_users(struct config *c, struct listener_config *l)
{
    const char *path = users_of(c, l);

    l->user_file = 0;
    if (!path) return 0;
    if (!listener_asks_target(l->kind))
        return fault(c,
                     "--users: clients of --forward and --tproxy cannot say who they are, which concerns listener "
                     "\"%s\"; give that one users=none",
                     l->text);
    l->user_file = add_user_file(c, path);
    return 0;
}

/* What stands in the files is read later, by who starts with them. */
static int check_users(struct config *c)
{
    int result = 0;

    c->user_file_count = 0;
    for (uint32_t i = 0; i < c->listener_count && result == 0; i++) result = check_listener_users(c, &c->listeners[i]);
    if (c->user_file_count > 0 && c->auth_required)
        result = fault(c, "--users and --auth-required exclude each other: passwords that --users judges reach no "
                          "ruleset; leave one of them out");
    if (c->users && c->listener_count == 0)
        result = fault(c, "--users: there is no listener that would ask for them, give -l, or leave it out");
    return result;
}

static bool wants_same(const struct config *c, const struct listener_config *l)
{
    return l->egress.sources.given ? l->egress.sources.same : c->egress.sources.same;
}

static int check_egress(struct config *c)
{
    const char *wrong = egress_options_derive(c);

    if (wrong) return fault(c, "--source: %s", wrong);
    for (uint32_t i = 0; i < c->listener_count; i++)
        if (c->listeners[i].kind == LISTENER_TPROXY && wants_same(c, &c->listeners[i]))
            return fault(
                c, "--source same cannot be combined with --tproxy: the address at which such a client comes in is "
                   "its target's; give addresses of this machine");
    egress_options_warn(c);
    return 0;
}

static int check_user(const struct config *c)
{
    struct process_identity identity;
    const char *wrong = c->user ? process_find_identity(c->user, &identity) : NULL;

    if (wrong) return fault(c, "--user \"%s\": %s", c->user, wrong);
    if (c->user && geteuid() != 0) LOGW("--user \"%s\": only root can change the user", c->user);
    return 0;
}

/* --- listeners --- */

/* Parts of "host:port" or "[host]:port"; options.c has seen to the form. host stays empty for the wildcard. */
static int split_listener(const char *text, char *host, size_t host_size, const char **port)
{
    const char *colon = strrchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : 0;

    if (!colon || size >= host_size) return -1;
    if (size >= 2 && text[0] == '[' && text[size - 1] == ']') {
        text++;
        size -= 2;
    }
    memcpy(host, text, size);
    host[size] = '\0';
    if (strcmp(host, "*") == 0) host[0] = '\0';
    *port = colon + 1;
    return 0;
}

/* Numeric addresses are asked for as such: AI_ADDRCONFIG would refuse ::1 on a machine with IPv4 alone. Names are tried
 * with it first, because a name with an IPv6 address that nobody can reach is no good first answer. */
static int look_up(const char *host, const char *port, struct addrinfo **list)
{
    static const int flags[] = {AI_NUMERICHOST, AI_ADDRCONFIG, 0};
    int error = EAI_NONAME;

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]) && error; i++) {
        struct addrinfo hints = {.ai_flags = AI_PASSIVE | flags[i], .ai_socktype = SOCK_STREAM};
        error = getaddrinfo(*host ? host : NULL, port, &hints, list);
        if (error == EAI_SERVICE) break;
    }
    return error;
}

static int resolve_listener(const struct config *c, struct listener_config *l)
{
    char host[NI_MAXHOST];
    const char *port;
    struct addrinfo *list;
    struct net_address found = {0};

    if (split_listener(l->text, host, sizeof(host), &port) < 0)
        return fault(c, "listener \"%s\": give host:port, :port or unix:/path", l->text);
    int error = look_up(host, port, &list);
    if (error == EAI_SERVICE) return fault(c, "listener \"%s\": unknown service \"%s\", give a number", l->text, port);
    if (error)
        return fault(c, "listener \"%s\": %s, give an address of this machine", l->text,
                     error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
    found.size = list->ai_addrlen;
    memcpy(&found.storage, list->ai_addr, list->ai_addrlen); /* the first answer only, as the contract has it */
    freeaddrinfo(list);
    if (!net_address_to(&found, &l->address)) return fault(c, "listener \"%s\": give an IPv4 or IPv6 address", l->text);
    return 0;
}

static int resolve_unix(const struct config *c, struct listener_config *l)
{
    const char *path = l->text + strlen("unix:");
    size_t size = strlen(path);

    if (size == 0 || size > ADDRESS_PATH_MAX)
        return fault(c, "listener \"%s\": give a path of 1 to %u octets", l->text, ADDRESS_PATH_MAX);
    if (l->kind == LISTENER_TPROXY)
        return fault(c, "listener \"%s\": --tproxy needs addresses, give host:port", l->text);
    l->address = (struct address){.kind = ADDRESS_UNIX, .name_size = (uint8_t)size};
    memcpy(l->address.name, path, size + 1);
    return 0;
}

static bool takes_any_port(const struct address *a)
{
    return a->kind != ADDRESS_UNIX && a->port == 0;
}

/* SO_REUSEPORT is always on, so that the kernel would not object to a port that is given twice. */
static int check_twins(const struct config *c, uint32_t index)
{
    for (uint32_t i = 0; i < index; i++)
        if (!takes_any_port(&c->listeners[i].address) &&
            address_equal(&c->listeners[i].address, &c->listeners[index].address))
            return fault(c, "listeners \"%s\" and \"%s\" are the same address, give it once", c->listeners[i].text,
                         c->listeners[index].text);
    return 0;
}

static int check_listener(struct config *c, uint32_t index)
{
    struct listener_config *l = &c->listeners[index];
    bool is_unix = strncmp(l->text, "unix:", 5) == 0;

    if ((is_unix ? resolve_unix(c, l) : resolve_listener(c, l)) < 0 || check_headers(c, l) < 0) return -1;
    return check_twins(c, index);
}

/* The API's address is found as a listener's is. */
static int check_api(struct config *c)
{
    struct listener_config l = {.kind = LISTENER_HTTP, .text = c->api_text};
    bool is_unix = strncmp(l.text, "unix:", 5) == 0;

    if ((is_unix ? resolve_unix(c, &l) : resolve_listener(c, &l)) < 0) return -1;
    c->api = l.address;
    if (!c->api_token_file && !is_unix && policy_classify(&c->api) != POLICY_LOOPBACK)
        return fault(c,
                     "--api %s: whoever reaches this address could run scripts here; give --api-token-file, or a "
                     "loopback address or unix:/path",
                     c->api_text);
    for (uint32_t i = 0; i < c->listener_count; i++)
        if (!takes_any_port(&c->api) && address_equal(&c->listeners[i].address, &c->api))
            return fault(c, "--api and listener \"%s\" are the same address, choose another", c->listeners[i].text);
    return 0;
}

/* Whoever reaches it names a target himself. */
static bool is_open(const struct listener_config *l)
{
    return listener_asks_target(l->kind) && l->address.kind != ADDRESS_UNIX &&
           policy_classify(&l->address) != POLICY_LOOPBACK;
}

/* Whether only clients of a list may come, there or everywhere. */
static bool selects_clients(const struct config *c, uint32_t listener)
{
    for (uint32_t i = 0; i < c->list_count; i++) {
        const struct list_option *option = &c->lists_given[i];
        if (option->kind != LIST_ALLOW_CLIENT) continue;
        if (option->scope == LIST_SCOPE_PROCESS || option->scope == listener) return true;
    }
    return false;
}

void config_warn_open(const struct config *c)
{
    if (c->auth_required || c->blocked_given) return;
    for (uint32_t i = 0; i < c->listener_count; i++) {
        const struct listener_config *l = &c->listeners[i];
        if (l->user_file != 0 || !is_open(l) || selects_clients(c, i)) continue;
        LOGW("listener \"%s\": whoever reaches it may use the proxy, also towards this machine's loopback and inner "
             "networks; give --block-outbound loopback,multicast,local, or --users, --allow-client, or --auth-required "
             "with a ruleset, or listen on 127.0.0.1",
             c->listeners[i].text);
        return;
    }
}

/* A ruleset may send what a forwarder takes elsewhere; but -x stands in front of all that it decides. */
static int check_circles(const struct config *c)
{
    int result = 0;
    char hop[PROXY_URI_TEXT_SIZE];

    uint32_t arrives = c->hop_count > 0 ? circle_arrives(c, &c->hops[0].address) : CIRCLE_NONE;
    if (arrives != CIRCLE_NONE) {
        proxy_uri_format(&c->hops[0], hop, sizeof(hop));
        result = fault(c,
                       "--proxy: %s is listener \"%s\" of this process, so that connections would run in a circle; "
                       "leave it out",
                       hop, c->listeners[arrives].text);
    }
    for (uint32_t i = 0; i < c->listener_count && c->hop_count == 0 && !has_rules(c); i++)
        if (circle_returns(c, i))
            result = fault(c, "--forward %s: what listener \"%s\" takes would come back to it, give another target",
                           c->listeners[i].forward_text, c->listeners[i].text);
    return result;
}

static void warn_of_few_sessions(const struct config *c)
{
    uint32_t wanted = c->max_sessions < CONFIG_SESSIONS_MAX ? c->max_sessions : CONFIG_SESSIONS_MAX;
    if (wanted > c->sessions)
        LOGW("--max-sessions: open files suffice for %u sessions only, %u need %llu: raise the limit (ulimit -n)",
             c->sessions, wanted, (unsigned long long)config_descriptors(c, wanted));
    else if (c->max_sessions > wanted)
        LOGW("--max-sessions: a process has %u sessions at most", wanted);
}

int config_check(struct config *config)
{
    int result = 0;

    if (check_modes(config) < 0) result = -1;
    if (check_limits(config) < 0) result = -1;
    if (check_keys(config) < 0) result = -1;
    if (check_usage(config) < 0) result = -1;
    if (check_egress(config) < 0) result = -1;
    if (check_user(config) < 0) result = -1;
    if (check_users(config) < 0) result = -1;
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (check_listener(config, i) < 0) result = -1;
    if (config->api_text && check_api(config) < 0) result = -1;
    if (result == 0 && check_upstreams(config) < 0) result = -1;
    if (result == 0 && check_circles(config) < 0) result = -1;
    if (result < 0) return -1;

    int cpus[CONFIG_WORKERS_MAX];
    if (config->workers == 0) config->workers = (uint32_t)cpu_list_allowed(cpus, (int)CONFIG_WORKERS_MAX);
    config_size(config);
    if (config->sessions == 0)
        return fault(config,
                     "the limit of %llu open files leaves none for sessions; 1 needs %llu, 1000 need %llu: raise it "
                     "(ulimit -n)",
                     (unsigned long long)process_descriptors(), (unsigned long long)config_descriptors(config, 1),
                     (unsigned long long)config_descriptors(config, 1000));
    warn_of_few_sessions(config);
    return 0;
}
