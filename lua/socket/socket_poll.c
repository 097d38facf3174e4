/* socket.poll: sets of sockets. An epoll descriptor per set, so that a select costs the same however many members there
 * are, and one poll on the ring waits for all of them. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "lua/socket/socket_private.h"

#define SET_MAX 65536u

const struct class_key socket_set_class = {"socket.poll"};

struct member {
    struct link link; /* in its handle's members */
    struct set *set;
    int fd;
};

/* Named by a userdata, whose user value is a table of the sockets, which keeps them alive. Not in the userdata itself,
 * because sockets point to their members: Lua drops a finalizer without a word when there is no memory to call it. */
struct set {
    struct handle *handle; /* the epoll descriptor */
    size_t count, live;    /* live: not closed since */
    struct member members[];
};

/* The socket is about to be closed or handed over. Nobody waits for a set in which there is nothing left. */
static void member_leave(struct member *m)
{
    struct set *set = m->set;
    link_remove(&m->link);
    if (!set->handle) return;
    epoll_ctl(set->handle->fd, EPOLL_CTL_DEL, m->fd, NULL);
    if (--set->live == 0) handle_cancel(set->handle, EBADF);
}

void socket_leave_sets(struct handle *h)
{
    while (!link_is_empty(&h->members)) member_leave(link_owner(h->members.next, struct member, link));
}

static struct set **set_box(lua_State *L)
{
    return class_check(L, 1, &socket_set_class);
}

static struct set *set_check(lua_State *L)
{
    struct set *set = *set_box(L);
    if (!set) luaL_argerror(L, 1, "the set is closed");
    return set;
}

void socket_free_set(struct set *set)
{
    handle_close(&set->handle);
    for (size_t i = 0; i < set->count; i++) link_remove(&set->members[i].link);
    free(set);
}

/* A script may call it by itself. */
static int set_collect(lua_State *L)
{
    struct set **box = set_box(L), *set = *box;
    *box = NULL;
    if (set) socket_free_set(set);
    return 0;
}

/* A socket that stands in the list twice is found where it stands first. */
static int set_add(struct set *set, struct handle *h)
{
    struct member *m = &set->members[set->count];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)set->count};
    *m = (struct member){.set = set, .fd = h->fd};
    link_init(&m->link);
    set->count++;
    if (epoll_ctl(set->handle->fd, EPOLL_CTL_ADD, h->fd, &event) < 0) return errno == EEXIST ? 0 : errno;
    link_append(&h->members, &m->link);
    set->live++;
    return 0;
}

/* socket.poll{s1, s2, ...} -> set                                                                    [-0, +1, e] */
int socket_poll(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    size_t count = (size_t)lua_rawlen(L, 1);
    luaL_argcheck(L, count > 0 && count <= SET_MAX, 1, "1...65536 sockets are needed");
    lua_settop(L, 1);
    struct set **box = lua_newuserdatauv(L, sizeof(struct set *), 1);
    *box = NULL;
    class_set(L, &socket_set_class);
    struct set *set = *box = calloc(1, sizeof *set + count * sizeof set->members[0]);
    if (!set) return luaL_error(L, "not enough memory");
    handle_open(L, &set->handle);
    set->handle->set = set;
    set->handle->fd = epoll_create1(EPOLL_CLOEXEC);
    if (set->handle->fd < 0) return socket_raise(L, "poll", errno);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i);
        if (!class_test(L, -1, &socket_class)) return luaL_argerror(L, 1, "table of sockets expected");
        const struct sock *s = socket_check(L, -1, "poll");
        int error = set_add(set, s->handle);
        if (error != 0) return socket_raise(L, "poll", error);
        lua_rawseti(L, 3, (lua_Integer)i);
    }
    lua_setiuservalue(L, 2, 1);
    return 1;
}

static int select_step(lua_State *L, int status, lua_KContext until)
{
    int error = wait_result(L, status, 1), ready;
    const struct set *set = *set_box(L);
    struct epoll_event event;
    if (error == 0 && !set) error = EBADF;
    if (error == 0 && (!set->handle || set->live == 0)) error = EBADF;
    if (error == 0) {
        do {
            ready = epoll_wait(set->handle->fd, &event, 1, 0);
        } while (ready < 0 && errno == EINTR);
        if (ready == 1) {
            lua_pushinteger(L, event.data.u32);
            return 1;
        }
        error = ready < 0 ? errno : wait_begin(L, set->handle, "select", POLLIN, until);
        if (error == 0) return lua_yieldk(L, 0, until, select_step);
    }
    if (error != ETIMEDOUT) return socket_raise(L, "select", error);
    lua_pushnil(L);
    return 1;
}

/* set:select([timeout]) -> index from 0 | nil when the time is over                          [-0, +1, e; yields] */
static int set_select(lua_State *L)
{
    set_check(L);
    lua_Number seconds = luaL_optnumber(L, 2, -1);
    luaL_argcheck(L, seconds <= 1e9, 2, "timeout out of range");
    lua_settop(L, 1);
    return select_step(L, LUA_OK, deadline_after(seconds < 0 ? TIMEOUT_NONE : (uint64_t)(seconds * 1000 + 0.999)));
}

static int set_length(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)set_check(L)->count);
    return 1;
}

void socket_open_sets(lua_State *L)
{
    static const luaL_Reg methods[] = {{"select", set_select}, {NULL, NULL}};
    static const luaL_Reg events[] = {{"__gc", set_collect}, {"__len", set_length}, {NULL, NULL}};
    class_open_hidden(L, &socket_set_class, events);
    luaL_newlib(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
