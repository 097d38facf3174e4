/* A Lua state of ours: what the rooms of lua/ share. Nobody above lua/ includes it.
 *
 * The rule: Lua may run wherever something is allocated. What makes a string, table, userdata, closure or thread, or
 * turns a number into a text (lua_tolstring, luaL_checkstring), may run finalizers; lua_getfield and
 * lua_setfield on what has metamethods, and every call, run scripts anyway. They may close sockets, receive, resume any
 * coroutine that waits, change any table, and take the place that coroutine_check() has found. So, behind such a thing:
 *
 *   - a descriptor, handle, size or count that was read before is read again, or what depends on it is bounded;
 *   - a pointer into an object holds only while that object is on the stack, and a static block only until then;
 *   - who must not fail calls coroutine_check() again, with nothing of the kind between it and coroutine_park().
 *
 * And nobody pushes values onto a coroutine that waits: see coroutine_resume(). `make gcstress` runs the tests where
 * each allocation runs a full collection and a finalizer that does such things. Raw access, integers, booleans,
 * lua_checkstack() and copies of values that are there run nothing. */
#ifndef SLUICE_LUA_ENGINE_STATE_H
#define SLUICE_LUA_ENGINE_STATE_H

#include <lauxlib.h>
#include <lua.h>

#include "core/control/coordinator.h"
#include "core/io/list.h"
#include "lua/engine/engine.h"
#include "lua/engine/limits.h"

#define ENGINE_ERROR_SIZE 2048u

/* What the rooms above have to do with each state. boot/ knows them all, and has the one table. NULL: nothing. */
struct engine_rooms {
    int (*prepare)(struct engine *e);    /* there is no Lua yet; 0, or -1 without memory */
    void (*open)(lua_State *L);          /* modules; protected */
    void (*on_leave)(struct engine *e);  /* behind each entry */
    void (*on_closed)(struct engine *e); /* Lua has run for the last time */
    void (*release)(struct engine *e);   /* undoes `prepare`, also where that failed; there is no Lua any more */
    /* The text of an error object of theirs at `index`, or NULL. Does not raise, needs three places on the stack; the
     * text lives as long as that value. */
    const char *(*error_text)(lua_State *L, int index);
};

/* --- parts, each known to its owner alone --- */

struct park;

/* A parked coroutine's place. A free one has no park and names the next free one. */
struct parked {
    struct park *park;
    lua_CFunction where; /* it waits in: a script may have resumed it by itself, so that it waits elsewhere now */
    uint32_t next_free;
};

/* coroutine.c */
struct coroutines {
    lua_State *resumed; /* by us, at this moment: a task that ends otherwise was resumed by a script */
    const void *result; /* of the operation it waited for; its continuation takes it */
    struct parked *parked;
    uint32_t parked_size, parked_free, parked_count;
};

/* coroutine_tasks.c */
struct tasks {
    struct link all;         /* those whose coroutines wait in the pool as well */
    uint64_t tended_entries; /* how many there had been when task_tend_all() last looked */
    uint64_t tend_ms;        /* not before */
    int pooled;              /* coroutines in the pool */
    uint64_t active, active_peak;
};

#define ENTRY_DURATIONS 1024u

/* entry.c */
struct entries {
    unsigned depth;    /* of engine_enter() */
    uint64_t start_ns; /* of the one that runs */
    uint64_t count;
    uint64_t durations[ENTRY_DURATIONS]; /* of the last ones, nanoseconds */
};

/* --- the whole --- */

struct engine {
    struct limits limits; /* first: the allocator's `ud` is the engine */
    lua_State *L;
    struct coordinator *c;
    struct engine *root; /* of the process: has what there is once for all states; may be this one */
    const struct engine_rooms *rooms;
    struct coroutines coroutines;
    struct tasks tasks;
    struct entries entries;
    char who[HEARTBEAT_TEXT_SIZE];      /* runs, as others are told */
    char last_error[ENGINE_ERROR_SIZE]; /* "": none */
    uint64_t opened_ns;
    bool traceback;
    bool closing; /* no entry any more: no coroutine may begin, wait or go on */

    /* Of the rooms above: each is known to its owner alone. */
    struct script *script;   /* boot/script.c: whose state it is; NULL: the ruleset's */
    struct boot *boot;       /* boot/boot.h, in the root */
    struct ruleset *ruleset; /* modules/ruleset.h, in the root */
    struct wakeups *wakeups; /* modules/wakeup.c, in the root */
    uint32_t waking;         /* in the root: what the ring holds for pauses, which ends when it comes back */
};

#endif
