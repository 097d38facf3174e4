/* The simulator's decisions, descriptors, connections and pipes, and the second body of core/io/net.h. */
#include "tests/sim.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/session/machine.h"
#include "core/session/own.h"
#include "tests/sim_private.h"

#define SIM_PIPES_MAX     64u
#define SIM_DATAGRAMS_MAX 64u /* that wait to be received */
#define SIM_PIPE_TINY     4096u

struct sim_chances sim_chances_now;
const struct sim_world_ops *sim_ops;
void *sim_world;
uint64_t sim_clock_us;

static struct {
    uint64_t seed, state;
    const uint8_t *script;
    size_t script_size;
    bool trace;
} dice;

static struct {
    uint32_t open, limit, top; /* descriptors from `top` on were never used */
    uint32_t conn_count, pipe_count;
    struct sim_file files[SIM_FILES_MAX];
    struct sim_conn conns[SIM_CONNS_MAX];
    struct sim_pipe pipes[SIM_PIPES_MAX];
    uint32_t datagram_count;
    struct sim_queued {
        int fd;
        struct sim_datagram datagram;
    } datagrams[SIM_DATAGRAMS_MAX];
    struct sim_queued *queue[SIM_DATAGRAMS_MAX]; /* in the order of their coming, then the free ones */
} net;

/* Octets of connections and pipes, kept from seed to seed: to map them anew would cost more than the rest. */
static uint8_t conn_octets[SIM_CONNS_MAX][2][SIM_STREAM_MAX];
static uint8_t pipe_octets[SIM_PIPES_MAX][SIM_STREAM_MAX];

/* --- decisions --- */

/* splitmix64: any seed is a good one, also consecutive ones. */
static uint64_t dice_roll(void)
{
    uint64_t z = dice.state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t sim_random(void)
{
    if (dice.script_size == 0) return dice_roll();
    dice.script_size--;
    uint64_t octet = *dice.script++;
    return octet << 24 | octet << 16 | octet << 8 | octet;
}

uint32_t sim_below(uint32_t bound)
{
    assert(bound > 0);
    return (uint32_t)((sim_random() & 0xffffffffu) * bound >> 32);
}

uint32_t sim_between(uint32_t least, uint32_t most)
{
    assert(least <= most);
    return least + sim_below(most - least + 1);
}

bool sim_chance(uint32_t in_thousand)
{
    return in_thousand > 0 && sim_below(1000) < in_thousand;
}

size_t sim_shorten(size_t size)
{
    if (size < 2 || !sim_chance(sim_chances_now.shorten)) return size;
    return sim_chance(300) ? 1 : sim_between(1, (uint32_t)size);
}

_Noreturn void sim_fail(const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fprintf(stderr, "\nsim: seed %llu, at %llu us: ", (unsigned long long)dice.seed, (unsigned long long)sim_clock_us);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort();
}

void sim_trace(const char *format, ...)
{
    va_list arguments;
    if (!dice.trace) return;
    printf("%10llu ", (unsigned long long)sim_clock_us);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

void sim_begin(uint64_t seed, const uint8_t *script, size_t script_size, const struct sim_world_ops *ops, void *world)
{
    const char *trace = getenv("SIM_TRACE");
    dice.seed = dice.state = seed;
    dice.script = script;
    dice.script_size = script_size;
    dice.trace = trace != NULL && *trace != '\0';
    sim_ops = ops;
    sim_world = world;
    sim_clock_us = 1000000;
    sim_chances_now = (struct sim_chances){0};
    for (uint32_t fd = 0; fd < net.top; fd++) net.files[fd].kind = SIM_CLOSED;
    net.open = net.conn_count = net.pipe_count = net.datagram_count = 0;
    for (uint32_t i = 0; i < SIM_DATAGRAMS_MAX; i++) net.queue[i] = &net.datagrams[i];
    net.top = 3; /* nobody expects less */
    net.limit = SIM_FILES_MAX - 8;
    sim_ring_begin();
}

struct sim_chances *sim_get_chances(void)
{
    return &sim_chances_now;
}

void sim_set_descriptor_limit(uint32_t limit)
{
    assert(limit <= SIM_FILES_MAX - 8);
    net.limit = limit;
}

uint64_t sim_now_us(void)
{
    return sim_clock_us;
}

/* --- queues of octets --- */

static uint32_t least(size_t a, size_t b)
{
    return (uint32_t)(a < b ? a : b);
}

static uint32_t bytes_put(struct sim_bytes *bytes, const uint8_t *data, size_t size)
{
    uint32_t taken = bytes->used < bytes->room ? least(size, bytes->room - bytes->used) : 0;
    uint32_t at = (bytes->head + bytes->used) % SIM_STREAM_MAX;
    uint32_t first = least(taken, SIM_STREAM_MAX - at);
    memcpy(bytes->octets + at, data, first);
    memcpy(bytes->octets, data + first, taken - first);
    bytes->used += taken;
    return taken;
}

static uint32_t bytes_take(struct sim_bytes *bytes, uint8_t *data, size_t size)
{
    uint32_t taken = least(size, bytes->used);
    uint32_t first = least(taken, SIM_STREAM_MAX - bytes->head);
    memcpy(data, bytes->octets + bytes->head, first);
    memcpy(data + first, bytes->octets, taken - first);
    bytes->head = (bytes->head + taken) % SIM_STREAM_MAX;
    bytes->used -= taken;
    return taken;
}

/* --- descriptors --- */

static struct net_address address_of(uint32_t host, uint32_t port)
{
    struct net_address address = {.size = sizeof(struct sockaddr_in)};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(host)};
    memcpy(&address.storage, &in, sizeof in);
    return address;
}

struct sim_file *sim_file_at(int fd, const char *what)
{
    if (fd < 0 || (uint32_t)fd >= net.top || net.files[fd].kind == SIM_CLOSED)
        sim_fail("%s uses descriptor %d, which is closed", what, fd);
    if (net.files[fd].closing) sim_fail("%s uses descriptor %d, which has been given to ring_close()", what, fd);
    return &net.files[fd];
}

struct sim_file *sim_file_raw(int fd)
{
    assert(fd >= 3 && (uint32_t)fd < net.top && net.files[fd].kind != SIM_CLOSED);
    return &net.files[fd];
}

struct sim_file *sim_stream_at(int fd, const char *what)
{
    struct sim_file *file = sim_file_at(fd, what);
    if (file->kind != SIM_STREAM) sim_fail("%s: descriptor %d is not a connected socket", what, fd);
    return file;
}

/* The lowest free number, as the kernel does it: a stale descriptor will soon belong to somebody else. */
static int file_open(enum sim_kind kind)
{
    if (net.open >= net.limit) return -EMFILE;
    uint32_t fd = 3;
    while (fd < net.top && net.files[fd].kind != SIM_CLOSED) fd++;
    if (fd == net.top) net.top++;
    assert(net.top < SIM_FILES_MAX);
    net.files[fd] = (struct sim_file){.kind = kind};
    net.open++;
    return (int)fd;
}

int sim_file_connected(struct sim_conn *conn)
{
    int fd = file_open(SIM_STREAM);
    if (fd >= 0) net.files[fd].conn = conn;
    return fd;
}

uint32_t sim_descriptors(void)
{
    return net.open;
}

uint32_t sim_waiting(void)
{
    uint32_t waiting = 0;
    for (uint32_t fd = 3; fd < net.top; fd++)
        if (net.files[fd].kind == SIM_LISTENER) waiting += net.files[fd].waiting;
    return waiting;
}

/* --- datagrams --- */

/* The place of the first one in the queue; datagram_count: there is none. */
static uint32_t datagram_first(int fd)
{
    uint32_t at = 0;
    while (at < net.datagram_count && net.queue[at]->fd != fd) at++;
    return at;
}

const struct sim_datagram *sim_datagram_peek(int fd)
{
    uint32_t first = datagram_first(fd);
    return first < net.datagram_count ? &net.queue[first]->datagram : NULL;
}

void sim_datagram_drop(int fd)
{
    uint32_t first = datagram_first(fd);
    assert(first < net.datagram_count);
    struct sim_queued *dropped = net.queue[first];
    net.datagram_count--;
    memmove(&net.queue[first], &net.queue[first + 1], (net.datagram_count - first) * sizeof net.queue[0]);
    net.queue[net.datagram_count] = dropped;
}

/* --- connections --- */

struct sim_conn *sim_conn_open(uint32_t room_in, uint32_t room_out, bool no_splice)
{
    if (net.conn_count == SIM_CONNS_MAX) return NULL;
    uint32_t index = net.conn_count++;
    struct sim_conn *conn = &net.conns[index];
    assert(room_in > 0 && room_in <= SIM_STREAM_MAX && room_out > 0 && room_out <= SIM_STREAM_MAX);
    memset(conn, 0, offsetof(struct sim_conn, transcript));
    conn->in = (struct sim_bytes){.room = room_in, .octets = conn_octets[index][0]};
    conn->out = (struct sim_bytes){.room = room_out, .octets = conn_octets[index][1]};
    conn->no_splice = no_splice;
    conn->near_address = address_of(0x7f000001, 40000 + index);
    conn->far_address = address_of(0x7f000001, 50000 + index);
    conn->owner = NULL;
    return conn;
}

static int conn_error(struct sim_conn *conn)
{
    int error = conn->error;
    conn->error = 0;
    return -error;
}

static int conn_inject(struct sim_conn *conn)
{
    if (!sim_chance(sim_chances_now.transfer)) return 0;
    if (sim_chance(500)) return -ENOMEM;
    conn->broken = true; /* probes that nobody answered: the kernel has given the connection up */
    return -ETIMEDOUT;
}

int32_t sim_conn_take(struct sim_conn *conn, uint8_t *data, size_t size)
{
    int error = conn_inject(conn);
    if (error < 0) return error;
    if (conn->in.used > 0) return (int32_t)bytes_take(&conn->in, data, sim_shorten(least(size, conn->in.used)));
    if (conn->in_ended) return 0; /* before any error */
    if (conn->error) return conn_error(conn);
    return conn->broken ? 0 : -EAGAIN;
}

static void conn_remember(struct sim_conn *conn, const uint8_t *data, uint32_t size)
{
    uint32_t kept = least(size, SIM_TRANSCRIPT_MAX - conn->transcript_size);
    memcpy(conn->transcript + conn->transcript_size, data, kept);
    conn->transcript_size += kept;
    conn->sent += size;
}

int32_t sim_conn_put(struct sim_conn *conn, const uint8_t *data, size_t size)
{
    if (conn->out_ended) sim_fail("a send behind the end that was announced with net_shutdown_write()");
    int error = conn_inject(conn);
    if (error < 0) return error;
    if (conn->error) return conn_error(conn);
    if (conn->broken) return -EPIPE;
    if (conn->far_closed) { /* taken, and answered with a reset */
        conn_remember(conn, data, (uint32_t)size);
        conn->error = conn->in_ended ? EPIPE : ECONNRESET;
        conn->broken = true;
        return (int32_t)size;
    }
    uint32_t room = conn->out.used < conn->out.room ? conn->out.room - conn->out.used : 0;
    if (room == 0) return -EAGAIN;
    uint32_t taken = bytes_put(&conn->out, data, sim_shorten(least(size, room)));
    conn_remember(conn, data, taken);
    return (int32_t)taken;
}

/* As tcp_poll() has it: an error and the end of both directions count always. */
short sim_conn_events(const struct sim_conn *conn)
{
    short events = 0;
    if (conn->in.used > 0) events |= POLLIN;
    if (conn->in_ended || conn->broken || conn->error) events |= POLLIN;
    if (conn->out.used <= conn->out.room / 3 * 2 || conn->broken || conn->far_closed || conn->out_ended)
        events |= POLLOUT;
    if (conn->error) events |= POLLERR;
    if (conn->broken || (conn->in_ended && conn->out_ended)) events |= POLLHUP;
    return events;
}

/* What is under way is lost with a reset: a part from the end on, or nothing, or all. */
static void bytes_lose(struct sim_bytes *bytes)
{
    if (bytes->used > 0) bytes->used = sim_below(bytes->used + 1);
}

static unsigned conn_index(const struct sim_conn *conn)
{
    return (unsigned)(conn - net.conns);
}

static void conn_close_near(struct sim_conn *conn, bool reset)
{
    conn->near_closed = true;
    conn->near_closed_us = sim_now_us();
    sim_trace("    the proxy closes connection %u%s, %u unread", conn_index(conn), reset ? " with a reset" : "",
              conn->in.used);
    if (reset || conn->in.used > 0) {
        conn->far_reset = true;
        if (!conn->out_ended || conn->out.used > 0) bytes_lose(&conn->out);
    }
    conn->out_ended = true;
}

/* --- the far end --- */

int sim_listen(uint16_t port)
{
    int fd = file_open(SIM_LISTENER);
    assert(fd >= 0);
    net.files[fd].local = address_of(0x7f000001, port);
    return fd;
}

static uint16_t port_of(const struct net_address *address)
{
    struct sockaddr_in in;
    memcpy(&in, &address->storage, sizeof in);
    return ntohs(in.sin_port);
}

static struct sim_file *listener_on(uint16_t port)
{
    for (uint32_t fd = 3; fd < net.top; fd++)
        if (net.files[fd].kind == SIM_LISTENER && port_of(&net.files[fd].local) == port) return &net.files[fd];
    return NULL;
}

struct sim_conn *sim_connect(uint16_t port, uint32_t room_in, uint32_t room_out, bool no_splice)
{
    struct sim_file *listener = listener_on(port);
    if (!listener || listener->waiting == SIM_BACKLOG_MAX) return NULL;
    struct sim_conn *conn = sim_conn_open(room_in, room_out, no_splice);
    if (conn) listener->backlog[listener->waiting++] = conn;
    return conn;
}

int sim_lend(struct sim_conn **conn, uint32_t room_in, uint32_t room_out)
{
    *conn = sim_conn_open(room_in, room_out, false);
    return *conn ? sim_file_connected(*conn) : -EMFILE;
}

void sim_take_back(int fd, const struct sim_conn *conn)
{
    const struct sim_file *file = sim_file_at(fd, "the owner that a descriptor came back to");
    if (file->kind != SIM_STREAM || file->conn != conn)
        sim_fail("descriptor %d is closed by somebody who had lent it: it is another one's by now", fd);
    sim_file_close(fd);
}

int sim_listener_take(struct sim_file *file)
{
    if (file->waiting == 0) return -EAGAIN;
    struct sim_conn *conn = file->backlog[0];
    struct net_address local = file->local;
    int fd = sim_file_connected(conn); /* never moves the file table */
    if (fd < 0) return fd;
    conn->near_address = local;
    memmove(file->backlog, file->backlog + 1, --file->waiting * sizeof *file->backlog);
    return fd;
}

static int datagram_socket_on(uint16_t port)
{
    for (uint32_t fd = 3; fd < net.top; fd++)
        if (net.files[fd].kind == SIM_DATAGRAM && port_of(&net.files[fd].local) == port) return (int)fd;
    return -1;
}

bool sim_datagram(uint16_t port, const struct net_address *from, const void *data, size_t size)
{
    int fd = datagram_socket_on(port);
    assert(size <= SIM_DATAGRAM_MAX);
    if (fd < 0 || net.datagram_count == SIM_DATAGRAMS_MAX) return false;
    struct sim_queued *last = net.queue[net.datagram_count++];
    last->fd = fd;
    last->datagram.from = *from;
    last->datagram.size = size;
    memcpy(last->datagram.data, data, size);
    return true;
}

size_t sim_write(struct sim_conn *conn, const void *data, size_t size)
{
    assert(!conn->in_ended && !conn->far_closed);
    if (conn->near_closed) conn->far_reset = true;
    if (conn->near_closed || conn->broken) return 0;
    return bytes_put(&conn->in, data, size);
}

int32_t sim_read(struct sim_conn *conn, void *data, size_t size)
{
    assert(!conn->far_closed);
    if (conn->out.used > 0) return (int32_t)bytes_take(&conn->out, data, size);
    if (conn->far_reset || conn->broken) return -ECONNRESET;
    conn->end_read = conn->out_ended;
    return conn->out_ended ? 0 : -EAGAIN;
}

void sim_end(struct sim_conn *conn)
{
    assert(!conn->in_ended && !conn->far_closed);
    sim_trace("    the peer ends connection %u", conn_index(conn));
    conn->in_ended = true;
}

bool sim_close(struct sim_conn *conn)
{
    assert(!conn->far_closed);
    if (conn->out.used > 0) {
        sim_reset(conn, ECONNRESET);
        return false;
    }
    sim_trace("    the peer closes connection %u", conn_index(conn));
    conn->far_closed = conn->in_ended = true;
    return true;
}

void sim_reset(struct sim_conn *conn, int error)
{
    assert(!conn->far_closed && error > 0);
    sim_trace("    the peer resets connection %u", conn_index(conn));
    conn->far_closed = true;
    if (conn->near_closed) return;
    conn->broken = true;
    uint32_t arrived = conn->in.used;
    bytes_lose(&conn->in);
    if (conn->in.used < arrived) conn->in_ended = false; /* the end was behind what is lost */
    conn->error = conn->in_ended && error == ECONNRESET ? EPIPE : error;
}

/* --- net.h --- */

static int net_refuse(uint16_t chance)
{
    static const int errors[] = {-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM};
    return sim_chance(chance) ? errors[sim_below(4)] : 0;
}

int net_socket(int family, int type)
{
    int error = net_refuse(sim_chances_now.socket);
    if (error < 0) return error;
    assert(family == AF_INET || family == AF_INET6 || family == AF_UNIX);
    int fd = file_open(type == SOCK_DGRAM ? SIM_DATAGRAM : SIM_SOCKET);
    if (fd >= 0 && type == SOCK_DGRAM) /* as the kernel binds one that sends */
        net.files[fd].local = address_of(0x7f000001, 30000u + (uint32_t)fd);
    return fd;
}

int net_bind(int fd, const struct net_address *address)
{
    struct sim_file *file = sim_file_at(fd, "net_bind()");
    file->local = *address;
    if (address->any.sa_family == AF_INET && port_of(address) == 0)
        file->local = address_of(0x7f000001, 30000u + (uint32_t)fd);
    return 0;
}

int net_listen(int fd, int backlog)
{
    struct sim_file *file = sim_file_at(fd, "net_listen()");
    assert(backlog > 0 && file->kind == SIM_SOCKET);
    file->kind = SIM_LISTENER;
    return 0;
}

int net_local_address(int fd, struct net_address *out)
{
    struct sim_file *file = sim_file_at(fd, "net_local_address()");
    *out = file->kind == SIM_STREAM ? file->conn->near_address : file->local;
    return 0;
}

int net_peer_address(int fd, struct net_address *out)
{
    struct sim_file *file = sim_file_at(fd, "net_peer_address()");
    if (file->kind != SIM_STREAM) return -ENOTCONN;
    *out = file->conn->far_address;
    return 0;
}

bool net_measure(int fd, uint32_t *rtt_us, uint32_t *retransmissions)
{
    struct sim_file *file = sim_file_at(fd, "net_measure()");
    *rtt_us = 100;
    *retransmissions = 0;
    return file->kind == SIM_STREAM;
}

/* Whoever reads records in a simulation looks by itself. */
void net_signal(int event_fd)
{
    (void)event_fd;
}

int net_route_source(const struct net_address *to, const char *device, uint32_t mark, struct net_address *out)
{
    (void)device, (void)mark;
    if (to->any.sa_family != AF_INET) return -ENETUNREACH;
    *out = address_of(0x7f000001, 0);
    return 0;
}

int net_accept(int fd)
{
    struct sim_file *file = sim_file_at(fd, "net_accept()");
    if (file->kind != SIM_LISTENER) return -EINVAL;
    return sim_listener_take(file);
}

bool net_is_readable(int fd)
{
    const struct sim_file *file = sim_file_at(fd, "net_is_readable()");
    if (file->kind == SIM_LISTENER) return file->waiting > 0;
    return (sim_conn_events(file->conn) & POLLIN) != 0;
}

bool net_holds_octets(int fd)
{
    return sim_stream_at(fd, "net_holds_octets()")->conn->in.used > 0;
}

int net_open_spare(void)
{
    int error = net_refuse(sim_chances_now.socket);
    return error < 0 ? error : file_open(SIM_SOCKET);
}

void net_make_spare(int fd)
{
    sim_file_at(fd, "net_make_spare()");
    sim_file_close(fd);
    net.files[fd] = (struct sim_file){.kind = SIM_SOCKET};
    net.open++;
}

void net_send_octet(int fd, uint8_t octet)
{
    (void)octet;
    sim_fail("net_send_octet() on descriptor %d: no session of this world is refused so", fd);
}

int net_shutdown_write(int fd)
{
    struct sim_conn *conn = sim_stream_at(fd, "net_shutdown_write()")->conn;
    if (sim_ring_sends(conn)) sim_fail("net_shutdown_write() on descriptor %d while a send is in flight", fd);
    if (conn->broken) return -ENOTCONN;
    conn->out_ended = true;
    return 0;
}

void net_stop_listening(int fd)
{
    struct sim_file *file = sim_file_at(fd, "net_stop_listening()");
    if (file->kind != SIM_LISTENER) sim_fail("net_stop_listening() on descriptor %d, which does not listen", fd);
}

void net_reset_on_close(int fd)
{
    sim_file_at(fd, "net_reset_on_close()")->reset_on_close = true;
    if (sim_ops->on_reset) sim_ops->on_reset(sim_world, fd);
}

void net_set_buffers(int fd, int send_size, int receive_size)
{
    sim_file_at(fd, "net_set_buffers()");
    if (send_size < 0 || receive_size < 0) sim_fail("net_set_buffers() with a negative size");
}

void net_set_nodelay(int fd)
{
    sim_file_at(fd, "net_set_nodelay()");
}

void net_set_keepalive(int fd)
{
    sim_file_at(fd, "net_set_keepalive()");
}

/* An address has gone, an interface has, or rights have. */
static int net_refuse_source(void)
{
    static const int errors[] = {-EADDRNOTAVAIL, -ENODEV, -EPERM};
    return sim_chance(sim_chances_now.source) ? errors[sim_below(3)] : 0;
}

int net_set_device(int fd, const char *name)
{
    sim_file_at(fd, "net_set_device()");
    return name != NULL ? net_refuse_source() : -EINVAL;
}

int net_set_mark(int fd, uint32_t mark)
{
    (void)mark;
    sim_file_at(fd, "net_set_mark()");
    return net_refuse_source();
}

int net_bind_source(int fd, const struct net_address *source, bool connects)
{
    int error = net_refuse_source();
    sim_file_at(fd, "net_bind_source()");
    (void)connects;
    return error < 0 ? error : net_bind(fd, source);
}

void net_set_fastopen_connect(int fd)
{
    sim_file_at(fd, "net_set_fastopen_connect()");
}

uint32_t net_send_room(int fd)
{
    const struct sim_conn *conn = sim_stream_at(fd, "net_send_room()")->conn;
    if (conn->broken || conn->far_closed) return UINT32_MAX;
    return conn->out.used < conn->out.room ? conn->out.room - conn->out.used : 0;
}

uint32_t net_receive_buffer(int fd)
{
    return 2 * sim_stream_at(fd, "net_receive_buffer()")->conn->in.room;
}

/* Here only what is read is acknowledged, the end as well. */
uint32_t net_unacknowledged(int fd)
{
    const struct sim_conn *conn = sim_stream_at(fd, "net_unacknowledged()")->conn;
    if (conn->broken) return 0;
    return conn->out.used + (conn->out_ended && !conn->end_read ? 1u : 0u);
}

uint32_t net_lost(int fd)
{
    const struct sim_conn *conn = sim_stream_at(fd, "net_lost()")->conn;
    return conn->broken ? conn->out.used + (conn->out_ended && !conn->end_read ? 1u : 0u) : 0;
}

bool net_is_closed(int fd)
{
    return sim_stream_at(fd, "net_is_closed()")->conn->broken;
}

bool net_has_ended(int fd)
{
    return sim_stream_at(fd, "net_has_ended()")->conn->in_ended;
}

bool net_was_cut(int fd)
{
    return net_is_closed(fd) && !net_has_ended(fd);
}

void sim_file_close(int fd)
{
    struct sim_file *file = &net.files[fd];
    sim_ring_check_close(fd);
    if (file->kind == SIM_STREAM) conn_close_near(file->conn, file->reset_on_close);
    if (file->kind == SIM_PIPE) file->pipe->ends--;
    if (file->kind == SIM_LISTENER)
        for (uint32_t i = 0; i < file->waiting; i++) conn_close_near(file->backlog[i], true);
    while (file->kind == SIM_DATAGRAM && sim_datagram_peek(fd)) sim_datagram_drop(fd);
    file->kind = SIM_CLOSED;
    net.open--;
}

void net_close(int fd)
{
    sim_file_at(fd, "net_close()");
    sim_file_close(fd);
}

/* --- pipes --- */

static ssize_t splice_in(struct sim_conn *conn, struct sim_pipe *pipe, size_t size)
{
    static uint8_t carried[SIM_STREAM_MAX];
    if (sim_ring_receives(conn)) sim_fail("net_splice() from a socket while a receive is in flight on it");
    if (conn->no_splice) return -EINVAL;
    if (conn->in.used > 0 && sim_chance(sim_chances_now.urgent)) return conn->in_ended ? 0 : -EAGAIN;
    uint32_t room = pipe->bytes.room - pipe->bytes.used;
    /* A pipe has a limited number of pieces, too: it may be full before all its octets are used. */
    if (room == 0 || (pipe->bytes.used > 0 && sim_chance(sim_chances_now.shorten / 2))) return -EAGAIN;
    int32_t moved = sim_conn_take(conn, carried, least(size, room));
    if (moved > 0) bytes_put(&pipe->bytes, carried, (uint32_t)moved);
    return moved;
}

static ssize_t splice_out(struct sim_pipe *pipe, struct sim_conn *conn, size_t size)
{
    static uint8_t carried[SIM_STREAM_MAX];
    if (sim_ring_sends(conn)) sim_fail("net_splice() to a socket while a send is in flight on it");
    if (pipe->bytes.used == 0) return -EAGAIN;
    struct sim_bytes before = pipe->bytes;
    uint32_t offered = bytes_take(&pipe->bytes, carried, least(size, pipe->bytes.used));
    int32_t moved = sim_conn_put(conn, carried, offered);
    uint32_t gone = moved > 0 ? (uint32_t)moved : 0;
    pipe->bytes.head = (before.head + gone) % SIM_STREAM_MAX;
    pipe->bytes.used = before.used - gone;
    return moved;
}

ssize_t net_splice(int from, int to, size_t size, bool more)
{
    struct sim_file *source = sim_file_at(from, "net_splice()"), *sink = sim_file_at(to, "net_splice()");
    (void)more;
    if (size == 0) sim_fail("net_splice() of nothing: its answer reads as the end");
    if (source->kind == SIM_STREAM && sink->kind == SIM_PIPE && sink->write_end)
        return splice_in(source->conn, sink->pipe, size);
    if (source->kind == SIM_PIPE && !source->write_end && sink->kind == SIM_STREAM)
        return splice_out(source->pipe, sink->conn, size);
    sim_fail("net_splice() from %d to %d: not a socket and the right end of a pipe", from, to);
}

static struct sim_pipe *pipe_find(void)
{
    for (uint32_t i = 0; i < net.pipe_count; i++)
        if (net.pipes[i].ends == 0) return &net.pipes[i];
    return net.pipe_count < SIM_PIPES_MAX ? &net.pipes[net.pipe_count++] : NULL;
}

int net_pipe(int fds[2], size_t *size)
{
    int error = net_refuse(sim_chances_now.pipe);
    if (error < 0) return error;
    struct sim_pipe *pipe = pipe_find();
    if (!pipe || net.open + 2 > net.limit) return -EMFILE;
    uint32_t granted = sim_chance(sim_chances_now.pipe) ? SIM_PIPE_TINY : least(*size, SIM_STREAM_MAX);
    *pipe = (struct sim_pipe){.ends = 2, .bytes = {.room = granted, .octets = pipe_octets[pipe - net.pipes]}};
    *size = granted;
    for (int i = 0; i < 2; i++) {
        fds[i] = file_open(SIM_PIPE);
        net.files[fds[i]].pipe = pipe;
        net.files[fds[i]].write_end = i == 1;
    }
    return 0;
}

void net_empty_pipe(int fd)
{
    sim_file_at(fd, "net_empty_pipe()")->pipe->bytes.used = 0;
}

/* --- what the simulated kernel does not know --- */

int net_connect(int fd, const struct net_address *to)
{
    (void)to;
    sim_file_at(fd, "net_connect()");
    return -EOPNOTSUPP;
}

int net_take_error(int fd)
{
    return conn_error(sim_stream_at(fd, "net_take_error()")->conn);
}

int net_type(int fd)
{
    return sim_file_at(fd, "net_type()")->kind == SIM_DATAGRAM ? SOCK_DGRAM : SOCK_STREAM;
}

bool net_is_ipv6_only(int fd)
{
    sim_file_at(fd, "net_is_ipv6_only()");
    return false;
}

int net_original_address(int fd, struct net_address *out)
{
    (void)out;
    sim_file_at(fd, "net_original_address()");
    return -ENOENT;
}

struct own *sim_own(void)
{
    static struct own *own;
    if (!own && own_open(&own) < 0) sim_fail("no memory");
    return own;
}

int machine_open(void)
{
    return -EACCES;
}

bool machine_has(int machine, const struct address *address)
{
    (void)machine;
    return address->kind == ADDRESS_IPV4 && address->ipv4[0] == 127;
}

void machine_close(int machine)
{
    (void)machine;
}
