/* What the coordinator calls in lua/, which it does not know. Every function runs on the coordinator's thread. */
#ifndef SLUICE_CORE_CONTROL_HOOKS_H
#define SLUICE_CORE_CONTROL_HOOKS_H

#include <stdint.h>

#include "core/session/route_request.h"

struct coordinator;

struct coordinator_hooks {
    void *context;
    /* A routing question, or the same one again when its ROUTE_TRY has failed. The receiver owns it until
     * coordinator_answer(). */
    void (*on_route)(void *context, struct route_request *request);
    /* Nobody waits for this question's verdict any more: it is still to be answered. If the messages crossed it has
     * been answered already; then a ROUTE_TRY has ended with this, too. */
    void (*on_cancel)(void *context, uint32_t worker, uint32_t slot, uint32_t generation);
    /* A ROUTE_TRY has ended. result 0: the relay runs; else the session is gone. */
    void (*on_routed)(void *context, uint32_t worker, uint32_t slot, uint32_t generation, int32_t result);
    void (*on_turn)(void *context);   /* behind the work of every turn */
    void (*on_reload)(void *context); /* coordinator_reload() */
    void (*on_stop)(void *context);   /* the drain is over: answer every question, end what waits */
};

#endif
