/* The table of failures. Reply codes follow RFC 1928 section 6, RFC 9110 section 15 and, where these leave a choice,
 * sections 2.3 to 2.5 of the behaviour contract. */
#include "failure.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "socks4.h"
#include "socks5.h"

#define SILENT 0u
#define NO     SOCKS4_REJECTED

static const struct failure_row rows[FAIL_COUNT] = {
    [FAIL_NONE] = {SOCKS4_GRANTED, SOCKS5_SUCCEEDED, 200, "none", "success"},
    [FAIL_PEER] = {SILENT, SILENT, SILENT, "peer", "client went away"},
    [FAIL_VERSION] = {SILENT, SILENT, 400, "version", "unknown protocol or version"},
    [FAIL_SYNTAX] = {NO, SOCKS5_GENERAL_FAILURE, 400, "syntax", "malformed request"},
    [FAIL_TOO_LARGE] = {NO, SOCKS5_GENERAL_FAILURE, 413, "too_large", "request too large"},
    [FAIL_AUTH_METHOD] = {NO, SOCKS5_NOT_ALLOWED, 407, "auth_method", "no acceptable authentication method"},
    [FAIL_AUTH] = {NO, SOCKS5_NOT_ALLOWED, 407, "auth", "authentication failed"},
    [FAIL_COMMAND] = {NO, SOCKS5_COMMAND_NOT_SUPPORTED, 501, "command", "command not supported"},
    [FAIL_ADDRESS_TYPE] = {NO, SOCKS5_ADDRESS_TYPE_NOT_SUPPORTED, 400, "address_type", "address type not supported"},
    [FAIL_REJECTED] = {NO, SOCKS5_GENERAL_FAILURE, 403, "rejected", "rejected by ruleset"},
    [FAIL_BLOCKED] = {NO, SOCKS5_NOT_ALLOWED, 403, "blocked", "connection blocked by policy"},
    [FAIL_RESOLVE] = {NO, SOCKS5_HOST_UNREACHABLE, 502, "resolve", "name resolution failed"},
    [FAIL_RESOLVE_TIMEOUT] = {NO, SOCKS5_HOST_UNREACHABLE, 504, "resolve_timeout", "name resolution timed out"},
    [FAIL_NETWORK_UNREACHABLE] = {NO, SOCKS5_NETWORK_UNREACHABLE, 502, "network_unreachable", "network unreachable"},
    [FAIL_HOST_UNREACHABLE] = {NO, SOCKS5_HOST_UNREACHABLE, 502, "host_unreachable", "host unreachable"},
    [FAIL_REFUSED] = {NO, SOCKS5_CONNECTION_REFUSED, 502, "refused", "connection refused"},
    /* SOCKS4 has no word for a timeout; its clients are used to a plain close. */
    [FAIL_CONNECT_TIMEOUT] = {SILENT, SOCKS5_TTL_EXPIRED, 504, "connect_timeout", "connection timed out"},
    [FAIL_HANDSHAKE_TIMEOUT] = {SILENT, SILENT, 408, "handshake_timeout", "handshake timed out"},
    [FAIL_CONNECT] = {NO, SOCKS5_GENERAL_FAILURE, 502, "connect", "connection failed"},
    [FAIL_PROXY_AUTH] = {NO, SOCKS5_NOT_ALLOWED, 502, "proxy_auth", "proxy authentication failed"},
    [FAIL_PROXY_REJECTED] = {NO, SOCKS5_NOT_ALLOWED, 502, "proxy_rejected", "request rejected by proxy"},
    [FAIL_PROXY_REFUSED] = {NO, SOCKS5_CONNECTION_REFUSED, 502, "proxy_refused", "proxy refused connection"},
    [FAIL_PROXY_NETWORK] = {NO, SOCKS5_NETWORK_UNREACHABLE, 502, "proxy_network", "network unreachable from proxy"},
    [FAIL_PROXY_HOST] = {NO, SOCKS5_HOST_UNREACHABLE, 502, "proxy_host", "host unreachable from proxy"},
    [FAIL_PROXY_TTL] = {NO, SOCKS5_TTL_EXPIRED, 504, "proxy_ttl", "connection timed out at proxy"},
    [FAIL_PROXY_PROTOCOL] = {NO, SOCKS5_GENERAL_FAILURE, 502, "proxy_protocol", "proxy protocol error"},
    [FAIL_PROXY_CLOSED] = {NO, SOCKS5_GENERAL_FAILURE, 502, "proxy_closed", "proxy closed the connection"},
    [FAIL_RESOURCE] = {NO, SOCKS5_GENERAL_FAILURE, 503, "resource", "out of resources"},
    [FAIL_UPSTREAM_RESPONSE] = {NO, SOCKS5_GENERAL_FAILURE, 502, "upstream_response", "malformed upstream response"},
    [FAIL_INTERNAL] = {NO, SOCKS5_GENERAL_FAILURE, 500, "internal", "internal error"},
};

const struct failure_row *failure_row(enum failure failure)
{
    assert(failure < FAIL_COUNT);
    assert(rows[failure].label); /* a new failure needs its row */
    return &rows[failure];
}

enum failure failure_from_errno(int error)
{
    assert(error != 0);
    switch (abs(error)) {
    case ENETUNREACH:
    case ENETDOWN: return FAIL_NETWORK_UNREACHABLE;
    case EHOSTUNREACH:
    case EHOSTDOWN: return FAIL_HOST_UNREACHABLE;
    case ECONNREFUSED: return FAIL_REFUSED;
    case ETIMEDOUT: return FAIL_CONNECT_TIMEOUT;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRNOTAVAIL: /* no ephemeral port is left */
    case EAGAIN: /* the same, of older kernels; on a Unix socket: its backlog is full */ return FAIL_RESOURCE;
    case EACCES: /* a prohibit route, a firewall on this machine: the operator's policy, only kept elsewhere */
    case EPERM: return FAIL_BLOCKED;
    default: return FAIL_CONNECT;
    }
}
