/* await.*: what suspends a coroutine (contract section 5.4). Each operation is a block of its own, because the kernel
 * or the resolver may still hold it when its coroutine is gone. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lua/engine/coroutine.h"
#include "lua/engine/entry.h"
#include "lua/engine/state.h"
#include "lua/modules/execute.h"
#include "lua/modules/modules.h"
#include "lua/modules/rpc.h"

/* --- sleep, idle --- */

enum sleep_op { SLEEP_OP_NEXT_TURN };

struct sleep {
    struct park park;
    struct waiter waiter;
    struct engine *engine;
    bool waking; /* the ring holds it */
    bool dead;   /* its coroutine is gone */
};

#define SLEEP_OF(member, pointer) ((struct sleep *)((char *)(pointer)-offsetof(struct sleep, member)))

static void sleep_free(struct sleep *s)
{
    coordinator_detach(s->engine->c, &s->waiter);
    free(s);
}

static void sleep_on_time(struct waiter *waiter)
{
    struct sleep *s = SLEEP_OF(waiter, waiter);
    coroutine_resume(&s->park, NULL);
    sleep_free(s);
}

static void sleep_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    struct sleep *s = SLEEP_OF(waiter, waiter);
    (void)op, (void)completion;
    s->waking = false;
    s->engine->waking--;
    if (!s->dead) coroutine_resume(&s->park, NULL);
    sleep_free(s);
}

static void sleep_abandon(struct park *park)
{
    struct sleep *s = SLEEP_OF(park, park);
    s->dead = true;
    if (!s->waking) sleep_free(s);
}

static int await_nothing(lua_State *L, int status, lua_KContext context)
{
    (void)L, (void)status, (void)context;
    return 0;
}

/* NULL: too many wait already, or no memory. */
static struct sleep *sleep_open(struct engine *e)
{
    struct sleep *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->engine = e->root; /* a script's own engine may be gone before the kernel answers */
    s->waiter = (struct waiter){.on_completion = sleep_on_completion, .on_time = sleep_on_time};
    if (coordinator_attach(e->c, &s->waiter)) return s;
    free(s);
    return NULL;
}

/* await.sleep(n)                                                                              [-0, +0, e; yields] */
static int await_sleep(lua_State *L)
{
    lua_Number seconds = luaL_checknumber(L, 1);
    if (!(seconds >= 0 && seconds <= 1e9)) return luaL_error(L, "n must be finite and in [0, 1e9]");
    coroutine_check(L);
    struct engine *e = engine_of(L);
    struct sleep *s = sleep_open(e);
    if (!s) return luaL_error(L, "too many operations wait already");
    coroutine_park(L, &s->park, sleep_abandon);
    if (seconds > 0) {
        coordinator_set_deadline_us(e->c, &s->waiter, coordinator_after_us((uint64_t)ceil(seconds * 1e6)));
    } else {
        s->waking = true;
        s->engine->waking++;
        ring_wake(coordinator_ring(e->c), coordinator_ring(e->c),
                  coordinator_tag(e->c, &s->waiter, SLEEP_OP_NEXT_TURN));
    }
    return lua_yieldk(L, 0, 0, await_nothing);
}

/* await.idle(): until the next turn, up to 1.2                                                [-0, +0, e; yields] */
static int await_idle(lua_State *L)
{
    lua_settop(L, 0);
    lua_pushinteger(L, 0);
    return await_sleep(L);
}

/* --- resolve --- */

struct lookup {
    struct resolve_question question;
    struct park park;
    bool lent; /* to the resolver, until it has answered */
    bool dead; /* its coroutine is gone */
    bool all;  /* every address is wanted, not only the first */
    int status;
};

#define LOOKUP_OF(member, pointer) ((struct lookup *)((char *)(pointer)-offsetof(struct lookup, member)))

/* The first address, or as many as there are; or nothing. */
static int lookup_push(lua_State *L, const struct lookup *l)
{
    char text[ADDRESS_TEXT_SIZE];
    uint32_t count = l->status < 0 ? 0 : l->question.request.count;
    if (count > 1 && !l->all) count = 1;
    luaL_checkstack(L, (int)count, NULL);
    for (uint32_t i = 0; i < count; i++) {
        const struct resolve_result *result = &l->question.request.results[i];
        struct address address = {.kind = result->kind};
        memcpy(address.ipv6, result->octets, sizeof address.ipv6);
        lua_pushlstring(L, text, address_format_host(&address, text, sizeof text));
    }
    return (int)count;
}

static void lookup_answered(struct resolve_question *question, int status)
{
    struct lookup *l = LOOKUP_OF(question, question);
    l->status = status;
    if (!l->dead) coroutine_resume(&l->park, l);
    free(l);
}

static void lookup_abandon(struct park *park)
{
    struct lookup *l = LOOKUP_OF(park, park);
    if (!l->lent) {
        free(l);
        return;
    }
    l->dead = true;
    atomic_store_explicit(&l->question.request.cancelled, 1, memory_order_relaxed);
}

/* Continuation: the addresses, or what a script has resumed the coroutine with. */
static int lookup_done(lua_State *L, int status, lua_KContext context)
{
    const struct lookup *l = coroutine_result(L);
    (void)status, (void)context;
    return l ? lookup_push(L, l) : lua_gettop(L) - 1;
}

static int lookup_begin(lua_State *L, bool all)
{
    size_t size;
    struct address name;
    const char *host = luaL_checklstring(L, 1, &size);
    lua_settop(L, 1);
    coroutine_check(L);
    if (!address_from_host(host, size, 0, &name)) return 0;
    if (name.kind != ADDRESS_NAME) return 1; /* a literal is its own answer */
    struct engine *e = engine_of(L);
    struct lookup *l = calloc(1, sizeof *l);
    if (!l) return luaL_error(L, "not enough memory");
    l->all = all;
    l->question.answered = lookup_answered;
    l->question.request.name = name;
    l->question.request.family = coordinator_config(e->c)->family;
    coroutine_park(L, &l->park, lookup_abandon);
    int refused = coordinator_resolve(e->c, &l->question);
    l->lent = refused == 0;
    if (refused == -EAGAIN) { /* too many wait already */
        coroutine_unpark(&l->park);
        free(l);
        return 0;
    }
    /* When the process stops, nobody answers: it waits for its end, and cannot ask again and again. */
    return lua_yieldk(L, 0, 0, lookup_done);
}

/* await.resolve(host) -> address | nothing                                                    [-0, +1, e; yields] */
static int await_resolve(lua_State *L)
{
    return lookup_begin(L, false);
}

/* await.addresses(host) -> address, ...                                                       [-0, +n, e; yields] */
static int await_addresses(lua_State *L)
{
    return lookup_begin(L, true);
}

int luaopen_await(lua_State *L)
{
    static const luaL_Reg functions[] = {{"sleep", await_sleep},     {"idle", await_idle},
                                         {"resolve", await_resolve}, {"addresses", await_addresses},
                                         {"forward", await_forward}, {"invoke", await_invoke},
                                         {"execute", await_execute}, {NULL, NULL}};
    rpc_open_class(L);
    luaL_newlib(L, functions);
    return 1;
}
