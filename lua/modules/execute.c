#include "lua/modules/execute.h"

#include <errno.h>
#include <lauxlib.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/control/coordinator.h"
#include "core/io/list.h"
#include "lua/engine/coroutine.h"
#include "lua/engine/spawn.h"

/* How often we look where there is no descriptor for a pidfd. */
#define EXECUTE_LOOK_MS 20u

struct execution {
    struct waiter waiter; /* first */
    struct link link;     /* of all that run */
    struct park park;
    struct coordinator *c;
    struct spawned child;
};

static struct link executions = {&executions, &executions};

bool execute_is_idle(void)
{
    return link_is_empty(&executions);
}

void execute_stop(void)
{
    for (struct link *link = executions.next; link != &executions; link = link->next)
        spawn_kill(&link_owner(link, struct execution, link)->child);
}

/* --- the end of a child --- */

static void execution_free(struct execution *x)
{
    coordinator_detach(x->c, &x->waiter);
    link_remove(&x->link);
    if (x->child.pidfd >= 0) close(x->child.pidfd);
    free(x);
}

static int push_status(lua_State *L, int status)
{
    bool exited = WIFEXITED(status);
    int code = exited ? WEXITSTATUS(status) : WTERMSIG(status);
    if (exited && code == 0)
        lua_pushboolean(L, 1);
    else
        lua_pushnil(L);
    lua_pushstring(L, exited ? "exit" : "signal");
    lua_pushinteger(L, code);
    return 3;
}

static void execution_wait(struct execution *x)
{
    if (x->child.pidfd >= 0)
        ring_poll(coordinator_ring(x->c), x->child.pidfd, POLLIN, coordinator_tag(x->c, &x->waiter, 0));
    else
        coordinator_set_deadline(x->c, &x->waiter, coordinator_now_ms(x->c) + EXECUTE_LOOK_MS);
}

/* Reaps it if it has ended, and waits on if not. */
static void execution_look(struct execution *x)
{
    int status = 0;
    pid_t reaped = waitpid(x->child.pid, &status, WNOHANG);
    if (reaped == 0 || (reaped < 0 && errno == EINTR)) {
        execution_wait(x);
        return;
    }
    /* Failing, somebody else has reaped it, a C module of the script perhaps: then it has ended, but nobody knows how.
     */
    if (reaped < 0) status = 0;
    if (x->park.L) coroutine_resume(&x->park, &status);
    execution_free(x);
}

static void execution_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    (void)op;
    (void)completion;
    execution_look((struct execution *)waiter);
}

static void execution_on_time(struct waiter *waiter)
{
    execution_look((struct execution *)waiter);
}

static void execution_abandon(struct park *park)
{
    spawn_kill(&link_owner(park, struct execution, park)->child);
}

/* --- its beginning --- */

/* 0, and it is waited for, or an errno. */
static int execution_start(struct execution *x, const char *command)
{
    if (!coordinator_attach(x->c, &x->waiter)) return EAGAIN;
    int error = spawn_shell(&x->child, command, -1, -1);
    if (error != 0) {
        coordinator_detach(x->c, &x->waiter);
        return error;
    }
    link_append(&executions, &x->link);
    execution_wait(x);
    return 0;
}

/* NULL: no memory. Parking may raise: then the memory is there for the next time. */
static struct execution *execution_park(lua_State *L)
{
    static struct execution *spare;
    struct execution *x = spare ? spare : malloc(sizeof *x);
    if (!x) return NULL;
    *x = (struct execution){.waiter = {.on_completion = execution_on_completion, .on_time = execution_on_time},
                            .child.pidfd = -1};
    x->c = engine_coordinator(engine_of(L));
    spare = x;
    coroutine_park(L, &x->park, execution_abandon);
    spare = NULL;
    return x;
}

static int await_execute_finish(lua_State *L, int status, lua_KContext context)
{
    const int *ended = coroutine_result(L);
    (void)status;
    return ended ? push_status(L, *ended) : lua_gettop(L) - (int)context;
}

int await_execute(lua_State *L)
{
    coroutine_check(L);
    const char *command = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    struct execution *x = execution_park(L);
    if (!x) return luaL_error(L, "not enough memory");
    int error = execution_start(x, command);
    if (error == 0) return lua_yieldk(L, 0, 1, await_execute_finish);
    coroutine_unpark(&x->park);
    free(x);
    lua_pushnil(L);
    lua_pushstring(L, strerror(error));
    lua_pushinteger(L, error);
    return 3;
}
