#include "lua/modules/rpc.h"

#include <assert.h>
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/control/coordinator.h"
#include "core/io/list.h"
#include "core/io/log.h"
#include "lua/engine/class.h"
#include "lua/engine/codec.h"
#include "lua/engine/coroutine.h"
#include "lua/engine/octets.h"
#include "lua/modules/marshal.h"
#include "lua/modules/target.h"
#include "lua/modules/zlib.h"

/* Shorter source is sent as it is: neosocksd does the same. */
#define RPC_DEFLATE_MIN 256u
/* Of a request's body. Peers take RPC_BODY_SIZE_MAX, and say so to whoever sends more; this is where we give up. */
#define RPC_SEND_MAX     CODEC_OUTPUT_MAX
#define RPC_RECEIVE_ROOM ((size_t)4096) /* the largest answer and this: there is always room to receive into */
/* Workers may not run yet, when a ruleset calls while it is loaded, or be busy. */
#define RPC_DIAL_AGAIN_MS 20u

enum rpc_op { RPC_OP_SEND, RPC_OP_RECV };
enum rpc_state {
    RPC_WAITING,    /* no worker has taken the errand; a deadline is set */
    RPC_DIALLING,   /* receive armed: the worker's word */
    RPC_EXCHANGING, /* send armed until all is sent, receive armed */
    RPC_CLOSING,    /* done() has been called, or is not wanted; waiting for `inflight` to reach zero */
};

struct rpc_call {
    struct waiter waiter; /* first */
    struct link link;     /* of all calls */
    struct coordinator *c;
    enum rpc_state state;
    unsigned inflight; /* bits, 1 << enum rpc_op */
    int fd;            /* our end of the worker's socket pair; -1: none yet */
    int send_error;    /* errno of a send that failed: the answer may have come before it */
    uint64_t end_ms;
    rpc_done *done;
    void *context;
    struct address target;
    uint8_t hop_count;
    struct proxy_uri *hops;
    uint8_t *request; /* head and body */
    size_t request_size;
    uint8_t word; /* the worker's: 0, or enum failure */
    struct rpc_answer answer;
    struct octets received;
};

static struct link calls = {&calls, &calls};
static struct rpc_counters counters;

const struct rpc_counters *rpc_get_counters(void)
{
    return &counters;
}

bool rpc_is_idle(void)
{
    return link_is_empty(&calls);
}

/* --- a call's end --- */

static void call_free(struct rpc_call *call)
{
    if (call->fd >= 0) close(call->fd);
    free(call->hops);
    free(call->request);
    free(call->received.data);
    free(call);
}

static void call_join(struct rpc_call *call)
{
    assert(call->state == RPC_CLOSING);
    if (call->inflight != 0) return;
    coordinator_detach(call->c, &call->waiter);
    link_remove(&call->link);
    call_free(call);
}

static void call_close(struct rpc_call *call)
{
    call->state = RPC_CLOSING;
    coordinator_clear_deadline(call->c, &call->waiter);
    if (call->inflight != 0) ring_cancel_fd(coordinator_ring(call->c), call->fd);
}

void rpc_cancel(struct rpc_call *call)
{
    assert(call->state != RPC_CLOSING);
    counters.failed++;
    call_close(call);
    call_join(call);
}

static void call_finish(struct rpc_call *call, bool ok, enum codec codec, const char *data, size_t size)
{
    struct rpc_result result = {.ok = ok, .codec = codec};
    engine_text_set(&result.text, data, size);
    call_close(call);
    call->done(call->context, &result);
    call_join(call);
}

static void call_tell(struct rpc_call *call, const char *text, size_t size)
{
    call_finish(call, false, CODEC_NONE, text, size);
}

static void call_fail(struct rpc_call *call, const char *why)
{
    counters.failed++;
    call_tell(call, why, strlen(why));
}

void rpc_stop(void)
{
    struct link *next;
    for (struct link *link = calls.next; link != &calls; link = next) {
        struct rpc_call *call = link_owner(link, struct rpc_call, link);
        next = link->next;
        if (call->state != RPC_CLOSING) call_fail(call, "cancelled");
    }
}

/* --- the answer --- */

static void call_give(struct rpc_call *call)
{
    static const enum codec codecs[] = {
        [RPC_IDENTITY] = CODEC_NONE, [RPC_DEFLATE] = CODEC_DEFLATE, [RPC_GZIP] = CODEC_GZIP};
    const struct rpc_answer *answer = &call->answer;
    enum codec codec = answer->body_size > 0 ? codecs[answer->coding] : CODEC_NONE;
    call_finish(call, true, codec, call->received.data + answer->body_at, answer->body_size);
}

static void call_answered(struct rpc_call *call)
{
    const struct rpc_answer *answer = &call->answer;
    switch ((enum rpc_outcome)answer->outcome) {
    case RPC_VALUES: call_give(call); return;
    case RPC_MESSAGE: call_tell(call, call->received.data + answer->body_at, answer->body_size); return;
    case RPC_STATUS:
        counters.failed++;
        call_tell(call, call->received.data, answer->status_line_size);
        return;
    case RPC_WRONG_TYPE: call_fail(call, "unsupported content-type"); return;
    case RPC_MALFORMED: call_fail(call, "error parsing response"); return;
    case RPC_UNREADABLE: break;
    }
    call_fail(call, call->send_error != 0 ? strerror(call->send_error) : "error receiving response");
}

/* --- the exchange --- */

static struct ring_tag call_arm(struct rpc_call *call, enum rpc_op op)
{
    assert(!(call->inflight & 1u << op));
    call->inflight |= 1u << op;
    return coordinator_tag(call->c, &call->waiter, op);
}

static void call_receive(struct rpc_call *call)
{
    struct octets *o = &call->received;
    if (octets_reserve(o, 1, RPC_ANSWER_SIZE_MAX + RPC_RECEIVE_ROOM) < 0) {
        call_fail(call, "out of memory");
        return;
    }
    ring_recv(coordinator_ring(call->c), call->fd, o->data + o->size, o->room - o->size, call_arm(call, RPC_OP_RECV));
}

static void call_on_sent(struct rpc_call *call, int32_t result)
{
    if (result > 0) counters.bytes_out += (uint32_t)result;
    if (result < 0)
        call->send_error = -result;
    else if ((size_t)result < call->request_size)
        call->send_error = EPIPE;
}

static void call_on_received(struct rpc_call *call, int32_t result)
{
    if (result <= 0) {
        if (result == 0)
            rpc_answer_end(&call->answer);
        else
            call->answer.outcome = RPC_UNREADABLE;
        call_answered(call);
        return;
    }
    counters.bytes_in += (uint32_t)result;
    call->received.size += (uint32_t)result;
    if (rpc_answer_read(&call->answer, (uint8_t *)call->received.data, &call->received.size))
        call_answered(call);
    else
        call_receive(call);
}

/* The worker has said how its dialling went. Request and answer cross: a peer that refuses need not read to the end. */
static void call_on_dialled(struct rpc_call *call, int32_t result)
{
    if (result <= 0 || call->word >= FAIL_COUNT) {
        call_fail(call, "connection failed");
    } else if (call->word != FAIL_NONE) {
        LOGD("rpc: connection failed: %s", failure_row(call->word)->word);
        call_fail(call, call->word == FAIL_CONNECT_TIMEOUT ? "timeout" : "connection failed");
    } else {
        call->state = RPC_EXCHANGING;
        ring_send(coordinator_ring(call->c), call->fd, call->request, call->request_size, call_arm(call, RPC_OP_SEND));
        call_receive(call);
    }
}

static void call_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    struct rpc_call *call = (struct rpc_call *)waiter;
    assert(call->inflight & 1u << op);
    call->inflight &= ~(1u << op);
    if (call->state == RPC_CLOSING)
        call_join(call);
    else if (call->state == RPC_DIALLING)
        call_on_dialled(call, completion->result);
    else if (op == RPC_OP_SEND)
        call_on_sent(call, completion->result);
    else
        call_on_received(call, completion->result);
}

/* --- a call's beginning --- */

/* NULL, or why there is no connection. */
static const char *call_dial(struct rpc_call *call)
{
    struct coordinator *c = call->c;
    uint64_t now = coordinator_now_ms(c), again_ms = now + RPC_DIAL_AGAIN_MS;
    uint32_t left_ms = (uint32_t)(call->end_ms - now);
    int fd = coordinator_dial(c, &call->target, call->hops, call->hop_count, left_ms);
    if (fd == -ENOMEM) return "out of memory";
    if (fd < 0 && fd != -EAGAIN) return "connection failed";
    coordinator_set_deadline(c, &call->waiter, fd < 0 && again_ms < call->end_ms ? again_ms : call->end_ms);
    if (fd < 0) return NULL;
    call->fd = fd;
    call->state = RPC_DIALLING;
    ring_recv(coordinator_ring(c), fd, &call->word, 1, call_arm(call, RPC_OP_RECV));
    return NULL;
}

static void call_on_time(struct waiter *waiter)
{
    struct rpc_call *call = (struct rpc_call *)waiter;
    assert(call->state != RPC_CLOSING);
    if (call->state != RPC_WAITING || coordinator_now_ms(call->c) >= call->end_ms) {
        call_fail(call, "timeout");
        return;
    }
    const char *error = call_dial(call);
    if (error) call_fail(call, error);
}

/* Head and body in one piece. NULL, or what is wrong. */
static const char *call_write(struct rpc_call *call, const struct rpc_request *request)
{
    uint8_t head[RPC_REQUEST_HEAD_SIZE_MAX];
    bool deflated = request->size >= RPC_DEFLATE_MIN;
    char *body;
    size_t size;
    if (request->size > RPC_SEND_MAX) return strerror(EMSGSIZE);
    if (codec_encode(deflated ? CODEC_DEFLATE : CODEC_NONE, request->code, request->size, &body, &size) != CODEC_OK)
        return "out of memory";
    size_t head_size = rpc_write_request(head, sizeof head, &request->peer, request->path, size, deflated);
    call->request = malloc(head_size + size);
    if (call->request) {
        memcpy(call->request, head, head_size);
        if (size > 0) memcpy(call->request + head_size, body, size);
        call->request_size = head_size + size;
    }
    free(body);
    return call->request ? NULL : "out of memory";
}

static bool call_copy_hops(struct rpc_call *call, const struct rpc_request *request)
{
    if (request->hop_count == 0) return true;
    call->hops = malloc(request->hop_count * sizeof *call->hops);
    if (!call->hops) return false;
    memcpy(call->hops, request->hops, request->hop_count * sizeof *call->hops);
    call->hop_count = request->hop_count;
    return true;
}

static const char *call_open(struct rpc_call *call, const struct rpc_request *request)
{
    if (!call_copy_hops(call, request)) return "out of memory";
    const char *error = call_write(call, request);
    if (error) return error;
    if (!coordinator_attach(call->c, &call->waiter)) return "out of memory";
    error = call_dial(call);
    if (error) coordinator_detach(call->c, &call->waiter);
    return error;
}

struct rpc_call *rpc_start(struct coordinator *c, const struct rpc_request *request, rpc_done *done, void *context,
                           const char **error)
{
    struct rpc_call *call = calloc(1, sizeof *call);
    counters.calls++;
    *error = "out of memory";
    if (call) {
        *call = (struct rpc_call){.waiter = {.on_completion = call_on_completion, .on_time = call_on_time},
                                  .c = c,
                                  .fd = -1,
                                  .end_ms = coordinator_after_ms(request->timeout_ms),
                                  .done = done,
                                  .context = context,
                                  .target = request->peer.address,
                                  .answer.path = (uint8_t)request->path};
        *error = call_open(call, request);
        if (!*error) {
            link_append(&calls, &call->link);
            return call;
        }
        call_free(call);
    }
    counters.failed++;
    return NULL;
}

/* --- for scripts --- */

static void read_peer(lua_State *L, int index, struct rpc_peer *peer)
{
    size_t size;
    const char *text = lua_tolstring(L, index, &size);
    if (!text || !rpc_peer_parse(text, size, peer)) luaL_error(L, "invalid address");
}

/* hops has room for ROUTE_HOPS_MAX. */
static void read_arguments(lua_State *L, enum rpc_path path, struct rpc_request *request, struct proxy_uri *hops)
{
    struct coordinator *c = engine_coordinator(engine_of(L));
    *request = (struct rpc_request){.path = path, .hops = hops, .timeout_ms = coordinator_config(c)->timeout_ms};
    request->code = luaL_checklstring(L, 1, &request->size);
    read_peer(L, 2, &request->peer);
    int count = target_read_hops(L, 3, SIZE_MAX, hops, ROUTE_HOPS_MAX);
    if (count < 0) luaL_error(L, "invalid address");
    request->hop_count = (uint8_t)count;
}

static void log_failure(const char *why)
{
    LOGW("api invoke: %s", why);
}

static void invoke_done(void *context, const struct rpc_result *result)
{
    (void)context;
    if (!result->ok) log_failure(result->text.data ? result->text.data : "out of memory");
    free(result->text.data);
}

int neosocksd_invoke(lua_State *L)
{
    struct rpc_request request;
    struct proxy_uri hops[ROUTE_HOPS_MAX];
    const char *error;
    read_arguments(L, RPC_INVOKE, &request, hops);
    if (engine_is_closing(engine_of(L))) return luaL_error(L, "the server stops"); /* nobody would end the call */
    if (!rpc_start(engine_coordinator(engine_of(L)), &request, invoke_done, NULL, &error)) log_failure(error);
    return 0;
}

/* A call that a coroutine waits for. The coroutine has a box on its stack that names it, and decodes the result there,
 * where Lua's errors are caught and its limits hold. Each of the two may be gone before the other, and Lua drops a
 * finalizer without a word when there is no memory to call it: then this stays, and nothing dangles. */
struct invocation {
    struct park park; /* first */
    struct rpc_call *call;
    unsigned references; /* of the box and of the call */
    bool answered;
    struct rpc_result result;
};
static const struct class_key box_class = {"rpc.box"};

static void invocation_release(struct invocation *invocation)
{
    if (!invocation || --invocation->references > 0) return;
    engine_text_free(&invocation->result.text);
    free(invocation);
}

static int box_collect(lua_State *L)
{
    struct invocation **box = lua_touserdata(L, 1);
    invocation_release(*box);
    *box = NULL;
    return 0;
}

static struct invocation **box_push(lua_State *L)
{
    struct invocation **box = lua_newuserdatauv(L, sizeof(struct invocation *), 0);
    *box = NULL;
    class_set(L, &box_class);
    return box;
}

/* The function that await.invoke() returns: its values, of which nil may be one. Upvalues: a table, their number. */
static int give_values(lua_State *L)
{
    int count = (int)lua_tointeger(L, lua_upvalueindex(2));
    luaL_checkstack(L, count, "too many results");
    for (int i = 1; i <= count; i++) lua_rawgeti(L, lua_upvalueindex(1), i);
    return count;
}

/* Puts the `count` values on the top into such a function. */
static void wrap_values(lua_State *L, int count)
{
    luaL_checkstack(L, 4, NULL);
    lua_createtable(L, count, 0);
    lua_insert(L, -count - 1);
    for (int i = count; i >= 1; i--) lua_rawseti(L, -i - 1, i);
    lua_pushinteger(L, count);
    lua_pushcclosure(L, give_values, 2);
}

static int push_failure(lua_State *L, const char *why, size_t size)
{
    lua_pushboolean(L, 0);
    lua_pushlstring(L, why, size);
    return 2;
}

/* The box is at index 1. */
static int push_result(lua_State *L, const struct rpc_result *result)
{
    static const char no_memory[] = "out of memory", wrong[] = "error parsing response";
    const struct engine_text *text = &result->text;
    if (!text->data) return push_failure(L, no_memory, sizeof no_memory - 1);
    if (!result->ok) return push_failure(L, text->data, text->size);
    lua_pushboolean(L, 1);
    int count = marshal_decode(L, text->data, text->size);
    if (count < 0) {
        LOGD("rpc: %s: %s", wrong, lua_tostring(L, -1));
        return push_failure(L, wrong, sizeof wrong - 1);
    }
    wrap_values(L, count);
    return 2;
}

/* Unpacks what the peer has sent; NULL, or why it cannot be. Raises over the time budget. */
static const char *invocation_unpack(lua_State *L, struct rpc_result *result)
{
    struct engine_text text;
    if (!result->ok || !result->text.data || result->codec == CODEC_NONE) return NULL;
    enum codec_result code = zlib_unpack(L, result->codec, result->text.data, result->text.size, &text);
    if (code == CODEC_OK) {
        engine_text_free(&result->text);
        *result = (struct rpc_result){.ok = true, .text = text};
        return NULL;
    }
    counters.failed++;
    return code == CODEC_NO_MEMORY ? "out of memory" : "error parsing response";
}

static int await_invoke_finish(lua_State *L, int status, lua_KContext context)
{
    struct invocation *invocation = *(struct invocation **)lua_touserdata(L, 1);
    (void)status;
    (void)context;
    if (!invocation->answered) return luaL_error(L, "resumed by a script while waiting for a peer");
    const char *wrong = invocation_unpack(L, &invocation->result);
    int results = wrong ? push_failure(L, wrong, strlen(wrong)) : push_result(L, &invocation->result);
    engine_text_free(&invocation->result.text); /* megabytes perhaps; an error has left it to the collector */
    return results;
}

static void invocation_done(void *context, const struct rpc_result *result)
{
    struct invocation *invocation = context;
    invocation->result = *result;
    invocation->answered = true;
    if (invocation->park.L) coroutine_resume(&invocation->park, NULL);
    invocation_release(invocation);
}

static void invocation_abandon(struct park *park)
{
    struct invocation *invocation = (struct invocation *)park;
    rpc_cancel(invocation->call);
    invocation_release(invocation);
}

/* NULL, or why it did not begin. */
static const char *invocation_start(lua_State *L, struct invocation **box, const struct rpc_request *request)
{
    struct invocation *invocation = calloc(1, sizeof *invocation);
    const char *error = "out of memory";
    if (!invocation) return error;
    invocation->references = 1;
    *box = invocation;
    coroutine_park(L, &invocation->park, invocation_abandon);
    invocation->references = 2;
    invocation->call = rpc_start(engine_coordinator(engine_of(L)), request, invocation_done, invocation, &error);
    if (invocation->call) return NULL;
    coroutine_unpark(&invocation->park);
    invocation_release(invocation);
    return error;
}

int await_invoke(lua_State *L)
{
    struct rpc_request request;
    struct proxy_uri hops[ROUTE_HOPS_MAX];
    coroutine_check(L);
    read_arguments(L, RPC_CALL, &request, hops);
    struct invocation **box = box_push(L);
    lua_rotate(L, 1, 1); /* the source stays below it on the stack, so that it lives */
    const char *error = invocation_start(L, box, &request);
    if (error) return push_failure(L, error, strlen(error));
    lua_settop(L, 1);
    return lua_yieldk(L, 0, 0, await_invoke_finish);
}

void rpc_open_class(lua_State *L)
{
    static const luaL_Reg events[] = {{"__gc", box_collect}, {NULL, NULL}};
    class_open_hidden(L, &box_class, events);
    lua_pop(L, 1);
}
