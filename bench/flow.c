#include "bench/pace.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void client_note_error(struct client *c, const char *what)
{
    if (!c->first_error[0]) snprintf(c->first_error, sizeof c->first_error, "%s", what);
    c->errors++;
}

/* The flow is over and its slot free again; what becomes of it decides client_open_flows(). */
void flow_release(struct client *c, struct flow *f)
{
    assert(f->phase != PHASE_CLOSED);
    if (f->phase < PHASE_PARKED)
        c->opening--;
    else
        c->open--;
    f->phase = PHASE_CLOSED;
    f->fd = -1;
    free(f->verify);
    f->verify = NULL;
    association_close(f);
    pace_leave(c, f);
    c->closed[c->closed_count++] = (uint32_t)(f - c->flows);
}

void flow_fail(struct client *c, struct flow *f, const char *what)
{
    static const char *const phases[] = {"closed", "connect", "greeting", "auth",  "request",
                                         "fill",   "parked",  "run",      "finish"};
    char text[96];
    snprintf(text, sizeof text, "%s: %s", phases[f->phase], what);
    client_note_error(c, text);
    if (f->fd >= 0) socket_close_with_reset(f->fd);
    flow_release(c, f);
}

void flow_fail_read(struct client *c, struct flow *f, ssize_t result)
{
    flow_fail(c, f, result == 0 ? "end of stream" : strerror(errno));
}

/* Sends a handshake message. A fresh socket has room for it, so a short send is a failure like any other. */
static bool flow_say(struct client *c, struct flow *f, const void *data, size_t size, enum phase next)
{
    if (socket_send(f->fd, data, size) != (ssize_t)size) {
        flow_fail(c, f, strerror(errno));
        return false;
    }
    f->phase = next;
    f->head_size = 0;
    return true;
}

static void flow_request(struct client *c, struct flow *f)
{
    uint8_t text[VIA_MESSAGE_MAX];
    char name[NAMES_SIZE];
    bool associates = c->o.mode == &mode_udp;
    if (c->o.by_name) names_write(&f->target, c->o.fresh_names ? c->opened : 0, name);
    size_t size = associates ? via_write_associate(text)
                             : via_write_request(c->o.via, &f->target, c->o.by_name ? name : NULL, text);
    flow_say(c, f, text, size, PHASE_REQUEST);
}

static void flow_authenticate(struct client *c, struct flow *f)
{
    uint8_t text[VIA_MESSAGE_MAX];
    flow_say(c, f, text, via_write_credentials(c->o.user, c->o.password, text), PHASE_AUTH);
}

void flow_count(struct client *c, struct flow *f, uint64_t begin)
{
    (void)f;
    histogram_add(&c->times, clock_ns() - begin);
    c->rounds++;
}

void flow_run(struct client *c, struct flow *f)
{
    assert(f->phase == PHASE_PARKED);
    f->phase = PHASE_RUN;
    if (c->o.mode->events) epoll_set(c->epoll, EPOLL_CTL_MOD, f->fd, c->o.mode->events(c), (uint32_t)(f - c->flows));
    bool owes = f->owes;
    f->owes = false;
    /* Opening it again is part of what the first request takes; one that is owed has begun before. */
    if (!owes) f->sent = c->o.mode->churns ? f->opened : clock_ns();
    if (pace_holds(c, f) && !owes)
        pace_rest(c, f);
    else
        c->o.mode->start(c, f);
}

/* True: all that --fill wants is here. */
static bool flow_fill(struct client *c, struct flow *f)
{
    while (f->got < FILL_SIZE) {
        ssize_t size = socket_discard(f->fd);
        if (size <= 0 && !would_block(size)) flow_fail_read(c, f, size);
        if (size <= 0) return false;
        f->got += (uint32_t)size;
        c->bytes += (uint64_t)size;
    }
    return true;
}

/* The way to the target is open. `rest` octets of the target's own stream may lie in the head already. */
static void flow_park(struct client *c, struct flow *f, size_t rest)
{
    assert(f->phase < PHASE_PARKED);
    if (f->phase != PHASE_FILL && c->o.fill) c->bytes += rest; /* what came behind the reply */
    f->got = (uint32_t)rest;
    f->phase = PHASE_FILL;
    if (c->o.fill && !flow_fill(c, f)) return;
    f->phase = PHASE_PARKED;
    c->opening--, c->open++;
    if (c->o.mode->churns) flow_run(c, f);
}

static void flow_greet(struct client *c, struct flow *f)
{
    uint8_t text[VIA_MESSAGE_MAX];
    if (c->o.via == VIA_NONE || c->o.via == VIA_FORWARD || c->o.via == VIA_HTTP_PLAIN)
        flow_park(c, f, 0);
    else if (c->o.via == VIA_SOCKS5_AUTH || c->o.via == VIA_SOCKS5)
        flow_say(c, f, text, via_write_greeting(c->o.via, text), PHASE_GREETING);
    else
        flow_request(c, f);
}

static enum via_step step_of(enum phase phase)
{
    assert(phase == PHASE_GREETING || phase == PHASE_AUTH || phase == PHASE_REQUEST);
    if (phase == PHASE_GREETING) return VIA_GREETING;
    return phase == PHASE_AUTH ? VIA_CREDENTIALS : VIA_REQUEST;
}

static void flow_take_reply(struct client *c, struct flow *f, size_t size)
{
    if (!via_reply_is_good(c->o.via, step_of(f->phase), f->head, size)) {
        flow_fail(c, f, "refused by the proxy");
        return;
    }
    size_t rest = f->head_size - size;
    struct sockaddr_in relay = c->o.proxy;
    bool associates = c->o.mode == &mode_udp && f->phase == PHASE_REQUEST;
    if (associates) via_read_bound(f->head, &relay);
    memmove(f->head, f->head + size, rest);
    if (f->phase == PHASE_GREETING && c->o.via == VIA_SOCKS5_AUTH)
        flow_authenticate(c, f);
    else if (f->phase == PHASE_GREETING || f->phase == PHASE_AUTH)
        flow_request(c, f);
    else if (!associates || association_open(c, f, &relay))
        flow_park(c, f, rest);
}

static void flow_read_reply(struct client *c, struct flow *f)
{
    ssize_t size = recv(f->fd, f->head + f->head_size, (size_t)(HEAD_SIZE - f->head_size), MSG_DONTWAIT);
    if (would_block(size)) return;
    if (size <= 0) {
        flow_fail_read(c, f, size);
        return;
    }
    f->head_size = (uint16_t)(f->head_size + size);
    size_t wanted = via_reply_size(c->o.via, step_of(f->phase), f->head, f->head_size);
    if (wanted > 0 && f->head_size >= wanted)
        flow_take_reply(c, f, wanted);
    else if (f->head_size == HEAD_SIZE)
        flow_fail(c, f, "endless reply");
}

/* On loopback the handshake is over when connect() says EINPROGRESS; asking again saves a wait. */
static bool flow_is_connected(struct client *c, struct flow *f)
{
    const struct sockaddr_in *to = c->o.have_proxy ? &c->o.proxy : &f->target;
    assert(f->phase == PHASE_CONNECT);
    if (connect(f->fd, (const struct sockaddr *)to, sizeof *to) == 0 || errno == EISCONN) return true;
    if (errno == EINPROGRESS || errno == EALREADY || errno == EINTR) return false;
    flow_fail(c, f, strerror(errno));
    return false;
}

static int open_socket(const struct options *o)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    socket_set_nodelay(fd);
    if (!o->source.sin_family) return fd;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&o->source, sizeof o->source) == 0) return fd;
    close(fd);
    return -1;
}

/* Targets are taken in turn from `targets` neighbouring addresses: each has ephemeral ports of its own. */
static struct sockaddr_in client_next_target(const struct client *c)
{
    struct sockaddr_in target = c->o.target;
    uint32_t step = (uint32_t)(c->opened % c->o.targets);
    target.sin_addr.s_addr = htonl(ntohl(target.sin_addr.s_addr) + step);
    return target;
}

void flow_open(struct client *c, struct flow *f, uint64_t now)
{
    assert(f->phase == PHASE_CLOSED);
    f->phase = PHASE_CONNECT;
    f->target = client_next_target(c);
    f->got = f->put = f->rounds = 0;
    f->head_size = 0;
    f->at = 0;
    f->opened = now;
    f->fd = open_socket(&c->o);
    c->opening++, c->opened++;
    if (f->fd < 0) {
        flow_fail(c, f, strerror(errno));
        return;
    }
    bool connected = flow_is_connected(c, f) || (f->phase == PHASE_CONNECT && flow_is_connected(c, f));
    if (f->phase != PHASE_CONNECT) return;
    uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET | (connected ? 0 : (uint32_t)EPOLLOUT);
    epoll_set(c->epoll, EPOLL_CTL_ADD, f->fd, events, (uint32_t)(f - c->flows));
    if (connected) flow_greet(c, f);
}

static void flow_finish(struct client *c, struct flow *f)
{
    ssize_t size = socket_discard(f->fd);
    if (size > 0 || would_block(size)) return;
    if (size < 0) {
        flow_fail(c, f, strerror(errno));
        return;
    }
    close(f->fd);
    flow_release(c, f);
}

void flow_on_event(struct client *c, struct flow *f, uint32_t events)
{
    switch (f->phase) {
    case PHASE_CLOSED: /* the event of a connection that is gone */ break;
    case PHASE_CONNECT:
        if (flow_is_connected(c, f)) flow_greet(c, f);
        break;
    case PHASE_GREETING:
    case PHASE_AUTH:
    case PHASE_REQUEST: flow_read_reply(c, f); break;
    case PHASE_FILL: flow_park(c, f, f->got); break;
    case PHASE_PARKED:
        if (events & (EPOLLERR | EPOLLHUP)) flow_fail(c, f, "lost");
        break;
    case PHASE_RUN: c->o.mode->run(c, f, events); break;
    case PHASE_FINISH: flow_finish(c, f); break;
    }
}
