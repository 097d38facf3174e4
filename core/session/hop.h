/* The client side of proxy protocols: speaks to the proxies of a chain, one after the other, on one connection. */
#ifndef SLUICE_CORE_SESSION_HOP_H
#define SLUICE_CORE_SESSION_HOP_H

#include "core/session/session.h"

enum hop_stage { HOP_METHOD, HOP_AUTH, HOP_REPLY };

/* The first proxy of a chain is connected: sends the first request. HOP, or a failure's state. */
enum session_state hop_begin(struct worker *w, struct session *s);
enum session_state hop_step(struct worker *w, struct session *s);

#endif
