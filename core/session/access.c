#include "core/session/access.h"

#include <string.h>
#include <time.h>

#include "core/io/net.h"

/* What other texts leave to the chain. */
#define ACCESS_CHAIN_ROOM 512u

static struct access_note *note_of(const struct worker *w, const struct session *s)
{
    return s->record == POOL_NONE ? NULL : pool_at(&w->notes, s->record);
}

static int64_t since(const struct worker *w, uint64_t from_us)
{
    return (int64_t)(ring_now_us(w->ring) - from_us);
}

static void add_time(int64_t *sum, int64_t took_us)
{
    *sum = *sum == ACCESS_NONE ? took_us : *sum + took_us;
}

void access_begin(struct worker *w, struct session *s)
{
    if (!w->access) return;
    if (s->record == POOL_NONE) {
        s->record = pool_take(&w->notes);
        assert(s->record != POOL_NONE); /* there are as many as sessions */
        *note_of(w, s) = (struct access_note){0};
    }
    struct access_note *n = note_of(w, s);
    memset(n, 0, offsetof(struct access_note, texts));
    n->open = true;
    n->begun_us = ring_now_us(w->ring);
    n->handshake_us = n->decision_us = n->resolve_us = n->connect_us = n->first_byte_us = ACCESS_NONE;
    for (unsigned side = CLIENT; side <= UPSTREAM; side++) n->rtt_us[side] = n->retrans[side] = ACCESS_NONE;
}

/* --- texts --- */

static void put_text(struct access_note *n, enum access_note_text which, const char *data, size_t size, size_t most)
{
    size_t left = ACCESS_TEXTS_SIZE - n->used;
    if (left > most) left = most;
    if (size > left) {
        n->truncated = true;
        size = left;
    }
    if (size > 0) memcpy(n->texts + n->used, data, size);
    n->places[which].at = n->used;
    n->places[which].size = (uint16_t)size;
    n->used = (uint16_t)(n->used + size);
}

static void put_words(struct access_note *n, enum access_note_text which, const char *text)
{
    if (n->places[which].size == 0) put_text(n, which, text, strlen(text), ACCESS_TEXTS_SIZE - ACCESS_CHAIN_ROOM);
}

/* UDP has a target for each datagram: what its request names is none. */
static void keep_request(const struct setup *setup, const struct session *s, struct access_note *n)
{
    char target[ADDRESS_TEXT_SIZE];
    if (setup->credentials.present) put_words(n, NOTE_USER, setup->credentials.user);
    if (setup->target.kind == ADDRESS_NONE || s->command == SOCKS5_UDP_ASSOCIATE) return;
    address_format(&setup->target, target, sizeof target);
    put_words(n, NOTE_TARGET, target);
}

void access_keep_texts(struct worker *w, struct session *s)
{
    struct access_note *n = note_of(w, s);
    if (!n || !n->open || s->setup == POOL_NONE) return;
    keep_request(setup_of(w, s), s, n);
    if (n->places[NOTE_CHAIN].size > 0 || s->hops == 0) return;
    char *room = n->texts + n->used;
    size_t left = ACCESS_TEXTS_SIZE - n->used;
    if (left == 0) return;
    session_format_chain(w, s, room, left);
    n->places[NOTE_CHAIN].at = n->used;
    n->places[NOTE_CHAIN].size = (uint16_t)strlen(room);
    n->used = (uint16_t)(n->used + n->places[NOTE_CHAIN].size);
}

/* --- on the way --- */

void access_on_request(struct worker *w, struct session *s)
{
    struct access_note *n = note_of(w, s);
    if (!n) return;
    n->requested = true;
    n->handshake_us = since(w, n->begun_us);
    n->revision = setup_of(w, s)->revision & ~ROUTE_REVISION_AUTH;
    keep_request(setup_of(w, s), s, n);
}

void access_on_http(struct worker *w, struct session *s, struct access_text method, struct access_text path)
{
    struct access_note *n = note_of(w, s);
    if (!n) return;
    const char *query = w->access->queries ? NULL : memchr(path.data, '?', path.size);
    if (query) path.size = (uint32_t)(query - path.data);
    keep_request(setup_of(w, s), s, n);
    put_text(n, NOTE_METHOD, method.data, method.size, 64);
    put_text(n, NOTE_PATH, path.size > 0 ? path.data : "/", path.size > 0 ? path.size : 1,
             ACCESS_TEXTS_SIZE - ACCESS_CHAIN_ROOM - n->used);
}

void access_on_decision(struct worker *w, struct session *s, uint64_t took_us)
{
    struct access_note *n = note_of(w, s);
    if (n) add_time(&n->decision_us, (int64_t)took_us);
}

void access_on_question(struct worker *w, struct session *s)
{
    struct access_note *n = note_of(w, s);
    if (n) n->asked_us = ring_now_us(w->ring);
}

void access_on_address(struct worker *w, struct session *s)
{
    struct access_note *n = note_of(w, s);
    if (!n) return;
    add_time(&n->resolve_us, since(w, n->asked_us));
    n->found_us = ring_now_us(w->ring);
}

void access_on_dial(struct worker *w, struct session *s, const struct address *to)
{
    struct access_note *n = note_of(w, s);
    if (n) n->dialed = host_port_of(to);
}

void access_on_status(struct worker *w, struct session *s, unsigned status)
{
    struct access_note *n = note_of(w, s);
    if (n) n->status = (uint16_t)status;
}

void access_count(struct worker *w, struct session *s, enum session_side from, uint64_t octets, unsigned mode)
{
    struct access_note *n = note_of(w, s);
    if (!n || octets == 0) return; /* a reply of our own has been sent */
    *(from == CLIENT ? &n->up : &n->down) += octets;
    n->paths |= (uint8_t)(1u << mode);
    if (from == UPSTREAM && n->first_byte_us == ACCESS_NONE) n->first_byte_us = since(w, n->begun_us);
}

static void note_socket(const struct session *s, struct access_note *n, enum session_side side)
{
    uint32_t rtt_us, retrans;
    if (s->fd[side] < 0 || (side == UPSTREAM && !n->connected)) return;
    if (!net_measure(s->fd[side], &rtt_us, &retrans)) return;
    n->rtt_us[side] = rtt_us;
    n->retrans[side] = retrans;
}

void access_on_close(struct worker *w, struct session *s, enum session_side side)
{
    struct access_note *n = note_of(w, s);
    if (n && n->open) note_socket(s, n, side);
}

/* --- records --- */

static const char *word_of_protocol(enum session_protocol protocol)
{
    static const char *const words[] = {
        [PROTOCOL_SOCKS4] = "socks4",   [PROTOCOL_SOCKS5] = "socks5",   [PROTOCOL_HTTP_CONNECT] = "http-connect",
        [PROTOCOL_HTTP_PLAIN] = "http", [PROTOCOL_FORWARD] = "forward", [PROTOCOL_TPROXY] = "tproxy",
        [PROTOCOL_SCRIPT] = "script",
    };
    return protocol < sizeof words / sizeof *words ? words[protocol] : NULL; /* UNKNOWN: it has said nothing */
}

static const char *word_of_command(const struct session *s, const struct access_note *n)
{
    if (s->command == SOCKS5_BIND) return "bind";
    if (s->command == SOCKS5_UDP_ASSOCIATE) return "associate";
    if (n->places[NOTE_METHOD].size > 0) return "request";
    return n->places[NOTE_TARGET].size > 0 ? "connect" : NULL;
}

static const char *word_of_relay(const struct access_note *n)
{
    static const char *const words[] = {NULL, "copy", "splice", "both"};
    static_assert(FLOW_COPY == 0 && FLOW_SPLICE == 1, "bits of access_note.paths");
    return words[n->paths & 3u];
}

static uint16_t status_of(const struct session *s, const struct access_note *n)
{
    bool http = s->protocol == PROTOCOL_HTTP_PLAIN || s->protocol == PROTOCOL_HTTP_CONNECT;
    if (n->status != 0 || !http) return n->status;
    if (s->protocol == PROTOCOL_HTTP_CONNECT && n->connected) return 200; /* whatever becomes of it then */
    return s->failure == FAIL_NONE ? 0 : failure_row((enum failure)s->failure)->http;
}

/* Of `a:80` and `[::1]:80` what stands before the port, without brackets. */
static struct access_text host_of(struct access_text target)
{
    while (target.size > 0 && target.data[target.size - 1] != ':') target.size--;
    if (target.size > 0) target.size--;
    if (target.size > 1 && target.data[0] == '[') return (struct access_text){target.data + 1, target.size - 2};
    return target;
}

static uint64_t wall_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void fill_record(struct worker *w, const struct session *s, const struct access_note *n, struct access_record *r)
{
    bool end = !n->open;
    *r = (struct access_record){
        .time_us = wall_us(),
        .event = end ? "end" : "start",
        .listener = s->protocol == PROTOCOL_SCRIPT ? NULL : w->config->listeners[s->listener].text,
        .protocol = word_of_protocol((enum session_protocol)s->protocol),
        .command = word_of_command(s, n),
        .result = !end                      ? NULL
                  : s->failure == FAIL_NONE ? "ok"
                                            : failure_row((enum failure)s->failure)->label,
        .relay = word_of_relay(n),
        .worker = w->index,
        .slot = s->slot,
        .generation = pool_generation(&w->sessions, s->slot),
        .rule_tag = s->rule,
        .revision = n->revision,
        .status = end ? status_of(s, n) : 0,
        .truncated = n->truncated,
        .client = s->client,
        .dialed = n->dialed,
        .egress = n->egress,
        .up = n->up,
        .down = n->down,
        .handshake_us = n->handshake_us,
        .decision_us = n->decision_us,
        .resolve_us = n->resolve_us,
        .connect_us = n->connect_us,
        .first_byte_us = n->first_byte_us,
        .total_us = since(w, n->begun_us),
        .client_rtt_us = n->rtt_us[CLIENT],
        .target_rtt_us = n->rtt_us[UPSTREAM],
        .client_retrans = n->retrans[CLIENT],
        .target_retrans = n->retrans[UPSTREAM],
    };
}

/* The reader takes what is there when it wakes, and sleeps seldom while there is much: few records cost this call. */
static void wake_reader(const struct worker *w)
{
    if (sleeper_must_wake(w->access->sleeper)) net_signal(w->access->wake_fd);
}

/* NULL: there is no room, which is counted. */
static struct access_record *reserve_record(struct worker *w, uint32_t texts)
{
    struct access_record *r = record_ring_reserve(w->access->ring, (uint32_t)sizeof *r + texts);
    if (!r) counter_add(&w->access->dropped, 1);
    return r;
}

static void commit_record(struct worker *w)
{
    record_ring_commit(w->access->ring);
    counter_add(&w->access->records, 1);
    wake_reader(w);
}

static void send_record(struct worker *w, const struct session *s, const struct access_note *n)
{
    struct access_record *r = reserve_record(w, n->used);
    if (!r) return;
    char *texts = (char *)(r + 1);
    struct access_text all[NOTE_TEXTS];
    fill_record(w, s, n, r);
    memcpy(texts, n->texts, n->used);
    for (unsigned i = 0; i < NOTE_TEXTS; i++) all[i] = (struct access_text){texts + n->places[i].at, n->places[i].size};
    r->user = all[NOTE_USER];
    r->target = all[NOTE_TARGET];
    r->method = all[NOTE_METHOD];
    r->path = all[NOTE_PATH];
    r->chain = all[NOTE_CHAIN];
    if (r->method.size > 0) r->host = host_of(r->target);
    commit_record(w);
}

/* --- who is no session --- */

static bool refusal_has_a_line(struct access_feed *feed, uint64_t second)
{
    if (feed->refusals_s != second) {
        feed->refusals_s = second;
        feed->refusals = 0;
    }
    if (feed->refusals == ACCESS_REFUSALS_MAX) return false;
    feed->refusals++;
    return true;
}

void access_refuse(struct worker *w, unsigned listener, const struct host_port *client, const char *why)
{
    if (!w->access) return;
    if (!refusal_has_a_line(w->access, ring_now_ms(w->ring) / 1000u)) {
        counter_add(&w->access->suppressed, 1);
        return;
    }
    struct access_record *r = reserve_record(w, 0);
    if (!r) return;
    *r = access_record_of_nothing(wall_us(), "end");
    r->listener = w->config->listeners[listener].text;
    r->result = why;
    r->client = *client;
    commit_record(w);
}

/* --- sessions --- */

void access_on_connected(struct worker *w, struct session *s)
{
    struct access_note *n = note_of(w, s);
    if (!n) return;
    struct net_address local;
    struct address address;
    n->connected = s->command != SOCKS5_UDP_ASSOCIATE;
    if (s->fd[UPSTREAM] >= 0) {
        struct host_port peer = net_peer_host_port(s->fd[UPSTREAM]);
        if (peer.kind != ADDRESS_NONE) n->dialed = peer; /* else it has gone again, or is a Unix socket */
        if (net_local_address(s->fd[UPSTREAM], &local) == 0 && net_address_to(&local, &address))
            n->egress = host_port_of(&address);
    }
    if (n->connected && n->requested && s->command == SOCKS5_CONNECT && s->setup != POOL_NONE) {
        uint64_t from_us = setup_of(w, s)->dialled_us; /* of the last try */
        n->connect_us = since(w, n->found_us > from_us ? n->found_us : from_us);
    }
    if (!w->access->starts || n->told) return;
    n->told = true;
    access_keep_texts(w, s);
    send_record(w, s, n);
}

void access_end(struct worker *w, struct session *s)
{
    struct access_note *n = note_of(w, s);
    if (!n || !n->open) return;
    access_keep_texts(w, s);
    note_socket(s, n, CLIENT);
    note_socket(s, n, UPSTREAM);
    n->open = false;
    send_record(w, s, n);
}

void access_release(struct worker *w, struct session *s)
{
    if (s->record == POOL_NONE) return;
    access_end(w, s);
    pool_give(&w->notes, s->record);
    pool_trim(&w->notes);
    s->record = POOL_NONE;
}
