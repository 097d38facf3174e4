/* Routing questions of workers, answered by the ruleset; await.forward.
 *
 *   on_route: ASKED --callback returns--> answered, gone
 *               |--await.forward: ROUTE_TRY--> TRYING --on_route again (it has failed)--> ASKED
 *               |                               `------on_routed (the relay runs, or the session is gone)--> DETACHED
 *               `--on_cancel--> answered -ECANCELED, its coroutine closed
 *
 * A question holds its request from the worker's message until its answer. DETACHED: the coroutine runs on, and nobody
 * waits for what it returns. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "lua/engine/coroutine.h"
#include "lua/engine/entry.h"
#include "lua/engine/state.h"
#include "lua/engine/task.h"
#include "lua/engine/text.h"
#include "lua/modules/given_limits.h"
#include "lua/modules/modules.h"
#include "lua/modules/ruleset.h"
#include "lua/modules/target.h"
#include "lua/modules/upstreams.h"
#include "lua/modules/verdict_options.h"

enum stage { ASKED, TRYING, DETACHED };

struct question {
    struct ruleset *ruleset;
    struct route_request *request; /* ASKED only */
    uint32_t worker, slot, generation;
    enum stage stage;
    uint8_t command;   /* enum route_command */
    bool by_login;     /* the request has not come yet */
    bool forwarded;    /* a try has succeeded: what the callback returns is ignored */
    bool unauthorized; /* it has said so: a refusal is one of who the client says it is */
    uint32_t cache_ms, rule;
    struct given_limits limits;
    struct task *task;
    struct park park; /* TRYING */
};

/* --- which question belongs to a session --- */

static struct question **question_place(struct ruleset *r, uint32_t worker, uint32_t slot)
{
    if (worker >= r->asked_size || slot >= r->asked[worker].size) return NULL;
    return &r->asked[worker].slots[slot];
}

static bool asked_grow(struct ruleset *r, uint32_t worker, uint32_t slot)
{
    if (worker >= r->asked_size) {
        struct asked *bigger = realloc(r->asked, (worker + 1) * sizeof *bigger);
        if (!bigger) return false;
        memset(bigger + r->asked_size, 0, (worker + 1 - r->asked_size) * sizeof *bigger);
        r->asked = bigger;
        r->asked_size = worker + 1;
    }
    struct asked *a = &r->asked[worker];
    uint32_t size = a->size ? a->size : 64;
    while (size <= slot) size *= 2;
    if (size == a->size) return true;
    struct question **slots = realloc(a->slots, size * sizeof(struct question *));
    if (!slots) return false;
    memset(slots + a->size, 0, (size - a->size) * sizeof(struct question *));
    a->slots = slots;
    a->size = size;
    return true;
}

static struct question *question_find(struct ruleset *r, uint32_t worker, uint32_t slot, uint32_t generation)
{
    struct question **place = question_place(r, worker, slot);
    return place && *place && (*place)->generation == generation ? *place : NULL;
}

/* The session is served, or gone; the slot may have another owner soon. */
static void question_detach(struct question *q)
{
    struct question **place = question_place(q->ruleset, q->worker, q->slot);
    if (place && *place == q) *place = NULL;
    q->stage = DETACHED;
}

static void question_answer(struct question *q, int32_t result)
{
    struct route_request *request = q->request;
    q->request = NULL;
    if (!request) return;
    q->ruleset->counters.rejects +=
        result < 0 || request->verdict.order == ROUTE_REJECT || request->verdict.order == ROUTE_UNAUTHORIZED;
    q->ruleset->answer(q->ruleset->engine->c, request, result);
}

static void question_free(struct question *q)
{
    question_detach(q);
    free(q);
}

/* Whether the value is the Unix socket that the question is about, as it was asked. Scripts cannot name another one: a
 * client could, if they make an address of what it has said. */
static bool keeps_path(lua_State *L, int index, const struct route_request *request)
{
    char asked[ADDRESS_TEXT_SIZE];
    if (request->target.kind != ADDRESS_UNIX || lua_type(L, index) != LUA_TSTRING) return false;
    address_format(&request->target, asked, sizeof asked);
    return strcmp(lua_tostring(L, index), asked) == 0 && lua_gettop(L) == index;
}

/* The values from `first` on are an address and its proxies, and perhaps a table of options; the chain of -x comes
 * before the proxies. NULL, or what is wrong, as long as the stack is what it is: `neither` if it is no address. */
static const char *read_verdict(lua_State *L, int first, struct route_request *request, const struct ruleset *r,
                                const char *neither)
{
    const struct config *config = coordinator_config(r->engine->c);
    struct route_verdict *verdict = &request->verdict;
    const char *wrong = verdict_options_are_there(L, first) ? verdict_options_take(L, verdict) : NULL;
    if (wrong) return wrong;
    memcpy(request->hops, config->hops, config->hop_count * sizeof *config->hops);
    if (keeps_path(L, first, request))
        verdict->target = request->target;
    else if (!target_read_address(L, first, &verdict->target))
        return neither;
    int own = target_read_hops(L, first + 1, TARGET_TEXT_MAX, request->hops + config->hop_count,
                               ROUTE_HOPS_MAX - config->hop_count);
    if (own < 0) return neither;
    verdict->hop_count = (uint8_t)(config->hop_count + (uint32_t)own);
    verdict->hops = request->hops;
    char why[128];
    return upstreams_judge(r->engine->c, verdict, why, sizeof why) ? NULL : lua_pushstring(L, why);
}

/* The rule and the limits that the ruleset has given to the request so far. */
static void write_marks(struct question *q, struct route_verdict *verdict)
{
    const struct engine *e = q->ruleset->engine;
    verdict->rule = q->rule;
    given_limits_write(e->c, &q->limits, engine_tag(e, q->rule), verdict);
}

/* --- the callback's coroutine --- */

/* What is true lets the client go on. */
static void decide_login(struct question *q, lua_State *L, int first)
{
    bool good = lua_gettop(L) >= first && lua_toboolean(L, first);
    q->request->verdict =
        (struct route_verdict){.order = good ? ROUTE_ACCEPT : ROUTE_UNAUTHORIZED, .cache_ms = good ? q->cache_ms : 0};
}

static void question_fail(struct question *q, const char *why)
{
    LOG_LINES(LOG_LEVEL_ERROR, "ruleset error: %s", why);
    engine_note_error(q->ruleset->engine, why);
    if (q->request) q->request->verdict = (struct route_verdict){.order = ROUTE_REJECT};
}

static void decide(struct question *q, lua_State *L, int first)
{
    struct route_request *request = q->request;
    luaL_checkstack(L, 4, NULL);
    request->verdict = (struct route_verdict){.order = q->unauthorized ? ROUTE_UNAUTHORIZED : ROUTE_REJECT};
    if (lua_gettop(L) < first || !lua_toboolean(L, first)) return;
    const char *wrong =
        read_verdict(L, first, request, q->ruleset, "the decision is neither nil, false nor host:port and proxy URIs");
    if (wrong) {
        question_fail(q, wrong);
        return;
    }
    request->verdict.order = ROUTE_DIAL;
    request->verdict.cache_ms = q->cache_ms;
    write_marks(q, &request->verdict);
}

static void question_deliver(struct task *t, lua_State *L, bool ok, int first)
{
    struct question *q = t->owner;
    if (!ok)
        question_fail(q, engine_error_text(L, first));
    else if (q->request && q->request->callback == ROUTE_BY_LOGIN)
        decide_login(q, L, first);
    else if (q->request)
        decide(q, L, first);
    question_answer(q, 0);
    question_free(q);
}

static void question_lost(struct task *t, const char *why)
{
    struct question *q = t->owner;
    if (q->request) question_fail(q, why);
    question_answer(q, -EIO);
    question_free(q);
}

static const struct task_class question_class = {.deliver = question_deliver, .lost = question_lost, .pooled = true};

static const char *callback_name(const struct route_request *request)
{
    switch ((enum route_callback)request->callback) {
    case ROUTE_BY_IPV4: return "route";
    case ROUTE_BY_IPV6: return "route6";
    case ROUTE_BY_LOGIN: return "login";
    case ROUTE_BY_NAME: break;
    }
    return "resolve";
}

static void push_target(lua_State *L, const struct address *target)
{
    char text[ADDRESS_TEXT_SIZE];
    size_t size = address_format(target, text, sizeof text);
    lua_pushlstring(L, size > 0 ? text : ":0", size > 0 ? size : 2); /* a forwarder that leaves it to us */
}

static struct question *question_of(lua_State *L)
{
    struct task *t = task_of(L);
    return t && t->active && t->class == &question_class ? t->owner : NULL;
}

/* user or nil, password or nil. SOCKS4 has no passwords. */
static void push_credentials(lua_State *L, const struct credentials *c)
{
    lua_pushstring(L, c->present ? c->user : NULL);
    lua_pushstring(L, c->present && !c->user_only ? c->password : NULL);
}

/* Only credentials are judged. A ruleset without `login` has no word on them yet. */
static int login_start(lua_State *L, struct question *q)
{
    lua_pushnil(L);
    if (!ruleset_push_callback(L, "login")) {
        q->request->verdict = (struct route_verdict){.order = ROUTE_ACCEPT};
        question_answer(q, 0);
        question_free(q);
        return 0;
    }
    push_credentials(L, q->request->credentials);
    task_start(L, &question_class, q, 2, &q->task);
    return 0;
}

/* --- a request whose credentials were not judged before it: first `login`, then the callback --- */

#define ADMISSION_VALUES 5 /* login, callback, address, user, password */

static int admission_decided(lua_State *L, int status, lua_KContext context)
{
    (void)status, (void)context;
    return lua_gettop(L) - ADMISSION_VALUES;
}

static int admission_judged(lua_State *L, int status, lua_KContext context)
{
    struct question *q = question_of(L);
    bool good = lua_toboolean(L, -1);
    (void)status, (void)context;
    lua_settop(L, ADMISSION_VALUES);
    if (!q) return 0;
    q->cache_ms = 0; /* it was about the credentials */
    q->unauthorized = !good;
    if (!good) return 0;
    for (int i = 2; i <= ADMISSION_VALUES; i++) lua_pushvalue(L, i);
    lua_callk(L, 3, LUA_MULTRET, 0, admission_decided);
    return admission_decided(L, LUA_OK, 0);
}

static int admission_body(lua_State *L)
{
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 4);
    lua_pushvalue(L, 5);
    lua_callk(L, 2, 1, 0, admission_judged);
    return admission_judged(L, LUA_OK, 0);
}

/* Arguments of the callback: address and credentials. */
static int question_start(lua_State *L)
{
    struct question *q = lua_touserdata(L, 1);
    const struct route_request *request = q->request;
    const char *name = callback_name(request);
    bool wanted = q->ruleset->auth || coordinator_config(q->ruleset->engine->c)->auth_required;
    if (request->callback == ROUTE_BY_LOGIN) return login_start(L, q);
    lua_pushnil(L);
    lua_pushcfunction(L, admission_body);
    bool judge = wanted && !request->admitted && ruleset_push_callback(L, "login");
    if (!judge) lua_pop(L, 1);
    if (!ruleset_push_callback(L, name)) return luaL_error(L, "the ruleset has no function %s", name);
    push_target(L, &request->target);
    push_credentials(L, request->credentials);
    task_start(L, &question_class, q, judge ? ADMISSION_VALUES : 3, &q->task);
    return 0;
}

static void reject_unheard(struct ruleset *r, struct route_request *request, int32_t result)
{
    request->verdict = (struct route_verdict){.order = ROUTE_REJECT};
    r->counters.rejects++;
    r->answer(r->engine->c, request, result);
}

static struct question *question_open(struct ruleset *r, struct route_request *request)
{
    const struct message *origin = &request->origin;
    struct question *q = asked_grow(r, request->origin_worker, origin->slot) ? calloc(1, sizeof *q) : NULL;
    if (!q) return NULL;
    *q = (struct question){.ruleset = r,
                           .request = request,
                           .command = request->command,
                           .by_login = request->callback == ROUTE_BY_LOGIN,
                           .worker = request->origin_worker,
                           .slot = origin->slot,
                           .generation = origin->generation};
    *question_place(r, q->worker, q->slot) = q;
    return q;
}

/* --- the coordinator's hooks --- */

/* What await.forward() has come to; its texts are static. */
struct forwarded {
    bool ok;
    const char *why, *label; /* unless it is ok; label NULL: none */
};

static void forward_failed(struct question *q, const char *why, const char *label);
static void forward_refused(struct question *q, enum failure failure);

static void ruleset_on_route(void *context, struct route_request *request)
{
    struct ruleset *r = context;
    const struct message *origin = &request->origin;
    struct question *q = question_find(r, request->origin_worker, origin->slot, origin->generation);
    struct engine_text error = {0};
    if (q && q->stage == TRYING) {
        q->request = request;
        q->stage = ASKED;
        r->counters.forwards_failed++;
        forward_refused(q, (enum failure)request->failure);
        return;
    }
    if (request->failure != FAIL_NONE) { /* the coroutine that tried is gone: it is not asked all over again */
        reject_unheard(r, request, 0);
        return;
    }
    r->counters.routes++;
    if (r->stopped || !(q = question_open(r, request))) {
        reject_unheard(r, request, r->stopped ? -ECANCELED : -ENOMEM);
        return;
    }
    int result = engine_protect(r->engine, question_start, q, &error);
    /* It may have been answered, and freed, by now; only one that could not begin is still without a task. */
    q = question_find(r, request->origin_worker, origin->slot, origin->generation);
    if (result < 0 && q && !q->task) {
        question_fail(q, error.data ? error.data : "not enough memory");
        question_answer(q, 0);
        question_free(q);
    }
    engine_text_free(&error);
}

static void ruleset_on_cancel(void *context, uint32_t worker, uint32_t slot, uint32_t generation)
{
    struct ruleset *r = context;
    struct question *q = question_find(r, worker, slot, generation);
    if (!q) return; /* answered, the messages have crossed */
    if (q->stage == TRYING) {
        question_detach(q);
        forward_failed(q, "request cancelled", NULL);
        return;
    }
    question_answer(q, -ECANCELED);
    task_cancel(q->task, "request cancelled"); /* question_lost() frees it */
}

static void ruleset_on_routed(void *context, uint32_t worker, uint32_t slot, uint32_t generation, int32_t result)
{
    struct ruleset *r = context;
    struct question *q = question_find(r, worker, slot, generation);
    if (!q || q->stage != TRYING) return;
    question_detach(q);
    if (result < 0) {
        r->counters.forwards_failed++;
        forward_failed(q, result == -ETIMEDOUT ? "timeout" : "request cancelled", NULL);
        return;
    }
    q->forwarded = true;
    if (q->park.L) coroutine_resume(&q->park, &(struct forwarded){.ok = true});
}

static void ruleset_on_stop(void *context)
{
    ruleset_stop(context);
}

void ruleset_stop(struct ruleset *r)
{
    r->stopped = true;
    for (uint32_t worker = 0; worker < r->asked_size; worker++) {
        for (uint32_t slot = 0; slot < r->asked[worker].size; slot++) {
            struct question *q = r->asked[worker].slots[slot];
            if (!q) continue;
            question_answer(q, -ECANCELED);
            task_cancel(q->task, "the server stops");
        }
    }
}

/* --- await.forward --- */

/* The contract's words (section 2.2), which scripts compare. */
static const char *forward_word(enum failure failure)
{
    switch (failure) {
    case FAIL_RESOLVE:
    case FAIL_RESOLVE_TIMEOUT: return "name resolution failed";
    case FAIL_BLOCKED: return "connection blocked by policy";
    case FAIL_PROXY_AUTH: return "proxy authentication failed";
    case FAIL_PROXY_REJECTED: return "request rejected by proxy";
    case FAIL_PROXY_REFUSED:
    case FAIL_PROXY_NETWORK:
    case FAIL_PROXY_HOST:
    case FAIL_PROXY_TTL: return "proxy refused connection";
    case FAIL_PROXY_PROTOCOL: return "proxy protocol error";
    case FAIL_PROXY_CLOSED: return "unexpected end of connection";
    case FAIL_RESOURCE: return "system error";
    default: return "connection failed";
    }
}

/* label: ours, NULL where no try has failed. */
static void forward_failed(struct question *q, const char *why, const char *label)
{
    struct forwarded result = {.why = why, .label = label};
    if (q->park.L) coroutine_resume(&q->park, &result); /* else a script has resumed it by itself */
}

static void forward_refused(struct question *q, enum failure failure)
{
    forward_failed(q, forward_word(failure), failure_row(failure)->label);
}

static void forward_abandon(struct park *park)
{
    (void)park; /* the worker goes on; what it will say finds no question */
}

/* Continuation: how it went, or what a script has resumed the coroutine with. */
static int forward_done(lua_State *L, int status, lua_KContext context)
{
    const struct forwarded *result = coroutine_result(L);
    (void)status;
    if (!result) return lua_gettop(L) - (int)context;
    luaL_checkstack(L, 3, NULL);
    lua_pushboolean(L, result->ok);
    if (result->ok) return 1;
    lua_pushstring(L, result->why);
    lua_pushstring(L, result->label);
    return 3;
}

/* Datagrams fail in silence: the first way is the one that they go. */
static int forward_datagrams(lua_State *L, struct question *q)
{
    q->request->verdict.order = ROUTE_DIAL;
    q->forwarded = true;
    question_detach(q);
    question_answer(q, 0);
    lua_pushboolean(L, 1);
    return 1;
}

/* await.forward(addr, proxyN, ..., proxy1 [, options]) -> true | false, message[, label] | nil           [-0, +3, e;
 * yields] */
int await_forward(lua_State *L)
{
    struct question *q = question_of(L);
    if (!q) return luaL_error(L, "await.forward must be called from a ruleset request handler");
    if (q->forwarded || q->stage != ASKED || !q->request || q->request->callback == ROUTE_BY_LOGIN)
        return luaL_error(L, "await.forward: the request is not forwardable");
    if (lua_isnoneornil(L, 1)) {
        lua_pushnil(L);
        return 1;
    }
    struct route_request *request = q->request;
    coroutine_check(L);
    request->verdict = (struct route_verdict){.order = ROUTE_TRY};
    const char *wrong = read_verdict(L, 1, request, q->ruleset, "invalid address");
    if (wrong) return luaL_error(L, "%s", wrong);
    write_marks(q, &request->verdict);
    if (request->command == ROUTE_ASSOCIATE) return forward_datagrams(L, q);
    coroutine_park(L, &q->park, forward_abandon);
    q->stage = TRYING;
    question_answer(q, 0);
    return lua_yieldk(L, 0, lua_gettop(L), forward_done);
}

/* The index of the global table `request`: request.command -> what the client wants, nil where no request is being
 * decided; other fields are nil.                                                                     [-0, +1, -] */
static int request_index(lua_State *L)
{
    static const char *const commands[] = {[ROUTE_CONNECT] = "connect",
                                           [ROUTE_BIND] = "bind",
                                           [ROUTE_ASSOCIATE] = "associate",
                                           [ROUTE_REQUEST] = "request"};
    const struct question *q = question_of(L);
    bool command = lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "command") == 0;
    lua_pushstring(L, q && command && !q->by_login ? commands[q->command] : NULL);
    return 1;
}

int luaopen_request(lua_State *L)
{
    lua_newtable(L);
    lua_newtable(L);
    lua_pushcfunction(L, request_index);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    return 1;
}

/* sluice.cache(seconds)                                                                              [-0, +0, e] */
int sluice_cache(lua_State *L)
{
    struct question *q = question_of(L);
    lua_Number seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0 && seconds <= 86400, 1, "give 0 to 86400 seconds");
    if (!q) return luaL_error(L, "sluice.cache must be called from a ruleset request handler");
    q->cache_ms = (uint32_t)(seconds * 1000);
    return 0;
}

/* sluice.tag(text) -> whether there is a request that is being decided                                [-0, +1, e] */
int sluice_tag(lua_State *L)
{
    struct question *q = question_of(L);
    luaL_checkany(L, 1);
    if (q) q->rule = tags_number(L, 1);
    lua_pushboolean(L, q != NULL);
    return 1;
}

/* sluice.limit(key [, terms])                                                                         [-0, +0, e] */
int sluice_limit(lua_State *L)
{
    struct question *q = question_of(L);
    if (!q || (q->request && q->request->callback == ROUTE_BY_LOGIN))
        return luaL_error(L, "sluice.limit must be called from a ruleset request handler");
    given_limits_add(L, q->ruleset->engine->c, &q->limits);
    return 0;
}

/* sluice.unauthorized() -> whether there is a request that is being decided                           [-0, +1, -]
 * If it is refused, the client is told that user and password are wrong, and may give others. */
int sluice_unauthorized(lua_State *L)
{
    struct question *q = question_of(L);
    if (q) q->unauthorized = true;
    lua_pushboolean(L, q != NULL);
    return 1;
}

/* --- opening and closing --- */

struct ruleset *ruleset_new(struct engine *root)
{
    struct ruleset *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->engine = root;
    r->answer = coordinator_answer;
    return r;
}

void ruleset_free(struct ruleset *r)
{
    if (!r) return;
    for (uint32_t i = 0; i < r->asked_size; i++) free(r->asked[i].slots);
    free(r->asked);
    tags_close(r);
    free(r);
}

struct ruleset *ruleset_of(const struct engine *e)
{
    return e->root->ruleset;
}

struct coordinator_hooks ruleset_hooks(struct ruleset *r)
{
    return (struct coordinator_hooks){.context = r,
                                      .on_route = ruleset_on_route,
                                      .on_cancel = ruleset_on_cancel,
                                      .on_routed = ruleset_on_routed,
                                      .on_stop = ruleset_on_stop};
}
