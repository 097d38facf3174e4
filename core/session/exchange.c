#include "core/session/exchange.h"
#include "core/session/access.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/conn_cache.h"
#include "core/session/end.h"
#include "core/session/flow.h"
#include "core/session/flow_private.h"
#include "core/session/hooks.h"
#include "core/session/idle.h"
#include "core/session/limited.h"
#include "core/session/parting.h"
#include "core/session/session.h"
#include "core/session/upstream.h"
#include "core/session/worker.h"

/* Interim responses to one request, each of which gives the upstream another --timeout. */
#define EXCHANGE_INTERIMS_MAX 32u
/* Without --idle-timeout: an exchange holds two heads, of which there are few, and is not held by silence for ever. */
#define EXCHANGE_STALL_MS 3600000u

static void stream_pump(struct worker *w, struct session *s, enum session_side from);

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

/* --- time --- */

/* The request is sent, all of it. */
static bool request_is_out(const struct exchange *e)
{
    const struct stream *st = &e->streams[CLIENT];
    return st->phase == STREAM_DONE && st->out_used == st->out_size;
}

/* The head that is awaited has a limit that no movement pushes away: from its first octet on, or from when there is
 * nothing left that the upstream could wait for. */
static void exchange_begin_wait(const struct worker *w, struct exchange *e)
{
    const struct stream *st = &e->streams[UPSTREAM];
    if (e->head_until_ms != 0 || e->answered) return;
    if (request_is_out(e) || st->in_size > st->in_used) e->head_until_ms = ring_now_ms(w->ring) + w->config->timeout_ms;
}

static uint32_t exchange_idle_ms(const struct worker *w)
{
    return w->config->idle_timeout_ms > 0 ? w->config->idle_timeout_ms : EXCHANGE_STALL_MS;
}

/* While the request is sent every movement pushes the limit away; once the response is under way only idleness is one,
 * which is first looked at when keepalive is due. */
static void exchange_set_deadline(struct worker *w, struct session *s)
{
    struct exchange *e = exchange_of(w, s);
    uint64_t now = ring_now_ms(w->ring);
    uint32_t idle = exchange_idle_ms(w), first = session_first_look_ms(w->config);
    exchange_begin_wait(w, e);
    s->moved_ms = now;
    s->moved = s->flows[CLIENT].bytes + s->flows[UPSTREAM].bytes;
    if (e->answered)
        timer_set(w->timers, s->slot, now + (s->keepalive_set || idle < first ? idle : first));
    else
        timer_set(w->timers, s->slot, e->head_until_ms != 0 ? e->head_until_ms : now + w->config->timeout_ms);
}

/* --- the ways to end --- */

static void exchange_fail(struct worker *w, struct session *s, enum failure failure)
{
    struct exchange *e = exchange_of(w, s);
    flow_drop(w, s, CLIENT);
    flow_drop(w, s, UPSTREAM);
    if (e->answered || failure == FAIL_PEER) {
        session_blame(w, s, failure);
        session_log(w, s, LOG_LEVEL_INFO, failure_row(failure)->word);
        session_close(w, s, SESSION_RESET);
    } else if (in_flight(s, SESSION_SEND + CLIENT)) {
        e->failure = (uint8_t)failure; /* an interim response is on its way: the refusal goes behind it */
        e->streams[CLIENT].phase = STREAM_DONE;
    } else {
        session_proceed(w, s, session_fail(w, s, failure));
    }
}

/* What the client sent behind its request comes to the front of the setup slot's head. False: there is no room. */
static bool exchange_leave_rest(struct worker *w, struct exchange *e, struct setup *setup)
{
    const struct stream *st = &e->streams[CLIENT];
    bool behind_body = st->in_size > st->in_used;
    const uint8_t *rest = behind_body ? st->in.data + st->in_used : setup->head.data + setup->consumed;
    uint32_t size = behind_body ? st->in_size - st->in_used : setup->received - setup->consumed;
    assert(!behind_body || setup->received == setup->consumed);
    if (behind_body && !st->counted) counter_add(&w->stats.handshake_in, size);
    if (size <= sizeof setup->head_small) {
        memmove(setup->head_small, rest, size);
        head_buffer_shrink(w, &setup->head, setup->head_small, sizeof setup->head_small);
    } else if (!head_buffer_grow(w, &setup->head, behind_body ? 0 : setup->received, true)) {
        return false;
    } else {
        memmove(setup->head.data, rest, size);
    }
    setup->received = size;
    setup->consumed = 0;
    return true;
}

/* --- the end of a response --- */

static uint32_t upstream_in_flight(const struct session *s)
{
    uint32_t bits = 0;
    for (unsigned op = SESSION_RECV + UPSTREAM; op <= SESSION_WATCH + UPSTREAM; op += 2) bits |= SESSION_BIT(op);
    return s->inflight & bits;
}

static bool exchange_is_quiet(const struct session *s)
{
    return (s->inflight & ~SESSION_BIT(SESSION_WATCH + CLIENT)) == 0;
}

/* A connection that is authenticated for its client is of no use without that client. */
static bool exchange_keeps_upstream(struct worker *w, struct session *s, bool client_stays)
{
    const struct exchange *e = exchange_of(w, s);
    const struct stream *st = &e->streams[UPSTREAM];
    bool surplus = st->in_used < st->in_size; /* nobody has asked for it */
    if (!e->keep_upstream || surplus || upstream_in_flight(s) || (s->exclusive && !client_stays)) return false;
    return conn_cache_keep(w, s);
}

/* A connect that lost its race may come back behind the whole response. */
static bool exchange_awaits_connect(const struct session *s)
{
    for (unsigned i = 0; i < DIAL_ATTEMPTS_MAX; i++)
        if (in_flight(s, SESSION_CONNECT + i)) return true;
    return false;
}

/* The response is delivered. The next request is not to meet connects of this one: it waits for the last of them, which
 * is cancelled. A stop does not wait for requests that may never come, but serves one that is there. Where the
 * connection ends with the response our side is shut down first: closing at once could reset what the client has not
 * read. */
static void exchange_finish(struct worker *w, struct session *s)
{
    struct exchange *e = exchange_of(w, s);
    if (e->keep && exchange_awaits_connect(s)) return;
    bool goes_on = e->keep && exchange_is_quiet(s) && exchange_leave_rest(w, e, setup_of(w, s));
    if (w->draining && setup_of(w, s)->received == 0) goes_on = false;
    if (!flow_sends(s)) access_end(w, s); /* while both sockets can be asked; else when the last octet is counted */
    s->settled = true;
    if (!exchange_keeps_upstream(w, s, goes_on)) session_drop_side(w, s, UPSTREAM, SESSION_ORDERLY);
    if (!goes_on) {
        parting_end_exchange(w, s);
        return;
    }
    limited_leave(w, s); /* the next request is one of its own */
    upstream_leave(s);
    exchange_release(w, s);
    idle_begin(w, s);
}

/* A quota is spent. A client that has no answer yet, nor a part of an interim one, is told so. */
static void exchange_spend(struct worker *w, struct session *s)
{
    const struct exchange *e = exchange_of(w, s);
    if (e->answered || e->streams[UPSTREAM].out_used > 0)
        parting_cut(w, s, FAIL_QUOTA);
    else
        exchange_fail(w, s, FAIL_QUOTA);
}

/* A relay needs none of this, and may last for days. */
static void exchange_switch(struct worker *w, struct session *s)
{
    exchange_release(w, s);
    session_proceed(w, s, SESSION_RELAY);
}

/* --- an upstream that had ended --- */

/* Nothing of the upstream is in flight any more: the request goes to another one. */
static void exchange_repeat(struct worker *w, struct session *s)
{
    if (upstream_in_flight(s)) return;
    struct setup *setup = setup_of(w, s);
    limited_refund(w, s, CLIENT);
    exchange_release(w, s);
    s->reused = false;
    s->repeated = true;
    setup->deadline_ms = ring_now_ms(w->ring) + w->config->timeout_ms;
    setup->dialled_us = ring_now_us(w->ring);
    session_log(w, s, LOG_LEVEL_DEBUG, "the connection of before has ended, the request is sent again");
    session_hook_redial(w, s);
}

/* The upstream has given no answer, and gives none. True: it is another one's turn. What is meant are connections that
 * their upstream had given up already: a request that ends a fresh one is not to end another. */
static bool exchange_begin_repeat(struct worker *w, struct session *s)
{
    struct exchange *e = exchange_of(w, s);
    if (!s->reused || e->answered || e->interims > 0) return false;
    counter_add(&w->stats.conns_stale, 1);
    if (!setup_of(w, s)->repeatable) return false;
    e->repeats = true;
    flow_drop(w, s, CLIENT);
    flow_drop(w, s, UPSTREAM);
    session_drop_side(w, s, UPSTREAM, SESSION_RESET);
    exchange_repeat(w, s);
    return true;
}

/* --- buffers --- */

/* Room for what is made of a head of that many octets. False: there is none to be had. */
static bool stream_make_room(struct worker *w, struct stream *st, size_t head, enum session_side from)
{
    return head <= sizeof st->in_small || head_buffer_grow(w, &st->out, st->out_size, from == CLIENT);
}

static void stream_empty_in(struct worker *w, struct stream *st)
{
    assert(st->in_used == st->in_size);
    st->in_used = st->in_size = 0;
    st->counted = false;
    head_buffer_shrink(w, &st->in, st->in_small, sizeof st->in_small);
}

static void stream_empty_out(struct worker *w, struct stream *st)
{
    st->out_used = st->out_size = 0;
    head_buffer_shrink(w, &st->out, st->out_small, sizeof st->out_small);
}

/* --- passing on --- */

static size_t stream_room(const struct stream *st)
{
    return st->out.size - st->out_size;
}

static void stream_put(struct stream *st, const uint8_t *data, size_t size)
{
    size_t room = stream_room(st);
    assert(size + 2 * HTTP_CHUNK_OVERHEAD <= room);
    if (st->rechunk) st->out_size += (uint32_t)http_write_chunk_head(st->out.data + st->out_size, room, size);
    memcpy(st->out.data + st->out_size, data, size);
    st->out_size += (uint32_t)size;
    if (!st->rechunk) return;
    memcpy(st->out.data + st->out_size, "\r\n", 2);
    st->out_size += 2;
}

static void stream_end(struct stream *st)
{
    if (st->rechunk) st->out_size += (uint32_t)http_write_last_chunk(st->out.data + st->out_size, stream_room(st));
    st->phase = STREAM_DONE;
}

/* Turns what was received into what is sent, as far as there is room. False: the body's framing is broken. */
static bool stream_pass_body(struct stream *st)
{
    while (st->phase == STREAM_BODY && st->in_used < st->in_size && stream_room(st) > 4 * HTTP_CHUNK_OVERHEAD) {
        size_t used, at, payload, size = st->in_size - st->in_used;
        size_t room = stream_room(st) - 3 * HTTP_CHUNK_OVERHEAD;
        enum parse_result result =
            http_body_read(&st->body, st->in.data + st->in_used, size < room ? size : room, &used, &at, &payload);
        if (result != PARSE_OK && result != PARSE_MORE) return false;
        if (payload > 0) stream_put(st, st->in.data + st->in_used + at, payload);
        st->in_used += (uint32_t)used;
        if (result == PARSE_OK) stream_end(st);
    }
    return true;
}

/* --- the response's head --- */

/* The request will not be sent again: a large head of it has served. What is behind it is the next request. */
static void request_forget(struct worker *w, struct setup *setup)
{
    if (setup->consumed < setup->received) return;
    setup->consumed = setup->received = 0;
    head_buffer_shrink(w, &setup->head, setup->head_small, sizeof setup->head_small);
}

/* The upstream has tired of its idle connection while the request was on its way (RFC 9110 section 15.5.9). */
static bool response_is_for_nobody(const struct worker *w, const struct session *s, const struct http_head *head)
{
    return head->status == 408 && s->reused && setup_of(w, s)->repeatable && exchange_of(w, s)->interims == 0;
}

static enum failure response_begin(struct worker *w, struct session *s, const struct http_head *head, size_t used)
{
    struct exchange *e = exchange_of(w, s);
    struct stream *st = &e->streams[UPSTREAM];
    struct http_forward_response response;
    const uint8_t *data = st->in.data + st->in_used;
    if (http_forward_judge_response(data, head, &e->request, &response) != 0) return FAIL_UPSTREAM_RESPONSE;
    e->repeats = response_is_for_nobody(w, s, head);
    if (e->repeats) return FAIL_NONE;
    if (response.interim && ++e->interims > EXCHANGE_INTERIMS_MAX) return FAIL_UPSTREAM_RESPONSE;
    if (!stream_make_room(w, st, used, UPSTREAM)) return FAIL_RESOURCE;
    /* Of a request that is answered before it is complete the rest has nowhere to go. */
    response.keep &= request_is_out(e) && !w->draining;
    if (!response.interim) e->keep = response.keep;
    e->keep_upstream = response.keep_upstream && request_is_out(e);
    s->exclusive |= response.binds;
    size_t size =
        http_forward_write_response(data, head, &e->request, &response, st->out.data + st->out_size, stream_room(st));
    if (size == 0) return FAIL_RESPONSE_TOO_LARGE;
    /* HTTP/1.0 knows no interim responses (RFC 9110 section 15.2). */
    if (!(response.interim && e->request.client_is_http10)) st->out_size += (uint32_t)size;
    st->in_used += (uint32_t)used;
    st->scanned = 0;
    e->head_until_ms = 0;
    if (response.interim) return FAIL_NONE; /* another head follows */
    e->answered = true;
    access_on_status(w, s, head->status);
    request_forget(w, setup_of(w, s));
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
    memmove(st->in.data, st->in.data + st->in_used, st->in_size - st->in_used);
    st->in_size -= st->in_used;
    st->in_used = 0;
}

/* The head goes on behind what is there. */
static enum failure response_wait(struct worker *w, struct stream *st)
{
    stream_compact(st);
    bool room = st->in_size < st->in.size || head_buffer_grow(w, &st->in, st->in_size, false);
    return room ? FAIL_NONE : FAIL_RESOURCE;
}

static enum failure response_read_heads(struct worker *w, struct session *s)
{
    struct stream *st = &exchange_of(w, s)->streams[UPSTREAM];
    while (st->phase == STREAM_HEAD && st->in_size > st->in_used) {
        struct http_head head;
        size_t used;
        enum failure failure = FAIL_NONE;
        if (st->out_size > 0) return FAIL_NONE; /* an interim head first: `out` has room for one */
        switch (http_parse_response(st->in.data + st->in_used, st->in_size - st->in_used, &st->scanned, &head, &used)) {
        case PARSE_OK: failure = response_begin(w, s, &head, used); break;
        case PARSE_MORE: return response_wait(w, st);
        case PARSE_TOO_LARGE: return FAIL_RESPONSE_TOO_LARGE;
        default: return FAIL_UPSTREAM_RESPONSE;
        }
        if (failure != FAIL_NONE || exchange_of(w, s)->repeats) return failure;
    }
    return FAIL_NONE;
}

static void stream_pass_raw(struct stream *st)
{
    size_t size = st->in_size - st->in_used;
    if (size > stream_room(st)) size = stream_room(st);
    memcpy(st->out.data + st->out_size, st->in.data + st->in_used, size);
    st->out_size += (uint32_t)size;
    st->in_used += (uint32_t)size;
}

static enum failure stream_pass(struct worker *w, struct session *s, enum session_side from)
{
    struct stream *st = &exchange_of(w, s)->streams[from];
    enum failure failure = from == UPSTREAM ? response_read_heads(w, s) : FAIL_NONE;
    if (failure != FAIL_NONE) return failure;
    if (st->phase == STREAM_SWITCH) stream_pass_raw(st);
    if (stream_pass_body(st)) return FAIL_NONE;
    return from == UPSTREAM ? FAIL_UPSTREAM_RESPONSE : FAIL_SYNTAX;
}

/* --- runs of a body as flows --- */

/* Whether so much follows without framing that it would have to be received here several times. */
static bool stream_is_bulk(const struct session *s, const struct stream *st, enum session_side from)
{
    if (st->phase != STREAM_BODY || st->in_used < st->in_size || in_flight(s, SESSION_RECV + from)) return false;
    return http_body_run(&st->body) > EXCHANGE_IN_SIZE;
}

/* Nothing is left to be received or sent here before the run; what its chunk is called goes first. */
static void stream_begin_run(struct worker *w, struct stream *st)
{
    st->phase = STREAM_FLOW;
    stream_empty_in(w, st);
    if (!st->rechunk) return;
    st->out_size +=
        (uint32_t)http_write_chunk_head(st->out.data + st->out_size, stream_room(st), http_body_run(&st->body));
}

/* The source has ended behind its run, or within it. A send of the request may have been told of a reset, so that its
 * response seems to end. */
static void stream_on_run_ended(struct worker *w, struct session *s, enum session_side from)
{
    struct stream *st = &exchange_of(w, s)->streams[from];
    if (from == UPSTREAM && http_body_run(&st->body) == UINT64_MAX && !net_was_cut(s->fd[from])) {
        stream_end(st);
        stream_pump(w, s, from);
    } else {
        exchange_fail(w, s, from == CLIENT ? FAIL_PEER : FAIL_RESPONSE_INCOMPLETE);
    }
}

static void stream_on_run_done(struct worker *w, struct session *s, enum session_side from)
{
    struct flow *f = &s->flows[from];
    struct stream *st = &exchange_of(w, s)->streams[from];
    assert(st->phase == STREAM_FLOW);
    f->phase = FLOW_IDLE;
    f->mode = FLOW_COPY; /* what is sent from here on is counted as copied */
    if (f->limit > 0) {
        stream_on_run_ended(w, s, from);
        return;
    }
    http_body_skip_run(&st->body);
    st->phase = STREAM_BODY;
    if (st->rechunk) {
        memcpy(st->out.data, "\r\n", 2);
        st->out_size = 2;
    }
    if (st->body.framing == HTTP_BODY_LENGTH) stream_end(st);
    stream_pump(w, s, from);
}

static void stream_on_sink_lost(struct worker *w, struct session *s, enum session_side from);

static void stream_on_run_broken(struct worker *w, struct session *s, enum session_side from, enum session_side side,
                                 ssize_t error)
{
    (void)error;
    if (side != from)
        stream_on_sink_lost(w, s, from);
    else
        exchange_fail(w, s, from == CLIENT ? FAIL_PEER : FAIL_RESPONSE_INCOMPLETE);
}

static void stream_on_run_spent(struct worker *w, struct session *s, enum session_side from)
{
    (void)from;
    exchange_spend(w, s);
}

static void stream_open_flow(struct worker *w, struct session *s, enum session_side from)
{
    static const struct flow_owner owner = {stream_on_run_done, stream_on_run_broken, stream_on_run_spent, NULL};
    uint64_t run = http_body_run(&exchange_of(w, s)->streams[from].body);
    flow_open(w, s, from, &(struct flow_start){.owner = &owner, .limit = run});
    flow_advance(w, s, from);
}

/* --- the pump --- */

static bool stream_wants_input(const struct stream *st)
{
    if (st->phase == STREAM_HEAD) return st->in_size < st->in.size;
    return st->phase == STREAM_BODY && st->in_used == st->in_size;
}

static void stream_receive(struct worker *w, struct session *s, enum session_side from)
{
    struct stream *st = &exchange_of(w, s)->streams[from];
    if (in_flight(s, SESSION_RECV + from) || !stream_wants_input(st)) return;
    if (st->in_used == st->in_size) stream_empty_in(w, st);
    ring_recv(w->ring, s->fd[from], st->in.data + st->in_size, st->in.size - st->in_size,
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

/* As much as its limits let it; what is left goes when it is its turn. */
static void stream_send(struct worker *w, struct session *s, enum session_side from)
{
    struct stream *st = &exchange_of(w, s)->streams[from];
    uint32_t size = flow_grant(w, s, from, st->out_size - st->out_used);
    if (size == 0) {
        if (s->spent) exchange_spend(w, s);
        return;
    }
    limited_settle(w, s, from, size);
    st->sending = s->flows[from].sending = size;
    ring_send(w->ring, s->fd[other(from)], st->out.data + st->out_used, size,
              session_arm(w, s, SESSION_SEND + other(from)));
}

static void stream_pump(struct worker *w, struct session *s, enum session_side from)
{
    struct exchange *e = exchange_of(w, s);
    struct stream *st = &e->streams[from];
    if (in_flight(s, SESSION_SEND + other(from)) || flow_is_open(&s->flows[from])) return;
    if (s->flows[from].flags & FLOW_RESTING) return;
    enum failure failure = in_flight(s, SESSION_RECV + from) ? FAIL_NONE : stream_pass(w, s, from);
    if (failure != FAIL_NONE && st->out_size == 0) {
        exchange_fail(w, s, failure);
        return;
    }
    if (e->repeats) {
        exchange_begin_repeat(w, s);
        return;
    }
    if (st->out_size == 0 && stream_is_bulk(s, st, from)) stream_begin_run(w, st);
    if (st->out_used < st->out_size) {
        stream_send(w, s, from);
        return;
    }
    if (st->phase == STREAM_FLOW) {
        stream_open_flow(w, s, from);
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
    stream_empty_out(w, st);
    flow_drop(w, s, CLIENT);
    if (!in_flight(s, SESSION_SEND + UPSTREAM)) buffers_drop_all(&w->buffers, &s->flows[CLIENT].held);
}

static void stream_on_sent(struct worker *w, struct session *s, enum session_side from, int32_t result)
{
    struct exchange *e = exchange_of(w, s);
    struct stream *st = &e->streams[from];
    if (result > 0) st->out_used += (uint32_t)result;
    if (result <= 0 || (uint32_t)result < st->sending) { /* less than all: an error has cut it */
        stream_on_sink_lost(w, s, from);
        return;
    }
    if (st->out_used < st->out_size) {
        stream_pump(w, s, from);
        return;
    }
    stream_empty_out(w, st);
    if (from == UPSTREAM && e->failure != FAIL_NONE)
        exchange_fail(w, s, e->failure);
    else
        stream_pump(w, s, from);
}

/* The source has ended, or seems to. */
static void stream_on_end(struct worker *w, struct session *s, enum session_side from)
{
    struct exchange *e = exchange_of(w, s);
    struct stream *st = &e->streams[from];
    if (from == CLIENT) {
        if (st->phase != STREAM_DONE) exchange_fail(w, s, FAIL_PEER); /* in the middle of its request's body */
    } else if (st->in_size == 0 && exchange_begin_repeat(w, s)) {
        return;
    } else if (st->phase == STREAM_BODY && http_body_complete_at_close(&st->body) && !net_was_cut(s->fd[from])) {
        stream_end(st);
        stream_pump(w, s, from);
    } else {
        exchange_fail(w, s, FAIL_RESPONSE_INCOMPLETE);
    }
}

static void stream_on_received(struct worker *w, struct session *s, enum session_side from, int32_t result)
{
    struct stream *st = &exchange_of(w, s)->streams[from];
    if (result == 0) {
        stream_on_end(w, s, from);
    } else if (result < 0 && from == UPSTREAM && st->in_size == 0 && exchange_begin_repeat(w, s)) {
        return;
    } else if (result < 0) {
        exchange_fail(w, s, from == CLIENT ? FAIL_PEER : FAIL_RESPONSE_INCOMPLETE);
    } else {
        st->in_size += (uint32_t)result;
        stream_pump(w, s, from);
    }
}

/* An operation of a flow that was dropped: only the client's can be, when its upstream takes no more or has failed. */
static bool exchange_is_stale(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c)
{
    const struct stream *st = &exchange_of(w, s)->streams[CLIENT];
    if (c->has_buffer) buffers_return(&w->buffers, c->buffer);
    if (op == SESSION_RECV + CLIENT) return st->phase == STREAM_DONE;
    return op == SESSION_SEND + UPSTREAM && st->out_size == 0;
}

static void exchange_handle(struct worker *w, struct session *s, unsigned op, int32_t result)
{
    switch (op) {
    case SESSION_RECV + CLIENT: stream_on_received(w, s, CLIENT, result); break;
    case SESSION_RECV + UPSTREAM: stream_on_received(w, s, UPSTREAM, result); break;
    case SESSION_SEND + UPSTREAM: stream_on_sent(w, s, CLIENT, result); break;
    case SESSION_SEND + CLIENT: stream_on_sent(w, s, UPSTREAM, result); break;
    case SESSION_WATCH + CLIENT:
        if (result >= 0 && result & POLLERR)
            exchange_fail(w, s, FAIL_PEER);
        else if (result == 0 && !in_flight(s, SESSION_WATCH + CLIENT)) /* ended by want of room for its completion */
            ring_watch(w->ring, s->fd[CLIENT], session_arm(w, s, SESSION_WATCH + CLIENT));
        break;
    default: stream_pump(w, s, UPSTREAM); break; /* a connect that lost its race: see exchange_finish() */
    }
}

void exchange_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c)
{
    if (exchange_of(w, s)->repeats && op != SESSION_WATCH + CLIENT) {
        if (c->has_buffer) buffers_return(&w->buffers, c->buffer);
        exchange_repeat(w, s);
    } else if (!flow_on_completion(w, s, op, c) && !exchange_is_stale(w, s, op, c))
        exchange_handle(w, s, op, c->result);
    if (s->state == SESSION_EXCHANGE) exchange_set_deadline(w, s);
}

/* --- beginning and end --- */

bool exchange_take(struct worker *w, struct session *s)
{
    struct share_source source = share_source_of(&s->client);
    s->extra = share_take(&w->exchanges_held, &w->exchanges, &source);
    return s->extra != POOL_NONE;
}

/* The head was judged when it came in; what is needed of it now is read again rather than kept for the time of the
 * dial. */
static enum failure request_begin(struct worker *w, struct session *s)
{
    struct exchange *e = exchange_of(w, s);
    const struct setup *setup = setup_of(w, s);
    struct stream *st = &e->streams[CLIENT];
    const uint8_t *data = setup->head.data;
    struct http_head head;
    size_t scanned = 0, used;
    enum parse_result parsed = http_parse_request(data, setup->consumed, &scanned, &head, &used);
    assert(parsed == PARSE_OK); /* as when it came in: parser and judge know nothing but these octets */
    unsigned status = http_forward_judge(data, &head, &e->request);
    assert(status == 0);
    (void)parsed, (void)status;
    e->request.keep_upstream = w->conns && w->config->conn_cache && !w->draining;
    s->exclusive |= e->request.binds;
    if (!stream_make_room(w, st, used, CLIENT)) return FAIL_RESOURCE;
    size_t size = http_forward_write_request(data, &head, &e->request, st->out.data, st->out.size);
    if (size == 0) return FAIL_HEAD_TOO_LARGE;
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
    st->rechunk = st->counted = false;
    st->in_used = st->in_size = st->out_used = st->out_size = 0;
    st->scanned = 0;
    head_buffer_init(&st->in, st->in_small, sizeof st->in_small);
    head_buffer_init(&st->out, st->out_small, sizeof st->out_small);
}

static void exchange_init(struct exchange *e)
{
    e->failure = FAIL_NONE;
    e->answered = e->keep = e->keep_upstream = e->repeats = false;
    e->interims = 0;
    e->head_until_ms = 0;
    stream_init(&e->streams[CLIENT], STREAM_BODY);
    stream_init(&e->streams[UPSTREAM], STREAM_HEAD);
}

/* What the client has sent behind its head is the beginning of its body; behind a bodiless request it stays where it
 * is, for the relay that an upgrade may lead to, and so does a head that may be needed again. A large buffer goes over
 * to the stream as it is: what it holds may be more than fits into a small one. */
static void exchange_take_early(struct worker *w, struct session *s, struct exchange *e)
{
    struct setup *setup = setup_of(w, s);
    struct stream *st = &e->streams[CLIENT];
    if (s->reused && setup->repeatable) return;
    if (st->phase == STREAM_BODY && setup->head.slot != POOL_NONE) {
        st->in = setup->head;
        st->in_used = setup->consumed;
        st->in_size = setup->received;
        head_buffer_init(&setup->head, setup->head_small, sizeof setup->head_small);
    } else if (st->phase == STREAM_BODY) {
        st->in_size = setup->received - setup->consumed;
        memcpy(st->in.data, setup->head.data + setup->consumed, st->in_size);
    } else if (setup->consumed < setup->received) {
        return;
    }
    st->counted = true;
    setup->consumed = setup->received = 0;
    head_buffer_shrink(w, &setup->head, setup->head_small, sizeof setup->head_small);
}

void exchange_begin(struct worker *w, struct session *s)
{
    struct exchange *e = exchange_of(w, s);
    exchange_init(e);
    flow_init(&s->flows[CLIENT]);
    flow_init(&s->flows[UPSTREAM]);
    enum failure failure = request_begin(w, s);
    if (failure != FAIL_NONE) {
        exchange_fail(w, s, failure);
        return;
    }
    exchange_take_early(w, s, e);
    exchange_set_deadline(w, s);
    if (!in_flight(s, SESSION_WATCH + CLIENT)) /* nothing else would notice that the client gives up */
        ring_watch(w->ring, s->fd[CLIENT], session_arm(w, s, SESSION_WATCH + CLIENT));
    stream_pump(w, s, CLIENT);
    if (s->state == SESSION_EXCHANGE) stream_pump(w, s, UPSTREAM);
}

void exchange_on_due(struct worker *w, struct session *s, enum session_side from)
{
    stream_pump(w, s, from);
    if (s->state == SESSION_EXCHANGE) exchange_set_deadline(w, s);
}

void exchange_on_timer(struct worker *w, struct session *s)
{
    struct exchange *e = exchange_of(w, s);
    if (limited_waits(s, CLIENT) || limited_waits(s, UPSTREAM)) { /* nobody's fault: the head has its time again */
        e->head_until_ms = 0;
        exchange_set_deadline(w, s);
        return;
    }
    bool over = !e->answered && e->head_until_ms != 0 && ring_now_ms(w->ring) >= e->head_until_ms; /* whatever moves */
    uint64_t moved = s->flows[CLIENT].bytes + s->flows[UPSTREAM].bytes;
    if (moved != s->moved && !over) { /* by a flow that rests now and then */
        if (e->answered) session_set_keepalive(w, s);
        exchange_set_deadline(w, s);
        return;
    }
    uint64_t until_ms = s->moved_ms + exchange_idle_ms(w);
    if (e->answered) session_set_keepalive(w, s);
    if (e->answered && ring_now_ms(w->ring) < until_ms) {
        timer_set(w->timers, s->slot, until_ms);
        return;
    }
    /* Whose turn was it? */
    uint32_t upstream = SESSION_BIT(SESSION_SEND + UPSTREAM) | SESSION_BIT(SESSION_POLL_OUT + UPSTREAM);
    bool client = e->streams[CLIENT].phase != STREAM_DONE && !(s->inflight & upstream);
    exchange_fail(w, s, client ? FAIL_HANDSHAKE_TIMEOUT : FAIL_RESPONSE_TIMEOUT);
    if (s->state == SESSION_EXCHANGE)
        session_close(w, s, SESSION_RESET); /* not even an interim response could be sent */
}

void exchange_release(struct worker *w, struct session *s)
{
    if (s->extra == POOL_NONE) return;
    for (unsigned from = CLIENT; from <= UPSTREAM; from++) {
        struct stream *st = &exchange_of(w, s)->streams[from];
        head_buffer_shrink(w, &st->in, st->in_small, sizeof st->in_small);
        head_buffer_shrink(w, &st->out, st->out_small, sizeof st->out_small);
    }
    share_give(&w->exchanges_held, &w->exchanges, s->extra);
    pool_trim(&w->exchanges);
    s->extra = POOL_NONE;
}
