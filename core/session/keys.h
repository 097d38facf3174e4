/* The table of keys: who is under which limit. One for the process; its memory is bounded, and taken as it is needed.
 *
 * Workers find keys, and make them, without locks: a key that is held cannot leave. When the table is full, a key that
 * nobody holds, and that was not used for long (second chance), makes room for a new one. Those that keep a quota stay
 * until its period is over, those that were put stay until they are removed. Keys that strangers choose (a source, a
 * target, a user that nobody has proven) fill three quarters at most: then they make room for each other alone. So a
 * source that has a million addresses pushes neither users out, nor anybody who has a session or a quota; where no
 * room is left, whoever needs it is refused, never let in without a limit. */
#ifndef SLUICE_CORE_SESSION_KEYS_H
#define SLUICE_CORE_SESSION_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/session/limit.h"
#include "core/session/past.h"

#define KEYS_PER_SESSION 4u
#define KEYS_NONE        UINT32_MAX /* no key */
#define KEYS_DEFAULT     100000u    /* by default */
#define KEYS_MAX         10000000u

struct keys;

/* Room for `keys` of them. now_us: of the rings' clock; wall_s: what the wall clock says at that moment. 0 or -ENOMEM.
 */
int keys_open(struct keys **out, uint32_t keys, uint64_t now_us, int64_t wall_s);
void keys_close(struct keys *keys);

/* --- any thread --- */

/* The clock as limits need it. */
struct limit_time keys_time(const struct keys *keys, uint64_t now_us);
/* Bits (1 << kind) of the kinds that sessions are under; TOTAL to SOURCE alone. */
uint32_t keys_kinds(const struct keys *keys);
/* Whether a limit bounds handshakes of sources, or their questions to the resolver. */
bool keys_bound_newcomers(const struct keys *keys);
/* The key of that client, as the limit of each source has it. */
void keys_source_key(const struct keys *keys, const struct address *client, struct limit_key *key);

enum keys_found { KEYS_FOUND, KEYS_UNBOUNDED, KEYS_FULL };

/* Holds the key, which is made if its kind has a limit for each. UNBOUNDED: it is not known, and nothing bounds it.
 * FULL: there is no room. stranger: who it is was chosen by a client, and not proven. */
enum keys_found keys_hold(struct keys *keys, const struct limit_key *key, bool stranger, uint64_t now_us,
                          uint32_t *out);
/* The same by a handle of keys_handle(). False: that key has left. */
bool keys_hold_again(struct keys *keys, uint64_t handle, uint32_t *out);
void keys_release(struct keys *keys, uint32_t held);
uint64_t keys_handle(const struct keys *keys, uint32_t held);
struct limit *keys_at(struct keys *keys, uint32_t held);
const struct limit_key *keys_key(const struct keys *keys, uint32_t held);

/* --- one thread, the coordinator --- */

/* Keeps calendar and wall clock right: at least once a minute. */
void keys_update_clock(struct keys *keys, uint64_t now_us, int64_t wall_s);

enum keys_change {
    KEYS_CHANGED,  /* or made */
    KEYS_SAME,     /* it had these terms */
    KEYS_NO_ROOM,  /* the table is full of keys that stay */
    KEYS_TOO_MANY, /* kinds: a session is under KEYS_PER_SESSION limits at most */
};

/* Sets the terms of a key, or of each key of a kind. It stays until it is removed. */
enum keys_change keys_put(struct keys *keys, const struct limit_key *key, const struct limit_terms *terms,
                          uint64_t now_us);
/* The same for a name that a ruleset gives to a request: it stays as long as sessions or its quota need it. Its handle
 * is for the workers. */
enum keys_change keys_name(struct keys *keys, const struct limit_key *key, const struct limit_terms *terms,
                           uint64_t now_us, uint64_t *handle);
/* Takes the terms away: a key of a kind that has a limit for each obeys that from now on. False: it had none. */
bool keys_remove(struct keys *keys, const struct limit_key *key, uint64_t now_us);

/* --- accounts (core/usage) --- */

/* From now on what keys use is collected, and a key that comes in has used what `past` says. Before there are workers:
 * 0 or -ENOMEM. Later, by the thread that collects: another past; the one before is to be kept until nobody reads it
 * any more. */
int keys_keep_accounts(struct keys *keys, const struct past *past);
void keys_set_past(struct keys *keys, const struct past *past);
/* Keys that were put before the past was filled have used what it says, too. Before there are workers. */
void keys_restore(struct keys *keys, uint64_t now_us);

/* Whether it matters what the key has used, these sums: sessions are under it, it keeps a quota, or it would have one
 * with octets in it if it came in now. Of a name only the ruleset can tell while it is not in the table. Any thread. */
bool keys_need(struct keys *keys, const struct limit_key *key, const struct limit_sums *sums,
               const struct limit_time *time);
/* Bits (1 << kind) of the kinds of which a key may have a quota. */
uint32_t keys_quota_kinds(const struct keys *keys);

typedef void keys_take(void *context, const struct limit_key *key, const struct limit_use *use);
/* Hands out what was used since the last call. One thread. */
void keys_collect(struct keys *keys, keys_take *take, void *context);
/* The same by keys that have left: once a second, as there is room for DEPARTURES_MAX of them. */
void keys_collect_departed(struct keys *keys, keys_take *take, void *context);

/* A key with a quota. */
struct keys_quota {
    struct limit_key key;
    uint64_t handle;        /* see keys_handle() */
    uint32_t periods;       /* bits (1 << enum limit_period) of its quotas */
    uint32_t connections;   /* at the moment */
    uint64_t counted[2];    /* octets, since it came into the table */
    struct limit_sums sums; /* what it has used */
};
/* The next one from `at` on, which goes behind it. False: there are no more. */
bool keys_next_quota(struct keys *keys, uint32_t *at, uint64_t now_us, struct keys_quota *row);
/* limit_set_elsewhere() and limit_give() for that key, if it has not left. One thread. */
void keys_set_elsewhere(struct keys *keys, uint64_t handle, enum limit_period period, int64_t begin,
                        const uint64_t octets[2]);
void keys_give(struct keys *keys, uint64_t handle, const uint64_t octets[2], uint64_t now_us);

/* What is shown of a key. */
struct keys_row {
    struct limit_key key;
    uint64_t handle; /* see keys_handle(); its lower half is below keys_room(). The limit of each has none */
    struct limit_terms terms;
    bool put; /* it has terms of its own, which stay */
    uint32_t connections, half_open, resolving, waiting;
    uint64_t admitted, refused, octets[2], used[LIMIT_DIRECTIONS];
};
/* The next key from `at` on, with limits for each first; `at` goes behind it. False: there are no more. */
bool keys_next(struct keys *keys, uint32_t *at, uint64_t now_us, struct keys_row *row);
enum keys_place { KEYS_ROW, KEYS_GAP, KEYS_END };
/* The same, one place at a time: for who has little time. GAP: there is no key in it. */
enum keys_place keys_look(struct keys *keys, uint32_t *at, uint64_t now_us, struct keys_row *row);
/* The key of that handle. False: it has left. */
bool keys_show(struct keys *keys, uint64_t handle, uint64_t now_us, struct keys_row *row);
bool keys_find(struct keys *keys, const struct limit_key *key, uint64_t now_us, struct keys_row *row);
uint32_t keys_count(const struct keys *keys); /* keys in the table */
uint32_t keys_room(const struct keys *keys);  /* as many as there may be */

#endif
