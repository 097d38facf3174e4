/* The way of a call to the coordinator and back.
 *
 *   supervisor --lend_call()--> held: its handler runs, and answers now or later --call_reply()--> returned()
 *                    \
 *                     lend_withdraw(): its answer is not wanted any more; it comes back all the same, soon
 *
 * So a call never waits on the supervisor for a coordinator that Lua holds: the connection is answered otherwise then,
 * and the call comes back when it can. How many are out is bounded. */
#ifndef SLUICE_API_LEND_H
#define SLUICE_API_LEND_H

#include "api/call.h"
#include "api/parts.h"
#include "core/io/counter.h"
#include "lua/engine/engine.h"

/* How many may be out, those whose connection has been answered otherwise among them: of the ones that wait for
 * scripts, and of all. */
#define LEND_WAITING_MAX 192u
#define LEND_MAX         320u

struct lending {
    struct api_parts *parts;
    void (*returned)(struct call *call); /* on the supervisor's thread, which has the call again */
    /* the supervisor's */
    uint64_t serial;
    unsigned out, waiting;
    /* the coordinator's */
    struct call *held;
    bool closed;
    /* What the supervisor counts, for the coordinator to read. */
    counter connections, requests, successes, errors, bytes_in, bytes_out;
};

/* --- on the supervisor's thread --- */

/* Whether no other call of that kind may be lent now. */
bool lend_is_full(const struct lending *l, const struct endpoint *endpoint);
/* The call is the coordinator's until returned(). Returns the number under which it can be withdrawn. */
uint64_t lend_call(struct lending *l, struct call *call);
void lend_withdraw(struct lending *l, uint64_t serial);

/* --- on the coordinator's thread --- */

/* Every call that is there, or will come, is answered with 503 and returned; no handler runs any more. */
void lend_close(struct lending *l);
/* For scripts: an engine_api_reader of a lending. */
void lend_read_counters(void *context, struct engine_api_counters *out);

#endif
