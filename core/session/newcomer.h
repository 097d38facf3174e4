/* What a source has under way before anybody knows what it wants: half-open connections and questions to the resolver,
 * which cost us something and nobody anything. Two terms of limits of sources bound them (half-open, resolving); as
 * long as no limit has such a term nothing is looked up or counted here.
 *
 * A connection over its bound is reset at accept, for it has not said yet which protocol's refusal it would understand.
 * A question over its bound is not asked, and the request that needs it is refused.
 *
 * Knows no session: each has the key of its source, KEYS_NONE if nobody counts it, which is good for all of these. keys
 * may be NULL: nothing is bounded. */
#ifndef SLUICE_CORE_SESSION_NEWCOMER_H
#define SLUICE_CORE_SESSION_NEWCOMER_H

#include "core/session/keys.h"
#include "protocols/host_port.h"

/* A connection of that client has just been accepted. False: it is to be refused. *source: the key, held; its
 * handshake is counted. */
bool newcomer_admits(struct keys *keys, const struct host_port *client, uint64_t now_us, uint32_t *source);
/* Its connection has become half-open, or is so no more. */
void newcomer_change(struct keys *keys, uint32_t source, bool half_open);
/* Whether it may ask the resolver something: newcomer_answered() follows. */
bool newcomer_asks(struct keys *keys, uint32_t source);
void newcomer_answered(struct keys *keys, uint32_t source);
/* Its connection has ended; nothing of it counts any more. */
void newcomer_release(struct keys *keys, uint32_t source);

#endif
