#include "bench/wire.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t wire_block[BLOCK_SIZE];
uint8_t wire_scratch[BLOCK_SIZE];

void wire_fill(void)
{
    uint64_t word = 1;
    for (size_t i = 0; i < sizeof wire_block; i += sizeof word) {
        word ^= word << 13, word ^= word >> 7, word ^= word << 17; /* xorshift64 */
        memcpy(wire_block + i, &word, sizeof word);
    }
}

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

struct sockaddr_in parse_address(const char *text)
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

void socket_set_nodelay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void socket_close_with_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(fd);
}

int epoll_make(void)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1: %s", strerror(errno));
    return epoll;
}

void epoll_set(int epoll, int operation, int fd, uint32_t events, uint32_t key)
{
    struct epoll_event event = {.events = events, .data.u32 = key};
    if (epoll_ctl(epoll, operation, fd, &event)) die("epoll_ctl: %s", strerror(errno));
}
