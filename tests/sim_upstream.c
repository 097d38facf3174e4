/* The upstreams: targets, and the proxies of a chain on the way to them. */
#include "tests/sim_peers_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "protocols/http_connect.h"
#include "protocols/proxy_header.h"
#include "protocols/socks4.h"
#include "protocols/socks5.h"
#include "tests/sim_commands.h"
#include "tests/sim_lists.h"

static void upstream_find_target(struct peers *peers, struct upstream *u, const struct address *asked)
{
    uint32_t index = asked->port - PORT_TARGET;
    for (uint32_t i = 0; i < peers->tunnel_count; i++)
        if (peers->tunnels[i].garbage && index >= peers->tunnel_count) { /* it may have asked for anything */
            u->actor.quiet = true;
            return;
        }
    if (index >= peers->tunnel_count || !address_equal(asked, &peers->tunnels[index].target)) {
        sim_fail("the last proxy is asked for a target that no client has named, port %u", asked->port);
    }
    u->tunnel = &peers->tunnels[index];
    peers_check_allowed(peers, u->tunnel, u->tunnel->begun_us);
}

static void upstream_begin_stream(const struct peers *peers, struct upstream *u)
{
    struct tunnel *t = u->tunnel;
    struct actor *a = &u->actor;
    a->out_base = t->client.in_base;
    a->to_send = t->client.to_receive;
    a->in_base = t->client.out_base;
    a->to_receive = t->client.to_send;
    a->manner = t->upstream_manner;
    a->fault = t->upstream_fault;
    a->fault_at = t->upstream_fault_at + a->moved;
    a->sends_stream = a->reads_stream = !tunnel_is_http(t);
    actor_plan_pace(a, true);
    if (a->gulp < t->client.say_size / 40) a->gulp = t->client.say_size / 40;
    if (tunnel_is_http(t)) a->nap_us = 0;
    u->announced = peers->config->listeners[t->listener].send_proxy > 0;
    if (u->announced) a->reads_stream = false; /* until the header has come */
    if (t->speech != SPEECH_SEQUENCE) return;
    a->manner = (uint8_t)(sim_chance(500) ? END_FIRST : END_LAST);
    u->weariness = (uint8_t)sim_below(WEARY_KINDS);
    u->answers_max = sim_between(1, SEQUENCE_MAX + 1);
}

static void hop_check_next(struct peers *peers, struct upstream *u, const struct address *asked)
{
    const struct config *config = peers->config;
    if (u->hop + 1u < config->hop_count) {
        if (!address_equal(asked, &config->hops[u->hop + 1].address))
            sim_fail("proxy %u of the chain is asked for something else than the next", u->hop);
        return;
    }
    upstream_find_target(peers, u, asked);
}

/* This proxy has heard all: it answers and becomes the next one, or the target. */
static void hop_grant(struct peers *peers, struct upstream *u, const struct address *asked)
{
    uint8_t out[64];
    struct actor *a = &u->actor;
    uint32_t pad = plan_pad(40 * a->chunk);
    char head[8192];
    hop_check_next(peers, u, asked);
    if (a->quiet) return;
    switch (peers->config->hops[u->hop].scheme) {
    case PROXY_SOCKS4A: actor_say(a, out, socks4_write_reply(out, sizeof out, SOCKS4_GRANTED)); break;
    case PROXY_SOCKS5: actor_say(a, "\5\0\0\1\1\2\3\4\5\6", 10); break;
    case PROXY_HTTP:
        if (sim_chance(100)) actor_say(a, "HTTP/1.1 102 Processing\r\n\r\n", 27);
        actor_say(a, head, (size_t)snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nPad: %0*u\r\n\r\n", (int)pad, 0u));
        break;
    }
    a->say_limit = a->say_size;
    u->stage = 0;
    u->hop++;
    if (u->hop == peers->config->hop_count) upstream_begin_stream(peers, u);
}

/* BIND and UDP ASSOCIATE, which only the proxy is asked for that a connection ends at. The one is not to be had. */
static void hop_grant_command(struct upstream *u, uint8_t command)
{
    struct actor *a = &u->actor;
    struct address relay = commands_relay(u->hop);
    uint8_t out[SOCKS5_REPLY_SIZE_MAX];
    bool granted = command == SOCKS5_UDP_ASSOCIATE;
    actor_say(a, out,
              socks5_write_reply(out, sizeof out, granted ? SOCKS5_SUCCEEDED : SOCKS5_COMMAND_NOT_SUPPORTED,
                                 granted ? &relay : NULL));
    a->say_limit = a->say_size;
    a->deaf = false;
    u->trouble = 2; /* says nothing more */
    u->associated = granted;
}

static void hop_refuse(struct peers *peers, struct upstream *u)
{
    struct actor *a = &u->actor;
    uint8_t garbage[40];
    uint32_t kind = sim_below(5);
    switch (kind) {
    case 0:
        sim_reset(a->conn, ECONNRESET);
        a->gone = true;
        return;
    case 1: actor_leave(a); return;
    case 2: a->quiet = true; return;
    case 3:
        for (uint32_t i = 0; i < sizeof garbage; i++) garbage[i] = (uint8_t)sim_below(256);
        actor_say(a, garbage, sizeof garbage);
        break;
    default:
        if (peers->config->hops[u->hop].scheme == PROXY_HTTP)
            actor_say(a, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 45);
        else if (peers->config->hops[u->hop].scheme == PROXY_SOCKS4A)
            actor_say(a, "\0\x5b\0\0\0\0\0\0", 8);
        else
            actor_say(a, u->stage == 0 ? "\5\xff" : "\5\5\0\1\1\2\3\4\5\6", u->stage == 0 ? 2 : 10);
    }
    a->say_limit = a->say_size;
    a->deaf = false;
    u->trouble = 2; /* says nothing more */
}

static enum parse_result hop_read_http(const struct actor *a, struct address *asked, size_t *used)
{
    struct http_head head;
    size_t scanned = 0;
    enum parse_result parsed = http_parse_request(a->heard, a->heard_size, &scanned, &head, used);
    if (parsed != PARSE_OK) return parsed;
    return http_parse_authority(a->heard, head.target, asked) ? PARSE_OK : PARSE_BAD;
}

static enum parse_result hop_read_socks5(struct upstream *u, const struct proxy_uri *proxy, struct address *asked,
                                         bool *final, size_t *used)
{
    struct actor *a = &u->actor;
    struct socks5_request request;
    struct credentials given;
    uint8_t method;
    enum parse_result parsed;
    bool secret = proxy->credentials.present;
    *final = false;
    if (u->stage == 0) {
        parsed = socks5_parse_greeting(a->heard, a->heard_size, secret, &method, used);
        if (parsed == PARSE_OK) actor_say(a, secret ? "\5\2" : "\5\0", 2);
        return parsed;
    }
    if (u->stage == 1 && secret) {
        parsed = socks5_parse_auth(a->heard, a->heard_size, &given, used);
        if (parsed == PARSE_OK && strcmp(given.password, proxy->credentials.password) != 0)
            sim_fail("proxy %u of the chain is given the wrong password", u->hop);
        if (parsed == PARSE_OK) actor_say(a, "\1\0", 2);
        return parsed;
    }
    *final = true;
    parsed = socks5_parse_request(a->heard, a->heard_size, &request, used);
    if (parsed == PARSE_OK) *asked = request.target;
    u->command = parsed == PARSE_OK ? request.command : SOCKS5_CONNECT;
    return parsed;
}

/* One message of the handshake with the proxy that this upstream plays now. False: more octets are needed. */
static bool hop_hears_one(struct peers *peers, struct upstream *u)
{
    struct actor *a = &u->actor;
    const struct proxy_uri *proxy = &peers->config->hops[u->hop];
    struct socks4_request request;
    struct address asked = {.kind = ADDRESS_NONE};
    enum parse_result parsed = PARSE_BAD;
    bool final = true;
    size_t used = 0;
    switch (proxy->scheme) {
    case PROXY_HTTP: parsed = hop_read_http(a, &asked, &used); break;
    case PROXY_SOCKS5: parsed = hop_read_socks5(u, proxy, &asked, &final, &used); break;
    case PROXY_SOCKS4A:
        parsed = socks4_parse_request(a->heard, a->heard_size, &request, &used);
        if (parsed == PARSE_OK) asked = request.target;
        break;
    }
    if (parsed == PARSE_MORE) return false;
    if (parsed != PARSE_OK) sim_fail("proxy %u of the chain is asked something malformed", u->hop);
    actor_forget(a, used);
    u->asked += used;
    u->stage++;
    a->say_limit = a->say_size;
    if (u->trouble == 1 && sim_chance(400))
        hop_refuse(peers, u);
    else if (final && u->command != SOCKS5_CONNECT)
        hop_grant_command(u, u->command);
    else if (final)
        hop_grant(peers, u, &asked);
    return true;
}

/* The head of a plain HTTP request has come: what follows is its body. False: it is not complete. */
static bool post_hears_head(struct upstream *u)
{
    struct actor *a = &u->actor;
    struct http_head head;
    char answer[SAY_MAX];
    size_t scanned = 0, used;
    uint32_t pace = sim_least(a->chunk, u->tunnel->client.gulp);
    enum parse_result parsed = http_parse_request(a->heard, a->heard_size, &scanned, &head, &used);
    if (parsed == PARSE_MORE) return false;
    if (parsed != PARSE_OK || !http_span_equals(a->heard, head.target, "/path"))
        sim_fail("the upstream of tunnel %u got a malformed request", u->tunnel->index);
    actor_forget(a, used);
    actor_say(a, answer,
              (size_t)snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nPad: %0*u\r\nContent-Length: %u\r\n\r\n",
                               (int)plan_pad(sim_least(PAD_MAX, 40 * pace)), 0u, a->to_send));
    a->reads_stream = true;
    return true;
}

/* It ends the connection, whatever is on its way to it. */
static void sequence_end(struct upstream *u)
{
    static const char timeout[] = "HTTP/1.1 408 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    struct actor *a = &u->actor;
    u->weary_us = 0;
    u->trouble = 2; /* does not care any more what it is told */
    if (u->weariness == WEARY_RESET) {
        sim_reset(a->conn, ECONNRESET);
        a->gone = true;
        return;
    }
    if (u->weariness == WEARY_408) actor_say(a, timeout, sizeof timeout - 1);
    a->say_limit = a->say_size;
    a->manner = END_FIRST;
    a->sends_stream = a->reads_stream = true;
}

/* The response is said. Where the connection does not go on, nothing may follow, or its end is not far. */
static void sequence_tire(struct upstream *u)
{
    struct actor *a = &u->actor;
    if (++u->answers < u->answers_max) return;
    if (u->weariness == WEARY_SAYS)
        a->sends_stream = a->reads_stream = true;
    else
        u->weary_us = sim_now_us() + sim_below(sim_chance(500) ? 20000 : 20000000);
}

/* Each request is judged by itself, behind the one before. */
static void sequence_check_allowed(const struct peers *peers, const struct upstream *u)
{
    const struct tunnel *t = u->tunnel;
    uint32_t request = u->reader.request;
    uint64_t since_us = request > 0 ? t->sequence.heard_us[request - 1] : t->begun_us;
    peers_check_allowed(peers, t, since_us);
    if (peers->lists && peers->config->hop_count == 0 && !peers_have_garbage(peers))
        sim_lists_check_reuse(peers->lists, t, u->actor.conn->way, since_us);
}

/* A request of a sequence has come. On a connection that has carried one it may meet the connection's end. */
static bool sequence_hears_request(const struct peers *peers, struct upstream *u)
{
    struct actor *a = &u->actor;
    struct tunnel *t = u->tunnel;
    static uint8_t out[SAY_MAX];
    size_t used, answer;
    uint64_t closed_us = a->conn->near_closed ? a->conn->near_closed_us : UINT64_MAX;
    bool weary = u->answers >= u->answers_max;
    bool last = u->answers + 1 == u->answers_max && u->weariness == WEARY_SAYS;
    bool whole = sequence_hear_request(&t->sequence, &u->reader, a->heard, a->heard_size, &used, closed_us, last, out,
                                       sizeof out, &answer);
    actor_forget(a, used);
    if (u->answers > 0 && u->reader.in_body && !t->sequence.repeatable[u->reader.request])
        sim_fail("a POST of tunnel %u comes on a connection that may have ended", t->index);
    if (!whole) return false;
    sequence_check_allowed(peers, u);
    if (weary) {
        sequence_end(u);
        return true;
    }
    if (a->say_sent == a->say_size) a->say_sent = a->say_size = 0;
    actor_say(a, out, answer);
    a->say_limit = a->say_size;
    sequence_tire(u);
    return true;
}

/* Its time is over, and what it has said is read; or its other side has ended the connection. */
static bool sequence_act(struct upstream *u, uint64_t *wake_us)
{
    struct actor *a = &u->actor;
    if (a->gone || !u->tunnel || u->tunnel->speech != SPEECH_SEQUENCE) return false;
    if (a->saw_end) a->sends_stream = a->reads_stream = true;
    if (u->weary_us == 0 || a->sends_stream || a->say_sent < a->say_size || a->conn->in.used > 0) return false;
    if (u->weary_us > sim_now_us()) {
        if (u->weary_us < *wake_us) *wake_us = u->weary_us;
        return false;
    }
    sequence_end(u);
    return true;
}

/* The header in front of the stream names the client, as the one in front of it did. False: it is not complete. */
static bool upstream_hears_header(const struct peers *peers, struct upstream *u)
{
    struct actor *a = &u->actor;
    struct tunnel *t = u->tunnel;
    struct proxy_header header;
    struct address plain = client_address(t);
    size_t used;
    enum parse_result parsed = proxy_header_parse(a->heard, a->heard_size, &header, &used);
    if (parsed == PARSE_MORE) return false;
    if (parsed != PARSE_OK) sim_fail("the upstream of tunnel %u got a malformed PROXY header", t->index);
    if (!peers->behind && !net_address_to(&t->client.conn->far_address, &plain))
        sim_fail("a client without an address");
    struct address told = host_port_address(&header.client);
    if (!address_equal(&told, &plain)) sim_fail("the upstream of tunnel %u is told another client", t->index);
    if ((a->heard[0] == 'P') != (peers->config->listeners[t->listener].send_proxy == 1))
        sim_fail("the upstream of tunnel %u gets a header of the wrong version", t->index);
    actor_forget(a, used);
    a->reads_stream = true;
    return true;
}

struct upstream_self {
    struct peers *peers;
    struct upstream *upstream;
};

static bool upstream_hears_one(struct peers *peers, struct upstream *u)
{
    if (u->hop < peers->config->hop_count) return hop_hears_one(peers, u);
    if (u->announced) return upstream_hears_header(peers, u);
    return u->tunnel->speech == SPEECH_SEQUENCE ? sequence_hears_request(peers, u) : post_hears_head(u);
}

static void upstream_hears(void *self, const uint8_t *data, uint32_t size)
{
    struct upstream *u = ((struct upstream_self *)self)->upstream;
    struct peers *peers = ((struct upstream_self *)self)->peers;
    struct actor *a = &u->actor;
    if (u->trouble == 2) return;
    while (!a->reads_stream && size > 0) {
        uint32_t part = sim_least(size, SAY_MAX - a->heard_size);
        if (part == 0) sim_fail("a proxy of the chain is asked without end");
        actor_remember(a, data, part);
        data += part;
        size -= part;
        while (!a->reads_stream && !a->gone && !a->quiet && u->trouble < 2 && upstream_hears_one(peers, u)) {
        }
        if (a->gone || a->quiet || u->trouble == 2) return;
    }
    if (!a->reads_stream) return;
    uint32_t left = a->heard_size;
    a->heard_size = 0;
    actor_check(a, a->heard, left, "upstream", u->tunnel->index);
    actor_check(a, data, size, "upstream", u->tunnel->index);
    if (u->tunnel->speech != SPEECH_POST || a->received < a->to_receive) return;
    a->say_limit = a->say_size; /* the request is complete: now it is answered */
    a->sends_stream = true;
}

static uint16_t port_of(const struct net_address *address)
{
    struct address plain;
    return net_address_to(address, &plain) ? plain.port : 0;
}

void peers_on_connect(void *self, const struct net_address *to, struct sim_verdict *verdict)
{
    struct peers *peers = self;
    struct address plain;
    uint32_t tunnel = port_of(to) - PORT_TARGET;
    *verdict = (struct sim_verdict){.delay_us = sim_below(3000), .no_splice = sim_chance(20)};
    verdict->room_in = sim_between(1024, peers->room_max);
    verdict->room_out = sim_between(1024, peers->room_max);
    if (port_of(to) == PORT_DEAD) {
        verdict->error = -ECONNREFUSED;
        verdict->never = !peers->calm && sim_chance(100);
    } else if (peers->config->hop_count > 0) {
        if (peers->hop_trouble && sim_chance(100)) verdict->error = -ECONNREFUSED;
    } else if (tunnel < peers->tunnel_count && net_address_to(to, &plain)) {
        int outcome = peers->tunnels[tunnel].outcomes[plain.ipv4[3] % ADDRESSES_MAX];
        verdict->never = outcome == 1;
        verdict->error = outcome < 0 ? outcome : 0;
        verdict->owner = &peers->tunnels[tunnel];
        verdict->way = plain.ipv4[3] % ADDRESSES_MAX;
        peers_check_allowed(peers, &peers->tunnels[tunnel], peers->tunnels[tunnel].begun_us);
        if (peers->lists && plain.ipv4[3] < ADDRESSES_MAX)
            sim_lists_check_connect(peers->lists, &peers->tunnels[tunnel], plain.ipv4[3]);
    } else if (sim_chance(500)) {
        verdict->error = -ECONNREFUSED;
    }
    if (!peers->calm && sim_chance(100)) verdict->delay_us = sim_below(2000000);
}

void peers_on_established(struct peers *peers, struct sim_conn *conn)
{
    if (peers->upstream_count == UPSTREAMS_MAX) sim_fail("too many upstreams");
    struct upstream *u = &peers->upstreams[peers->upstream_count++];
    memset(u, 0, sizeof *u);
    u->command = SOCKS5_CONNECT;
    peers_give_words(&u->actor, TUNNELS_MAX + peers->upstream_count - 1);
    u->actor.conn = conn;
    u->tunnel = conn->owner;
    u->actor.chunk = u->actor.gulp = 1 + sim_below(200);
    if (peers->config->hop_count == 0 && !u->tunnel)
        u->actor.quiet = true; /* garbage has led here */
    else if (peers->config->hop_count == 0)
        upstream_begin_stream(peers, u);
    else if (peers->hop_trouble && sim_chance(400))
        u->trouble = 1;
}

bool upstream_act(struct peers *peers, struct upstream *u, uint64_t *wake_us)
{
    struct upstream_self self = {peers, u};
    if (u->associated && !u->actor.gone && sim_chance(1)) { /* a proxy that ends an association */
        sim_reset(u->actor.conn, ECONNRESET);
        u->actor.gone = true;
    }
    bool moved = actor_act(&u->actor, upstream_hears, &self, wake_us);
    return sequence_act(u, wake_us) || moved;
}
