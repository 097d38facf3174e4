/* Every way in which a connection can fail, one row each: what the client is told in its own protocol, how it is
 * counted, and how it is called in the log. On the data path an error becomes a FAIL_* at once. */
#ifndef SLUICE_CORE_SESSION_FAILURE_H
#define SLUICE_CORE_SESSION_FAILURE_H

#include <stdbool.h>
#include <stdint.h>

enum failure {
    FAIL_NONE,
    FAIL_PEER,                /* the client went away: nothing is sent */
    FAIL_VERSION,             /* the first octets belong to no protocol that we speak */
    FAIL_SYNTAX,              /* the request is malformed */
    FAIL_TOO_LARGE,           /* the request is longer than we are willing to hold */
    FAIL_LINE_TOO_LONG,       /* HTTP: its request line alone is */
    FAIL_HEAD_TOO_LARGE,      /* HTTP: its fields are, or there are too many of them */
    FAIL_AUTH_METHOD,         /* no acceptable authentication method, or no credentials where they are required */
    FAIL_AUTH,                /* credentials that are not accepted */
    FAIL_AUTH_BUSY,           /* too many of its source have their password checked, or of all */
    FAIL_COMMAND,             /* a command that is unknown or switched off */
    FAIL_ADDRESS_TYPE,        /* an address type that is unknown */
    FAIL_REJECTED,            /* the ruleset said no, or failed to answer */
    FAIL_CLIENT_DENIED,       /* lists of clients let it in no longer, or not at all */
    FAIL_NO_PROXY,            /* --proxy-protocol: it comes from none of the proxies that may come */
    FAIL_HEADER,              /* --proxy-protocol: it begins with no PROXY header, or with a wrong one */
    FAIL_SHARE,               /* behind a PROXY header: its source has its share of the handshakes */
    FAIL_HALF_OPEN,           /* behind a PROXY header: half-open, a limit of its source */
    FAIL_BLOCKED,             /* the outbound policy said no */
    FAIL_TARGET_DENIED,       /* lists of targets said no */
    FAIL_SELF,                /* the client wants what this process itself listens on */
    FAIL_LOOP,                /* the connection has come back to a listener that it has passed */
    FAIL_RESOLVE,             /* the name does not exist, or the resolver reported an error */
    FAIL_RESOLVE_TIMEOUT,     /* the resolver did not answer in time */
    FAIL_NETWORK_UNREACHABLE, /* no route */
    FAIL_HOST_UNREACHABLE,    /* the last router knows no such host */
    FAIL_DENIED,              /* the system does not let this process connect there */
    FAIL_EGRESS,              /* our own source address, interface or mark is not to be had */
    FAIL_EGRESS_FAMILY,       /* we have no source address of the target's family */
    FAIL_REFUSED,             /* the target refused the connection */
    FAIL_CONNECT_TIMEOUT,     /* the request was complete, but the target was not reached in time */
    FAIL_HANDSHAKE_TIMEOUT,   /* the client did not complete its request in time */
    FAIL_CONNECT,             /* the connection failed for another reason */
    FAIL_NO_UPSTREAM,         /* no member of the group can be used, or there is no such group */
    FAIL_PROXY_AUTH,          /* a hop of the chain does not accept our credentials or methods */
    FAIL_PROXY_REJECTED,      /* a hop forbids the request */
    FAIL_PROXY_REFUSED,       /* a hop says that its target refused */
    FAIL_PROXY_NETWORK,       /* a hop says that the network is unreachable */
    FAIL_PROXY_HOST,          /* a hop says that the host is unreachable */
    FAIL_PROXY_TTL,           /* a hop says that the time to live, or the time, expired */
    FAIL_PROXY_COMMAND,       /* the last hop has no BIND, or a hop no UDP ASSOCIATE */
    FAIL_PROXY_PROTOCOL,      /* a hop answered something that its protocol does not know */
    FAIL_PROXY_CLOSED,        /* a hop closed the connection in the middle of the handshake */
    FAIL_RESOURCE,            /* a pool is empty, or descriptors, ports or kernel memory have run out */
    FAIL_RESOLVE_SHARE,       /* too many names are being looked up, for this source or in all */
    FAIL_LIMIT_CONNECTIONS,   /* a limit of it has as many connections as it may have */
    FAIL_LIMIT_RATE,          /* a limit of it has had as many new connections as it may have for now */
    FAIL_LIMIT_RESOLVING,     /* its source has asked for as many names as it may */
    FAIL_LIMIT_KEYS,          /* there is no room for another key of a limit */
    FAIL_QUOTA,               /* a quota of it is spent */
    FAIL_UPSTREAM_RESPONSE,   /* plain HTTP: the response is malformed */
    FAIL_RESPONSE_TOO_LARGE,  /* plain HTTP: its head is longer than we are willing to hold */
    FAIL_RESPONSE_INCOMPLETE, /* plain HTTP: the upstream has closed before it was complete */
    FAIL_RESPONSE_TIMEOUT,    /* plain HTTP: its head did not come in time */
    /* What was established ends before its time. The last two end handshakes as well. */
    FAIL_CLIENT_RESET,       /* the client has reset its connection, or is gone */
    FAIL_TARGET_RESET,       /* the same of the upstream */
    FAIL_IDLE_TIMEOUT,       /* nothing moved */
    FAIL_HALF_CLOSE_TIMEOUT, /* one side has ended, and nothing moved, or is not acknowledged */
    FAIL_KILLED,             /* the operator has ended it */
    FAIL_DRAIN,              /* the process stops */
    FAIL_COUNT,
};

/* A zero in one of the first three columns means: close without a reply. (A failure never replies "succeeded", so
 * that REP 00 is free for it; only FAIL_NONE means it.) */
struct failure_row {
    uint8_t socks4;    /* reply code */
    uint8_t socks5;    /* REP of the reply to a request. Before the request the method answer 05 FF (AUTH_METHOD) or the
                        * status 01 01 (AUTH) takes its place */
    uint16_t http;     /* status */
    const char *label; /* of metrics: lower case and underscores, unique */
    const char *word;  /* for log lines, reads well behind "failed: " */
};

/* Never NULL; asserts that the failure is one of the table. */
const struct failure_row *failure_row(enum failure failure);

/* What the page of an HTTP error says of it. */
struct failure_page {
    const char *error;    /* error type of Proxy-Status, RFC 9209 section 2.3 */
    const char *sentence; /* for whoever sees the page in a browser; ASCII without markup, less than 100 octets */
};
/* Only for failures that have an HTTP status. */
const struct failure_page *failure_page(enum failure failure);

/* The contract's groups of counters: what the ruleset refused, what took too long, and what went wrong on the way to
 * the target or there. */
bool failure_is_rejection(enum failure failure);
bool failure_is_timeout(enum failure failure);
bool failure_is_upstream(enum failure failure);
/* Of a session that was served: it is a success, too. */
bool failure_is_cut(enum failure failure);
/* What the errno of a socket, connect, send or receive call means. error  not 0; its sign does not matter. */
enum failure failure_from_errno(int error);
/* What the resolver's answer means. status  struct resolve_request's, below 0, or 0 without an address. */
enum failure failure_from_resolver(int status);

#endif
