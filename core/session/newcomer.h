/* What a source has under way before anybody knows what it wants: half-open connections and questions to the resolver,
 * which cost us something and nobody anything. Two terms of limits of sources bound them (half-open, resolving); as
 * long as no limit has such a term nothing is looked up or counted here.
 *
 * A connection over its bound is reset at accept, for it has not said yet which protocol's refusal it would understand.
 * A question over its bound is not asked, and the request that needs it is refused. */
#ifndef SLUICE_CORE_SESSION_NEWCOMER_H
#define SLUICE_CORE_SESSION_NEWCOMER_H

#include "core/session/session.h"

/* A connection of that client has just been accepted. False: it is to be refused. *source: the key of its source, held
 * and counted, for newcomer_begin(); KEYS_NONE: nobody counts it. */
bool newcomer_admits(struct worker *w, const struct host_port *client, uint32_t *source);
/* The session of that connection, which is half-open. */
void newcomer_begin(struct session *s, uint32_t source);
/* It has become half-open, or is so no more. */
void newcomer_change(struct worker *w, const struct session *s, bool half_open);
/* Whether it may ask the resolver something: newcomer_answered() follows. */
bool newcomer_asks(struct worker *w, struct session *s);
/* An answer has come; of whomever. */
void newcomer_answered(struct worker *w, struct session *s);
/* It ends, and is half-open no more. */
void newcomer_release(struct worker *w, struct session *s);

#endif
