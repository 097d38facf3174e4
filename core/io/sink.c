#include "core/io/sink.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Lines that are written with one call; twice the longest one. */
#define SINK_BUFFER_SIZE (2u * SINK_LINE_MAX)
/* How much a pipe or a socket that is ready takes for certain without making anybody wait: PIPE_BUF. */
#define SINK_PIECE 4096u
/* How often a reader that is not there is looked for. */
#define SINK_RETRY_MS 250u

struct sink {
    enum sink_kind kind;
    const char *path;
    int fd;            /* -1: not connected */
    bool datagrams;    /* one for each line */
    bool regular;      /* a file on a disk: it may only make us wait */
    uint64_t retry_ms; /* when to look for a reader again, */
    int missing;       /* and why there was none: -errno */
    uint64_t lines;
    size_t used, sent;
    char buffer[SINK_BUFFER_SIZE];
};

/* --- opening --- */

static int result_of(int result)
{
    return result < 0 ? -errno : result;
}

/* O_NONBLOCK: a FIFO without a reader is an error, and one that is full says so. */
static int open_file(const char *path)
{
    return result_of(open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0640));
}

static bool is_regular(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

static int connect_as(int type, const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = result_of(socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (fd < 0) return fd;
    assert(strlen(path) < sizeof to.sun_path);
    memcpy(to.sun_path, path, strlen(path));
    int error = result_of(connect(fd, (const struct sockaddr *)&to, sizeof to));
    if (error == 0) return fd;
    close(fd);
    return error;
}

/* A reader takes datagrams or a stream; which one only its socket tells. */
static int sink_connect(struct sink *sink)
{
    sink->datagrams = true;
    sink->fd = connect_as(SOCK_DGRAM, sink->path);
    if (sink->fd == -EPROTOTYPE && sink->kind == SINK_UNIX) {
        sink->datagrams = false;
        sink->fd = connect_as(SOCK_STREAM, sink->path);
    }
    if (sink->fd >= 0) return 0;
    int error = sink->fd;
    sink->fd = -1;
    return error;
}

int sink_open(struct sink **out, enum sink_kind kind, const char *path)
{
    static const char *const usual[] = {[SINK_SYSLOG] = "/dev/log", [SINK_JOURNALD] = "/run/systemd/journal/socket"};
    struct sink *sink = calloc(1, sizeof *sink);
    if (!sink) return -ENOMEM;
    *sink = (struct sink){.kind = kind, .path = path, .fd = -1};
    if (kind >= SINK_UNIX) {
        if (!path) sink->path = usual[kind];
        (void)sink_connect(sink);
        *out = sink;
        return 0;
    }
    sink->fd = kind == SINK_FILE ? open_file(path) : STDOUT_FILENO;
    if (sink->fd < 0) {
        int error = sink->fd;
        free(sink);
        return error;
    }
    sink->regular = is_regular(sink->fd);
    *out = sink;
    return 0;
}

void sink_close(struct sink *sink)
{
    if (!sink) return;
    if (sink->fd >= 0 && sink->kind != SINK_STDOUT) close(sink->fd);
    free(sink);
}

const char *sink_name(const struct sink *sink)
{
    return sink->kind == SINK_STDOUT ? "standard output" : sink->path;
}

/* --- what it holds --- */

/* syslog and journald have ends of their own: they are given one entry after the other. */
static bool takes_entries(const struct sink *sink)
{
    return sink->kind >= SINK_SYSLOG;
}

bool sink_put(struct sink *sink, const char *line, size_t size)
{
    assert(size > 0 && size <= SINK_LINE_MAX);
    bool ended = !takes_entries(sink);
    if (takes_entries(sink) ? sink->used > 0 : sink->used + size + 1 > sizeof sink->buffer) return false;
    memcpy(sink->buffer + sink->used, line, size);
    sink->used += size;
    if (ended) sink->buffer[sink->used++] = '\n';
    sink->lines++;
    return true;
}

uint64_t sink_lines_held(const struct sink *sink)
{
    return sink->lines;
}

static uint64_t count_ends(const char *data, size_t size)
{
    uint64_t count = 0;
    for (const char *end = data + size; (data = memchr(data, '\n', (size_t)(end - data))) != NULL; data++) count++;
    return count;
}

static void sink_count_sent(struct sink *sink, size_t size)
{
    sink->lines -= takes_entries(sink) ? sink->lines : count_ends(sink->buffer + sink->sent, size);
    sink->sent += size;
    if (sink->sent < sink->used) return;
    sink->sent = sink->used = 0;
}

/* The line whose end has not been written stands at the front again. */
static void sink_rewind(struct sink *sink)
{
    const char *end = sink->sent > 0 ? memrchr(sink->buffer, '\n', sink->sent) : NULL;
    size_t gone = end ? (size_t)(end - sink->buffer) + 1 : 0;
    memmove(sink->buffer, sink->buffer + gone, sink->used - gone);
    sink->used -= gone;
    sink->sent = 0;
}

/* --- writing --- */

static bool is_ready(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLOUT};
    return poll(&one, 1, 0) > 0;
}

static int write_stream(struct sink *sink)
{
    while (sink->sent < sink->used) {
        size_t left = sink->used - sink->sent;
        if (!sink->regular) {
            if (left > SINK_PIECE) left = SINK_PIECE;
            if (!is_ready(sink->fd)) return -EAGAIN;
        }
        /* A socket's reader that has gone must not end us; SIGPIPE is ignored, but not by every program of tests. */
        ssize_t n = sink->kind == SINK_UNIX ? send(sink->fd, sink->buffer + sink->sent, left, MSG_NOSIGNAL)
                                            : write(sink->fd, sink->buffer + sink->sent, left);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        sink_count_sent(sink, (size_t)n);
    }
    return 0;
}

/* An entry that no datagram can carry: journald takes a sealed file instead. */
static int send_as_file(int fd, const char *data, size_t size)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_control = control.room, .msg_controllen = sizeof control.room};
    int file = memfd_create("sluice", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file < 0) return -errno;
    int error = write(file, data, size) == (ssize_t)size ? 0 : -EIO;
    if (error == 0)
        error = result_of(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof file);
    memcpy(CMSG_DATA(head), &file, sizeof file);
    if (error == 0 && sendmsg(fd, &message, MSG_NOSIGNAL) < 0) error = -errno;
    close(file);
    return error;
}

static int send_datagram(const struct sink *sink, const char *data, size_t size)
{
    ssize_t n;
    do n = send(sink->fd, data, size, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    int error = n < 0 ? -errno : 0;
    if (error == -EMSGSIZE && sink->kind == SINK_JOURNALD) error = send_as_file(sink->fd, data, size);
    return error;
}

/* Of a line the datagram's end is the end. */
static int write_datagrams(struct sink *sink)
{
    while (sink->sent < sink->used) {
        const char *data = sink->buffer + sink->sent;
        size_t size = sink->used - sink->sent;
        if (!takes_entries(sink)) size = (size_t)((const char *)memchr(data, '\n', size) - data);
        int error = send_datagram(sink, data, size);
        if (error < 0) return error;
        sink_count_sent(sink, takes_entries(sink) ? size : size + 1);
    }
    return 0;
}

static int sink_write(struct sink *sink)
{
    return sink->datagrams ? write_datagrams(sink) : write_stream(sink);
}

/* The reader of a socket has gone; perhaps another one is there already. */
static int sink_find_reader(struct sink *sink, uint64_t now_ms)
{
    if (sink->fd < 0 && now_ms < sink->retry_ms) return sink->missing;
    sink->retry_ms = now_ms + SINK_RETRY_MS;
    sink->missing = sink_reopen(sink);
    return sink->missing;
}

static bool has_gone(int error)
{
    return error == -ECONNREFUSED || error == -ENOTCONN || error == -EPIPE || error == -ECONNRESET ||
           error == -ENOENT || error == -EPROTOTYPE;
}

int sink_flush(struct sink *sink, uint64_t now_ms)
{
    int error = 0;
    if (sink->used == 0) return 0;
    if (sink->fd < 0) error = sink_find_reader(sink, now_ms);
    if (error == 0) error = sink_write(sink);
    if (sink->kind < SINK_UNIX || !has_gone(error)) return error;
    if (sink->fd >= 0) { /* at once, and once */
        error = sink_find_reader(sink, now_ms);
        if (error == 0) error = sink_write(sink);
    }
    return error;
}

int sink_poll_fd(const struct sink *sink)
{
    return sink->fd;
}

/* --- again --- */

static int reopen_file(struct sink *sink)
{
    (void)sink_write(sink); /* what is left of a line belongs to its beginning */
    int fd = open_file(sink->path);
    if (fd < 0) return fd;
    close(sink->fd);
    sink->fd = fd;
    sink->regular = is_regular(fd);
    sink_rewind(sink);
    return 0;
}

int sink_reopen(struct sink *sink)
{
    if (sink->kind == SINK_STDOUT) return 0;
    if (sink->kind == SINK_FILE) return reopen_file(sink);
    if (sink->fd >= 0) close(sink->fd);
    if (!takes_entries(sink)) sink_rewind(sink);
    return sink_connect(sink);
}

bool sink_was_moved(const struct sink *sink)
{
    struct stat open_one, named;
    if (sink->kind != SINK_FILE) return false;
    if (fstat(sink->fd, &open_one) < 0) return false;
    return stat(sink->path, &named) < 0 || named.st_dev != open_one.st_dev || named.st_ino != open_one.st_ino;
}
