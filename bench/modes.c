/* What each kind of measurement does with a flow that is open; http.c and udp.c have two more. */
#include "bench/origin.h"
#include "bench/pace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --check: is this what the source has sent at that place? */
static bool bulk_take(struct client *c, struct flow *f, const uint8_t *data, size_t size)
{
    c->bytes += size;
    f->at += size;
    if (!c->o.check || block_is_good(data, size, f->at - size)) return true;
    c->mismatches++;
    flow_fail(c, f, "the stream differs");
    return false;
}

/* An equal part of the whole, for the source of this flow. */
static bool bulk_say_pace(struct client *c, struct flow *f)
{
    uint64_t pace = c->o.pace > 0 ? (uint64_t)(c->o.pace * 1e6 / 8 / c->o.flows) : PACE_NONE;
    if (socket_send(f->fd, &pace, sizeof pace) == (ssize_t)sizeof pace) return true;
    flow_fail(c, f, strerror(errno));
    return false;
}

static void bulk_start(struct client *c, struct flow *f)
{
    if (bulk_take(c, f, f->head, f->got) && c->o.paced) bulk_say_pace(c, f);
}

static void bulk_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    ssize_t size;
    if (c->o.upload)
        size = socket_send(f->fd, wire_block, BLOCK_SIZE);
    else
        size = c->o.read ? recv(f->fd, wire_scratch, BLOCK_SIZE, MSG_DONTWAIT) : socket_discard(f->fd);
    if (size > 0)
        bulk_take(c, f, wire_scratch, (size_t)size);
    else if (!would_block(size))
        flow_fail_read(c, f, size);
}

static uint32_t bulk_events(const struct client *c)
{
    return c->o.upload ? EPOLLOUT : EPOLLIN;
}

/* False: the flow failed. */
static bool rtt_push(struct client *c, struct flow *f)
{
    while (f->put < c->o.message) {
        ssize_t size = socket_send(f->fd, wire_block + f->put, c->o.message - f->put);
        if (would_block(size)) return true;
        if (size < 0) {
            flow_fail(c, f, strerror(errno));
            return false;
        }
        f->put += (uint32_t)size;
    }
    return true;
}

static void rtt_start(struct client *c, struct flow *f)
{
    f->got = f->put = 0;
    rtt_push(c, f);
}

static void rtt_done(struct client *c, struct flow *f)
{
    flow_count(c, f, f->sent);
    if (pace_holds(c, f)) {
        pace_rest(c, f);
        return;
    }
    f->sent = clock_ns();
    rtt_start(c, f);
}

static void rtt_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    if (f->put < c->o.message && !f->rests && !rtt_push(c, f)) return;
    for (;;) {
        uint32_t wanted = f->rests ? 1 : c->o.message - f->got; /* at rest only an end is to be noticed */
        ssize_t size = recv(f->fd, wire_scratch, wanted, MSG_DONTWAIT);
        if (would_block(size)) return;
        if (size <= 0 || f->rests) {
            flow_fail_read(c, f, size > 0 ? 0 : size);
            return;
        }
        if (memcmp(wire_scratch, wire_block + f->got, (size_t)size) != 0) {
            c->mismatches++;
            flow_fail(c, f, "the echo differs");
            return;
        }
        f->got += (uint32_t)size;
        if ((uint32_t)size < wanted) return; /* it was empty then: another edge will come */
        if (f->got == c->o.message) {
            rtt_done(c, f);
            return;
        }
    }
}

/* A long message does not go out in one send. */
static uint32_t rtt_events(const struct client *c)
{
    return EPOLLIN | EPOLLRDHUP | EPOLLET | (c->o.message > 4096 ? (uint32_t)EPOLLOUT : 0);
}

static void connect_done(struct client *c, struct flow *f)
{
    flow_count(c, f, f->opened);
    if (c->o.orderly) {
        if (shutdown(f->fd, SHUT_WR))
            flow_fail(c, f, strerror(errno));
        else
            f->phase = PHASE_FINISH;
        return;
    }
    socket_close_with_reset(f->fd);
    flow_release(c, f);
}

static void connect_start(struct client *c, struct flow *f)
{
    if (!c->o.echo)
        connect_done(c, f);
    else if (socket_send(f->fd, wire_block, 1) != 1)
        flow_fail(c, f, strerror(errno));
}

static void connect_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    ssize_t size = recv(f->fd, wire_scratch, 1, MSG_DONTWAIT);
    if (size == 1)
        connect_done(c, f);
    else if (!would_block(size))
        flow_fail_read(c, f, size);
}

static void idle_start(struct client *c, struct flow *f)
{
    (void)c, (void)f;
}

/* An idle flow has nothing to say; if it has, or ends, it is no longer what we hold. */
static void idle_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    ssize_t size = socket_discard(f->fd);
    if (size <= 0 && !would_block(size)) flow_fail_read(c, f, size);
}

static void verify_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    if (!verify_pump(f->fd, f->verify)) {
        flow_fail(c, f, strerror(errno));
        return;
    }
    if (!f->verify->eof) return;
    bool good = verify_is_good(f->verify);
    if (!good) c->mismatches++;
    if (good) c->bytes += 2 * c->o.bytes;
    c->finished++;
    close(f->fd);
    flow_release(c, f);
}

static void verify_start(struct client *c, struct flow *f)
{
    f->verify = malloc(sizeof *f->verify);
    if (!f->verify) die("out of memory");
    verify_init(f->verify, false, clock_ns() * 31 + (uint64_t)(f - c->flows), c->o.bytes);
    verify_receive(f->verify, f->head, f->got);
    verify_run(c, f, 0);
}

static uint32_t verify_events(const struct client *c)
{
    (void)c;
    return EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
}

const struct mode mode_bulk = {.name = "bulk", .start = bulk_start, .run = bulk_run, .events = bulk_events};
const struct mode mode_rtt = {.name = "rtt", .start = rtt_start, .run = rtt_run, .events = rtt_events};
const struct mode mode_connect = {.name = "connect", .start = connect_start, .run = connect_run, .churns = true};
const struct mode mode_idle = {.name = "idle", .start = idle_start, .run = idle_run};
const struct mode mode_verify = {.name = "verify", .start = verify_start, .run = verify_run, .events = verify_events};

const struct mode *mode_find(const char *name)
{
    static const struct mode *const modes[] = {&mode_bulk,   &mode_rtt,  &mode_connect, &mode_idle,
                                               &mode_verify, &mode_http, &mode_udp};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(name, modes[i]->name) == 0) return modes[i];
    return NULL;
}
