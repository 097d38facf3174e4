/* What each kind of measurement does with a flow that is open. */
#include "bench/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_SIZE = 64 }; /* a ping-pong message */

static void bulk_start(struct client *c, struct flow *f)
{
    c->bytes += f->got;
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
        c->bytes += (uint64_t)size;
    else if (!would_block(size))
        flow_fail_read(c, f, size);
}

static uint32_t bulk_events(const struct client *c)
{
    return c->o.upload ? EPOLLOUT : EPOLLIN;
}

static void rtt_start(struct client *c, struct flow *f)
{
    f->got = 0;
    f->sent = clock_ns();
    if (socket_send(f->fd, wire_block, MESSAGE_SIZE) != MESSAGE_SIZE) flow_fail(c, f, "short send");
}

static void rtt_run(struct client *c, struct flow *f, uint32_t events)
{
    (void)events;
    ssize_t size = recv(f->fd, wire_scratch, (size_t)(MESSAGE_SIZE - f->got), MSG_DONTWAIT);
    if (would_block(size)) return;
    if (size <= 0) {
        flow_fail_read(c, f, size);
        return;
    }
    f->got = (uint16_t)(f->got + size);
    if (f->got < MESSAGE_SIZE) return;
    histogram_add(&c->times, clock_ns() - f->sent);
    c->rounds++;
    rtt_start(c, f);
}

static void connect_done(struct client *c, struct flow *f)
{
    histogram_add(&c->times, clock_ns() - f->opened);
    c->rounds++;
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
const struct mode mode_rtt = {.name = "rtt", .start = rtt_start, .run = rtt_run};
const struct mode mode_connect = {.name = "connect", .start = connect_start, .run = connect_run, .churns = true};
const struct mode mode_idle = {.name = "idle", .start = idle_start, .run = idle_run};
const struct mode mode_verify = {.name = "verify", .start = verify_start, .run = verify_run, .events = verify_events};

const struct mode *mode_find(const char *name)
{
    static const struct mode *const modes[] = {&mode_bulk, &mode_rtt, &mode_connect, &mode_idle, &mode_verify};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(name, modes[i]->name) == 0) return modes[i];
    return NULL;
}
