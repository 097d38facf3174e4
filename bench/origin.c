#include "bench/origin.h"

#include "bench/stream.h"
#include "bench/wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { ECHO_SIZE = 64 * 1024 }; /* one read of the echo service */

enum service { SERVICE_ECHO, SERVICE_SINK, SERVICE_SOURCE, SERVICE_IDLE, SERVICE_HTTP, SERVICE_VERIFY, SERVICE_COUNT };

/* One accepted connection, found by its descriptor. */
struct peer {
    enum service service;
    bool is_listener;
    uint8_t matched;  /* HTTP: octets of the empty line seen so far */
    uint8_t *pending; /* echo: what could not be sent at once */
    size_t pending_at, pending_size;
    struct verify_end *verify;
};

struct origin {
    int epoll;
    struct peer *peers; /* by descriptor, as many as we may open */
    size_t peers_max;
};

static const uint32_t service_events[SERVICE_COUNT] = {
    [SERVICE_ECHO] = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
    [SERVICE_SINK] = EPOLLIN,
    [SERVICE_SOURCE] = EPOLLOUT,
    [SERVICE_IDLE] = EPOLLIN,
    [SERVICE_HTTP] = EPOLLIN,
    [SERVICE_VERIFY] = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
};

static bool echo_flush(int fd, struct peer *p)
{
    ssize_t sent = socket_send(fd, p->pending + p->pending_at, p->pending_size);
    if (sent < 0) return would_block(sent);
    p->pending_at += (size_t)sent, p->pending_size -= (size_t)sent;
    if (p->pending_size > 0) return true;
    free(p->pending);
    p->pending = NULL;
    return true;
}

static bool echo_keep(struct peer *p, const uint8_t *data, size_t size)
{
    p->pending = malloc(size);
    if (!p->pending) return false;
    memcpy(p->pending, data, size);
    p->pending_at = 0, p->pending_size = size;
    return true;
}

/* Service functions return false when the connection is over. */
static bool echo_serve(int fd, struct peer *p, uint32_t events)
{
    for (;;) {
        if (p->pending && !echo_flush(fd, p)) return false;
        if (p->pending) return true;
        ssize_t size = recv(fd, wire_scratch, ECHO_SIZE, MSG_DONTWAIT);
        if (size <= 0) return would_block(size);
        ssize_t sent = socket_send(fd, wire_scratch, (size_t)size);
        if (sent < 0 && !would_block(sent)) return false;
        if (sent < 0) sent = 0;
        if (sent < size && !echo_keep(p, wire_scratch + sent, (size_t)(size - sent))) return false;
        /* A short read emptied the socket, so a new edge will come, unless the end of stream is there already. */
        if (!p->pending && size < ECHO_SIZE && !(events & EPOLLRDHUP)) return true;
    }
}

static bool sink_serve(int fd, struct peer *p, uint32_t events)
{
    (void)p, (void)events;
    ssize_t size = socket_discard(fd);
    return size > 0 || would_block(size);
}

static bool source_serve(int fd, struct peer *p, uint32_t events)
{
    (void)p, (void)events;
    ssize_t sent = socket_send(fd, wire_block, BLOCK_SIZE);
    return sent > 0 || would_block(sent);
}

static bool http_serve(int fd, struct peer *p, uint32_t events)
{
    static const char answer[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\n0123456789abcde\n";
    (void)events;
    ssize_t size = recv(fd, wire_scratch, ECHO_SIZE, MSG_DONTWAIT);
    if (size <= 0) return would_block(size);
    for (ssize_t i = 0; i < size; i++) {
        bool fits = wire_scratch[i] == (uint8_t) "\r\n\r\n"[p->matched];
        p->matched = fits ? (uint8_t)(p->matched + 1) : wire_scratch[i] == '\r';
        if (p->matched < 4) continue;
        p->matched = 0;
        if (socket_send(fd, answer, sizeof answer - 1) != (ssize_t)sizeof answer - 1) return false;
    }
    return true;
}

static bool verify_serve(int fd, struct peer *p, uint32_t events)
{
    (void)events;
    if (!verify_pump(fd, p->verify)) return false;
    return !(p->verify->eof && p->verify->shut);
}

static bool (*const service_serve[SERVICE_COUNT])(int fd, struct peer *p, uint32_t events) = {
    [SERVICE_ECHO] = echo_serve, [SERVICE_SINK] = sink_serve, [SERVICE_SOURCE] = source_serve,
    [SERVICE_IDLE] = sink_serve, [SERVICE_HTTP] = http_serve, [SERVICE_VERIFY] = verify_serve,
};

static void origin_open_peer(struct origin *o, int fd, enum service service)
{
    struct peer *p = &o->peers[fd];
    assert((size_t)fd < o->peers_max);
    *p = (struct peer){.service = service};
    if (service == SERVICE_VERIFY) {
        p->verify = malloc(sizeof *p->verify);
        if (!p->verify) die("out of memory");
        verify_init(p->verify, true, 0, 0);
    }
    socket_set_nodelay(fd);
    epoll_set(o->epoll, EPOLL_CTL_ADD, fd, service_events[service], (uint32_t)fd);
}

static void origin_close_peer(struct origin *o, int fd)
{
    struct peer *p = &o->peers[fd];
    free(p->pending);
    free(p->verify);
    *p = (struct peer){0};
    close(fd);
}

static void origin_accept(struct origin *o, int listener)
{
    enum service service = o->peers[listener].service;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            origin_open_peer(o, fd, service);
        else if (errno == EMFILE || errno == ENFILE)
            usleep(1000); /* level-triggered: do not spin at full speed */
        if (fd < 0 && errno != ECONNABORTED && errno != EINTR) return;
    }
}

/* All of 127/8 reaches us, so that a client may spread its connections over destinations; nobody else does. */
static void origin_listen(struct origin *o, enum service service, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = INADDR_ANY};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3)) die("bind to lo: %s", strerror(errno));
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 65535))
        die("port %u: %s", port, strerror(errno));
    o->peers[fd] = (struct peer){.service = service, .is_listener = true};
    epoll_set(o->epoll, EPOLL_CTL_ADD, fd, EPOLLIN, (uint32_t)fd);
}

void origin_run(uint16_t port)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    struct origin o = {.epoll = epoll_make(), .peers_max = (size_t)limit.rlim_cur};
    if (port > UINT16_MAX - SERVICE_COUNT) die("the origin needs %d ports, --port is too high", SERVICE_COUNT);
    if (!(o.peers = calloc(o.peers_max, sizeof *o.peers))) die("out of memory");
    for (enum service s = 0; s < SERVICE_COUNT; s++) origin_listen(&o, s, (uint16_t)(port + s));
    puts("{\"event\":\"ready\"}");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int count = epoll_wait(o.epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = (int)events[i].data.u32;
            struct peer *p = &o.peers[fd];
            if (p->is_listener)
                origin_accept(&o, fd);
            else if (!service_serve[p->service](fd, p, events[i].events))
                origin_close_peer(&o, fd);
        }
    }
}
