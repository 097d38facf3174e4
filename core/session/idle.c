#include "core/session/idle.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "core/io/log.h"
#include "core/session/access.h"
#include "core/session/crowd.h"
#include "core/session/end.h"
#include "core/session/hooks.h"
#include "core/session/worker.h"

static uint32_t idle_limit_ms(const struct config *config)
{
    bool sooner = config->idle_timeout_ms > 0 && config->idle_timeout_ms < config->timeout_ms;
    return sooner ? config->idle_timeout_ms : config->timeout_ms;
}

/* No more than a setup slot's head has room for. */
static void idle_receive(struct worker *w, struct session *s)
{
    uint32_t size = w->buffers.size < SETUP_HEAD_SIZE ? w->buffers.size : SETUP_HEAD_SIZE;
    ring_recv_group_once(w->ring, s->fd[CLIENT], w->buffers.group, size, session_arm(w, s, SESSION_RECV + CLIENT));
}

void idle_begin(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (setup->received > 0) {
        session_renew(w, s);
        access_begin(w, s);
        session_proceed(w, s, SESSION_HELLO);
        return;
    }
    session_release_setup(w, s);
    session_enter(w, s, SESSION_IDLE);
    timer_set(w->timers, s->slot, ring_now_ms(w->ring) + idle_limit_ms(w->config));
    idle_receive(w, s);
}

/* The next request is a handshake as any other: it takes a slot, of which its source may have so many. */
static bool idle_take_setup(struct worker *w, struct session *s)
{
    if (w->draining || w->setups.used == w->setups.count) return false;
    if (!crowd_admits(w, &s->client, UINT64_MAX)) return false;
    session_take_setup(w, s);
    crowd_take(w, s->setup);
    access_begin(w, s);
    return true;
}

static void idle_on_request(struct worker *w, struct session *s, const struct ring_completion *c)
{
    bool taken = idle_take_setup(w, s);
    if (taken) {
        struct setup *setup = setup_of(w, s);
        memcpy(setup->head.data, buffers_at(&w->buffers, c->buffer), (uint32_t)c->result);
        setup->received = (uint32_t)c->result;
        counter_add(&w->stats.handshake_in, (uint64_t)c->result);
    }
    buffers_return(&w->buffers, c->buffer);
    if (taken) {
        session_proceed(w, s, SESSION_HELLO);
        return;
    }
    access_begin(w, s);
    s->settled = false;
    session_blame(w, s, FAIL_RESOURCE);
    session_log(w, s, LOG_LEVEL_INFO, "closed: no slot for its next request");
    session_close(w, s, SESSION_RESET);
}

void idle_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c)
{
    if (op == SESSION_RECV + CLIENT && c->result > 0) {
        idle_on_request(w, s, c);
        return;
    }
    if (c->has_buffer) buffers_return(&w->buffers, c->buffer);
    if (op == SESSION_RECV + CLIENT && c->result == -ENOBUFS)
        timer_set(w->timers, s->slot, ring_now_ms(w->ring) + TIMER_TICK_MS); /* it asks again */
    else if (op == SESSION_RECV + CLIENT || (op == SESSION_WATCH + CLIENT && c->result > 0 && c->result & POLLERR))
        session_close(w, s, SESSION_ORDERLY);
}

void idle_on_timer(struct worker *w, struct session *s)
{
    if (s->inflight & SESSION_BIT(SESSION_RECV + CLIENT)) {
        session_log(w, s, LOG_LEVEL_DEBUG, "closed: no further request came");
        session_close(w, s, SESSION_ORDERLY);
        return;
    }
    timer_set(w->timers, s->slot, ring_now_ms(w->ring) + idle_limit_ms(w->config));
    idle_receive(w, s);
}
