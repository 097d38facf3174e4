#include "bench/via.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

const char *const via_names[VIA_COUNT] = {"none",   "forward",     "socks4", "socks4a",
                                          "socks5", "socks5-auth", "http",   "http-plain"};

size_t via_write_greeting(enum via via, uint8_t *to)
{
    to[0] = 5, to[1] = 1;
    to[2] = via == VIA_SOCKS5_AUTH ? 2 : 0;
    return 3;
}

size_t via_write_credentials(const char *user, const char *password, uint8_t *to)
{
    size_t user_size = strlen(user), password_size = strlen(password);
    to[0] = 1, to[1] = (uint8_t)user_size;
    memcpy(to + 2, user, user_size);
    to[2 + user_size] = (uint8_t)password_size;
    memcpy(to + 3 + user_size, password, password_size);
    return 3 + user_size + password_size;
}

static size_t socks4_write_request(enum via via, const struct sockaddr_in *target, uint8_t *to)
{
    static const uint8_t see_name[4] = {0, 0, 0, 1};
    to[0] = 4, to[1] = 1;
    memcpy(to + 2, &target->sin_port, 2);
    memcpy(to + 4, via == VIA_SOCKS4 ? (const void *)&target->sin_addr : see_name, 4);
    to[8] = 0; /* no user */
    if (via == VIA_SOCKS4) return 9;
    inet_ntop(AF_INET, &target->sin_addr, (char *)to + 9, INET_ADDRSTRLEN);
    return 9 + strlen((char *)to + 9) + 1;
}

static size_t socks5_write_name(const struct sockaddr_in *target, const char *name, uint8_t *to)
{
    static const uint8_t front[4] = {5, 1, 0, 3};
    size_t size = strlen(name);
    memcpy(to, front, sizeof front);
    to[4] = (uint8_t)size;
    memcpy(to + 5, name, size);
    memcpy(to + 5 + size, &target->sin_port, 2);
    return 7 + size;
}

size_t via_write_associate(uint8_t *to)
{
    static const uint8_t request[10] = {5, 3, 0, 1};
    memcpy(to, request, sizeof request);
    return sizeof request;
}

void via_read_bound(const uint8_t *head, struct sockaddr_in *bound)
{
    static const uint8_t any[4] = {0};
    if (head[3] != 1) return;
    if (memcmp(head + 4, any, sizeof any) != 0) memcpy(&bound->sin_addr, head + 4, 4);
    memcpy(&bound->sin_port, head + 8, 2);
}

static size_t socks5_write_request(const struct sockaddr_in *target, uint8_t *to)
{
    static const uint8_t front[4] = {5, 1, 0, 1};
    memcpy(to, front, sizeof front);
    memcpy(to + 4, &target->sin_addr, 4);
    memcpy(to + 8, &target->sin_port, 2);
    return 10;
}

static size_t http_write_request(const struct sockaddr_in *target, uint8_t *to)
{
    char host[INET_ADDRSTRLEN];
    unsigned port = ntohs(target->sin_port);
    inet_ntop(AF_INET, &target->sin_addr, host, sizeof host);
    return (size_t)snprintf((char *)to, VIA_MESSAGE_MAX, "CONNECT %s:%u HTTP/1.1\r\nHost: %s:%u\r\n\r\n", host, port,
                            host, port);
}

size_t via_write_request(enum via via, const struct sockaddr_in *target, const char *name, uint8_t *to)
{
    if (name) return socks5_write_name(target, name, to);
    switch (via) {
    case VIA_HTTP: return http_write_request(target, to);
    case VIA_SOCKS4:
    case VIA_SOCKS4A: return socks4_write_request(via, target, to);
    default: return socks5_write_request(target, to);
    }
}

size_t via_reply_size(enum via via, enum via_step step, const uint8_t *head, size_t size)
{
    if (step != VIA_REQUEST) return 2;
    if (via == VIA_SOCKS4 || via == VIA_SOCKS4A) return 8;
    if (via == VIA_HTTP) {
        const uint8_t *end = memmem(head, size, "\r\n\r\n", 4);
        return end ? (size_t)(end - head) + 4 : 0;
    }
    if (size < 5) return 0;
    return head[3] == 1 ? 10 : head[3] == 4 ? 22 : 7 + (size_t)head[4];
}

bool via_reply_is_good(enum via via, enum via_step step, const uint8_t *head, size_t size)
{
    if (step == VIA_GREETING) return head[0] == 5 && head[1] == (via == VIA_SOCKS5_AUTH ? 2 : 0);
    if (step == VIA_CREDENTIALS) return head[1] == 0;
    if (via == VIA_SOCKS4 || via == VIA_SOCKS4A) return head[0] == 0 && head[1] == 90;
    if (via == VIA_HTTP) return size >= 12 && memcmp(head, "HTTP/1.", 7) == 0 && memcmp(head + 8, " 2", 2) == 0;
    return head[0] == 5 && head[1] == 0;
}
