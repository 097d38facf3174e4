/* The client of a peer's API (contract section 4): one call is one connection.
 *
 *   rpc_start > waiting for a worker > dialling > exchanging > closing > gone
 *                 every 20 ms          first octet   done()     when nothing is in flight
 *
 * A call is bounded in time and in octets. What a peer answers is hostile: it is judged by rpc_message, decoded with a
 * limit, and read as literals; nothing of it is ever compiled. Everything here runs on the coordinator's thread. */
#ifndef SLUICE_LUA_MODULES_RPC_H
#define SLUICE_LUA_MODULES_RPC_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lua/engine/codec.h"
#include "lua/engine/text.h"
#include "protocols/rpc_message.h"
#include "protocols/url.h"

struct coordinator;
struct rpc_call;

struct rpc_request {
    enum rpc_path path;
    struct rpc_peer peer;
    const struct proxy_uri *hops; /* in the order of travel; copied */
    uint8_t hop_count;
    const char *code; /* Lua source; copied */
    size_t size;
    uint32_t timeout_ms; /* for all of it */
};

/* ok: the text of the values (RPC_CALL), packed by `codec`: unpacking may take long, and is for who has a time budget.
 * Else why not, as it is. The text is the receiver's; data NULL: out of memory. */
struct rpc_result {
    bool ok;
    enum codec codec;
    struct engine_text text;
};
typedef void rpc_done(void *context, const struct rpc_result *result);

/* Never calls `done` itself; that happens later, exactly once, unless the call is cancelled first. NULL: it cannot be
 * made, and *error is a text that says why. */
struct rpc_call *rpc_start(struct coordinator *c, const struct rpc_request *request, rpc_done *done, void *context,
                           const char **error);
/* `done` is not called any more; the peer may have run the source already. Not after `done`. */
void rpc_cancel(struct rpc_call *call);
/* The process stops, every park has been abandoned: what is left ends with `cancelled`. Turns of the coordinator then
 * make rpc_is_idle() true; until then the kernel may write to the memory of calls, cancelled ones too. */
void rpc_stop(void);
bool rpc_is_idle(void);

struct rpc_counters {
    uint64_t calls, failed; /* a peer's own error message is no failure */
    uint64_t bytes_in, bytes_out;
};
const struct rpc_counters *rpc_get_counters(void);

/* Once in each state, for what await.invoke() keeps on the stack of its coroutine.                   [-0, +0, m] */
void rpc_open_class(lua_State *L);
/* await.invoke(code, addr, proxyN, ..., proxy1) -> true, function | false, message          [-0, +2, e; yields] */
int await_invoke(lua_State *L);
/* neosocksd.invoke(code, addr, proxyN, ..., proxy1): nobody waits, failures are logged.              [-0, +0, e] */
int neosocksd_invoke(lua_State *L);

#endif
