#include "core/session/worker_loop.h"

#include <errno.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/accept.h"
#include "core/session/access.h"
#include "core/session/conn_cache.h"
#include "core/session/crowd.h"
#include "core/session/end.h"
#include "core/session/exchange.h"
#include "core/session/flow.h"
#include "core/session/machine.h"
#include "core/session/message.h"
#include "core/session/scarcity.h"
#include "core/session/spare.h"
#include "core/session/steps.h"
#include "core/session/udp.h"
#include "core/session/udp_chain.h"

#define WORKER_BUFFER_GROUP 0u
/* How often memory that a burst has needed is given back, while there is some. */
#define WORKER_TRIM_MS 500u
/* Before messages that have found no room are tried again: the last one, and errands. */
#define WORKER_AGAIN_MS 1u

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- opening and closing --- */

static int worker_open_pools(struct worker *w)
{
    const struct config *config = w->config;
    int error = pool_open(&w->sessions, config->sessions, sizeof(struct session));
    if (error == 0) error = pool_open(&w->setups, config->setups, sizeof(struct setup));
    if (error == 0) error = crowd_open(&w->crowd, config->setups);
    if (error == 0) error = pool_open(&w->exchanges, config->exchanges, sizeof(struct exchange));
    if (error == 0 && w->access) error = pool_open(&w->notes, config->sessions, sizeof(struct access_note));
    if (error == 0) error = share_open(&w->exchanges_held, config->exchanges);
    if (error == 0) error = pool_open(&w->heads, config->heads, HEAD_BUFFER_SIZE);
    if (error == 0) error = conn_cache_open(&w->conns, config->conns);
    if (error == 0 && w->verifier) error = verified_open(&w->verified);
    if (error == 0) error = timer_open(&w->timers, config->sessions, ring_now_ms(w->ring), TIMER_TICK_MS);
    if (error == 0) error = timer_open(&w->rests, 2 * config->sessions, ring_now_us(w->ring), 1);
    if (error == 0)
        error = buffers_open(&w->buffers, w->ring, WORKER_BUFFER_GROUP, config->buffers, config->buffers_lent,
                             config->buffer_size);
    pipes_open_with(&w->pipes, config->pipes, config->pipe_size, w->pipes_ahead, w->pipes_ahead_count);
    return error;
}

int worker_open(struct worker *w)
{
    struct ring_options options = {.entries = w->config->ring_entries};
    int error = ring_open(&w->ring, &options);
    if (error < 0) {
        LOGE("worker %u: %s (%s)", w->index, ring_explain(error), strerror(-error));
        return error;
    }
    w->random = 0x9e3779b97f4a7c15u ^ (w->index + 1u);
    link_init(&w->starved);
    link_init(&w->deferred);
    error = worker_open_pools(w);
    if (error < 0) {
        LOGE("worker %u: no memory for its pools (%s); lower --max-sessions", w->index, strerror(-error));
        worker_close(w);
        return error;
    }
    w->machine = machine_open();
    spare_open(w);
    return 0;
}

void worker_arm_listeners(struct worker *w)
{
    for (unsigned i = 0; i < w->config->listener_count; i++)
        if (w->listeners[i].fd >= 0) accept_arm(w, i);
}

void worker_close(struct worker *w)
{
    verdicts_close(&w->verdicts);
    verified_close(&w->verified);
    name_cache_close(&w->name_cache);
    pipes_close(&w->pipes);
    spare_close(w);
    udp_close(w);
    udp_chains_close(w);
    machine_close(w->machine);
    crowd_close(w->crowd);
    w->crowd = NULL;
    buffers_close(&w->buffers);
    if (w->rests) timer_close(w->rests);
    if (w->timers) timer_close(w->timers);
    conn_cache_close(w->conns);
    w->conns = NULL;
    pool_close(&w->heads);
    share_close(&w->exchanges_held);
    pool_close(&w->exchanges);
    pool_close(&w->notes);
    pool_close(&w->setups);
    pool_close(&w->sessions);
    ring_destroy(w->ring);
    w->ring = NULL;
}

/* --- messages --- */

/* Whoever asks writes the word and wakes us: no queue, so that more than one thread may. A stop that was asked for
 * before this worker ran has woken nobody, so that the word is looked at before each wait. */
static bool worker_must_stop(const struct worker *w)
{
    return atomic_load_explicit(w->stops, memory_order_acquire) != w->stops_seen;
}

/* Clients that wait with nothing under way need no time to end. */
static void worker_end_idle(struct worker *w)
{
    for (uint32_t slot = 0; slot < w->sessions.untouched; slot++)
        if (pool_is_taken(&w->sessions, slot) && session_at(w, slot)->state == SESSION_IDLE)
            session_close(w, session_at(w, slot), SESSION_ORDERLY);
}

static void worker_heed_stop(struct worker *w)
{
    uint32_t stops = atomic_load_explicit(w->stops, memory_order_acquire);
    if (stops == w->stops_seen) return;
    uint64_t now = ring_now_ms(w->ring);
    w->stops_seen = stops;
    w->drain_until_ms = stops > 1 ? now : now + w->config->drain_ms; /* asked twice: at once */
    if (w->draining) return;
    w->draining = true;
    accept_stop(w);
    worker_end_idle(w);
    conn_cache_clear(w);
}

static void worker_run_errand(struct worker *w, const struct message *message)
{
    struct errand *errand = message->body;
    assert(message->kind == MESSAGE_ERRAND);
    errand->run(errand, w);
}

static void worker_read_inbox(struct worker *w)
{
    struct message message;
    while (queue_pop(w->inbox, &message)) {
        if (message.kind == MESSAGE_ROUTE)
            session_on_answer(w, &message);
        else
            worker_run_errand(w, &message);
    }
}

static bool worker_has_mail(const struct worker *w)
{
    return !queue_is_empty(w->inbox) || !queue_is_empty(w->names) || !letter_box_is_empty(&w->letters);
}

static void worker_read_names(struct worker *w)
{
    struct message answer;
    while (queue_pop(w->names, &answer)) session_on_answer(w, &answer);
}

/* --- the loop --- */

/* Bulk flows poll; everybody else does something that an answer waits for. */
static bool completion_is_bulk(const struct ring_completion *c)
{
    return c->tag.op >= WORKER_OP_SESSION && session_op_is_poll(c->tag.op - WORKER_OP_SESSION);
}

static void worker_note(struct worker *w, const struct ring_completion *c)
{
    if (!completion_is_bulk(c)) {
        w->calm_turns = 0;
        return;
    }
    assert(w->polls > 0);
    w->polls--;
    w->served++;
}

static int worker_wait(struct worker *w, uint64_t timeout_us)
{
    unsigned batch = worker_batch(w);
    w->served = 0;
    return ring_wait_many_us(w->ring, batch, batch > 1 ? least(timeout_us, WORKER_BATCH_US) : timeout_us);
}

static void worker_dispatch(struct worker *w, const struct ring_completion *c)
{
    worker_note(w, c);
    if (c->tag.op >= WORKER_OP_SESSION) {
        session_on_completion(w, c);
        return;
    }
    switch ((enum worker_op)c->tag.op) {
    case WORKER_OP_ACCEPT: accept_on_completion(w, c); return;
    case WORKER_OP_UDP_SEND: udp_on_sent(w, c); return;
    case WORKER_OP_CONN: conn_cache_on_completion(w, c); return;
    case WORKER_OP_WAKE: return; /* the inbox is read in every turn */
    default: assert(0 && "a completion of an unknown kind");
    }
}

static void worker_reset_all(struct worker *w)
{
    for (uint32_t slot = 0; slot < w->sessions.untouched; slot++) {
        if (!pool_is_taken(&w->sessions, slot)) continue;
        struct session *s = session_at(w, slot);
        if (s->state == SESSION_CLOSING || s->protocol == PROTOCOL_CHAIN) continue; /* those end with their owner */
        if (s->state == SESSION_PARTING) { /* it has sent everything: the rest is between the kernel and its peer */
            session_close(w, s, s->spent ? SESSION_RESET : SESSION_ORDERLY);
            continue;
        }
        if (!protocol_is_own(s->protocol)) {
            session_blame(w, s, FAIL_DRAIN);
            session_log(w, s, LOG_LEVEL_INFO, "reset: the drain is over");
            counter_add(&w->stats.drain_resets, 1);
        }
        session_close(w, s, SESSION_RESET);
    }
}

static void worker_drain(struct worker *w)
{
    if (!w->draining || w->stopped) return;
    if (w->sessions.used > 0 && ring_now_ms(w->ring) >= w->drain_until_ms) worker_reset_all(w);
    if (w->sessions.used > 0 || accept_is_armed(w) || worker_returns_wait(w) || !conn_cache_is_quiet(w)) return;
    /* Without it the process would not end: a queue that is full is tried again. */
    w->stopped = worker_post(w, &(struct message){.kind = MESSAGE_STOPPED, .slot = w->index});
}

static uint64_t worker_wait_ms(const struct worker *w, uint64_t timeout_ms)
{
    uint64_t now = ring_now_ms(w->ring);
    timeout_ms = least(timeout_ms, timer_wait(w->timers, now));
    timeout_ms = least(timeout_ms, accept_wait_ms(w));
    timeout_ms = least(timeout_ms, conn_cache_wait_ms(w));
    if (!buffers_are_trimmed(&w->buffers)) timeout_ms = least(timeout_ms, w->trim_ms > now ? w->trim_ms - now : 0);
    if (w->draining && w->sessions.used == 0) timeout_ms = least(timeout_ms, WORKER_AGAIN_MS);
    if (worker_returns_wait(w)) timeout_ms = least(timeout_ms, WORKER_AGAIN_MS);
    if (w->draining && w->drain_until_ms > now) timeout_ms = least(timeout_ms, w->drain_until_ms - now);
    return timeout_ms;
}

static void worker_expire(struct worker *w)
{
    uint64_t now = ring_now_ms(w->ring);
    for (uint32_t slot; (slot = timer_expire(w->timers, now)) != TIMER_NONE;) session_on_timer(w, slot);
}

static void worker_trim(struct worker *w)
{
    uint64_t now = ring_now_ms(w->ring);
    if (now < w->trim_ms || buffers_are_trimmed(&w->buffers)) return;
    buffers_trim(&w->buffers);
    w->trim_ms = now + WORKER_TRIM_MS;
}

/* A session that is established meanwhile is missed rather than counted twice, as it leaves the first gauge before it
 * enters the second one. */
static uint64_t worker_sessions(const struct worker *w)
{
    uint64_t established = counter_read(&w->stats.established);
    return established + counter_read(&w->stats.half_open);
}

static void worker_raise(counter *peak, uint64_t value)
{
    if (value > counter_read(peak)) counter_set(peak, value);
}

/* Gauges that are cheaper to look at once a turn than to keep. Peaks of workers are not of the same moment, so that
 * their sum is none of the process: whoever has got more sessions looks at all workers. */
static void worker_measure(struct worker *w)
{
    uint64_t sessions = worker_sessions(w), all = 0;
    if (sessions > w->measured) {
        for (uint32_t i = 0; i < w->peer_count; i++) all += worker_sessions(w->peers[i]);
        worker_raise(&w->stats.peak, sessions);
        worker_raise(&w->stats.peak_of_all, all);
    }
    w->measured = sessions;
    counter_set(&w->stats.pipes_in_use, pipes_lent(&w->pipes));
}

int worker_turn(struct worker *w, uint64_t timeout_ms)
{
    struct ring_completion completion;
    timeout_ms = worker_wait_ms(w, timeout_ms);
    sleeper_announce(&w->sleeper);
    if (worker_has_mail(w) || worker_must_stop(w)) timeout_ms = 0;
    uint64_t timeout_us = timeout_ms > UINT64_MAX / 1000 ? RING_NO_TIMEOUT : timeout_ms * 1000;
    int error = worker_wait(w, least(timeout_us, flow_rest_us(w)));
    sleeper_awake(&w->sleeper);
    if (error < 0) return error;
    w->bulk_left = worker_bulk_turn(w);
    if (w->calm_turns < WORKER_CALM_TURNS) w->calm_turns++;
    while (ring_next(w->ring, &completion)) worker_dispatch(w, &completion);
    flow_send_gathered(w);
    flow_wake_resting(w);
    worker_read_inbox(w);
    worker_read_names(w);
    letter_box_deliver(&w->letters);
    worker_heed_stop(w);
    worker_expire(w);
    conn_cache_tend(w);
    accept_resume(w);
    scarcity_judge(w);
    worker_trim(w);
    worker_measure(w);
    udp_feed_starved(w);
    worker_return_more(w);
    worker_drain(w);
    return 0;
}

int worker_run(struct worker *w)
{
    while (!w->stopped) {
        int error = worker_turn(w, RING_NO_TIMEOUT);
        if (error < 0) {
            LOGE("worker %u: its ring broke: %s", w->index, strerror(-error));
            return error;
        }
    }
    return worker_turn(w, 0); /* the last message and closes go out */
}
