/* States from their beginning to their end: which modules each has, and in what order all of it is opened and closed.
 * This is where the rooms of lua/ meet: engine/ knows the others by struct engine_rooms alone. */
#include <errno.h>
#include <stdlib.h>

#include "lua/boot/boot.h"
#include "lua/boot/script.h"
#include "lua/engine/coroutine.h"
#include "lua/engine/instance.h"
#include "lua/engine/load.h"
#include "lua/engine/task.h"
#include "lua/modules/execute.h"
#include "lua/modules/job.h"
#include "lua/modules/modules.h"
#include "lua/modules/rpc.h"
#include "lua/modules/ruleset.h"
#include "lua/modules/wakeup.h"
#include "lua/socket/socket.h"

#define START_IDLE_MS 5000u

/* --- modules --- */

static void open_module(lua_State *L, const char *name, lua_CFunction open)
{
    luaL_requiref(L, name, open, 1);
    lua_pop(L, 1);
}

static void open_settings(lua_State *L)
{
    static const luaL_Reg functions[] = {{"config", settings_push_all}, {"setting", settings_push_one}, {NULL, NULL}};
    lua_getglobal(L, "neosocksd");
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 1);
}

static int load_sluice(lua_State *L)
{
    lua_getglobal(L, "neosocksd");
    return 1;
}

static void open_all(lua_State *L)
{
    open_module(L, "zlib", luaopen_zlib);
    open_module(L, "regex", luaopen_regex);
    open_module(L, "time", luaopen_time);
    open_module(L, "marshal", luaopen_marshal);
    open_module(L, "await", luaopen_await);
    open_module(L, "neosocksd", luaopen_neosocksd);
    open_settings(L);
    open_module(L, "data", luaopen_data);
    open_module(L, "socket", luaopen_socket);
    luaopen_request(L);
    lua_setglobal(L, "request");
    luaL_requiref(L, "sets", luaopen_sets, 0);
    luaL_requiref(L, "wakeup", luaopen_wakeup, 0);
    luaL_requiref(L, "literals", luaopen_literals, 0);
    lua_pop(L, 3);
    /* One table, two names; the sets stand in it as well. */
    lua_getglobal(L, "neosocksd");
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, "sets");
    for (const char *const *name = (const char *const[]){"domains", "subnets", "subnets6", NULL}; *name; name++) {
        lua_getfield(L, -1, *name);
        lua_setfield(L, -4, *name);
    }
    lua_pop(L, 2);
    lua_setglobal(L, "sluice");
    /* Not loaded, but to be had: messages name a function by the first of its loaded modules. */
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, load_sluice);
    lua_setfield(L, -2, "sluice");
    lua_pop(L, 2);
}

/* --- the rooms --- */

static int prepare(struct engine *e)
{
    if (e->root != e) return 0;
    e->boot = calloc(1, sizeof *e->boot);
    e->ruleset = ruleset_new(e);
    return e->boot && e->ruleset ? 0 : -1;
}

static void on_leave(struct engine *e)
{
    if (e->script) script_settle(e->script);
}

static void on_closed(struct engine *e)
{
    socket_close_all(e);
}

static void release(struct engine *e)
{
    free(e->boot);
    ruleset_free(e->ruleset);
}

static const struct engine_rooms rooms = {.prepare = prepare,
                                          .open = open_all,
                                          .on_leave = on_leave,
                                          .on_closed = on_closed,
                                          .release = release,
                                          .error_text = socket_error_text};

/* --- what the coordinator asks --- */

static void on_reload(void *context)
{
    const struct ruleset *r = context;
    boot_reload(r->engine);
}

static void on_turn(void *context)
{
    const struct ruleset *r = context;
    task_tend_all(r->engine);
    script_tend_all(r->engine);
}

struct coordinator_hooks boot_hooks(struct engine *root)
{
    struct coordinator_hooks hooks = ruleset_hooks(root->ruleset);
    hooks.on_reload = on_reload;
    hooks.on_turn = on_turn;
    return hooks;
}

/* --- opening and closing --- */

int engine_open(struct engine **out, struct coordinator *c)
{
    struct engine *e = engine_new(c, NULL, &rooms, "the script of -r or -c");
    if (!e) return -ENOMEM;
    int opened = wakeup_open(e) < 0 ? -ENOBUFS : ruleset_open(e->ruleset);
    if (opened < 0) {
        if (e->wakeups) wakeup_close(e);
        engine_free(e);
        return opened;
    }
    struct coordinator_hooks hooks = boot_hooks(e);
    coordinator_set_hooks(c, &hooks);
    *out = e;
    return 0;
}

/* Calls to peers, children, polls of sockets and sleeps that were abandoned: their last completions must find their
 * memory. A child that the kernel does not let die is not waited for. */
static void await_idle(struct engine *e)
{
    uint64_t limit = coordinator_now_ms(e->c) + START_IDLE_MS;
    rpc_stop();
    execute_stop();
    while ((!rpc_is_idle() || !execute_is_idle() || !socket_is_idle() || e->waking > 0) &&
           coordinator_now_ms(e->c) < limit)
        if (coordinator_turn(e->c) < 0) return;
}

void engine_close(struct engine *e)
{
    if (!e) return;
    script_close_all(e);
    ruleset_stop(e->ruleset);
    job_stop();
    e->closing = true; /* nothing of it runs any more while the loop turns on, and so nothing begins to wait */
    coroutine_abandon_all(e);
    await_idle(e);
    ruleset_close(e->ruleset);
    wakeup_close(e);
    engine_free(e);
}
