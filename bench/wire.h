/* What both ends of a measurement share: the clock, sockets that never wait, octets to send and room to receive. */
#ifndef SLUICE_BENCH_WIRE_H
#define SLUICE_BENCH_WIRE_H

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BLOCK_SIZE = 256 * 1024,        /* one write of a bulk flow */
    FILL_SIZE = 1024 * 1024,        /* what the fill service sends */
    DISCARD_SIZE = 4 * 1024 * 1024, /* one discarding read */
    EVENTS_MAX = 512,               /* completions taken from epoll at once */
};

#define SECOND_NS UINT64_C(1000000000)

extern uint8_t wire_block[BLOCK_SIZE];   /* what is sent; the same in every process, so that both ends can compare */
extern uint8_t wire_scratch[BLOCK_SIZE]; /* where reads go whose bytes are looked at or sent on at once */

void wire_fill(void); /* makes wire_block: octets that do not repeat */

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

/* Takes "127.0.0.1:80". */
struct sockaddr_in parse_address(const char *text);

void socket_set_nodelay(int fd);
void socket_close_with_reset(int fd); /* sends RST and leaves no TIME_WAIT behind */
int epoll_make(void);
void epoll_set(int epoll, int operation, int fd, uint32_t events, uint32_t key);

static inline uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static inline ssize_t socket_send(int fd, const void *data, size_t size)
{
    return send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Throws away what has arrived; TCP does it without touching the bytes. */
static inline ssize_t socket_discard(int fd)
{
    return recv(fd, NULL, DISCARD_SIZE, MSG_TRUNC | MSG_DONTWAIT);
}

static inline bool would_block(ssize_t result)
{
    return result < 0 && (errno == EAGAIN || errno == EINTR);
}

#endif
