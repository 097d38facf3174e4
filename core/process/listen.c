#include "core/process/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/process/process.h"

static void listen_set(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

static const char *listen_remedy_unix(int error, const char *path)
{
    struct stat status;
    switch (error) {
    case EADDRINUSE:
        if (stat(path, &status) == 0 && !S_ISSOCK(status.st_mode))
            return "a file or folder that is no socket stands there; remove it, or choose another path";
        return "another process listens there; stop it, or choose another path";
    case EACCES: return "this needs write permission to its folder";
    case EROFS: return "its file system is read-only; choose another folder, such as one in /run";
    case ENOENT: return "the folder does not exist; make it, or choose another path";
    case ENOTDIR: return "a part of its path is no folder; choose another path";
    default: return NULL;
    }
}

const char *listen_remedy(int error, const struct address *address, bool shared)
{
    const char *remedy = address->kind == ADDRESS_UNIX ? listen_remedy_unix(error, address->name) : NULL;
    if (remedy) return remedy;
    switch (error) {
    case EADDRINUSE:
        return shared ? "another process listens there; stop it, choose another port, or share it with --reuseport"
                      : "another process listens there; stop it, or choose another port";
    case EACCES: return "ports below 1024 need root or CAP_NET_BIND_SERVICE";
    case EPERM: return "this needs root or CAP_NET_ADMIN";
    case EADDRNOTAVAIL: return "no interface of this machine has that address";
    case EMFILE:
    case ENFILE: return "no descriptor left; raise ulimit -n";
    default: return "check the address";
    }
}

static int listen_fail(const struct listener_config *listener, const char *call, int fd)
{
    int error = errno;
    LOGE("cannot listen on %s: %s: %s; %s", listener->text, call, strerror(error),
         listen_remedy(error, &listener->address, true));
    if (fd >= 0) close(fd);
    return -1;
}

/* With SO_REUSEPORT two processes of one user would share a port without a word; a bind without it tells. */
static bool listen_is_taken(const struct net_address *address)
{
    int fd = net_socket(address->any.sa_family, SOCK_STREAM);
    if (fd < 0) return false;
    listen_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    listen_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    bool taken = net_bind(fd, address) == -EADDRINUSE;
    close(fd);
    return taken;
}

/* What accepted sockets inherit saves a system call per connection and option. */
static void listen_prepare_tcp(const struct config *config, int fd, bool ipv6)
{
    listen_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    listen_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (ipv6) listen_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (config->fastopen) listen_set(fd, IPPROTO_TCP, TCP_FASTOPEN, SOMAXCONN);
    if (config->tcp_nodelay) net_set_nodelay(fd);
    if (config->tcp_keepalive) net_set_keepalive(fd);
    net_set_buffers(fd, config->tcp_sndbuf, config->tcp_rcvbuf);
}

static int listen_set_transparent(int fd, bool ipv6)
{
    int on = 1;
    if (ipv6 && setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &on, sizeof on) < 0) return -1;
    return setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on);
}

static int listen_open_tcp(const struct config *config, const struct listener_config *listener, bool first)
{
    struct net_address address;
    bool ipv6 = listener->address.kind == ADDRESS_IPV6;
    net_address_from(&listener->address, &address);
    errno = EADDRINUSE;
    if (first && !config->reuseport && listener->address.port != 0 && listen_is_taken(&address))
        return listen_fail(listener, "bind", -1);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return listen_fail(listener, "socket", fd);
    listen_prepare_tcp(config, fd, ipv6);
    if (listener->kind == LISTENER_TPROXY && listen_set_transparent(fd, ipv6) < 0)
        return listen_fail(listener, "--tproxy: setsockopt", fd);
    if (bind(fd, &address.any, address.size) < 0) return listen_fail(listener, "bind", fd);
    if (listen(fd, SOMAXCONN) < 0) return listen_fail(listener, "listen", fd);
    return fd;
}

/* A file that nobody listens on is left over from a crash. */
static void listen_remove_stale(const struct net_address *address, const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0 || !S_ISSOCK(status.st_mode)) return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    if (connect(fd, &address->any, address->size) < 0 && errno == ECONNREFUSED) unlink(path);
    close(fd);
}

static int listen_open_unix(const struct config *config, const struct listener_config *listener)
{
    struct net_address address;
    net_address_from(&listener->address, &address);
    listen_remove_stale(&address, listener->address.name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return listen_fail(listener, "socket", fd);
    if (bind(fd, &address.any, address.size) < 0) return listen_fail(listener, "bind", fd);
    process_give_file(config->user, listener->address.name);
    if (listen(fd, SOMAXCONN) < 0) return listen_fail(listener, "listen", fd);
    return fd;
}

int listen_learn_port(int fd, struct address *address, const char **text)
{
    struct net_address local;
    struct address found;
    if (address->kind == ADDRESS_UNIX || address->port != 0) return 0;
    const char *colon = strrchr(*text, ':');
    size_t host = colon ? (size_t)(colon - *text) : strlen(*text), size = host + sizeof ":65535";
    char *fresh = malloc(size);
    if (!fresh || net_local_address(fd, &local) < 0 || !net_address_to(&local, &found)) {
        LOGE("cannot listen on %s: the port that was taken is not known; give one", *text);
        free(fresh);
        return -1;
    }
    snprintf(fresh, size, "%.*s:%u", (int)host, *text, found.port);
    address->port = found.port;
    *text = fresh;
    return 0;
}

int listen_open(const struct config *config, const struct listener_config *listener, bool first)
{
    if (listener->address.kind == ADDRESS_UNIX) return listen_open_unix(config, listener);
    return listen_open_tcp(config, listener, first);
}

void listen_remove(const struct listener_config *listener)
{
    if (listener->address.kind == ADDRESS_UNIX) process_remove_socket(listener->address.name);
}
