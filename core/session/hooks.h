/* What the files below steps.c need of those above them. The bodies are in steps.c, which knows all of them. */
#ifndef SLUICE_CORE_SESSION_HOOKS_H
#define SLUICE_CORE_SESSION_HOOKS_H

#include "core/session/session.h"

/* Runs steps from here, `next` being the state that the caller has decided on. */
void session_proceed(struct worker *w, struct session *s, enum session_state next);
/* The letter of a struct verify_request that has come back. */
void session_hook_verified(struct letter *letter);
/* The session is about to close: gives up what its state holds besides sockets. */
void session_hook_drop(struct worker *w, struct session *s);
/* The upstream is given up: ends attempts to connect, and the listener of a BIND. */
void session_hook_drop_attempts(struct worker *w, struct session *s);
/* It is the turn of an exchange's stream to send, for which its limits have made it wait. */
void session_hook_due(struct worker *w, struct session *s, enum session_side from);
/* Dials by the verdict that it has: the request of an exchange that was given up is to be sent again, or it is the
 * control of a chain. */
void session_hook_redial(struct worker *w, struct session *s);
/* A chain of the association of `s` stands, or has failed (udp_chain.h). `s` may be gone afterwards. */
void session_hook_chain(struct worker *w, struct session *s, uint32_t chain);
/* PARTING has no operation left that points into the session's exchange: gives the exchange back. */
void session_hook_release_exchange(struct worker *w, struct session *s);
/* Nothing is in flight any more: other modules give back what they still hold for the session. */
void session_hook_release(struct worker *w, struct session *s);

#endif
