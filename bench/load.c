/* load: both ends of every measurement in one program.
 *
 *   load origin --port P      echo on P, sink on P+1, source on P+2, idle on P+3, HTTP on P+4, verify on P+5
 *   load bulk|rtt|connect|idle|verify --via WAY --proxy A:P --target A:P ...
 *
 * Client and origin usually share one core while the proxy has the other, so both are built to be cheap: one thread,
 * one epoll set, one static block of bytes to send, MSG_TRUNC to throw away what arrives without copying it.
 *
 * The life of a client flow:
 *   CLOSED -> CONNECT -> GREETING -> AUTH -> REQUEST -> PARKED -> RUN -> FINISH -> CLOSED
 * where a way without a handshake goes from CONNECT to PARKED. PARKED flows wait for all others, so that a
 * measurement begins with every flow open; `connect` never parks. Events are hints only: every decision is made on
 * what a system call answered, so that an event left over from the previous owner of a descriptor does no harm.
 *
 * A result is one line of JSON on stdout. Nothing waits for ever: flows have a time limit, and SIGALRM ends the
 * program when the loop itself should stall. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BLOCK_SIZE = 256 * 1024,        /* one write of a bulk flow */
    ECHO_SIZE = 64 * 1024,          /* one read of the echo service */
    DISCARD_SIZE = 4 * 1024 * 1024, /* one discarding read */
    VERIFY_SIZE = 64 * 1024,        /* one read or write of a verified stream */
    MESSAGE_SIZE = 64,              /* a ping-pong message */
    HEAD_SIZE = 512,                /* longest handshake reply that we accept */
    EVENTS_MAX = 512,               /* completions taken from epoll at once */
    OPENING_MAX = 64,               /* handshakes in flight while a set of flows is opened */
    LOOP_TICK_MS = 20,              /* how often limits are looked at */
    WATCHDOG_SECONDS = 60,          /* on top of all limits, before SIGALRM ends us */
};

#define SECOND_NS UINT64_C(1000000000)

static uint8_t block[BLOCK_SIZE];   /* what bulk and echo senders send; its content means nothing */
static uint8_t scratch[BLOCK_SIZE]; /* where reads go whose bytes are looked at or sent on at once */

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

/* ---- Sockets ---- */

/* Takes "127.0.0.1:80". Names are not wanted here: DNS would be part of what is measured. */
static struct sockaddr_in parse_address(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host) die("'%s' is not an IPv4 address and port", text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || *end || port == 0 || port > 65535)
        die("'%s' is not an IPv4 address and port", text);
    address.sin_port = htons((uint16_t)port);
    return address;
}

static void socket_set_nodelay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Closing with a zero linger time sends RST and leaves no TIME_WAIT behind. */
static void socket_close_with_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(fd);
}

static ssize_t socket_send(int fd, const void *data, size_t size)
{
    return send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Throws away what has arrived; TCP does it without touching the bytes. */
static ssize_t socket_discard(int fd)
{
    return recv(fd, NULL, DISCARD_SIZE, MSG_TRUNC | MSG_DONTWAIT);
}

static bool would_block(ssize_t result)
{
    return result < 0 && (errno == EAGAIN || errno == EINTR);
}

static void epoll_set(int epoll, int operation, int fd, uint32_t events, uint32_t key)
{
    struct epoll_event event = {.events = events, .data.u32 = key};
    if (epoll_ctl(epoll, operation, fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

static int make_epoll(void)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1: %s", strerror(errno));
    return epoll;
}

/* ---- Verified streams ----
 * Word i of a stream is a mix of seed + i (the finaliser of splitmix64), so that any range of it can be made at any
 * time and each end compares every byte with what it must be: nothing weaker than a digest, and it knows where the
 * first wrong byte was. The client says seed and size in a head; the origin sends its stream at the same time, and
 * after the client's end of stream a tail that says what it has seen. */

struct verify_note {
    uint64_t a; /* head: seed;  tail: octets of the stream received */
    uint64_t b; /* head: size;  tail: place of the first wrong octet, or VERIFY_GOOD */
};

#define VERIFY_GOOD UINT64_MAX

struct verify_end {
    uint64_t seed_out, seed_in;
    uint64_t size;               /* of the stream, each way */
    uint64_t out_at, in_at;      /* octets passed, notes included */
    uint64_t bad_at;             /* first wrong octet received, or VERIFY_GOOD */
    struct verify_note note_out; /* the client's head or the origin's tail */
    struct verify_note note_in;  /* the same of the other end */
    bool is_origin;
    bool have_head; /* origin: seed and size are known */
    bool eof;       /* the other end has sent everything */
    bool shut;      /* we have */
};

static uint64_t stream_word(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void stream_fill(uint64_t seed, uint64_t at, uint8_t *to, size_t size)
{
    while (size > 0) {
        uint64_t word = stream_word(seed, at / 8);
        size_t skip = at % 8;
        size_t part = 8 - skip < size ? 8 - skip : size;
        memcpy(to, (uint8_t *)&word + skip, part);
        to += part, at += part, size -= part;
    }
}

static void verify_init(struct verify_end *v, bool is_origin, uint64_t seed, uint64_t size)
{
    *v = (struct verify_end){.bad_at = VERIFY_GOOD, .is_origin = is_origin};
    v->seed_out = is_origin ? ~seed : seed;
    v->seed_in = ~v->seed_out;
    v->size = size;
    v->note_out = (struct verify_note){.a = seed, .b = size};
}

/* The client's head goes before its stream, the origin's tail after it. */
static uint64_t verify_note_at(const struct verify_end *v, bool outgoing)
{
    return outgoing == v->is_origin ? v->size : 0;
}

static void verify_compare(struct verify_end *v, uint64_t at, const uint8_t *data, size_t size)
{
    static uint8_t expected[BLOCK_SIZE];
    assert(size <= sizeof expected);
    if (v->bad_at != VERIFY_GOOD) return;
    stream_fill(v->seed_in, at, expected, size);
    if (memcmp(data, expected, size) == 0) return;
    size_t good = 0;
    while (data[good] == expected[good]) good++;
    v->bad_at = at + good;
}

static void verify_take_head(struct verify_end *v)
{
    uint64_t in_at = v->in_at;
    verify_init(v, true, v->note_in.a, v->note_in.b);
    v->in_at = in_at;
    v->have_head = true;
}

/* Takes received octets of any number, and sorts them into note and stream. Octets beyond both are an error. */
static void verify_receive(struct verify_end *v, const uint8_t *data, size_t size)
{
    const uint64_t note_size = sizeof v->note_in;
    while (size > 0) {
        uint64_t note_at = v->is_origin && !v->have_head ? 0 : verify_note_at(v, false);
        size_t part = size;
        if (v->in_at < note_at) {
            if (part > note_at - v->in_at) part = (size_t)(note_at - v->in_at);
            verify_compare(v, v->in_at, data, part);
        } else if (v->in_at < note_at + note_size) {
            if (part > note_at + note_size - v->in_at) part = (size_t)(note_at + note_size - v->in_at);
            memcpy((uint8_t *)&v->note_in + (v->in_at - note_at), data, part);
        } else if (v->is_origin && v->in_at < v->size + note_size) {
            if (part > v->size + note_size - v->in_at) part = (size_t)(v->size + note_size - v->in_at);
            verify_compare(v, v->in_at - note_size, data, part);
        } else {
            if (v->bad_at == VERIFY_GOOD) v->bad_at = v->size;
        }
        data += part, size -= part, v->in_at += part;
        if (v->is_origin && !v->have_head && v->in_at == note_size) verify_take_head(v);
    }
}

static uint64_t verify_stream_received(const struct verify_end *v)
{
    if (!v->is_origin) return v->in_at < v->size ? v->in_at : v->size;
    return v->in_at < sizeof v->note_in ? 0 : v->in_at - sizeof v->note_in;
}

/* Makes the next octets to send, at most `size`; 0 when there is nothing to send now. */
static size_t verify_next_out(struct verify_end *v, uint8_t *to, size_t size)
{
    uint64_t note_at = verify_note_at(v, true), note_end = note_at + sizeof v->note_out;
    uint64_t end = v->size + sizeof v->note_out;
    if (v->is_origin && !v->have_head) return 0;
    if (v->out_at >= note_at && v->out_at < note_end) {
        if (v->is_origin && !v->eof) return 0; /* the tail tells of the whole stream, so it waits for its end */
        size_t part = (size_t)(note_end - v->out_at);
        memcpy(to, (const uint8_t *)&v->note_out + (v->out_at - note_at), part);
        return part;
    }
    uint64_t stop = v->out_at < note_at ? note_at : end;
    uint64_t stream_at = v->out_at < note_at ? v->out_at : v->out_at - (note_at ? 0 : sizeof v->note_out);
    if (size > stop - v->out_at) size = (size_t)(stop - v->out_at);
    stream_fill(v->seed_out, stream_at, to, size);
    return size;
}

/* Moves what can be moved both ways. Returns false when the connection failed. */
static bool verify_pump_out(int fd, struct verify_end *v)
{
    for (size_t size; (size = verify_next_out(v, scratch, VERIFY_SIZE)) > 0;) {
        ssize_t sent = socket_send(fd, scratch, size);
        if (sent < 0) return would_block(sent);
        v->out_at += (size_t)sent;
    }
    bool known = !v->is_origin || v->have_head;
    if (!known || v->shut || v->out_at < v->size + sizeof v->note_out) return true;
    v->shut = true;
    return shutdown(fd, SHUT_WR) == 0;
}

static bool verify_pump_in(int fd, struct verify_end *v)
{
    while (!v->eof) {
        ssize_t size = recv(fd, scratch, VERIFY_SIZE, MSG_DONTWAIT);
        if (size < 0) return would_block(size);
        if (size > 0)
            verify_receive(v, scratch, (size_t)size);
        else
            v->eof = true;
    }
    if (v->is_origin) v->note_out = (struct verify_note){.a = verify_stream_received(v), .b = v->bad_at};
    return true;
}

static bool verify_pump(int fd, struct verify_end *v)
{
    return verify_pump_in(fd, v) && verify_pump_out(fd, v);
}

/* Client, after the origin's end of stream: did every octet arrive, unchanged, in both directions? */
static bool verify_is_good(const struct verify_end *v)
{
    return v->bad_at == VERIFY_GOOD && v->in_at == v->size + sizeof v->note_in && v->note_in.a == v->size &&
           v->note_in.b == VERIFY_GOOD;
}

/* ---- Origin ---- */

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
        ssize_t size = recv(fd, scratch, ECHO_SIZE, MSG_DONTWAIT);
        if (size <= 0) return would_block(size);
        ssize_t sent = socket_send(fd, scratch, (size_t)size);
        if (sent < 0 && !would_block(sent)) return false;
        if (sent < 0) sent = 0;
        if (sent < size && !echo_keep(p, scratch + sent, (size_t)(size - sent))) return false;
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
    ssize_t sent = socket_send(fd, block, BLOCK_SIZE);
    return sent > 0 || would_block(sent);
}

static bool http_serve(int fd, struct peer *p, uint32_t events)
{
    static const char answer[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\n0123456789abcde\n";
    (void)events;
    ssize_t size = recv(fd, scratch, ECHO_SIZE, MSG_DONTWAIT);
    if (size <= 0) return would_block(size);
    for (ssize_t i = 0; i < size; i++) {
        bool fits = scratch[i] == (uint8_t) "\r\n\r\n"[p->matched];
        p->matched = fits ? (uint8_t)(p->matched + 1) : scratch[i] == '\r';
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

__attribute__((noreturn)) static void origin_run(uint16_t port)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    struct origin o = {.epoll = make_epoll(), .peers_max = (size_t)limit.rlim_cur};
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

/* ---- Times ----
 * A histogram with 32 steps in each power of two of nanoseconds: 3 % apart, whatever the size. */

enum { STEPS_LOG2 = 5, STEPS = 1 << STEPS_LOG2, BUCKETS = (64 - STEPS_LOG2) * STEPS };

struct histogram {
    uint64_t count;
    uint64_t buckets[BUCKETS];
};

static void histogram_add(struct histogram *h, uint64_t ns)
{
    if (ns < STEPS) ns = STEPS;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns) - STEPS_LOG2;
    h->buckets[power * STEPS + (ns >> power) - STEPS]++;
    h->count++;
}

static double histogram_quantile_us(const struct histogram *h, double quantile)
{
    uint64_t wanted = (uint64_t)((double)h->count * quantile), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted) return (double)((uint64_t)(i % STEPS + STEPS) << (i / STEPS)) / 1000.0;
    }
    return 0;
}

/* ---- Client ---- */

enum via { VIA_NONE, VIA_FORWARD, VIA_SOCKS4, VIA_SOCKS4A, VIA_SOCKS5, VIA_SOCKS5_AUTH, VIA_HTTP, VIA_COUNT };

static const char *const via_names[VIA_COUNT] = {"none",   "forward",     "socks4", "socks4a",
                                                 "socks5", "socks5-auth", "http"};

enum phase {
    PHASE_CLOSED,   /* no descriptor */
    PHASE_CONNECT,  /* connecting to the proxy, or to the target itself */
    PHASE_GREETING, /* SOCKS5: methods sent */
    PHASE_AUTH,     /* SOCKS5: user and password sent */
    PHASE_REQUEST,  /* target sent */
    PHASE_PARKED,   /* open, waiting for the others */
    PHASE_RUN,      /* doing what the mode does */
    PHASE_FINISH,   /* our end of stream sent, waiting for the other */
};

struct flow {
    int fd;
    enum phase phase;
    uint16_t head_size; /* octets of the reply received */
    uint16_t got;       /* octets of the present message received */
    uint64_t opened;    /* clock_ns() when the connection was started */
    uint64_t sent;      /* clock_ns() when the present message was sent */
    struct sockaddr_in target;
    struct verify_end *verify;
    uint8_t head[HEAD_SIZE];
};

struct client;

/* What a kind of measurement does with an open flow. */
struct mode {
    const char *name;
    void (*start)(struct client *c, struct flow *f);
    void (*run)(struct client *c, struct flow *f, uint32_t events); /* what arrived or may be sent */
    void (*take)(struct client *c, struct flow *f, size_t size);    /* octets that came right behind the reply */
    bool churns;                                                    /* closed flows are opened again */
    uint32_t (*events)(const struct client *c);                     /* other epoll events than the handshake's */
};

struct options {
    const struct mode *mode;
    enum via via;
    struct sockaddr_in proxy, target, source;
    unsigned flows, targets;
    double seconds, warmup, timeout;
    uint64_t bytes;
    const char *user, *password;
    bool upload, read, orderly, echo, announce, have_proxy, have_target;
    uint16_t port;
};

struct client {
    struct options o;
    int epoll;
    struct flow *flows;
    uint32_t *closed; /* a stack of flows to open */
    size_t closed_count;
    size_t opening;  /* flows between CONNECT and PARKED */
    size_t open;     /* flows PARKED, RUN or FINISH */
    size_t opened;   /* flows ever started */
    size_t finished; /* verify: flows compared */
    bool stopping;   /* nothing is opened any more */
    uint64_t bytes, rounds, errors, timeouts, mismatches;
    char first_error[96];
    struct histogram times;
};

static void client_note_error(struct client *c, const char *what)
{
    if (!c->first_error[0]) snprintf(c->first_error, sizeof c->first_error, "%s", what);
    c->errors++;
}

/* The flow is over and its slot free again; what becomes of it decides client_open_flows(). */
static void flow_release(struct client *c, struct flow *f)
{
    assert(f->phase != PHASE_CLOSED);
    if (f->phase < PHASE_PARKED)
        c->opening--;
    else
        c->open--;
    f->phase = PHASE_CLOSED;
    f->fd = -1;
    free(f->verify);
    f->verify = NULL;
    c->closed[c->closed_count++] = (uint32_t)(f - c->flows);
}

static void flow_fail(struct client *c, struct flow *f, const char *what)
{
    static const char *const phases[] = {"closed", "connect", "greeting", "auth", "request", "parked", "run", "finish"};
    char text[96];
    snprintf(text, sizeof text, "%s: %s", phases[f->phase], what);
    client_note_error(c, text);
    if (f->fd >= 0) socket_close_with_reset(f->fd);
    flow_release(c, f);
}

static void flow_fail_read(struct client *c, struct flow *f, ssize_t result)
{
    flow_fail(c, f, result == 0 ? "end of stream" : strerror(errno));
}

/* Sends a handshake message. A fresh socket has room for it, so a short send is a failure like any other. */
static bool flow_say(struct client *c, struct flow *f, const void *data, size_t size, enum phase next)
{
    if (socket_send(f->fd, data, size) != (ssize_t)size) {
        flow_fail(c, f, strerror(errno));
        return false;
    }
    f->phase = next;
    f->head_size = 0;
    return true;
}

static size_t put_target4(uint8_t *to, const struct sockaddr_in *target)
{
    memcpy(to, &target->sin_port, 2);
    memcpy(to + 2, &target->sin_addr, 4);
    return 6;
}

static size_t socks4_write_request(const struct client *c, const struct flow *f, uint8_t *to)
{
    static const uint8_t see_name[4] = {0, 0, 0, 1};
    to[0] = 4, to[1] = 1;
    size_t size = 2 + put_target4(to + 2, &f->target);
    to[size++] = 0; /* no user */
    if (c->o.via == VIA_SOCKS4) return size;
    memcpy(to + 4, see_name, sizeof see_name);
    inet_ntop(AF_INET, &f->target.sin_addr, (char *)to + size, INET_ADDRSTRLEN);
    return size + strlen((char *)to + size) + 1;
}

static size_t socks5_write_request(const struct flow *f, uint8_t *to)
{
    static const uint8_t front[4] = {5, 1, 0, 1};
    memcpy(to, front, sizeof front);
    memcpy(to + 4, &f->target.sin_addr, 4);
    memcpy(to + 8, &f->target.sin_port, 2);
    return 10;
}

static size_t http_write_request(const struct flow *f, uint8_t *to, size_t size)
{
    char host[INET_ADDRSTRLEN];
    unsigned port = ntohs(f->target.sin_port);
    inet_ntop(AF_INET, &f->target.sin_addr, host, sizeof host);
    return (size_t)snprintf((char *)to, size, "CONNECT %s:%u HTTP/1.1\r\nHost: %s:%u\r\n\r\n", host, port, host, port);
}

static void flow_request(struct client *c, struct flow *f)
{
    uint8_t text[160];
    size_t size;
    if (c->o.via == VIA_HTTP)
        size = http_write_request(f, text, sizeof text);
    else if (c->o.via == VIA_SOCKS4 || c->o.via == VIA_SOCKS4A)
        size = socks4_write_request(c, f, text);
    else
        size = socks5_write_request(f, text);
    flow_say(c, f, text, size, PHASE_REQUEST);
}

static void flow_authenticate(struct client *c, struct flow *f)
{
    uint8_t text[3 + 255 + 255];
    size_t user = strlen(c->o.user), password = strlen(c->o.password);
    text[0] = 1, text[1] = (uint8_t)user;
    memcpy(text + 2, c->o.user, user);
    text[2 + user] = (uint8_t)password;
    memcpy(text + 3 + user, c->o.password, password);
    flow_say(c, f, text, 3 + user + password, PHASE_AUTH);
}

static void flow_run(struct client *c, struct flow *f)
{
    assert(f->phase == PHASE_PARKED);
    f->phase = PHASE_RUN;
    if (c->o.mode->events) epoll_set(c->epoll, EPOLL_CTL_MOD, f->fd, c->o.mode->events(c), (uint32_t)(f - c->flows));
    c->o.mode->start(c, f);
}

/* The way to the target is open. `rest` octets of the target's own stream may lie in the head already. */
static void flow_park(struct client *c, struct flow *f, size_t rest)
{
    assert(f->phase < PHASE_PARKED);
    f->phase = PHASE_PARKED;
    f->got = (uint16_t)rest;
    c->opening--, c->open++;
    if (c->o.mode->churns) flow_run(c, f);
}

static void flow_greet(struct client *c, struct flow *f)
{
    const bool auth = c->o.via == VIA_SOCKS5_AUTH;
    const uint8_t methods[3] = {5, 1, auth ? 2 : 0};
    if (c->o.via == VIA_NONE || c->o.via == VIA_FORWARD)
        flow_park(c, f, 0);
    else if (auth || c->o.via == VIA_SOCKS5)
        flow_say(c, f, methods, sizeof methods, PHASE_GREETING);
    else
        flow_request(c, f);
}

/* Length of the reply whose beginning is in the head: 0 when it cannot be told yet. */
static size_t reply_size(const struct client *c, const struct flow *f)
{
    const uint8_t *head = f->head;
    if (f->phase == PHASE_GREETING || f->phase == PHASE_AUTH) return 2;
    if (c->o.via == VIA_SOCKS4 || c->o.via == VIA_SOCKS4A) return 8;
    if (c->o.via == VIA_HTTP) {
        const uint8_t *end = memmem(head, f->head_size, "\r\n\r\n", 4);
        return end ? (size_t)(end - head) + 4 : 0;
    }
    if (f->head_size < 5) return 0;
    return head[3] == 1 ? 10 : head[3] == 4 ? 22 : 7 + (size_t)head[4];
}

static bool reply_is_good(const struct client *c, const struct flow *f)
{
    const uint8_t *head = f->head;
    switch (f->phase) {
    case PHASE_GREETING: return head[0] == 5 && head[1] == (c->o.via == VIA_SOCKS5_AUTH ? 2 : 0);
    case PHASE_AUTH: return head[1] == 0;
    default: break;
    }
    if (c->o.via == VIA_SOCKS4 || c->o.via == VIA_SOCKS4A) return head[0] == 0 && head[1] == 90;
    if (c->o.via == VIA_HTTP) return memcmp(head, "HTTP/1.", 7) == 0 && memcmp(head + 8, " 2", 2) == 0;
    return head[0] == 5 && head[1] == 0;
}

static void flow_take_reply(struct client *c, struct flow *f, size_t size)
{
    if (!reply_is_good(c, f)) {
        flow_fail(c, f, "refused by the proxy");
        return;
    }
    size_t rest = f->head_size - size;
    memmove(f->head, f->head + size, rest);
    if (f->phase == PHASE_GREETING && c->o.via == VIA_SOCKS5_AUTH)
        flow_authenticate(c, f);
    else if (f->phase == PHASE_GREETING || f->phase == PHASE_AUTH)
        flow_request(c, f);
    else
        flow_park(c, f, rest);
}

static void flow_read_reply(struct client *c, struct flow *f)
{
    ssize_t size = recv(f->fd, f->head + f->head_size, (size_t)(HEAD_SIZE - f->head_size), MSG_DONTWAIT);
    if (would_block(size)) return;
    if (size <= 0) {
        flow_fail_read(c, f, size);
        return;
    }
    f->head_size = (uint16_t)(f->head_size + size);
    size_t wanted = reply_size(c, f);
    if (wanted > 0 && f->head_size >= wanted)
        flow_take_reply(c, f, wanted);
    else if (f->head_size == HEAD_SIZE)
        flow_fail(c, f, "endless reply");
}

/* On loopback the handshake is over when connect() says EINPROGRESS; asking again saves a wait. */
static bool flow_is_connected(struct client *c, struct flow *f)
{
    const struct sockaddr_in *to = c->o.have_proxy ? &c->o.proxy : &f->target;
    assert(f->phase == PHASE_CONNECT);
    if (connect(f->fd, (const struct sockaddr *)to, sizeof *to) == 0 || errno == EISCONN) return true;
    if (errno == EINPROGRESS || errno == EALREADY || errno == EINTR) return false;
    flow_fail(c, f, strerror(errno));
    return false;
}

static int open_socket(const struct options *o)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    socket_set_nodelay(fd);
    if (!o->source.sin_family) return fd;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&o->source, sizeof o->source) == 0) return fd;
    close(fd);
    return -1;
}

/* Targets are taken in turn from `targets` neighbouring addresses: each has ephemeral ports of its own. */
static struct sockaddr_in client_next_target(const struct client *c)
{
    struct sockaddr_in target = c->o.target;
    uint32_t step = (uint32_t)(c->opened % c->o.targets);
    target.sin_addr.s_addr = htonl(ntohl(target.sin_addr.s_addr) + step);
    return target;
}

static void flow_open(struct client *c, struct flow *f)
{
    assert(f->phase == PHASE_CLOSED);
    f->phase = PHASE_CONNECT;
    f->target = client_next_target(c);
    f->got = f->head_size = 0;
    f->opened = clock_ns();
    f->fd = open_socket(&c->o);
    c->opening++, c->opened++;
    if (f->fd < 0) {
        flow_fail(c, f, strerror(errno));
        return;
    }
    bool connected = flow_is_connected(c, f) || (f->phase == PHASE_CONNECT && flow_is_connected(c, f));
    if (f->phase != PHASE_CONNECT) return;
    uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET | (connected ? 0 : (uint32_t)EPOLLOUT);
    epoll_set(c->epoll, EPOLL_CTL_ADD, f->fd, events, (uint32_t)(f - c->flows));
    if (connected) flow_greet(c, f);
}

static void flow_finish(struct client *c, struct flow *f)
{
    ssize_t size = socket_discard(f->fd);
    if (size > 0 || would_block(size)) return;
    if (size < 0) {
        flow_fail(c, f, strerror(errno));
        return;
    }
    close(f->fd);
    flow_release(c, f);
}

static void flow_on_event(struct client *c, struct flow *f, uint32_t events)
{
    switch (f->phase) {
    case PHASE_CLOSED: /* the event of a connection that is gone */ break;
    case PHASE_CONNECT:
        if (flow_is_connected(c, f)) flow_greet(c, f);
        break;
    case PHASE_GREETING:
    case PHASE_AUTH:
    case PHASE_REQUEST: flow_read_reply(c, f); break;
    case PHASE_PARKED:
        if (events & (EPOLLERR | EPOLLHUP)) flow_fail(c, f, "lost");
        break;
    case PHASE_RUN: c->o.mode->run(c, f, events); break;
    case PHASE_FINISH: flow_finish(c, f); break;
    }
}

/* ---- Modes ---- */

static void bulk_start(struct client *c, struct flow *f)
{
    c->bytes += f->got;
}

static void bulk_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    ssize_t size;
    if (c->o.upload)
        size = socket_send(f->fd, block, BLOCK_SIZE);
    else
        size = c->o.read ? recv(f->fd, scratch, BLOCK_SIZE, MSG_DONTWAIT) : socket_discard(f->fd);
    if (size > 0)
        c->bytes += (uint64_t)size;
    else if (!would_block(size))
        flow_fail_read(c, f, size);
}

static uint32_t bulk_events(const struct client *c)
{
    return c->o.upload ? EPOLLOUT : EPOLLIN;
}

static void rtt_start(struct client *c, struct flow *f)
{
    f->got = 0;
    f->sent = clock_ns();
    if (socket_send(f->fd, block, MESSAGE_SIZE) != MESSAGE_SIZE) flow_fail(c, f, "short send");
}

static void rtt_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    ssize_t size = recv(f->fd, scratch, (size_t)(MESSAGE_SIZE - f->got), MSG_DONTWAIT);
    if (would_block(size)) return;
    if (size <= 0) {
        flow_fail_read(c, f, size);
        return;
    }
    f->got = (uint16_t)(f->got + size);
    if (f->got < MESSAGE_SIZE) return;
    histogram_add(&c->times, clock_ns() - f->sent);
    c->rounds++;
    rtt_start(c, f);
}

static void connect_done(struct client *c, struct flow *f)
{
    histogram_add(&c->times, clock_ns() - f->opened);
    c->rounds++;
    if (c->o.orderly) {
        if (shutdown(f->fd, SHUT_WR))
            flow_fail(c, f, strerror(errno));
        else
            f->phase = PHASE_FINISH;
        return;
    }
    socket_close_with_reset(f->fd);
    flow_release(c, f);
}

static void connect_start(struct client *c, struct flow *f)
{
    if (!c->o.echo)
        connect_done(c, f);
    else if (socket_send(f->fd, block, 1) != 1)
        flow_fail(c, f, strerror(errno));
}

static void connect_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    ssize_t size = recv(f->fd, scratch, 1, MSG_DONTWAIT);
    if (size == 1)
        connect_done(c, f);
    else if (!would_block(size))
        flow_fail_read(c, f, size);
}

static void idle_start(struct client *c, struct flow *f)
{
    (void)c, (void)f;
}

/* An idle flow has nothing to say; if it has, or ends, it is no longer what we hold. */
static void idle_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    ssize_t size = socket_discard(f->fd);
    if (size <= 0 && !would_block(size)) flow_fail_read(c, f, size);
}

static void verify_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    if (!verify_pump(f->fd, f->verify)) {
        flow_fail(c, f, strerror(errno));
        return;
    }
    if (!f->verify->eof) return;
    bool good = verify_is_good(f->verify);
    if (!good) c->mismatches++;
    if (good) c->bytes += 2 * c->o.bytes;
    c->finished++;
    close(f->fd);
    flow_release(c, f);
}

static void verify_start(struct client *c, struct flow *f)
{
    f->verify = malloc(sizeof *f->verify);
    if (!f->verify) die("out of memory");
    verify_init(f->verify, false, clock_ns() * 31 + (uint64_t)(f - c->flows), c->o.bytes);
    verify_receive(f->verify, f->head, f->got);
    verify_run(c, f, 0);
}

static uint32_t verify_events(const struct client *c)
{
    (void)c;
    return EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
}

static const struct mode modes[] = {
    {.name = "bulk", .start = bulk_start, .run = bulk_run, .events = bulk_events},
    {.name = "rtt", .start = rtt_start, .run = rtt_run},
    {.name = "connect", .start = connect_start, .run = connect_run, .churns = true},
    {.name = "idle", .start = idle_start, .run = idle_run},
    {.name = "verify", .start = verify_start, .run = verify_run, .events = verify_events},
};

/* ---- The client's loop ---- */

static void client_open_flows(struct client *c)
{
    size_t limit = c->o.mode->churns ? c->o.flows : OPENING_MAX;
    size_t todo = c->stopping ? 0 : c->closed_count; /* a flow that fails at once is for the next round */
    if (!c->o.mode->churns && todo > c->o.flows - c->opened) todo = c->o.flows - c->opened;
    while (todo-- > 0 && c->opening < limit) flow_open(c, &c->flows[c->closed[--c->closed_count]]);
}

static void client_check_limits(struct client *c)
{
    uint64_t now = clock_ns(), limit = (uint64_t)(c->o.timeout * 1e9);
    for (unsigned i = 0; i < c->o.flows; i++) {
        struct flow *f = &c->flows[i];
        bool waits = f->phase != PHASE_CLOSED && (f->phase < PHASE_PARKED || c->o.mode->churns);
        if (!waits || now - f->opened < limit) continue;
        c->timeouts++;
        flow_fail(c, f, "timeout");
    }
}

/* One turn: wait for events at most a tick, serve them, and look at the limits now and then. */
static void client_turn(struct client *c)
{
    static uint64_t checked;
    struct epoll_event events[EVENTS_MAX];
    bool has_work = !c->stopping && c->closed_count > 0 && (c->o.mode->churns || c->opened < c->o.flows);
    int count = epoll_wait(c->epoll, events, EVENTS_MAX, has_work ? 1 : LOOP_TICK_MS);
    for (int i = 0; i < count; i++) flow_on_event(c, &c->flows[events[i].data.u32], events[i].events);
    client_open_flows(c);
    if (clock_ns() - checked < LOOP_TICK_MS * UINT64_C(1000000)) return;
    client_check_limits(c);
    checked = clock_ns();
}

static void client_open_all(struct client *c)
{
    if (c->o.mode->churns) return;
    client_open_flows(c);
    while (c->opened < c->o.flows || c->opening > 0) {
        client_turn(c);
        client_open_flows(c);
    }
    for (unsigned i = 0; i < c->o.flows; i++)
        if (c->flows[i].phase == PHASE_PARKED) flow_run(c, &c->flows[i]);
}

static void client_forget(struct client *c)
{
    c->bytes = c->rounds = 0;
    memset(&c->times, 0, sizeof c->times);
}

static void client_run_for(struct client *c, double seconds)
{
    uint64_t end = clock_ns() + (uint64_t)(seconds * 1e9);
    while (clock_ns() < end && (c->o.mode->churns || c->open > 0)) client_turn(c);
}

static void client_announce(const struct client *c)
{
    if (!c->o.announce) return;
    printf("{\"event\":\"ready\",\"open\":%zu,\"errors\":%llu,\"first_error\":\"%s\"}\n", c->open,
           (unsigned long long)c->errors, c->first_error);
    fflush(stdout);
}

/* Orderly: flows on their way may end, so that their number is not cut off into resets the proxy has to clean up. */
static void client_drain(struct client *c)
{
    uint64_t end = clock_ns() + SECOND_NS;
    c->stopping = true;
    while (c->o.mode->churns && c->opening + c->open > 0 && clock_ns() < end) client_turn(c);
}

/* Holds what is open until stdin ends; the descriptors still get their events, to notice what is lost. */
static void client_hold(struct client *c)
{
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = c->epoll, .events = POLLIN}};
    char discarded[256];
    alarm(0);
    while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
        if (fds[1].revents) client_turn(c);
        if (fds[0].revents && read(STDIN_FILENO, discarded, sizeof discarded) <= 0) return;
    }
}

static void client_print(const struct client *c, double seconds)
{
    const struct options *o = &c->o;
    printf("{\"mode\":\"%s\",\"via\":\"%s\",\"flows\":%u,\"seconds\":%.4f,\"open\":%zu", o->mode->name,
           via_names[o->via], o->flows, seconds, c->open);
    if (o->mode->run == bulk_run || o->mode->run == verify_run)
        printf(",\"bytes\":%llu,\"gb\":%.4f,\"gbit_s\":%.3f", (unsigned long long)c->bytes, (double)c->bytes / 1e9,
               (double)c->bytes * 8 / 1e9 / seconds);
    if (o->mode->run == rtt_run || o->mode->run == connect_run)
        printf(",\"count\":%llu,\"rate\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f", (unsigned long long)c->rounds,
               (double)c->rounds / seconds, histogram_quantile_us(&c->times, 0.5),
               histogram_quantile_us(&c->times, 0.99));
    if (o->mode->run == verify_run)
        printf(",\"verified\":%zu,\"mismatches\":%llu", c->finished, (unsigned long long)c->mismatches);
    printf(",\"errors\":%llu,\"timeouts\":%llu,\"first_error\":\"%s\"}\n", (unsigned long long)c->errors,
           (unsigned long long)c->timeouts, c->first_error);
    fflush(stdout);
}

static void client_init(struct client *c)
{
    c->epoll = make_epoll();
    c->flows = calloc(c->o.flows, sizeof *c->flows);
    c->closed = calloc(c->o.flows, sizeof *c->closed);
    if (!c->flows || !c->closed) die("out of memory");
    for (unsigned i = 0; i < c->o.flows; i++) {
        c->flows[i].fd = -1;
        c->closed[c->closed_count++] = c->o.flows - 1 - i;
    }
}

static bool client_succeeded(const struct client *c, size_t open)
{
    if (c->o.mode->run == verify_run) return c->finished == c->o.flows && !c->mismatches && !c->errors;
    if (c->o.mode->run == idle_run) return open == c->o.flows;
    return c->bytes + c->rounds > 0;
}

static int client_main(struct client *c)
{
    client_init(c);
    client_open_all(c);
    bool timed = c->o.mode->run != idle_run && c->o.mode->run != verify_run;
    if (timed) client_run_for(c, c->o.warmup);
    if (timed) client_forget(c);
    uint64_t start = clock_ns();
    client_announce(c);
    if (c->o.mode->run == idle_run)
        client_hold(c);
    else
        client_run_for(c, c->o.seconds);
    double seconds = (double)(clock_ns() - start) / 1e9;
    size_t open = c->open;
    client_print(c, seconds);
    client_drain(c);
    return client_succeeded(c, open) ? 0 : 1;
}

/* ---- Options ---- */

static const char usage[] =
    "usage: load origin --port P\n"
    "       load bulk|rtt|connect|idle|verify --target A:P [--via WAY --proxy A:P] [option...]\n"
    "\n"
    "  --via WAY          none forward socks4 socks4a socks5 socks5-auth http  (none)\n"
    "  --flows N          connections at the same time (1)\n"
    "  --seconds D        length of the measurement (3); of verify: its limit (60)\n"
    "  --warmup D         before it, not counted (0.3)\n"
    "  --timeout D        limit for opening a connection, and for a whole one of connect (5)\n"
    "  --upload           bulk: send to the sink instead of reading from the source\n"
    "  --read             bulk: copy what arrives, as a real client does, instead of discarding it in the kernel\n"
    "  --close HOW        connect: reset or orderly (reset)\n"
    "  --no-echo          connect: close when the way is open, without a round trip of one octet\n"
    "  --bytes N          verify: length of each stream (16777216)\n"
    "  --targets N        spread connections over N addresses from --target upwards (1)\n"
    "  --source A         local address to connect from\n"
    "  --user U, --password W  for socks5-auth\n"
    "  --announce         one line of JSON when the measurement begins (idle always does)\n";

enum option_id {
    OPTION_VIA = 1,
    OPTION_PROXY,
    OPTION_TARGET,
    OPTION_FLOWS,
    OPTION_SECONDS,
    OPTION_WARMUP,
    OPTION_TIMEOUT,
    OPTION_UPLOAD,
    OPTION_READ,
    OPTION_CLOSE,
    OPTION_NO_ECHO,
    OPTION_BYTES,
    OPTION_TARGETS,
    OPTION_SOURCE,
    OPTION_USER,
    OPTION_PASSWORD,
    OPTION_ANNOUNCE,
    OPTION_PORT,
    OPTION_HELP
};

static const struct option long_options[] = {
    {"via", required_argument, NULL, OPTION_VIA},
    {"proxy", required_argument, NULL, OPTION_PROXY},
    {"target", required_argument, NULL, OPTION_TARGET},
    {"flows", required_argument, NULL, OPTION_FLOWS},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"upload", no_argument, NULL, OPTION_UPLOAD},
    {"read", no_argument, NULL, OPTION_READ},
    {"close", required_argument, NULL, OPTION_CLOSE},
    {"no-echo", no_argument, NULL, OPTION_NO_ECHO},
    {"bytes", required_argument, NULL, OPTION_BYTES},
    {"targets", required_argument, NULL, OPTION_TARGETS},
    {"source", required_argument, NULL, OPTION_SOURCE},
    {"user", required_argument, NULL, OPTION_USER},
    {"password", required_argument, NULL, OPTION_PASSWORD},
    {"announce", no_argument, NULL, OPTION_ANNOUNCE},
    {"port", required_argument, NULL, OPTION_PORT},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static double parse_number(const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        die("'%s' is not a number from %g to %g", text, low, high);
    return value;
}

static enum via parse_via(const char *text)
{
    for (enum via via = 0; via < VIA_COUNT; via++)
        if (strcmp(text, via_names[via]) == 0) return via;
    die("--via %s: not a way we know", text);
}

static struct sockaddr_in parse_source(const char *text)
{
    struct sockaddr_in source = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, text, &source.sin_addr) != 1) die("--source %s: not an IPv4 address", text);
    return source;
}

static const char *parse_credential(const char *text)
{
    if (strlen(text) < 1 || strlen(text) > 255) die("user and password have 1 to 255 octets");
    return text;
}

static bool parse_close(const char *text)
{
    if (strcmp(text, "reset") != 0 && strcmp(text, "orderly") != 0) die("--close %s: reset or orderly", text);
    return text[0] == 'o';
}

static void parse_option(struct options *o, int id, const char *value)
{
    switch (id) {
    case OPTION_VIA: o->via = parse_via(value); break;
    case OPTION_PROXY: o->proxy = parse_address(value), o->have_proxy = true; break;
    case OPTION_TARGET: o->target = parse_address(value), o->have_target = true; break;
    case OPTION_FLOWS: o->flows = (unsigned)parse_number(value, 1, 1000000); break;
    case OPTION_SECONDS: o->seconds = parse_number(value, 0.01, 86400); break;
    case OPTION_WARMUP: o->warmup = parse_number(value, 0, 3600); break;
    case OPTION_TIMEOUT: o->timeout = parse_number(value, 0.01, 3600); break;
    case OPTION_UPLOAD: o->upload = true; break;
    case OPTION_READ: o->read = true; break;
    case OPTION_CLOSE: o->orderly = parse_close(value); break;
    case OPTION_NO_ECHO: o->echo = false; break;
    case OPTION_BYTES: o->bytes = (uint64_t)parse_number(value, 1, 1e15); break;
    case OPTION_TARGETS: o->targets = (unsigned)parse_number(value, 1, 250); break;
    case OPTION_SOURCE: o->source = parse_source(value); break;
    case OPTION_USER: o->user = parse_credential(value); break;
    case OPTION_PASSWORD: o->password = parse_credential(value); break;
    case OPTION_ANNOUNCE: o->announce = true; break;
    case OPTION_PORT: o->port = (uint16_t)parse_number(value, 1, 65535); break;
    case OPTION_HELP: fputs(usage, stdout); exit(0);
    default: exit(2); /* getopt has said why */
    }
}

static const struct mode *find_mode(const char *name)
{
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(name, modes[i].name) == 0) return &modes[i];
    fputs(usage, stderr);
    exit(2);
}

static void parse_options(struct options *o, int count, char **arguments)
{
    *o = (struct options){.flows = 1,
                          .targets = 1,
                          .seconds = 0,
                          .warmup = 0.3,
                          .timeout = 5,
                          .bytes = 16 << 20,
                          .user = "user",
                          .password = "password",
                          .echo = true};
    for (int id; (id = getopt_long(count, arguments, "", long_options, NULL)) != -1;) parse_option(o, id, optarg);
    if (optind != count - 1) fputs(usage, stderr), exit(2);
    if (strcmp(arguments[optind], "origin") == 0) {
        if (!o->port) die("origin: --port is missing");
        return;
    }
    o->mode = find_mode(arguments[optind]);
    if (o->mode->run == idle_run) o->announce = true;
    if (o->seconds == 0) o->seconds = o->mode->run == verify_run ? 60 : 3;
    if (!o->have_target && o->via != VIA_FORWARD) die("--target is missing");
    if (o->have_proxy != (o->via != VIA_NONE)) die("--proxy and --via go together");
}

/* One descriptor a flow: take what the administrator allows. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void on_alarm(int signal_number)
{
    static const char text[] = "load: the watchdog ended a run that did not end itself\n";
    (void)signal_number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(4);
    _exit(3);
}

int main(int count, char **arguments)
{
    static struct client client;
    parse_options(&client.o, count, arguments);
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_alarm);
    memset(block, 'x', sizeof block);
    if (!client.o.mode) origin_run(client.o.port);
    const struct options *o = &client.o;
    unsigned rounds = (unsigned)o->flows / OPENING_MAX + 1; /* of opening flows */
    double opening = o->timeout * rounds;
    alarm((unsigned)(o->seconds + o->warmup + (opening < 3600 ? opening : 3600)) + WATCHDOG_SECONDS);
    return client_main(&client);
}
