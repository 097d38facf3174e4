#include "core/control/upstream_check.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/control/coordinator_private.h"
#include "core/control/errands.h"
#include "core/control/waiters.h"
#include "core/io/hash.h"
#include "core/io/log.h"
#include "core/session/failure.h"
#include "protocols/http_connect.h"
#include "protocols/socks5.h"

#define CHECK_IN_SIZE   4096u /* of an answer: a head that is longer is no answer */
#define CHECK_OUT_SIZE  2048u
#define CHECK_AGAIN_MS  100u  /* when no worker could take it */
#define CHECK_SPREAD_MS 20u   /* between the first ones of members */
#define CHECK_LATE_MS   1000u /* a coordinator that is so late has held up the check itself */

enum check_op { CHECK_OP_RECV, CHECK_OP_SEND };
enum check_stage { CHECK_WAITING, CHECK_DIALLING, CHECK_METHOD, CHECK_AUTH, CHECK_HEAD, CHECK_CLOSING };

struct upstream_check {
    struct waiter waiter; /* first */
    struct link link;     /* of c->checks */
    bool kept;            /* found among the groups that are followed now */
    struct coordinator *c;
    struct upstream_group *group;
    struct group_member *member; /* held */
    int streak;                  /* see member_on_check() */
    int fd;                      /* -1: none */
    uint8_t stage;               /* enum check_stage */
    uint8_t inflight;            /* 1 << enum check_op */
    bool ended;                  /* this check has its outcome; waits for what is in flight */
    uint32_t number;             /* of checks that have begun */
    uint64_t begun_ms, end_ms;
    size_t in_used, scanned;
    size_t out_size;
    uint8_t in[CHECK_IN_SIZE], out[CHECK_OUT_SIZE];
};

/* --- the end of one check --- */

/* A tenth earlier or later, so that members which were defined together are not checked together for ever. */
static uint64_t check_interval_ms(const struct upstream_check *check)
{
    uint64_t key[2] = {check->member->id, check->number};
    uint32_t interval = check->group->interval_ms, tenth = interval / 10;
    return interval - tenth + hash_keyed(key, key, sizeof key) % (2 * tenth + 1);
}

static void check_wait(struct upstream_check *check)
{
    uint64_t next_ms = check->begun_ms + check_interval_ms(check), soonest_ms = ring_now_ms(check->c->ring) + 1;
    check->stage = CHECK_WAITING;
    coordinator_set_deadline(check->c, &check->waiter, next_ms > soonest_ms ? next_ms : soonest_ms);
}

static void check_shut(struct upstream_check *check)
{
    if (check->fd >= 0) close(check->fd);
    check->fd = -1;
}

static void check_free(struct upstream_check *check)
{
    check_shut(check);
    link_remove(&check->link);
    explicit_bzero(check->out, sizeof check->out);
    member_release(check->member);
    free(check);
}

/* Nothing is in flight: the next one may come, or the end. */
static void check_join(struct upstream_check *check)
{
    if (check->inflight != 0) return;
    check_shut(check);
    check->ended = false;
    if (check->stage != CHECK_CLOSING) {
        check_wait(check);
        return;
    }
    coordinator_detach(check->c, &check->waiter);
    check_free(check);
}

/* Without an outcome: the next one may know more. */
static void check_end(struct upstream_check *check)
{
    check->ended = true;
    coordinator_clear_deadline(check->c, &check->waiter);
    if (check->inflight != 0) ring_cancel_fd(check->c->ring, check->fd);
    check_join(check);
}

static void check_tell(struct upstream_check *check, bool passed, enum failure failure)
{
    struct group_member *member = check->member;
    bool first = atomic_load_explicit(&member->checked, memory_order_relaxed) == MEMBER_CHECKED_UNKNOWN;
    if (member_on_check(member, check->group, passed, (uint8_t)failure, &check->streak)) {
        if (!passed)
            LOGW("group:%s: %s is down: %s", check->group->name, member->text, failure_row(failure)->word);
        else if (!first)
            LOGN("group:%s: %s is up", check->group->name, member->text);
    }
    check_end(check);
}

static void check_fail(struct upstream_check *check, enum failure failure)
{
    check_tell(check, false, failure);
}

/* --- talking --- */

static struct ring_tag check_arm(struct upstream_check *check, enum check_op op)
{
    assert(!(check->inflight & 1u << op));
    check->inflight |= (uint8_t)(1u << op);
    return coordinator_tag(check->c, &check->waiter, op);
}

static void check_receive(struct upstream_check *check)
{
    if (check->in_used == CHECK_IN_SIZE) {
        check_fail(check, FAIL_PROXY_PROTOCOL);
        return;
    }
    ring_recv(check->c->ring, check->fd, check->in + check->in_used, CHECK_IN_SIZE - check->in_used,
              check_arm(check, CHECK_OP_RECV));
}

static void check_send(struct upstream_check *check, enum check_stage stage, size_t size)
{
    assert(size > 0 && size <= sizeof check->out);
    check->stage = (uint8_t)stage;
    check->out_size = size;
    ring_send(check->c->ring, check->fd, check->out, size, check_arm(check, CHECK_OP_SEND));
    check_receive(check);
}

static bool check_has_user(const struct upstream_check *check)
{
    const struct credentials *credentials = &check->member->uri.credentials;
    return credentials->present && credentials->user[0] != '\0';
}

static size_t check_write_request(struct upstream_check *check)
{
    const struct group_member *member = check->member;
    if (!member->target)
        return http_write_connect(check->out, sizeof check->out, &member->uri.address, &member->uri.credentials);
    int size = snprintf((char *)check->out, sizeof check->out,
                        "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sluice\r\nConnection: close\r\n\r\n",
                        check->group->path, member->text);
    return size > 0 && (size_t)size < sizeof check->out ? (size_t)size : 0;
}

/* The connection stands. */
static void check_begin_talk(struct upstream_check *check)
{
    size_t size;
    check->in_used = check->scanned = 0;
    switch ((enum group_check)check->group->check) {
    case GROUP_CHECK_SOCKS5:
        check_send(check, CHECK_METHOD, socks5_write_greeting(check->out, sizeof check->out, check_has_user(check)));
        return;
    case GROUP_CHECK_HTTP:
        size = check_write_request(check);
        if (size == 0)
            check_fail(check, FAIL_RESOLVE); /* a host that HTTP has no form for */
        else
            check_send(check, CHECK_HEAD, size);
        return;
    case GROUP_CHECK_TCP:
    case GROUP_CHECK_NONE: check_tell(check, true, FAIL_NONE); return;
    }
}

/* FAIL_NONE: it lets us in, or wants to know who we are. */
static enum failure judge_method(const struct upstream_check *check, uint8_t method, size_t used)
{
    bool asked = method == SOCKS5_METHOD_PASSWORD && check_has_user(check);
    if (method == SOCKS5_METHOD_UNACCEPTABLE) return FAIL_PROXY_AUTH;
    if (method != SOCKS5_METHOD_NONE && !asked) return FAIL_PROXY_PROTOCOL;
    /* It answers what was not asked yet. */
    return asked && (check->inflight != 0 || check->in_used > used) ? FAIL_PROXY_PROTOCOL : FAIL_NONE;
}

static void check_read_method(struct upstream_check *check)
{
    uint8_t method = 0;
    size_t used;
    enum parse_result parsed = socks5_parse_method(check->in, check->in_used, &method, &used);
    if (parsed == PARSE_MORE) {
        check_receive(check);
        return;
    }
    enum failure failure = parsed == PARSE_OK ? judge_method(check, method, used) : FAIL_PROXY_PROTOCOL;
    if (failure != FAIL_NONE || method == SOCKS5_METHOD_NONE) {
        check_tell(check, failure == FAIL_NONE, failure);
        return;
    }
    check->in_used = 0;
    check_send(check, CHECK_AUTH, socks5_write_auth(check->out, sizeof check->out, &check->member->uri.credentials));
}

static void check_read_auth(struct upstream_check *check)
{
    bool granted = false;
    size_t used;
    enum parse_result parsed = socks5_parse_auth_status(check->in, check->in_used, &granted, &used);
    if (parsed == PARSE_MORE)
        check_receive(check);
    else if (parsed != PARSE_OK)
        check_fail(check, FAIL_PROXY_PROTOCOL);
    else
        check_tell(check, granted, granted ? FAIL_NONE : FAIL_PROXY_AUTH);
}

static void check_read_head(struct upstream_check *check)
{
    struct http_head head;
    size_t used;
    bool target = check->member->target;
    enum failure broken = target ? FAIL_UPSTREAM_RESPONSE : FAIL_PROXY_PROTOCOL;
    enum parse_result parsed = http_parse_response(check->in, check->in_used, &check->scanned, &head, &used);
    if (parsed == PARSE_MORE)
        check_receive(check);
    else if (parsed != PARSE_OK)
        check_fail(check, broken);
    else if (!target)
        check_tell(check, head.status != 407, head.status == 407 ? FAIL_PROXY_AUTH : FAIL_NONE);
    else
        check_tell(check, head.status >= 200 && head.status < 400, head.status < 400 ? FAIL_NONE : broken);
}

/* Void: nothing was learned of the member. */
static bool is_void(enum failure failure)
{
    return failure == FAIL_RESOURCE || failure == FAIL_RESOLVE_SHARE || failure == FAIL_RESOLVE_TIMEOUT;
}

/* The worker's word on its dialling. */
static void check_on_dialled(struct upstream_check *check, int32_t result)
{
    enum failure failure = result > 0 ? (enum failure)check->in[0] : FAIL_RESOURCE;
    if (failure == FAIL_NONE)
        check_begin_talk(check);
    else if (failure >= FAIL_COUNT || is_void(failure))
        check_end(check);
    else
        check_fail(check, failure);
}

static void check_on_received(struct upstream_check *check, int32_t result)
{
    if (result <= 0) {
        check_fail(check, check->member->target ? FAIL_RESPONSE_INCOMPLETE : FAIL_PROXY_CLOSED);
        return;
    }
    check->in_used += (uint32_t)result;
    switch ((enum check_stage)check->stage) {
    case CHECK_METHOD: check_read_method(check); return;
    case CHECK_AUTH: check_read_auth(check); return;
    default: check_read_head(check); return;
    }
}

static void check_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    struct upstream_check *check = (struct upstream_check *)waiter;
    assert(check->inflight & 1u << op);
    check->inflight &= (uint8_t) ~(1u << op);
    if (check->ended || check->stage == CHECK_CLOSING)
        check_join(check);
    else if (op == CHECK_OP_SEND) /* one that fails ends the receive as well */
        return;
    else if (check->stage == CHECK_DIALLING)
        check_on_dialled(check, completion->result);
    else
        check_on_received(check, completion->result);
}

/* --- time --- */

static void check_begin(struct upstream_check *check)
{
    struct coordinator *c = check->c;
    uint32_t timeout_ms = check->group->check_timeout_ms;
    check->begun_ms = ring_now_ms(c->ring);
    check->number++;
    int fd = atomic_load_explicit(&c->stops, memory_order_relaxed) > 0
                 ? -ECANCELED
                 : coordinator_dial_directly(c, &check->member->uri.address, timeout_ms);
    if (fd < 0) {
        coordinator_set_deadline(c, &check->waiter, check->begun_ms + CHECK_AGAIN_MS);
        return;
    }
    check->fd = fd;
    check->stage = CHECK_DIALLING;
    check->end_ms = check->begun_ms + timeout_ms;
    coordinator_set_deadline(c, &check->waiter, check->end_ms);
    ring_recv(c->ring, fd, check->in, 1, check_arm(check, CHECK_OP_RECV));
}

/* A script may have held this thread meanwhile: what has come in time may still wait to be read. */
static void check_on_time(struct waiter *waiter)
{
    struct upstream_check *check = (struct upstream_check *)waiter;
    if (check->stage == CHECK_WAITING)
        check_begin(check);
    else if (ring_now_ms(check->c->ring) > check->end_ms + CHECK_LATE_MS)
        check_end(check);
    else
        check_fail(check, FAIL_CONNECT_TIMEOUT);
}

/* --- opening and closing --- */

static void check_open(struct coordinator *c, struct upstream_group *group, struct group_member *member,
                       uint32_t wait_ms)
{
    struct upstream_check *check = calloc(1, sizeof *check);
    if (check) check->waiter = (struct waiter){.on_completion = check_on_completion, .on_time = check_on_time};
    if (!check || !coordinator_attach(c, &check->waiter)) {
        LOGE("group:%s: not enough memory to check %s", group->name, member->text);
        free(check);
        return;
    }
    check->c = c;
    check->group = group;
    check->fd = -1;
    check->kept = true;
    check->member = member_hold(member);
    link_append(&c->checks, &check->link);
    coordinator_set_deadline(c, &check->waiter, ring_now_ms(c->ring) + wait_ms);
}

static void check_close(struct upstream_check *check)
{
    check->stage = CHECK_CLOSING;
    check->group = NULL;
    if (!check->ended)
        check_end(check);
    else
        check_join(check);
}

static struct upstream_check *check_find(struct coordinator *c, const struct group_member *member)
{
    for (struct link *at = c->checks.next; at != &c->checks; at = at->next) {
        struct upstream_check *check = link_owner(at, struct upstream_check, link);
        if (check->member == member && check->stage != CHECK_CLOSING) return check;
    }
    return NULL;
}

/* First checks come soon, but not all at once. */
static void check_group(struct coordinator *c, struct upstream_group *group, uint32_t *fresh)
{
    for (unsigned i = 0; i < group->count; i++) {
        struct group_member *member = group->seats[i].member;
        struct upstream_check *check = check_find(c, member);
        if (check) {
            check->group = group;
            check->kept = true;
        } else {
            check_open(c, group, member, (*fresh)++ * CHECK_SPREAD_MS % group->interval_ms);
        }
    }
}

void upstream_checks_follow(struct coordinator *c, const struct upstream_groups *groups)
{
    uint32_t fresh = 0;
    struct link *next;
    for (struct link *at = c->checks.next; at != &c->checks; at = at->next)
        link_owner(at, struct upstream_check, link)->kept = false;
    for (uint32_t i = 0; groups && i < groups->count; i++)
        if (groups->all[i]->check != GROUP_CHECK_NONE) check_group(c, groups->all[i], &fresh);
    for (struct link *at = c->checks.next; at != &c->checks; at = next) {
        struct upstream_check *check = link_owner(at, struct upstream_check, link);
        next = at->next;
        if (!check->kept && check->stage != CHECK_CLOSING) check_close(check);
    }
}

void upstream_checks_close(struct coordinator *c)
{
    struct link *next;
    for (struct link *at = c->checks.next; at != &c->checks; at = next) {
        next = at->next;
        check_free(link_owner(at, struct upstream_check, link));
    }
}
