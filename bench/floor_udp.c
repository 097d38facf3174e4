/* An association of the floor: one socket, from which all that is there is read at once and sent on at once. */
#include "bench/floor.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 16, HEADER_SIZE = 10, ROOM = 2048 };

bool datagrams_begin(struct pair *p, const struct sockaddr_in *listen)
{
    static uint8_t reply[PAIRS_MAX][HEADER_SIZE];
    static unsigned next;
    uint8_t *text = reply[next++ % PAIRS_MAX];
    struct sockaddr_in bound = *listen;
    socklen_t size = sizeof bound;
    bound.sin_port = 0;
    p->fds[1] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (p->fds[1] < 0 || bind(p->fds[1], (struct sockaddr *)&bound, sizeof bound)) return false;
    getsockname(p->fds[1], (struct sockaddr *)&bound, &size);
    memcpy(text, (const uint8_t[]){5, 0, 0, 1}, 4);
    memcpy(text + 4, &bound.sin_addr, 4);
    memcpy(text + 8, &bound.sin_port, 2);
    p->state = PAIR_DATAGRAMS;
    floor_say(p, text, HEADER_SIZE);
    pair_receive(p, 0); /* its end ends the association */
    pair_watch(p, 1, p->fds[1], POLLIN);
    return true;
}

/* From the client: the target is in the header, which goes. To it: the header is put before. */
static void datagram_turn(struct pair *p, struct sockaddr_in *peer, uint8_t *data, struct iovec *part, size_t size)
{
    bool from_target = p->target.sin_port && peer->sin_port == p->target.sin_port &&
                       peer->sin_addr.s_addr == p->target.sin_addr.s_addr;
    if (!from_target) {
        p->client = *peer;
        memcpy(&p->target.sin_addr, data + 4, 4);
        memcpy(&p->target.sin_port, data + 8, 2);
        p->target.sin_family = AF_INET;
        *peer = p->target;
        *part = (struct iovec){.iov_base = data + HEADER_SIZE, .iov_len = size > HEADER_SIZE ? size - HEADER_SIZE : 0};
        return;
    }
    memcpy(data - HEADER_SIZE, (const uint8_t[]){0, 0, 0, 1}, 4);
    memcpy(data - 6, &peer->sin_addr, 4);
    memcpy(data - 2, &peer->sin_port, 2);
    *peer = p->client;
    *part = (struct iovec){.iov_base = data - HEADER_SIZE, .iov_len = size + HEADER_SIZE};
}

bool datagrams_move(struct pair *p)
{
    static uint8_t data[BATCH][HEADER_SIZE + ROOM];
    struct sockaddr_in peers[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){.iov_base = data[i] + HEADER_SIZE, .iov_len = ROOM};
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(p->fds[1], messages, BATCH, MSG_DONTWAIT, NULL);
    if (count < 0) return errno == EAGAIN || errno == ECONNREFUSED;
    for (int i = 0; i < count; i++) datagram_turn(p, &peers[i], data[i] + HEADER_SIZE, &parts[i], messages[i].msg_len);
    return sendmmsg(p->fds[1], messages, (unsigned)count, MSG_DONTWAIT) >= 0 || errno == EAGAIN ||
           errno == ECONNREFUSED;
}
