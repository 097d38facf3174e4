/* Lua on the coordinator's thread: the ruleset, its coroutines and their timers. Scripts decide, workers act.
 *
 * This is the one header of lua/ that api/ and core/main.c see; <lua.h> stays inside. One Lua state for the ruleset and
 * one for each script, every function is called on the coordinator's thread. No error of a script, and no lack of
 * memory in it, leaves the engine: it becomes a text. Texts are malloc'd and the caller's to free, with a terminating
 * zero that `size` does not count.
 */
#ifndef SLUICE_LUA_ENGINE_ENGINE_H
#define SLUICE_LUA_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lua/engine/text.h"

struct config;
struct coordinator;
struct engine;

/* Opens the Lua state with all modules and hooks into the coordinator. 0 or -errno after one log line. */
int engine_open(struct engine **out, struct coordinator *c);
/* Runs what the configuration names (-c, -r): a -c script's fields are checked and written to `config`
 * (contract section 1.4), whose strings then belong to the engine. 0, or -1 after one log line. */
int engine_boot(struct engine *e, struct config *config);
/* Who else has to be content with settings that SIGHUP brings: false, after one log line, and all stays as it was. */
void engine_set_judge(struct engine *e, bool (*judge)(void *context, const struct config *fresh), void *context);
void engine_close(struct engine *e); /* every coroutine and its operation is ended; NULL is fine */

bool engine_has_ruleset(const struct engine *e);
/* SHA-256 of the text that the ruleset came from: the file of -r or -c, or the body of an update; "": there is none. */
const char *engine_source_hash(const struct engine *e);
bool engine_requires_auth(const struct engine *e); /* the ruleset's auth = "required"; NULL: there is none */
uint32_t engine_revision(const struct engine *e);  /* grows with every installed ruleset; 0: there is none */

/* --- what the API asks for; a ruleset must be there except where it says otherwise --- */

/* POST /ruleset/invoke: the source runs at once. 0, or -1 and what was wrong. */
int engine_invoke(struct engine *e, const char *source, size_t size, struct engine_text *error);
/* POST /ruleset/update: replaces the ruleset, or a module. NULL: not given. 0, or -1 and what was wrong; then
 * everything is as before. */
int engine_update(struct engine *e, const char *module, const char *chunkname, const char *source, size_t size,
                  struct engine_text *error);

/* POST /ruleset/rpcall: a job, which runs in a coroutine. `finished` is called exactly once, from here or later: with
 * the answer's body (contract section 4.2, also for errors at run time), or with ok false and a message (the source
 * does not compile). body is borrowed for the call. After engine_job_cancel() it is not called any more. */
struct engine_job;
typedef void engine_finished(void *context, bool ok, const char *body, size_t size);
/* NULL if `finished` has been called already. */
struct engine_job *engine_rpcall(struct engine *e, const char *source, size_t size, engine_finished *finished,
                                 void *context);
void engine_job_cancel(struct engine_job *job);

/* POST /profile: a job that samples what runs in Lua for so long, 1...ENGINE_PROFILE_SECONDS_MAX, one at a time.
 * `finished` as above, with lines of folded stacks, or with ok false and a message. A ruleset need not be there. */
#define ENGINE_PROFILE_SECONDS_MAX 60
bool engine_is_profiling(const struct engine *e);
struct engine_job *engine_profile(struct engine *e, double seconds, engine_finished *finished, void *context);

/* ruleset.stats(dt, q) and ruleset.metrics(): their string, or the error's message. dt in seconds. data NULL: the
 * ruleset has no such function. False: it raised. */
bool engine_stats(struct engine *e, double dt, const char *q, struct engine_text *out);
bool engine_metrics(struct engine *e, struct engine_text *out);
/* ruleset.healthy(): true if there is no ruleset or nothing to complain of, else the complaint. */
bool engine_healthy(struct engine *e, struct engine_text *complaint);

/* The text of a rule's tag, as sluice.tag() has given it to a verdict; NULL: it has none. Lives as long as the engine.
 * Any thread. */
const char *engine_tag(const struct engine *e, uint32_t tag);

struct engine_memory {
    uint64_t bytes, objects; /* blocks that the state's allocator has given out */
    uint64_t limit;          /* --memlimit in bytes; 0: none */
    uint64_t threads, threads_peak;
    /* The last 1,024 entries into Lua, nanoseconds each; count 0: never. */
    uint32_t events;
    uint64_t event_p50, event_p90, event_p99, event_max;
};
void engine_get_memory(const struct engine *e, struct engine_memory *out); /* without a ruleset too */
/* POST /ruleset/gc: a full collection. */
void engine_collect(struct engine *e);
/* What /stats cannot know from the workers: routes asked and decided, and calls made to peers. */
struct engine_counters {
    uint64_t routes, rejects, forwards_failed;
    uint64_t calls, calls_failed, call_bytes_in, call_bytes_out; /* RPC client */
};
void engine_get_counters(const struct engine *e, struct engine_counters *out);
/* --- scripts that run by themselves: --script, and what the API starts ---
 *
 *   RUNNING --its body has ended, and none of its coroutines waits--> FINISHED
 *      `------its body raised--> FAILED
 *
 * Each has a Lua state of its own: no update of the ruleset reaches it, its memory is known to the octet, and its end
 * is that of the state. What has ended is remembered, for the listing, until it is removed or its name is taken again.
 */

#define ENGINE_SCRIPTS_MAX     64u
#define ENGINE_SCRIPT_NAME_MAX 64u /* letters, digits, `.`, `_`, `-`; not `.` in front */

enum engine_script_state { ENGINE_SCRIPT_LOADED, ENGINE_SCRIPT_RUNNING, ENGINE_SCRIPT_FINISHED, ENGINE_SCRIPT_FAILED };
enum engine_script_result {
    ENGINE_SCRIPT_OK,
    ENGINE_SCRIPT_NO_NAME, /* this is no name */
    ENGINE_SCRIPT_TAKEN,   /* one of that name is running */
    ENGINE_SCRIPT_FULL,    /* there are ENGINE_SCRIPTS_MAX */
    ENGINE_SCRIPT_WRONG,   /* it does not compile; nothing has changed */
    ENGINE_SCRIPT_RAISED,  /* at once; it is in the listing, as FAILED */
    ENGINE_SCRIPT_NO_ROOM, /* no memory */
};
/* Reads and compiles the files of --script. 0, or -1 after one log line. */
int engine_load_scripts(struct engine *e, const struct config *config);
/* Starts those that are loaded: the coordinator runs. */
void engine_start_scripts(struct engine *e);
/* POST /scripts: loads and starts. Unless it is OK, `error` says what was wrong. */
enum engine_script_result engine_add_script(struct engine *e, const char *name, const char *source, size_t size,
                                            struct engine_text *error);
/* DELETE /scripts/N: its coroutines are closed, and its sockets. False: there is none. */
bool engine_remove_script(struct engine *e, const char *name);
struct engine_script {
    const char *name;
    enum engine_script_state state;
    uint64_t age_ms;     /* since its start */
    uint64_t memory;     /* octets that its state holds */
    unsigned sockets;    /* open ones; those that a worker relays are in the listing of sessions */
    unsigned coroutines; /* that wait */
    const char *error;   /* the last one, or what it failed with; NULL: none */
};
/* The i-th script, in the order of their starts; false behind the last one. Texts live until the next call. */
bool engine_get_script(struct engine *e, unsigned i, struct engine_script *out);

/* What the API tells scripts of itself (neosocksd.stats). */
struct engine_api_counters {
    uint64_t requests, successes;
};
void engine_set_api_counters(struct engine *e, const struct engine_api_counters *counters);
/* Asked whenever a script looks, so that what it sees is never behind. NULL: what was set last stays. */
typedef void engine_api_reader(void *context, struct engine_api_counters *out);
void engine_set_api_reader(struct engine *e, engine_api_reader *read, void *context);

#endif
