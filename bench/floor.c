/* floor: the least that any proxy on this kernel has to do.
 *
 *     floor --listen A:P --target A:P                 forwards TCP
 *     floor --listen A:P --socks5 [--target A:P]      SOCKS5, CONNECT and UDP ASSOCIATE; names mean the target
 *     ... --splice                                    moves pages through pipes instead of copying
 *     ... --splice --gather                           for bulk: is woken for 256 KiB at a time
 *
 * It accepts, receives, connects, sends, splices and closes, with as few entries into the kernel as there can be: one
 * for what has completed and what follows from it. It decides nothing, limits nothing, counts nothing, has no timers
 * and trusts everybody; nobody should use it for anything but to be measured beside proxies.
 *
 * A piece is received into the direction's own memory; then its send and the next receive are linked, and only the
 * latter completes with a word. The upstream side is received from after the client has spoken, but with --splice at
 * once. */
#include "bench/floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ENTRIES = 4096, GATHER = 256 * 1024, PIPE_SIZE = 1024 * 1024 };

static struct {
    enum floor_mode mode;
    bool splice, gather;
    int listener;
    struct sockaddr_in listen, target;
    struct pair *pairs;
    uint32_t free[PAIRS_MAX];
    size_t free_count;
} state;

struct io_uring floor_ring;

__attribute__((noreturn)) static void die(const char *what, const char *more)
{
    fprintf(stderr, "floor: %s%s%s\n", what, more ? ": " : "", more ? more : "");
    exit(2);
}

struct io_uring_sqe *floor_entry(void)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&floor_ring);
    if (entry) return entry;
    io_uring_submit(&floor_ring);
    if (!(entry = io_uring_get_sqe(&floor_ring))) die("the ring is full", NULL);
    return entry;
}

/* A chain must not be divided between two submissions. */
static void floor_reserve(unsigned count)
{
    if (io_uring_sq_space_left(&floor_ring) < count) io_uring_submit(&floor_ring);
}

static uint64_t tag_of(const struct pair *p, int direction)
{
    return TAG_PAIRS + (uint64_t)(p - state.pairs) * 2 + (uint64_t)direction;
}

/* Completes with a word only when it fails; what is linked to it is cancelled without one then. */
static void mark_silent(struct io_uring_sqe *entry, const struct pair *p, int direction)
{
    io_uring_sqe_set_flags(entry, IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS);
    io_uring_sqe_set_data64(entry, tag_of(p, direction) | TAG_FAILED);
}

static void pair_send(const struct pair *p, int direction, int fd, const void *data, size_t size)
{
    struct io_uring_sqe *entry = floor_entry();
    io_uring_prep_send(entry, fd, data, size, MSG_WAITALL | MSG_NOSIGNAL);
    mark_silent(entry, p, direction);
}

void floor_say(struct pair *p, const void *data, size_t size)
{
    floor_reserve(2);
    pair_send(p, 0, p->fds[0], data, size);
}

void pair_receive(struct pair *p, int direction)
{
    struct io_uring_sqe *entry = floor_entry();
    io_uring_prep_recv(entry, p->fds[direction], p->pieces[direction], PIECE_SIZE, 0);
    entry->ioprio = IORING_RECVSEND_POLL_FIRST;
    io_uring_sqe_set_data64(entry, tag_of(p, direction));
    p->armed[direction] = true;
}

void pair_watch(struct pair *p, int direction, int fd, unsigned events)
{
    struct io_uring_sqe *entry = floor_entry();
    io_uring_prep_poll_add(entry, fd, events);
    io_uring_sqe_set_data64(entry, tag_of(p, direction));
    p->armed[direction] = true;
}

static void accept_arm(void)
{
    struct io_uring_sqe *entry = floor_entry();
    io_uring_prep_multishot_accept(entry, state.listener, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(entry, TAG_ACCEPT);
}

/* ---- The end of a pair ---- */

static void close_silently(int fd)
{
    if (fd < 0) return;
    struct io_uring_sqe *entry = floor_entry();
    io_uring_prep_close(entry, fd);
    io_uring_sqe_set_flags(entry, IOSQE_CQE_SKIP_SUCCESS);
    io_uring_sqe_set_data64(entry, TAG_NOTHING);
}

static void pair_close_pipes(struct pair *p)
{
    for (int i = 0; i < 4; i++) {
        int *end = &p->pipes[i / 2][i % 2];
        if (*end >= 0) close(*end);
        *end = -1;
    }
}

static void pair_release(struct pair *p)
{
    static const struct linger now = {.l_onoff = 1};
    for (int i = 0; i < 2; i++) {
        if (p->broken && p->fds[i] >= 0) setsockopt(p->fds[i], SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close_silently(p->fds[i]);
        p->fds[i] = -1;
    }
    pair_close_pipes(p);
    state.free[state.free_count++] = (uint32_t)(p - state.pairs);
}

static void pair_cancel(const struct pair *p, int direction)
{
    struct io_uring_sqe *entry = floor_entry();
    io_uring_prep_cancel64(entry, tag_of(p, direction), 0);
    io_uring_sqe_set_flags(entry, IOSQE_CQE_SKIP_SUCCESS);
    io_uring_sqe_set_data64(entry, tag_of(p, direction) | TAG_CANCEL);
}

/* A reset, or any other failure, of one side is one of the other. */
void pair_break(struct pair *p)
{
    bool first = !p->broken;
    p->broken = true;
    if (!p->armed[0] && !p->armed[1]) {
        pair_release(p);
        return;
    }
    for (int i = 0; first && i < 2; i++)
        if (p->armed[i]) pair_cancel(p, i);
}

/* That direction has come to its end: the other side is told, or was the last to be. */
static void pair_finish(struct pair *p, int direction)
{
    p->done[direction] = true;
    if (p->done[!direction]) {
        pair_release(p);
        return;
    }
    struct io_uring_sqe *entry = floor_entry();
    io_uring_prep_shutdown(entry, p->fds[!direction], SHUT_WR);
    io_uring_sqe_set_flags(entry, IOSQE_CQE_SKIP_SUCCESS);
    io_uring_sqe_set_data64(entry, TAG_NOTHING);
}

/* ---- Moving octets ---- */

static void pair_set_sockets(const struct pair *p)
{
    int octets = GATHER;
    for (int i = 0; i < 2; i++) {
        if (state.gather) setsockopt(p->fds[i], SOL_SOCKET, SO_RCVLOWAT, &octets, sizeof octets);
        fcntl(p->fds[i], F_SETFL, O_NONBLOCK);
    }
}

static bool pair_open_pipes(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        if (pipe2(p->pipes[i], O_CLOEXEC | O_NONBLOCK)) return false;
        fcntl(p->pipes[i][0], F_SETPIPE_SZ, PIPE_SIZE);
    }
    return true;
}

static void splice_begin(struct pair *p)
{
    p->state = PAIR_RELAY;
    if (!pair_open_pipes(p)) {
        pair_break(p);
        return;
    }
    pair_set_sockets(p);
    for (int i = 0; i < 2; i++) pair_watch(p, i, p->fds[i], POLLIN);
}

/* Something may be taken or put. */
static void splice_move(struct pair *p, int direction)
{
    int *pipe = p->pipes[direction], from = p->fds[direction], to = p->fds[!direction];
    unsigned flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
    if (p->held[direction] == 0) {
        ssize_t size = splice(from, NULL, pipe[1], NULL, PIPE_SIZE, flags);
        if (size == 0) {
            pair_finish(p, direction);
            return;
        }
        if (size < 0 && errno != EAGAIN) {
            pair_break(p);
            return;
        }
        if (size > 0) p->held[direction] = (size_t)size;
    }
    while (p->held[direction] > 0) {
        ssize_t size = splice(pipe[0], NULL, to, NULL, p->held[direction], flags);
        if (size < 0 && errno == EAGAIN) {
            pair_watch(p, direction, to, POLLOUT);
            return;
        }
        if (size <= 0) {
            pair_break(p);
            return;
        }
        p->held[direction] -= (size_t)size;
    }
    pair_watch(p, direction, from, POLLIN);
}

static void copy_move(struct pair *p, int direction, int size)
{
    bool first = direction == 0 && !p->armed[1] && !p->done[1];
    if (size == 0) {
        pair_finish(p, direction);
        if (first) pair_receive(p, 1);
        return;
    }
    floor_reserve(3);
    pair_send(p, direction, p->fds[!direction], p->pieces[direction], (size_t)size);
    pair_receive(p, direction);
    if (first) pair_receive(p, 1);
}

/* ---- From accept to relay ---- */

/* Connects, says `reply` to the client, and receives from it or, with --splice, waits for the connection. */
static void pair_connect(struct pair *p, const void *reply, size_t reply_size)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    p->fds[1] = fd;
    if (fd < 0) {
        pair_break(p);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    floor_reserve(3);
    struct io_uring_sqe *entry = floor_entry();
    io_uring_prep_connect(entry, fd, (struct sockaddr *)&p->target, sizeof p->target);
    mark_silent(entry, p, 0);
    if (reply_size > 0) pair_send(p, 0, p->fds[0], reply, reply_size);
    p->state = state.splice ? PAIR_CONNECT : PAIR_RELAY;
    if (state.splice)
        pair_watch(p, 0, fd, POLLOUT);
    else
        pair_receive(p, 0);
}

static void pair_take_request(struct pair *p, int size)
{
    static const uint8_t reply[10] = {5, 0, 0, 1};
    const uint8_t *text = p->pieces[0];
    p->state = PAIR_REQUEST;
    if (size < 5) {
        pair_break(p);
    } else if (text[1] == 3) {
        if (!datagrams_begin(p, &state.listen)) pair_break(p);
    } else {
        p->target = state.target;
        if (text[3] == 1) memcpy(&p->target.sin_addr, text + 4, 4), memcpy(&p->target.sin_port, text + 8, 2);
        p->target.sin_family = AF_INET;
        pair_connect(p, reply, sizeof reply);
    }
}

/* Some send the request without waiting for the answer. */
static void pair_take_greeting(struct pair *p, int size)
{
    static const uint8_t no_authentication[2] = {5, 0};
    int greeting = size >= 2 ? 2 + p->pieces[0][1] : size;
    floor_reserve(5);
    floor_say(p, no_authentication, sizeof no_authentication);
    if (size > greeting) {
        memmove(p->pieces[0], p->pieces[0] + greeting, (size_t)(size - greeting));
        pair_take_request(p, size - greeting);
        return;
    }
    p->state = PAIR_REQUEST;
    pair_receive(p, 0);
}

static void pair_open(int fd)
{
    if (state.free_count == 0) {
        close(fd);
        return;
    }
    struct pair *p = &state.pairs[state.free[--state.free_count]];
    uint8_t *pieces[2] = {p->pieces[0], p->pieces[1]};
    *p = (struct pair){.fds = {fd, -1}, .pipes = {{-1, -1}, {-1, -1}}, .pieces = {pieces[0], pieces[1]}};
    if (state.mode == FLOOR_SOCKS5) {
        pair_receive(p, 0);
        return;
    }
    p->target = state.target;
    pair_connect(p, NULL, 0);
}

/* ---- Completions ---- */

static void pair_step(struct pair *p, int direction, int result)
{
    switch (p->state) {
    case PAIR_GREETING: pair_take_greeting(p, result); break;
    case PAIR_REQUEST: pair_take_request(p, result); break;
    case PAIR_CONNECT: splice_begin(p); break;
    case PAIR_RELAY:
        if (state.splice)
            splice_move(p, direction);
        else
            copy_move(p, direction, result);
        break;
    case PAIR_DATAGRAMS:
        if (direction == 0 || !datagrams_move(p))
            pair_break(p);
        else
            pair_watch(p, 1, p->fds[1], POLLIN);
        break;
    }
}

static void on_pair(uint64_t tag, int result)
{
    bool failed = tag & TAG_FAILED, cancelled = tag & TAG_CANCEL;
    tag = (tag & ~(TAG_FAILED | TAG_CANCEL)) - TAG_PAIRS;
    struct pair *p = &state.pairs[tag / 2];
    int direction = (int)(tag % 2);
    if (cancelled) { /* what is linked cannot be found before it begins */
        if (p->broken && p->armed[direction]) pair_cancel(p, direction);
        return;
    }
    p->armed[direction] = false;
    /* On Linux 6.1, when the send before it was finished by a kernel thread: a receive that polls first is not tried
     * there. */
    if (result == -EAGAIN && !failed && !p->broken) {
        pair_receive(p, direction);
        return;
    }
    if (failed || p->broken || result < 0 || (result == 0 && p->state < PAIR_RELAY))
        pair_break(p);
    else
        pair_step(p, direction, result);
}

static void on_completion(const struct io_uring_cqe *completion)
{
    if (completion->user_data >= TAG_PAIRS) {
        on_pair(completion->user_data, completion->res);
    } else if (completion->user_data == TAG_ACCEPT) {
        if (completion->res >= 0) pair_open(completion->res);
        if (!(completion->flags & IORING_CQE_F_MORE)) accept_arm();
    }
}

/* ---- The program ---- */

static void open_listener(void)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* what it accepts inherits it */
    if (bind(fd, (struct sockaddr *)&state.listen, sizeof state.listen) || listen(fd, 4096))
        die("listen", strerror(errno));
    state.listener = fd;
}

static void open_pairs(void)
{
    size_t pieces = (size_t)PAIRS_MAX * 2 * PIECE_SIZE;
    uint8_t *memory = mmap(NULL, pieces, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    state.pairs = calloc(PAIRS_MAX, sizeof *state.pairs);
    if (!state.pairs || memory == MAP_FAILED) die("out of memory", NULL);
    for (uint32_t i = 0; i < PAIRS_MAX; i++) {
        for (size_t side = 0; side < 2; side++)
            state.pairs[i].pieces[side] = memory + ((size_t)i * 2 + side) * PIECE_SIZE;
        state.free[state.free_count++] = PAIRS_MAX - 1 - i;
    }
}

static void open_ring(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                              IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL,
                                     .cq_entries = 4 * PAIRS_MAX};
    int error = io_uring_queue_init_params(ENTRIES, &floor_ring, &params);
    if (error < 0) die("io_uring", strerror(-error));
    (void)io_uring_register_ring_fd(&floor_ring);
}

static struct sockaddr_in parse_address(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[INET_ADDRSTRLEN] = "";
    const char *colon = strrchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : sizeof host;
    unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
    if (size < sizeof host) memcpy(host, text, size);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || port == 0 || port > 65535)
        die("no IPv4 address and port", text);
    address.sin_port = htons((uint16_t)port);
    return address;
}

static void parse(int count, char **words)
{
    for (int i = 1; i < count; i++) {
        bool has_value = i + 1 < count;
        if (strcmp(words[i], "--listen") == 0 && has_value)
            state.listen = parse_address(words[++i]);
        else if (strcmp(words[i], "--target") == 0 && has_value)
            state.target = parse_address(words[++i]);
        else if (strcmp(words[i], "--socks5") == 0)
            state.mode = FLOOR_SOCKS5;
        else if (strcmp(words[i], "--splice") == 0)
            state.splice = true;
        else if (strcmp(words[i], "--gather") == 0)
            state.gather = true;
        else
            die("usage: floor --listen A:P [--target A:P] [--socks5] [--splice [--gather]]", NULL);
    }
    if (!state.listen.sin_port || (state.mode == FLOOR_FORWARD && !state.target.sin_port))
        die("--listen or --target is missing", NULL);
}

int main(int count, char **words)
{
    struct rlimit limit;
    parse(count, words);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    open_pairs();
    open_ring();
    open_listener(); /* last: who can connect finds all there is */
    accept_arm();
    for (;;) {
        struct io_uring_cqe *completion;
        unsigned head, taken = 0;
        int error = io_uring_submit_and_wait(&floor_ring, 1);
        if (error < 0 && error != -EINTR) die("io_uring_enter", strerror(-error));
        io_uring_for_each_cqe(&floor_ring, head, completion)
        {
            on_completion(completion);
            taken++;
        }
        io_uring_cq_advance(&floor_ring, taken);
    }
}
