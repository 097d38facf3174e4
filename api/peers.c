#include "api/peers.h"

#include <assert.h>
#include <poll.h>
#include <sys/socket.h>

struct peer *peers_take(struct peers *peers, int fd, uint64_t now_ms)
{
    assert(fd >= 0);
    for (size_t i = 0; i < PEERS_MAX; i++) {
        struct peer *peer = &peers->all[i];
        if (peer->state != PEER_FREE) continue;
        *peer = (struct peer){.state = PEER_IDLE, .fd = fd, .since_ms = now_ms};
        peers->count++;
        return peer;
    }
    return NULL;
}

void peers_give(struct peers *peers, struct peer *peer)
{
    assert(peer->state != PEER_FREE && peers->count > 0);
    peer->state = PEER_FREE;
    peers->count--;
}

void peers_enter(struct peer *peer, enum peer_state state, uint64_t now_ms)
{
    if (!peer) return;
    assert(peer->state != PEER_FREE && state != PEER_FREE);
    peer->since_ms = now_ms;
    peer->state = state;
}

/* Nothing is left to be read, and nothing will come. */
static bool has_ended(int fd)
{
    char octet;
    return recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

size_t peers_sweep(struct peers *peers, uint64_t now_ms, uint64_t limit_ms)
{
    size_t ended = 0;
    for (size_t i = 0; i < PEERS_MAX; i++) {
        const struct peer *peer = &peers->all[i];
        if (peer->state == PEER_FREE || peer->state == PEER_WAITS) continue;
        bool late = now_ms >= peer->since_ms && now_ms - peer->since_ms >= limit_ms;
        if (!late && (peer->state != PEER_IDLE || !has_ended(peer->fd))) continue;
        shutdown(peer->fd, SHUT_RDWR);
        ended++;
    }
    return ended;
}

enum peer_presence peers_look(const struct peer *peer)
{
    struct pollfd look = {.fd = peer->fd, .events = POLLRDHUP};
    if (poll(&look, 1, 0) < 1) return PEER_HERE;
    if (look.revents & (POLLERR | POLLHUP)) return PEER_GONE;
    return look.revents & POLLRDHUP ? PEER_HALF_CLOSED : PEER_HERE;
}
