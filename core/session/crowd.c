/* The table holds those who have a slot, so that it has as many places as there are slots. It is filled from the
 * sessions when handshakes have become many, and forgotten when they are few again. */
#include "core/session/crowd.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/session.h"
#include "core/session/worker.h"

#define CROWD_NONE UINT32_MAX
/* Between two lines about sources that want too much. */
#define CROWD_LOG_MS 60000u

struct member {
    struct share_source source;
    uint32_t held;
    uint32_t next; /* in its list, or of the free ones */
};

struct crowd {
    uint32_t count, buckets; /* of slots; of lists, a power of two */
    bool counting;
    uint64_t logged_ms;        /* 0: never */
    struct share_source asked; /* by crowd_admits() */
    uint32_t free;
    uint32_t *first; /* of each list */
    uint32_t *owner; /* by setup slot: its source */
    struct member *members;
};

int crowd_open(struct crowd **out, uint32_t setups)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);
    *out = crowd;
    if (!crowd) return -ENOMEM;
    crowd->count = setups;
    for (crowd->buckets = 1; crowd->buckets < setups;) crowd->buckets *= 2;
    crowd->first = calloc(crowd->buckets, sizeof *crowd->first);
    crowd->owner = calloc(setups, sizeof *crowd->owner);
    crowd->members = calloc(setups, sizeof *crowd->members);
    if (crowd->first && crowd->owner && crowd->members) return 0;
    crowd_close(crowd);
    *out = NULL;
    return -ENOMEM;
}

void crowd_close(struct crowd *crowd)
{
    if (!crowd) return;
    free(crowd->first);
    free(crowd->owner);
    free(crowd->members);
    free(crowd);
}

/* --- the table --- */

/* Whoever collides on purpose makes lists longer, at most as long as he has slots. */
static uint32_t *crowd_list(const struct crowd *crowd, const struct share_source *source)
{
    uint64_t word;
    memcpy(&word, source->octets, sizeof word);
    uint64_t hash = (word ^ (uint64_t)source->size << 60) * 0x9e3779b97f4a7c15u;
    return &crowd->first[(uint32_t)(hash >> 32) & (crowd->buckets - 1)];
}

static uint32_t crowd_find(const struct crowd *crowd, const struct share_source *source)
{
    uint32_t at = *crowd_list(crowd, source);
    for (; at != CROWD_NONE; at = crowd->members[at].next) {
        const struct share_source *one = &crowd->members[at].source;
        if (one->size == source->size && memcmp(one->octets, source->octets, sizeof one->octets) == 0) break;
    }
    return at;
}

static void crowd_add(struct crowd *crowd, const struct share_source *source, uint32_t setup)
{
    if (source->size == 0) return; /* a user of this machine */
    uint32_t at = crowd_find(crowd, source);
    if (at == CROWD_NONE) {
        at = crowd->free;
        assert(at != CROWD_NONE); /* there are as many as slots */
        uint32_t *list = crowd_list(crowd, source);
        crowd->free = crowd->members[at].next;
        crowd->members[at] = (struct member){.source = *source, .next = *list};
        *list = at;
    }
    crowd->members[at].held++;
    crowd->owner[setup] = at;
}

/* --- counting --- */

static void crowd_begin(struct worker *w)
{
    struct crowd *crowd = w->crowd;
    memset(crowd->first, 0xff, crowd->buckets * sizeof *crowd->first);
    memset(crowd->owner, 0xff, crowd->count * sizeof *crowd->owner);
    for (uint32_t i = 0; i < crowd->count; i++) crowd->members[i].next = i + 1 < crowd->count ? i + 1 : CROWD_NONE;
    crowd->free = 0;
    crowd->counting = true;
    for (uint32_t slot = 0; slot < w->sessions.untouched; slot++) {
        if (!pool_is_taken(&w->sessions, slot)) continue;
        const struct session *s = session_at(w, slot);
        if (s->setup == POOL_NONE || s->fd[CLIENT] < 0 || s->protocol == PROTOCOL_INTERNAL) continue;
        if (s->state == SESSION_ORIGIN) continue; /* nobody knows yet whose it is */
        struct share_source source = share_source_of(&s->client);
        crowd_add(crowd, &source, s->setup);
    }
}

static void crowd_log(struct worker *w, const struct host_port *client, uint32_t held)
{
    char text[ADDRESS_TEXT_SIZE];
    struct address address = host_port_address(client);
    uint64_t now = ring_now_ms(w->ring);
    if (w->crowd->logged_ms > 0 && now - w->crowd->logged_ms < CROWD_LOG_MS) return;
    w->crowd->logged_ms = now;
    address_format_host(&address, text, sizeof text);
    LOGW("accept: %s%s has %u handshakes under way, its share of the slots that are left; more of them are refused",
         text, w->crowd->asked.size > 4 ? "/64" : "", held);
}

/* Of the sessions of the process each worker has about the same part, because the kernel spreads a source's connections
 * among them. */
bool crowd_admits(struct worker *w, const struct host_port *client, uint64_t sessions_left)
{
    struct crowd *crowd = w->crowd;
    uint64_t slots = w->setups.count - w->setups.used, sessions = sessions_left / w->peer_count;
    uint64_t most = sessions < slots ? sessions : slots;
    if (most < CROWD_FLOOR) most = CROWD_FLOOR;
    if (w->setups.used < most) {
        if (crowd->counting && w->setups.used < most / 2) crowd->counting = false;
        if (!crowd->counting) return true;
    }
    if (!crowd->counting) crowd_begin(w);
    crowd->asked = share_source_of(client);
    uint32_t at = crowd_find(crowd, &crowd->asked);
    if (at == CROWD_NONE || crowd->members[at].held < most) return true;
    crowd_log(w, client, crowd->members[at].held);
    return false;
}

void crowd_take(struct worker *w, uint32_t setup)
{
    if (w->crowd->counting) crowd_add(w->crowd, &w->crowd->asked, setup);
}

void crowd_give(struct worker *w, uint32_t setup)
{
    struct crowd *crowd = w->crowd;
    if (!crowd->counting || crowd->owner[setup] == CROWD_NONE) return;
    uint32_t at = crowd->owner[setup];
    struct member *member = &crowd->members[at];
    crowd->owner[setup] = CROWD_NONE;
    if (--member->held > 0) return;
    uint32_t *link = crowd_list(crowd, &member->source);
    while (*link != at) link = &crowd->members[*link].next;
    *link = member->next;
    member->next = crowd->free;
    crowd->free = at;
}
