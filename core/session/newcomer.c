#include "core/session/newcomer.h"

#include <assert.h>

#include "core/session/keys.h"

static struct limit *limit_of(const struct worker *w, const struct session *s)
{
    return keys_at(w->keys, s->source);
}

static bool key_of(const struct worker *w, const struct host_port *from, struct limit_key *key)
{
    struct address client = host_port_address(from);
    if (client.kind != ADDRESS_IPV4 && client.kind != ADDRESS_IPV6) return false; /* a user of this machine */
    keys_source_key(w->keys, &client, key);
    return true;
}

bool newcomer_admits(struct worker *w, const struct host_port *client, uint32_t *source)
{
    struct limit_key key;
    *source = KEYS_NONE;
    if (!w->keys || !keys_bound_newcomers(w->keys) || !key_of(w, client, &key)) return true;
    switch (keys_hold(w->keys, &key, true, ring_now_us(w->ring), source)) {
    case KEYS_UNBOUNDED: return true;
    case KEYS_FULL: return false;
    case KEYS_FOUND: break;
    }
    if (limit_begin_handshake(keys_at(w->keys, *source))) return true;
    keys_release(w->keys, *source);
    return false;
}

void newcomer_begin(struct session *s, uint32_t source)
{
    assert(s->source == KEYS_NONE);
    s->source = source;
}

void newcomer_change(struct worker *w, const struct session *s, bool half_open)
{
    if (s->source == KEYS_NONE) return;
    if (half_open)
        limit_add_handshake(limit_of(w, s)); /* the next request of a client that is there */
    else
        limit_end_handshake(limit_of(w, s));
}

bool newcomer_asks(struct worker *w, struct session *s)
{
    assert(!s->asks_name);
    if (s->source == KEYS_NONE) return true;
    s->asks_name = limit_begin_question(limit_of(w, s));
    return s->asks_name;
}

void newcomer_answered(struct worker *w, struct session *s)
{
    if (!s->asks_name) return;
    s->asks_name = false;
    limit_end_question(limit_of(w, s));
}

void newcomer_release(struct worker *w, struct session *s)
{
    assert(!s->asks_name);
    if (s->source == KEYS_NONE) return;
    keys_release(w->keys, s->source);
    s->source = KEYS_NONE;
}
