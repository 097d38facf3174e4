#include "core/process/option_table.h"

#include <string.h>

#include "core/io/log.h"
#include "core/process/egress_options.h"
#include "core/process/option_listeners.h"
#include "core/process/option_readers.h"
#include "core/session/keys.h"
#include "core/session/policy.h"

static const char *const relay_words[] = {
    [RELAY_AUTO] = "auto", [RELAY_SPLICE] = "splice", [RELAY_COPY] = "copy", NULL};
static const char *const log_words[] = {
    [LOG_TO_STDERR] = "stderr", [LOG_TO_STDOUT] = "stdout", [LOG_TO_TERMINAL] = "terminal",
    [LOG_TO_SYSLOG] = "syslog", [LOG_DISCARD] = "discard",  NULL};

/* What a row sets: the key of a -c table, or NULL; the member of struct config; and what it may be. */
#define ACTION                       .kind = OPTION_ACTION
#define FIELD(k, what)               .key = (k), .kind = OPTION_##what
#define AT(member)                   .place = offsetof(struct config, member)
#define FLAG(k, member)              FIELD(k, FLAG), AT(member)
#define TEXT(k, member)              FIELD(k, TEXT), AT(member)
#define RULESET(k, member)           FIELD(k, RULESET), AT(member)
#define FAMILY(k, member)            FIELD(k, FAMILY), AT(member)
#define WORD(k, member, w)           FIELD(k, WORD), AT(member), .words = (w)
#define CLASS(k, c)                  FIELD(k, CLASS), .class = (c)
#define LISTS(k, l)                  FIELD(k, LISTS), .list = (l)
#define NUMBER(k, member, from, to)  FIELD(k, NUMBER), AT(member), .least = (from), .most = (to)
#define SECONDS(k, member, from, to) FIELD(k, SECONDS), AT(member), .least = (from), .most = (to)

/* A setting without an option of its own. It stands behind the option that sets it together with others, if any. */
#define KEY_ALONE .group = GROUP_HIDDEN
#define OLD(s, l, h)                                                                                                   \
    {                                                                                                                  \
        s, l, NULL, GROUP_HIDDEN, h, option_warn_obsolete, ACTION                                                      \
    }

const struct option_row option_rows[] = {
    {'l', "listen", "ADDRESS", GROUP_LISTENERS,
     "accept SOCKS4, SOCKS4A, SOCKS5 and HTTP proxy clients on host:port, :port (all addresses) or unix:/path; options "
     "for this listener alone stand behind it: ,protocol=auto|http|socks ,users=FILE|none",
     option_set_listen, FIELD("listen", LISTEN)},
    {0, "http", "[ADDRESS]", GROUP_LISTENERS,
     "accept HTTP proxy clients only, on ADDRESS; without it, on the -l that stands before", option_set_http,
     FIELD("http_listen", HTTP_LISTEN)},
    {'f', "forward", "TARGET", GROUP_LISTENERS,
     "forward every connection of the -l that stands before to host:port or unix:/path", option_set_forward,
     FIELD("forward", FORWARD)},
    {0, "proxy-protocol", "LIST", GROUP_LISTENERS,
     "take the client of the -l that stands before from the PROXY header (version 1 or 2) that its proxies must send: "
     "address, address/bits, * or unix, commas between them; others are refused, or come as they are: optional",
     option_set_proxy_protocol, ACTION},
    {0, "send-proxy", "v1|v2", GROUP_LISTENERS,
     "tell the target of the -f that stands before who the client is, with a PROXY header of that version",
     option_set_send_proxy, ACTION},
    {0, "tproxy", NULL, GROUP_LISTENERS,
     "every -l takes connections redirected by the firewall's TPROXY target (needs CAP_NET_ADMIN)", option_set_flag,
     FLAG("transparent", tproxy)},
    {0, "enable-socks5-bind", NULL, GROUP_LISTENERS, "allow the SOCKS5 command BIND", option_set_flag,
     FLAG("socks5_bind", socks5_bind)},
    {0, "enable-socks5-udp", NULL, GROUP_LISTENERS, "allow the SOCKS5 command UDP ASSOCIATE", option_set_flag,
     FLAG("socks5_udp", socks5_udp)},
    {0, "udp-advertise", "ADDRESS[,ADDRESS]", GROUP_LISTENERS,
     "behind NAT: the IPv4 and the IPv6 address that replies of UDP ASSOCIATE and BIND name in the place of this "
     "machine's own",
     option_set_udp_advertise, TEXT("udp_advertise", advertise_text)},
    {0, "users", "FILE", GROUP_LISTENERS,
     "demand user and password of every client: those of this file, name:hash[:groups[:limit]] a line; SOCKS4 clients "
     "are refused",
     option_set_text, TEXT("users", users)},
    {0, "allow-client", "LIST", GROUP_LISTENERS,
     "let in clients of these addresses and networks only: address, address/bits, @FILE with one a line; commas "
     "between them; may be repeated, as the three below",
     option_add_lists, LISTS("allow_client", LIST_ALLOW_CLIENT)},
    {0, "deny-client", "LIST", GROUP_LISTENERS,
     "reset connections of these clients; the longest match of both lists decides, --deny-client where two are as long",
     option_add_lists, LISTS("deny_client", LIST_DENY_CLIENT)},
    {0, "no-fastopen", NULL, GROUP_LISTENERS, "do not offer TCP Fast Open to clients", option_clear_flag,
     FLAG("tcp_fastopen", fastopen)},
    {0, "reuseport", NULL, GROUP_LISTENERS, "let another process listen on the same ports", option_set_flag,
     FLAG("reuseport", reuseport)},

    {'x', "proxy", "URI[,URI...]", GROUP_OUTBOUND,
     "connect through a chain of proxies, first hop first: socks5://, socks4a:// or "
     "http://[user[:password]@]host[:port], or group:NAME",
     option_set_proxy, TEXT("proxy", proxy_text)},
    {0, "upstream", "NAME=LIST", GROUP_OUTBOUND,
     "a group of proxies, or of host:port, which -x and rulesets name as group:NAME; behind a member ,weight=N "
     ",backup=yes ,max=N; for the group ,policy=round|least|hash ,check=tcp|http|socks5 and more; may be repeated",
     option_add_upstream, FIELD("upstream", UPSTREAMS)},
    {'4', NULL, NULL, GROUP_OUTBOUND, "resolve names to IPv4 addresses only", option_set_family, ACTION},
    {'6', NULL, NULL, GROUP_OUTBOUND, "resolve names to IPv6 addresses only", option_set_family, ACTION},
    {KEY_ALONE, FAMILY("resolve_pf", family)},
    {0, "nameserver", "LIST", GROUP_OUTBOUND, "ask these servers, address[:port],... (default: resolv.conf)",
     option_set_nameserver, TEXT("nameserver", nameservers)},
    {'i', "netdev", "NAME", GROUP_OUTBOUND, "connect through this network interface", option_set_netdev,
     TEXT("netdev", netdev)},
    {0, "source", "LIST", GROUP_OUTBOUND,
     "connect from these addresses: address, address/bits, same (where the client came in); by=user (default), source, "
     "round or random says whose is which; may be repeated",
     option_add_source, TEXT("source", source), .repeated = true},
    {0, "mark", "N", GROUP_OUTBOUND, "mark what is sent, for routes and firewalls (default: 0, none)", option_set_mark,
     NUMBER("mark", mark, 0, UINT32_MAX)},
    {0, "block-outbound", "LIST", GROUP_OUTBOUND,
     "never connect to these classes: loopback, multicast, local, global (default: multicast; an empty list blocks "
     "nothing)",
     option_set_blocked, ACTION},
    {KEY_ALONE, CLASS("block_loopback", POLICY_LOOPBACK)},
    {KEY_ALONE, CLASS("block_multicast", POLICY_MULTICAST)},
    {KEY_ALONE, CLASS("block_local", POLICY_LOCAL)},
    {KEY_ALONE, CLASS("block_global", POLICY_GLOBAL)},
    {0, "allow-target", "LIST", GROUP_OUTBOUND,
     "connect clients to these targets only: name, .name (and all below it), address, address/bits, *, each with :port "
     "or :from-to if wanted; @FILE with one a line",
     option_add_lists, LISTS("allow_target", LIST_ALLOW_TARGET)},
    {0, "deny-target", "LIST", GROUP_OUTBOUND,
     "never connect clients to these, neither by name nor by the address that a name has; the longest match decides",
     option_add_lists, LISTS("deny_target", LIST_DENY_TARGET)},
    {0, "allow-self", NULL, GROUP_OUTBOUND,
     "let clients connect to the API, listeners and scripts' sockets of this process (default: refused)",
     option_set_flag, FLAG("allow_self", allow_self)},
    {0, "fastopen-connect", NULL, GROUP_OUTBOUND, "use TCP Fast Open towards upstream servers", option_set_flag,
     FLAG("tcp_fastopen_connect", fastopen_connect)},
    {0, "no-conn-cache", NULL, GROUP_OUTBOUND,
     "close connections to HTTP servers behind each plain HTTP request instead of keeping them for the next one",
     option_clear_flag, FLAG("conn_cache", conn_cache)},
    {KEY_ALONE, FLAG("tcp_nodelay", tcp_nodelay)},
    {KEY_ALONE, FLAG("tcp_keepalive", tcp_keepalive)},

    {'r', "ruleset", "FILE", GROUP_SCRIPTS, "let this Lua script decide where connections go (-: standard input)",
     option_set_text, RULESET("ruleset", ruleset)},
    {'c', "config", "FILE", GROUP_SCRIPTS,
     "run this Lua script, which returns a table of settings and may bring a ruleset", option_set_text,
     TEXT(NULL, boot)},
    {0, "script", "FILE", GROUP_SCRIPTS,
     "run this Lua script beside everything else, with sockets of its own (-: standard input); may be repeated",
     option_add_script, FIELD("scripts", SCRIPTS)},
    {0, "auth-required", NULL, GROUP_SCRIPTS, "demand user and password from clients, for the ruleset to judge",
     option_set_flag, FLAG("auth_required", auth_required)},
    {0, "lua-budget", "MS", GROUP_SCRIPTS, "time after which a script is aborted, 10 to 60000 (default: 5000)",
     option_set_number, NUMBER("lua_budget", lua_budget_ms, 10, 60000)},
    {0, "memlimit", "MIB", GROUP_SCRIPTS, "memory of all scripts together (default: 0, no limit)", option_set_number,
     NUMBER("memlimit", memlimit_mib, 0, 2097151), .negative_is_none = true},
    {0, "traceback", NULL, GROUP_SCRIPTS, "let messages of Lua errors end with a stack traceback", option_set_flag,
     FLAG("traceback", traceback)},
    {0, "api", "ADDRESS", GROUP_SCRIPTS, "serve the REST API on host:port, :port or unix:/path", option_set_api,
     TEXT("restapi", api_text)},
    {0, "api-token-file", "FILE", GROUP_SCRIPTS,
     "demand one of the bearer tokens of this file from the API's callers, one per line", option_set_text,
     TEXT("api_token_file", api_token_file)},

    {'t', "timeout", "SECONDS", GROUP_LIMITS, "from accept to established, 5 to 86400 (default: 60)",
     option_set_seconds, SECONDS("timeout", timeout_ms, 5, 86400)},
    {0, "idle-timeout", "SECONDS", GROUP_LIMITS,
     "end established sessions in which nothing moves for so long (default: 7440; 0: never)", option_set_seconds,
     SECONDS("idle_timeout", idle_timeout_ms, 0, 2592000)},
    {0, "udp-timeout", "SECONDS", GROUP_LIMITS,
     "end UDP associations in which no datagram moves for so long (default: 300; 0: as --idle-timeout)",
     option_set_seconds, SECONDS("udp_timeout", udp_timeout_ms, 0, 2592000)},
    {0, "half-close-timeout", "SECONDS", GROUP_LIMITS,
     "the same when one direction has ended already (default: 3600; 0: as --idle-timeout)", option_set_seconds,
     SECONDS("half_close_timeout", half_close_timeout_ms, 0, 2592000)},
    {0, "socket-buffer", "SIZE", GROUP_LIMITS,
     "octets that each socket may hold for sending, and for receiving; K and M are understood (default: what the "
     "kernel "
     "chooses)",
     option_set_socket_buffer, ACTION, .least = 16384, .most = 1073741824},
    {KEY_ALONE, NUMBER("tcp_sndbuf", tcp_sndbuf, 0, INT32_MAX)},
    {KEY_ALONE, NUMBER("tcp_rcvbuf", tcp_rcvbuf, 0, INT32_MAX)},
    {'m', "max-sessions", "N", GROUP_LIMITS, "sessions at the same time (default: 0, what descriptors allow)",
     option_set_number, NUMBER("max_sessions", max_sessions, 0, 100000000)},
    {0, "max-startups", "S:R:F", GROUP_LIMITS,
     "refuse R percent of new connections while S handshakes are under way, all from F on (default: 0:30:0, no limit)",
     option_set_startups, ACTION},
    {KEY_ALONE, NUMBER("startup_limit_start", startup_start, 0, INT32_MAX)},
    {KEY_ALONE, NUMBER("startup_limit_rate", startup_rate, 0, 100)},
    {KEY_ALONE, NUMBER("startup_limit_full", startup_full, 0, INT32_MAX)},

    {0, "limit", "KEY: TERMS", GROUP_LIMITS,
     "bound each source, user, rule, target, listener, the total, or one of them (source:192.0.2.7): connections=N "
     "rate=N/s burst=N up=, down=, both=100Mbit/s quota=5GiB/month quota-up= quota-down=; may be repeated",
     option_add_limit, FIELD("limit", LIMITS)},
    {0, "limit-keys", "N", GROUP_LIMITS, "keys of limits that are known at the same time (default: 100000)",
     option_set_number, NUMBER("limit_keys", limit_keys, 16, KEYS_MAX)},
    {0, "usage", "WHERE", GROUP_LIMITS,
     "keep octets, connections and refusals of each key and hour, and what is used of quotas, in sqlite:PATH (default: "
     "usage.db in --state-dir; without both: nowhere), and share quotas with other boxes by "
     "redis://[user:password@]host[:port][/db] or rediss://",
     option_set_text, TEXT("usage", usage)},

    {0, "workers", "N|auto", GROUP_RELAY, "threads that carry traffic (default: auto, one per CPU)", option_set_workers,
     NUMBER("workers", workers, 0, CONFIG_WORKERS_MAX)},
    {0, "relay", "MODE", GROUP_RELAY, "auto: splice bulk flows, copy the others (default); splice; copy",
     option_set_word, WORD("relay", relay, relay_words)},
    {0, "pipe", NULL, GROUP_RELAY, "accepted for compatibility: --relay auto does it", option_set_flag,
     FLAG("pipe", pipe)},

    {0, "log", "WHERE", GROUP_LOG, "stderr (default), stdout, terminal (with colours), syslog or discard",
     option_set_word, WORD(NULL, log_target, log_words)},
    {0, "access-log", "WHERE", GROUP_LOG,
     "write a line for each session and each plain HTTP request: FILE, unix:/path, syslog, journald or stdout",
     option_set_access_log, TEXT("access_log", access_log)},
    {0, "access-log-format", "FORMAT", GROUP_LOG,
     "json (default), logfmt, clf, or a template such as '{time} {client} {user} {target} {result}'",
     option_set_access_log_format, TEXT("access_log_format", access_log_format)},
    {0, "access-log-start", NULL, GROUP_LOG, "write a line when a session has its connection, too", option_set_flag,
     FLAG("access_log_start", access_log_starts)},
    {0, "access-log-query", NULL, GROUP_LOG, "let the path of an HTTP request keep its query", option_set_flag,
     FLAG("access_log_query", access_log_queries)},
    {0, "loglevel", "N", GROUP_LOG,
     "0 silence, 1 fatal, 2 error, 3 warning, 4 notice (default), 5 info, 6 debug, 7 verbose, 8 very verbose",
     option_set_number, NUMBER("loglevel", log_level, 0, 8)},

    {'d', "daemonize", NULL, GROUP_PROCESS, "run in the background and log to syslog", option_set_flag,
     FLAG("daemonize", daemonize)},
    {'u', "user", "USER[:GROUP]", GROUP_PROCESS, "run as USER and GROUP once all listeners are open", option_set_user,
     TEXT("user_name", user)},
    {0, "state-dir", "DIR", GROUP_PROCESS, "folder of what has to survive a restart, such as usage", option_set_text,
     TEXT("state_dir", state_dir)},
    {0, "drain", "SECONDS", GROUP_PROCESS, "at SIGTERM, let sessions finish for so long (default: 0)",
     option_set_seconds, SECONDS("drain", drain_ms, 0, 86400)},

    {'h', "help", NULL, GROUP_INFORMATION, "print this text and exit", option_ask_help, ACTION},
    {0, "version", NULL, GROUP_INFORMATION, "print the version and exit", option_ask_version, ACTION},
    {0, "hash-password", NULL, GROUP_INFORMATION,
     "read a password from the terminal, or a line of standard input, print its hash for --users and exit",
     option_ask_hash, ACTION},
    {0, "check", NULL, GROUP_INFORMATION, "check the options and exit with 0 or 1", option_set_flag,
     FLAG(NULL, check_only)},
    {0, "dump-config", NULL, GROUP_INFORMATION, "check the options, print them as a Lua table and exit",
     option_set_flag, FLAG(NULL, dump_only)},

    {0, "ingress", NULL, GROUP_HIDDEN, "taken as --block-outbound global", option_block_ingress, ACTION},
    {0, "egress", NULL, GROUP_HIDDEN, "taken as --block-outbound local", option_block_egress, ACTION},
    OLD(0, "proto-timeout", "ignored, see --timeout"),
    OLD(0, "bidir-timeout", "ignored, see --timeout"),
    OLD('C', "color", "ignored, see --log terminal"),
    OLD('v', "verbose", "ignored, see --loglevel"),
    OLD('s', "silent", "ignored, see --loglevel"),
};

const size_t option_row_count = sizeof(option_rows) / sizeof(option_rows[0]);

static bool is_called(const struct option_row *row, const char *word, size_t size)
{
    if (size == 2) return row->short_name && word[0] == '-' && word[1] == row->short_name;
    return row->long_name && size > 2 && strncmp(word, "--", 2) == 0 && strlen(row->long_name) == size - 2 &&
           memcmp(row->long_name, word + 2, size - 2) == 0;
}

const struct option_row *option_find(const char *word, size_t size)
{
    for (size_t i = 0; i < option_row_count; i++)
        if (is_called(&option_rows[i], word, size)) return &option_rows[i];
    return NULL;
}

const struct option_row *option_find_key(const char *key)
{
    for (size_t i = 0; i < option_row_count; i++)
        if (option_rows[i].key && strcmp(option_rows[i].key, key) == 0) return &option_rows[i];
    return NULL;
}
