/* The inside of the engine: what the files of lua/ share. Nobody above lua/ includes it.
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
#include "lua/engine/coroutine.h"
#include "lua/engine/digest.h"
#include "lua/engine/engine.h"
#include "lua/engine/limits.h"

#define ENGINE_EVENTS     1024u
#define ENGINE_ERROR_SIZE 2048u

struct question; /* ruleset.c: a routing question and its coroutine */
struct text_list;

/* A coroutine that waits. A free place has no park and names the next free one. */
struct parked {
    struct park *park;
    lua_CFunction where; /* it waits in: a script may have resumed it by itself, so that it waits elsewhere now */
    uint32_t next_free;
};

struct engine {
    struct limits limits; /* first: the allocator's `ud` is the engine */
    lua_State *L;
    struct coordinator *c;
    /* coordinator_answer(); tests put their own in its place. */
    void (*answer)(struct coordinator *c, struct route_request *request, int32_t result);
    struct engine *root; /* of the process: has the ruleset, and all below that is not of each state; may be this one */
    struct script *script; /* script.c: whose state it is; NULL: the ruleset's */
    uint32_t revision;
    char source_hash[DIGEST_TEXT_SIZE]; /* of the ruleset's text */
    bool has_ruleset, traceback, stopped;
    bool auth;    /* the ruleset wants credentials of every client, see auth.h */
    bool closing; /* no entry any more: no coroutine may begin, wait or go on */
    uint64_t opened_ns;

    /* coroutine.c */
    lua_State *resumed; /* by us, at this moment: a routine that ends otherwise was resumed by a script */
    const void *result; /* of the operation it waited for; its continuation takes it */
    struct parked *parked;
    uint32_t parked_size, parked_free, parked_count;
    struct link routines;    /* all records, those of the pool as well */
    uint64_t tended_entries; /* how many there had been when coroutine_tend() last looked */
    uint64_t tend_ms;        /* not before */
    int pooled;              /* coroutines in the pool */
    uint64_t active, active_peak;
    unsigned depth; /* of engine_enter() */

    /* engine.c: the last entries, nanoseconds */
    uint64_t entry_start_ns, entries;
    uint64_t durations[ENGINE_EVENTS];
    char last_error[ENGINE_ERROR_SIZE]; /* "": none */
    struct engine_counters counters;
    struct engine_api_counters api;
    engine_api_reader *api_reader; /* NULL: `api` stays as it was set */
    void *api_context;

    /* call.c */
    struct engine_call *calls;

    /* ruleset.c */
    struct asked {
        struct question **slots; /* by session slot; NULL: no question */
        uint32_t size;
    } * asked; /* by worker */
    uint32_t asked_size;
    struct waiter ticker;
    uint64_t tick_us;    /* 0: no ticks */
    uint64_t tick_at_us; /* the next one */

    /* tags.c: sessions know their rule's tag by its number */
    char **tags;
    uint32_t tag_count;

    uint32_t waking; /* await.c, wakeup.c: what the ring holds for us, in the root */

    /* wakeup.c: in the root, but for `pauses` */
    struct link ready; /* coroutines that somebody has woken */
    uint32_t ready_count;
    struct waiter wakeup;
    bool wakeup_armed;
    uint32_t pauses; /* serial number of the last one */

    struct text_list *texts;                                  /* boot.c: strings of the configuration */
    bool (*judge)(void *context, const struct config *fresh); /* boot.c; NULL: nobody */
    void *judge_context;
    struct script *scripts; /* script.c */
};

/* --- engine.c --- */

/* Runs `function` in protected mode as an entry of its own, with `argument` as its light userdata. 0, or -1: the error
 * is in `error` (may be NULL) as text. */
int engine_protect(struct engine *e, lua_CFunction function, void *argument, struct engine_text *error);
/* A message handler: with --traceback, a string gets one. Everything else stays as it is. */
int engine_message(lua_State *L);
/* The text of the error object at `index`; never raises, lives as long as that value. */
const char *engine_error_text(lua_State *L, int index);
/* An error that nobody caught: becomes stats().lasterror. */
void engine_note_error(struct engine *e, const char *text);
/* A copy of `size` octets with a terminator; data stays NULL without memory. */
void engine_text_set(struct engine_text *text, const char *data, size_t size);
/* Pushes the function ruleset.<name>, or nothing: false. Raises what metamethods raise. */
bool engine_push_callback(lua_State *L, const char *name);
/* A ruleset is there from now on, or has changed: verdicts that workers remember are void. */
void engine_revise(struct engine *e, bool has_ruleset);
/* Takes over what of the settings concerns the state. */
void engine_obey(struct engine *e, const struct config *config);
/* A state of its own with all modules, for the process (root NULL) or for a script of it. NULL after one log line. */
struct engine *engine_new(struct coordinator *c, struct engine *root);
void engine_free(struct engine *e); /* nothing of it waits any more */

/* --- coroutine.c --- */

struct routine;
/* What a coroutine of ours does at its end. Exactly one of the two is called. */
struct routine_class {
    /* The values from `first` on are the results, or the error if not ok. May raise as long as nothing is delivered. */
    void (*deliver)(struct routine *r, lua_State *L, bool ok, int first);
    /* It will never end: collected, cancelled, or broken (why: a text). Does not raise. */
    void (*lost)(struct routine *r, const char *why);
    lua_CFunction message; /* handles its errors; NULL: engine_message() */
    bool pooled;           /* nobody else has the coroutine: it is used again */
};
/* Not memory of Lua's, and without a finalizer: Lua drops a finalizer without a word when there is no memory or no
 * stack to call it. That a coroutine is gone is noticed by coroutine_tend(). */
struct routine {
    struct link link; /* in its engine's routines */
    struct engine *engine;
    const struct routine_class *class;
    void *owner;
    struct park *park; /* what it waits for, or NULL */
    bool live;         /* started and not at its end */
};

int coroutine_open(lua_State *L); /* registry entries; protected */
/* Between entries: ends the routines whose coroutines have been collected or closed, or were run to their end by a
 * script. Every turn; looks ten times a second at most, and only if Lua has run since. */
void coroutine_tend(struct engine *e);
void coroutine_lose_all(struct engine *e); /* before the state is closed; nothing is started any more */
void coroutine_close(struct engine *e);
/* Ends the operation of every parked coroutine; none will be resumed. */
void coroutine_abandon_all(struct engine *e);
/* Closes every coroutine of the state, with what is to be closed in it; no other can begin or wait from now on. */
void coroutine_close_all(struct engine *e);
/* On the stack: what the class wants on its coroutine (or nil), a function, `arguments` values. Runs the function in a
 * coroutine until it waits or ends; the four become the coroutine. *started is written before it runs. Raises only
 * before it has started. */
void routine_start(lua_State *L, const struct routine_class *class, void *owner, int arguments,
                   struct routine **started);
/* Index on the coroutine's stack, within deliver(), of what the class wanted there. */
#define ROUTINE_EXTRA 2
/* Why a coroutine is lost that nobody will resume. */
#define ROUTINE_ABANDONED "coroutine was abandoned"
/* Closes the coroutine wherever it waits; lost() is called unless it had ended. */
void routine_cancel(struct routine *r, const char *why);
/* The routine whose own coroutine L is; NULL: main thread, or a script's coroutine. */
struct routine *routine_of(lua_State *L);

/* --- ruleset.c --- */

struct coordinator_hooks ruleset_hooks(struct engine *e); /* by which the coordinator, or a test, calls us */
int ruleset_open(struct engine *e);                       /* hooks, ticker; 0 or -errno */
void ruleset_stop(struct engine *e);                      /* answers what is still asked */
void ruleset_close(struct engine *e);
void ruleset_set_interval(struct engine *e, double seconds);
/* Functions for scripts. */
int await_forward(lua_State *L);
int sluice_cache(lua_State *L);
int sluice_tag(lua_State *L);
int sluice_unauthorized(lua_State *L);

/* --- own.c --- */

int sluice_is_own(lua_State *L);

/* --- wakeup.c --- */

int wakeup_open(struct engine *root); /* 0, or -1: too many wait */
void wakeup_close(struct engine *root);

/* --- tags.c --- */

/* The number of the tag whose text the value at `index` becomes; 0: it is empty, or there are too many. Raises what
 * __tostring raises. */
uint32_t tags_number(lua_State *L, int index);
void tags_close(struct engine *e);

/* --- call.c --- */

void call_stop(struct engine *e); /* ends those that wait; each is told */

/* --- script.c --- */

const char *script_name(const struct script *s);
/* After each entry into a script's state: if nothing of it waits any more, it has ended. */
void script_settle(struct script *s);
void script_obey_all(struct engine *root, const struct config *config); /* SIGHUP has brought other settings */
void script_tend_all(struct engine *root);                              /* coroutine_tend() for each */
void script_close_all(struct engine *root);

/* --- await.c, neosocksd.c, settings.c, reload.c --- */

int luaopen_await(lua_State *L);
int luaopen_neosocksd(lua_State *L);
/* Pushes the table of neosocksd.config(). */
int settings_push_all(lua_State *L);
int settings_push_one(lua_State *L);
void boot_reload(struct engine *e); /* SIGHUP */
void settings_close(struct engine *e);

/* Reads what scripts give as an address: `host:port` at `index`. False: it is none. */
bool ruleset_read_address(lua_State *L, int index, struct address *out);
/* Reads the proxies at first...top, where the last value is the first hop. Their number, or -1. Room for `max`. */
int ruleset_read_hops(lua_State *L, int first, struct proxy_uri *hops, unsigned max);

#endif
