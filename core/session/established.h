/* The upstream is connected, by way of all proxies of the chain if there is one. */
#ifndef SLUICE_CORE_SESSION_ESTABLISHED_H
#define SLUICE_CORE_SESSION_ESTABLISHED_H

#include "core/session/session.h"

/* Queues the success reply: RELAY, or EXCHANGE for plain HTTP, or a failure's state. */
enum session_state established_begin(struct worker *w, struct session *s);

#endif
