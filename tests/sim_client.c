/* The clients: they ask, read answers, and then have a stream. */
#include "tests/sim_peers_private.h"

#include "protocols/http_connect.h"
#include "protocols/socks4.h"
#include "protocols/socks5.h"

static void answer_socks5(const struct tunnel *t, const uint8_t *data, size_t size, unsigned stage,
                          struct client_answer *r)
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

static void answer_http(const uint8_t *data, size_t size, struct client_answer *r)
{
    struct http_head head;
    size_t scanned = 0;
    uint8_t *writable = (uint8_t *)(uintptr_t)data; /* the proxy folds no lines: nothing is written */
    r->final = true;
    r->parsed = http_parse_response(writable, size, &scanned, &head, &r->used);
    if (r->parsed == PARSE_OK) r->granted = head.status >= 200 && head.status < 300;
}

struct client_answer client_read_answer(const struct tunnel *t, const uint8_t *data, size_t size, unsigned stage)
{
    struct client_answer r = {.parsed = PARSE_MORE};
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
        actor_forget(a, used);
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
        struct client_answer r = client_read_answer(t, a->heard, a->heard_size, t->stage);
        if (r.parsed == PARSE_MORE) return;
        if (r.parsed != PARSE_OK) sim_fail("the client of tunnel %u got a malformed answer", t->index);
        actor_forget(a, r.used);
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
            a->say_limit = auth ? a->say_sent + PLAN_AUTH_SIZE : a->say_size;
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
        uint32_t part = sim_least(size, SAY_MAX - a->heard_size);
        if (part == 0) sim_fail("the client of tunnel %u gets an answer without end", t->index);
        actor_remember(a, data, part);
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

/* Its own, so that lists can tell clients apart. */
struct address client_address(const struct tunnel *t)
{
    return (struct address){
        .kind = ADDRESS_IPV4, .port = (uint16_t)(50000 + t->index), .ipv4 = {192, 0, 2, (uint8_t)t->index}};
}

/* Behind a proxy its header says so. */
static void client_set_address(const struct peers *peers, const struct tunnel *t)
{
    struct address plain = client_address(t);
    bool told = peers->users || peers->lists;
    if (!told || peers->behind || !t->client.conn) return;
    if (!net_address_from(&plain, &t->client.conn->far_address)) sim_fail("a client without an address");
}

static bool client_start(struct peers *peers, struct tunnel *t, uint64_t *wake_us)
{
    if (sim_now_us() < t->start_us) {
        if (t->start_us < *wake_us) *wake_us = t->start_us;
        return false;
    }
    uint32_t in = sim_between(1024, peers->room_max), out = sim_between(1024, peers->room_max);
    t->begun_us = sim_now_us();
    t->client.conn = sim_connect((uint16_t)(PORT_LISTEN + t->listener), in, out, sim_chance(30));
    client_set_address(peers, t);
    t->started = true;
    t->refused_admission = t->client.gone = t->client.conn == NULL;
    return true;
}

bool client_act(struct peers *peers, struct tunnel *t, uint64_t *wake_us)
{
    return t->started ? actor_act(&t->client, client_hears, t, wake_us) : client_start(peers, t, wake_us);
}
