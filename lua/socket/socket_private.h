/* The inside of the socket module: what its files share.
 *
 *   socket.c          sockets as objects: made, bound, connected, closed
 *   socket_address.c  addresses and flags as scripts write them
 *   socket_error.c    what failing calls raise
 *   socket_message.c  recvmsg, sendmsg, recv, send of tables and buffers
 *   socket_options.c  getsockopt, setsockopt
 *   socket_poll.c     sets of sockets
 *   socket_relay.c    hands two sockets over to a worker
 *   socket_stream.c   receive, send of texts in LuaSocket's manner
 *   socket_wait.c     descriptors, and coroutines that wait for them
 *
 * A call is made at once, without blocking. Only when it would block its coroutine waits for a poll of the descriptor
 * on the ring and makes the call again: so the kernel never holds a pointer into a script's memory. */
#ifndef SLUICE_LUA_SOCKET_SOCKET_PRIVATE_H
#define SLUICE_LUA_SOCKET_SOCKET_PRIVATE_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/io/list.h"
#include "core/io/net.h"
#include "lua/engine/class.h"

/* Octets that a table may hold, and that one call receives into a table. */
#define SOCKET_TABLE_MAX ((size_t)1 << 20)
/* Octets that one socket moves in one turn of the loop; each call counts for SOCKET_CALL more. */
#define SOCKET_BURST ((size_t)1 << 20)
#define SOCKET_CALL  ((size_t)1 << 10)

extern const struct class_key socket_class, socket_error_class, socket_set_class;

/* --- socket_wait.c --- */

struct set; /* socket_poll.c */

/* A descriptor. The object that has it holds one reference, each coroutine that waits for it another. */
struct handle {
    int fd; /* -1: none yet, handed over, or closed */
    unsigned references;
    struct set *set;      /* it is the epoll descriptor of that one, socket_poll.c; NULL: a socket */
    struct link waits;    /* struct wait */
    struct link members;  /* struct member, socket_poll.c: the sets that it is in */
    int door;             /* what it listens on, see core/session/own.h; -1: nothing */
    struct link opened;   /* all that objects have */
    struct engine *owner; /* in whose state its object is */
    uint64_t turn;        /* of the loop, by its time, and what was moved in it */
    size_t moved;
};

/* For the object that has `place`; raises for want of memory. */
void handle_open(lua_State *L, struct handle **place);
/* The object does not need it any more (NULL: it has none): it leaves its sets, and who waits for it goes on with
 * ECANCELED. */
void handle_close(struct handle **place);
/* It listens, or takes datagrams, from now on: no client is led there. 0 or -errno. */
int handle_note_door(struct handle *h);
/* Ends the waiting of all coroutines with this error. */
void handle_cancel(struct handle *h, int error);

/* When a call that begins now has waited for long enough; passed through lua_KContext. */
typedef lua_KContext deadline;
#define DEADLINE_NONE ((deadline)-1)
#define TIMEOUT_NONE  UINT64_MAX
deadline deadline_after(uint64_t timeout_ms);

/* A call has moved so much. NULL: it is closed by now. */
static inline void handle_spend(struct handle *h, size_t octets)
{
    if (h) h->moved += octets + SOCKET_CALL;
}
/* True: it has had its share of this turn, so that a call is to wait first even if it need not. Otherwise two fast
 * peers would keep a script, and all others with it, from ever coming to an end. */
bool handle_is_spent(lua_State *L, struct handle *h);

/* Lets the running coroutine wait until one of the events (poll) is there; events 0: for a moment. 0: the caller
 * returns lua_yieldk() with `until`, and in the continuation asks wait_result(). ETIMEDOUT: `until` has come, nothing
 * waits. EBADF: h is NULL, the socket is closed. Raises outside of a coroutine. */
int wait_begin(lua_State *L, struct handle *h, const char *call, short events, deadline until);
/* At the beginning of each step, with `own` values on its stack: how the waiting went, if there was any. 0 or an errno;
 * EINTR if a script has resumed the coroutine by itself, with whatever it liked, which is popped. */
int wait_result(lua_State *L, int status, int own);

/* --- socket_error.c --- */

/* Raises the object for -errno or errno. */
int socket_raise(lua_State *L, const char *call, int error);
void socket_push_error(lua_State *L, const char *call, int error);
void socket_open_errors(lua_State *L);

/* --- socket.c --- */

struct sock {
    struct handle *handle; /* NULL: closed */
    int family, type;
    uint64_t timeout_ms; /* of each call; TIMEOUT_NONE */
};

/* Its descriptor as it is now, -1: closed, which the kernel answers with EBADF. Whatever allocates in Lua, reads an
 * argument or writes a table may have run Lua, and that may have closed the socket since it was looked at: so no number
 * and no handle is kept across such a thing. */
static inline int socket_fd(const struct sock *s)
{
    return s->handle ? s->handle->fd : -1;
}

/* Whether a call that begins (status LUA_OK) leaves others their turn first. */
static inline bool socket_gives_way(lua_State *L, const struct sock *s, int status)
{
    return status == LUA_OK && s->timeout_ms != 0 && s->handle && handle_is_spent(L, s->handle);
}
/* The open socket at `index`; raises. */
struct sock *socket_check(lua_State *L, int index, const char *call);
/* Pushes a socket without a descriptor, so that none is lost for want of memory. */
struct sock *socket_push(lua_State *L, int family, int type);

/* --- socket_address.c --- */

/* Reads an address at `host` and a port at `port`, for a socket of that family, and returns the length. A Unix socket
 * has a path at `host` alone. Raises argument errors. */
socklen_t address_read(lua_State *L, int family, int host, int port, bool port_optional, struct sockaddr_storage *out);
/* The same from the table at `index`: {addr = host, port = n} or {host, port}. */
socklen_t address_read_table(lua_State *L, int family, int index, struct sockaddr_storage *out);
/* Pushes host and port, or a path: how many values. */
int address_push(lua_State *L, const struct sockaddr_storage *address, socklen_t size);
/* "D", a number, nil. Raises. */
int flags_read(lua_State *L, int index);

/* --- the other files' methods --- */

int socket_recvmsg(lua_State *L);
int socket_sendmsg(lua_State *L);
int socket_recv(lua_State *L);
int socket_send(lua_State *L);
int socket_send_text(lua_State *L);
int socket_receive(lua_State *L);
int socket_getsockopt(lua_State *L);
int socket_setsockopt(lua_State *L);
int socket_poll(lua_State *L);
int socket_relay(lua_State *L);
void socket_open_sets(lua_State *L);
/* A descriptor that a set watches is about to go. */
void socket_leave_sets(struct handle *h);
/* Closes a set whose object is gone. */
void socket_free_set(struct set *set);

#endif
