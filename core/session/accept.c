#include "core/session/accept.h"

#include <errno.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/access.h"
#include "core/session/conn_cache.h"
#include "core/session/crowd.h"
#include "core/session/lists.h"
#include "core/session/newcomer.h"
#include "core/session/origin.h"
#include "core/session/spare.h"
#include "core/session/steps.h"

/* How long a listener rests when descriptors or memory have run out: long enough not to spin, short enough not to be
 * noticed. */
#define ACCEPT_PAUSE_MS 100u
/* Connections that are refused by way of the spare descriptor before it rests. */
#define ACCEPT_REFUSALS_MAX 64u
/* Connections that a stop still takes in: the longest backlog. */
#define ACCEPT_REST_MAX 4096u

void accept_arm(struct worker *w, unsigned listener)
{
    struct listener *l = &w->listeners[listener];
    assert(!l->armed && l->fd >= 0);
    l->armed = true;
    l->resume_ms = 0;
    ring_accept(w->ring, l->fd, (struct ring_tag){.op = WORKER_OP_ACCEPT, .slot = listener});
}

static uint64_t accept_sum_half_open(const struct worker *w)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < w->peer_count; i++) sum += counter_read(&w->peers[i]->stats.half_open);
    return sum;
}

static uint64_t accept_sum_sessions(const struct worker *w)
{
    uint64_t sum = accept_sum_half_open(w);
    for (uint32_t i = 0; i < w->peer_count; i++) sum += counter_read(&w->peers[i]->stats.established);
    return sum;
}

/* Marsaglia's xorshift64: which of many strangers is turned away needs no better. */
static uint64_t accept_random(struct worker *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

/* --max-sessions is the bound, and not what descriptors suffice for. */
static bool accept_is_limited(const struct worker *w)
{
    return w->config->max_sessions > 0 && w->config->max_sessions <= w->sessions.count;
}

/* Sessions that may still come, of the process. What descriptors suffice for is a number of the process, too: each
 * worker has slots for all of them, because the kernel may send them all to one. */
static uint64_t accept_sessions_left(const struct worker *w)
{
    uint64_t most = w->sessions.count;
    if (accept_is_limited(w)) most = w->config->max_sessions;
    uint64_t used = accept_sum_sessions(w);
    return used < most ? most - used : 0;
}

static bool accept_admits_startup(struct worker *w)
{
    const struct config *config = w->config;
    if (config->startup_full == 0 && config->startup_start == 0) return true;
    uint64_t half_open = accept_sum_half_open(w);
    if (config->startup_full > 0 && half_open >= config->startup_full) return false;
    if (config->startup_start == 0 || half_open < config->startup_start) return true;
    return accept_random(w) % 100 >= config->startup_rate;
}

enum accept_verdict {
    ACCEPT_IN,
    ACCEPT_DENIED,
    ACCEPT_NO_PROXY,
    ACCEPT_STOPS,
    ACCEPT_NO_SLOT,
    ACCEPT_SESSIONS,
    ACCEPT_STARTUPS,
    ACCEPT_SHARE,
    ACCEPT_HALF_OPEN
};

/* Contract section 2.9, over all workers. Behind a proxy lists and the crowd are asked when the client is known. */
static enum accept_verdict accept_judge(struct worker *w, unsigned listener, const struct host_port *client,
                                        enum origin_kind kind)
{
    struct address address = host_port_address(client);
    bool known = kind == ORIGIN_ITSELF && address.kind != ADDRESS_NONE;
    if (kind == ORIGIN_NOBODY) return ACCEPT_NO_PROXY;
    if (known && !lists_admit_client(w->config->lists, listener, &address)) return ACCEPT_DENIED;
    if (w->draining && ring_now_ms(w->ring) >= w->drain_until_ms) return ACCEPT_STOPS;
    uint64_t left = accept_sessions_left(w);
    if (left == 0) return accept_is_limited(w) ? ACCEPT_SESSIONS : ACCEPT_NO_SLOT;
    if (w->sessions.used == w->sessions.count || w->setups.used == w->setups.count) return ACCEPT_NO_SLOT;
    if (!accept_admits_startup(w)) return ACCEPT_STARTUPS;
    return kind == ORIGIN_BEHIND || crowd_admits(w, client, left) ? ACCEPT_IN : ACCEPT_SHARE;
}

/* What docs/fail2ban/ reads is written at the level that is the default. */
static int accept_refusal_level(enum accept_verdict why)
{
    return why == ACCEPT_DENIED ? LOG_LEVEL_NOTICE : LOG_LEVEL_INFO;
}

static void accept_log_refusal(const struct host_port *client, enum accept_verdict why)
{
    static const char *const words[] = {[ACCEPT_DENIED] = "it is denied by a list",
                                        [ACCEPT_NO_PROXY] = "it is none of --proxy-protocol's proxies",
                                        [ACCEPT_STOPS] = "the server stops",
                                        [ACCEPT_NO_SLOT] = "no slot is free",
                                        [ACCEPT_SESSIONS] = "--max-sessions",
                                        [ACCEPT_STARTUPS] = "--max-startups",
                                        [ACCEPT_SHARE] = "its source has its share of the handshakes",
                                        [ACCEPT_HALF_OPEN] = "half-open, a limit of its source"};
    char peer[ADDRESS_TEXT_SIZE] = "a local process";
    struct address address = host_port_address(client);
    if (address.kind != ADDRESS_NONE) address_format(&address, peer, sizeof peer);
    LOG(accept_refusal_level(why), "connection from %s refused: %s", peer, words[why]);
}

/* Who is not to come is a failure; all others find no room. */
static enum failure accept_failure(enum accept_verdict why)
{
    return why == ACCEPT_DENIED ? FAIL_CLIENT_DENIED : why == ACCEPT_NO_PROXY ? FAIL_NO_PROXY : FAIL_NONE;
}

/* Labels of the counters: sluice_failures_total for who is not to come, else sluice_connections_refused_total. */
static const char *accept_label(enum accept_verdict why)
{
    static const char *const labels[] = {
        [ACCEPT_STOPS] = "pool",
        [ACCEPT_NO_SLOT] = "pool",
        [ACCEPT_SESSIONS] = "max_sessions",
        [ACCEPT_STARTUPS] = "max_startups",
        [ACCEPT_SHARE] = "share",
        [ACCEPT_HALF_OPEN] = "half_open",
    };
    enum failure failure = accept_failure(why);
    return failure != FAIL_NONE ? failure_row(failure)->label : labels[why];
}

static void accept_refuse(struct worker *w, unsigned listener, int fd, const struct host_port *client,
                          enum accept_verdict why)
{
    enum failure failure = accept_failure(why);
    access_refuse(w, listener, client, accept_label(why));
    counter_add(failure != FAIL_NONE ? &w->stats.failures[failure] : &w->stats.refused_limit, 1);
    if (why == ACCEPT_SESSIONS) counter_add(&w->stats.refused_sessions, 1);
    if (why == ACCEPT_STARTUPS) counter_add(&w->stats.refused_startups, 1);
    if (why == ACCEPT_SHARE) counter_add(&w->stats.refused_share, 1);
    if (why == ACCEPT_HALF_OPEN) counter_add(&w->stats.refused_half_open, 1);
    if (LOG_ON(accept_refusal_level(why))) accept_log_refusal(client, why);
    net_reset_on_close(fd);
    ring_close(w->ring, fd);
}

static void accept_count_resource(struct worker *w, unsigned listener, const struct host_port *client)
{
    counter_add(&w->stats.refused_resource, 1);
    access_refuse(w, listener, client, "resource");
}

/* No descriptor is left, but a connection waits and would wake us again and again. */
static void accept_refuse_waiting(struct worker *w, unsigned listener)
{
    struct host_port client;
    for (unsigned i = 0; i < ACCEPT_REFUSALS_MAX && spare_refuse(w, w->listeners[listener].fd, &client); i++)
        accept_count_resource(w, listener, &client);
}

/* What stands in the way, and what comes of it. */
static const char *accept_explain(int error)
{
    switch (error) {
    case -EMFILE:
    case -ENFILE:
        return "no descriptor left (raise ulimit -n or lower --max-sessions); new connections are refused until there "
               "is "
               "room again";
    case -ENOMEM:
    case -ENOBUFS: return "the kernel is out of memory; new connections wait until there is room again";
    default: return strerror(-error); /* tried again soon */
    }
}

static void accept_on_error(struct worker *w, unsigned listener, int error)
{
    struct listener *l = &w->listeners[listener];
    switch (error) {
    case -ECONNABORTED:
    case -EINTR:
    case -EAGAIN:
    case -EPROTO:
    case -EPERM: /* a firewall's word about one connection */
    case -ECANCELED: return;
    default: break;
    }
    if (l->fd < 0) return; /* stopped meanwhile */
    if (error == -EMFILE || error == -ENFILE) {
        if (conn_cache_clear(w)) { /* clients come before what may never be used again */
            ring_flush(w->ring);
            return;
        }
        accept_refuse_waiting(w, listener);
    }
    if (l->resume_ms == 0) LOGW("accept: %s", accept_explain(error));
    l->resume_ms = ring_now_ms(w->ring) + ACCEPT_PAUSE_MS;
}

static void accept_take(struct worker *w, unsigned listener, int fd)
{
    /* Asked once, now: whoever resets the connection is nobody to the kernel later on. */
    struct host_port client = net_peer_host_port(fd);
    if (spare_is_missing() && !spare_refill(w)) { /* this one's descriptor was a spare, or the last of all */
        accept_count_resource(w, listener, &client);
        spare_make_of(w, fd);
        return;
    }
    enum origin_kind kind = origin_judge(&w->config->listeners[listener].proxies, &client);
    enum accept_verdict verdict = accept_judge(w, listener, &client, kind);
    uint32_t source;
    bool itself = verdict == ACCEPT_IN && kind == ORIGIN_ITSELF;
    if (itself && !newcomer_admits(w->keys, &client, ring_now_us(w->ring), &source)) verdict = ACCEPT_HALF_OPEN;
    if (verdict != ACCEPT_IN)
        accept_refuse(w, listener, fd, &client, verdict);
    else if (itself)
        session_open(w, listener, fd, &client, source);
    else
        session_open_behind(w, listener, fd, &client);
}

void accept_on_completion(struct worker *w, const struct ring_completion *c)
{
    struct listener *l = &w->listeners[c->tag.slot];
    if (!c->more) l->armed = false;
    if (c->result < 0)
        accept_on_error(w, c->tag.slot, c->result);
    else
        accept_take(w, c->tag.slot, c->result);
    if (!l->armed && !w->draining && l->resume_ms == 0) accept_arm(w, c->tag.slot);
}

void accept_resume(struct worker *w)
{
    uint64_t now = ring_now_ms(w->ring);
    if (spare_is_missing() && accept_wait_ms(w) == 0) (void)spare_refill(w);
    for (unsigned i = 0; i < w->config->listener_count; i++) {
        struct listener *l = &w->listeners[i];
        if (l->fd >= 0 && !l->armed && l->resume_ms > 0 && l->resume_ms <= now) accept_arm(w, i);
    }
}

bool accept_is_armed(const struct worker *w)
{
    for (unsigned i = 0; i < w->config->listener_count; i++)
        if (w->listeners[i].armed) return true;
    return false;
}

uint64_t accept_wait_ms(const struct worker *w)
{
    uint64_t now = ring_now_ms(w->ring), wait = UINT64_MAX;
    for (unsigned i = 0; i < w->config->listener_count; i++) {
        const struct listener *l = &w->listeners[i];
        if (l->fd < 0 || l->armed || l->resume_ms == 0) continue;
        uint64_t left = l->resume_ms > now ? l->resume_ms - now : 0;
        if (left < wait) wait = left;
    }
    return wait;
}

/* Who waits in the backlog has been told by the kernel that it is connected, before the stop. */
static void accept_rest(struct worker *w, unsigned listener)
{
    for (unsigned i = 0; i < ACCEPT_REST_MAX; i++) {
        int fd = net_accept(w->listeners[listener].fd);
        if (fd == -ECONNABORTED || fd == -EINTR) continue;
        if (fd < 0) return;
        accept_take(w, listener, fd);
    }
}

void accept_stop(struct worker *w)
{
    for (unsigned i = 0; i < w->config->listener_count; i++) {
        struct listener *l = &w->listeners[i];
        if (l->fd < 0) continue;
        accept_rest(w, i);
        if (l->armed) ring_cancel(w->ring, (struct ring_tag){.op = WORKER_OP_ACCEPT, .slot = i});
        if (!l->shared) ring_close(w->ring, l->fd);
        l->fd = -1;
    }
}
