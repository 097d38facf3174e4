/* The process's ruleset: the global table `ruleset` of the root's state, and what is known of it outside of Lua.
 *
 *   ruleset.c          questions of workers, and await.forward
 *   ruleset_ticker.c   ruleset.tick
 *   ruleset_install.c  how a table becomes the ruleset, or another module is replaced
 *   ruleset_report.c   what it and its state have to tell: stats, metrics, healthy, counters
 *   tags.c             tags of rules */
#ifndef SLUICE_LUA_MODULES_RULESET_H
#define SLUICE_LUA_MODULES_RULESET_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/control/coordinator.h"
#include "lua/engine/digest.h"
#include "lua/engine/engine.h"

struct question; /* ruleset.c */

/* One for the process, in struct engine of the root. */
struct ruleset {
    struct engine *engine;

    /* ruleset_install.c */
    bool is_there;
    bool auth; /* it wants credentials of every client, see auth.h */
    uint32_t revision;
    char source_hash[DIGEST_TEXT_SIZE]; /* of its text */

    /* ruleset.c. `answer` is coordinator_answer(); tests put their own in its place. */
    void (*answer)(struct coordinator *c, struct route_request *request, int32_t result);
    bool stopped; /* the process ends: what is asked is refused */
    struct asked {
        struct question **slots; /* by session slot; NULL: no question */
        uint32_t size;
    } * asked; /* by worker */
    uint32_t asked_size;
    struct engine_counters counters;

    /* ruleset_ticker.c */
    struct waiter ticker;
    uint64_t tick_us;    /* 0: no ticks */
    uint64_t tick_at_us; /* the next one */

    /* tags.c: sessions know their rule's tag by its number */
    char **tags; /* room for TAGS_MAX from the first one on: other threads read them */
    _Atomic uint32_t tag_count;

    /* ruleset_report.c: what scripts are told of the API */
    struct engine_api_counters api;
    engine_api_reader *api_reader; /* NULL: `api` stays as it was set */
    void *api_context;
};

struct ruleset *ruleset_new(struct engine *root);   /* NULL: no memory */
void ruleset_free(struct ruleset *r);               /* NULL is fine */
struct ruleset *ruleset_of(const struct engine *e); /* of whatever state */
void ruleset_stop(struct ruleset *r);               /* answers what is still asked, and refuses what comes */
/* By which the coordinator, or a test, asks. Without on_reload and on_turn: these concern boot/ as well. */
struct coordinator_hooks ruleset_hooks(struct ruleset *r);

/* --- ruleset_install.c --- */

/* A ruleset is there from now on, or has changed: verdicts that workers remember are void. */
void ruleset_revise(struct ruleset *r, bool is_there);
/* Text of a ruleset, or of a module. */
struct ruleset_source {
    const char *module;    /* its name; NULL: the ruleset */
    const char *chunkname; /* NULL: as the module */
    const char *code;
    size_t size;
};
/* Runs it; the table that it returns becomes the ruleset, unless it has no answer to what `config` asks of it. Raises
 * what is wrong.                                                                                    [-0, +0, e] */
void ruleset_run(lua_State *L, const struct ruleset_source *source, const struct config *config);
/* Pushes the function ruleset.<name>, or nothing: false. Raises what metamethods raise. */
bool ruleset_push_callback(lua_State *L, const char *name);

/* --- ruleset_ticker.c --- */

int ruleset_open(struct ruleset *r); /* 0 or -errno */
void ruleset_close(struct ruleset *r);
/* negative: as often as it makes sense; 0: no ticks */
void ruleset_set_interval(struct ruleset *r, double seconds);

/* --- tags.c --- */

/* The number of the tag whose text the value at `index` becomes; 0: it is empty, or there are too many. Raises what
 * __tostring raises. */
uint32_t tags_number(lua_State *L, int index);
void tags_close(struct ruleset *r);

#endif
