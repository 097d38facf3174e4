#include "bench/names.h"

#include "bench/wire.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_SIZE = 12, QUESTION_MAX = 512, TYPE_A = 1, TTL_S = 3600 };

void names_write(const struct sockaddr_in *address, uint64_t serial, char to[NAMES_SIZE])
{
    uint32_t host = ntohl(address->sin_addr.s_addr);
    int used = serial ? snprintf(to, NAMES_SIZE, "n%llu.", (unsigned long long)serial) : 0;
    snprintf(to + used, NAMES_SIZE - (size_t)used, "t%u-%u-%u-%u.bench.test", host >> 24, host >> 16 & 255,
             host >> 8 & 255, host & 255);
}

/* The address that a label like "t127-1-2-3" says. */
static bool label_read(const uint8_t *label, size_t size, uint8_t address[4])
{
    char text[32];
    unsigned octets[4];
    if (size < 2 || size >= sizeof text || (label[0] | 0x20) != 't') return false;
    memcpy(text, label + 1, size - 1);
    text[size - 1] = '\0';
    if (sscanf(text, "%3u-%3u-%3u-%3u", &octets[0], &octets[1], &octets[2], &octets[3]) != 4) return false;
    for (int i = 0; i < 4; i++) address[i] = (uint8_t)octets[i];
    return true;
}

/* Where the question ends, 0 where it is none; `has`: its name says an address. */
static size_t question_read(const uint8_t *data, size_t size, bool *has, uint8_t address[4])
{
    size_t at = HEADER_SIZE;
    *has = false;
    while (at < size && data[at] != 0) {
        size_t label = data[at];
        if (label > 63 || at + 1 + label >= size) return 0;
        if (!*has) *has = label_read(data + at + 1, label, address);
        at += 1 + label;
    }
    return at + 5 <= size ? at + 5 : 0;
}

static size_t put(uint8_t *to, size_t at, const void *data, size_t size)
{
    memcpy(to + at, data, size);
    return at + size;
}

/* Turns the question in `data` into its answer. */
static size_t names_answer(uint8_t *data, size_t size)
{
    static const uint8_t a[] = {0xc0, HEADER_SIZE, 0, 1, 0, 1, 0, 0, TTL_S >> 8, TTL_S & 255, 0, 4};
    /* The zone is the question's own name, for brevity; the last number is how long "no" may be remembered. */
    static const uint8_t soa[] = {
        0xc0, HEADER_SIZE, 0,    6,           0, 1, 0,    0,    TTL_S >> 8, TTL_S & 255, 0,          24,
        0xc0, HEADER_SIZE, 0xc0, HEADER_SIZE, 0, 0, 0,    1,    0,          0,           0x0e,       0x10,
        0,    0,           0x0e, 0x10,        0, 0, 0x0e, 0x10, 0,          0,           TTL_S >> 8, TTL_S & 255};
    uint8_t address[4];
    bool has;
    size_t end = size > HEADER_SIZE ? question_read(data, size, &has, address) : 0;
    if (end == 0) return 0;
    bool found = has && data[end - 4] == 0 && data[end - 3] == TYPE_A;
    const uint8_t head[] = {
        (uint8_t)(0x84 | (data[2] & 1)), (uint8_t)(0x80 | (has ? 0 : 3)), 0, 1, 0, found, 0, !found, 0, 0};
    put(data, 2, head, sizeof head);
    if (!found) return put(data, end, soa, sizeof soa);
    return put(data, put(data, end, a, sizeof a), address, 4);
}

void names_run(const struct sockaddr_in *listen)
{
    static uint8_t data[QUESTION_MAX + 64];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), size_wanted = 4 << 20;
    if (fd < 0 || bind(fd, (const struct sockaddr *)listen, sizeof *listen)) die("names: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size_wanted, sizeof size_wanted);
    puts("{\"event\":\"ready\"}");
    fflush(stdout);
    for (;;) {
        struct sockaddr_in from;
        socklen_t from_size = sizeof from;
        ssize_t size = recvfrom(fd, data, QUESTION_MAX, 0, (struct sockaddr *)&from, &from_size);
        size_t answer = size > 0 ? names_answer(data, (size_t)size) : 0;
        if (answer > 0) (void)sendto(fd, data, answer, 0, (struct sockaddr *)&from, from_size);
    }
}
