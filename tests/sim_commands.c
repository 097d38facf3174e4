#include "tests/sim_commands.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "protocols/address.h"

#define COMMANDS_MAX   6u
#define STREAM_MAX     3000u
#define ROOM           4096u
#define REPLY_SIZE     10u
#define GREETING_SIZE  2u
#define UDP_HEADER     10u
#define UDP_CLIENT     6000u
#define UDP_TARGET     7000u
#define UDP_STRANGER   7777u
#define UDP_RELAY      7100u       /* + hop of the chain */
#define CLIENT_HOST    0x0a636301u /* 10.99.99.1 */
#define PEER_HOST      0x0a636302u
#define TARGET_HOST    0x0a636303u
#define ALIAS_HOST     0x0a636304u
#define STRANGER_HOST  0x0a6363ffu
#define STRANGER_OCTET 0xee

static struct net_address at(uint32_t host, uint32_t port)
{
    struct address plain = {.kind = ADDRESS_IPV4, .port = (uint16_t)port};
    struct net_address address;
    host = htonl(host);
    memcpy(plain.ipv4, &host, sizeof plain.ipv4);
    net_address_from(&plain, &address);
    return address;
}

static uint32_t host_of(const struct net_address *address)
{
    struct sockaddr_in in;
    memcpy(&in, &address->storage, sizeof in);
    return ntohl(in.sin_addr.s_addr);
}

static uint16_t port_of(const struct net_address *address)
{
    struct sockaddr_in in;
    memcpy(&in, &address->storage, sizeof in);
    return ntohs(in.sin_port);
}

struct address commands_relay(unsigned hop)
{
    return (struct address){
        .kind = ADDRESS_IPV4, .port = (uint16_t)(UDP_RELAY + hop), .ipv4 = {10, 2, (uint8_t)hop, 0}};
}

void commands_redirect(struct address *target)
{
    struct net_address alias = at(ALIAS_HOST, UDP_TARGET), real = at(TARGET_HOST, UDP_TARGET);
    struct address plain;
    net_address_to(&alias, &plain);
    if (address_equal(target, &plain)) net_address_to(&real, target);
}

static uint16_t port_at(const uint8_t *data)
{
    return (uint16_t)(data[0] << 8 | data[1]);
}

static uint8_t octet_at(uint32_t index, bool up)
{
    return (uint8_t)(index * 31u + (index >> 8) + (up ? 0u : 101u));
}

/* --- a client and its replies --- */

static void wake_at(uint64_t when, uint64_t *wake_us)
{
    if (when > sim_now_us() && when < *wake_us) *wake_us = when;
}

/* The greeting and the request in one piece. False: there is no connection to be had. */
static bool commander_ask(struct commander *c, uint16_t port, uint8_t command, uint32_t host)
{
    uint8_t text[] = {5, 1, 0, 5, command, 0, 1, 0, 0, 0, 0, 0, 0};
    *c = (struct commander){.conn = sim_connect(port, ROOM, ROOM, sim_chance(100))};
    if (!c->conn) return false;
    host = htonl(host);
    memcpy(text + 7, &host, sizeof host);
    c->conn->far_address = at(CLIENT_HOST, 50000u + sim_below(1000));
    c->leaves_us = sim_now_us() + sim_below(sim_chance(300) ? 20000 : 4000000);
    return sim_write(c->conn, text, sizeof text) == sizeof text;
}

/* Whether it heard anything. 0 in *end: the connection has ended in order; -ECONNRESET: otherwise. */
static bool commander_hear(struct commander *c, int32_t *end)
{
    int32_t size = sim_read(c->conn, c->heard + c->heard_size, sizeof c->heard - c->heard_size);
    *end = size > 0 ? 1 : size;
    if (size <= 0) return false;
    c->heard_size += (uint32_t)size;
    return true;
}

static void commander_leave(struct commander *c)
{
    if (sim_chance(300))
        sim_reset(c->conn, ECONNRESET);
    else
        sim_close(c->conn);
    c->conn = NULL;
}

/* The reply at that place, once it is there whole. False: it is not, or it is a refusal, which *refused says. */
static const uint8_t *reply_at(const struct commander *c, uint32_t index, bool *refused)
{
    const uint8_t *reply = c->heard + GREETING_SIZE + index * REPLY_SIZE;
    *refused = c->heard_size >= GREETING_SIZE && c->heard[1] != 0;
    if (*refused || c->heard_size < GREETING_SIZE + (index + 1) * REPLY_SIZE) return NULL;
    if (c->heard[0] != 5 || reply[0] != 5 || reply[3] != 1) sim_fail("a command is answered with something malformed");
    *refused = reply[1] != 0;
    return *refused ? NULL : reply;
}

/* --- BIND --- */

static bool stream_write(struct bind_stream *s, struct sim_conn *to, bool up)
{
    uint8_t data[512];
    uint32_t size = s->to_send - s->sent < sizeof data ? s->to_send - s->sent : (uint32_t)sizeof data;
    if (size == 0) return false;
    for (uint32_t i = 0; i < size; i++) data[i] = octet_at(s->sent + i, up);
    uint32_t taken = (uint32_t)sim_write(to, data, size);
    s->sent += taken;
    return taken > 0;
}

static void stream_check(struct bind_stream *s, const uint8_t *data, uint32_t size, bool up)
{
    for (uint32_t i = 0; i < size; i++)
        if (data[i] != octet_at(s->received + i, up)) sim_fail("octet %u of a BIND's stream is wrong", s->received + i);
    s->received += size;
    if (s->received > s->sent) sim_fail("a BIND's stream delivers more than was sent");
}

static void stream_check_end(const struct bind_stream *s, bool broken)
{
    if (!broken && s->ended && s->received < s->sent)
        sim_fail("a BIND's stream ends in order behind %u of %u octets", s->received, s->sent);
}

static void bind_ask(struct commands *c)
{
    struct bind_plan *b = &c->bind;
    static const uint32_t hosts[] = {0, PEER_HOST};
    uint32_t host = hosts[sim_below(2)];
    memset(b, 0, sizeof *b);
    c->asked++;
    c->moved_us = sim_now_us();
    b->stranger = host != 0 && sim_chance(300);
    b->up.to_send = sim_below(STREAM_MAX);
    b->down.to_send = sim_below(STREAM_MAX);
    if (!commander_ask(&b->client, c->port, 2, host) && b->client.conn) commander_leave(&b->client);
}

/* What the client reads: two replies, then the stream. */
static bool bind_client_reads(struct bind_plan *b)
{
    struct commander *client = &b->client;
    const uint32_t heads = GREETING_SIZE + 2 * REPLY_SIZE;
    uint8_t data[512];
    bool refused;
    int32_t end = 1;
    if (client->heard_size < heads) {
        uint32_t room = heads - client->heard_size;
        int32_t size = sim_read(client->conn, client->heard + client->heard_size, room);
        if (size > 0) client->heard_size += (uint32_t)size;
        if (reply_at(client, 1, &refused) && b->stranger) sim_fail("a BIND has taken a stranger for its peer");
        if (size == 0 || size == -ECONNRESET) b->client.leaves_us = 0; /* there is nothing more to come */
        return size > 0;
    }
    end = sim_read(client->conn, data, sizeof data);
    if (end > 0) stream_check(&b->down, data, (uint32_t)end, false);
    if (end == 0) stream_check_end(&b->down, b->down.closed);
    return end > 0;
}

static bool bind_peer_reads(struct bind_plan *b)
{
    uint8_t data[512];
    int32_t end = sim_read(b->peer, data, sizeof data);
    if (end > 0) stream_check(&b->up, data, (uint32_t)end, true);
    if (end == 0) stream_check_end(&b->up, b->up.closed);
    return end > 0;
}

static bool bind_peer_comes(struct commands *c)
{
    struct bind_plan *b = &c->bind;
    bool refused;
    const uint8_t *reply = reply_at(&b->client, 0, &refused);
    if (!reply || b->came || !sim_chance(200)) return false;
    b->came = true;
    b->peer = sim_connect(port_at(reply + 8), ROOM, ROOM, sim_chance(100));
    if (b->peer) b->peer->far_address = at(b->stranger ? STRANGER_HOST : PEER_HOST, 20);
    return true;
}

/* Announces the end when all is sent, or just goes. */
static void bind_end(struct sim_conn **conn, struct bind_stream *s)
{
    if (s->sent == s->to_send && !s->ended && sim_chance(700)) {
        sim_end(*conn);
        s->ended = true;
        return;
    }
    s->closed = true;
    if (sim_chance(300))
        sim_reset(*conn, ECONNRESET);
    else
        sim_close(*conn);
    *conn = NULL;
}

static bool bind_act(struct commands *c, uint64_t *wake_us)
{
    struct bind_plan *b = &c->bind;
    bool moved = false, refused, over = sim_now_us() >= b->client.leaves_us;
    wake_at(b->client.leaves_us, wake_us);
    if (b->client.conn) {
        moved |= bind_client_reads(b) || bind_peer_comes(c);
        if (reply_at(&b->client, 1, &refused)) moved |= stream_write(&b->up, b->client.conn, true);
        if (over || refused) bind_end(&b->client.conn, &b->up);
    }
    if (b->peer) {
        moved |= bind_peer_reads(b);
        if (reply_at(&b->client, 1, &refused)) moved |= stream_write(&b->down, b->peer, false);
        if (over) bind_end(&b->peer, &b->down);
    }
    return moved || (over && (b->client.conn || b->peer));
}

/* --- UDP ASSOCIATE --- */

static void udp_ask(struct commands *c)
{
    struct udp_plan *u = &c->udp;
    u->at.size = u->outer.size = 0; /* the counters go on: what the last one has sent may be on its way still */
    u->home = at(CLIENT_HOST, UDP_CLIENT);
    c->asked++;
    c->moved_us = sim_now_us();
    if (!commander_ask(&u->client, c->port, 3, 0) && u->client.conn) commander_leave(&u->client);
}

static void udp_learn(struct commands *c)
{
    bool refused;
    const uint8_t *reply = reply_at(&c->udp.client, 0, &refused);
    if (refused) c->udp.client.leaves_us = 0;
    if (!reply || c->udp.at.size > 0) return;
    c->udp.at = at(0x7f000001, port_at(reply + 8));
}

/* From the client, or from somebody else who would like to be. */
static void udp_say(const struct commands *c, struct udp_plan *u)
{
    uint8_t data[UDP_HEADER + 64] = {0, 0, (uint8_t)(sim_chance(50) ? 1 : 0), 1};
    uint32_t host = htonl(c->ruled && sim_chance(300) ? ALIAS_HOST : TARGET_HOST),
             size = UDP_HEADER + 1 + sim_below(60);
    bool stranger = sim_chance(100);
    struct net_address from = stranger ? at(STRANGER_HOST, UDP_STRANGER) : u->home;
    memcpy(data + 4, &host, sizeof host);
    data[8] = UDP_TARGET >> 8;
    data[9] = UDP_TARGET & 0xff;
    memset(data + UDP_HEADER, stranger ? STRANGER_OCTET : (int)(u->sent & 0x7f), size - UDP_HEADER);
    if (sim_datagram(port_of(&u->at), &from, data, size) && !stranger) u->sent++;
}

static size_t put_header(uint8_t *out, const struct net_address *address)
{
    uint32_t host = htonl(host_of(address));
    uint16_t port = htons(port_of(address));
    memcpy(out, "\0\0\0\1", 4);
    memcpy(out + 4, &host, sizeof host);
    memcpy(out + 8, &port, sizeof port);
    return UDP_HEADER;
}

static struct net_address relay_at(unsigned hop)
{
    struct address plain = commands_relay(hop);
    struct net_address address;
    net_address_from(&plain, &address);
    return address;
}

/* From a target that has been sent to, or from somebody else; by way of the proxies, of which one may be wrong, too. */
static void udp_answer(const struct commands *c, struct udp_plan *u)
{
    bool stranger = sim_chance(200);
    uint8_t data[64 + UDP_HEADER * 8], *payload = data;
    struct net_address source = at(stranger ? STRANGER_HOST : TARGET_HOST, stranger ? UDP_STRANGER : UDP_TARGET),
                       from = source;
    unsigned liar = c->hops > 0 && stranger ? sim_below(c->hops) : 8;
    if (c->hops > 0) {
        from = liar == 0 ? source : relay_at(0);
        for (unsigned i = 1; i < c->hops; i++) {
            struct net_address relay = liar == i ? source : relay_at(i);
            payload += put_header(payload, &relay);
        }
        payload += put_header(payload, &source);
    }
    memset(payload, stranger ? STRANGER_OCTET : 0x55, 64);
    sim_datagram(port_of(&u->outer), &from, data, (size_t)(payload - data) + 1 + sim_below(63));
}

static bool udp_act(struct commands *c, uint64_t *wake_us)
{
    struct udp_plan *u = &c->udp;
    int32_t end;
    if (!u->client.conn) return false;
    bool moved = commander_hear(&u->client, &end);
    udp_learn(c);
    wake_at(u->client.leaves_us, wake_us);
    if (end == 0 || end == -ECONNRESET || sim_now_us() >= u->client.leaves_us) {
        commander_leave(&u->client);
        return true;
    }
    for (uint32_t i = u->at.size > 0 ? sim_below(4) : 0; i > 0; i--) udp_say(c, u);
    if (u->outer.size > 0 && sim_chance(300)) udp_answer(c, u);
    wake_at(sim_now_us() + 20000, wake_us); /* what it says wakes nobody else */
    return moved;
}

/* --- both --- */

/* Where a datagram goes that has left the proxy: behind the headers of the chain. */
static struct net_address take_headers(const struct commands *c, const struct net_address *to, const uint8_t **data,
                                       size_t *size)
{
    if (c->hops == 0) return *to;
    for (unsigned i = 0; i <= c->hops; i++) {
        struct net_address next = *to, relay = relay_at(i);
        if (i > 0) {
            uint32_t host;
            if (*size <= UDP_HEADER || (*data)[3] != 1) sim_fail("a datagram for a proxy has no header");
            memcpy(&host, *data + 4, sizeof host);
            next = at(ntohl(host), port_at(*data + 8));
            *data += UDP_HEADER;
            *size -= UDP_HEADER;
        }
        if (i == c->hops) return next;
        if (host_of(&next) != host_of(&relay) || port_of(&next) != port_of(&relay))
            sim_fail("a datagram goes past proxy %u of the chain", i);
    }
    return *to;
}

/* Nobody but the client is ever heard by a target, and nobody but a target by the client. */
void commands_on_datagram(struct commands *c, const struct net_address *from, const struct net_address *to,
                          const uint8_t *data, size_t size)
{
    struct udp_plan *u = &c->udp;
    bool down = host_of(to) == CLIENT_HOST;
    struct net_address target = down ? *to : take_headers(c, to, &data, &size);
    size_t header = down ? UDP_HEADER : 0;
    if (size <= header) sim_fail("a datagram without its payload has left the proxy");
    if (data[header] == STRANGER_OCTET) sim_fail("a stranger's datagram has been passed on");
    if (down && (port_of(to) != port_of(&u->home) || port_at(data + 8) != UDP_TARGET))
        sim_fail("an answer has gone to another client's port, or in another target's name");
    if (!down && (host_of(&target) != TARGET_HOST || port_of(&target) != UDP_TARGET))
        sim_fail("a datagram has gone to a target that nobody has named");
    for (size_t i = header; i < size; i++)
        if (data[i] != data[header]) sim_fail("a datagram was changed on its way");
    if (down) return;
    u->outer = *from;
    if (++u->arrived > u->sent) sim_fail("more datagrams have arrived than were sent");
}

bool commands_act(struct commands *c, bool stopping, uint64_t *wake_us)
{
    if (!c->on) return false;
    if (!commands_all_gone(c)) c->moved_us = sim_now_us();
    bool moved = bind_act(c, wake_us);
    moved |= udp_act(c, wake_us);
    if (stopping || c->asked >= COMMANDS_MAX) return moved;
    if (!c->bind.client.conn && !c->bind.peer && sim_chance(30)) bind_ask(c);
    if (!c->udp.client.conn && sim_chance(30)) udp_ask(c);
    return moved;
}

bool commands_all_gone(const struct commands *c)
{
    return !c->bind.client.conn && !c->bind.peer && !c->udp.client.conn;
}
