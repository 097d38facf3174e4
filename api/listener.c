#include "api/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/process/listen.h"
#include "core/process/process.h"

#define BACKLOG 128

static int api_listen_fail(const struct config *config, const char *call, int error, int fd)
{
    LOGE("--api %s: %s: %s; %s", config->api_text, call, strerror(error), listen_remedy(error, &config->api, false));
    if (fd >= 0) close(fd);
    return -1;
}

/* A file that a process left behind, which nobody listens on any more. */
static void remove_stale(const struct net_address *address)
{
    const char *path = ((const struct sockaddr_un *)&address->storage)->sun_path;
    struct stat info;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    bool dead = connect(fd, &address->any, address->size) < 0 && errno == ECONNREFUSED;
    close(fd);
    if (dead && stat(path, &info) == 0 && S_ISSOCK(info.st_mode)) unlink(path);
}

/* A Unix socket is open to its owner and, as far as the umask says so, to its group; never to others: whoever can
 * connect can run code here. */
static int bind_closed(int fd, const struct net_address *address)
{
    mode_t mask = umask(S_IRWXO);
    umask(mask | S_IRWXO);
    int error = net_bind(fd, address);
    umask(mask);
    return error;
}

int api_listen(const struct config *config)
{
    struct net_address address;
    int on = 1;
    net_address_from(&config->api, &address);
    if (config->api.kind == ADDRESS_UNIX) remove_stale(&address);
    int fd = net_socket(address.any.sa_family, SOCK_STREAM);
    if (fd < 0) return api_listen_fail(config, "socket", -fd, -1);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int error = bind_closed(fd, &address);
    if (error < 0) return api_listen_fail(config, "bind", -error, fd);
    if (config->api.kind == ADDRESS_UNIX) process_give_file(config->user, config->api.name);
    error = net_listen(fd, BACKLOG);
    return error < 0 ? api_listen_fail(config, "listen", -error, fd) : fd;
}

void api_remove(const struct config *config)
{
    if (config->api_text && config->api.kind == ADDRESS_UNIX) process_remove_socket(config->api.name);
}
