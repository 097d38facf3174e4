/* What each tunnel of a seed is to be: who speaks, where to, how much, and what goes wrong. */
#include "tests/sim_peers_private.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "protocols/base64.h"
#include "protocols/proxy_header.h"
#include "protocols/socks4.h"
#include "protocols/socks5.h"
#include "tests/sim_users.h"

/* Small ones more often than large ones. */
static uint32_t plan_size(uint32_t most)
{
    uint32_t bits = sim_below(20);
    uint32_t size = sim_below(1u << bits);
    return size < most ? size : sim_below(most + 1);
}

static uint8_t plan_fault(uint32_t chance, uint32_t volume, uint32_t *at)
{
    static const uint8_t faults[] = {FAULT_RESET, FAULT_RESET, FAULT_CLOSE, FAULT_SILENT, FAULT_DEAF};
    *at = sim_chance(500) ? sim_below(volume + 1) : sim_below(sim_least(volume, 600) + 1);
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
    static const int errors[] = {-ECONNREFUSED, -EHOSTUNREACH, -ENETUNREACH, -ETIMEDOUT, -EADDRNOTAVAIL, 1};
    t->address_count = (uint8_t)(t->target.kind == ADDRESS_NAME ? sim_between(1, ADDRESSES_MAX) : 1);
    for (uint32_t i = 0; i < t->address_count; i++) t->outcomes[i] = sim_chance(150) ? errors[sim_below(6)] : 0;
    if (sim_chance(calm ? 30 : 60)) t->resolve_result = sim_chance(500) ? -ENOENT : -ETIMEDOUT;
}

/* --- who the client is --- */

#define FIELD_SIZE 64u

static const struct credentials plan_credentials = {.present = true, .user = "user", .password = "secret"};

/* Where clients must be users, most give a password that is or was somebody's. */
static void plan_client(const struct peers *peers, struct tunnel *t)
{
    if (!peers->users) return;
    t->user = (uint8_t)(sim_chance(900) ? sim_below(SIM_USERS - 1) : SIM_USERS - 1);
    bool right = t->user + 1u < SIM_USERS && sim_chance(600);
    t->password = right ? peers->users->changes[0].passwords[t->user] : (uint8_t)sim_below(SIM_PASSWORDS);
    bool mute = t->speech == SPEECH_SOCKS4 || t->speech == SPEECH_SOCKS4A || t->speech == SPEECH_SOCKS5;
    if (mute && sim_chance(800)) t->speech = SPEECH_SOCKS5_AUTH;
    t->anonymous = t->speech < SPEECH_SOCKS5_AUTH || (t->speech > SPEECH_SOCKS5_AUTH && sim_chance(100));
}

static void credentials_of(const struct peers *peers, const struct tunnel *t, struct credentials *out)
{
    *out = plan_credentials;
    if (peers->users) sim_users_name(t->user, t->password, out);
}

static void write_field(const struct peers *peers, const struct tunnel *t, char out[FIELD_SIZE])
{
    struct credentials who;
    char pair[24], coded[33];
    out[0] = '\0';
    if (!peers->users || t->anonymous) return;
    credentials_of(peers, t, &who);
    int size = snprintf(pair, sizeof pair, "%s:%s", who.user, who.password);
    coded[base64_encode((const uint8_t *)pair, (size_t)size, coded, 32)] = '\0';
    snprintf(out, FIELD_SIZE, "Proxy-Authorization: Basic %s\r\n", coded);
}

/* --- what it says --- */

static size_t request_http(const struct peers *peers, const struct tunnel *t, char *out, size_t size)
{
    char target[ADDRESS_TEXT_SIZE], field[FIELD_SIZE];
    address_format(&t->target, target, sizeof target);
    write_field(peers, t, field);
    return (size_t)snprintf(out, size, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", target, target, field);
}

uint32_t plan_pad(uint32_t most)
{
    return sim_chance(700) ? 0 : sim_chance(200) ? most : sim_below(most + 1);
}

static size_t request_post(const struct peers *peers, const struct tunnel *t, char *out, size_t size)
{
    char target[ADDRESS_TEXT_SIZE], field[FIELD_SIZE];
    address_format(&t->target, target, sizeof target);
    write_field(peers, t, field);
    return (size_t)snprintf(out, size,
                            "POST http://%s/path HTTP/1.1\r\nHost: %s\r\n%sPad: %0*u\r\nContent-Length: %u\r\n\r\n",
                            target, target, field, (int)plan_pad(PAD_MAX / 4 * 3), 0u, t->client.to_send);
}

static size_t request_sequence(const struct peers *peers, struct tunnel *t, uint8_t *out, size_t size)
{
    char target[ADDRESS_TEXT_SIZE], field[FIELD_SIZE];
    address_format(&t->target, target, sizeof target);
    write_field(peers, t, field);
    return sequence_plan(&t->sequence, target, field, out, size);
}

/* What the proxy in front of the client begins with. Returns its size; 0: there is none. */
static uint32_t plan_header(const struct peers *peers, struct tunnel *t)
{
    static const struct proxy_header_facts facts = {.authority = "host.test", .unique_id = "1-2-3"};
    uint8_t out[PROXY_HEADER_WRITTEN_SIZE_MAX];
    struct address client = client_address(t);
    struct address local = {.kind = ADDRESS_IPV4, .port = 443, .ipv4 = {198, 51, 100, 1}};
    struct proxy_header header = {.client = host_port_of(&client), .local = host_port_of(&local)};
    if (!peers->behind) return 0;
    size_t size = proxy_header_write(out, sizeof out, 1 + t->index % 2, &header, &facts);
    actor_say(&t->client, out, size);
    return (uint32_t)size;
}

/* The client's words, in order; `stage` counts the answers that it awaits. */
static void plan_words(const struct peers *peers, struct tunnel *t)
{
    uint8_t out[SAY_MAX];
    struct credentials who;
    struct actor *a = &t->client;
    uint32_t header = plan_header(peers, t);
    switch ((enum speech)t->speech) {
    case SPEECH_FORWARD: break;
    case SPEECH_HTTP: actor_say(a, out, request_http(peers, t, (char *)out, sizeof out)); break;
    case SPEECH_POST: actor_say(a, out, request_post(peers, t, (char *)out, sizeof out)); break;
    case SPEECH_SEQUENCE: actor_say(a, out, request_sequence(peers, t, out, sizeof out)); break;
    case SPEECH_SOCKS4:
    case SPEECH_SOCKS4A: actor_say(a, out, socks4_write_request(out, sizeof out, &t->target, "me")); break;
    case SPEECH_SOCKS5:
        actor_say(a, "\5\1\0", 3);
        a->say_limit = a->say_size;
        actor_say(a, out, socks5_write_request(out, sizeof out, SOCKS5_CONNECT, &t->target));
        break;
    case SPEECH_SOCKS5_AUTH:
        credentials_of(peers, t, &who);
        actor_say(a, "\5\1\2", 3);
        a->say_limit = a->say_size;
        actor_say(a, out, socks5_write_auth(out, sizeof out, &who));
        actor_say(a, out, socks5_write_request(out, sizeof out, SOCKS5_CONNECT, &t->target));
        break;
    }
    for (uint32_t i = 0; t->speech == SPEECH_SEQUENCE && i < t->sequence.count; i++) t->sequence.end[i] += header;
    if (t->speech == SPEECH_SEQUENCE) a->say_limit = t->sequence.end[0];  /* the next one behind its response */
    if (a->say_limit == 0 || sim_chance(300)) a->say_limit = a->say_size; /* or all at once */
    a->sends_stream = a->say_limit == a->say_size && (t->speech >= SPEECH_POST || sim_chance(400));
    if (t->speech == SPEECH_SEQUENCE) a->sends_stream = true; /* which is empty */
    a->reads_stream = t->speech == SPEECH_FORWARD;
}

/* Not in the header, which says who has come. */
static void plan_garbage(const struct peers *peers, struct tunnel *t)
{
    struct actor *a = &t->client;
    struct proxy_header unused;
    size_t header = 0;
    if (a->say_size == 0) return;
    if (peers->behind) proxy_header_parse(a->say, a->say_size, &unused, &header);
    for (uint32_t n = sim_between(1, 4); n > 0; n--)
        a->say[header + sim_below(a->say_size - (uint32_t)header)] = (uint8_t)sim_below(256);
}

/* Some clients leave while their password is checked. */
static void plan_leaving(const struct peers *peers, struct tunnel *t)
{
    struct actor *a = &t->client;
    if (!peers->users || t->speech == SPEECH_FORWARD || t->anonymous || !sim_chance(100)) return;
    a->fault = sim_chance(500) ? FAULT_RESET : FAULT_CLOSE;
    size_t header = 0;
    struct proxy_header unused;
    if (peers->behind) proxy_header_parse(a->say, a->say_size, &unused, &header);
    a->fault_at = t->speech == SPEECH_SOCKS5_AUTH ? (uint32_t)header + 3u + 2u + PLAN_AUTH_SIZE : a->say_size;
}

static void plan_tunnel(struct peers *peers, struct tunnel *t, uint32_t stream_max)
{
    peers_give_words(&t->client, t->index);
    uint32_t trouble = peers->calm ? 60 : 250;
    bool forward = t->index + 1 < peers->config->listener_count; /* each of those listeners has one target */
    uint32_t listener = forward ? t->index + 1 : 0;
    t->listener = (uint8_t)listener;
    t->speech = (uint8_t)(forward ? SPEECH_FORWARD : sim_below(SPEECH_FORWARD));
    if (peers->sequences && !forward) t->speech = SPEECH_SEQUENCE;
    if (t->speech == SPEECH_SEQUENCE && peers->tunnel_count > 4) t->speech = SPEECH_POST;
    if (!forward) plan_client(peers, t);
    if (forward) {
        t->target = peers->config->listeners[listener].forward;
    } else {
        plan_target(t);
    }
    t->client.out_base = sim_below(ACTOR_OCTETS);
    t->client.in_base = sim_below(ACTOR_OCTETS);
    t->client.to_send = plan_size(stream_max);
    t->client.to_receive = plan_size(stream_max);
    if (t->speech == SPEECH_SEQUENCE) t->client.to_send = t->client.to_receive = 0;
    t->start_us = sim_now_us() + (sim_chance(500) ? 0 : sim_below(20000));
    t->garbage = !forward && sim_chance(trouble / 5);
    if (t->garbage) t->target.port = PORT_NOWHERE;
    plan_dial(t, peers->calm);
    plan_words(peers, t);
    actor_plan_pace(&t->client, peers->calm);
    if (tunnel_is_http(t)) t->client.nap_us = 0;
    if (t->garbage) plan_garbage(peers, t);
    uint32_t volume = t->client.to_send + t->client.to_receive;
    t->client.manner = (uint8_t)(tunnel_is_http(t) ? END_LAST : sim_below(3));
    if (t->speech == SPEECH_SEQUENCE) volume += t->client.say_size;
    t->client.fault = plan_fault(trouble, volume + 300, &t->client.fault_at);
    t->upstream_manner = (uint8_t)(t->client.manner == END_FIRST ? sim_below(3) : END_FIRST);
    t->upstream_fault = plan_fault(trouble, volume, &t->upstream_fault_at);
    plan_leaving(peers, t);
    t->client_flawed = t->garbage || t->client.fault != FAULT_NONE;
    t->flawed = t->client_flawed || t->upstream_fault != FAULT_NONE;
}

void peers_plan(struct peers *peers, const struct config *config, uint32_t count, uint32_t stream_max)
{
    actor_prepare_octets();
    peers->config = config;
    peers->tunnel_count = count;
    peers->upstream_count = 0;
    peers->sequences = count <= 4 && sim_chance(200);
    for (uint32_t i = 0; i < count; i++) {
        struct tunnel *t = &peers->tunnels[i];
        memset(t, 0, sizeof *t);
        t->index = i;
        plan_tunnel(peers, t, stream_max);
    }
}
