#include "bench/origin.h"

#include "bench/stream.h"
#include "bench/wire.h"

#include <assert.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    ECHO_SIZE = 64 * 1024, /* one read of the echo service */
    HTTP_HEAD_MAX = 256,
    PACED_SEGMENT = 1448, /* Ethernet's: two segments of loopback's 64 KiB are no piece that a slow link delivers */
};

enum service {
    SERVICE_ECHO,
    SERVICE_SINK,
    SERVICE_SOURCE,
    SERVICE_IDLE,
    SERVICE_HTTP,
    SERVICE_VERIFY,
    SERVICE_FILL,
    SERVICE_UDP,
    SERVICE_PACED,
    SERVICE_COUNT
};

/* One accepted connection, found by its descriptor. */
struct peer {
    enum service service;
    bool is_listener;
    uint8_t matched; /* HTTP: octets of the empty line seen so far */
    uint8_t spaces;  /* HTTP: seen so far, 2 are enough */
    uint32_t wanted; /* HTTP: length of the body, 0: a short text */
    uint64_t at;     /* source, fill: octets sent */
    uint64_t pace;   /* paced: the octets of it that have come */
    size_t pace_size;
    uint8_t *pending; /* echo: what could not be sent at once */
    size_t pending_at, pending_size;
    struct verify_end *verify;
};

struct origin {
    int epoll;
    const char *device;
    struct peer *peers; /* by descriptor, as many as we may open */
    size_t peers_max;
};

static const uint32_t service_events[SERVICE_COUNT] = {
    [SERVICE_ECHO] = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
    [SERVICE_SINK] = EPOLLIN,
    [SERVICE_SOURCE] = EPOLLOUT,
    [SERVICE_IDLE] = EPOLLIN,
    [SERVICE_HTTP] = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
    [SERVICE_VERIFY] = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
    [SERVICE_FILL] = EPOLLIN | EPOLLOUT | EPOLLET,
    [SERVICE_UDP] = EPOLLIN,
    [SERVICE_PACED] = EPOLLIN,
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
    static uint8_t block[BLOCK_SIZE];
    uint64_t number = block_number(p->at);
    size_t skip = p->at % BLOCK_SIZE;
    (void)events;
    if (!block[BLOCK_SIZE - 1]) memcpy(block, wire_block, BLOCK_SIZE);
    memcpy(block, &number, sizeof number);
    ssize_t sent = socket_send(fd, block + skip, BLOCK_SIZE - skip);
    if (sent > 0) p->at += (uint64_t)sent;
    return sent > 0 || would_block(sent);
}

/* Becomes a source as soon as it knows its speed. The kernel paces, so that octets come as from a link of that speed,
 * whoever takes them, and neither end is woken for it. */
static bool paced_serve(int fd, struct peer *p, uint32_t events)
{
    (void)events;
    ssize_t size = recv(fd, (uint8_t *)&p->pace + p->pace_size, sizeof p->pace - p->pace_size, MSG_DONTWAIT);
    if (size <= 0) return would_block(size);
    p->pace_size += (size_t)size;
    if (p->pace_size < sizeof p->pace) return true;
    p->service = SERVICE_SOURCE;
    return p->pace == PACE_NONE || setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &p->pace, sizeof p->pace) == 0;
}

static bool fill_serve(int fd, struct peer *p, uint32_t events)
{
    while (p->at < FILL_SIZE) {
        size_t left = FILL_SIZE - (size_t)p->at;
        ssize_t sent = socket_send(fd, wire_block, left < BLOCK_SIZE ? left : BLOCK_SIZE);
        if (sent <= 0) return would_block(sent);
        p->at += (uint64_t)sent;
    }
    return sink_serve(fd, p, events);
}

/* Sends now or keeps what does not fit. False: the connection is over. */
static bool peer_say(int fd, struct peer *p, const uint8_t *data, size_t size)
{
    ssize_t sent = p->pending ? 0 : socket_send(fd, data, size);
    if (sent < 0 && !would_block(sent)) return false;
    if (sent < 0) sent = 0;
    if ((size_t)sent == size) return true;
    if (p->pending) return false; /* nobody here asks again before the answer is there */
    return echo_keep(p, data + sent, size - (size_t)sent);
}

static bool http_answer(int fd, struct peer *p)
{
    static uint8_t answer[HTTP_HEAD_MAX + BLOCK_SIZE];
    static const uint8_t text[] = "0123456789abcde\n";
    size_t size = !p->wanted ? sizeof text - 1 : p->wanted <= BLOCK_SIZE ? p->wanted : BLOCK_SIZE;
    int head = snprintf((char *)answer, HTTP_HEAD_MAX,
                        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", size);
    memcpy(answer + head, p->wanted ? wire_block : text, size);
    return peer_say(fd, p, answer, (size_t)head + size);
}

/* The number behind the last slash of the target, as in "GET http://127.0.0.1:80/1024 HTTP/1.1". */
static void http_count(struct peer *p, uint8_t octet)
{
    if (octet == ' ' && p->spaces < 2) p->spaces++;
    if (p->spaces != 1) return;
    if (octet == '/') p->wanted = 0;
    if (octet >= '0' && octet <= '9') p->wanted = p->wanted * 10 + octet - '0';
}

static bool http_serve(int fd, struct peer *p, uint32_t events)
{
    if (p->pending && !echo_flush(fd, p)) return false;
    for (;;) {
        ssize_t size = recv(fd, wire_scratch, ECHO_SIZE, MSG_DONTWAIT);
        if (size <= 0) return would_block(size);
        for (ssize_t i = 0; i < size; i++) {
            uint8_t octet = wire_scratch[i];
            p->matched = octet == (uint8_t) "\r\n\r\n"[p->matched] ? (uint8_t)(p->matched + 1) : octet == '\r';
            http_count(p, octet);
            if (p->matched < 4) continue;
            if (!http_answer(fd, p)) return false;
            p->matched = p->spaces = 0, p->wanted = 0;
        }
        if (size < ECHO_SIZE && !(events & EPOLLRDHUP)) return true;
    }
}

/* What arrives goes back to where it came from, from the address that it was sent to. */
static bool udp_serve(int fd, struct peer *p, uint32_t events)
{
    enum { BATCH = 64, ROOM = 2048, CONTROL = CMSG_SPACE(sizeof(struct in_pktinfo)) };
    static uint8_t data[BATCH][ROOM];
    static _Alignas(struct cmsghdr) uint8_t control[BATCH][CONTROL];
    struct sockaddr_in from[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    (void)p, (void)events;
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){.iov_base = data[i], .iov_len = ROOM};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
                                              .msg_namelen = sizeof from[i],
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1,
                                              .msg_control = control[i],
                                              .msg_controllen = CONTROL};
    }
    int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) parts[i].iov_len = messages[i].msg_len;
    if (count > 0) (void)sendmmsg(fd, messages, (unsigned)count, MSG_DONTWAIT);
    return true;
}

static bool verify_serve(int fd, struct peer *p, uint32_t events)
{
    (void)events;
    if (!verify_pump(fd, p->verify)) return false;
    return !(p->verify->eof &&
             (p->verify->shut || !p->verify->have_head)); /* without a head nothing will ever be sent */
}

static bool (*const service_serve[SERVICE_COUNT])(int fd, struct peer *p, uint32_t events) = {
    [SERVICE_ECHO] = echo_serve, [SERVICE_SINK] = sink_serve, [SERVICE_SOURCE] = source_serve,
    [SERVICE_IDLE] = sink_serve, [SERVICE_HTTP] = http_serve, [SERVICE_VERIFY] = verify_serve,
    [SERVICE_FILL] = fill_serve, [SERVICE_UDP] = udp_serve,   [SERVICE_PACED] = paced_serve,
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

static void origin_serve(struct origin *o, int fd, uint32_t events)
{
    struct peer *p = &o->peers[fd];
    enum service before = p->service;
    if (!service_serve[before](fd, p, events))
        origin_close_peer(o, fd);
    else if (p->service != before)
        epoll_set(o->epoll, EPOLL_CTL_MOD, fd, service_events[p->service], (uint32_t)fd);
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

/* All that reaches us over the device is ours, whatever address of 127/8 or of a routed network it is sent to, so that
 * a client may spread its connections over destinations; what comes from elsewhere is not. In a namespace of the
 * bench's own there is no elsewhere, and no device is named. */
static void origin_listen(struct origin *o, enum service service, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = INADDR_ANY};
    bool datagrams = service == SERVICE_UDP;
    int on = 1, room = 8 << 20, segment = PACED_SEGMENT, type = datagrams ? SOCK_DGRAM : SOCK_STREAM;
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (o->device[0] && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, o->device, (socklen_t)strlen(o->device) + 1))
        die("bind to %s: %s", o->device, strerror(errno));
    if (service == SERVICE_PACED) setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    if (datagrams) {
        setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    }
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || (!datagrams && listen(fd, 65535)))
        die("port %u: %s", port, strerror(errno));
    o->peers[fd] = (struct peer){.service = service, .is_listener = !datagrams};
    epoll_set(o->epoll, EPOLL_CTL_ADD, fd, EPOLLIN, (uint32_t)fd);
}

void origin_run(uint16_t port, const char *device)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    struct origin o = {.epoll = epoll_make(), .peers_max = (size_t)limit.rlim_cur, .device = device};
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
            if (o.peers[fd].is_listener)
                origin_accept(&o, fd);
            else
                origin_serve(&o, fd, events[i].events);
        }
    }
}
