/* udp: datagrams through SOCKS5 UDP ASSOCIATE (RFC 1928 section 7) to an echo and back. Each association has a number
 * of them in flight; one that does not come back in time is counted as lost, and its place gets another. */
#include "bench/pace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { IN_FLIGHT_MAX = 64, HEADER_SIZE = 10, DATAGRAM_MAX = HEADER_SIZE + 65507 };

#define LOST_NS (200 * UINT64_C(1000000))

/* What the first octets of a payload say. */
struct stamp {
    uint64_t serial;
    uint64_t place;
};

struct association {
    int fd;
    uint64_t serial;
    uint64_t serials[IN_FLIGHT_MAX]; /* of what is in flight in each place */
    uint64_t begun[IN_FLIGHT_MAX];   /* when it was sent or, at a rate, should have been */
    uint64_t sent[IN_FLIGHT_MAX];    /* when it was: one that had to wait is not lost */
    bool free[IN_FLIGHT_MAX];        /* at a rate: nothing is in flight there */
};

bool association_open(struct client *c, struct flow *f, const struct sockaddr_in *relay)
{
    struct association *a = calloc(1, sizeof *a);
    if (!a) die("out of memory");
    f->association = a;
    a->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (a->fd < 0 || connect(a->fd, (const struct sockaddr *)relay, sizeof *relay)) {
        flow_fail(c, f, strerror(errno));
        return false;
    }
    epoll_set(c->epoll, EPOLL_CTL_ADD, a->fd, EPOLLIN, (uint32_t)(f - c->flows) | KEY_ASSOCIATION);
    return true;
}

void association_close(struct flow *f)
{
    if (!f->association) return;
    if (f->association->fd >= 0) close(f->association->fd);
    free(f->association);
    f->association = NULL;
}

static void association_send(struct client *c, struct flow *f, unsigned place, uint64_t begin)
{
    static uint8_t datagram[DATAGRAM_MAX] = {[3] = 1};
    struct association *a = f->association;
    struct stamp stamp = {.serial = ++a->serial, .place = place};
    memcpy(datagram + 4, &f->target.sin_addr, 4);
    memcpy(datagram + 8, &f->target.sin_port, 2);
    memcpy(datagram + HEADER_SIZE, &stamp, sizeof stamp);
    memcpy(datagram + HEADER_SIZE + sizeof stamp, wire_block, c->o.message - sizeof stamp);
    a->serials[place] = stamp.serial;
    a->begun[place] = begin;
    a->sent[place] = clock_ns();
    a->free[place] = false;
    if (send(a->fd, datagram, HEADER_SIZE + c->o.message, MSG_DONTWAIT) < 0 && errno != EAGAIN) c->errors++;
}

/* At a rate: a free place takes the datagram that is due. Else, at the beginning, all places. */
static void udp_start(struct client *c, struct flow *f)
{
    struct association *a = f->association;
    if (!pace_holds(c, f)) {
        for (unsigned i = 0; i < c->o.in_flight; i++) association_send(c, f, i, clock_ns());
        return;
    }
    bool more = false, sent = false;
    for (unsigned i = 0; i < c->o.in_flight; i++) {
        bool unused = a->serials[i] == 0 || a->free[i];
        if (unused && !sent) {
            association_send(c, f, i, f->sent);
            sent = true;
        } else if (unused) {
            more = true;
        }
    }
    if (more) pace_rest(c, f);
}

static void udp_take(struct client *c, struct flow *f, const uint8_t *data, size_t size)
{
    struct association *a = f->association;
    struct stamp stamp;
    if (size != HEADER_SIZE + c->o.message) {
        c->mismatches++;
        return;
    }
    memcpy(&stamp, data + HEADER_SIZE, sizeof stamp);
    if (stamp.place >= c->o.in_flight ||
        memcmp(data + HEADER_SIZE + sizeof stamp, wire_block, c->o.message - sizeof stamp) != 0) {
        c->mismatches++;
        return;
    }
    if (stamp.serial != a->serials[stamp.place] || a->free[stamp.place]) return; /* counted as lost already */
    flow_count(c, f, a->begun[stamp.place]);
    if (!pace_holds(c, f)) {
        association_send(c, f, (unsigned)stamp.place, clock_ns());
        return;
    }
    a->free[stamp.place] = true;
    if (!f->rests) pace_rest(c, f);
}

void association_on_event(struct client *c, struct flow *f)
{
    if (f->phase != PHASE_RUN) return;
    for (unsigned i = 0; i < c->o.in_flight; i++) {
        ssize_t size = recv(f->association->fd, wire_scratch, BLOCK_SIZE, MSG_DONTWAIT);
        if (size < 0) return; /* nothing more, or the relay is gone: the control connection tells */
        udp_take(c, f, wire_scratch, (size_t)size);
    }
}

/* Looks for what was lost. */
static void udp_tick(struct client *c, struct flow *f)
{
    struct association *a = f->association;
    uint64_t now = clock_ns();
    for (unsigned i = 0; i < c->o.in_flight; i++) {
        if (a->serials[i] == 0 || a->free[i] || now < a->sent[i] + LOST_NS) continue;
        c->lost++;
        if (!pace_holds(c, f)) {
            association_send(c, f, i, now);
            continue;
        }
        a->free[i] = true;
        if (!f->rests) pace_rest(c, f);
    }
}

/* On the control connection nothing comes but its end. */
static void udp_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    ssize_t size = socket_discard(f->fd);
    if (size <= 0 && !would_block(size)) flow_fail_read(c, f, size);
}

const struct mode mode_udp = {.name = "udp", .start = udp_start, .run = udp_run, .tick = udp_tick};
