#include "core/session/limited.h"

#include <stdio.h>
#include <string.h>

#include "core/io/log.h"
#include "core/session/keys.h"
#include "core/session/tally.h"
#include "core/session/worker.h"

/* While others may still give octets of a quota back. */
#define LIMITED_RETRY_US 5000u

static struct limit *limit_of(const struct worker *w, const struct session *s, unsigned i)
{
    assert(i < s->limit_count);
    return keys_at(w->keys, s->limits[i]);
}

static struct limit_time now_of(const struct worker *w)
{
    return keys_time(w->keys, ring_now_us(w->ring));
}

static enum limit_direction direction_of(enum session_side from)
{
    return from == CLIENT ? LIMIT_UP : LIMIT_DOWN;
}

/* --- which keys --- */

static bool key_of_source(const struct worker *w, const struct session *s, struct limit_key *key)
{
    struct address client = host_port_address(&s->client);
    if (client.kind == ADDRESS_NONE) return false; /* a user of this machine */
    keys_source_key(w->keys, &client, key);
    return true;
}

static bool key_of_target(const struct worker *w, const struct session *s, struct limit_key *key)
{
    const struct address *target = &setup_of(w, s)->target;
    char host[ADDRESS_TEXT_SIZE];
    if (target->kind == ADDRESS_NONE || target->kind == ADDRESS_UNIX) return false;
    if (s->command == SOCKS5_UDP_ASSOCIATE) return false; /* each datagram has its own */
    limit_key_text(LIMIT_TARGET, host, address_format_host(target, host, sizeof host), key);
    return true;
}

static bool key_of_user(const struct worker *w, const struct session *s, struct limit_key *key)
{
    const struct credentials *credentials = &setup_of(w, s)->credentials;
    if (!credentials->present || !credentials->user[0]) return false;
    limit_key_text(LIMIT_USER, credentials->user, strlen(credentials->user), key);
    return true;
}

/* False: the session has no such key. */
static bool key_of(const struct worker *w, const struct session *s, enum limit_kind kind, struct limit_key *key)
{
    const char *listener = w->config->listeners[s->listener].text;
    switch (kind) {
    case LIMIT_SOURCE: return key_of_source(w, s, key);
    case LIMIT_TARGET: return key_of_target(w, s, key);
    case LIMIT_USER: return key_of_user(w, s, key);
    case LIMIT_LISTENER: limit_key_text(kind, listener, strlen(listener), key); return true;
    case LIMIT_TOTAL: limit_key_text(kind, "", 0, key); return true;
    default: return false; /* rules and names come with the verdict */
    }
}

/* --- coming under a limit --- */

static bool is_under(const struct session *s, uint32_t held)
{
    for (unsigned i = 0; i < s->limit_count; i++)
        if (s->limits[i] == held) return true;
    return false;
}

static void log_refusal(struct worker *w, struct session *s, uint32_t held)
{
    char key[LIMIT_KEY_TEXT_SIZE], text[LIMIT_KEY_TEXT_SIZE + 32];
    if (!LOG_ON(LOG_LEVEL_INFO)) return;
    limit_key_format(keys_key(w->keys, held), key, sizeof key);
    snprintf(text, sizeof text, "over the limit of %s", key);
    session_log(w, s, LOG_LEVEL_INFO, text);
}

static enum failure failure_of(enum limit_verdict verdict)
{
    static const enum failure failures[] = {[LIMIT_ADMITTED] = FAIL_NONE,
                                            [LIMIT_CONNECTIONS] = FAIL_LIMIT_CONNECTIONS,
                                            [LIMIT_RATE] = FAIL_LIMIT_RATE,
                                            [LIMIT_QUOTA] = FAIL_QUOTA};
    return failures[verdict];
}

/* Takes over the key that is held. */
static enum failure come_under(struct worker *w, struct session *s, uint32_t held)
{
    struct limit_time time = now_of(w);
    uint64_t wait_us;
    if (is_under(s, held)) {
        keys_release(w->keys, held);
        return FAIL_NONE;
    }
    enum limit_verdict verdict = LIMIT_CONNECTIONS;
    if (s->limit_count < KEYS_PER_SESSION) verdict = limit_admit(keys_at(w->keys, held), &time, &wait_us);
    if (verdict == LIMIT_ADMITTED) {
        s->limits[s->limit_count++] = held;
        return FAIL_NONE;
    }
    log_refusal(w, s, held);
    keys_release(w->keys, held);
    if (verdict == LIMIT_RATE && wait_us < UINT64_MAX && s->setup != POOL_NONE)
        setup_of(w, s)->retry_after_s = (uint32_t)((wait_us + 999999) / 1000000);
    return failure_of(verdict);
}

static enum failure come_under_kind(struct worker *w, struct session *s, enum limit_kind kind, bool stranger)
{
    struct limit_key key;
    uint32_t held;
    if (!(keys_kinds(w->keys) & 1u << kind) || !key_of(w, s, kind, &key)) return FAIL_NONE;
    switch (keys_hold(w->keys, &key, stranger, ring_now_us(w->ring), &held)) {
    case KEYS_FOUND: return come_under(w, s, held);
    case KEYS_FULL: return FAIL_LIMIT_KEYS;
    case KEYS_UNBOUNDED: break;
    }
    return FAIL_NONE;
}

static void leave(struct worker *w, uint32_t held)
{
    limit_leave(keys_at(w->keys, held));
    keys_release(w->keys, held);
}

/* Refused: for those that it has come under since it was under `before` of them it is as if it had not come. */
static enum failure withdraw(struct worker *w, struct session *s, enum failure failure, uint8_t before)
{
    if (failure == FAIL_NONE) return failure;
    while (s->limit_count > before) {
        limit_withdraw(limit_of(w, s, s->limit_count - 1u));
        keys_release(w->keys, s->limits[--s->limit_count]);
    }
    return failure;
}

static bool is_named(const struct worker *w, uint32_t held, const uint64_t *named, uint8_t named_count)
{
    for (unsigned i = 0; i < named_count; i++)
        if (keys_handle(w->keys, held) == named[i]) return true;
    return false;
}

/* Those that an earlier verdict on the same request has named, and this one does not: that try is over. Nothing has
 * moved yet, so that nothing is owed. */
static void leave_earlier(struct worker *w, struct session *s, const uint64_t *named, uint8_t named_count)
{
    uint8_t at = (uint8_t)(s->limit_count - s->limit_named), kept = at;
    for (; at < s->limit_count; at++) {
        if (is_named(w, s->limits[at], named, named_count))
            s->limits[kept++] = s->limits[at];
        else
            leave(w, s->limits[at]);
    }
    s->limit_named = (uint8_t)(s->limit_named - (s->limit_count - kept));
    s->limit_count = kept;
}

enum failure limited_admit_client(struct worker *w, struct session *s)
{
    static const enum limit_kind kinds[] = {LIMIT_SOURCE, LIMIT_LISTENER, LIMIT_TARGET, LIMIT_TOTAL};
    enum failure failure = FAIL_NONE;
    if (!w->keys || s->protocol == PROTOCOL_INTERNAL || keys_kinds(w->keys) == 0) return FAIL_NONE;
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds && failure == FAIL_NONE; i++)
        failure = come_under_kind(w, s, kinds[i], kinds[i] == LIMIT_SOURCE || kinds[i] == LIMIT_TARGET);
    return withdraw(w, s, failure, 0);
}

static enum failure admit_request(struct worker *w, struct session *s, bool proven, const uint64_t *named,
                                  uint8_t named_count)
{
    leave_earlier(w, s, named, named_count);
    uint8_t before = s->limit_count, named_before = s->limit_named;
    enum failure failure = come_under_kind(w, s, LIMIT_USER, !proven);
    for (unsigned i = 0; i < named_count && failure == FAIL_NONE; i++) {
        uint32_t held;
        uint8_t count = s->limit_count;
        failure = keys_hold_again(w->keys, named[i], &held) ? come_under(w, s, held) : FAIL_LIMIT_KEYS;
        s->limit_named = (uint8_t)(s->limit_named + s->limit_count - count);
    }
    if (failure != FAIL_NONE) s->limit_named = named_before;
    return withdraw(w, s, failure, before);
}

enum failure limited_admit_request(struct worker *w, struct session *s, bool proven, const uint64_t *named,
                                   uint8_t named_count)
{
    if (s->protocol == PROTOCOL_INTERNAL) return FAIL_NONE;
    enum failure failure = w->keys ? admit_request(w, s, proven, named, named_count) : FAIL_NONE;
    if (failure == FAIL_NONE) tally_begin(w, s, proven);
    return failure;
}

enum failure limited_admit_more(struct worker *w, struct session *s, const uint64_t *named, uint8_t named_count)
{
    uint8_t before = s->limit_count;
    enum failure failure = FAIL_NONE;
    for (unsigned i = 0; w->keys && i < named_count && failure == FAIL_NONE; i++) {
        uint32_t held;
        failure = keys_hold_again(w->keys, named[i], &held) ? come_under(w, s, held) : FAIL_LIMIT_KEYS;
    }
    return withdraw(w, s, failure, before);
}

bool limited_knows(struct worker *w, const uint64_t *named, uint8_t named_count)
{
    for (unsigned i = 0; i < named_count; i++) {
        uint32_t held;
        if (!w->keys || !keys_hold_again(w->keys, named[i], &held)) return false;
        keys_release(w->keys, held);
    }
    return true;
}

/* --- leaving --- */

void limited_refund(struct worker *w, struct session *s, enum session_side from)
{
    if (s->limit_count == 0) return;
    struct flow *f = &s->flows[from];
    struct limit_time time = now_of(w);
    assert(f->sending == 0); /* the kernel might still deliver it */
    limited_forget(w, s, from);
    limited_settle(w, s, from, 0);
    if (f->taken > f->bytes)
        for (unsigned i = 0; i < s->limit_count; i++)
            limit_refund(limit_of(w, s, i), direction_of(from), f->taken - f->bytes, &time);
    f->taken = f->bytes;
}

void limited_leave(struct worker *w, struct session *s)
{
    tally_end(w, s);
    if (s->limit_count == 0) return;
    limited_refund(w, s, CLIENT);
    limited_refund(w, s, UPSTREAM);
    while (s->limit_count > 0) leave(w, s->limits[--s->limit_count]);
    s->limit_named = 0;
}

/* --- octets --- */

static uint16_t version_of(const struct worker *w, const struct session *s, unsigned i)
{
    return (uint16_t)atomic_load_explicit(&limit_of(w, s, i)->version, memory_order_acquire);
}

static void set_waiting(struct worker *w, struct session *s, enum session_side from, bool waits)
{
    struct limit_ticket *ticket = &s->flows[from].ticket;
    if (ticket->waits == waits) return;
    ticket->waits = waits;
    for (unsigned i = 0; i < s->limit_count; i++) limit_wait(limit_of(w, s, i), direction_of(from), waits ? 1 : -1);
}

/* Booked and not used. */
static void unbook(struct worker *w, struct session *s, enum session_side from, uint32_t octets)
{
    const struct limit_ticket *ticket = &s->flows[from].ticket;
    for (unsigned i = 0; octets > 0 && i < s->limit_count; i++)
        if (ticket->versions[i] == version_of(w, s, i)) limit_unbook(limit_of(w, s, i), direction_of(from), octets);
}

static void keep_ahead(struct worker *w, struct session *s, enum session_side from, unsigned limits, uint32_t octets)
{
    while (limits > 0) limit_keep_ahead(limit_of(w, s, --limits), direction_of(from), octets);
}

/* It has not moved anything for a while: all its limits may let a little pass that is booked for later. */
static void go_ahead(struct worker *w, struct session *s, enum session_side from, uint64_t now)
{
    struct limit_ticket *ticket = &s->flows[from].ticket;
    uint32_t octets = ticket->octets < LIMIT_QUANTUM_MIN ? ticket->octets : LIMIT_QUANTUM_MIN;
    for (unsigned i = 0; i < s->limit_count; i++) {
        if (limit_pass_ahead(limit_of(w, s, i), direction_of(from), octets, now)) continue;
        keep_ahead(w, s, from, i, octets);
        return;
    }
    unbook(w, s, from, ticket->octets - octets);
    ticket->octets = octets;
    ticket->due_us = now;
    ticket->ahead = true;
}

static void book(struct worker *w, struct session *s, enum session_side from, uint32_t wanted)
{
    struct limit_ticket *ticket = &s->flows[from].ticket;
    uint64_t now = ring_now_us(w->ring), due = now;
    bool sparse = ticket->due_us + LIMIT_SPARSE_US <= now;
    *ticket = (struct limit_ticket){.octets = wanted};
    for (unsigned i = 0; i < s->limit_count; i++) {
        ticket->versions[i] = version_of(w, s, i);
        uint32_t quantum = limit_quantum(limit_of(w, s, i), direction_of(from));
        if (quantum < ticket->octets) ticket->octets = quantum;
    }
    for (unsigned i = 0; i < s->limit_count; i++) {
        uint64_t at = limit_book(limit_of(w, s, i), direction_of(from), ticket->octets, now);
        if (at > due) due = at;
    }
    ticket->due_us = due;
    if (sparse && due > now) go_ahead(w, s, from, now);
    set_waiting(w, s, from, ticket->due_us > now);
}

static uint32_t hour_of(const struct limit_time *time)
{
    return (uint32_t)(calendar_find(time->calendar, CALENDAR_HOUR, time->wall_s) / 900); /* zones differ by quarters */
}

/* From all quotas, as much as each of them has. */
static uint32_t take_quotas(struct worker *w, struct session *s, enum session_side from, uint32_t octets, bool *spent)
{
    struct limit_time time = now_of(w);
    for (unsigned i = 0; i < s->limit_count; i++) {
        uint32_t got = limit_take(limit_of(w, s, i), direction_of(from), octets, &time, spent);
        for (unsigned j = 0; j < i && got < octets; j++)
            limit_settle(limit_of(w, s, j), direction_of(from), octets - got, 0, true);
        octets = got;
    }
    s->flows[from].granted_at = hour_of(&time);
    return octets;
}

uint32_t limited_take(struct worker *w, struct session *s, enum session_side from, uint32_t wanted, uint64_t *again_us)
{
    struct flow *f = &s->flows[from];
    struct limit_ticket *ticket = &f->ticket;
    bool spent = false;
    assert(wanted > 0 && f->granted == 0);
    if (limited_is_stale(w, s, from)) limited_forget(w, s, from);
    if (ticket->octets == 0) book(w, s, from, wanted);
    *again_us = ticket->due_us;
    if (ticket->due_us > ring_now_us(w->ring)) return 0;
    uint32_t octets = ticket->octets < wanted ? ticket->octets : wanted;
    octets = take_quotas(w, s, from, octets, &spent);
    unbook(w, s, from, ticket->octets - octets);
    ticket->octets = 0;
    set_waiting(w, s, from, false);
    f->granted = octets;
    if (octets == 0) *again_us = spent ? LIMITED_SPENT : ring_now_us(w->ring) + LIMITED_RETRY_US;
    return octets;
}

uint64_t limited_wake_us(const struct worker *w, const struct session *s, enum session_side from, uint64_t again_us)
{
    for (unsigned i = 0; i < s->limit_count; i++)
        if (!limit_waits_for_late(limit_of(w, s, i), direction_of(from))) return again_us;
    return again_us + (LIMIT_LATE_US - again_us % LIMIT_LATE_US) % LIMIT_LATE_US;
}

void limited_settle(struct worker *w, struct session *s, enum session_side from, uint32_t moved)
{
    struct flow *f = &s->flows[from];
    if (f->granted == 0) return;
    assert(moved <= f->granted);
    struct limit_time time = now_of(w);
    bool same = hour_of(&time) == f->granted_at;
    for (unsigned i = 0; i < s->limit_count; i++)
        limit_settle(limit_of(w, s, i), direction_of(from), f->granted, moved, same);
    unbook(w, s, from, f->granted - moved);
    if (f->ticket.ahead) keep_ahead(w, s, from, s->limit_count, f->granted - moved);
    f->ticket.ahead = false;
    f->granted = 0;
    f->taken += moved;
}

void limited_forget(struct worker *w, struct session *s, enum session_side from)
{
    struct limit_ticket *ticket = &s->flows[from].ticket;
    unbook(w, s, from, ticket->octets);
    ticket->octets = 0;
    set_waiting(w, s, from, false);
}

bool limited_waits(const struct session *s, enum session_side from)
{
    return s->flows[from].ticket.octets > 0;
}

bool limited_is_stale(struct worker *w, const struct session *s, enum session_side from)
{
    const struct limit_ticket *ticket = &s->flows[from].ticket;
    for (unsigned i = 0; ticket->octets > 0 && i < s->limit_count; i++)
        if (ticket->versions[i] != version_of(w, s, i)) return true;
    return false;
}

void limited_count(struct worker *w, struct session *s, enum session_side from, uint64_t octets)
{
    for (unsigned i = 0; i < s->limit_count; i++) limit_count(limit_of(w, s, i), direction_of(from), octets);
    tally_count(w, s, from, octets);
}

/* --- datagrams --- */

static bool pass_speeds(struct worker *w, struct session *s, enum session_side from, uint32_t octets)
{
    uint64_t now = ring_now_us(w->ring);
    for (unsigned i = 0; i < s->limit_count; i++) {
        if (limit_pass(limit_of(w, s, i), direction_of(from), octets, now)) continue;
        while (i > 0) limit_unbook(limit_of(w, s, --i), direction_of(from), octets);
        return false;
    }
    return true;
}

static void settle_datagram(struct worker *w, struct session *s, enum session_side from, uint32_t taken, uint32_t moved)
{
    for (unsigned i = 0; i < s->limit_count; i++)
        limit_settle(limit_of(w, s, i), direction_of(from), taken, moved, true);
}

enum limited_passage limited_pass(struct worker *w, struct session *s, enum session_side from, uint32_t octets)
{
    bool spent = false;
    if (octets == 0 || s->limit_count == 0) return LIMITED_PASSES;
    if (!pass_speeds(w, s, from, octets)) return LIMITED_DROPPED;
    uint32_t taken = take_quotas(w, s, from, octets, &spent);
    settle_datagram(w, s, from, taken, taken == octets ? taken : 0);
    if (taken == octets) return LIMITED_PASSES;
    for (unsigned i = 0; i < s->limit_count; i++) limit_unbook(limit_of(w, s, i), direction_of(from), octets);
    return spent ? LIMITED_OVER : LIMITED_DROPPED;
}

void limited_return(struct worker *w, struct session *s, enum session_side from, uint32_t octets)
{
    if (s->limit_count == 0) return;
    struct limit_time time = now_of(w);
    for (unsigned i = 0; i < s->limit_count; i++) {
        limit_refund(limit_of(w, s, i), direction_of(from), octets, &time);
        limit_unbook(limit_of(w, s, i), direction_of(from), octets);
    }
}
