#include "tests/sim_errands.h"

#include <errno.h>

#include "core/session/message.h"
#include "tests/sim_peers.h"

#define ROOM 4096u

static bool lent_act(struct lent *lent, uint64_t *wake_us)
{
    uint8_t octets[64];
    struct sim_conn *conn = lent->conn;
    if (!lent->open) return false;
    int32_t size = sim_read(conn, octets, sizeof octets);
    if (sim_now_us() < lent->leaves_us) {
        if (lent->leaves_us < *wake_us) *wake_us = lent->leaves_us;
        return size > 0;
    }
    sim_close(conn);
    lent->open = false;
    return true;
}

/* -1: no descriptor is left, or no connection. */
static int lent_open(struct lent *lent)
{
    int fd = sim_lend(&lent->conn, ROOM, ROOM);
    lent->open = fd >= 0;
    if (fd < 0) return -1;
    lent->leaves_us = sim_now_us() + sim_below(sim_chance(500) ? 20000 : 3000000);
    if (sim_chance(500)) sim_write(lent->conn, "hello", 5);
    return fd;
}

static void errands_dial(struct errands *e, void (*post)(const struct message *message))
{
    e->dial = (struct dial_errand){
        .errand.run = errand_dial, .fd = lent_open(&e->dialled), .timeout_ms = sim_between(1000, 8000)};
    if (e->dial.fd < 0) return;
    e->dialling = true;
    e->dial.target = (struct address){.kind = ADDRESS_IPV4, .port = PORT_DEAD, .ipv4 = {10, 9, 9, 9}};
    if (e->reaches && sim_chance(500)) e->dial.target.port = 1; /* where somebody may be */
    post(&(struct message){.kind = MESSAGE_ERRAND, .body = &e->dial});
}

static void errands_relay(struct errands *e, void (*post)(const struct message *message))
{
    e->relay = (struct relay_errand){.errand.run = errand_relay, .fds = {lent_open(&e->relayed[0]), -1}};
    if (e->relay.fds[0] < 0) return;
    e->relay.fds[1] = lent_open(&e->relayed[1]);
    if (e->relay.fds[1] < 0) {
        sim_take_back(e->relay.fds[0], e->relayed[0].conn);
        return;
    }
    e->relaying = true;
    post(&(struct message){.kind = MESSAGE_ERRAND, .body = &e->relay});
}

bool errands_act(struct errands *e, bool stopping, void (*post)(const struct message *message), uint64_t *wake_us)
{
    if (!e->on) return false;
    bool moved = lent_act(&e->dialled, wake_us);
    for (unsigned i = 0; i < 2; i++) moved |= lent_act(&e->relayed[i], wake_us);
    if (stopping || e->dials + e->relays >= 8) return moved;
    if (!e->dialling && !e->dialled.open && sim_chance(30)) errands_dial(e, post);
    if (!e->relaying && !e->relayed[0].open && !e->relayed[1].open && sim_chance(30)) errands_relay(e, post);
    return moved;
}

/* Once lent, a descriptor is closed by one side alone. */
static void take_back(int fd, const struct lent *lent, int32_t result, const char *what)
{
    if (fd >= 0 && result == 0) sim_fail("%s was done, but its descriptor came back", what);
    if (fd < 0 && result == -ENOBUFS) sim_fail("%s was refused, but its descriptor is gone", what);
    if (fd >= 0) sim_take_back(fd, lent->conn);
}

bool errands_hear(struct errands *e, const struct message *message)
{
    if (message->kind != MESSAGE_ERRAND) return false;
    if (message->body == &e->dial) {
        if (!e->dialling) sim_fail("a connection comes back that nobody has asked for");
        e->dialling = false;
        e->dials++;
        take_back(e->dial.fd, &e->dialled, message->result, "a connection");
        return true;
    }
    if (message->body != &e->relay) return false;
    if (!e->relaying) sim_fail("two sockets come back that nobody has lent");
    e->relaying = false;
    e->relays++;
    for (unsigned i = 0; i < 2; i++) take_back(e->relay.fds[i], &e->relayed[i], message->result, "a relay");
    return true;
}

void errands_check_ends(const struct errands *e)
{
    if (e->dialling || e->relaying) sim_fail("an errand was never sent back");
}
