/* The settings, as all threads that obey them read them. core/process/ makes them: options.h reads them, config_check.h
 * judges them, config_size.h derives the sizes of all pools.
 *
 * A struct config is plain memory; the strings in it live as long as the process. What threads obey is never written:
 * other settings are another struct (coordinator_configure()). */
#ifndef SLUICE_CORE_SESSION_CONFIG_H
#define SLUICE_CORE_SESSION_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/address.h"
#include "protocols/egress_text.h"
#include "protocols/subnet.h"
#include "protocols/url.h"

#define CONFIG_LISTENERS_MAX  32u
#define CONFIG_HOPS_MAX       8u
#define CONFIG_WORKERS_MAX    256u
#define CONFIG_SCRIPTS_MAX    64u
#define CONFIG_LIMITS_MAX     256u
#define CONFIG_LISTS_MAX      1024u
#define CONFIG_PROXIES_MAX    32u /* networks of one listener's --proxy-protocol */
#define CONFIG_UPSTREAMS_MAX  64u
#define CONFIG_NO_USERS       "none"
#define CONFIG_USER_FILES_MAX (CONFIG_LISTENERS_MAX + 2u) /* --users, and one of each listener; 0 is none */

struct lists;

enum list_kind { LIST_ALLOW_CLIENT, LIST_DENY_CLIENT, LIST_ALLOW_TARGET, LIST_DENY_TARGET, LIST_KINDS };
#define LIST_SCOPE_PROCESS CONFIG_LISTENERS_MAX /* a smaller number is a listener's */

/* One member of --allow-client, --deny-client, --allow-target or --deny-target. */
struct list_option {
    uint8_t kind;     /* enum list_kind */
    uint8_t scope;    /* LIST_SCOPE_PROCESS, or the index of a listener */
    const char *text; /* an entry as protocols/list_text.h has it, or @FILE */
};

enum listener_kind {
    LISTENER_AUTO,    /* SOCKS4, 4A, 5 and HTTP: the first octet tells */
    LISTENER_HTTP,    /* HTTP only */
    LISTENER_FORWARD, /* every connection goes to `forward` */
    LISTENER_TPROXY,  /* the target is the address that the client dialled */
    LISTENER_SOCKS,   /* SOCKS4, 4A and 5 only */
};

/* What replies of UDP ASSOCIATE and BIND name in the place of a local address of that family; NONE: nothing was given.
 */
struct advertise {
    struct address ipv4, ipv6;
};

/* Whose connections begin with a PROXY header that says who their client is (--proxy-protocol). */
struct config_proxies {
    struct {
        bool is_ipv6;
        uint8_t bits; /* of 128, an IPv4 network's are 96 more than its own */
        struct number first;
    } networks[CONFIG_PROXIES_MAX];
    uint8_t count;     /* of networks */
    bool unix_sockets; /* `unix`: whoever comes by the listener's Unix socket */
    bool optional;     /* others may come, too, as clients of their own; else they are refused */
};

/* Whether the listener expects headers at all. */
static inline bool config_has_proxies(const struct config_proxies *proxies)
{
    return proxies->count > 0 || proxies->unix_sockets;
}

struct listener_config {
    enum listener_kind kind;
    const char *text;           /* its address as given, for messages */
    const char *options;        /* what stood behind it, as given: `name=value,...`; NULL: nothing */
    struct address address;     /* numeric or UNIX after config_check(): the wildcard "" is resolved there */
    struct address forward;     /* LISTENER_FORWARD: IPV4, IPV6, NAME or UNIX */
    const char *forward_text;   /* -f as given; NULL unless LISTENER_FORWARD */
    const char *users;          /* users=, in the place of config.users; CONFIG_NO_USERS: anybody; NULL: not given */
    struct egress_terms egress; /* source=, by=, mark=, interface= */
    uint8_t user_file;          /* index in config.user_files, 0: anybody may come; after config_check() */
    struct advertise advertise; /* udp-advertise=, in the place of config.advertise */
    uint8_t send_proxy;         /* LISTENER_FORWARD: version of the PROXY header that its target gets; 0: none */
    struct config_proxies proxies;
};

enum relay_mode { RELAY_AUTO, RELAY_SPLICE, RELAY_COPY };

struct config {
    struct listener_config listeners[CONFIG_LISTENERS_MAX];
    uint32_t listener_count;
    struct proxy_uri hops[CONFIG_HOPS_MAX]; /* -x, leftmost first */
    uint32_t hop_count;
    const char *upstreams[CONFIG_UPSTREAMS_MAX]; /* --upstream as given, see protocols/group_text.h */
    uint32_t upstream_count;
    const char *proxy_text; /* -x as given, for --dump-config; NULL if absent */

    int family;                 /* AF_UNSPEC, AF_INET (-4), AF_INET6 (-6) */
    const char *nameservers;    /* NULL: resolv.conf */
    const char *netdev;         /* NULL: any */
    const char *source;         /* --source as given, all in one; NULL: any */
    uint32_t mark;              /* --mark; 0: none */
    struct egress_terms egress; /* what the last three say, after config_check() */
    const char *user;           /* -u as given, NULL: keep */
    bool reuseport;             /* allow another process on the same port; within the process it is always on */
    bool fastopen;              /* on listeners */
    bool fastopen_connect;
    bool tproxy;
    bool daemonize;
    bool socks5_bind;
    bool socks5_udp;
    struct advertise advertise;
    const char *advertise_text; /* --udp-advertise as given; NULL: not given */
    bool conn_cache;            /* upstream connections of plain HTTP carry several requests */
    bool pipe;                  /* --pipe was given; no effect */
    bool tcp_nodelay, tcp_keepalive;
    int tcp_sndbuf, tcp_rcvbuf; /* octets; 0: what the kernel chooses */
    enum relay_mode relay;
    uint32_t timeout_ms;                                /* half-open limit: 5 s to a day */
    uint32_t idle_timeout_ms;                           /* established sessions; 0: none */
    uint32_t udp_timeout_ms;                            /* UDP associations, beside idle_timeout_ms; 0: none */
    uint32_t half_close_timeout_ms;                     /* relays of which one direction has ended; 0: none */
    uint32_t drain_ms;                                  /* at stop; 0: reset at once */
    uint32_t max_sessions;                              /* 0: what pools and descriptors allow */
    uint32_t startup_start, startup_rate, startup_full; /* --max-startups */
    const char *limits[CONFIG_LIMITS_MAX];              /* --limit as given, see protocols/limit_text.h */
    uint32_t limit_count;
    const char *access_log;        /* FILE, unix:/path, syslog, journald, stdout; NULL: none */
    const char *access_log_format; /* json, logfmt, clf, or a template */
    bool access_log_starts;        /* a line at the start of a session, too */
    bool access_log_queries;       /* paths keep their query */
    uint32_t limit_keys;           /* that are known at the same time, see keys.h */
    const char *usage;             /* --usage as given, see usage_text.h; NULL: below state_dir, if given */
    const char *state_dir;         /* NULL: none */
    uint32_t blocked;              /* set of enum policy_class */
    bool blocked_given;            /* by the operator: not the default */
    struct list_option lists_given[CONFIG_LISTS_MAX];
    uint32_t list_count;
    struct lists *lists;                     /* what these hold, see lists.h; held once; NULL: nothing is listed */
    bool allow_self;                         /* clients may reach what the process itself listens on */
    uint32_t workers;                        /* 0: one per CPU of the affinity mask; resolved by config_check() */
    const char *ruleset;                     /* -r, or named by the -c script; NULL: none; "-": stdin */
    const char *boot;                        /* -c likewise; the command line names one of both at most */
    bool boot_rules;                         /* it has brought a ruleset of its own */
    const char *scripts[CONFIG_SCRIPTS_MAX]; /* --script, in their order */
    uint32_t script_count;
    bool auth_required; /* clients must give credentials, which the ruleset judges */
    const char *users;  /* file of the users of all listeners whose clients can say who they are; NULL: none */
    const char *user_files[CONFIG_USER_FILES_MAX]; /* from 1 on, each once; after config_check() */
    uint32_t user_file_count;
    bool traceback;             /* of Lua errors */
    uint32_t memlimit_mib;      /* of the Lua state; 0: none */
    uint32_t lua_budget_ms;     /* time of one entry into Lua, see lua/engine/limits.h */
    const char *api_text;       /* --api as given; NULL: no API */
    struct address api;         /* numeric or UNIX after config_check() */
    const char *api_token_file; /* NULL: none */
    bool check_only, dump_only; /* --check, --dump-config: say something and exit */
    int log_level;              /* enum log_level */
    int log_target;             /* enum log_target */

    /* Derived by config_size(): per worker unless it says otherwise. Each is a commented sum in config_size.c. */
    uint32_t sessions;       /* slots of the session pool */
    uint32_t setups;         /* sessions that may be in their handshake at the same time */
    uint32_t buffers;        /* of the receive group, a power of two */
    uint32_t buffers_lent;   /* of them with the kernel at a time, a power of two */
    uint32_t buffer_size;    /* octets each */
    uint32_t bulk_turn;      /* octets that bulk flows may move in one turn of the loop */
    uint32_t pipes;          /* at most in the pipe pool */
    uint32_t pipe_size;      /* octets asked for */
    uint32_t ring_entries;   /* submission queue */
    uint32_t queue_capacity; /* messages each way, a power of two */
    uint32_t name_sockets;   /* of the process: questions to name servers over UDP at the same time */
    uint32_t associations;   /* SOCKS5 UDP */
    uint32_t udp_peers;      /* addresses that may answer to all of them, see udp_peers.h */
    uint32_t exchanges;      /* plain HTTP messages in transit */
    uint32_t heads;          /* large buffers for HTTP heads, see head_buffer.h */
    uint32_t conns;          /* upstream connections that wait for another request, see conn_cache.h */
};

/* Whether clients of such a listener name their target themselves. */
static inline bool listener_asks_target(enum listener_kind kind)
{
    return kind == LISTENER_AUTO || kind == LISTENER_HTTP || kind == LISTENER_SOCKS;
}

static inline bool config_has_listener(const struct config *config, enum listener_kind kind)
{
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (config->listeners[i].kind == kind) return true;
    return false;
}

#endif
