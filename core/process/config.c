/* Defaults, what options can get wrong together, listener addresses, the sizes of all pools, and the dump. */
#include "core/process/config.h"

#include <assert.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/io/cpu.h"
#include "core/io/log.h"
#include "core/io/net.h"
#include "core/process/circle.h"
#include "core/process/process.h"
#include "core/resolver/resolve.h"
#include "core/session/policy.h"

#define SESSIONS_MAX (1u << 20)
#define SETUPS_MAX   16384u

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

/* --- check --- */

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

static bool has_kind(const struct config *c, enum listener_kind kind)
{
    for (uint32_t i = 0; i < c->listener_count; i++)
        if (c->listeners[i].kind == kind) return true;
    return false;
}

/* A target without a host or without a port. */
static bool is_left_open(const struct address *target)
{
    return target->kind == ADDRESS_NONE || (target->kind != ADDRESS_UNIX && target->port == 0);
}

/* What has to do with rulesets. A -c script may bring one, or not: that is known only when it has run. */
static int check_ruleset(const struct config *c)
{
    int result = 0;

    if (c->ruleset && c->boot) result = fault(c, "--ruleset and --config exclude each other, leave one of them out");
    if (c->auth_required && !c->ruleset && !c->boot)
        result = fault(c, "--auth-required: authentication requires a ruleset, give -r");
    if (c->auth_required && (c->tproxy || has_kind(c, LISTENER_FORWARD)))
        result = fault(c, "--auth-required: forwarded and transparent clients cannot authenticate, leave it out");
    for (uint32_t i = 0; i < c->listener_count && !c->ruleset && !c->boot; i++)
        if (c->listeners[i].kind == LISTENER_FORWARD && is_left_open(&c->listeners[i].forward))
            result = fault(c, "--forward \"%s\": a target that is left to a ruleset needs one, give -r",
                           c->listeners[i].forward_text);
    return result;
}

static int check_modes(const struct config *c)
{
    int result = 0;

    if (c->listener_count == 0 && !c->api_text && c->script_count == 0)
        result = fault(c, "listen address is not specified, give -l, such as -l 127.0.0.1:1080");
    if (c->tproxy && has_kind(c, LISTENER_FORWARD))
        result = fault(c, "--tproxy cannot be combined with --forward, leave one of them out");
    if (c->tproxy && has_kind(c, LISTENER_HTTP))
        result = fault(c, "--tproxy cannot be combined with --http, leave one of them out");
    if (c->hop_count > 0 && (c->socks5_bind || c->socks5_udp))
        result = fault(c, "--enable-socks5-%s cannot go through --proxy, leave one of them out",
                       c->socks5_bind ? "bind" : "udp");
    for (uint32_t i = 0; i < c->listener_count && c->hop_count > 0; i++)
        if (c->listeners[i].kind == LISTENER_FORWARD && c->listeners[i].forward.kind == ADDRESS_UNIX)
            result = fault(c, "--forward %s: no proxy can connect to a Unix socket of this machine, leave --proxy out",
                           c->listeners[i].forward_text);
    if ((c->ruleset || c->boot) && (c->socks5_bind || c->socks5_udp))
        result = fault(c, "--enable-socks5-%s cannot be decided by a ruleset, leave one of them out",
                       c->socks5_bind ? "bind" : "udp");
    if (check_ruleset(c) < 0) result = -1;
    if ((c->blocked & POLICY_LOCAL) && (c->blocked & POLICY_GLOBAL))
        result = fault(c, "--block-outbound: local and global together leave nothing to connect to, drop one of them");
    if (c->netdev && if_nametoindex(c->netdev) == 0)
        LOGW("--netdev: there is no interface \"%s\" at present", c->netdev);
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

    if ((is_unix ? resolve_unix(c, l) : resolve_listener(c, l)) < 0) return -1;
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
    bool names = l->kind == LISTENER_AUTO || l->kind == LISTENER_HTTP;
    return names && l->address.kind != ADDRESS_UNIX && policy_classify(&l->address) != POLICY_LOOPBACK;
}

void config_warn_open(const struct config *c)
{
    if (c->auth_required || c->blocked_given) return;
    for (uint32_t i = 0; i < c->listener_count; i++) {
        if (!is_open(&c->listeners[i])) continue;
        LOGW(
            "listener \"%s\": whoever reaches it may use the proxy, also towards this machine's loopback and inner "
            "networks; give --block-outbound loopback,multicast,local, or --auth-required with a ruleset, or listen on "
            "127.0.0.1",
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
    for (uint32_t i = 0; i < c->listener_count && c->hop_count == 0 && !c->ruleset && !c->boot; i++)
        if (circle_returns(c, i))
            result = fault(c, "--forward %s: what listener \"%s\" takes would come back to it, give another target",
                           c->listeners[i].forward_text, c->listeners[i].text);
    return result;
}

int config_check(struct config *config)
{
    int result = 0;

    if (check_modes(config) < 0) result = -1;
    if (check_limits(config) < 0) result = -1;
    if (check_user(config) < 0) result = -1;
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (check_listener(config, i) < 0) result = -1;
    if (config->api_text && check_api(config) < 0) result = -1;
    if (result == 0 && check_circles(config) < 0) result = -1;
    if (result < 0) return -1;

    int cpus[CONFIG_WORKERS_MAX];
    if (config->workers == 0) config->workers = (uint32_t)cpu_list_allowed(cpus, (int)CONFIG_WORKERS_MAX);
    config_size(config);
    if (config->sessions == 0)
        return fault(config, "the limit of %llu open files leaves none for sessions, raise it (ulimit -n)",
                     (unsigned long long)process_descriptors());
    if (config->max_sessions > config->sessions)
        LOGW("--max-sessions: open files suffice for %u sessions only, raise the limit (ulimit -n)", config->sessions);
    return 0;
}

/* --- sizes --- */

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t read_setting(const char *path, uint64_t fallback)
{
    unsigned long long value;
    FILE *file = fopen(path, "re");

    if (!file) return fallback;
    if (fscanf(file, "%llu", &value) != 1) value = fallback;
    fclose(file);
    return value;
}

static void size_pipes(struct config *c, uint64_t descriptors)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    /* 1 MiB: the size from which on splice(2) was no longer bound by wake-ups. The kernel allows ordinary users
     * pipe-max-size, 1 MiB by default. */
    c->pipe_size = (uint32_t)smaller(1u << 20, read_setting("/proc/sys/fs/pipe-max-size", 1u << 20));
    /* All pipes of one user share pipe-user-pages-soft pages (16384 by default: 64 pipes of 256 pages), 0 is no limit;
     * what goes beyond gets pipes of two pages, which are worse than copying. Pipes are made after privileges were
     * dropped: being root now does not help then. */
    uint64_t soft = read_setting("/proc/sys/fs/pipe-user-pages-soft", 16384);
    bool unlimited = soft == 0 || (process_is_privileged() && !c->user);
    uint64_t pipes = unlimited ? 256 : smaller(64, soft / ((c->pipe_size + page - 1) / page) / c->workers);
    /* At most an eighth of all descriptors, two per pipe: sessions matter more. Names have another eighth. */
    pipes = smaller(pipes, descriptors / 16 / c->workers);
    c->pipes = c->relay == RELAY_COPY ? 0 : (uint32_t)pipes;
}

void config_size(struct config *config)
{
    struct config *c = config;
    assert(c->workers > 0 && c->workers <= CONFIG_WORKERS_MAX);
    uint64_t limit = process_descriptors();

    size_pipes(c, limit);
    /* Each question over UDP that is under way has a socket of its own (dns_udp.h). With fewer of them a name server
     * has less time to answer before its question makes room for a newer one: 128, of 1024 descriptors, give it 64 ms
     * at 2,000 questions a second. */
    c->name_sockets = (uint32_t)smaller(RESOLVE_SOCKETS_MAX, limit / 8 + 1);
    /* 64 for standard streams, log, signals, what else names need and connections that wait for their refusal; each
     * worker has its listeners, ring, wake-up and spare descriptors (4), and two for each pipe. */
    uint64_t reserve = 64 + c->name_sockets + (uint64_t)c->workers * (c->listener_count + 4 + 2 * (uint64_t)c->pipes);
    uint64_t descriptors = limit > reserve ? limit - reserve : 0;
    /* UDP associations take four descriptors (control, client side, IPv4 and IPv6 targets) and datagram buffers. */
    c->associations = (uint32_t)smaller(256, descriptors / 4 / c->workers);
    /* Addresses that clients of associations have sent to, 40 octets each: 256 for each association, 2.5 MiB, and one
     * association may have 1,024 (UDP_PEERS_MAX) while others have fewer. */
    c->udp_peers = c->associations < 4 ? 1024 : c->associations * 256;
    if (c->socks5_udp) descriptors -= 2 * (uint64_t)c->associations * c->workers; /* two of the four are a session's */
    /* A relayed session is two sockets. SO_REUSEPORT may send all of them to one worker, so that each has slots for
     * the whole process; slots that were never used are never resident. */
    uint64_t sessions = smaller(descriptors / 2, SESSIONS_MAX);
    if (c->max_sessions > 0) sessions = smaller(sessions, c->max_sessions);
    c->sessions = (uint32_t)sessions;
    /* A handshake holds its received head: some 20 KiB of address space, of which SOCKS touches two pages. */
    c->setups = (uint32_t)smaller(sessions, SETUPS_MAX);
    /* 16 KiB is what a bulk flow fills at once. 16384 of them are 256 MiB of address space: what peers that read slowly
     * may hold, one each; when they hold three quarters, octets are read only where they can be sent at once
     * (scarcity.h). Only those become resident that have been needed at the same time (buffers.h), 16 MiB in normal
     * service: one turn may complete a receive on each of 1024 connections before replacements are given. */
    c->buffers = 16384;
    c->buffers_lent = 1024;
    c->buffer_size = 16384;
    /* A third of a millisecond's work: so long an interactive session waits for its turn beside bulk flows. One more
     * system call in so many octets is nothing. */
    c->bulk_turn = 1u << 20;
    /* Submissions between two waits: one batch of completions causes about two each; a full queue is submitted early.
     */
    c->ring_entries = 1024;
    /* To the coordinator: each of the 16384 setup slots may have a question under way, a word about it (CANCEL), and a
     * word of the session that had the slot before (ROUTED): three quarters; errands that go back take one, see
     * errand_return(). To the worker: an answer to each question, and errands as far as a quarter. Neither overflows.
     */
    c->queue_capacity = 65536;
    /* Plain HTTP keeps two heads per message in transit, which tunnels do not need. */
    c->exchanges = (uint32_t)smaller(1024, sessions);
    /* HTTP heads that do not fit into a setup slot (8 KiB, 4 KiB from a proxy) or an exchange (16 KiB), while they
     * pass: 68 KiB of address space each, 34 MiB in all, resident as far as they are filled. One for a request, two for
     * a plain HTTP head that is written anew; half of them for requests at most. */
    c->heads = (uint32_t)smaller(512, 2 * sessions);
}

/* --- dump --- */

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

    if (!has_kind(c, LISTENER_FORWARD)) {
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
}

int config_dump(const struct config *config)
{
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
