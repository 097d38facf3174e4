#include "exchange.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "log.h"
#include "relay.h"
#include "worker.h"

static struct exchange *exchange_of(const struct worker *w, const struct session *s)
{
    return pool_at(&w->exchanges, s->extra);
}

static enum session_side other(enum session_side side)
{
    return side == CLIENT ? UPSTREAM : CLIENT;
}

static bool in_flight(const struct session *s, unsigned op)
{
    return (s->inflight & SESSION_BIT(op)) != 0;
}

/* Every movement pushes the limit away; once the response is under way only --idle-timeout is one. */
static void exchange_set_deadline(struct worker *w, struct session *s)
{
    uint32_t limit = exchange_of(w, s)->answered ? w->config->idle_timeout_ms : w->config->timeout_ms;
    if (limit > 0)
        timer_set(w->timers, s->slot, ring_now_ms(w->ring) + limit);
    else
        timer_clear(w->timers, s->slot);
}

/* --- the ways to end --- */

static void exchange_fail(struct worker *w, struct session *s, enum failure failure)
{
    struct exchange *e = exchange_of(w, s);
    if (e->answered || failure == FAIL_PEER) {
        s->failure = (uint8_t)failure;
        counter_add(&w->stats.failures[failure], 1);
        session_log(w, s, LOG_LEVEL_INFO, failure_row(failure)->word);
        session_close(w, s, SESSION_RESET);
    } else if (in_flight(s, SESSION_SEND + CLIENT)) {
        e->failure = (uint8_t)failure; /* an interim response is on its way: the refusal goes behind it */
    } else {
        session_proceed(w, s, session_fail(w, s, failure));
    }
}

/* The response is delivered. Our side is shut down first: closing at once could reset what the client has not read. */
static void exchange_finish(struct worker *w, struct session *s)
{
    session_drop_side(w, s, UPSTREAM, SESSION_ORDERLY);
    session_end_after_reply(w, s);
}

static void exchange_switch(struct worker *w, struct session *s)
{
    session_proceed(w, s, SESSION_RELAY);
}

/* --- passing on --- */

static size_t stream_room(const struct stream *st)
{
    return EXCHANGE_OUT_SIZE - st->out_size;
}

static void stream_put(struct stream *st, const uint8_t *data, size_t size)
{
    size_t room = stream_room(st);
    assert(size + 2 * HTTP_CHUNK_OVERHEAD <= room);
    if (st->rechunk) st->out_size += (uint32_t)http_write_chunk_head(st->out + st->out_size, room, size);
    memcpy(st->out + st->out_size, data, size);
    st->out_size += (uint32_t)size;
    if (!st->rechunk) return;
    memcpy(st->out + st->out_size, "\r\n", 2);
    st->out_size += 2;
}

static void stream_end(struct stream *st)
{
    if (st->rechunk) st->out_size += (uint32_t)http_write_last_chunk(st->out + st->out_size, stream_room(st));
    st->phase = STREAM_DONE;
}

/* Turns what was received into what is sent, as far as there is room. False: the body's framing is broken. */
static bool stream_pass_body(struct stream *st)
{
    while (st->phase == STREAM_BODY && st->in_used < st->in_size && stream_room(st) > 4 * HTTP_CHUNK_OVERHEAD) {
        size_t used, at, payload, size = st->in_size - st->in_used;
        size_t room = stream_room(st) - 3 * HTTP_CHUNK_OVERHEAD;
        enum parse_result result =
            http_body_read(&st->body, st->in + st->in_used, size < room ? size : room, &used, &at, &payload);
        if (result != PARSE_OK && result != PARSE_MORE) return false;
        if (payload > 0) stream_put(st, st->in + st->in_used + at, payload);
        st->in_used += (uint32_t)used;
        if (result == PARSE_OK) stream_end(st);
    }
    return true;
}

/* --- the response's head --- */

static enum failure response_begin(struct exchange *e, const struct http_head *head, size_t used)
{
    struct stream *st = &e->streams[UPSTREAM];
    struct http_forward_response response;
    const uint8_t *data = st->in + st->in_used;
    if (http_forward_judge_response(data, head, &e->request, &response) != 0) return FAIL_UPSTREAM_RESPONSE;
    size_t size =
        http_forward_write_response(data, head, &e->request, &response, st->out + st->out_size, stream_room(st));
    if (size == 0) return FAIL_UPSTREAM_RESPONSE;
    /* HTTP/1.0 knows no interim responses (RFC 9110 section 15.2). */
    if (!(response.interim && e->request.client_is_http10)) st->out_size += (uint32_t)size;
    st->in_used += (uint32_t)used;
    st->scanned = 0;
    if (response.interim) return FAIL_NONE; /* another head follows */
    e->answered = true;
    st->rechunk = response.rechunk;
    st->phase = response.switched ? STREAM_SWITCH : STREAM_BODY;
    http_body_begin(&st->body, response.framing, response.length);
    if (!response.switched &&
        (response.framing == HTTP_BODY_NONE || (response.framing == HTTP_BODY_LENGTH && response.length == 0)))
        stream_end(st);
    return FAIL_NONE;
}

/* Moves what is left to the front, so that a head of the longest size fits behind it. */
static void stream_compact(struct stream *st)
{
    memmove(st->in, st->in + st->in_used, st->in_size - st->in_used);
    st->in_size -= st->in_used;
    st->in_used = 0;
}

static enum failure response_read_heads(struct exchange *e)
{
    struct stream *st = &e->streams[UPSTREAM];
    while (st->phase == STREAM_HEAD && st->in_size > st->in_used) {
        struct http_head head;
        size_t used;
        if (st->out_size > 0) return FAIL_NONE; /* an interim head first: `out` has room for one */
        enum parse_result result =
            http_parse_response(st->in + st->in_used, st->in_size - st->in_used, &st->scanned, &head, &used);
        if (result == PARSE_MORE) {
            stream_compact(st);
            return FAIL_NONE;
        }
        enum failure failure = result == PARSE_OK ? response_begin(e, &head, used) : FAIL_UPSTREAM_RESPONSE;
        if (failure != FAIL_NONE) return failure;
    }
    return FAIL_NONE;
}

static void stream_pass_raw(struct stream *st)
{
    size_t size = st->in_size - st->in_used;
    if (size > stream_room(st)) size = stream_room(st);
    memcpy(st->out + st->out_size, st->in + st->in_used, size);
    st->out_size += (uint32_t)size;
    st->in_used += (uint32_t)size;
}

static enum failure stream_pass(struct exchange *e, enum session_side from)
{
    struct stream *st = &e->streams[from];
    enum failure failure = from == UPSTREAM ? response_read_heads(e) : FAIL_NONE;
    if (failure != FAIL_NONE) return failure;
    if (st->phase == STREAM_SWITCH) stream_pass_raw(st);
    if (stream_pass_body(st)) return FAIL_NONE;
    return from == UPSTREAM ? FAIL_UPSTREAM_RESPONSE : FAIL_SYNTAX;
}

/* --- the pump --- */

static bool stream_wants_input(const struct stream *st)
{
    if (st->phase == STREAM_HEAD) return st->in_size < EXCHANGE_IN_SIZE;
    return st->phase == STREAM_BODY && st->in_used == st->in_size;
}

static void stream_receive(struct worker *w, struct session *s, enum session_side from)
{
    struct stream *st = &exchange_of(w, s)->streams[from];
    if (in_flight(s, SESSION_RECV + from) || !stream_wants_input(st)) return;
    if (st->in_used == st->in_size) st->in_used = st->in_size = 0;
    ring_recv(w->ring, s->fd[from], st->in + st->in_size, EXCHANGE_IN_SIZE - st->in_size,
              session_arm(w, s, SESSION_RECV + from));
}

/* All of this direction's message is sent. */
static void stream_on_flushed(struct worker *w, struct session *s, enum session_side from)
{
    struct stream *st = &exchange_of(w, s)->streams[from];
    if (from == CLIENT) return;
    if (st->phase == STREAM_DONE)
        exchange_finish(w, s);
    else if (st->phase == STREAM_SWITCH && st->in_used == st->in_size)
        exchange_switch(w, s);
}

static void stream_pump(struct worker *w, struct session *s, enum session_side from)
{
    struct exchange *e = exchange_of(w, s);
    struct stream *st = &e->streams[from];
    if (in_flight(s, SESSION_SEND + other(from))) return;
    enum failure failure = in_flight(s, SESSION_RECV + from) ? FAIL_NONE : stream_pass(e, from);
    if (failure != FAIL_NONE && st->out_size == 0) {
        exchange_fail(w, s, failure);
        return;
    }
    if (st->out_used < st->out_size) {
        ring_send(w->ring, s->fd[other(from)], st->out + st->out_used, st->out_size - st->out_used,
                  session_arm(w, s, SESSION_SEND + other(from)));
        return;
    }
    stream_receive(w, s, from);
    stream_on_flushed(w, s, from);
}

/* The sink takes no more. An upstream that refuses the rest of a body may have answered already: its response decides.
 */
static void stream_on_sink_lost(struct worker *w, struct session *s, enum session_side from)
{
    struct stream *st = &exchange_of(w, s)->streams[from];
    if (from == UPSTREAM) {
        exchange_fail(w, s, FAIL_PEER);
        return;
    }
    st->phase = STREAM_DONE;
    st->out_used = st->out_size = 0;
}

static void stream_on_sent(struct worker *w, struct session *s, enum session_side from, int32_t result)
{
    struct exchange *e = exchange_of(w, s);
    struct stream *st = &e->streams[from];
    if (result > 0) {
        counter_add(from == CLIENT ? &w->stats.bytes_up : &w->stats.bytes_down, (uint64_t)result);
        counter_add(&w->stats.bytes_copy, (uint64_t)result);
        st->out_used += (uint32_t)result;
    }
    if (result <= 0 || st->out_used < st->out_size) { /* less than all: an error has cut it */
        stream_on_sink_lost(w, s, from);
        return;
    }
    st->out_used = st->out_size = 0;
    if (from == UPSTREAM && e->failure != FAIL_NONE)
        exchange_fail(w, s, e->failure);
    else
        stream_pump(w, s, from);
}

/* The source has ended. */
static void stream_on_end(struct worker *w, struct session *s, enum session_side from)
{
    struct exchange *e = exchange_of(w, s);
    struct stream *st = &e->streams[from];
    if (from == CLIENT) {
        if (st->phase != STREAM_DONE) exchange_fail(w, s, FAIL_PEER); /* in the middle of its request's body */
    } else if (st->phase == STREAM_BODY && http_body_complete_at_close(&st->body)) {
        stream_end(st);
        stream_pump(w, s, from);
    } else {
        exchange_fail(w, s, FAIL_UPSTREAM_RESPONSE);
    }
}

static void stream_on_received(struct worker *w, struct session *s, enum session_side from, int32_t result)
{
    struct stream *st = &exchange_of(w, s)->streams[from];
    if (result == 0) {
        stream_on_end(w, s, from);
    } else if (result < 0) {
        exchange_fail(w, s, from == CLIENT ? FAIL_PEER : FAIL_UPSTREAM_RESPONSE);
    } else {
        st->in_size += (uint32_t)result;
        stream_pump(w, s, from);
    }
}

void exchange_on_completion(struct worker *w, struct session *s, unsigned op, int32_t result)
{
    switch (op) {
    case SESSION_RECV + CLIENT: stream_on_received(w, s, CLIENT, result); break;
    case SESSION_RECV + UPSTREAM: stream_on_received(w, s, UPSTREAM, result); break;
    case SESSION_SEND + UPSTREAM: stream_on_sent(w, s, CLIENT, result); break;
    case SESSION_SEND + CLIENT: stream_on_sent(w, s, UPSTREAM, result); break;
    case SESSION_WATCH + CLIENT:
        if (result >= 0 && result & POLLERR) exchange_fail(w, s, FAIL_PEER);
        break;
    default: break; /* a connect that lost its race */
    }
    if (s->state == SESSION_EXCHANGE) exchange_set_deadline(w, s);
}

/* --- beginning and end --- */

/* The head was judged when it came in; what is needed of it now is read again rather than kept for the time of the
 * dial. */
static enum failure request_begin(struct exchange *e, const struct setup *setup)
{
    struct stream *st = &e->streams[CLIENT];
    struct http_head head;
    size_t scanned = 0, used;
    if (http_parse_request(setup->head, setup->consumed, &scanned, &head, &used) != PARSE_OK) return FAIL_INTERNAL;
    if (http_forward_judge(setup->head, &head, &e->request) != 0) return FAIL_INTERNAL;
    size_t size = http_forward_write_request(setup->head, &head, &e->request, st->out, EXCHANGE_OUT_SIZE);
    if (size == 0) return FAIL_TOO_LARGE;
    st->out_size = (uint32_t)size;
    st->rechunk = e->request.framing == HTTP_BODY_CHUNKED;
    http_body_begin(&st->body, e->request.framing, e->request.length);
    bool bodyless =
        e->request.framing == HTTP_BODY_NONE || (e->request.framing == HTTP_BODY_LENGTH && e->request.length == 0);
    st->phase = bodyless ? STREAM_DONE : STREAM_BODY;
    return FAIL_NONE;
}

static void stream_init(struct stream *st, enum stream_phase phase)
{
    st->phase = (uint8_t)phase;
    st->rechunk = false;
    st->in_used = st->in_size = st->out_used = st->out_size = 0;
    st->scanned = 0;
}

/* What the client has sent behind its head is the beginning of its body; behind a bodiless request it stays where it
 * is, for the relay that an upgrade may lead to. */
static void exchange_take_early(struct exchange *e, struct setup *setup)
{
    struct stream *st = &e->streams[CLIENT];
    if (st->phase != STREAM_BODY) return;
    st->in_size = setup->received - setup->consumed;
    memcpy(st->in, setup->head + setup->consumed, st->in_size);
    setup->consumed = setup->received;
}

void exchange_begin(struct worker *w, struct session *s)
{
    struct exchange *e = exchange_of(w, s);
    e->failure = FAIL_NONE;
    e->answered = false;
    stream_init(&e->streams[CLIENT], STREAM_BODY);
    stream_init(&e->streams[UPSTREAM], STREAM_HEAD);
    enum failure failure = request_begin(e, setup_of(w, s));
    if (failure != FAIL_NONE) {
        exchange_fail(w, s, failure);
        return;
    }
    exchange_take_early(e, setup_of(w, s));
    exchange_set_deadline(w, s);
    if (!in_flight(s, SESSION_WATCH + CLIENT)) /* nothing else would notice that the client gives up */
        ring_watch(w->ring, s->fd[CLIENT], session_arm(w, s, SESSION_WATCH + CLIENT));
    stream_pump(w, s, CLIENT);
    if (s->state == SESSION_EXCHANGE) stream_pump(w, s, UPSTREAM);
}

void exchange_on_timer(struct worker *w, struct session *s)
{
    exchange_fail(w, s, FAIL_CONNECT_TIMEOUT);
    if (s->state == SESSION_EXCHANGE)
        session_close(w, s, SESSION_RESET); /* not even an interim response could be sent */
}

void exchange_release(struct worker *w, struct session *s)
{
    if (s->extra == POOL_NONE) return;
    pool_give(&w->exchanges, s->extra);
    s->extra = POOL_NONE;
}
