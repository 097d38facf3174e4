#include "tests/sim_peers.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "protocols/http_connect.h"
#include "protocols/socks4.h"
#include "protocols/socks5.h"

/* All streams are cut from the same octets. The period is a prime, so that what arrives in the wrong place shows. */
#define OCTETS_PERIOD 65521u
#define CHUNK_MAX     131072u
static uint8_t octets[OCTETS_PERIOD + CHUNK_MAX];

static void octets_prepare(void)
{
    uint64_t state = 1;
    if (octets[0] != 0) return;
    for (uint32_t i = 0; i < OCTETS_PERIOD; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        octets[i] = (uint8_t)(state >> 56 | 1);
    }
    for (uint32_t i = OCTETS_PERIOD; i < sizeof octets; i++) octets[i] = octets[i - OCTETS_PERIOD];
}

static const uint8_t *octets_at(uint32_t base, uint32_t position)
{
    return octets + (base + position) % OCTETS_PERIOD;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static bool is_http(const struct tunnel *t)
{
    return t->speech == SPEECH_POST || t->speech == SPEECH_SEQUENCE;
}

/* --- planning --- */

/* Small ones more often than large ones. */
static uint32_t plan_size(uint32_t most)
{
    uint32_t bits = sim_below(20);
    uint32_t size = sim_below(1u << bits);
    return size < most ? size : sim_below(most + 1);
}

static void plan_pace(struct actor *a, bool calm)
{
    static const uint32_t chunks[] = {1, 7, 100, 1460, 4096, 16384, CHUNK_MAX};
    uint32_t larger = a->to_send > a->to_receive ? a->to_send : a->to_receive;
    if (a->say_size > larger) larger = a->say_size;
    uint32_t floor = larger / 40 + 1; /* nobody is so slow that a seed takes for ever */
    a->chunk = chunks[sim_below(7)];
    a->gulp = chunks[sim_below(7)];
    if (a->chunk < floor) a->chunk = least(floor, CHUNK_MAX);
    if (a->gulp < floor) a->gulp = least(floor, CHUNK_MAX);
    if (sim_chance(300)) a->pause_us = sim_chance(700) || calm ? 3000 : 400000;
    a->nap_us = sim_chance(100) ? sim_between(1000000, 20000000) : 0;
    a->nap_at = sim_below(a->to_send + a->to_receive + 1);
}

static uint8_t plan_fault(uint32_t chance, uint32_t volume, uint32_t *at)
{
    static const uint8_t faults[] = {FAULT_RESET, FAULT_RESET, FAULT_CLOSE, FAULT_SILENT, FAULT_DEAF};
    *at = sim_chance(500) ? sim_below(volume + 1) : sim_below(least(volume, 600) + 1);
    return sim_chance(chance) ? faults[sim_below(5)] : FAULT_NONE;
}

static void plan_target(struct tunnel *t)
{
    char name[40];
    uint16_t port = (uint16_t)(PORT_TARGET + t->index);
    bool named = t->speech == SPEECH_SOCKS4A || (t->speech != SPEECH_SOCKS4 && sim_chance(500));
    if (named) {
        int size = snprintf(name, sizeof name, "host-%u.test", t->index);
        address_from_host(name, (size_t)size, port, &t->target);
        return;
    }
    t->target = (struct address){.kind = ADDRESS_IPV4, .port = port, .ipv4 = {10, 0, (uint8_t)t->index, 0}};
}

static void plan_dial(struct tunnel *t, bool calm)
{
    static const int errors[] = {-ECONNREFUSED, -EHOSTUNREACH, -ENETUNREACH, -ETIMEDOUT, 1};
    t->address_count = (uint8_t)(t->target.kind == ADDRESS_NAME ? sim_between(1, ADDRESSES_MAX) : 1);
    for (uint32_t i = 0; i < t->address_count; i++) t->outcomes[i] = sim_chance(150) ? errors[sim_below(5)] : 0;
    if (sim_chance(calm ? 30 : 60)) t->resolve_result = sim_chance(500) ? -ENOENT : -ETIMEDOUT;
}

static void say(struct actor *a, const void *data, size_t size)
{
    assert(a->say_size + size <= SAY_MAX);
    memcpy(a->say + a->say_size, data, size);
    a->say_size += (uint32_t)size;
}

static size_t request_http(const struct tunnel *t, char *out, size_t size)
{
    char target[ADDRESS_TEXT_SIZE];
    address_format(&t->target, target, sizeof target);
    return (size_t)snprintf(out, size, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target);
}

/* Of a field that makes a head large; as a rule there is none. */
static uint32_t plan_pad(uint32_t most)
{
    return sim_chance(700) ? 0 : sim_chance(200) ? most : sim_below(most + 1);
}

static size_t request_post(const struct tunnel *t, char *out, size_t size)
{
    char target[ADDRESS_TEXT_SIZE];
    address_format(&t->target, target, sizeof target);
    return (size_t)snprintf(out, size,
                            "POST http://%s/path HTTP/1.1\r\nHost: %s\r\nPad: %0*u\r\nContent-Length: %u\r\n\r\n",
                            target, target, (int)plan_pad(PAD_MAX / 4 * 3), 0u, t->client.to_send);
}

static size_t request_sequence(struct tunnel *t, uint8_t *out, size_t size)
{
    char target[ADDRESS_TEXT_SIZE];
    address_format(&t->target, target, sizeof target);
    return sequence_plan(&t->sequence, target, out, size);
}

#define AUTH_SIZE 13u /* of the message with these */
static const struct credentials plan_credentials = {.present = true, .user = "user", .password = "secret"};

/* The client's words, in order; `stage` counts the answers that it awaits. */
static void plan_words(struct tunnel *t)
{
    uint8_t out[SAY_MAX];
    struct actor *a = &t->client;
    switch ((enum speech)t->speech) {
    case SPEECH_FORWARD: break;
    case SPEECH_HTTP: say(a, out, request_http(t, (char *)out, sizeof out)); break;
    case SPEECH_POST: say(a, out, request_post(t, (char *)out, sizeof out)); break;
    case SPEECH_SEQUENCE: say(a, out, request_sequence(t, out, sizeof out)); break;
    case SPEECH_SOCKS4:
    case SPEECH_SOCKS4A: say(a, out, socks4_write_request(out, sizeof out, &t->target, "me")); break;
    case SPEECH_SOCKS5:
        say(a, "\5\1\0", 3);
        a->say_limit = a->say_size;
        say(a, out, socks5_write_request(out, sizeof out, SOCKS5_CONNECT, &t->target));
        break;
    case SPEECH_SOCKS5_AUTH:
        say(a, "\5\1\2", 3);
        a->say_limit = a->say_size;
        say(a, out, socks5_write_auth(out, sizeof out, &plan_credentials));
        say(a, out, socks5_write_request(out, sizeof out, SOCKS5_CONNECT, &t->target));
        break;
    }
    if (t->speech == SPEECH_SEQUENCE) a->say_limit = t->sequence.end[0];  /* the next one behind its response */
    if (a->say_limit == 0 || sim_chance(300)) a->say_limit = a->say_size; /* or all at once */
    a->sends_stream = a->say_limit == a->say_size && (t->speech >= SPEECH_POST || sim_chance(400));
    if (t->speech == SPEECH_SEQUENCE) a->sends_stream = true; /* which is empty */
    a->reads_stream = t->speech == SPEECH_FORWARD;
}

static void plan_garbage(struct tunnel *t)
{
    struct actor *a = &t->client;
    if (a->say_size == 0) return;
    for (uint32_t n = sim_between(1, 4); n > 0; n--) a->say[sim_below(a->say_size)] = (uint8_t)sim_below(256);
}

/* What they say and hear is not cleared: it is much, and little of it is used. */
static void give_words(struct actor *a, uint32_t index)
{
    static uint8_t words[TUNNELS_MAX + UPSTREAMS_MAX][2][SAY_MAX];
    a->say = words[index][0];
    a->heard = words[index][1];
}

static void plan_tunnel(struct peers *peers, struct tunnel *t, uint32_t stream_max)
{
    give_words(&t->client, t->index);
    uint32_t trouble = peers->calm ? 60 : 250;
    bool forward = t->index + 1 < peers->config->listener_count; /* each of those listeners has one target */
    uint32_t listener = forward ? t->index + 1 : 0;
    t->listener = (uint8_t)listener;
    t->speech = (uint8_t)(forward ? SPEECH_FORWARD : sim_below(SPEECH_FORWARD));
    if (t->speech == SPEECH_SEQUENCE && peers->tunnel_count > 4) t->speech = SPEECH_POST;
    if (forward) {
        t->target = peers->config->listeners[listener].forward;
    } else {
        plan_target(t);
    }
    t->client.out_base = sim_below(OCTETS_PERIOD);
    t->client.in_base = sim_below(OCTETS_PERIOD);
    t->client.to_send = plan_size(stream_max);
    t->client.to_receive = plan_size(stream_max);
    if (t->speech == SPEECH_SEQUENCE) t->client.to_send = t->client.to_receive = 0;
    t->start_us = sim_now_us() + (sim_chance(500) ? 0 : sim_below(20000));
    t->garbage = !forward && sim_chance(trouble / 5);
    if (t->garbage) t->target.port = PORT_NOWHERE;
    plan_dial(t, peers->calm);
    plan_words(t);
    plan_pace(&t->client, peers->calm);
    if (is_http(t)) t->client.nap_us = 0;
    if (t->garbage) plan_garbage(t);
    uint32_t volume = t->client.to_send + t->client.to_receive;
    t->client.manner = (uint8_t)(is_http(t) ? END_LAST : sim_below(3));
    if (t->speech == SPEECH_SEQUENCE) volume += t->client.say_size;
    t->client.fault = plan_fault(trouble, volume + 300, &t->client.fault_at);
    t->upstream_manner = (uint8_t)(t->client.manner == END_FIRST ? sim_below(3) : END_FIRST);
    t->upstream_fault = plan_fault(trouble, volume, &t->upstream_fault_at);
    t->client_flawed = t->garbage || t->client.fault != FAULT_NONE;
    t->flawed = t->client_flawed || t->upstream_fault != FAULT_NONE;
}

void peers_plan(struct peers *peers, const struct config *config, uint32_t count, uint32_t stream_max)
{
    octets_prepare();
    peers->config = config;
    peers->tunnel_count = count;
    peers->upstream_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct tunnel *t = &peers->tunnels[i];
        memset(t, 0, sizeof *t);
        t->index = i;
        plan_tunnel(peers, t, stream_max);
    }
}

/* --- what all actors do --- */

static void actor_lose(struct actor *a)
{
    a->saw_reset = a->gone = true;
    if (!a->conn->far_closed) sim_reset(a->conn, ECONNRESET);
}

static void actor_leave(struct actor *a)
{
    a->gone = true;
    if (sim_close(a->conn)) a->ended = true;
}

static bool actor_fault(struct actor *a)
{
    if (a->fault == FAULT_NONE || a->moved < a->fault_at) return false;
    switch ((enum fault)a->fault) {
    case FAULT_RESET:
        sim_reset(a->conn, sim_chance(800) ? ECONNRESET : ETIMEDOUT);
        a->gone = true;
        break;
    case FAULT_CLOSE: actor_leave(a); break;
    case FAULT_SILENT: a->quiet = true; break;
    case FAULT_DEAF: a->deaf = true; break;
    case FAULT_NONE: break;
    }
    a->fault = FAULT_NONE;
    return true;
}

static bool actor_speak(struct actor *a)
{
    bool words = a->say_sent < a->say_limit;
    if (a->ended) return false;
    if (!words && (!a->sends_stream || a->say_sent < a->say_size || a->sent == a->to_send)) return false;
    uint32_t left = words ? a->say_limit - a->say_sent : a->to_send - a->sent;
    const uint8_t *data = words ? a->say + a->say_sent : octets_at(a->out_base, a->sent);
    uint32_t size = (uint32_t)sim_write(a->conn, data, least(left, a->chunk));
    if (words)
        a->say_sent += size;
    else
        a->sent += size;
    a->moved += size;
    return size > 0;
}

static void actor_check(struct actor *a, const uint8_t *data, uint32_t size, const char *who, uint32_t index)
{
    if (a->received + size > a->to_receive)
        sim_fail("the %s of tunnel %u received more than was sent: %u of %u octets", who, index, a->received + size,
                 a->to_receive);
    for (uint32_t done = 0; done < size;) {
        uint32_t part = least(size - done, CHUNK_MAX);
        if (memcmp(data + done, octets_at(a->in_base, a->received + done), part) != 0)
            sim_fail("the %s of tunnel %u received wrong octets between %u and %u", who, index, a->received + done,
                     a->received + done + part);
        done += part;
    }
    a->received += size;
}

static bool actor_finish(struct actor *a)
{
    bool all_sent = a->sends_stream && a->say_sent == a->say_size && a->sent == a->to_send;
    if (a->ended && a->saw_end) {
        sim_close(a->conn);
        a->gone = true;
        return true;
    }
    if (!all_sent || a->ended) return false;
    if (a->manner == END_CLOSE && a->received == a->to_receive && a->reads_stream) {
        actor_leave(a);
        return true;
    }
    if (a->manner == END_FIRST || a->saw_end) {
        sim_end(a->conn);
        a->ended = true;
        return true;
    }
    return false;
}

typedef void actor_hears(void *self, const uint8_t *data, uint32_t size);

static bool actor_listen(struct actor *a, actor_hears *hears, void *self)
{
    static uint8_t data[CHUNK_MAX];
    if (a->saw_end || a->deaf) return false;
    int32_t size = sim_read(a->conn, data, a->gulp);
    if (size == -EAGAIN) return false;
    if (size < 0) {
        actor_lose(a);
        return true;
    }
    if (size == 0) {
        a->saw_end = true;
        return true;
    }
    a->moved += (uint32_t)size;
    hears(self, data, (uint32_t)size);
    return true;
}

static bool actor_act(struct actor *a, actor_hears *hears, void *self, uint64_t *wake_us)
{
    if (a->gone) return false;
    if (a->awake_us > sim_now_us()) {
        if (a->awake_us < *wake_us) *wake_us = a->awake_us;
        return false;
    }
    if (a->quiet) return false;
    if (a->nap_us > 0 && a->received > 0 && a->moved >= a->nap_at) { /* what it says must not be late */
        a->awake_us = sim_now_us() + a->nap_us;
        a->nap_us = 0;
        return true;
    }
    bool moved = actor_fault(a);
    if (a->gone || a->quiet) return true;
    moved |= actor_speak(a);
    moved |= actor_listen(a, hears, self);
    if (!a->gone) moved |= actor_finish(a);
    if (moved && a->pause_us > 0 && sim_chance(300)) a->awake_us = sim_now_us() + sim_below(a->pause_us);
    return moved;
}

static void remember(struct actor *a, const uint8_t *data, uint32_t size)
{
    assert(a->heard_size + size <= SAY_MAX);
    memcpy(a->heard + a->heard_size, data, size);
    a->heard_size += size;
}

static void forget(struct actor *a, size_t size)
{
    a->heard_size -= (uint32_t)size;
    memmove(a->heard, a->heard + size, a->heard_size);
}

/* --- clients --- */

struct answer {
    enum parse_result parsed;
    size_t used;
    bool granted, final;
};

static void answer_socks5(const struct tunnel *t, const uint8_t *data, size_t size, unsigned stage, struct answer *r)
{
    uint8_t code = 0;
    bool auth = t->speech == SPEECH_SOCKS5_AUTH;
    if (stage == 0) {
        r->parsed = socks5_parse_method(data, size, &code, &r->used);
        r->granted = code == (auth ? SOCKS5_METHOD_PASSWORD : SOCKS5_METHOD_NONE);
        return;
    }
    if (stage == 1 && auth) {
        r->parsed = socks5_parse_auth_status(data, size, &r->granted, &r->used);
        return;
    }
    r->final = true;
    r->parsed = socks5_parse_reply(data, size, &code, NULL, &r->used);
    r->granted = code == SOCKS5_SUCCEEDED;
}

static void answer_http(const uint8_t *data, size_t size, struct answer *r)
{
    struct http_head head;
    size_t scanned = 0;
    uint8_t *writable = (uint8_t *)(uintptr_t)data; /* the proxy folds no lines: nothing is written */
    r->final = true;
    r->parsed = http_parse_response(writable, size, &scanned, &head, &r->used);
    if (r->parsed == PARSE_OK) r->granted = head.status >= 200 && head.status < 300;
}

static struct answer answer_read(const struct tunnel *t, const uint8_t *data, size_t size, unsigned stage)
{
    struct answer r = {.parsed = PARSE_MORE};
    uint8_t code = 0;
    switch ((enum speech)t->speech) {
    case SPEECH_SOCKS5:
    case SPEECH_SOCKS5_AUTH: answer_socks5(t, data, size, stage, &r); break;
    case SPEECH_POST:
    case SPEECH_SEQUENCE:
    case SPEECH_HTTP: answer_http(data, size, &r); break;
    default:
        r.final = true;
        r.parsed = socks4_parse_reply(data, size, &code, &r.used);
        r.granted = code == SOCKS4_GRANTED;
    }
    return r;
}

static void client_hears_sequence(struct tunnel *t)
{
    struct actor *a = &t->client;
    struct sequence *q = &t->sequence;
    size_t used;
    bool granted;
    while (!a->reads_stream && !t->refused) {
        bool whole = sequence_hear_response(q, &t->reader, a->heard, a->heard_size, &used, &granted);
        forget(a, used);
        if (!whole) return;
        t->established |= granted;
        a->reads_stream = q->answered == q->count;
        if (granted && !a->reads_stream && a->say_limit < q->end[q->answered]) a->say_limit = q->end[q->answered];
        if (granted) continue;
        t->refused = true;
        a->say_limit = a->say_sent;
        a->sends_stream = false;
        if (!a->conn->in_ended) sim_end(a->conn);
        a->ended = true;
    }
}

static void client_hears_answers(struct tunnel *t)
{
    if (t->speech == SPEECH_SEQUENCE) {
        client_hears_sequence(t);
        return;
    }
    struct actor *a = &t->client;
    while (!t->established && !t->refused) {
        struct answer r = answer_read(t, a->heard, a->heard_size, t->stage);
        if (r.parsed == PARSE_MORE) return;
        if (r.parsed != PARSE_OK) sim_fail("the client of tunnel %u got a malformed answer", t->index);
        forget(a, r.used);
        t->stage++;
        if (!r.granted) {
            t->refused = true;
            a->say_limit = a->say_sent; /* has nothing more to say */
            a->sends_stream = false;
            a->ended = a->conn->in_ended;
            if (!a->ended) sim_end(a->conn);
            a->ended = true;
        } else if (r.final) {
            t->established = true;
            a->sends_stream = a->reads_stream = true;
        } else {
            bool auth = t->speech == SPEECH_SOCKS5_AUTH && t->stage == 1 && a->say_limit < a->say_size;
            a->say_limit = auth ? a->say_sent + AUTH_SIZE : a->say_size;
        }
    }
}

static void client_hears(void *self, const uint8_t *data, uint32_t size)
{
    struct tunnel *t = self;
    struct actor *a = &t->client;
    if (t->garbage || t->refused) return; /* whatever it is */
    if (a->reads_stream) {
        actor_check(a, data, size, "client", t->index);
        return;
    }
    /* Answers are short: what is behind them is the stream. */
    while (size > 0 && !a->reads_stream && !t->refused) {
        uint32_t part = least(size, SAY_MAX - a->heard_size);
        if (part == 0) sim_fail("the client of tunnel %u gets an answer without end", t->index);
        remember(a, data, part);
        data += part;
        size -= part;
        client_hears_answers(t);
    }
    if (!a->reads_stream) return;
    uint32_t left = a->heard_size;
    a->heard_size = 0;
    actor_check(a, a->heard, left, "client", t->index);
    actor_check(a, data, size, "client", t->index);
}

static bool client_start(struct peers *peers, struct tunnel *t, uint64_t *wake_us)
{
    if (sim_now_us() < t->start_us) {
        if (t->start_us < *wake_us) *wake_us = t->start_us;
        return false;
    }
    uint32_t in = sim_between(1024, peers->room_max), out = sim_between(1024, peers->room_max);
    t->client.conn = sim_connect((uint16_t)(PORT_LISTEN + t->listener), in, out, sim_chance(30));
    t->started = true;
    t->refused_admission = t->client.gone = t->client.conn == NULL;
    return true;
}

/* --- upstreams and the proxies on the way to them --- */

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
}

static void upstream_begin_stream(struct upstream *u)
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
    a->sends_stream = a->reads_stream = !is_http(t);
    plan_pace(a, true);
    if (a->gulp < t->client.say_size / 40) a->gulp = t->client.say_size / 40;
    if (is_http(t)) a->nap_us = 0;
    if (t->speech == SPEECH_SEQUENCE) a->manner = (uint8_t)(sim_chance(500) ? END_FIRST : END_LAST);
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
    case PROXY_SOCKS4A: say(a, out, socks4_write_reply(out, sizeof out, SOCKS4_GRANTED)); break;
    case PROXY_SOCKS5: say(a, "\5\0\0\1\1\2\3\4\5\6", 10); break;
    case PROXY_HTTP:
        if (sim_chance(100)) say(a, "HTTP/1.1 102 Processing\r\n\r\n", 27);
        say(a, head, (size_t)snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nPad: %0*u\r\n\r\n", (int)pad, 0u));
        break;
    }
    a->say_limit = a->say_size;
    u->stage = 0;
    u->hop++;
    if (u->hop == peers->config->hop_count) upstream_begin_stream(u);
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
        say(a, garbage, sizeof garbage);
        break;
    default:
        if (peers->config->hops[u->hop].scheme == PROXY_HTTP)
            say(a, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 45);
        else if (peers->config->hops[u->hop].scheme == PROXY_SOCKS4A)
            say(a, "\0\x5b\0\0\0\0\0\0", 8);
        else
            say(a, u->stage == 0 ? "\5\xff" : "\5\5\0\1\1\2\3\4\5\6", u->stage == 0 ? 2 : 10);
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
        if (parsed == PARSE_OK) say(a, secret ? "\5\2" : "\5\0", 2);
        return parsed;
    }
    if (u->stage == 1 && secret) {
        parsed = socks5_parse_auth(a->heard, a->heard_size, &given, used);
        if (parsed == PARSE_OK && strcmp(given.password, proxy->credentials.password) != 0)
            sim_fail("proxy %u of the chain is given the wrong password", u->hop);
        if (parsed == PARSE_OK) say(a, "\1\0", 2);
        return parsed;
    }
    *final = true;
    parsed = socks5_parse_request(a->heard, a->heard_size, &request, used);
    if (parsed == PARSE_OK) *asked = request.target;
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
    forget(a, used);
    u->asked += used;
    u->stage++;
    a->say_limit = a->say_size;
    if (u->trouble == 1 && sim_chance(400))
        hop_refuse(peers, u);
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
    uint32_t pace = least(a->chunk, u->tunnel->client.gulp);
    enum parse_result parsed = http_parse_request(a->heard, a->heard_size, &scanned, &head, &used);
    if (parsed == PARSE_MORE) return false;
    if (parsed != PARSE_OK || !http_span_equals(a->heard, head.target, "/path"))
        sim_fail("the upstream of tunnel %u got a malformed request", u->tunnel->index);
    forget(a, used);
    say(a, answer,
        (size_t)snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nPad: %0*u\r\nContent-Length: %u\r\n\r\n",
                         (int)plan_pad(least(PAD_MAX, 40 * pace)), 0u, a->to_send));
    a->reads_stream = true;
    return true;
}

/* A request of a sequence has come: it is answered, and nothing may follow it. */
static bool sequence_hears_request(struct upstream *u)
{
    struct actor *a = &u->actor;
    static uint8_t out[SAY_MAX];
    size_t used, answer;
    bool whole = sequence_hear_request(&u->tunnel->sequence, &u->reader, a->heard, a->heard_size, &used, out,
                                       sizeof out, &answer);
    forget(a, used);
    if (!whole) return false;
    say(a, out, answer);
    a->say_limit = a->say_size;
    a->sends_stream = a->reads_stream = true;
    return true;
}

struct upstream_self {
    struct peers *peers;
    struct upstream *upstream;
};

static bool upstream_hears_one(struct peers *peers, struct upstream *u)
{
    if (u->hop < peers->config->hop_count) return hop_hears_one(peers, u);
    return u->tunnel->speech == SPEECH_SEQUENCE ? sequence_hears_request(u) : post_hears_head(u);
}

static void upstream_hears(void *self, const uint8_t *data, uint32_t size)
{
    struct upstream *u = ((struct upstream_self *)self)->upstream;
    struct peers *peers = ((struct upstream_self *)self)->peers;
    struct actor *a = &u->actor;
    if (u->trouble == 2) return;
    while (!a->reads_stream && size > 0) {
        uint32_t part = least(size, SAY_MAX - a->heard_size);
        if (part == 0) sim_fail("a proxy of the chain is asked without end");
        remember(a, data, part);
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
    give_words(&u->actor, TUNNELS_MAX + peers->upstream_count - 1);
    u->actor.conn = conn;
    u->tunnel = conn->owner;
    u->actor.chunk = u->actor.gulp = 1 + sim_below(200);
    if (peers->config->hop_count == 0 && !u->tunnel)
        u->actor.quiet = true; /* garbage has led here */
    else if (peers->config->hop_count == 0)
        upstream_begin_stream(u);
    else if (peers->hop_trouble && sim_chance(400))
        u->trouble = 1;
}

/* --- all together --- */

bool peers_act(struct peers *peers, uint64_t *wake_us)
{
    bool moved = false, partly = sim_chance(300); /* only some of them, so that others are late */
    for (uint32_t i = 0; i < peers->tunnel_count; i++) {
        struct tunnel *t = &peers->tunnels[i];
        if (partly && sim_chance(500)) continue;
        moved |= t->started ? actor_act(&t->client, client_hears, t, wake_us) : client_start(peers, t, wake_us);
    }
    for (uint32_t i = 0; i < peers->upstream_count; i++) {
        struct upstream_self self = {peers, &peers->upstreams[i]};
        if (partly && sim_chance(500)) continue;
        moved |= actor_act(&self.upstream->actor, upstream_hears, &self, wake_us);
    }
    if (moved) peers->moved_us = sim_now_us();
    return moved || partly;
}

uint32_t peers_posts(const struct peers *peers)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < peers->tunnel_count; i++) {
        const struct tunnel *t = &peers->tunnels[i];
        count += t->speech == SPEECH_SEQUENCE ? 2 * t->sequence.count : t->speech == SPEECH_POST;
    }
    return count;
}

bool peers_all_gone(const struct peers *peers)
{
    for (uint32_t i = 0; i < peers->tunnel_count; i++)
        if (!peers->tunnels[i].client.gone) return false;
    for (uint32_t i = 0; i < peers->upstream_count; i++)
        if (!peers->upstreams[i].actor.gone) return false;
    return true;
}

/* --- judging --- */

static bool tunnel_reachable(const struct peers *peers, const struct tunnel *t)
{
    if (peers->config->hop_count > 0) return true;
    if (t->target.kind == ADDRESS_NAME && t->resolve_result < 0) return false;
    for (uint32_t i = 0; i < t->address_count; i++)
        if (t->outcomes[i] == 0) return true;
    return false;
}

/* SOCKS4 has no word for a time-out, a forwarded connection none at all. */
static bool tunnel_may_be_silent(const struct tunnel *t)
{
    if (t->speech == SPEECH_FORWARD) return true;
    if (t->speech != SPEECH_SOCKS4 && t->speech != SPEECH_SOCKS4A) return false;
    for (uint32_t i = 0; i < t->address_count; i++)
        if (t->outcomes[i] == 1 || t->outcomes[i] == -ETIMEDOUT) return true;
    return false;
}

static bool tunnel_clean(const struct peers *peers, const struct tunnel *t)
{
    return peers->calm && !t->flawed && !t->refused_admission;
}

/* The one that was used: of several that had answered only the winner of the race. NULL if that cannot be told. */
static const struct upstream *tunnel_upstream(const struct peers *peers, const struct tunnel *t, uint32_t *count)
{
    const struct upstream *found = NULL;
    *count = 0;
    for (uint32_t i = 0; i < peers->upstream_count; i++) {
        const struct upstream *u = &peers->upstreams[i];
        if (u->tunnel != t) continue;
        if (++*count == 1 || u->actor.received > 0) found = u;
    }
    return *count == 1 || (found && found->actor.received > 0) ? found : NULL;
}

static void check_complete(const struct peers *peers, const struct tunnel *t)
{
    uint32_t count;
    const struct upstream *u = tunnel_upstream(peers, t, &count);
    const struct actor *c = &t->client;
    if (t->speech == SPEECH_SEQUENCE) {
        if (t->sequence.answered != t->sequence.count || !c->gone)
            sim_fail("tunnel %u has %u of %u responses, though nothing was wrong%s", t->index, t->sequence.answered,
                     t->sequence.count, c->gone ? "" : ", it never ended");
        if (c->saw_reset) sim_fail("tunnel %u was reset, though nothing was wrong", t->index);
        return;
    }
    uint32_t arrived = u ? u->actor.received : 0;
    if (count == 0) sim_fail("tunnel %u never reached its target, though nothing was wrong", t->index);
    if (c->received != c->to_receive || arrived != c->to_send)
        sim_fail("tunnel %u is incomplete, though nothing was wrong: %u of %u up, %u of %u down%s", t->index, arrived,
                 c->to_send, c->received, c->to_receive, c->gone ? "" : ", it never ended");
    if (!c->gone || (u && !u->actor.gone)) sim_fail("tunnel %u never ended: an end was not passed on", t->index);
    if (c->saw_reset || (u && u->actor.saw_reset)) sim_fail("tunnel %u was reset, though nothing was wrong", t->index);
}

/* An upstream whose end has arrived has said everything, whatever becomes of it then. */
static void check_end_survives(const struct peers *peers, const struct tunnel *t)
{
    uint32_t count;
    const struct upstream *u = tunnel_upstream(peers, t, &count);
    if (!peers->calm || t->client_flawed || is_http(t) || !t->client.reads_stream) return;
    if (!u || !u->actor.reads_stream || !u->actor.conn->in_ended) return;
    if (t->client.received != u->actor.sent)
        sim_fail("the client of tunnel %u has %u of the %u octets that its upstream had sent before an orderly end",
                 t->index, t->client.received, u->actor.sent);
}

void peers_check_finished(const struct peers *peers)
{
    for (uint32_t i = 0; i < peers->tunnel_count; i++) {
        const struct tunnel *t = &peers->tunnels[i];
        check_end_survives(peers, t);
        if (!tunnel_clean(peers, t)) continue;
        if (tunnel_reachable(peers, t))
            check_complete(peers, t);
        else if (t->established || (!tunnel_may_be_silent(t) && !t->refused))
            sim_fail("the client of tunnel %u was not told that its target cannot be reached", i);
    }
}

static void check_upstream_end(const struct peers *peers, const struct upstream *u)
{
    const struct tunnel *t = u->tunnel;
    const struct actor *a = &u->actor;
    uint32_t count;
    if (!a->saw_end || !t || t->garbage || !a->reads_stream || is_http(t)) return;
    if (a->received == 0 && !t->established && t->client.received == 0) return; /* given up before it was used */
    if (a->received == 0 && u != tunnel_upstream(peers, t, &count)) return;     /* lost the race */
    if (!t->client.ended || a->received != t->client.sent)
        sim_fail("the upstream of tunnel %u was told an orderly end after %u octets, but its client had sent %u%s",
                 t->index, a->received, t->client.sent, t->client.ended ? "" : " and not ended");
}

static void check_client_end(const struct peers *peers, const struct tunnel *t)
{
    const struct actor *a = &t->client;
    if (t->speech == SPEECH_SEQUENCE) {
        if (a->saw_end && !t->garbage && !t->refused && (a->heard_size > 0 || t->reader.begun))
            sim_fail("the client of tunnel %u was told an orderly end in the middle of a response", t->index);
        return;
    }
    if (!a->saw_end || !a->reads_stream || t->garbage) return;
    for (uint32_t i = 0; i < peers->upstream_count; i++) {
        const struct upstream *u = &peers->upstreams[i];
        if (u->tunnel == t && u->actor.ended && u->actor.sent == a->received) return;
    }
    if (t->speech == SPEECH_FORWARD && a->received == 0 && !t->established) return; /* has no other word for "no" */
    sim_fail("the client of tunnel %u was told an orderly end after %u octets, but no upstream had ended there",
             t->index, a->received);
}

void peers_check_ends(const struct peers *peers)
{
    for (uint32_t i = 0; i < peers->upstream_count; i++) check_upstream_end(peers, &peers->upstreams[i]);
    for (uint32_t i = 0; i < peers->tunnel_count; i++) check_client_end(peers, &peers->tunnels[i]);
}

/* How much of what a client was sent is answers, as opposed to the stream. */
static uint64_t client_answers(const struct tunnel *t)
{
    const struct sim_conn *conn = t->client.conn;
    size_t at = 0;
    if (t->speech == SPEECH_FORWARD) return 0;
    for (unsigned stage = 0;; stage++) {
        struct answer r = answer_read(t, conn->transcript + at, conn->transcript_size - at, stage);
        if (r.parsed != PARSE_OK || !r.granted) return conn->sent;
        at += r.used;
        if (r.final) return at;
    }
}

bool peers_sum(const struct peers *peers, uint64_t *up, uint64_t *down, uint64_t *doubtful_up, uint64_t *doubtful_down)
{
    bool exact = true;
    *up = *down = *doubtful_up = *doubtful_down = 0;
    for (uint32_t i = 0; i < peers->upstream_count; i++) {
        const struct upstream *u = &peers->upstreams[i];
        *up += u->actor.reads_stream ? u->actor.conn->sent - u->asked : 0;
        *doubtful_up += u->actor.conn->doubtful;
    }
    for (uint32_t i = 0; i < peers->tunnel_count; i++) {
        const struct tunnel *t = &peers->tunnels[i];
        if (!t->client.conn) continue;
        if (t->garbage || is_http(t)) exact = false; /* heads are counted, too */
        *down += t->client.conn->sent - client_answers(t);
        *doubtful_down += t->client.conn->doubtful;
    }
    return exact;
}
