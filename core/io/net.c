/* The kernel's body of net.h. */
#include "core/io/net.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

/* A peer that answers nothing: probes begin after a minute of silence and end the connection a minute later. No
 * TCP_USER_TIMEOUT beside them: the kernel counts the time of a closed window for it, too, although the peer answers
 * every probe, and would reset who only pauses. */
#define NET_KEEPALIVE_IDLE_S     60
#define NET_KEEPALIVE_INTERVAL_S 15
#define NET_KEEPALIVE_COUNT      4

static int net_result(int result)
{
    return result < 0 ? -errno : result;
}

static void net_set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value); /* a Unix socket refuses TCP options: fine */
}

int net_socket(int family, int type)
{
    return net_result(socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

int net_bind(int fd, const struct net_address *address)
{
    return net_result(bind(fd, &address->any, address->size));
}

int net_listen(int fd, int backlog)
{
    return net_result(listen(fd, backlog));
}

int net_local_address(int fd, struct net_address *out)
{
    out->size = sizeof out->storage;
    return net_result(getsockname(fd, &out->any, &out->size));
}

/* SO_PEERNAME wants no more room than the address takes, which is as much as the local one. */
static int net_former_peer_address(int fd, struct net_address *out)
{
    int result = net_local_address(fd, out);
    return result < 0 ? result : net_result(getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &out->storage, &out->size));
}

/* After a reset getpeername() knows nobody any more, although the socket does: whoever resets at once must not go
 * without a name in the log. */
int net_peer_address(int fd, struct net_address *out)
{
    out->size = sizeof out->storage;
    int result = net_result(getpeername(fd, &out->any, &out->size));
    return result == -ENOTCONN ? net_former_peer_address(fd, out) : result;
}

int net_route_source(const struct net_address *to, const char *device, uint32_t mark, struct net_address *out)
{
    int fd = net_socket(to->any.sa_family, SOCK_DGRAM);
    if (fd < 0) return fd;
    if (device) (void)net_set_device(fd, device); /* whoever opens the real socket warns */
    if (mark != 0) (void)net_set_mark(fd, mark);
    int result = net_result(connect(fd, &to->any, to->size));
    if (result == 0) result = net_local_address(fd, out);
    net_close(fd);
    return result;
}

int net_connect(int fd, const struct net_address *to)
{
    return net_result(connect(fd, &to->any, to->size));
}

int net_take_error(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) return -errno;
    return -error;
}

int net_type(int fd)
{
    int type = 0;
    socklen_t size = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ? -errno : type;
}

bool net_is_ipv6_only(int fd)
{
    int only = 0;
    socklen_t size = sizeof only;
    return getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &size) == 0 && only != 0;
}

int net_original_address(int fd, struct net_address *out)
{
    out->size = sizeof out->storage;
    if (getsockopt(fd, IPPROTO_IP, SO_ORIGINAL_DST, &out->any, &out->size) == 0) return 0;
    out->size = sizeof out->storage;
    return net_result(getsockopt(fd, IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, &out->any, &out->size));
}

int net_accept(int fd)
{
    return net_result(accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

bool net_is_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1;
}

bool net_holds_octets(int fd)
{
    char octet;
    return recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Standard input is always open, be it /dev/null (process_open_standard()); another name for it holds nothing. */
int net_open_spare(void)
{
    return net_result(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
}

void net_make_spare(int fd)
{
    (void)dup3(STDIN_FILENO, fd, O_CLOEXEC);
}

int net_shutdown_write(int fd)
{
    return net_result(shutdown(fd, SHUT_WR));
}

void net_stop_listening(int fd)
{
    (void)shutdown(fd, SHUT_RDWR);
}

void net_send_octet(int fd, uint8_t octet)
{
    (void)!send(fd, &octet, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void net_reset_on_close(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

void net_set_nodelay(int fd)
{
    net_set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

void net_set_buffers(int fd, int send_size, int receive_size)
{
    if (send_size > 0) net_set_option(fd, SOL_SOCKET, SO_SNDBUF, send_size);
    if (receive_size > 0) net_set_option(fd, SOL_SOCKET, SO_RCVBUF, receive_size);
}

void net_set_keepalive(int fd)
{
    net_set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    net_set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, NET_KEEPALIVE_IDLE_S);
    net_set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, NET_KEEPALIVE_INTERVAL_S);
    net_set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, NET_KEEPALIVE_COUNT);
}

int net_set_device(int fd, const char *name)
{
    return net_result(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name) + 1));
}

int net_set_mark(int fd, uint32_t mark)
{
    return net_result(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark));
}

int net_bind_source(int fd, const struct net_address *source, bool connects)
{
    if (connects) net_set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (source->any.sa_family == AF_INET6) net_set_option(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1);
    return net_bind(fd, source);
}

void net_set_fastopen_connect(int fd)
{
    net_set_option(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
}

uint32_t net_send_room(int fd)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size) < 0) return UINT32_MAX;
    /* TCP counts what it has queued; a Unix socket only what it has allocated. */
    uint32_t queued = info[SK_MEMINFO_WMEM_QUEUED], limit = info[SK_MEMINFO_SNDBUF];
    if (queued == 0) queued = info[SK_MEMINFO_WMEM_ALLOC];
    uint32_t room = queued < limit ? limit - queued : 0;
    return room - room / 4; /* the kernel's own structures count, too */
}

uint32_t net_receive_buffer(int fd)
{
    int octets = 0;
    socklen_t size = sizeof octets;
    return getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &octets, &size) < 0 || octets < 0 ? 0 : (uint32_t)octets;
}

bool net_is_closed(int fd)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == TCP_CLOSE;
}

/* The same of a connection that is gone as of one that is there. */
static uint32_t net_count_unacknowledged(int fd)
{
    int left = 0, domain = AF_UNIX;
    socklen_t size = sizeof domain;
    if (ioctl(fd, SIOCOUTQ, &left) < 0 || left <= 0) return 0;
    (void)getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
    return domain == AF_UNIX ? 0 : (uint32_t)left; /* nothing can be lost in a Unix socket */
}

uint32_t net_unacknowledged(int fd)
{
    uint32_t left = net_count_unacknowledged(fd);
    return left == 0 || net_is_closed(fd) ? 0 : left;
}

uint32_t net_lost(int fd)
{
    uint32_t left = net_count_unacknowledged(fd);
    return left > 0 && net_is_closed(fd) ? left : 0;
}

/* Octets that are unread, the end counted as one; -1: it cannot be told, so there is no end. */
static int net_unread_with_end(int fd)
{
    char octet;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {.iov_base = &octet, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int unread = -1;
    net_set_option(fd, IPPROTO_TCP, TCP_INQ, 1);
    if (recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT) < 0) return -1;
    const struct cmsghdr *first = CMSG_FIRSTHDR(&message);
    if (first && first->cmsg_level == IPPROTO_TCP && first->cmsg_type == TCP_CM_INQ)
        memcpy(&unread, CMSG_DATA(first), sizeof unread);
    return unread;
}

/* A reset leaves no trace of the end in the state of the connection. But TCP_INQ counts the end as an octet and SIOCINQ
 * does not, even when both have been read, so the difference is the end. In this order: octets that arrive in between
 * must not look like it. SIOCINQ stops at urgent data unless they are in line. */
bool net_has_ended(int fd)
{
    int octets = 0, protocol = 0;
    socklen_t size = sizeof protocol;
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0 || protocol != IPPROTO_TCP) return true;
    int with_end = net_unread_with_end(fd);
    net_set_option(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    int result = ioctl(fd, SIOCINQ, &octets);
    net_set_option(fd, SOL_SOCKET, SO_OOBINLINE, 0);
    return result == 0 && with_end == octets + 1;
}

bool net_was_cut(int fd)
{
    return net_is_closed(fd) && !net_has_ended(fd);
}

bool net_measure(int fd, uint32_t *rtt_us, uint32_t *retransmissions)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0) return false;
    *rtt_us = info.tcpi_rtt;
    *retransmissions = info.tcpi_total_retrans;
    return true;
}

void net_signal(int event_fd)
{
    uint64_t one = 1;
    ssize_t written;
    do written = write(event_fd, &one, sizeof one);
    while (written < 0 && errno == EINTR); /* a full counter wakes as well */
}

void net_close(int fd)
{
    (void)close(fd);
}

void net_empty_pipe(int fd)
{
    uint8_t octets[16384];
    while (read(fd, octets, sizeof octets) > 0) continue;
}

ssize_t net_splice(int from, int to, size_t size, bool more)
{
    unsigned flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | (more ? SPLICE_F_MORE : 0u);
    ssize_t moved;
    do moved = splice(from, NULL, to, NULL, size, flags);
    while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

int net_pipe(int fds[2], size_t *size)
{
    if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) return -errno;
    int granted = fcntl(fds[1], F_SETPIPE_SZ, (int)*size);
    if (granted < 0) granted = fcntl(fds[1], F_GETPIPE_SZ);
    *size = granted > 0 ? (size_t)granted : 4096;
    return 0;
}
