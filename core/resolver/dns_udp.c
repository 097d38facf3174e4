#include "core/resolver/dns_udp.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/io/log.h"
#include "protocols/dns.h"

#define QUERY_MAX  512u
#define ANSWER_MAX 4096u
/* Answers that are looked at in one turn of one socket: a flood of wrong ones must not keep us. */
#define ANSWERS_MAX 16u
#define EVENTS_MAX  64
/* A server that has never kept the case of letters, so often in a row, is asked without. */
#define STRIKES_MAX 3u
#define NEVER_AGAIN 255u

struct exchange {
    struct link open;
    int fd;
    int lane_fd;
    uint64_t deadline_ms;
    uint16_t size;
    uint8_t query[QUERY_MAX]; /* as sent */
};

/* --- lanes --- */

static struct dns_lane *lane_at(struct dns_udp *udp, int fd)
{
    for (unsigned i = 0; i < DNS_LANES_MAX; i++)
        if (udp->lanes[i].fd == fd) return &udp->lanes[i];
    return NULL;
}

bool dns_udp_is_lane(const struct dns_udp *udp, int fd)
{
    return fd >= 0 && lane_at((struct dns_udp *)(uintptr_t)udp, fd) != NULL;
}

const struct dns_lane *dns_udp_lane(const struct dns_udp *udp, int lane_fd)
{
    return lane_at((struct dns_udp *)(uintptr_t)udp, lane_fd);
}

int dns_udp_lane_open(struct dns_udp *udp)
{
    struct dns_lane *lane = lane_at(udp, -1);
    if (!lane) return -EMFILE;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return -errno;
    lane->fd = fd;
    return fd;
}

/* What was learnt about a server is kept: the lane takes the place of the one that had its address. */
void dns_udp_lane_connect(struct dns_udp *udp, int lane_fd, const struct sockaddr *to, socklen_t size)
{
    struct dns_lane *lane = lane_at(udp, lane_fd);
    assert(lane && size <= sizeof lane->to);
    for (unsigned i = 0; i < DNS_LANES_MAX; i++) {
        struct dns_lane *other = &udp->lanes[i];
        if ((other->fd >= 0 && other != lane) || !other->known) continue;
        if (other->to_size != size || memcmp(&other->to, to, size) != 0) continue;
        lane->fd = -1;
        lane = other;
        lane->fd = lane_fd;
        return;
    }
    *lane = (struct dns_lane){.fd = lane_fd, .to_size = size, .known = true};
    memcpy(&lane->to, to, size);
}

/* --- exchanges --- */

static uint32_t slot_of(const struct dns_udp *udp, const struct exchange *exchange)
{
    return (uint32_t)((size_t)((const uint8_t *)exchange - udp->exchanges.slots) / udp->exchanges.slot_size);
}

static void exchange_close(struct dns_udp *udp, struct exchange *exchange)
{
    link_remove(&exchange->open);
    close(exchange->fd); /* which takes it out of the set */
    pool_give(&udp->exchanges, slot_of(udp, exchange));
}

void dns_udp_lane_close(struct dns_udp *udp, int lane_fd)
{
    struct dns_lane *lane = lane_at(udp, lane_fd);
    assert(lane);
    for (struct link *at = udp->open.next, *next; at != &udp->open; at = next) {
        struct exchange *exchange = link_owner(at, struct exchange, open);
        next = at->next;
        if (exchange->lane_fd == lane_fd) exchange_close(udp, exchange);
    }
    close(lane_fd);
    lane->fd = -1;
}

/* Early in boot there may be none: then the case is guessable, the port is not. */
static uint64_t random_bits(void)
{
    uint64_t bits = 0;
    return getrandom(&bits, sizeof bits, GRND_NONBLOCK) == (ssize_t)sizeof bits ? bits : 0;
}

static struct exchange *exchange_take(struct dns_udp *udp)
{
    if (udp->exchanges.used == udp->exchanges.count)
        exchange_close(udp, link_owner(udp->open.next, struct exchange, open));
    return pool_at(&udp->exchanges, pool_take(&udp->exchanges));
}

/* What epoll says of it names slot and generation: it may be gone when it is looked at. */
static bool exchange_watch(struct dns_udp *udp, const struct exchange *exchange, int fd)
{
    uint32_t slot = slot_of(udp, exchange);
    struct epoll_event event = {.events = EPOLLIN,
                                .data.u64 = (uint64_t)pool_generation(&udp->exchanges, slot) << 32 | slot};
    return epoll_ctl(udp->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* When others have taken the last descriptor, the oldest question gives up its own. */
static int exchange_socket(struct dns_udp *udp, int family)
{
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 || (errno != EMFILE && errno != ENFILE) || link_is_empty(&udp->open)) return fd;
    exchange_close(udp, link_owner(udp->open.next, struct exchange, open));
    return socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int exchange_send(struct dns_udp *udp, struct exchange *exchange, const struct dns_lane *lane)
{
    int fd = exchange_socket(udp, lane->to.ss_family);
    if (fd < 0) return -errno;
    if (lane->strikes != NEVER_AGAIN) dns_mix_case(exchange->query, exchange->size, random_bits());
    const struct sockaddr *to = (const struct sockaddr *)&lane->to;
    int refused = dns_way_take(udp->way, fd, to, ring_now_ms(udp->ring));
    if (refused < 0) {
        close(fd);
        return refused;
    }
    if (connect(fd, to, lane->to_size) < 0 || send(fd, exchange->query, exchange->size, MSG_NOSIGNAL) < 0 ||
        !exchange_watch(udp, exchange, fd)) {
        int error = -errno;
        close(fd);
        return error;
    }
    exchange->fd = fd;
    return 0;
}

int dns_udp_send(struct dns_udp *udp, int lane_fd, const void *query, size_t size)
{
    const struct dns_lane *lane = lane_at(udp, lane_fd);
    if (!lane || !lane->known || size > QUERY_MAX) return -EINVAL;
    struct exchange *exchange = exchange_take(udp);
    *exchange = (struct exchange){.fd = -1, .lane_fd = lane_fd, .size = (uint16_t)size};
    exchange->deadline_ms = ring_now_ms(udp->ring) + udp->patience_ms;
    memcpy(exchange->query, query, size);
    int error = exchange_send(udp, exchange, lane);
    if (error < 0) {
        pool_give(&udp->exchanges, slot_of(udp, exchange));
        return error;
    }
    link_append(&udp->open, &exchange->open);
    return (int)size;
}

/* --- answers --- */

/* The question was answered in another case: by a server that does not keep it, or by somebody who guessed the rest.
 * Over TCP nobody guesses. */
static void exchange_doubt(struct dns_udp *udp, struct exchange *exchange)
{
    struct dns_lane *lane = lane_at(udp, exchange->lane_fd);
    uint8_t retry[QUERY_MAX];
    memcpy(retry, exchange->query, exchange->size);
    size_t size = dns_truncate(retry, exchange->size);
    if (lane && !lane->keeps_case && lane->strikes < STRIKES_MAX && ++lane->strikes == STRIKES_MAX) {
        lane->strikes = NEVER_AGAIN;
        LOGW("a name server does not keep the case of letters in questions: it is asked without 0x20");
    }
    int lane_fd = exchange->lane_fd;
    exchange_close(udp, exchange);
    udp->answered(udp->context, lane_fd, retry, size, 0);
}

/* True: the exchange is over. */
static bool exchange_judge(struct dns_udp *udp, struct exchange *exchange, const uint8_t *answer, size_t size)
{
    enum dns_match match = dns_match(exchange->query, exchange->size, answer, size);
    struct dns_lane *lane = lane_at(udp, exchange->lane_fd);
    bool careless = lane && lane->strikes == NEVER_AGAIN;
    if (match == DNS_DIFFERS || (match == DNS_CASE && !careless)) counter_add(udp->mismatched, 1);
    if (match == DNS_DIFFERS) return false;
    if (match == DNS_CASE && !careless) {
        exchange_doubt(udp, exchange);
        return true;
    }
    if (lane && match == DNS_SAME && !careless) {
        lane->keeps_case = true;
        lane->strikes = 0;
    }
    int lane_fd = exchange->lane_fd;
    exchange_close(udp, exchange);
    udp->answered(udp->context, lane_fd, answer, size, 0);
    return true;
}

static void exchange_read(struct dns_udp *udp, struct exchange *exchange)
{
    static _Thread_local uint8_t answer[ANSWER_MAX];
    for (unsigned i = 0; i < ANSWERS_MAX; i++) {
        ssize_t size = recv(exchange->fd, answer, sizeof answer, 0);
        if (size >= 0) {
            if (exchange_judge(udp, exchange, answer, (size_t)size)) return;
            continue;
        }
        if (errno == EINTR) continue;
        if (errno == EAGAIN) break;
        int error = -errno, lane_fd = exchange->lane_fd; /* ECONNREFUSED, by ICMP */
        exchange_close(udp, exchange);
        udp->answered(udp->context, lane_fd, NULL, 0, error);
        return;
    }
}

static struct ring_tag set_tag(const struct dns_udp *udp)
{
    return (struct ring_tag){.op = udp->op, .slot = DNS_UDP_SLOT};
}

static void set_arm(struct dns_udp *udp)
{
    ring_poll(udp->ring, udp->epoll_fd, POLLIN, set_tag(udp));
}

void dns_udp_on_completion(struct dns_udp *udp)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(udp->epoll_fd, events, EVENTS_MAX, 0);
    for (int i = 0; i < count; i++) {
        uint32_t slot = (uint32_t)events[i].data.u64, generation = (uint32_t)(events[i].data.u64 >> 32);
        if (pool_is_taken(&udp->exchanges, slot) && pool_generation(&udp->exchanges, slot) == generation)
            exchange_read(udp, pool_at(&udp->exchanges, slot));
    }
    set_arm(udp);
}

void dns_udp_on_time(struct dns_udp *udp, uint64_t now_ms)
{
    while (!link_is_empty(&udp->open)) {
        struct exchange *oldest = link_owner(udp->open.next, struct exchange, open);
        if (oldest->deadline_ms > now_ms) return;
        exchange_close(udp, oldest);
    }
}

/* --- opening --- */

int dns_udp_open(struct dns_udp *udp, uint32_t sockets_max)
{
    link_init(&udp->open);
    for (unsigned i = 0; i < DNS_LANES_MAX; i++) udp->lanes[i].fd = -1;
    udp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (udp->epoll_fd < 0) return -errno;
    int error = pool_open(&udp->exchanges, sockets_max, sizeof(struct exchange));
    if (error < 0)
        close(udp->epoll_fd);
    else
        set_arm(udp);
    return error;
}

void dns_udp_close(struct dns_udp *udp)
{
    while (!link_is_empty(&udp->open)) exchange_close(udp, link_owner(udp->open.next, struct exchange, open));
    for (unsigned i = 0; i < DNS_LANES_MAX; i++) assert(udp->lanes[i].fd < 0); /* c-ares has closed what it opened */
    pool_close(&udp->exchanges);
    ring_cancel(udp->ring, set_tag(udp));
    ring_close(udp->ring, udp->epoll_fd);
}
