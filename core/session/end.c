#include "core/session/end.h"

#include <errno.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/access.h"
#include "core/session/crowd.h"
#include "core/session/flow.h"
#include "core/session/hooks.h"
#include "core/session/limited.h"
#include "core/session/message.h"
#include "core/session/newcomer.h"
#include "core/session/reply.h"
#include "core/session/self.h"
#include "core/session/tally.h"
#include "core/session/upstream.h"

/* --- sockets and slots --- */

/* By tag, one by one: the kernel finds those by their hash, but would search all that is in flight for a descriptor. */
static void session_cancel_side(struct worker *w, struct session *s, enum session_side side)
{
    for (unsigned op = SESSION_RECV + side; op <= SESSION_WATCH + side; op += 2)
        if (s->inflight & SESSION_BIT(op)) ring_cancel(w->ring, session_tag(w, s, op));
}

void session_drop_side(struct worker *w, struct session *s, enum session_side side, enum session_end end)
{
    int fd = s->fd[side];
    access_on_close(w, s, side);
    if (side == UPSTREAM) self_forget(w, s);
    if (fd < 0) return;
    if (end == SESSION_RESET) net_reset_on_close(fd);
    session_cancel_side(w, s, side);
    ring_close(w->ring, fd);
    s->fd[side] = -1;
}

/* Appends at most `room` octets and a zero. Returns the place behind it. */
static char *session_add_label(char *at, const char *text, size_t room)
{
    size_t size = strnlen(text, room);
    memcpy(at, text, size);
    at[size] = '\0';
    return at + size + 1;
}

/* What GET /sessions still shows of it. */
static void session_label(const struct worker *w, struct session *s)
{
    const struct setup *setup = setup_of(w, s);
    char target[ADDRESS_TEXT_SIZE] = "", *end = s->label + SESSION_LABEL_SIZE;
    if (setup->target.kind != ADDRESS_NONE) address_format(&setup->target, target, sizeof target);
    char *at =
        session_add_label(s->label, setup->credentials.present ? setup->credentials.user : "", SESSION_LABEL_SIZE / 6);
    at = session_add_label(at, target, (size_t)(end - at) - 2);
    session_format_chain(w, s, at, (size_t)(end - at));
}

void session_release_setup(struct worker *w, struct session *s)
{
    if (s->setup == POOL_NONE) return;
    struct setup *setup = setup_of(w, s);
    session_label(w, s);
    access_keep_texts(w, s);
    if (setup->credentials.present) explicit_bzero(setup->credentials.password, sizeof setup->credentials.password);
    head_buffer_shrink(w, &setup->head, setup->head_small, sizeof setup->head_small);
    head_buffer_shrink(w, &setup->hop_in, setup->hop_small, sizeof setup->hop_small);
    crowd_give(w, s->setup);
    pool_give(&w->setups, s->setup);
    pool_trim(&w->setups); /* a burst of handshakes must not be paid for by all the idle sessions that it leaves */
    s->setup = POOL_NONE;
}

/* --- closing: stop, join, release --- */

/* Takes back what the coordinator or the resolver was asked. */
static void session_withdraw_request(struct worker *w, struct session *s)
{
    if (s->setup == POOL_NONE) return;
    struct setup *setup = setup_of(w, s);
    setup->asking = false;
    session_report_trial(w, s, s->failure == FAIL_CONNECT_TIMEOUT ? -ETIMEDOUT : -ECANCELED);
    if (!(s->inflight & SESSION_BIT(SESSION_ANSWER))) return;
    if (session_asks_ruleset(s) && !setup->upstream.again) session_tell(w, s, MESSAGE_CANCEL, 0);
    atomic_store_explicit(&setup->route.cancelled, 1, memory_order_relaxed);
    atomic_store_explicit(&setup->resolve.cancelled, 1, memory_order_relaxed);
    atomic_store_explicit(&setup->verify.cancelled, 1, memory_order_relaxed);
}

static void session_drop_upstream(struct worker *w, struct session *s, enum session_end end)
{
    session_withdraw_request(w, s);
    session_hook_drop_attempts(w, s);
    session_drop_side(w, s, UPSTREAM, end);
}

static void session_release(struct worker *w, struct session *s)
{
    limited_leave(w, s);
    upstream_leave(s);
    tally_release(w, s);
    session_hook_release(w, s);
    session_release_setup(w, s);
    access_release(w, s);
    session_enter(w, s, SESSION_FREE);
    newcomer_release(w->keys, s->source);
    pool_give(&w->sessions, s->slot);
    pool_trim(&w->sessions);
}

void session_join(struct worker *w, struct session *s)
{
    assert(s->state == SESSION_CLOSING);
    if (s->inflight == 0) session_release(w, s);
}

void session_close(struct worker *w, struct session *s, enum session_end end)
{
    assert(s->state != SESSION_FREE && s->state != SESSION_CLOSING);
    session_hook_drop(w, s);
    session_drop_upstream(w, s, end);
    session_drop_side(w, s, CLIENT, end);
    session_enter(w, s, SESSION_CLOSING);
    session_join(w, s);
}

/* --- failures --- */

/* Whether the ruleset is to hear of it (await.forward) and not the client. */
static bool session_is_trial(const struct worker *w, const struct session *s, enum failure failure)
{
    bool over = failure == FAIL_PEER || failure == FAIL_CONNECT_TIMEOUT || failure == FAIL_HANDSHAKE_TIMEOUT;
    return s->setup != POOL_NONE && setup_of(w, s)->trial && !over;
}

static enum session_state session_end_trial(struct worker *w, struct session *s, enum failure failure)
{
    struct setup *setup = setup_of(w, s);
    setup->trial = false;
    session_log(w, s, LOG_LEVEL_DEBUG, failure_row(failure)->word);
    session_drop_upstream(w, s, SESSION_RESET);
    setup->route.failure = (uint8_t)failure;
    setup->asking = true; /* as soon as nothing of this attempt is left, see session_proceed() */
    return SESSION_ROUTE;
}

/* Another member of the group is to be tried, as soon as nothing of this attempt is left: see session_proceed(). */
static enum session_state session_try_another(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    bool trial = setup->trial;
    setup->trial = false; /* of the ruleset's try this is no end */
    session_drop_upstream(w, s, SESSION_RESET);
    setup->trial = trial;
    return SESSION_ROUTE;
}

void session_blame(struct worker *w, struct session *s, enum failure cause)
{
    if (s->failure != FAIL_NONE || s->settled) return;
    s->failure = (uint8_t)cause;
    if (!protocol_is_own(s->protocol)) counter_add(&w->stats.failures[cause], 1);
}

/* What docs/fail2ban/ reads is written at the level that is the default. */
static int failure_log_level(enum failure failure)
{
    bool denied = failure == FAIL_CLIENT_DENIED || failure == FAIL_TARGET_DENIED;
    return denied ? LOG_LEVEL_NOTICE : LOG_LEVEL_INFO;
}

enum session_state session_fail(struct worker *w, struct session *s, enum failure failure)
{
    if (upstream_moves_on(w, s, failure)) return session_try_another(w, s);
    if (session_is_trial(w, s, failure)) return session_end_trial(w, s, failure);
    if (!flow_sends(s)) limited_leave(w, s); /* else when that send is back, see session_on_send() */
    session_blame(w, s, failure);
    if (failure == FAIL_AUTH)
        session_log_intruder(w, s);
    else
        session_log(w, s, failure_log_level(failure), failure_row(failure)->word);
    if (!reply_append_refusal(w, s, failure)) {
        session_close(w, s, SESSION_ORDERLY);
        return SESSION_CLOSING;
    }
    session_drop_upstream(w, s, SESSION_RESET);
    session_flush(w, s);
    return SESSION_REPLY;
}
