/* Calls of peers (POST /ruleset/rpcall): code that runs in a coroutine, and its results as literals. And a profile,
 * which is a call of a function of ours whose result is a text. */
#include <stdlib.h>
#include <string.h>

#include "core/io/list.h"
#include "lua/engine/load.h"
#include "lua/engine/profile.h"
#include "lua/engine/state.h"
#include "lua/modules/call.h"
#include "lua/modules/marshal.h"

struct engine_call {
    struct link link; /* of all */
    struct engine *engine;
    struct routine *routine;
    engine_finished *finished; /* NULL: cancelled */
    void *context;
    const char *code;
    size_t size;
    double seconds; /* of a profile, which has no code */
};

static struct link calls = {&calls, &calls};

static void call_free(struct engine_call *call)
{
    link_remove(&call->link);
    free(call);
}

static void call_finish(struct engine_call *call, bool ok, const char *body, size_t size)
{
    engine_finished *finished = call->finished;
    void *context = call->context;
    call_free(call);
    if (finished) finished(context, ok, body, size);
}

/* `return false,"message"`, without Lua: the coroutine may be gone, and memory with it. */
static void call_finish_failed(struct engine_call *call, const char *why)
{
    static const char begin[] = "return false,\"";
    size_t size = strlen(why), used = sizeof begin - 1;
    char *body = malloc(used + size * 4 + 2);
    if (!body) {
        call_finish(call, false, "not enough memory", strlen("not enough memory"));
        return;
    }
    memcpy(body, begin, used);
    for (size_t i = 0; i < size; i++) {
        unsigned char octet = (unsigned char)why[i];
        bool quoted = octet == '"' || octet == '\\' || octet == '\n';
        if (quoted) body[used++] = '\\';
        if (quoted || (octet >= 0x20 && octet != 0x7f)) {
            body[used++] = (char)octet;
            continue;
        }
        body[used++] = '\\';
        body[used++] = (char)('0' + octet / 100);
        body[used++] = (char)('0' + octet / 10 % 10);
        body[used++] = (char)('0' + octet % 10);
    }
    body[used++] = '"';
    call_finish(call, true, body, used);
    free(body);
}

static void call_fail(struct engine_call *call, const char *why)
{
    if (call->code)
        call_finish_failed(call, why);
    else
        call_finish(call, false, why, strlen(why));
}

/* Results cannot be delivered twice: what raises here has delivered nothing, and lost() is called. */
static void call_deliver(struct routine *r, lua_State *L, bool ok, int first)
{
    struct engine_call *call = r->owner;
    size_t size;
    if (!ok) {
        const char *why = engine_error_text(L, first);
        engine_note_error(r->engine, why);
        call_fail(call, why);
        return;
    }
    if (!call->code) {
        const char *text = luaL_checklstring(L, first, &size);
        call_finish(call, true, text, size);
        return;
    }
    luaL_checkstack(L, 4, NULL);
    lua_pushboolean(L, 1);
    lua_insert(L, first);
    marshal_encode(L, first);
    lua_pushliteral(L, "return ");
    lua_insert(L, -2);
    lua_concat(L, 2);
    const char *body = lua_tolstring(L, -1, &size);
    call_finish(call, true, body, size);
}

static void call_lost(struct routine *r, const char *why)
{
    call_fail(r->owner, why);
}

static const struct routine_class call_class = {.deliver = call_deliver, .lost = call_lost, .pooled = true};

static int call_start(lua_State *L)
{
    struct engine_call *call = lua_touserdata(L, 1);
    struct routine **place = &call->routine;
    bool is_profile = !call->code;
    lua_pushnil(L);
    if (is_profile) {
        lua_pushcfunction(L, sluice_profile);
        lua_pushnumber(L, call->seconds);
    } else {
        if (load_chunk(L, call->code, call->size, "=(rpc)") != LUA_OK) return lua_error(L);
        load_sandbox(L);
    }
    routine_start(L, &call_class, call, is_profile ? 1 : 0, place);
    return 0;
}

/* Whether it is still there: it may have finished, and be freed, while it started. */
static bool call_is_open(const struct engine_call *call)
{
    for (const struct link *link = calls.next; link != &calls; link = link->next)
        if (link_owner(link, struct engine_call, link) == call) return true;
    return false;
}

static struct engine_call *call_open(struct engine *e, const struct engine_call *form)
{
    struct engine_text error = {0};
    struct engine_call *call = calloc(1, sizeof *call);
    if (!call) {
        form->finished(form->context, false, "not enough memory", strlen("not enough memory"));
        return NULL;
    }
    *call = *form;
    call->engine = e;
    link_append(&calls, &call->link);
    int result = engine_protect(e, call_start, call, &error);
    bool open = call_is_open(call);
    if (result < 0 && open) {
        const char *text = error.data ? error.data : "not enough memory";
        call_finish(call, false, text, strlen(text));
        open = false;
    }
    engine_text_free(&error);
    return open ? call : NULL;
}

struct engine_call *engine_rpcall(struct engine *e, const char *source, size_t size, engine_finished *finished,
                                  void *context)
{
    return call_open(e, &(struct engine_call){.code = source, .size = size, .finished = finished, .context = context});
}

bool engine_is_profiling(const struct engine *e)
{
    (void)e;
    return profile_is_running();
}

struct engine_call *engine_profile(struct engine *e, double seconds, engine_finished *finished, void *context)
{
    return call_open(e, &(struct engine_call){.seconds = seconds, .finished = finished, .context = context});
}

void engine_call_cancel(struct engine_call *call)
{
    call->finished = NULL;
    routine_cancel(call->routine, "cancelled"); /* call_lost() frees it */
}

void call_stop(void)
{
    while (!link_is_empty(&calls)) {
        const struct engine_call *call = link_owner(calls.next, struct engine_call, link);
        routine_cancel(call->routine, "the server stops");
    }
}
