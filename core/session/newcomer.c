#include "core/session/newcomer.h"

bool newcomer_admits(struct keys *keys, const struct host_port *client, uint64_t now_us, uint32_t *source)
{
    struct address address = host_port_address(client);
    struct limit_key key;
    *source = KEYS_NONE;
    if (!keys || !keys_bound_newcomers(keys)) return true;
    if (address.kind != ADDRESS_IPV4 && address.kind != ADDRESS_IPV6) return true; /* a user of this machine */
    keys_source_key(keys, &address, &key);
    switch (keys_hold(keys, &key, true, now_us, source)) {
    case KEYS_UNBOUNDED: return true;
    case KEYS_FULL: return false;
    case KEYS_FOUND: break;
    }
    if (limit_begin_handshake(keys_at(keys, *source))) return true;
    keys_release(keys, *source);
    return false;
}

void newcomer_change(struct keys *keys, uint32_t source, bool half_open)
{
    if (source == KEYS_NONE) return;
    if (half_open)
        limit_add_handshake(keys_at(keys, source)); /* the next request of a client that is there */
    else
        limit_end_handshake(keys_at(keys, source));
}

bool newcomer_asks(struct keys *keys, uint32_t source)
{
    return source == KEYS_NONE || limit_begin_question(keys_at(keys, source));
}

void newcomer_answered(struct keys *keys, uint32_t source)
{
    if (source != KEYS_NONE) limit_end_question(keys_at(keys, source));
}

void newcomer_release(struct keys *keys, uint32_t source)
{
    if (source != KEYS_NONE) keys_release(keys, source);
}
