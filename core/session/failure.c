/* The table of failures. Reply codes follow RFC 1928 section 6, RFC 9110 section 15 and, where these leave a choice,
 * sections 2.3 to 2.5 of the behaviour contract. */
#include "core/session/failure.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "protocols/socks4.h"
#include "protocols/socks5.h"

#define SILENT 0u
#define NO     SOCKS4_REJECTED

static const struct failure_row rows[FAIL_COUNT] = {
    [FAIL_NONE] = {SOCKS4_GRANTED, SOCKS5_SUCCEEDED, 200, "none", "success"},
    [FAIL_PEER] = {SILENT, SILENT, SILENT, "peer", "client went away"},
    [FAIL_VERSION] = {SILENT, SILENT, 400, "version", "unknown protocol or version"},
    [FAIL_SYNTAX] = {NO, SOCKS5_GENERAL_FAILURE, 400, "syntax", "malformed request"},
    [FAIL_TOO_LARGE] = {NO, SOCKS5_GENERAL_FAILURE, 413, "too_large", "request too large"},
    [FAIL_LINE_TOO_LONG] = {NO, SOCKS5_GENERAL_FAILURE, 414, "line_too_long", "request line too long"},
    [FAIL_HEAD_TOO_LARGE] = {NO, SOCKS5_GENERAL_FAILURE, 431, "head_too_large", "request head too large"},
    [FAIL_AUTH_METHOD] = {NO, SOCKS5_NOT_ALLOWED, 407, "auth_method", "no acceptable authentication method"},
    [FAIL_AUTH] = {NO, SOCKS5_NOT_ALLOWED, 407, "auth", "authentication failed"},
    [FAIL_AUTH_BUSY] = {NO, SOCKS5_NOT_ALLOWED, 429, "auth_busy", "too many passwords are being checked"},
    [FAIL_COMMAND] = {NO, SOCKS5_COMMAND_NOT_SUPPORTED, 501, "command", "command not supported"},
    [FAIL_ADDRESS_TYPE] = {NO, SOCKS5_ADDRESS_TYPE_NOT_SUPPORTED, 400, "address_type", "address type not supported"},
    [FAIL_REJECTED] = {NO, SOCKS5_GENERAL_FAILURE, 403, "rejected", "rejected by ruleset"},
    [FAIL_CLIENT_DENIED] = {NO, SOCKS5_NOT_ALLOWED, 403, "client_denied", "client denied by a list"},
    [FAIL_NO_PROXY] = {SILENT, SILENT, SILENT, "no_proxy", "it is none of --proxy-protocol's proxies"},
    [FAIL_HEADER] = {SILENT, SILENT, SILENT, "proxy_header", "no PROXY header, or a malformed one"},
    [FAIL_SHARE] = {SILENT, SILENT, SILENT, "share", "its source has its share of the handshakes"},
    [FAIL_HALF_OPEN] = {SILENT, SILENT, SILENT, "half_open", "half-open, a limit of its source"},
    [FAIL_BLOCKED] = {NO, SOCKS5_NOT_ALLOWED, 403, "blocked", "connection blocked by policy"},
    [FAIL_TARGET_DENIED] = {NO, SOCKS5_NOT_ALLOWED, 403, "target_denied", "target denied by a list"},
    [FAIL_SELF] = {NO, SOCKS5_NOT_ALLOWED, 403, "self", "the target is this proxy itself"},
    [FAIL_LOOP] = {NO, SOCKS5_NOT_ALLOWED, 502, "loop", "the connection has come back to this proxy"},
    [FAIL_RESOLVE] = {NO, SOCKS5_HOST_UNREACHABLE, 502, "resolve", "name resolution failed"},
    [FAIL_RESOLVE_TIMEOUT] = {NO, SOCKS5_HOST_UNREACHABLE, 504, "resolve_timeout", "name resolution timed out"},
    [FAIL_NETWORK_UNREACHABLE] = {NO, SOCKS5_NETWORK_UNREACHABLE, 502, "network_unreachable", "network unreachable"},
    [FAIL_HOST_UNREACHABLE] = {NO, SOCKS5_HOST_UNREACHABLE, 502, "host_unreachable", "host unreachable"},
    [FAIL_DENIED] = {NO, SOCKS5_NOT_ALLOWED, 403, "denied", "permission denied by the system"},
    [FAIL_EGRESS] = {NO, SOCKS5_GENERAL_FAILURE, 503, "egress", "the way out is not to be had"},
    [FAIL_EGRESS_FAMILY] = {NO, SOCKS5_NETWORK_UNREACHABLE, 502, "egress_family", "no source address of that family"},
    [FAIL_REFUSED] = {NO, SOCKS5_CONNECTION_REFUSED, 502, "refused", "connection refused"},
    /* SOCKS4 has no word for a timeout; its clients are used to a plain close. */
    [FAIL_CONNECT_TIMEOUT] = {SILENT, SOCKS5_TTL_EXPIRED, 504, "connect_timeout", "connection timed out"},
    [FAIL_HANDSHAKE_TIMEOUT] = {SILENT, SILENT, 408, "handshake_timeout", "handshake timed out"},
    [FAIL_CONNECT] = {NO, SOCKS5_GENERAL_FAILURE, 502, "connect", "connection failed"},
    [FAIL_NO_UPSTREAM] = {NO, SOCKS5_GENERAL_FAILURE, 503, "no_upstream", "no member of the group can be used"},
    [FAIL_PROXY_AUTH] = {NO, SOCKS5_NOT_ALLOWED, 502, "proxy_auth", "proxy authentication failed"},
    [FAIL_PROXY_REJECTED] = {NO, SOCKS5_NOT_ALLOWED, 502, "proxy_rejected", "request rejected by proxy"},
    [FAIL_PROXY_REFUSED] = {NO, SOCKS5_CONNECTION_REFUSED, 502, "proxy_refused", "proxy refused connection"},
    [FAIL_PROXY_NETWORK] = {NO, SOCKS5_NETWORK_UNREACHABLE, 502, "proxy_network", "network unreachable from proxy"},
    [FAIL_PROXY_HOST] = {NO, SOCKS5_HOST_UNREACHABLE, 502, "proxy_host", "host unreachable from proxy"},
    [FAIL_PROXY_TTL] = {NO, SOCKS5_TTL_EXPIRED, 504, "proxy_ttl", "connection timed out at proxy"},
    [FAIL_PROXY_COMMAND] = {NO, SOCKS5_COMMAND_NOT_SUPPORTED, 502, "proxy_command", "command not supported by proxy"},
    [FAIL_PROXY_PROTOCOL] = {NO, SOCKS5_GENERAL_FAILURE, 502, "proxy_protocol", "proxy protocol error"},
    [FAIL_PROXY_CLOSED] = {NO, SOCKS5_GENERAL_FAILURE, 502, "proxy_closed", "proxy closed the connection"},
    [FAIL_RESOURCE] = {NO, SOCKS5_GENERAL_FAILURE, 503, "resource", "out of resources"},
    [FAIL_RESOLVE_SHARE] = {NO, SOCKS5_GENERAL_FAILURE, 503, "resolve_share", "out of resources for names"},
    [FAIL_LIMIT_CONNECTIONS] = {NO, SOCKS5_NOT_ALLOWED, 429, "limit_connections", "too many connections"},
    [FAIL_LIMIT_RATE] = {NO, SOCKS5_NOT_ALLOWED, 429, "limit_rate", "too many new connections"},
    [FAIL_LIMIT_RESOLVING] = {NO, SOCKS5_NOT_ALLOWED, 429, "limit_resolving", "too many names are being looked up"},
    [FAIL_LIMIT_KEYS] = {NO, SOCKS5_GENERAL_FAILURE, 503, "limit_keys", "no room for another limit"},
    [FAIL_QUOTA] = {NO, SOCKS5_NOT_ALLOWED, 403, "quota", "the quota is spent"},
    [FAIL_UPSTREAM_RESPONSE] = {NO, SOCKS5_GENERAL_FAILURE, 502, "upstream_response", "malformed upstream response"},
    [FAIL_RESPONSE_TOO_LARGE] = {NO, SOCKS5_GENERAL_FAILURE, 502, "response_too_large", "response head too large"},
    [FAIL_RESPONSE_INCOMPLETE] = {NO, SOCKS5_GENERAL_FAILURE, 502, "response_incomplete", "response incomplete"},
    [FAIL_RESPONSE_TIMEOUT] = {NO, SOCKS5_TTL_EXPIRED, 504, "response_timeout", "response timed out"},
    [FAIL_CLIENT_RESET] = {SILENT, SILENT, SILENT, "client_reset", "reset by the client"},
    [FAIL_TARGET_RESET] = {SILENT, SILENT, SILENT, "target_reset", "reset by the target"},
    [FAIL_IDLE_TIMEOUT] = {SILENT, SILENT, SILENT, "idle_timeout", "nothing moved for --idle-timeout"},
    [FAIL_HALF_CLOSE_TIMEOUT] = {SILENT, SILENT, SILENT, "half_close_timeout",
                                 "half-closed, nothing moved for --half-close-timeout"},
    [FAIL_KILLED] = {SILENT, SILENT, SILENT, "killed", "ended by the operator"},
    [FAIL_DRAIN] = {SILENT, SILENT, SILENT, "drain", "the drain of a stop is over"},
};

const struct failure_row *failure_row(enum failure failure)
{
    assert(failure < FAIL_COUNT);
    assert(rows[failure].label); /* a new failure needs its row */
    return &rows[failure];
}

static const struct failure_page pages[FAIL_COUNT] = {
    [FAIL_VERSION] = {"http_request_error", "The proxy does not know this protocol, or this version of it."},
    [FAIL_SYNTAX] = {"http_request_error", "The proxy could not make sense of this request."},
    [FAIL_TOO_LARGE] = {"http_request_error", "The request is larger than the proxy can handle."},
    [FAIL_LINE_TOO_LONG] = {"http_request_error", "The address is longer than the proxy can handle."},
    [FAIL_HEAD_TOO_LARGE] = {"http_request_error", "The fields of the request, cookies for example, are too large."},
    [FAIL_AUTH_METHOD] = {"http_request_denied", "The proxy wants to know who you are first."},
    [FAIL_AUTH] = {"http_request_denied", "The proxy does not accept this user name and password."},
    [FAIL_AUTH_BUSY] = {"http_request_denied", "Too many sign-ins are being checked at the moment."},
    [FAIL_COMMAND] = {"http_request_error", "The proxy cannot do what was asked."},
    [FAIL_ADDRESS_TYPE] = {"http_request_error", "The proxy does not know this kind of address."},
    [FAIL_REJECTED] = {"http_request_denied", "The proxy's rules do not let you connect to this destination."},
    [FAIL_CLIENT_DENIED] = {"http_request_denied", "The proxy does not serve the address that you come from."},
    [FAIL_BLOCKED] = {"destination_ip_prohibited", "The proxy does not connect to this address."},
    [FAIL_TARGET_DENIED] = {"destination_ip_prohibited", "The proxy does not connect to this destination."},
    [FAIL_SELF] = {"destination_ip_prohibited", "The proxy does not connect to itself."},
    [FAIL_LOOP] = {"proxy_loop_detected", "The request has come back to the proxy that it came from."},
    [FAIL_RESOLVE] = {"dns_error", "The name of the destination was not found."},
    [FAIL_RESOLVE_TIMEOUT] = {"dns_timeout", "Nobody answered in time what address the destination's name has."},
    [FAIL_NETWORK_UNREACHABLE] = {"destination_ip_unroutable", "There is no route to the destination."},
    [FAIL_HOST_UNREACHABLE] = {"destination_ip_unroutable", "The destination could not be reached."},
    [FAIL_DENIED] = {"destination_ip_prohibited", "The system does not let the proxy connect to the destination."},
    [FAIL_EGRESS] = {"proxy_internal_error", "The proxy cannot use its own address at the moment."},
    [FAIL_EGRESS_FAMILY] = {"destination_ip_unroutable",
                            "The proxy has no address from which to reach the destination."},
    [FAIL_REFUSED] = {"connection_refused", "The destination refused the connection."},
    [FAIL_CONNECT_TIMEOUT] = {"connection_timeout", "The destination did not answer in time."},
    [FAIL_HANDSHAKE_TIMEOUT] = {"http_request_error", "The request did not arrive in time."},
    [FAIL_CONNECT] = {"destination_unavailable", "The proxy could not connect to the destination."},
    [FAIL_NO_UPSTREAM] = {"destination_unavailable", "None of the servers that could pass this on is available."},
    [FAIL_PROXY_AUTH] = {"proxy_configuration_error", "The next proxy does not accept this one's credentials."},
    [FAIL_PROXY_REJECTED] = {"destination_unavailable", "The next proxy does not allow this destination."},
    [FAIL_PROXY_REFUSED] = {"connection_refused", "The next proxy was refused by the destination."},
    [FAIL_PROXY_NETWORK] = {"destination_ip_unroutable", "The next proxy has no route to the destination."},
    [FAIL_PROXY_HOST] = {"destination_unavailable", "The next proxy could not reach the destination."},
    [FAIL_PROXY_TTL] = {"connection_timeout", "The destination did not answer the next proxy in time."},
    [FAIL_PROXY_COMMAND] = {"proxy_configuration_error", "The next proxy cannot do what was asked."},
    [FAIL_PROXY_PROTOCOL] = {"destination_unavailable", "The next proxy sent an answer that makes no sense."},
    [FAIL_PROXY_CLOSED] = {"connection_terminated", "The next proxy closed the connection."},
    [FAIL_RESOURCE] = {"proxy_internal_error", "The proxy has no room for this request at the moment."},
    [FAIL_RESOLVE_SHARE] = {"proxy_internal_error", "Too many names are being looked up at the moment."},
    [FAIL_LIMIT_CONNECTIONS] = {"http_request_denied", "You have as many connections as you may have."},
    [FAIL_LIMIT_RATE] = {"http_request_denied", "You have made as many connections as you may make for now."},
    [FAIL_LIMIT_RESOLVING] = {"http_request_denied", "You are waiting for as many names as you may wait for."},
    [FAIL_LIMIT_KEYS] = {"proxy_internal_error", "The proxy has no room for this request at the moment."},
    [FAIL_QUOTA] = {"http_request_denied", "The volume that you may use is used up."},
    [FAIL_UPSTREAM_RESPONSE] = {"http_protocol_error", "The destination sent an answer that makes no sense."},
    [FAIL_RESPONSE_TOO_LARGE] = {"http_response_header_section_size", "The answer's fields are too large."},
    [FAIL_RESPONSE_INCOMPLETE] = {"http_response_incomplete", "The destination broke off in the middle of its answer."},
    [FAIL_RESPONSE_TIMEOUT] = {"http_response_timeout", "The destination did not answer in time."},
};

const struct failure_page *failure_page(enum failure failure)
{
    assert(failure_row(failure)->http != SILENT && failure != FAIL_NONE);
    assert(pages[failure].error); /* a new failure needs its page */
    return &pages[failure];
}

bool failure_is_rejection(enum failure failure)
{
    return failure == FAIL_REJECTED || failure == FAIL_AUTH;
}

bool failure_is_timeout(enum failure failure)
{
    return failure == FAIL_HANDSHAKE_TIMEOUT || failure == FAIL_CONNECT_TIMEOUT || failure == FAIL_RESPONSE_TIMEOUT;
}

bool failure_is_upstream(enum failure failure)
{
    bool way = failure >= FAIL_BLOCKED && failure <= FAIL_PROXY_CLOSED;
    bool answer = failure >= FAIL_UPSTREAM_RESPONSE && failure <= FAIL_RESPONSE_TIMEOUT;
    return (way || answer) && !failure_is_timeout(failure);
}

bool failure_is_cut(enum failure failure)
{
    return failure >= FAIL_CLIENT_RESET && failure <= FAIL_DRAIN;
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
    case EACCES:                    /* a prohibit route, or the permissions of a Unix socket and its folders */
    case EPERM: return FAIL_DENIED; /* a firewall on this machine */
    default: return FAIL_CONNECT;
    }
}

enum failure failure_from_resolver(int status)
{
    switch (status) {
    case -ETIMEDOUT: return FAIL_RESOLVE_TIMEOUT;
    case -ENOMEM: return FAIL_RESOLVE_SHARE;
    default: return FAIL_RESOLVE;
    }
}
